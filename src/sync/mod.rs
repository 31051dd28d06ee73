//! What to do and when, decided without doing anything: no I/O, no clock, no randomness below this module.

pub mod backoff;
pub mod bucket;
pub mod hint;
pub mod identity;
pub mod plan;
pub mod schedule;
pub mod shape;
pub mod share;
pub mod sources;
pub mod status;
pub mod store_status;
pub mod tenancy;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::alibaba::{Class, Error};

/// `at` plus `by`, at most the end of time: what comes from a wire must not overflow.
#[must_use]
pub fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// The API server keeps whole seconds, and a status must equal what comes back.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

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
    /// Somebody else owns the target.
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
    pub const ALL: [Self; 32] = [
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

/// Why an attempt failed, in words for people: nothing in it comes from a value or from a foreign error text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub reason: Reason,
    /// What happened, to which object.
    pub what: String,
    /// What to do, and who can do it.
    pub action: String,
    /// The error code of the service, where it gave one.
    pub code: Option<String>,
    /// How long the service asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that has no error code of a service.
    #[must_use]
    pub fn new(reason: Reason, what: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            reason,
            what: what.into(),
            action: action.into(),
            code: None,
            retry_after: None,
        }
    }

    /// What a failed call to KMS means for the secret that was asked for. The text is the same for every attempt, or
    /// each would be a change of the status and wake us again.
    #[must_use]
    pub fn of_kms(error: &Error, secret_name: &str, store: &str) -> Self {
        if let Error::Identity(no) = error {
            return identity::failure(no, store);
        }
        let code = error.code();
        let said = code.map(|code| format!(" ({code})")).unwrap_or_default();
        let (reason, what, action) = match error.class() {
            Class::NotFound => (
                Reason::SecretNotFound,
                format!("KMS has no secret {secret_name:?} with that version or stage in the region of store {store:?}{said}"),
                "check the source and the store's region; create the secret in KMS".to_owned(),
            ),
            Class::Denied => (
                Reason::AccessDenied,
                format!("the identity of store {store:?} may not read {secret_name:?}{}{said}", denial(error)),
                "RAM administrator: grant kms:GetSecretValue on the secret, and kms:Decrypt on its key if it has one of its own".to_owned(),
            ),
            Class::Key => (
                Reason::KeyUnavailable,
                format!("the encryption key of {secret_name:?} cannot be used{said}"),
                "KMS administrator: enable or restore the key that protects the secret".to_owned(),
            ),
            Class::Credential | Class::SecurityToken => (
                Reason::CredentialsInvalid,
                format!("KMS does not accept the credentials of store {store:?}{said}"),
                "mend the credentials that the store's auth names; every KmsSecret of the store then heals by itself".to_owned(),
            ),
            Class::Account => (
                Reason::AccountUnavailable,
                format!("the account of store {store:?} cannot use KMS{said}"),
                "account administrator: settle debts, enable KMS, or ask support".to_owned(),
            ),
            Class::Instance => (
                Reason::InstanceUnavailable,
                format!("the KMS instance behind store {store:?} cannot be used{said}"),
                "KMS administrator: see whether the instance runs and is paid for".to_owned(),
            ),
            Class::Throttled => (
                Reason::Throttled,
                format!("KMS asks for fewer calls{said}"),
                "no action needed: it is tried again; the quota is shared by the whole account".to_owned(),
            ),
            Class::Clock => (
                Reason::ClockSkewed,
                format!("KMS does not accept the time of this node{said}"),
                "cluster administrator: set the clock of the node that the operator runs on".to_owned(),
            ),
            Class::Unavailable | Class::Nonce => (
                Reason::KmsUnavailable,
                format!("store {store:?}: {error}"),
                "no action needed: it is tried again; if it lasts, check the network between the operator and the store's endpoint".to_owned(),
            ),
            Class::Rejected if code.is_none() => (
                Reason::RequestRejected,
                format!("store {store:?}: something that is not KMS answered ({error})"),
                "check the store's endpoint and what stands between the operator and it; it is tried again".to_owned(),
            ),
            Class::Rejected => (
                Reason::RequestRejected,
                format!("KMS rejects the request for {secret_name:?}{said}"),
                "check the source: name, versionStage and versionId".to_owned(),
            ),
        };
        Self {
            code: code.map(ToOwned::to_owned),
            retry_after: error.retry_after(),
            ..Self::new(reason, what, action)
        }
    }

    /// The message of a condition or an Event.
    #[must_use]
    pub fn message(&self) -> String {
        format!(
            "{}. {}.",
            capitalised(&self.what),
            capitalised(&self.action)
        )
    }
}

fn denial(error: &Error) -> String {
    let Error::Refused(refusal) = error else {
        return String::new();
    };
    let Some(denial) = &refusal.denied else {
        return String::new();
    };
    let parts = [
        ("action", &denial.action),
        ("principal", &denial.principal),
        ("denial", &denial.kind),
        ("policy", &denial.policy),
    ];
    let known: Vec<_> = parts
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)))
        .collect();
    if known.is_empty() {
        String::new()
    } else {
        format!(" [{}]", known.join(", "))
    }
}

/// A sentence. What begins with a command or a field stays as it is, to be copied.
fn capitalised(text: &str) -> String {
    let first = text.split(' ').next().unwrap_or_default();
    if first == "kubectl" || first.contains('.') {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::{Denial, Refusal};

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

    #[test]
    fn a_message_is_sentences_but_for_what_is_to_be_copied() {
        for (what, action, message) in [
            ("it broke", "mend it", "It broke. Mend it."),
            ("it broke", "kubectl label x", "It broke. kubectl label x."),
            ("spec.a is none", "mend it", "spec.a is none. Mend it."),
            ("", "", ". ."),
        ] {
            let failure = Failure::new(Reason::SpecInvalid, what, action);
            assert_eq!(failure.message(), message);
        }
    }

    #[test]
    fn a_denial_says_which_action_and_which_principal() {
        let error = Error::Refused(Box::new(Refusal {
            status: 403,
            code: Some("Forbidden.NoPermission".into()),
            class: Class::Denied,
            retry_after: None,
            request_id: Some("changes-each-time".into()),
            denied: Some(Denial {
                action: Some("kms:GetSecretValue".into()),
                principal: Some("app".into()),
                ..Denial::default()
            }),
        }));
        let failure = Failure::of_kms(&error, "shop/db", "prod");
        assert_eq!(failure.reason, Reason::AccessDenied);
        let message = failure.message();
        for part in [
            "\"shop/db\"",
            "\"prod\"",
            "kms:GetSecretValue",
            "principal app",
            "Forbidden.NoPermission",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("changes-each-time"));
    }
}
