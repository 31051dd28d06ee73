//! The status of a store: ready only when its credentials were really exchanged.

use jiff::Timestamp;

use super::conditions::{Context, READY, find, set};
use super::{Failure, Reason};
use crate::api::kms_secret::StoreStatus;
use crate::api::kms_store::KmsStoreStatus;

/// Reason of `Ready` where STS, or KMS, knew who asked.
pub const AUTHENTICATED: &str = "Authenticated";

/// What a look at a store's credentials found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose they are, if STS told: an ARN.
    pub identity: Option<String>,
}

/// Whether the status tells of these credentials that they work: after a restart, nothing is exchanged to tell it again.
#[must_use]
pub fn is_told(status: &KmsStoreStatus, store: &StoreStatus) -> bool {
    is_ready(status) && is_about(status, store)
}

/// Whether the status tells, at this generation, that these credentials do not work for a reason that STS knows nothing
/// of. It was some replica's read that found it, and only a read can end it.
#[must_use]
pub fn is_told_by_reads(
    status: &KmsStoreStatus,
    generation: Option<i64>,
    store: &StoreStatus,
) -> bool {
    let reasons = [Reason::AccountUnavailable, Reason::InstanceUnavailable];
    let is_one = |reason: &str| reasons.iter().any(|one| one.as_str() == reason);
    ready(status).is_some_and(|(value, reason)| value == "False" && is_one(reason))
        && status.observed_generation == generation
        && is_about(status, store)
}

fn is_about(status: &KmsStoreStatus, store: &StoreStatus) -> bool {
    status.digest == store.identity
        && status.credential_resource_version == store.credential_resource_version
}

/// `Ready` is true.
#[must_use]
pub fn is_ready(status: &KmsStoreStatus) -> bool {
    ready(status).is_some_and(|(value, _)| value == "True")
}

/// Value and reason of `Ready`.
#[must_use]
pub fn ready(status: &KmsStoreStatus) -> Option<(&str, &str)> {
    let ready = find(&status.conditions, READY)?;
    Some((&ready.status, &ready.reason))
}

/// How long `Ready` has been what it is.
#[must_use]
pub fn since(status: &KmsStoreStatus) -> Option<Timestamp> {
    let ready = find(&status.conditions, READY)?;
    Some(ready.last_transition_time.0)
}

/// The status after a look, or after one that was not needed since [`is_told`].
#[must_use]
pub fn after(
    previous: &KmsStoreStatus,
    generation: Option<i64>,
    store: Option<&StoreStatus>,
    found: &Result<Verified, Failure>,
    now: Timestamp,
) -> KmsStoreStatus {
    let mut status = KmsStoreStatus {
        observed_generation: generation,
        conditions: previous.conditions.clone(),
        digest: store.and_then(|store| store.identity.clone()),
        credential_resource_version: store
            .and_then(|store| store.credential_resource_version.clone()),
        identity: None,
    };
    let context = Context {
        generation,
        sync: None,
        now,
    };
    let (value, reason, message) = match found {
        Ok(verified) => {
            let message = match &verified.identity {
                Some(arn) => format!("The credentials are those of {arn}."),
                None => {
                    "KMS accepts the credentials; STS, which would tell whose they are, does not answer.".into()
                }
            };
            status.identity.clone_from(&verified.identity);
            ("True", AUTHENTICATED, message)
        }
        Err(failure) => ("False", failure.reason.as_str(), failure.message()),
    };
    let conditions = &mut status.conditions;
    set(conditions, READY, value, reason, &message, context);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::{Error, Refusal};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn store(version: &str, digest: &str) -> StoreStatus {
        StoreStatus {
            kind: "KmsStore".into(),
            uid: "u".into(),
            generation: 1,
            identity: Some(digest.into()),
            credential_resource_version: Some(version.into()),
        }
    }

    fn verified() -> Verified {
        Verified {
            identity: Some("acs:ram::1:user/app".into()),
        }
    }

    fn refused(code: &str) -> Result<Verified, Failure> {
        let error = Error::Refused(Box::new(Refusal::of_code(400, Some(code))));
        Err(Failure::of_sts(&error, "prod"))
    }

    #[test]
    fn what_was_told_is_not_told_again_until_something_changes() {
        let status = after(
            &KmsStoreStatus::default(),
            Some(1),
            Some(&store("7", "d")),
            &Ok(verified()),
            NOW,
        );
        assert_eq!(ready(&status), Some(("True", AUTHENTICATED)));
        assert!(is_told(&status, &store("7", "d")));
        assert!(!is_told(&status, &store("8", "d")));
        assert!(!is_told(&status, &store("7", "e")));
        let in_debt = after(
            &status,
            Some(1),
            Some(&store("7", "d")),
            &Err(Failure::new(Reason::AccountUnavailable, "", "")),
            NOW,
        );
        assert!(is_told_by_reads(&in_debt, Some(1), &store("7", "d")));
        for (generation, store) in [(2, store("7", "d")), (1, store("8", "d"))] {
            assert!(!is_told_by_reads(&in_debt, Some(generation), &store));
        }
        let broken = after(
            &status,
            Some(1),
            Some(&store("7", "d")),
            &refused("SignatureDoesNotMatch"),
            NOW,
        );
        assert_eq!(ready(&broken), Some(("False", "CredentialsInvalid")));
        assert!(!is_told(&broken, &store("7", "d")));
        assert!(!is_told_by_reads(&broken, Some(1), &store("7", "d")));
        assert_eq!(broken.identity, None, "nobody's, as far as we know");
    }
}
