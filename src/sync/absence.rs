//! Whether a secret is gone from KMS for good: only that may delete a Secret, and only where the spec asks for it.

use jiff::{SignedDuration, Timestamp};

use super::{Failure, Reason};
use crate::api::KmsSecret;
use crate::api::kms_secret::{DeletionPolicy, KmsSecretStatus, RefreshPolicy, StoreStatus};

/// The one code that says so; everything else may be somebody's mistake.
const NOT_FOUND: &str = "Forbidden.ResourceNotFound";
/// KMS must have said it so often.
const TIMES: u32 = 3;

/// How long, and how often in a row, KMS has said that the secret is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    since: Timestamp,
    times: u32,
}

impl Absence {
    /// The absence after a failed read; `None` if that tells nothing of it.
    ///
    /// It must be a plain read of the current version, through the store that the last success came from: a secret that
    /// another identity, region or stage does not find is not gone.
    #[must_use]
    pub fn after(
        previous: Option<Self>,
        object: &KmsSecret,
        status: &KmsSecretStatus,
        store: &StoreStatus,
        failure: &Failure,
        now: Timestamp,
    ) -> Option<Self> {
        let is_plain =
            object.spec.source.as_ref().is_some_and(|source| {
                source.version_id.is_none() && source.version_stage.is_none()
            });
        let is_by_time = matches!(
            object.refresh_policy(),
            RefreshPolicy::Rotation | RefreshPolicy::Interval
        );
        let last = status.store.as_ref();
        let tells = object.deletion_policy() == DeletionPolicy::Delete
            && is_plain
            && is_by_time
            && status.observed_generation == object.metadata.generation
            && last.is_some_and(|last| last.is_same_identity(store))
            && failure.reason == Reason::SecretNotFound
            && failure.code.as_deref() == Some(NOT_FOUND);
        let previous = previous.unwrap_or(Self {
            since: now,
            times: 0,
        });
        tells.then_some(Self {
            times: previous.times + 1,
            ..previous
        })
    }

    /// Whether it has lasted for as long as `patience`, and was seen again and again.
    #[must_use]
    pub fn is_final(self, patience: SignedDuration, now: Timestamp) -> bool {
        self.times >= TIMES && now.duration_since(self.since) >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + 60 * minutes).unwrap()
    }

    fn object(source: &serde_json::Value, refresh: &str, deletion: &str) -> KmsSecret {
        let mut object: KmsSecret = serde_json::from_value(json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "metadata": {"name": "db", "generation": 1},
            "spec": {"storeRef": {"name": "prod"}, "source": source, "refresh": {"policy": refresh}, "target": {"deletionPolicy": deletion}},
        }))
        .unwrap();
        object.status = Some(KmsSecretStatus {
            observed_generation: Some(1),
            store: Some(store("i")),
            ..KmsSecretStatus::default()
        });
        object
    }

    fn store(identity: &str) -> StoreStatus {
        StoreStatus {
            kind: "KmsStore".into(),
            uid: "u".into(),
            generation: 1,
            identity: Some(identity.into()),
            credential_resource_version: None,
        }
    }

    fn missing(code: &str) -> Failure {
        Failure {
            code: Some(code.into()),
            ..Failure::new(Reason::SecretNotFound, "gone", "create it")
        }
    }

    fn after(
        previous: Option<Absence>,
        object: &KmsSecret,
        store: &StoreStatus,
        failure: &Failure,
        now: Timestamp,
    ) -> Option<Absence> {
        let status = object.status.clone().unwrap();
        Absence::after(previous, object, &status, store, failure, now)
    }

    #[test]
    fn it_takes_an_hour_and_three_reads() {
        let object = object(&json!({"secretName": "a"}), "Rotation", "Delete");
        let (store, failure) = (store("i"), missing(NOT_FOUND));
        let mut absence = None;
        for minutes in [0, 59] {
            absence = after(absence, &object, &store, &failure, at(minutes));
            assert!(!absence.unwrap().is_final(HOUR, at(minutes)));
        }
        assert!(
            !absence.unwrap().is_final(HOUR, at(600)),
            "two reads, however far apart"
        );
        absence = after(absence, &object, &store, &failure, at(59));
        assert!(!absence.unwrap().is_final(HOUR, at(59)));
        assert!(absence.unwrap().is_final(HOUR, at(60)));
    }

    #[test]
    fn anything_else_is_no_absence() {
        let plain = json!({"secretName": "a"});
        let good = object(&plain, "Interval", "Delete");
        let known = Some(Absence {
            since: at(0),
            times: 9,
        });
        let (same, failure) = (store("i"), missing(NOT_FOUND));
        assert!(after(known, &good, &same, &failure, at(90)).is_some());
        assert_eq!(after(known, &good, &store("other"), &failure, at(90)), None);
        assert_eq!(
            after(
                known,
                &good,
                &same,
                &missing("Forbidden.KeyNotFound"),
                at(90)
            ),
            None
        );
        let denied = Failure::new(Reason::AccessDenied, "denied", "grant it");
        assert_eq!(after(known, &good, &same, &denied, at(90)), None);
        for other in [
            object(&plain, "Interval", "Retain"),
            object(&plain, "Once", "Delete"),
            object(
                &json!({"secretName": "a", "versionStage": "ACSPrevious"}),
                "Interval",
                "Delete",
            ),
            object(
                &json!({"secretName": "a", "versionId": "v1"}),
                "Interval",
                "Delete",
            ),
        ] {
            assert_eq!(after(known, &other, &same, &failure, at(90)), None);
        }
        let mut edited = object(&plain, "Interval", "Delete");
        edited.metadata.generation = Some(2);
        assert_eq!(after(known, &edited, &same, &failure, at(90)), None);
    }
}
