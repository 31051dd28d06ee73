//! What it means for the users of a store that KMS or STS did not do what it was asked.

use super::{Failure, Reason};
use crate::alibaba::identity::{Cause, NoIdentity, NoProof, Step};
use crate::alibaba::{Class, Error};

impl Failure {
    /// What a failed call to KMS means for the secret that was asked for. The text is the same for every attempt, or
    /// each would be a change of the status and wake us again.
    #[must_use]
    pub fn of_kms(error: &Error, secret_name: &str, store: &str) -> Self {
        if let Error::Identity(no) = error {
            return Self::of_identity(no, store);
        }
        let said = said(error);
        let (reason, what, action) = match error.class() {
            Class::NotFound => (
                Reason::SecretNotFound,
                format!(
                    "KMS has no secret {secret_name:?} with that version or stage in the region of store {store:?}{said}"
                ),
                "check the source and the store's region; create the secret in KMS",
            ),
            Class::Denied => (
                Reason::AccessDenied,
                format!(
                    "the identity of store {store:?} may not read {secret_name:?}{}{said}",
                    denial(error)
                ),
                "RAM administrator: grant kms:GetSecretValue on the secret, and kms:Decrypt on its key if it has one of its own",
            ),
            Class::Key => (
                Reason::KeyUnavailable,
                format!("the encryption key of {secret_name:?} cannot be used{said}"),
                "KMS administrator: enable or restore the key that protects the secret",
            ),
            Class::Credential | Class::SecurityToken => (
                Reason::CredentialsInvalid,
                format!("KMS does not accept the credentials of store {store:?}{said}"),
                "mend the credentials that the store's auth names; every KmsSecret of the store then heals by itself",
            ),
            Class::Account => (
                Reason::AccountUnavailable,
                format!("the account of store {store:?} cannot use KMS{said}"),
                "account administrator: settle debts, enable KMS, or ask support",
            ),
            Class::Instance => (
                Reason::InstanceUnavailable,
                format!("the KMS instance behind store {store:?} cannot be used{said}"),
                "KMS administrator: see whether the instance runs and is paid for",
            ),
            Class::Throttled => (
                Reason::Throttled,
                format!("KMS asks for fewer calls{said}"),
                "no action needed: it is tried again; the quota is shared by the whole account",
            ),
            Class::Clock => (
                Reason::ClockSkewed,
                format!("KMS does not accept the time of this node{said}"),
                "cluster administrator: set the clock of the node that the operator runs on",
            ),
            Class::Unavailable | Class::Nonce => (
                Reason::KmsUnavailable,
                format!("store {store:?}: {error}"),
                "no action needed: it is tried again; if it lasts, check the network between the operator and the store's endpoint",
            ),
            Class::Rejected if error.code().is_none() => (
                Reason::RequestRejected,
                format!("store {store:?}: something that is not KMS answered ({error})"),
                "check the store's endpoint and what stands between the operator and it; it is tried again",
            ),
            Class::Rejected => (
                Reason::RequestRejected,
                format!("KMS rejects the request for {secret_name:?}{said}"),
                "check the source: name, versionStage and versionId",
            ),
        };
        Self::of_call(error, reason, what, action)
    }

    /// What it means for a store that STS did not tell whose its credentials are.
    #[must_use]
    pub fn of_sts(error: &Error, store: &str) -> Self {
        if let Error::Identity(no) = error {
            return Self::of_identity(no, store);
        }
        let said = said(error);
        let (reason, what, action) = match error.class() {
            Class::Credential | Class::SecurityToken => (
                Reason::CredentialsInvalid,
                format!("STS does not accept the credentials of store {store:?}{said}"),
                "mend the Secret that the store's auth names; every KmsSecret of the store then heals by itself",
            ),
            Class::Throttled => (
                Reason::Throttled,
                format!("store {store:?}: STS asks for fewer calls{said}"),
                "no action needed: it is tried again; the quota is shared by the whole account",
            ),
            Class::Clock => (
                Reason::ClockSkewed,
                format!("store {store:?}: STS does not accept the time of this node{said}"),
                "cluster administrator: set the clock of the node that the operator runs on",
            ),
            Class::Unavailable | Class::Nonce => (
                Reason::IdentityUnavailable,
                format!("store {store:?}: STS: {error}"),
                "no action needed: it is tried again; if it lasts, check the network between the operator and STS: sts-vpc.<region>.aliyuncs.com where the store reaches KMS over the VPC, else sts.<region>.aliyuncs.com",
            ),
            _ => (
                Reason::IdentityRefused,
                format!("store {store:?}: STS does not tell whose the credentials are ({error})"),
                "check the store's auth against the users and roles in RAM",
            ),
        };
        Self::of_call(error, reason, what, action)
    }

    /// What it means for the users of a store that it has no credentials.
    fn of_identity(no: &NoIdentity, store: &str) -> Self {
        let error = match &no.cause {
            Cause::Call(error) => error,
            Cause::Proof(no) => {
                let reason = match no.class {
                    Class::Denied => Reason::CredentialsNotAllowed,
                    Class::NotFound => Reason::CredentialsNotFound,
                    _ => Reason::KubernetesUnavailable,
                };
                let what = format!("store {store:?}: {}", no.what);
                return Self::new(reason, what, no.action.clone());
            }
        };
        let step = &no.step;
        let said = said(error);
        let (reason, what, action) = match error.class() {
            Class::Throttled => (
                Reason::Throttled,
                format!("store {store:?}: STS asks for fewer calls at {step}{said}"),
                "no action needed: it is tried again; the quota is shared by the whole account"
                    .to_owned(),
            ),
            Class::Clock => (
                Reason::ClockSkewed,
                format!(
                    "store {store:?}: STS does not accept the time of this node at {step}{said}"
                ),
                "cluster administrator: set the clock of the node that the operator runs on"
                    .to_owned(),
            ),
            Class::Unavailable | Class::Nonce => (
                Reason::IdentityUnavailable,
                format!("store {store:?}: {no}"),
                format!(
                    "no action needed: it is tried again; if it lasts, {}",
                    way_to(step)
                ),
            ),
            _ => (
                Reason::IdentityRefused,
                format!(
                    "store {store:?}: {step} was refused{}",
                    if said.is_empty() {
                        format!(" ({error})")
                    } else {
                        said
                    }
                ),
                remedy(step, error),
            ),
        };
        Self::of_call(error, reason, what, action)
    }

    /// A failure with the service's own code, and the wait that it asks for.
    fn of_call(error: &Error, reason: Reason, what: String, action: impl Into<String>) -> Self {
        Self {
            code: error.code().map(ToOwned::to_owned),
            retry_after: error.retry_after(),
            ..Self::new(reason, what, action)
        }
    }
}

/// A failure to get a token, as the layer below carries it.
impl From<Failure> for NoProof {
    fn from(failure: Failure) -> Self {
        Self {
            class: match failure.reason {
                Reason::CredentialsNotAllowed => Class::Denied,
                Reason::CredentialsNotFound => Class::NotFound,
                _ => Class::Unavailable,
            },
            what: failure.what,
            action: failure.action,
        }
    }
}

/// The service's code, to be looked up.
fn said(error: &Error) -> String {
    let code = error.code();
    code.map(|code| format!(" ({code})")).unwrap_or_default()
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

fn way_to(step: &Step) -> &'static str {
    match step {
        Step::Instance => {
            "see whether the operator's pod can reach the metadata service of its node (--metadata-endpoint)"
        }
        _ => {
            "check the network between the operator and STS: sts-vpc.<region>.aliyuncs.com where the store reaches KMS over the VPC, else sts.<region>.aliyuncs.com"
        }
    }
}

/// Who can mend a refusal, and how.
fn remedy(step: &Step, error: &Error) -> String {
    let code = error.code().unwrap_or_default();
    match (step, code) {
        (Step::Instance, _) => {
            "cluster administrator: give the nodes a RAM role, and name it or leave roleName out".to_owned()
        }
        (Step::Hop(..) | Step::Federated(_), "EntityNotExist.Role") => {
            "RAM administrator: create the role, or mend the ARN that names it".to_owned()
        }
        (_, "EntityNotExist.OIDCProvider") => {
            "RAM administrator: create the OIDC provider of this cluster, or mend oidcProviderArn".to_owned()
        }
        (_, "InvalidParameter.DurationSeconds") => {
            "shorten durationSeconds, or let the role's sessions last longer (RAM administrator)".to_owned()
        }
        (_, "InvalidParameter.PolicyGrammar" | "InvalidParameter.PolicySize") => {
            "mend the policy that the store gives with it".to_owned()
        }
        (Step::Hop(..), "NoPermission") => {
            "RAM administrator: let the role's trust policy name the identity before it in the chain (and the store the externalId that it asks for), and grant that identity sts:AssumeRole".to_owned()
        }
        (Step::Federated(_), "AuthenticationFail.NoPermission" | "NoPermission") => {
            "RAM administrator: let the role's trust policy name the OIDC provider, with oidc:aud sts.aliyuncs.com and oidc:sub system:serviceaccount:<namespace>:<name>".to_owned()
        }
        (Step::Federated(_), _) if code.starts_with("AuthenticationFail.") => {
            "RAM administrator: see whether the OIDC provider has this cluster's issuer, its fingerprint, and the client id sts.aliyuncs.com".to_owned()
        }
        (Step::Hop(..), _) if matches!(error.class(), Class::Credential | Class::SecurityToken) => {
            "mend the credentials that the store's auth names".to_owned()
        }
        _ => "check the store's auth and assumeRole against the roles in RAM".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::{Denial, Refusal};

    const ROLE: &str = "acs:ram::1234567890123456:role/shop";
    const OTHER: &str = "acs:ram::1234567890123456:role/other";

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

    fn told(step: Step, status: u16, code: &str) -> Failure {
        let refusal = Refusal::of_code(status, Some(code));
        let cause = Cause::Call(Error::Refused(Box::new(refusal)));
        Failure::of_kms(
            &Error::Identity(Box::new(NoIdentity { step, cause })),
            "shop/db",
            "prod",
        )
    }

    #[test]
    fn a_refusal_names_the_step_the_code_and_who_can_mend_it() {
        let federated = || Step::Federated(ROLE.into());
        let hop = || Step::Hop(1, OTHER.into());
        for (step, status, code, reason, parts) in [
            (
                hop(),
                403,
                "NoPermission",
                Reason::IdentityRefused,
                [
                    "assumeRole[1] acs:ram::1234567890123456:role/other",
                    "trust policy",
                ],
            ),
            (
                federated(),
                403,
                "AuthenticationFail.NoPermission",
                Reason::IdentityRefused,
                [ROLE, "oidc:sub"],
            ),
            (
                federated(),
                400,
                "AuthenticationFail.OIDCToken.Invalid",
                Reason::IdentityRefused,
                ["AssumeRoleWithOIDC", "fingerprint"],
            ),
            (
                federated(),
                404,
                "EntityNotExist.OIDCProvider",
                Reason::IdentityRefused,
                ["EntityNotExist.OIDCProvider", "oidcProviderArn"],
            ),
            (
                hop(),
                400,
                "InvalidParameter.DurationSeconds",
                Reason::IdentityRefused,
                ["assumeRole[1]", "durationSeconds"],
            ),
            (
                hop(),
                404,
                "InvalidAccessKeyId.NotFound",
                Reason::IdentityRefused,
                ["assumeRole[1]", "credentials that the store's auth names"],
            ),
            (
                Step::Instance,
                404,
                "",
                Reason::IdentityRefused,
                ["instance's role", "HTTP 404"],
            ),
            (
                hop(),
                503,
                "ServiceUnavailableTemporary",
                Reason::IdentityUnavailable,
                ["assumeRole[1]", "sts-vpc.<region>"],
            ),
            (
                Step::Instance,
                500,
                "",
                Reason::IdentityUnavailable,
                ["instance's role", "--metadata-endpoint"],
            ),
            (
                federated(),
                400,
                "Throttling.User",
                Reason::Throttled,
                ["Throttling.User", "STS"],
            ),
            (
                hop(),
                400,
                "InvalidTimeStamp.Expired",
                Reason::ClockSkewed,
                ["STS", "clock"],
            ),
        ] {
            let failure = told(step, status, code);
            assert_eq!(failure.reason, reason, "{code}");
            let message = failure.message();
            for part in parts.into_iter().chain(["\"prod\""]) {
                assert!(message.contains(part), "{part} is not in {message}");
            }
        }
    }

    #[test]
    fn what_the_cluster_says_of_a_token_keeps_its_reason() {
        for reason in [
            Reason::CredentialsNotAllowed,
            Reason::CredentialsNotFound,
            Reason::KubernetesUnavailable,
        ] {
            let cause = Cause::Proof(Failure::new(reason, "what", "action").into());
            let step = Step::Proof;
            let failure = Failure::of_kms(
                &Error::Identity(Box::new(NoIdentity { step, cause })),
                "shop/db",
                "prod",
            );
            assert_eq!(failure.reason, reason);
            assert_eq!(failure.message(), "Store \"prod\": what. Action.");
        }
    }

    #[test]
    fn a_refusal_of_sts_is_told_in_its_own_words() {
        for (code, reason) in [
            ("InvalidAccessKeyId.NotFound", Reason::CredentialsInvalid),
            ("InvalidSecurityToken.Expired", Reason::CredentialsInvalid),
            ("Throttling.User", Reason::Throttled),
            ("InvalidTimeStamp.Expired", Reason::ClockSkewed),
            ("InternalFailure", Reason::IdentityUnavailable),
            ("NoPermission", Reason::IdentityRefused),
        ] {
            let refusal = Refusal::of_code(400, Some(code));
            let failure = Failure::of_sts(&Error::Refused(Box::new(refusal)), "prod");
            assert_eq!(failure.reason, reason, "{code}");
            assert!(failure.message().contains("STS"), "{code}");
        }
    }
}
