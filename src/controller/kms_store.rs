//! From the store that a `KmsSecret` names to an endpoint and credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::Context;
use super::ca_bundle::ca_bundle;
use super::caches::{Labels, SecretMeta};
use super::identity::{Identity, StsEndpoints};
use crate::alibaba::client::{Client as KmsClient, Endpoint};
use crate::alibaba::credentials::Credentials;
use crate::alibaba::endpoint::{Origin, paired, resolve as resolve_endpoint, resolve_sts};
use crate::alibaba::kms::{self, Batch};
use crate::alibaba::reader::{self, Glance, Reader};
use crate::alibaba::secret_value::{GetSecretValue, SecretValue};
use crate::alibaba::{AccessKey, Error, SignatureMethod};
use crate::api::kms_secret::{StoreKind, StoreStatus};
use crate::api::kms_store::{BatchMode, Network, Signature, StoreSettings};
use crate::api::{ClusterKmsStore, KmsSecret, KmsStore};
use crate::metrics::StoreLabels;
use crate::sync::sources::check_regions;
use crate::sync::{Failure, Reason, share, tenancy};

/// Calls a second that a store makes at most, unless it says otherwise.
const PER_SECOND: f64 = 100.0;

/// A store that can be used, but for its credentials, which are read when they are needed.
pub(super) struct Resolved {
    /// What a status says of it; also what makes it another identity.
    pub(super) status: StoreStatus,
    pub(super) name: String,
    pub(super) origin: Origin,
    sts: Origin,
    /// The STS that knows the operator itself.
    own_sts: Origin,
    labels: StoreLabels,
    ca_bundle: Option<String>,
    method: SignatureMethod,
    batch: bool,
    per_second: f64,
    identity: Arc<Identity>,
}

/// The readers of the stores, by the stores' uids.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashMap<String, Opened>>);

/// A reader, as long as its store's identity and credentials are unchanged. Dropped, it sends nothing more.
struct Opened {
    of: StoreStatus,
    labels: StoreLabels,
    identity: Arc<Identity>,
    /// Its credentials are read once, however many wait for it; a failure is not kept.
    reader: Arc<OnceCell<Arc<Reader>>>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.get() {
            reader.close();
        }
    }
}

impl Readers {
    fn opening(&self, store: &Resolved) -> Arc<OnceCell<Arc<Reader>>> {
        let mut readers = self.lock();
        match readers.get_mut(&store.status.uid) {
            Some(opened) if opened.of.is_same_identity(&store.status) => {
                if opened.of != store.status {
                    opened.of = store.status.clone();
                    if let Some(reader) = opened.reader.get() {
                        reader.retune(store.per_second, store.batch);
                    }
                }
                Arc::clone(&opened.reader)
            }
            _ => {
                let opened = Opened {
                    of: store.status.clone(),
                    labels: store.labels.clone(),
                    identity: Arc::clone(&store.identity),
                    reader: Arc::default(),
                };
                let reader = Arc::clone(&opened.reader);
                readers.insert(store.status.uid.clone(), opened);
                reader
            }
        }
    }

    /// What the readers do at the moment, for metrics.
    pub(super) fn glances(&self) -> Vec<(StoreLabels, Glance)> {
        let readers = self.lock();
        let opened = readers.values().filter_map(|opened| {
            let reader = opened.reader.get()?;
            Some((opened.labels.clone(), reader.glance()))
        });
        opened.collect()
    }

    /// Drops the readers, and with them the credentials, of stores that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| is_there(uid));
    }

    /// Drops the readers whose credentials came out of this Secret.
    pub(super) fn forget_credentials(&self, secret: &SecretMeta) {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        self.lock()
            .retain(|_, opened| opened.identity.secret() != Some((&namespace, &name)));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store of either kind, that the object may use.
struct Found {
    kind: StoreKind,
    uid: String,
    generation: i64,
    settings: StoreSettings,
    ca_bundle: Option<String>,
    /// By whom KMS is read, as the spec says it.
    auth: Value,
    identity: Option<Identity>,
}

impl Found {
    /// Digest of where KMS is and who reads it.
    fn digest(&self, origin: &Origin) -> String {
        let parts = json!([origin.to_string(), self.ca_bundle, self.auth]);
        format!("{:016x}", share::hash(&parts.to_string()))
    }
}

/// The region of the store that `object` names, if the object may use it.
pub(super) fn region(object: &KmsSecret, context: &Context) -> Result<String, Failure> {
    find(object, context).map(|found| found.settings.region)
}

fn find(object: &KmsSecret, context: &Context) -> Result<Found, Failure> {
    match object.store_kind() {
        StoreKind::KmsStore => find_store(object, context),
        StoreKind::ClusterKmsStore => find_cluster_store(object, context),
    }
}

/// Finds the store that `object` names and checks that it may be used.
pub(super) async fn resolve(object: &KmsSecret, context: &Context) -> Result<Resolved, Failure> {
    let name = object.spec.store_ref.name.clone();
    let found = find(object, context)?;
    let kind = kind_name(found.kind);
    let invalid = |what: String| {
        Failure::new(
            Reason::StoreInvalid,
            format!("{kind} {name:?}: {what}"),
            "mend the store",
        )
    };
    let settings = &found.settings;
    check_regions(&object.spec.all_sources(), &settings.region, &name)?;
    let (region, endpoint) = (&settings.region, settings.endpoint.as_deref());
    let is_public = settings.network == Some(Network::Public);
    let allowed = &context.allowed_endpoints;
    let origin = resolve_endpoint(region, is_public, endpoint, allowed).map_err(invalid)?;
    let digest = found.digest(&origin);
    let sts = resolve_sts(region, is_public, endpoint, &origin, allowed);
    let is_paired = paired(endpoint, &origin, allowed).is_some();
    let own_sts = context.environment.sts.clone().filter(|_| !is_paired);
    let identity = found
        .identity
        .ok_or_else(|| invalid("spec.auth names no way to authenticate".into()))?;
    Ok(Resolved {
        status: StoreStatus {
            kind: kind.into(),
            uid: found.uid,
            generation: found.generation,
            identity: Some(digest),
            credential_resource_version: identity.version(context).await?,
        },
        own_sts: own_sts.unwrap_or_else(|| sts.clone()),
        sts,
        origin,
        labels: StoreLabels {
            kind,
            namespace: match found.kind {
                StoreKind::KmsStore => object.namespace().unwrap_or_default(),
                StoreKind::ClusterKmsStore => String::new(),
            },
            name: name.clone(),
        },
        ca_bundle: found.ca_bundle,
        method: match settings.signature.unwrap_or_default() {
            Signature::V3 => SignatureMethod::V3,
            Signature::V1 => SignatureMethod::V1,
        },
        batch: settings.batch.unwrap_or_default() == BatchMode::Auto,
        per_second: settings.requests_per_second.map_or(PER_SECOND, f64::from),
        name,
        identity: Arc::new(identity),
    })
}

fn kind_name(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::KmsStore => "KmsStore",
        StoreKind::ClusterKmsStore => "ClusterKmsStore",
    }
}

fn find_store(object: &KmsSecret, context: &Context) -> Result<Found, Failure> {
    let (namespace, name) = (
        object.namespace().unwrap_or_default(),
        &object.spec.store_ref.name,
    );
    let store = context
        .caches
        .stores
        .get(&ObjectRef::<KmsStore>::new(name).within(&namespace));
    let store = store.ok_or_else(|| {
        Failure::new(
            Reason::StoreNotFound,
            format!("there is no KmsStore {name:?} in namespace {namespace:?}"),
            "create it, or mend spec.storeRef",
        )
    })?;
    Ok(Found {
        kind: StoreKind::KmsStore,
        uid: store.uid().unwrap_or_default(),
        generation: store.metadata.generation.unwrap_or_default(),
        ca_bundle: ca_bundle(
            store.spec.settings.ca_bundle.as_deref(),
            store.ca_bundle_ref(),
            &context.caches,
        )?,
        settings: store.spec.settings.clone(),
        auth: json!([store.spec.auth, store.spec.assume_role]),
        identity: Identity::of_store(&store),
    })
}

fn find_cluster_store(object: &KmsSecret, context: &Context) -> Result<Found, Failure> {
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
    Ok(Found {
        kind: StoreKind::ClusterKmsStore,
        uid: store.uid().unwrap_or_default(),
        generation: store.metadata.generation.unwrap_or_default(),
        ca_bundle: ca_bundle(
            store.spec.settings.ca_bundle.as_deref(),
            store.ca_bundle_ref(),
            &context.caches,
        )?,
        settings: store.spec.settings.clone(),
        auth: json!([store.spec.auth, store.spec.assume_role]),
        identity: Identity::of_cluster_store(&store),
    })
}

/// Checks that a cluster store was given to the object's namespace, and for the secret that it names.
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
    let sources = object.spec.all_sources();
    let mut names = sources.iter().map(|named| &named.source.secret_name);
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

/// The reader of a store; makes it, and reads the store's credentials, at the first call after either changed.
pub(super) async fn reader(store: &Resolved, context: &Context) -> Result<Arc<Reader>, Failure> {
    let opening = context.readers.opening(store);
    let reader = opening.get_or_try_init(|| async {
        let kms = endpoint(store, &store.origin, context)?;
        let sts = StsEndpoints {
            own: endpoint(store, &store.own_sts, context)?,
            hops: endpoint(store, &store.sts, context)?,
        };
        let credentials = store.identity.open(&store.status, sts, context).await?;
        Ok(open(store, kms, credentials, &context.kms))
    });
    reader.await.map(Arc::clone)
}

/// How a store reaches an origin. Its CA is for its own endpoint: an STS elsewhere has a certificate of a public one.
fn endpoint(store: &Resolved, origin: &Origin, context: &Context) -> Result<Endpoint, Failure> {
    let ca_bundle = store
        .ca_bundle
        .as_deref()
        .filter(|_| *origin == store.origin);
    let endpoint = context.kms.endpoint(origin.clone(), ca_bundle);
    endpoint.map_err(|what| {
        Failure::new(
            Reason::StoreInvalid,
            format!("{} {:?}: {what}", store.status.kind, store.name),
            "mend the store",
        )
    })
}

/// What every call of a store needs.
struct Calls {
    client: Arc<KmsClient>,
    endpoint: Endpoint,
    credentials: Arc<Credentials>,
    method: SignatureMethod,
}

fn open(
    store: &Resolved,
    endpoint: Endpoint,
    credentials: Arc<Credentials>,
    client: &Arc<KmsClient>,
) -> Arc<Reader> {
    let one = Arc::new(Calls {
        client: Arc::clone(client),
        endpoint,
        credentials,
        method: store.method,
    });
    let many = Arc::clone(&one);
    Reader::new(reader::Setup {
        per_second: store.per_second,
        batch: store.batch,
        read_one: Box::new(move |request| {
            let calls = Arc::clone(&one);
            Box::pin(async move { calls.read_one(&request).await })
        }),
        read_many: Box::new(move |requests| {
            let calls = Arc::clone(&many);
            Box::pin(async move { calls.read_many(&requests).await })
        }),
    })
}

impl Calls {
    async fn read_one(&self, request: &GetSecretValue) -> Result<SecretValue, Error> {
        let read = |key: Arc<AccessKey>| async move {
            kms::get_secret_value(&self.client, &self.endpoint, &key, self.method, request).await
        };
        self.credentials.call(read).await
    }

    async fn read_many(&self, requests: &[GetSecretValue]) -> Batch {
        let read = |key: Arc<AccessKey>| async move {
            let (client, endpoint) = (&self.client, &self.endpoint);
            match kms::batch_get_secret_value(client, endpoint, &key, self.method, requests).await {
                Batch::Failed(error) => Err(error),
                batch => Ok(batch),
            }
        };
        self.credentials
            .call(read)
            .await
            .unwrap_or_else(Batch::Failed)
    }
}
