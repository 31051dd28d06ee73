//! Access keys that stand in Secrets, with their consent.

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use secrecy::ExposeSecret as _;

use super::Context;
use crate::alibaba::AccessKey;
use crate::api::CREDENTIALS_LABEL;
use crate::api::auth::AccessKeySecretRef;
use crate::sync::{Failure, Reason};

/// Keys of a credential Secret that stores name by default.
const ACCESS_KEY_ID: &str = "accessKeyId";
const ACCESS_KEY_SECRET: &str = "accessKeySecret";

/// The resourceVersion of a credential Secret that consents to being used; the cache holds only such.
pub(super) async fn consenting_version(
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
        format!(
            "if stores may use it, run `kubectl label secret -n {namespace} {name} {CREDENTIALS_LABEL}=true`"
        ),
    ))
}

fn not_found(namespace: &str, name: &str, what: &str) -> Failure {
    Failure::new(
        Reason::CredentialsNotFound,
        format!("{what} in namespace {namespace:?} with the store's credentials"),
        format!(
            "create it with the keys that the store names, and run `kubectl label secret -n {namespace} {name} {CREDENTIALS_LABEL}=true`"
        ),
    )
}

/// The access key in a Secret, at the version at which that consented.
pub(super) async fn read_access_key(
    namespace: &str,
    secret_ref: &AccessKeySecretRef,
    version: &str,
    context: &Context,
) -> Result<AccessKey, Failure> {
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
