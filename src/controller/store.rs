//! The store that a `KmsSecret` names: whether it may be used, where its KMS is, and whose identity it takes.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use serde_json::{Value, json};

use super::Context;
use super::ca_bundle::ca_bundle;
use super::caches::Labels;
use super::identity::Identity;
use crate::alibaba::SignatureMethod;
use crate::alibaba::endpoint::{Origin, paired, resolve as resolve_endpoint, resolve_sts};
use crate::api::kms_secret::{StoreKind, StoreStatus};
use crate::api::kms_store::{BatchMode, CaBundleRef, Network, Signature, StoreSettings};
use crate::api::{ClusterKmsStore, KmsSecret, KmsStore};
use crate::metrics::StoreLabels;
use crate::sync::hash::fnv1a;
use crate::sync::sources::check_regions;
use crate::sync::{Failure, Reason, tenancy};

/// Calls a second that a store makes at most, unless it says otherwise.
const PER_SECOND: f64 = 100.0;

/// The store that a `KmsSecret` names, as the cache has it.
enum Found {
    OfNamespace(Arc<KmsStore>),
    OfCluster(Arc<ClusterKmsStore>),
}

/// A store of either kind, as its spec says it.
pub(super) struct Store<'a> {
    kind: StoreKind,
    /// Empty for a `ClusterKmsStore`.
    namespace: String,
    name: String,
    uid: String,
    generation: i64,
    settings: &'a StoreSettings,
    /// Namespace and reference of the certificates that it trusts.
    ca_bundle_ref: Option<(&'a str, &'a CaBundleRef)>,
    /// By whom KMS is read.
    auth: Value,
    identity: Option<Identity>,
}

/// A store that can be used, but for its credentials, which are read when they are needed.
pub(super) struct Resolved {
    /// What a status says of it; also what makes it another identity.
    pub(super) status: StoreStatus,
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) sts: Origin,
    /// The STS that knows the operator itself.
    pub(super) own_sts: Origin,
    pub(super) labels: StoreLabels,
    pub(super) ca_bundle: Option<String>,
    pub(super) method: SignatureMethod,
    pub(super) batch: bool,
    pub(super) per_second: f64,
    pub(super) identity: Arc<Identity>,
}

/// Finds the store that `object` names and checks that it may be used.
pub(super) async fn resolve(object: &KmsSecret, context: &Context) -> Result<Resolved, Failure> {
    let found = find(object, context)?;
    let (sources, name) = (object.spec.all_sources(), &object.spec.store_ref.name);
    check_regions(&sources, &found.settings().region, name)?;
    found.store().resolve(context).await
}

/// The region of the store that `object` names, if the object may use it.
pub(super) fn region(object: &KmsSecret, context: &Context) -> Result<String, Failure> {
    find(object, context).map(|found| found.settings().region.clone())
}

fn find(object: &KmsSecret, context: &Context) -> Result<Found, Failure> {
    match object.store_kind() {
        StoreKind::KmsStore => find_store(object, context).map(Found::OfNamespace),
        StoreKind::ClusterKmsStore => find_cluster_store(object, context).map(Found::OfCluster),
    }
}

impl Found {
    fn settings(&self) -> &StoreSettings {
        match self {
            Self::OfNamespace(store) => &store.spec.settings,
            Self::OfCluster(store) => &store.spec.settings,
        }
    }

    fn store(&self) -> Store<'_> {
        match self {
            Self::OfNamespace(store) => Store::from(&**store),
            Self::OfCluster(store) => Store::from(&**store),
        }
    }
}

fn find_store(object: &KmsSecret, context: &Context) -> Result<Arc<KmsStore>, Failure> {
    let (namespace, name) = (
        object.namespace().unwrap_or_default(),
        &object.spec.store_ref.name,
    );
    let store = context
        .caches
        .stores
        .get(&ObjectRef::<KmsStore>::new(name).within(&namespace));
    store.ok_or_else(|| {
        Failure::new(
            Reason::StoreNotFound,
            format!("there is no KmsStore {name:?} in namespace {namespace:?}"),
            "create it, or mend spec.storeRef",
        )
    })
}

fn find_cluster_store(
    object: &KmsSecret,
    context: &Context,
) -> Result<Arc<ClusterKmsStore>, Failure> {
    let (namespace, name) = (
        object.namespace().unwrap_or_default(),
        &object.spec.store_ref.name,
    );
    let cluster = context.caches.cluster.as_ref().ok_or_else(|| {
        Failure::new(
            Reason::StoreNotFound,
            "this operator serves no ClusterKmsStores, since it looks at some namespaces only (--namespace)",
            "use a KmsStore of this namespace",
        )
    })?;
    let store = cluster
        .stores
        .get(&ObjectRef::<ClusterKmsStore>::new(name))
        .ok_or_else(|| {
            Failure::new(
                Reason::StoreNotFound,
                format!("there is no ClusterKmsStore {name:?}"),
                "create it, or mend spec.storeRef",
            )
        })?;
    check_tenant(object, &store, &cluster.labels_of(&namespace))?;
    Ok(store)
}

/// Checks that a cluster store was given to the object's namespace, and for the secrets that it names.
fn check_tenant(
    object: &KmsSecret,
    store: &ClusterKmsStore,
    labels: &Labels,
) -> Result<(), Failure> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), store.name_any());
    if !tenancy::admits(&store.spec.namespaces, &namespace, labels) {
        return Err(Failure::new(
            Reason::NotAllowed,
            format!("ClusterKmsStore {name:?} does not let namespace {namespace:?} use it"),
            "cluster administrator: add the namespace to the store's namespaces",
        ));
    }
    let patterns = store
        .spec
        .secret_names
        .clone()
        .unwrap_or_else(tenancy::default_patterns);
    let region = &store.spec.settings.region;
    let mut names = object.secret_names();
    if let Some(secret_name) =
        names.find(|name| !tenancy::allows(&patterns, &namespace, region, name))
    {
        return Err(Failure::new(
            Reason::NotAllowed,
            format!(
                "ClusterKmsStore {name:?} does not let namespace {namespace:?} read {secret_name:?}"
            ),
            "name a secret that its secretNames allow to this namespace, or ask the cluster administrator",
        ));
    }
    Ok(())
}

impl<'a> From<&'a KmsStore> for Store<'a> {
    fn from(store: &'a KmsStore) -> Self {
        Self {
            kind: StoreKind::KmsStore,
            namespace: store.namespace().unwrap_or_default(),
            name: store.name_any(),
            uid: store.uid().unwrap_or_default(),
            generation: store.metadata.generation.unwrap_or_default(),
            settings: &store.spec.settings,
            ca_bundle_ref: store.ca_bundle_ref(),
            auth: json!([store.spec.auth, store.spec.assume_role]),
            identity: Identity::of_store(store),
        }
    }
}

impl<'a> From<&'a ClusterKmsStore> for Store<'a> {
    fn from(store: &'a ClusterKmsStore) -> Self {
        Self {
            kind: StoreKind::ClusterKmsStore,
            namespace: String::new(),
            name: store.name_any(),
            uid: store.uid().unwrap_or_default(),
            generation: store.metadata.generation.unwrap_or_default(),
            settings: &store.spec.settings,
            ca_bundle_ref: store.ca_bundle_ref(),
            auth: json!([store.spec.auth, store.spec.assume_role]),
            identity: Identity::of_cluster_store(store),
        }
    }
}

impl Store<'_> {
    fn kind_name(&self) -> &'static str {
        match self.kind {
            StoreKind::KmsStore => "KmsStore",
            StoreKind::ClusterKmsStore => "ClusterKmsStore",
        }
    }

    /// Completes it: endpoint, certificates, and the version of its credentials.
    pub(super) async fn resolve(self, context: &Context) -> Result<Resolved, Failure> {
        let kind = self.kind_name();
        let invalid = |what: String| {
            Failure::new(
                Reason::StoreInvalid,
                format!("{kind} {:?}: {what}", self.name),
                "mend the store",
            )
        };
        let settings = self.settings;
        let (region, endpoint) = (&settings.region, settings.endpoint.as_deref());
        let is_public = settings.network == Some(Network::Public);
        let allowed = &context.allowed_endpoints;
        let origin = resolve_endpoint(region, is_public, endpoint, allowed).map_err(invalid)?;
        let sts = resolve_sts(region, is_public, endpoint, &origin, allowed);
        let is_paired = paired(endpoint, &origin, allowed).is_some();
        let own_sts = context.environment.sts.clone().filter(|_| !is_paired);
        let inline = settings.ca_bundle.as_deref();
        let ca_bundle = ca_bundle(inline, self.ca_bundle_ref, &context.caches)?;
        let parts = json!([origin.to_string(), ca_bundle, self.auth]);
        let identity = self
            .identity
            .ok_or_else(|| invalid("spec.auth names no way to authenticate".into()))?;
        Ok(Resolved {
            status: StoreStatus {
                kind: kind.into(),
                uid: self.uid,
                generation: self.generation,
                identity: Some(format!("{:016x}", fnv1a(&parts.to_string()))),
                credential_resource_version: identity.version(context).await?,
            },
            own_sts: own_sts.unwrap_or_else(|| sts.clone()),
            sts,
            origin,
            ca_bundle,
            method: match settings.signature.unwrap_or_default() {
                Signature::V3 => SignatureMethod::V3,
                Signature::V1 => SignatureMethod::V1,
            },
            batch: settings.batch.unwrap_or_default() == BatchMode::Auto,
            per_second: settings.requests_per_second.map_or(PER_SECOND, f64::from),
            identity: Arc::new(identity),
            labels: StoreLabels {
                kind,
                namespace: self.namespace,
                name: self.name.clone(),
            },
            name: self.name,
        })
    }
}
