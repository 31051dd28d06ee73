//! Whose identity a store may take. Pure.

use std::collections::BTreeMap;

use super::hash::fnv1a;
use super::{Failure, Reason};
use crate::alibaba::assume_role;
use crate::api::{FOREIGN_ROLE_ANNOTATION, ROLE_ANNOTATION};

/// The name of the sessions of a store: `<namespace>.<store>`, and `cluster@<store>` for a cluster store (no namespace
/// has an `@` in its name).
#[must_use]
pub fn session_name(namespace: Option<&str>, store: &str) -> String {
    let name = match namespace {
        Some(namespace) => format!("{namespace}.{store}"),
        None => format!("cluster@{store}"),
    };
    assume_role::session_name(&name, fnv1a(&name))
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn sessions_are_named_after_the_store() {
        assert_eq!(session_name(Some("shop"), "prod"), "shop.prod");
        assert_eq!(session_name(None, "prod"), "cluster@prod");
    }
}
