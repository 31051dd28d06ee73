//! Whose identity a store may take, and what it means when that cannot be had. Pure.

use std::collections::BTreeMap;

use super::{Failure, Reason, share};
use crate::alibaba::assume_role;
use crate::alibaba::identity::{Cause, NoIdentity, NoProof, Step};
use crate::alibaba::{Class, Error};
use crate::api::{FOREIGN_ROLE_ANNOTATION, ROLE_ANNOTATION};

/// The name of the sessions of a store: `<namespace>.<store>`, and `cluster@<store>` for a cluster store (no namespace
/// has an `@` in its name).
#[must_use]
pub fn session_name(namespace: Option<&str>, store: &str) -> String {
    let name = match namespace {
        Some(namespace) => format!("{namespace}.{store}"),
        None => format!("cluster@{store}"),
    };
    assume_role::session_name(&name, share::hash(&name))
}

/// The role that a `ServiceAccount` lets stores assume in its name, by one of two annotations.
///
/// # Errors
/// It does not consent, or not to `asked`; with the command by which it would.
pub fn consented_role(
    annotations: &BTreeMap<String, String>,
    (namespace, name): (&str, &str),
    asked: Option<&str>,
) -> Result<String, Failure> {
    let consented = [ROLE_ANNOTATION, FOREIGN_ROLE_ANNOTATION]
        .into_iter()
        .find_map(|annotation| Some((annotation, annotations.get(annotation)?)));
    let allow = |overwrite: &str| {
        let role = asked.unwrap_or("acs:ram::<account>:role/<role>");
        format!(
            "if stores may use it, run `kubectl annotate serviceaccount -n {namespace} {name} {ROLE_ANNOTATION}={role}{overwrite}`"
        )
    };
    let denied = |what: String, action: String| {
        Err(Failure::new(Reason::CredentialsNotAllowed, what, action))
    };
    let Some((annotation, role)) = consented else {
        return denied(
            format!(
                "ServiceAccount {name:?} of namespace {namespace:?} does not consent to being used by a store"
            ),
            allow(""),
        );
    };
    if !is_role_arn(role) {
        return denied(
            format!(
                "annotation {annotation} of ServiceAccount {name:?} of namespace {namespace:?} is no ARN of a RAM role"
            ),
            allow(" --overwrite"),
        );
    }
    match asked {
        Some(asked) if asked != role => denied(
            format!(
                "ServiceAccount {name:?} of namespace {namespace:?} consents to role {role}, and the store's roleArn is {asked}"
            ),
            format!("mend the store's roleArn; or {}", allow(" --overwrite")),
        ),
        _ => Ok(role.clone()),
    }
}

/// As the schema has it, for what comes out of an annotation.
fn is_role_arn(arn: &str) -> bool {
    let rest = arn.strip_prefix("acs:ram::").unwrap_or_default();
    rest.split_once(":role/").is_some_and(|(account, role)| {
        (1..=32).contains(&account.len())
            && account.bytes().all(|b| b.is_ascii_digit())
            && (1..=64).contains(&role.len())
            && role
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    })
}

/// A failure to get a token, as the layer below carries it.
#[must_use]
pub fn no_proof(failure: Failure) -> NoProof {
    NoProof {
        class: match failure.reason {
            Reason::CredentialsNotAllowed => Class::Denied,
            Reason::CredentialsNotFound => Class::NotFound,
            _ => Class::Unavailable,
        },
        what: failure.what,
        action: failure.action,
    }
}

/// What it means for the users of a store that it has no credentials.
#[must_use]
pub fn failure(no: &NoIdentity, store: &str) -> Failure {
    let error = match &no.cause {
        Cause::Call(error) => error,
        Cause::Proof(no) => {
            let reason = match no.class {
                Class::Denied => Reason::CredentialsNotAllowed,
                Class::NotFound => Reason::CredentialsNotFound,
                _ => Reason::KubernetesUnavailable,
            };
            let what = format!("store {store:?}: {}", no.what);
            return Failure::new(reason, what, no.action.clone());
        }
    };
    let step = &no.step;
    let said = error
        .code()
        .map(|code| format!(" ({code})"))
        .unwrap_or_default();
    let (reason, what, action) = match error.class() {
        Class::Throttled => (
            Reason::Throttled,
            format!("store {store:?}: STS asks for fewer calls at {step}{said}"),
            "no action needed: it is tried again; the quota is shared by the whole account"
                .to_owned(),
        ),
        Class::Clock => (
            Reason::ClockSkewed,
            format!("store {store:?}: STS does not accept the time of this node at {step}{said}"),
            "cluster administrator: set the clock of the node that the operator runs on".to_owned(),
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
    Failure {
        code: error.code().map(ToOwned::to_owned),
        retry_after: error.retry_after(),
        ..Failure::new(reason, what, action)
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
    use crate::alibaba::Refusal;

    const ROLE: &str = "acs:ram::1234567890123456:role/shop";
    const OTHER: &str = "acs:ram::1234567890123456:role/other";

    fn consent(
        annotations: &[(&str, &str)],
        asked: Option<&str>,
    ) -> Result<String, (Reason, String)> {
        let annotations = annotations
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        consented_role(&annotations, ("shop", "orders"), asked)
            .map_err(|failure| (failure.reason, failure.message()))
    }

    #[test]
    fn a_service_account_consents_by_either_annotation_and_ours_goes_first() {
        let (ours, theirs) = ("alikms.dev/role-arn", "ack.alibabacloud.com/role-arn");
        assert_eq!(consent(&[(ours, ROLE)], None).unwrap(), ROLE);
        assert_eq!(consent(&[(theirs, ROLE)], Some(ROLE)).unwrap(), ROLE);
        assert_eq!(
            consent(&[(ours, ROLE), (theirs, OTHER)], None).unwrap(),
            ROLE
        );
    }

    #[test]
    fn without_consent_the_command_that_gives_it_is_told() {
        for (annotations, asked, command) in [
            (
                &[][..],
                None,
                "`kubectl annotate serviceaccount -n shop orders alikms.dev/role-arn=acs:ram::<account>:role/<role>`",
            ),
            (
                &[][..],
                Some(ROLE),
                "`kubectl annotate serviceaccount -n shop orders alikms.dev/role-arn=acs:ram::1234567890123456:role/shop`",
            ),
            (
                &[("alikms.dev/role-arn", OTHER)][..],
                Some(ROLE),
                "alikms.dev/role-arn=acs:ram::1234567890123456:role/shop --overwrite`",
            ),
            (&[("alikms.dev/role-arn", "shop")][..], None, "--overwrite`"),
        ] {
            let (reason, message) = consent(annotations, asked).unwrap_err();
            assert_eq!(reason, Reason::CredentialsNotAllowed);
            assert!(message.contains(command), "{message}");
        }
    }

    #[test]
    fn what_an_annotation_holds_is_shown_only_if_it_is_an_arn() {
        for value in [
            "",
            "planted",
            "acs:ram::1:role/planted\n",
            "acs:ram::x:role/planted",
        ] {
            let (_, message) = consent(&[("alikms.dev/role-arn", value)], Some(ROLE)).unwrap_err();
            assert!(!message.contains("planted"), "{message}");
        }
    }

    fn told(step: Step, status: u16, code: &str) -> Failure {
        let refusal = Refusal::of_code(status, Some(code));
        let cause = Cause::Call(Error::Refused(Box::new(refusal)));
        failure(&NoIdentity { step, cause }, "prod")
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
            let cause = Cause::Proof(no_proof(Failure::new(reason, "what", "action")));
            let step = Step::Proof;
            let failure = failure(&NoIdentity { step, cause }, "prod");
            assert_eq!(failure.reason, reason);
            assert_eq!(failure.message(), "Store \"prod\": what. Action.");
        }
    }

    #[test]
    fn sessions_are_named_after_the_store() {
        assert_eq!(session_name(Some("shop"), "prod"), "shop.prod");
        assert_eq!(session_name(None, "prod"), "cluster@prod");
    }
}
