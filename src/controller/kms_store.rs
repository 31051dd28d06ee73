//! From the store that a `KmsSecret` names to an endpoint and credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use super::Context;
use super::caches::{Labels, SecretMeta};
use crate::alibaba::client::{Client as KmsClient, Endpoint};
use crate::alibaba::endpoint::{Origin, resolve as resolve_endpoint};
use crate::alibaba::kms;
use crate::alibaba::reader::{self, Glance, Reader};
use crate::alibaba::{AccessKey, SignatureMethod};
use crate::api::kms_secret::{StoreKind, StoreStatus};
use crate::api::kms_store::{AccessKeySecretRef, BatchMode, Network, Signature, StoreSettings};
use crate::api::{CREDENTIALS_LABEL, ClusterKmsStore, KmsSecret, KmsStore};
use crate::metrics::StoreLabels;
use crate::sync::sources::check_regions;
use crate::sync::{Failure, Reason, share, tenancy};

/// Keys of a credential Secret that stores name by default.
const ACCESS_KEY_ID: &str = "accessKeyId";
const ACCESS_KEY_SECRET: &str = "accessKeySecret";

/// Calls a second that a store makes at most, unless it says otherwise.
const PER_SECOND: f64 = 100.0;

/// A store that can be used, but for its credentials, which are read when they are needed.
pub(super) struct Resolved {
    /// What a status says of it; also what makes it another identity.
    pub(super) status: StoreStatus,
    pub(super) name: String,
    pub(super) origin: Origin,
    labels: StoreLabels,
    ca_bundle: Option<String>,
    method: SignatureMethod,
    batch: bool,
    per_second: f64,
    namespace: String,
    secret_ref: AccessKeySecretRef,
}

/// The readers of the stores, by the stores' uids.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashMap<String, Opened>>);

/// A reader, as long as its store's identity and credentials are unchanged. Dropped, it sends nothing more.
struct Opened {
    of: StoreStatus,
    labels: StoreLabels,
    /// Namespace and name of the Secret that its credentials stand in.
    source: (String, String),
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
                    source: (store.namespace.clone(), store.secret_ref.name.clone()),
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
        let source = (secret.namespace().unwrap_or_default(), secret.name_any());
        self.lock().retain(|_, opened| opened.source != source);
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
    /// By whom KMS is read, as the spec says it.
    auth: serde_json::Value,
    credentials: Option<(String, AccessKeySecretRef)>,
}

impl Found {
    /// Digest of where KMS is and who reads it.
    fn identity(&self, origin: &Origin, ca_bundle: Option<&str>) -> String {
        let parts = serde_json::json!([origin.to_string(), ca_bundle, self.auth]);
        format!("{:016x}", share::hash(&parts.to_string()))
    }
}

/// Finds the store that `object` names and checks that it may be used.
pub(super) async fn resolve(object: &KmsSecret, context: &Context) -> Result<Resolved, Failure> {
    let name = object.spec.store_ref.name.clone();
    let found = match object.store_kind() {
        StoreKind::KmsStore => find_store(object, context)?,
        StoreKind::ClusterKmsStore => find_cluster_store(object, context)?,
    };
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
    let origin = resolve_endpoint(
        &settings.region,
        settings.network == Some(Network::Public),
        settings.endpoint.as_deref(),
        &context.allowed_endpoints,
    )
    .map_err(invalid)?;
    let identity = found.identity(&origin, settings.ca_bundle.as_deref());
    let (namespace, secret_ref) = found
        .credentials
        .ok_or_else(|| invalid("spec.auth names no way to authenticate".into()))?;
    let version = consenting_version(&namespace, &secret_ref.name, context).await?;
    Ok(Resolved {
        status: StoreStatus {
            kind: kind.into(),
            uid: found.uid,
            generation: found.generation,
            identity: Some(identity),
            credential_resource_version: Some(version),
        },
        origin,
        labels: StoreLabels {
            kind,
            namespace: match found.kind {
                StoreKind::KmsStore => object.namespace().unwrap_or_default(),
                StoreKind::ClusterKmsStore => String::new(),
            },
            name: name.clone(),
        },
        ca_bundle: settings.ca_bundle.clone(),
        method: match settings.signature.unwrap_or_default() {
            Signature::V3 => SignatureMethod::V3,
            Signature::V1 => SignatureMethod::V1,
        },
        batch: settings.batch.unwrap_or_default() == BatchMode::Auto,
        per_second: settings.requests_per_second.map_or(PER_SECOND, f64::from),
        name,
        namespace,
        secret_ref,
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
        settings: store.spec.settings.clone(),
        auth: serde_json::json!(store.spec.auth),
        credentials: store
            .credentials()
            .map(|(namespace, secret)| (namespace, secret.clone())),
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
        settings: store.spec.settings.clone(),
        auth: serde_json::json!(store.spec.auth),
        credentials: store
            .credentials()
            .map(|(namespace, secret)| (namespace, secret.clone())),
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

/// The resourceVersion of a credential Secret that consents to being used; the cache holds only such.
async fn consenting_version(
    namespace: &str,
    name: &str,
    context: &Context,
) -> Result<String, Failure> {
    let reference = ObjectRef::new(name).within(namespace);
    if let Some(secret) = context.caches.credentials.get(&reference) {
        return Ok(secret.resource_version().unwrap_or_default());
    }
    let Some(secret) = context.cluster.secret_metadata(namespace, name).await? else {
        return Err(not_found(
            namespace,
            name,
            &format!("there is no Secret {name:?}"),
        ));
    };
    let label = secret
        .labels
        .as_ref()
        .and_then(|labels| labels.get(CREDENTIALS_LABEL));
    if label.is_some_and(|value| value == "true") {
        return Ok(secret.resource_version.unwrap_or_default());
    }
    Err(Failure::new(
        Reason::CredentialsNotAllowed,
        format!("Secret {name:?} does not consent to being used by a store"),
        format!("kubectl label secret -n {namespace} {name} {CREDENTIALS_LABEL}=true"),
    ))
}

fn not_found(namespace: &str, name: &str, what: &str) -> Failure {
    Failure::new(
        Reason::CredentialsNotFound,
        format!("{what} in namespace {namespace:?} with the store's credentials"),
        format!(
            "create it with the keys that the store names, and label it: kubectl label secret -n {namespace} {name} {CREDENTIALS_LABEL}=true"
        ),
    )
}

/// The reader of a store; makes it, and reads the store's credentials, at the first call after either changed.
pub(super) async fn reader(store: &Resolved, context: &Context) -> Result<Arc<Reader>, Failure> {
    let opening = context.readers.opening(store);
    let reader = opening.get_or_try_init(|| async {
        let key = read_access_key(store, context).await?;
        let endpoint = context
            .kms
            .endpoint(store.origin.clone(), store.ca_bundle.as_deref());
        let endpoint = endpoint.map_err(|what| {
            Failure::new(
                Reason::StoreInvalid,
                format!("{} {:?}: {what}", store.status.kind, store.name),
                "mend the store",
            )
        })?;
        Ok(open(store, endpoint, key, &context.kms))
    });
    reader.await.map(Arc::clone)
}

fn open(
    store: &Resolved,
    endpoint: Endpoint,
    key: AccessKey,
    client: &Arc<KmsClient>,
) -> Arc<Reader> {
    let call = Arc::new((Arc::clone(client), endpoint, key, store.method));
    let calls = Arc::clone(&call);
    Reader::new(reader::Setup {
        per_second: store.per_second,
        batch: store.batch,
        read_one: Box::new(move |request| {
            let call = Arc::clone(&call);
            Box::pin(async move {
                let (client, endpoint, key, method) = &*call;
                kms::get_secret_value(client, endpoint, key, *method, &request).await
            })
        }),
        read_many: Box::new(move |requests| {
            let call = Arc::clone(&calls);
            Box::pin(async move {
                let (client, endpoint, key, method) = &*call;
                kms::batch_get_secret_value(client, endpoint, key, *method, &requests).await
            })
        }),
    })
}

async fn read_access_key(store: &Resolved, context: &Context) -> Result<AccessKey, Failure> {
    let (namespace, secret_ref) = (&store.namespace, &store.secret_ref);
    let name = &secret_ref.name;
    let version = store
        .status
        .credential_resource_version
        .as_deref()
        .unwrap_or_default();
    let mut keys = vec![
        secret_ref
            .access_key_id_key
            .as_deref()
            .unwrap_or(ACCESS_KEY_ID),
        secret_ref
            .access_key_secret_key
            .as_deref()
            .unwrap_or(ACCESS_KEY_SECRET),
    ];
    keys.extend(secret_ref.security_token_key.as_deref());
    let values = context
        .cluster
        .secret_values(namespace, name, version, &keys)
        .await?;
    let values = values
        .ok_or_else(|| not_found(namespace, name, &format!("there is no Secret {name:?}")))?;
    let missing = |key: &str| {
        not_found(
            namespace,
            name,
            &format!("there is no key {key:?} in Secret {name:?}"),
        )
    };
    let mut found = values.into_iter().zip(&keys).map(|(value, key)| {
        value
            .filter(|value| !value.expose_secret().is_empty())
            .ok_or_else(|| missing(key))
    });
    let mut next = || found.next().transpose();
    match (next()?, next()?) {
        (Some(id), Some(_)) if id.expose_secret().chars().any(char::is_control) => {
            Err(Failure::new(
                Reason::CredentialsInvalid,
                format!(
                    "the access key id in Secret {name:?} of namespace {namespace:?} holds a control character"
                ),
                "store it again, as it was issued",
            ))
        }
        (Some(id), Some(secret)) => Ok(AccessKey {
            id,
            secret,
            security_token: next()?,
        }),
        _ => Err(missing(ACCESS_KEY_ID)),
    }
}
