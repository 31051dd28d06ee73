//! The custom resources, exactly as the API server stores them.
//!
//! The Rust types are never stricter than the schema that they generate, so no
//! object that the API server accepted can stop a watch.

pub mod auth;
#[cfg(test)]
mod fuzz;
pub mod kms_secret;
pub mod kms_store;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON,
};
use k8s_openapi::jiff::SignedDuration;
use kube::CustomResourceExt as _;
use serde_json::json;

pub use kms_secret::KmsSecret;
pub use kms_store::{ClusterKmsStore, KmsStore};

/// API group of every resource here.
pub const GROUP: &str = "alikms.dev";
/// Any new value of this annotation on a `KmsSecret` forces a sync.
pub const SYNC_ANNOTATION: &str = "alikms.dev/sync";
/// Label with the value `"true"` on every Secret that we wrote; the Secret watch selects it.
pub const MANAGED_LABEL: &str = "alikms.dev/managed";
/// Annotation on a Secret that we wrote: the name of its `KmsSecret`.
pub const OWNER_ANNOTATION: &str = "alikms.dev/kmssecret";
/// Annotation by which a Secret consents to being taken over, or to holding keys: the name of the `KmsSecret` that may. Those
/// that only want to put keys into it can be several, with commas between them.
pub const ALLOW_ANNOTATION: &str = "alikms.dev/allow";
/// Annotation by which a workload consents to being restarted: the names of the `KmsSecrets` that may, separated by commas.
pub const RESTART_ANNOTATION: &str = "alikms.dev/restart";
/// The one annotation that we write on the pod template of a workload: a new value restarts it.
pub const RESTARTED_ANNOTATION: &str = "alikms.dev/restarted";
/// Prefix of an annotation on a Secret that a `KmsSecret` merged keys into, before that object's uid: the value is its name.
pub const MERGED_ANNOTATION_PREFIX: &str = "alikms.dev/merged.";
/// Label with the value `"true"` by which a credential Secret consents to being used by a store.
pub const CREDENTIALS_LABEL: &str = "alikms.dev/credentials";
/// Label with the value `"true"` on a `ConfigMap` with certificates for stores; the `ConfigMap` watch selects it.
pub const CA_BUNDLE_LABEL: &str = "alikms.dev/ca-bundle";

/// Annotation by which a ServiceAccount consents to being used by a store: the ARN of the RAM role that is for it.
pub const ROLE_ANNOTATION: &str = "alikms.dev/role-arn";
/// The same, as the CSI driver of ACK reads it.
pub const FOREIGN_ROLE_ANNOTATION: &str = "ack.alibabacloud.com/role-arn";

/// The `CustomResourceDefinitions`, in the order in which `kms-secret-operator crds` prints them.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = vec![KmsSecret::crd(), KmsStore::crd(), ClusterKmsStore::crd()];
    all.iter_mut().for_each(default_status);
    all
}

/// Gives a new object a status whose generation matches nothing, so that tools which judge by
/// `observedGeneration` (kstatus, Argo CD) never call an object current that nobody looked at yet.
fn default_status(crd: &mut CustomResourceDefinition) {
    let status = crd
        .spec
        .versions
        .iter_mut()
        .filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
        .filter_map(|schema| schema.properties.as_mut()?.get_mut("status"));
    for schema in status {
        schema.default = Some(JSON(json!({"observedGeneration": -1})));
    }
}

/// The schema pattern of a duration: hours, minutes and seconds of Go's notation, in that order.
pub const DURATION_PATTERN: &str = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$";

/// Parses what [`DURATION_PATTERN`] admits: `1h`, `90s`, `1h30m`. The empty string and zero are `None`.
///
/// ```
/// use kms_secret_operator::api::parse_duration;
///
/// assert_eq!(parse_duration("1h30m").map(|interval| interval.as_secs()), Some(5400));
/// ```
#[must_use]
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let mut seconds: i64 = 0;
    let mut digits = String::new();
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(digits.parse::<i64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && seconds > 0).then(|| SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in [
            ("1s", Some(1)),
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("1h30m", Some(5400)),
            ("24h0m0s", Some(86_400)),
            ("0s", None),
            ("", None),
            ("10", None),
            ("1d", None),
            ("h", None),
            ("-1s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(
                parse_duration(text),
                seconds.map(SignedDuration::from_secs),
                "{text}"
            );
        }
    }

    #[test]
    fn a_new_object_is_never_current_for_kstatus() {
        let crd = serde_json::to_value(&definitions()[0]).unwrap();
        let status =
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert_eq!(status["default"], json!({"observedGeneration": -1}));
    }
}
