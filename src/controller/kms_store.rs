//! From the store that a `KmsSecret` names to an endpoint and credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use super::Context;
use crate::alibaba::endpoint::{Origin, resolve as resolve_endpoint};
use crate::alibaba::{AccessKey, SignatureMethod};
use crate::api::kms_secret::StoreStatus;
use crate::api::kms_store::{AccessKeySecretRef, Network, Signature};
use crate::api::{CREDENTIALS_LABEL, KmsSecret, KmsStore};
use crate::sync::{Failure, Reason};

/// Keys of a credential Secret that stores name by default.
const ACCESS_KEY_ID: &str = "accessKeyId";
const ACCESS_KEY_SECRET: &str = "accessKeySecret";

/// A store that can be used, but for its credentials, which are read when they are needed.
pub(super) struct Resolved {
    /// What a status says of it; also what makes it another identity.
    pub(super) status: StoreStatus,
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) method: SignatureMethod,
    namespace: String,
    secret_ref: AccessKeySecretRef,
}

/// Access keys that were read: one for each store, as long as the store and the Secret that it stands in are unchanged.
#[derive(Default)]
pub(super) struct Keys(Mutex<HashMap<String, (StoreStatus, Reading)>>);

/// A key that is read once, however many wait for it; a failure is not kept.
type Reading = Arc<OnceCell<Arc<AccessKey>>>;

impl Keys {
    fn reading(&self, store: &StoreStatus) -> Reading {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match keys.get(&store.uid) {
            Some((of, reading)) if of == store => Arc::clone(reading),
            _ => {
                let reading = Reading::default();
                keys.insert(store.uid.clone(), (store.clone(), Arc::clone(&reading)));
                reading
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

/// The credentials of a store, read once for each version of the Secret that they stand in.
pub(super) async fn access_key(
    store: &Resolved,
    context: &Context,
) -> Result<Arc<AccessKey>, Failure> {
    let reading = context.keys.reading(&store.status);
    let key = reading.get_or_try_init(|| read_access_key(store, context));
    key.await.map(Arc::clone)
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
