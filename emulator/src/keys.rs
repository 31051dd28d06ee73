//! Access keys and STS sessions, and who is behind them.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::errors::{ApiError, error};
use crate::pattern::fits;
use crate::policy::SessionPolicy;

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) access_key: String,
    pub(crate) account: String,
    pub(crate) identity: Identity,
    pub(crate) policy: Option<Arc<SessionPolicy>>,
}

impl Caller {
    /// Whoever makes an unsigned call; the account is the one that pays for it.
    pub(crate) fn anonymous(account: &str) -> Self {
        Self {
            access_key: String::new(),
            account: account.to_owned(),
            identity: Identity {
                kind: "Anonymous",
                arn: String::new(),
                user_id: String::new(),
            },
            policy: None,
        }
    }

    /// Whether that names the caller: by access key, ARN, role, or account.
    pub(crate) fn is(&self, who: &str) -> bool {
        let arn = self.identity.arn.as_str();
        let root = format!("acs:ram::{}:root", self.account);
        who == root
            || fits(who, &self.access_key)
            || fits(who, arn)
            || self.identity.role().is_some_and(|role| fits(who, &role))
    }
}

/// The identity behind a key.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) kind: &'static str,
    pub(crate) arn: String,
    pub(crate) user_id: String,
}

impl Identity {
    pub(crate) fn of_session(account: &str, role: &str, session: &str) -> Self {
        Self {
            kind: "AssumedRoleUser",
            arn: format!("acs:ram::{account}:assumed-role/{role}/{session}"),
            user_id: format!("3{:017}:{session}", role.len()),
        }
    }

    /// The role that a session is of.
    fn role(&self) -> Option<String> {
        let (account, rest) = self.arn.split_once(":assumed-role/")?;
        let (role, _) = rest.rsplit_once('/')?;
        Some(format!("{account}:role/{role}"))
    }

    pub(crate) fn principal_type(&self) -> &'static str {
        if self.kind == "RAMUser" {
            "SubUser"
        } else {
            self.kind
        }
    }

    /// A user by its id, a session by role and session name.
    pub(crate) fn display_name(&self) -> String {
        match self.arn.split_once(":assumed-role/") {
            Some((_, rest)) => rest.replace('/', ":"),
            None => self.user_id.clone(),
        }
    }
}

pub(crate) struct Key {
    pub(crate) secret: String,
    account: String,
    identity: Identity,
    disabled: bool,
    session: Option<Session>,
}

struct Session {
    token: String,
    expires: Timestamp,
    policy: Option<Arc<SessionPolicy>>,
}

impl Key {
    pub(crate) fn caller(&self, id: &str) -> Caller {
        Caller {
            access_key: id.to_owned(),
            account: self.account.clone(),
            identity: self.identity.clone(),
            policy: self
                .session
                .as_ref()
                .and_then(|session| session.policy.clone()),
        }
    }
}

/// Temporary credentials, as STS hands them out.
#[derive(Clone)]
pub struct StsKey {
    /// Starts with `STS.`.
    pub access_key_id: String,
    /// The signing secret.
    pub access_key_secret: String,
    /// Goes with every call.
    pub security_token: String,
    /// When the three are worth nothing any more.
    pub expires: Timestamp,
}

impl StsKey {
    /// Fresh credentials with made-up parts.
    #[must_use]
    pub fn fresh(expires: Timestamp) -> Self {
        let part = || Uuid::new_v4().simple().to_string();
        Self {
            access_key_id: format!("STS.N{}", &part()[..24]),
            access_key_secret: part(),
            security_token: format!("CAIS{}+/{}==", part(), part()),
            expires,
        }
    }
}

pub(crate) struct Keys {
    account: String,
    by_id: HashMap<String, Key>,
}

impl Keys {
    pub(crate) fn new(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            by_id: HashMap::new(),
        }
    }

    pub(crate) fn add(&mut self, account: &str, id: &str, secret: &str) {
        let identity = Identity {
            kind: "RAMUser",
            arn: format!("acs:ram::{account}:user/{id}"),
            user_id: format!("2{:017}", self.by_id.len()),
        };
        self.insert(id, secret, account.to_owned(), identity, None);
    }

    pub(crate) fn add_session(
        &mut self,
        sts: &StsKey,
        account: &str,
        identity: Identity,
        policy: Option<Arc<SessionPolicy>>,
    ) {
        let session = Session {
            token: sts.security_token.clone(),
            expires: sts.expires,
            policy,
        };
        let account = account.to_owned();
        self.insert(
            &sts.access_key_id,
            &sts.access_key_secret,
            account,
            identity,
            Some(session),
        );
    }

    fn insert(
        &mut self,
        id: &str,
        secret: &str,
        account: String,
        identity: Identity,
        session: Option<Session>,
    ) {
        let key = Key {
            secret: secret.to_owned(),
            account,
            identity,
            disabled: false,
            session,
        };
        self.by_id.insert(id.to_owned(), key);
    }

    /// Whether there was such a key.
    pub(crate) fn set_disabled(&mut self, id: &str, disabled: bool) -> bool {
        let key = self.by_id.get_mut(id);
        key.map(|key| key.disabled = disabled).is_some()
    }

    /// Whether there was such a key.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        self.by_id.remove(id).is_some()
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// The account of a key, or the emulator's own.
    pub(crate) fn account_of(&self, id: Option<&str>) -> &str {
        id.and_then(|id| self.by_id.get(id))
            .map_or(&self.account, |key| &key.account)
    }

    pub(crate) fn find(&self, id: &str) -> Result<&Key, ApiError> {
        let key = self
            .by_id
            .get(id)
            .ok_or_else(|| error("InvalidAccessKeyId.NotFound"))?;
        if key.disabled {
            return Err(error("InvalidAccessKeyId.Inactive"));
        }
        Ok(key)
    }

    pub(crate) fn check_token(
        &self,
        id: &str,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let session = self.by_id.get(id).and_then(|key| key.session.as_ref());
        match (session, token) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(error("MissingSecurityToken")),
            (Some(session), Some(token)) if session.token == token => {
                if session.expires <= now {
                    return Err(error("InvalidSecurityToken.Expired"));
                }
                Ok(())
            }
            (_, Some(token)) if self.is_issued(token) => {
                Err(error("InvalidSecurityToken.MismatchWithAccessKey"))
            }
            (_, Some(_)) => Err(error("InvalidSecurityToken.Malformed")),
        }
    }

    fn is_issued(&self, token: &str) -> bool {
        let mut sessions = self.by_id.values().filter_map(|key| key.session.as_ref());
        sessions.any(|session| session.token == token)
    }
}
