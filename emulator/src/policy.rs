//! Who may do what with which secret: everybody everything, until told otherwise.

use serde::Deserialize;
use serde_json::json;

use crate::clock::lock;
use crate::controls::Controls;
use crate::errors::{ApiError, error};
use crate::keys::Caller;
use crate::pattern::fits;
use crate::secrets::plain_name;

const DECRYPT: &str = "kms:Decrypt";
const ACCOUNT_LEVEL: &str = "AccountLevelIdentityBasedPolicy";

/// What was laid down about one identity.
struct Rule {
    who: String,
    says: Says,
}

enum Says {
    Deny(String),
    AllowOnly(Vec<String>),
    DenyDecrypt,
}

#[derive(Default)]
pub(crate) struct Policies(Vec<Rule>);

/// Why a call is refused.
struct Denial {
    kind: &'static str,
    policy: &'static str,
}

const EXPLICIT: Denial = Denial {
    kind: "ExplicitDeny",
    policy: ACCOUNT_LEVEL,
};
const IMPLICIT: Denial = Denial {
    kind: "ImplicitDeny",
    policy: ACCOUNT_LEVEL,
};
const SESSION: Denial = Denial {
    kind: "ImplicitDeny",
    policy: "SessionPolicy",
};

impl Policies {
    fn judge(&self, caller: &Caller, secret: &str) -> Result<(), Denial> {
        let covers = |pattern: &str| {
            let name = if pattern.starts_with("acs:") {
                secret
            } else {
                plain_name(secret)
            };
            fits(pattern, name)
        };
        let rules = self.0.iter().filter(|rule| caller.is(&rule.who));
        let mut granted: Option<bool> = None;
        for rule in rules {
            match &rule.says {
                Says::Deny(pattern) if covers(pattern) => return Err(EXPLICIT),
                Says::AllowOnly(patterns) => {
                    let allows = patterns.iter().any(|pattern| covers(pattern));
                    granted = Some(granted.unwrap_or(false) || allows);
                }
                _ => {}
            }
        }
        if granted == Some(false) {
            return Err(IMPLICIT);
        }
        Ok(())
    }

    fn forbids_decrypt(&self, caller: &Caller) -> bool {
        let mut rules = self.0.iter();
        rules.any(|rule| matches!(rule.says, Says::DenyDecrypt) && caller.is(&rule.who))
    }
}

impl Controls {
    // === policies

    /// Denies an identity every call about secrets that fit the pattern. `who` is an access key, the ARN of a user,
    /// of a role (all its sessions), of one session, or `acs:ram::<account>:root`; stars are allowed in both.
    pub fn deny(&self, who: &str, secret: &str) {
        self.lay_down(who, Says::Deny(secret.to_owned()));
    }

    /// Grants an identity the secrets that fit one of the patterns, and no others; a further call grants more.
    pub fn allow_only(&self, who: &str, secrets: &[&str]) {
        let patterns = secrets.iter().map(|&pattern| pattern.to_owned()).collect();
        self.lay_down(who, Says::AllowOnly(patterns));
    }

    /// Denies an identity `kms:Decrypt`, and so the reading of values.
    pub fn deny_decrypt(&self, who: &str) {
        self.lay_down(who, Says::DenyDecrypt);
    }

    /// Lets everybody do everything again.
    pub fn clear_policies(&self) {
        lock(&self.policies).0.clear();
    }

    fn lay_down(&self, who: &str, says: Says) {
        let who = who.to_owned();
        lock(&self.policies).0.push(Rule { who, says });
    }

    /// Whether the caller may do that with the secret of that key.
    pub(crate) fn authorise(
        &self,
        caller: &Caller,
        action: &str,
        key: &str,
    ) -> Result<(), ApiError> {
        let secret = lock(&self.secrets).arn(key);
        lock(&self.policies)
            .judge(caller, &secret)
            .map_err(|denial| refuse(caller, action, &denial))?;
        match &caller.policy {
            Some(policy) if !policy.allows(action, &secret) => {
                Err(refuse(caller, action, &SESSION))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller may use the key that the value is encrypted with.
    pub(crate) fn authorise_decrypt(&self, caller: &Caller) -> Result<(), ApiError> {
        if lock(&self.policies).forbids_decrypt(caller) {
            return Err(refuse(caller, DECRYPT, &EXPLICIT));
        }
        Ok(())
    }
}

fn refuse(caller: &Caller, action: &str, denial: &Denial) -> ApiError {
    let detail = json!({
        "AuthAction": action,
        "AuthPrincipalType": caller.identity.principal_type(),
        "AuthPrincipalOwnerId": caller.account,
        "AuthPrincipalDisplayName": caller.identity.display_name(),
        "NoPermissionType": denial.kind,
        "PolicyType": denial.policy,
        "EncodedDiagnosticMessage": "AQEAAAAAZW11bGF0ZWQ=",
    });
    error("Forbidden.NoPermission").with("AccessDeniedDetail", detail)
}

/// The policy that a session was made with: it can only take away.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct SessionPolicy {
    #[serde(rename = "Version")]
    _version: String,
    statement: Vec<Statement>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    effect: Verdict,
    action: Patterns,
    resource: Patterns,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Verdict {
    Allow,
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Patterns {
    One(String),
    Many(Vec<String>),
}

impl Patterns {
    fn cover(&self, text: &str) -> bool {
        match self {
            Self::One(pattern) => fits(pattern, text),
            Self::Many(patterns) => patterns.iter().any(|pattern| fits(pattern, text)),
        }
    }
}

impl SessionPolicy {
    /// A policy that could not be understood is refused, rather than taken for one that allows.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.len() > 2048 {
            return Err(error("InvalidParameter.PolicySize"));
        }
        serde_json::from_str(text).map_err(|_| error("InvalidParameter.PolicyGrammar"))
    }

    fn allows(&self, action: &str, resource: &str) -> bool {
        let says = |verdict| {
            self.statement.iter().any(|statement| {
                statement.effect == verdict
                    && statement.action.cover(action)
                    && statement.resource.cover(resource)
            })
        };
        says(Verdict::Allow) && !says(Verdict::Deny)
    }
}
