//! What the service, or the way to it, answers instead of a result, and what that means.

use std::fmt;
use std::time::Duration;

use super::identity::NoIdentity;

/// What the service, or the way to it, answered instead of a result.
///
/// No text of the other side is kept: KMS echoes the string to sign, tokens included.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The service refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No answer came: name resolution, connection, TLS, a reset.
    #[error("no answer: {0}")]
    Unreachable(&'static str),
    /// No answer came in time.
    #[error("no answer within the deadline")]
    Timeout,
    /// An answer came that is not one of this API.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
    /// There are no credentials to ask with.
    #[error("{0}")]
    Identity(Box<NoIdentity>),
}

/// A refusal in the service's own terms, with nothing in it that could be secret.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The error code, if it is one (see [`Refusal::clean_code`]).
    pub code: Option<String>,
    /// What it means to us.
    pub class: Class,
    /// How long the service asked us to wait (`x-acs-retry-after`, milliseconds on the wire).
    pub retry_after: Option<Duration>,
    /// Id of the request, for the log and for a ticket.
    pub request_id: Option<String>,
    /// Who was denied what.
    pub denied: Option<Denial>,
}

/// The parts of `AccessDeniedDetail` that help, each cut down to harmless characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denial {
    /// The action that was denied, as `kms:GetSecretValue`.
    pub action: Option<String>,
    /// Name of the principal that was denied.
    pub principal: Option<String>,
    /// `ImplicitDeny` or `ExplicitDeny`.
    pub kind: Option<String>,
    /// The kind of policy that denied.
    pub policy: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code} (HTTP {})", self.status),
            None => write!(f, "HTTP {}", self.status),
        }
    }
}

/// What a failure means for whoever has to decide what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The secret, its version or its stage does not exist.
    NotFound,
    /// The identity may not read the secret.
    Denied,
    /// The encryption key of the secret can't be used.
    Key,
    /// The credentials are wrong, disabled or expired.
    Credential,
    /// The session token is wrong or expired: a new one may help.
    SecurityToken,
    /// The account can't use KMS: debt, risk control, service not enabled.
    Account,
    /// The KMS instance can't be used.
    Instance,
    /// Too many requests.
    Throttled,
    /// The clock of one side is off.
    Clock,
    /// The nonce was used before.
    Nonce,
    /// The service, or the way to it, is out of order for now.
    Unavailable,
    /// The request is wrong, or is one that we do not understand.
    Rejected,
}

/// The error codes of the documents and SDKs: those of KMS, of the gateway, and of STS.
const CODES: &[(&str, Class)] = &[
    ("AccessDeniedError", Class::Denied),
    ("AuthenticationFail.NoPermission", Class::Denied),
    ("AuthenticationFail.OIDCToken.Expired", Class::SecurityToken),
    ("AuthenticationFail.OIDCToken.Invalid", Class::Credential),
    ("DryRunOperationError", Class::Rejected),
    ("EntityNotExist.OIDCProvider", Class::NotFound),
    ("EntityNotExist.Role", Class::NotFound),
    ("Forbidden.AccessKey", Class::Credential),
    ("Forbidden.AliasNotFound", Class::Key),
    ("Forbidden.KeyNotFound", Class::Key),
    ("Forbidden.KeyVersionNotFound", Class::Key),
    ("Forbidden.KmsServiceNotEnabled", Class::Account),
    ("Forbidden.NoPermission", Class::Denied),
    ("Forbidden.ProhibitedByRiskControl", Class::Account),
    ("Forbidden.ResourceNotFound", Class::NotFound),
    ("IllegalTimestamp", Class::Clock),
    ("InvalidAction.NotFound", Class::Rejected),
    ("IncompleteSignature", Class::Credential),
    ("InternalError", Class::Unavailable),
    ("InternalFailure", Class::Unavailable),
    ("InvalidParameter", Class::Rejected),
    ("MissingParameter", Class::Rejected),
    ("MissingSecurityToken", Class::SecurityToken),
    ("NoPermission", Class::Denied),
    ("ParseRequestParameterException", Class::Rejected),
    ("Rejected.Disabled", Class::Key),
    ("Rejected.LimitExceeded", Class::Rejected),
    ("Rejected.PendingDeletion", Class::Key),
    ("Rejected.PendingImport", Class::Key),
    ("Rejected.StateModifiedFailed", Class::Key),
    ("Rejected.Throttling", Class::Throttled),
    ("Rejected.Unavailable", Class::Instance),
    ("ServiceUnavailableTemporary", Class::Unavailable),
    ("SignatureDoesNotMatch", Class::Credential),
    ("SignatureNonceUsed", Class::Nonce),
    ("Throttling", Class::Throttled),
    ("UnsupportedHTTPMethod", Class::Rejected),
    ("UnsupportedOperation", Class::Rejected),
    ("ValidationError", Class::Rejected),
];

/// Families of codes that share a beginning; the name stands for the whole family in metrics.
const FAMILIES: &[(&str, &str, Class)] = &[
    (
        "AuthenticationFail.",
        "AuthenticationFail.*",
        Class::Credential,
    ),
    ("EntityNotExist.", "EntityNotExist.*", Class::NotFound),
    (
        "Forbidden.DKMSInstance",
        "Forbidden.DKMSInstance*",
        Class::Instance,
    ),
    ("Forbidden.InDebt", "Forbidden.InDebt*", Class::Account),
    ("Forbidden.Ubsms", "Forbidden.Ubsms*", Class::Account),
    (
        "InvalidAccessKeyId.",
        "InvalidAccessKeyId.*",
        Class::Credential,
    ),
    ("InvalidParameter.", "InvalidParameter.*", Class::Rejected),
    (
        "InvalidSecurityToken.",
        "InvalidSecurityToken.*",
        Class::SecurityToken,
    ),
    ("InvalidTimeStamp.", "InvalidTimeStamp.*", Class::Clock),
    ("Throttling.", "Throttling.*", Class::Throttled),
];

impl Class {
    /// Sorts an error code; one that is not in the table by HTTP status: 5xx passes, 4xx does not.
    #[must_use]
    pub fn of(status: u16, code: Option<&str>) -> Self {
        code.and_then(find)
            .map_or_else(|| Self::of_status(status), |(_, class)| class)
    }

    fn of_status(status: u16) -> Self {
        match status {
            429 => Self::Throttled,
            500.. => Self::Unavailable,
            _ => Self::Rejected,
        }
    }
}

/// The code, or its family, for a metric label: a closed set, whatever a gateway answers.
#[must_use]
pub fn label(code: &str) -> &'static str {
    find(code).map_or("Other", |(label, _)| label)
}

fn find(code: &str) -> Option<(&'static str, Class)> {
    let known = CODES.iter().find(|(known, _)| *known == code);
    known.map(|(label, class)| (*label, *class)).or_else(|| {
        let family = FAMILIES
            .iter()
            .find(|(prefix, ..)| code.starts_with(prefix));
        family.map(|(_, label, class)| (*label, *class))
    })
}

impl Error {
    /// What the failure means.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(refusal) => refusal.class,
            Self::Identity(no) => no.class(),
            Self::Unreachable(_) | Self::Timeout | Self::Malformed(_) => Class::Unavailable,
        }
    }

    /// How long the service asked us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Identity(no) => no.call().and_then(Self::retry_after),
            _ => None,
        }
    }

    /// The error code of the service, where it gave one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.code.as_deref(),
            Self::Identity(no) => no.call().and_then(Self::code),
            _ => None,
        }
    }
}

impl Refusal {
    /// A refusal of which only status and code are known.
    #[must_use]
    pub fn of_code(status: u16, code: Option<&str>) -> Self {
        let code = code.and_then(Self::clean_code);
        Self {
            status,
            class: Class::of(status, code.as_deref()),
            code,
            retry_after: None,
            request_id: None,
            denied: None,
        }
    }

    /// A code is shown only if it looks like one.
    #[must_use]
    pub fn clean_code(code: &str) -> Option<String> {
        let fits = (1..=64).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
        fits.then(|| code.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_documented_code_has_its_class() {
        for (status, code, class) in [
            (404, "Forbidden.ResourceNotFound", Class::NotFound),
            (404, "Forbidden.KeyNotFound", Class::Key),
            (404, "Forbidden.KeyVersionNotFound", Class::Key),
            (404, "Forbidden.AliasNotFound", Class::Key),
            (403, "Forbidden.NoPermission", Class::Denied),
            (403, "Forbidden.AccessKey", Class::Credential),
            (403, "Forbidden.DKMSInstanceStateInvalid", Class::Instance),
            (403, "Forbidden.DKMSInstanceNotFound", Class::Instance),
            (403, "Forbidden.InDebt", Class::Account),
            (403, "Forbidden.InDebtOverdue", Class::Account),
            (403, "Forbidden.KmsServiceNotEnabled", Class::Account),
            (403, "Forbidden.ProhibitedByRiskControl", Class::Account),
            (403, "Forbidden.UbsmsInvalidUserid", Class::Account),
            (403, "Forbidden.UbsmsInvalidBid", Class::Account),
            (403, "UnsupportedHTTPMethod", Class::Rejected),
            (409, "Rejected.Disabled", Class::Key),
            (409, "Rejected.PendingDeletion", Class::Key),
            (409, "Rejected.PendingImport", Class::Key),
            (409, "Rejected.StateModifiedFailed", Class::Key),
            (400, "Rejected.LimitExceeded", Class::Rejected),
            (429, "Rejected.Throttling", Class::Throttled),
            (400, "Throttling", Class::Throttled),
            (400, "Throttling.User", Class::Throttled),
            (400, "Throttling.Api", Class::Throttled),
            (503, "ServiceUnavailableTemporary", Class::Unavailable),
            (500, "InternalFailure", Class::Unavailable),
            (404, "InvalidAccessKeyId.NotFound", Class::Credential),
            (400, "InvalidAccessKeyId.Inactive", Class::Credential),
            (400, "SignatureDoesNotMatch", Class::Credential),
            (400, "IncompleteSignature", Class::Credential),
            (400, "SignatureNonceUsed", Class::Nonce),
            (400, "InvalidTimeStamp.Expired", Class::Clock),
            (400, "IllegalTimestamp", Class::Clock),
            (403, "InvalidSecurityToken.Expired", Class::SecurityToken),
            (400, "InvalidSecurityToken.Malformed", Class::SecurityToken),
            (
                400,
                "InvalidSecurityToken.MismatchWithAccessKey",
                Class::SecurityToken,
            ),
            (400, "MissingSecurityToken", Class::SecurityToken),
            (400, "MissingParameter", Class::Rejected),
            (400, "InvalidParameter", Class::Rejected),
            (400, "ParseRequestParameterException", Class::Rejected),
            (403, "NoPermission", Class::Denied),
            (404, "EntityNotExist.Role", Class::NotFound),
            (404, "EntityNotExist.OIDCProvider", Class::NotFound),
            (403, "AuthenticationFail.NoPermission", Class::Denied),
            (
                400,
                "AuthenticationFail.OIDCToken.Expired",
                Class::SecurityToken,
            ),
            (
                400,
                "AuthenticationFail.OIDCToken.Invalid",
                Class::Credential,
            ),
            (400, "AuthenticationFail.Fingerprint", Class::Credential),
            (400, "InvalidParameter.PolicyGrammar", Class::Rejected),
            (500, "InternalError", Class::Unavailable),
        ] {
            assert_eq!(Class::of(status, Some(code)), class, "{code}");
        }
    }

    #[test]
    fn an_unknown_code_is_judged_by_its_status() {
        assert_eq!(Class::of(418, Some("Teapot")), Class::Rejected);
        assert_eq!(Class::of(599, Some("Teapot")), Class::Unavailable);
        assert_eq!(Class::of(502, None), Class::Unavailable);
        assert_eq!(Class::of(429, None), Class::Throttled);
    }

    proptest! {
        #[test]
        fn a_shown_code_holds_letters_digits_and_dots_only(code in ".{0,80}") {
            if let Some(clean) = Refusal::clean_code(&code) {
                prop_assert!(clean.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'));
                prop_assert!(clean.len() <= 64);
            }
        }
    }
}
