//! The certificates that a store trusts.

use kube::runtime::reflector::ObjectRef;

use super::caches::Caches;
use crate::api::CA_BUNDLE_LABEL;
use crate::api::kms_store::CaBundleRef;
use crate::sync::{Failure, Reason};

/// Key of the certificates in a `ConfigMap`, as Kubernetes and cert-manager name it.
const DEFAULT_KEY: &str = "ca.crt";

/// The certificates, as PEM: of the store itself, or of the `ConfigMap` that it names.
pub(super) fn ca_bundle(
    inline: Option<&str>,
    given: Option<(&str, &CaBundleRef)>,
    caches: &Caches,
) -> Result<Option<String>, Failure> {
    let Some((namespace, reference)) = given else {
        return Ok(inline.map(ToOwned::to_owned));
    };
    let name = &reference.name;
    let invalid = |what: String, action: String| {
        let what = format!("{what} in namespace {namespace:?} for the store's caBundleRef");
        Failure::new(Reason::StoreInvalid, what, action)
    };
    let found = caches
        .ca_bundles
        .get(&ObjectRef::new(name).within(namespace));
    let bundle = found.ok_or_else(|| {
        invalid(
            format!("there is no ConfigMap {name:?} with the label {CA_BUNDLE_LABEL}=true"),
            format!("create it, or run `kubectl label configmap -n {namespace} {name} {CA_BUNDLE_LABEL}=true`"),
        )
    })?;
    let key = reference.key.as_deref().unwrap_or(DEFAULT_KEY);
    let pem = bundle.data.as_ref().and_then(|data| data.get(key));
    let pem = pem.ok_or_else(|| {
        invalid(
            format!("there is no key {key:?} in ConfigMap {name:?}"),
            "add it, or mend caBundleRef.key".to_owned(),
        )
    })?;
    Ok(Some(pem.clone()))
}
