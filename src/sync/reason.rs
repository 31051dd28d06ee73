//! The closed set of reasons, and how often to try again for each.

use std::time::Duration;

/// Why an object is as it is: condition reason, Event reason and metric label at once. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The Secret holds what KMS holds.
    Synced,
    /// `spec.suspend` is true.
    Suspended,
    /// KMS has no such secret, version or stage.
    SecretNotFound,
    /// The identity may not read the secret.
    AccessDenied,
    /// The encryption key of the secret can't be used.
    KeyUnavailable,
    /// KMS does not accept the credentials.
    CredentialsInvalid,
    /// The Secret with the credentials, a key of it, or the ServiceAccount is missing.
    CredentialsNotFound,
    /// The Secret or the ServiceAccount does not consent to being used by the store.
    CredentialsNotAllowed,
    /// STS, or the metadata service, does not give the store an identity.
    IdentityRefused,
    /// STS, or the metadata service, does not answer.
    IdentityUnavailable,
    /// The account can't use KMS.
    AccountUnavailable,
    /// The KMS instance can't be used.
    InstanceUnavailable,
    /// KMS or its gateway asks for fewer calls.
    Throttled,
    /// The clock of this node and the clock of KMS differ too much.
    ClockSkewed,
    /// KMS does not answer, or not as KMS.
    KmsUnavailable,
    /// KMS rejects the request.
    RequestRejected,
    /// KMS answered another version than the one asked for.
    VersionMismatch,
    /// Managed secrets have no versions that can be asked for.
    VersionIdNotSupported,
    /// KMS answered with less than it had answered before.
    StaleAnswer,
    /// The value can't be made into the keys that the spec asks for.
    ValueInvalid,
    /// The spec asks for something that can't be.
    SpecInvalid,
    /// The store does not exist.
    StoreNotFound,
    /// The store's spec can't be used.
    StoreInvalid,
    /// The store does not let this namespace use it, or not for this secret.
    NotAllowed,
    /// The Secret that keys are to be merged into is not there.
    TargetNotFound,
    /// Somebody else owns the target, or a key of it.
    TargetOwnedByOther,
    /// Somebody else keeps changing the target.
    TargetContested,
    /// The API server refuses the target.
    TargetInvalid,
    /// The target has another type, which Kubernetes does not let us change.
    TargetTypeImmutable,
    /// The target is immutable.
    TargetImmutable,
    /// The namespace's quota is used up.
    QuotaExceeded,
    /// The API server did not do what we asked.
    KubernetesUnavailable,
    /// The object or its target changed while we worked: look again.
    Conflict,
}

/// How often to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It passes by itself.
    Soon,
    /// It passes by itself when we hold back.
    Throttled,
    /// Somebody must act on the store: its change wakes us anyway.
    Credential,
    /// Somebody must act.
    Slow,
}

impl Retry {
    /// The shortest and the longest wait; in between, as long again as it has been failing.
    #[must_use]
    pub fn bounds(self) -> (Duration, Duration) {
        let seconds = Duration::from_secs;
        match self {
            Self::Soon => (seconds(1), seconds(300)),
            Self::Throttled => (seconds(5), seconds(300)),
            Self::Credential => (seconds(60), seconds(600)),
            Self::Slow => (seconds(300), seconds(1800)),
        }
    }
}

impl Reason {
    /// Every reason, for documents and tests.
    pub const ALL: [Self; 33] = [
        Self::Synced,
        Self::Suspended,
        Self::SecretNotFound,
        Self::AccessDenied,
        Self::KeyUnavailable,
        Self::CredentialsInvalid,
        Self::CredentialsNotFound,
        Self::CredentialsNotAllowed,
        Self::IdentityRefused,
        Self::IdentityUnavailable,
        Self::AccountUnavailable,
        Self::InstanceUnavailable,
        Self::Throttled,
        Self::ClockSkewed,
        Self::KmsUnavailable,
        Self::RequestRejected,
        Self::VersionMismatch,
        Self::VersionIdNotSupported,
        Self::StaleAnswer,
        Self::ValueInvalid,
        Self::SpecInvalid,
        Self::StoreNotFound,
        Self::StoreInvalid,
        Self::NotAllowed,
        Self::TargetNotFound,
        Self::TargetOwnedByOther,
        Self::TargetContested,
        Self::TargetInvalid,
        Self::TargetTypeImmutable,
        Self::TargetImmutable,
        Self::QuotaExceeded,
        Self::KubernetesUnavailable,
        Self::Conflict,
    ];

    /// The reason as conditions, Events and metrics spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "Synced",
            Self::Suspended => "Suspended",
            Self::SecretNotFound => "SecretNotFound",
            Self::AccessDenied => "AccessDenied",
            Self::KeyUnavailable => "KeyUnavailable",
            Self::CredentialsInvalid => "CredentialsInvalid",
            Self::CredentialsNotFound => "CredentialsNotFound",
            Self::CredentialsNotAllowed => "CredentialsNotAllowed",
            Self::IdentityRefused => "IdentityRefused",
            Self::IdentityUnavailable => "IdentityUnavailable",
            Self::AccountUnavailable => "AccountUnavailable",
            Self::InstanceUnavailable => "InstanceUnavailable",
            Self::Throttled => "Throttled",
            Self::ClockSkewed => "ClockSkewed",
            Self::KmsUnavailable => "KmsUnavailable",
            Self::RequestRejected => "RequestRejected",
            Self::VersionMismatch => "VersionMismatch",
            Self::VersionIdNotSupported => "VersionIdNotSupported",
            Self::StaleAnswer => "StaleAnswer",
            Self::ValueInvalid => "ValueInvalid",
            Self::SpecInvalid => "SpecInvalid",
            Self::StoreNotFound => "StoreNotFound",
            Self::StoreInvalid => "StoreInvalid",
            Self::NotAllowed => "NotAllowed",
            Self::TargetNotFound => "TargetNotFound",
            Self::TargetOwnedByOther => "TargetOwnedByOther",
            Self::TargetContested => "TargetContested",
            Self::TargetInvalid => "TargetInvalid",
            Self::TargetTypeImmutable => "TargetTypeImmutable",
            Self::TargetImmutable => "TargetImmutable",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::KubernetesUnavailable => "KubernetesUnavailable",
            Self::Conflict => "Conflict",
        }
    }

    /// How often to try again.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self {
            Self::Synced
            | Self::Suspended
            | Self::ClockSkewed
            | Self::KmsUnavailable
            | Self::IdentityUnavailable
            | Self::StaleAnswer
            | Self::TargetContested
            | Self::KubernetesUnavailable
            | Self::Conflict => Retry::Soon,
            Self::Throttled => Retry::Throttled,
            Self::CredentialsInvalid
            | Self::CredentialsNotFound
            | Self::CredentialsNotAllowed
            | Self::IdentityRefused
            | Self::AccountUnavailable
            | Self::InstanceUnavailable
            | Self::StoreNotFound
            | Self::StoreInvalid
            | Self::NotAllowed => Retry::Credential,
            Self::SecretNotFound
            | Self::AccessDenied
            | Self::KeyUnavailable
            | Self::RequestRejected
            | Self::VersionMismatch
            | Self::VersionIdNotSupported
            | Self::ValueInvalid
            | Self::SpecInvalid
            | Self::TargetNotFound
            | Self::TargetOwnedByOther
            | Self::TargetInvalid
            | Self::TargetTypeImmutable
            | Self::TargetImmutable
            | Self::QuotaExceeded => Retry::Slow,
        }
    }

    /// It passes by itself: a last good value is still good for a while.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self.retry(), Retry::Soon | Retry::Throttled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_unique_and_camel_case() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(
            names
                .iter()
                .all(|name| name.chars().all(char::is_alphabetic))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
