//! From the store that a `KmsSecret` names to an endpoint and credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use super::Context;
use crate::alibaba::client::Client as KmsClient;
use crate::alibaba::endpoint::{Origin, resolve as resolve_endpoint};
use crate::alibaba::kms;
use crate::alibaba::reader::{self, Reader};
use crate::alibaba::{AccessKey, SignatureMethod};
use crate::api::kms_secret::StoreStatus;
use crate::api::kms_store::{AccessKeySecretRef, BatchMode, Network, Signature};
use crate::api::{CREDENTIALS_LABEL, KmsSecret, KmsStore};
use crate::sync::{Failure, Reason};

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
    method: SignatureMethod,
    batch: bool,
    per_second: f64,
    namespace: String,
    secret_ref: AccessKeySecretRef,
}

/// The readers of the stores: one for each store, as long as the store and its credentials are unchanged.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashMap<String, (StoreStatus, Opening)>>);

/// A reader whose credentials are read once, however many wait for it; a failure is not kept.
type Opening = Arc<OnceCell<Arc<Reader>>>;

impl Readers {
    fn opening(&self, store: &StoreStatus) -> Opening {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match readers.get(&store.uid) {
            Some((of, opening)) if of == store => Arc::clone(opening),
            _ => {
                let opening = Opening::default();
                readers.insert(store.uid.clone(), (store.clone(), Arc::clone(&opening)));
                opening
            }
        }
    }
}

/// Name of the Secret that holds a store's credentials.
pub(super) fn secret_name(store: &KmsStore) -> Option<&str> {
    let access_key = store.spec.auth.access_key.as_ref()?;
    Some(&access_key.secret_ref.name)
}

/// Finds the store that `object` names and checks that it may be used.
pub(super) async fn resolve(object: &KmsSecret, context: &Context) -> Result<Resolved, Failure> {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.spec.store_ref.name.clone();
    let reference = ObjectRef::<KmsStore>::new(&name).within(&namespace);
    let store = context.caches.stores.get(&reference).ok_or_else(|| {
        Failure::new(
            Reason::StoreNotFound,
            format!("there is no KmsStore {name:?} in namespace {namespace:?}"),
            "create it, or mend spec.storeRef",
        )
    })?;
    let spec = &store.spec;
    let invalid = |what: String| {
        Failure::new(
            Reason::StoreInvalid,
            format!("KmsStore {name:?}: {what}"),
            "mend the store",
        )
    };
    let origin = resolve_endpoint(
        &spec.region,
        spec.network == Some(Network::Public),
        spec.endpoint.as_deref(),
        &context.allowed_endpoints,
    )
    .map_err(invalid)?;
    let access_key = spec.auth.access_key.as_ref();
    let secret_ref = access_key
        .map(|access_key| access_key.secret_ref.clone())
        .ok_or_else(|| invalid("spec.auth names no way to authenticate".into()))?;
    let version = consenting_version(&namespace, &secret_ref.name, context).await?;
    Ok(Resolved {
        status: StoreStatus {
            kind: "KmsStore".into(),
            uid: store.uid().unwrap_or_default(),
            generation: store.metadata.generation.unwrap_or_default(),
            credential_resource_version: Some(version),
        },
        origin,
        method: match spec.signature.unwrap_or_default() {
            Signature::V3 => SignatureMethod::V3,
            Signature::V1 => SignatureMethod::V1,
        },
        batch: spec.batch.unwrap_or_default() == BatchMode::Auto,
        per_second: spec.requests_per_second.map_or(PER_SECOND, f64::from),
        name,
        namespace,
        secret_ref,
    })
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
    let opening = context.readers.opening(&store.status);
    let reader = opening.get_or_try_init(|| async {
        let key = read_access_key(store, context).await?;
        Ok(open(store, &key, &context.kms))
    });
    reader.await.map(Arc::clone)
}

fn open(store: &Resolved, key: &Arc<AccessKey>, client: &Arc<KmsClient>) -> Arc<Reader> {
    let call = Arc::new((
        Arc::clone(client),
        store.origin.clone(),
        Arc::clone(key),
        store.method,
    ));
    let calls = Arc::clone(&call);
    Reader::new(reader::Setup {
        per_second: store.per_second,
        batch: store.batch,
        read_one: Box::new(move |request| {
            let call = Arc::clone(&call);
            Box::pin(async move {
                let (client, origin, key, method) = &*call;
                kms::get_secret_value(client, origin, key, *method, &request).await
            })
        }),
        read_many: Box::new(move |requests| {
            let call = Arc::clone(&calls);
            Box::pin(async move {
                let (client, origin, key, method) = &*call;
                kms::batch_get_secret_value(client, origin, key, *method, &requests).await
            })
        }),
    })
}

async fn read_access_key(store: &Resolved, context: &Context) -> Result<Arc<AccessKey>, Failure> {
    let (namespace, secret_ref) = (&store.namespace, &store.secret_ref);
    let name = &secret_ref.name;
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
        .secret_values(namespace, name, &keys)
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
        (Some(id), Some(secret)) => Ok(Arc::new(AccessKey {
            id,
            secret,
            security_token: next()?,
        })),
        _ => Err(missing(ACCESS_KEY_ID)),
    }
}
