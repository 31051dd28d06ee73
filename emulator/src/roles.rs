//! Roles, and who may assume them.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use crate::clock::lock;
use crate::controls::Controls;
use crate::errors::{ApiError, error};
use crate::keys::Caller;
use crate::managed::seconds;
use crate::pattern::fits;

const HOUR: Duration = Duration::from_secs(3600);
const LONGEST_SESSION: Duration = Duration::from_secs(12 * 3600);

/// A role that can be assumed by those that it trusts.
#[derive(Clone, Debug, Deserialize)]
pub struct Role {
    arn: String,
    #[serde(default)]
    trusts: Vec<String>,
    #[serde(default)]
    external_id: Option<String>,
    #[serde(default = "hour", with = "seconds")]
    max_session: Duration,
    #[serde(skip)]
    federated: Vec<Federated>,
}

fn hour() -> Duration {
    HOUR
}

/// Whose tokens a role takes.
#[derive(Clone, Debug, PartialEq)]
struct Federated {
    provider: String,
    subject: String,
}

impl Role {
    /// A role that trusts nobody yet, with sessions of at most an hour.
    #[must_use]
    pub fn new(arn: &str) -> Self {
        Self {
            arn: arn.to_owned(),
            trusts: Vec::new(),
            external_id: None,
            max_session: HOUR,
            federated: Vec::new(),
        }
    }

    /// Trusts an access key, the ARN of a user, of a role or of one session, or `acs:ram::<account>:root`; stars are
    /// allowed.
    #[must_use]
    pub fn trusting(mut self, who: &str) -> Self {
        self.trusts.push(who.to_owned());
        self
    }

    /// Trusts tokens of that OIDC provider with that subject, in which stars are allowed.
    #[must_use]
    pub fn trusting_oidc(mut self, provider_arn: &str, subject: &str) -> Self {
        self.federated.push(Federated {
            provider: provider_arn.to_owned(),
            subject: subject.to_owned(),
        });
        self
    }

    /// Wants that `ExternalId` with every `AssumeRole`.
    #[must_use]
    pub fn external_id(mut self, id: &str) -> Self {
        self.external_id = Some(id.to_owned());
        self
    }

    /// Lets sessions last so long, 12 hours at most.
    #[must_use]
    pub fn max_session(mut self, longest: Duration) -> Self {
        self.max_session = longest;
        self
    }
}

#[derive(Default)]
pub(crate) struct Roles(HashMap<String, Role>);

impl Roles {
    /// The longest session of a role that such a caller may assume. Until a role is named, everybody may assume all.
    pub(crate) fn assume(
        &self,
        arn: &str,
        caller: &Caller,
        external_id: Option<&str>,
    ) -> Result<Duration, ApiError> {
        if caller.identity.kind == "Account" {
            return Err(error("NoPermission").message("Roles may not be assumed by root accounts."));
        }
        if self.0.is_empty() {
            return Ok(LONGEST_SESSION);
        }
        let role = self.find(arn)?;
        let trusted = role.trusts.iter().any(|who| caller.is(who));
        let wanted = role.external_id.as_deref();
        if trusted && (wanted.is_none() || wanted == external_id) {
            Ok(role.max_session.min(LONGEST_SESSION))
        } else {
            Err(error("NoPermission"))
        }
    }

    /// The longest session of a role that trusts such a token.
    pub(crate) fn assume_with_token(
        &self,
        arn: &str,
        provider: &str,
        subject: &str,
    ) -> Result<Duration, ApiError> {
        let role = self.find(arn)?;
        let trusts = |it: &Federated| it.provider == provider && fits(&it.subject, subject);
        if role.federated.iter().any(trusts) {
            Ok(role.max_session.min(LONGEST_SESSION))
        } else {
            Err(error("AuthenticationFail.NoPermission"))
        }
    }

    fn find(&self, arn: &str) -> Result<&Role, ApiError> {
        let missing =
            || error("EntityNotExist.Role").message(format!("The role not exists: {arn}."));
        self.0.get(arn).ok_or_else(missing)
    }

    fn get_or_insert(&mut self, arn: &str) -> &mut Role {
        let new = || Role::new(arn);
        self.0.entry(arn.to_owned()).or_insert_with(new)
    }
}

impl Controls {
    // === roles

    /// Names a role that every signed caller can assume. Until the first role is named, every role can be assumed.
    pub fn add_role(&self, arn: &str) {
        let mut roles = lock(&self.roles);
        roles.get_or_insert(arn).trusts.push("*".to_owned());
    }

    /// Adds a role, in place of one of that ARN.
    pub fn put_role(&self, role: Role) {
        lock(&self.roles).0.insert(role.arn.clone(), role);
    }

    /// Lets a role trust tokens of that OIDC provider with that subject, in which stars are allowed; adds the role if
    /// need be.
    pub fn add_oidc_role(&self, role_arn: &str, provider_arn: &str, subject: &str) {
        let trust = Federated {
            provider: provider_arn.to_owned(),
            subject: subject.to_owned(),
        };
        let mut roles = lock(&self.roles);
        roles.get_or_insert(role_arn).federated.push(trust);
    }

    /// Removes a role; false if there is none. Its sessions live on.
    pub fn remove_role(&self, arn: &str) -> bool {
        lock(&self.roles).0.remove(arn).is_some()
    }
}

/// The account that a role is of.
pub(crate) fn account_in(role_arn: &str) -> Option<&str> {
    split(role_arn).map(|(account, _)| account)
}

/// Account and name of a role.
pub(crate) fn split(role_arn: &str) -> Option<(&str, &str)> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    role_arn
        .strip_prefix("acs:ram::")?
        .split_once(":role/")
        .filter(|(account, _)| !account.is_empty() && account.bytes().all(|b| b.is_ascii_digit()))
        .filter(|(_, name)| (1..=64).contains(&name.len()) && name.chars().all(legal))
}
