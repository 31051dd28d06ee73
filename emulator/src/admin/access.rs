//! Keys, roles, OIDC providers, policies and the instance's role, over the admin API.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Span, done, found, nowhere, read};
use crate::controls::Controls;
use crate::errors::ApiError;
use crate::keys::StsKey;
use crate::metadata::MetadataMode;
use crate::request::ApiRequest;
use crate::roles::Role;

/// An access key; with a token it is a temporary one.
#[derive(Deserialize)]
pub(crate) struct AddKey {
    id: String,
    secret: String,
    account: Option<String>,
    security_token: Option<String>,
    expires: Option<Timestamp>,
}

impl AddKey {
    pub(crate) fn apply(self, controls: &Controls) {
        match (self.security_token, self.account) {
            (None, None) => controls.add_access_key(&self.id, &self.secret),
            (None, Some(account)) => controls.add_access_key_of(&account, &self.id, &self.secret),
            (Some(security_token), _) => controls.add_sts_key(&StsKey {
                access_key_id: self.id,
                access_key_secret: self.secret,
                security_token,
                expires: self.expires.unwrap_or(Timestamp::MAX),
            }),
        }
    }
}

#[derive(Deserialize)]
struct KeyId {
    id: String,
}

#[derive(Deserialize)]
struct Arn {
    arn: String,
}

pub(super) fn change_key(controls: &Controls, verb: &str, request: &ApiRequest) -> Answer {
    let id = || read::<KeyId>(request).map(|key| key.id);
    match verb {
        "add" => {
            read::<AddKey>(request)?.apply(controls);
            done()
        }
        "disable" => found(controls.disable_key(&id()?)),
        "enable" => found(controls.enable_key(&id()?)),
        "remove" => found(controls.remove_key(&id()?)),
        "role" => {
            controls.add_role(&read::<Arn>(request)?.arn);
            done()
        }
        _ => nowhere(),
    }
}

pub(super) fn change_role(controls: &Controls, verb: &str, request: &ApiRequest) -> Answer {
    match verb {
        "put" => {
            controls.put_role(read::<Role>(request)?);
            done()
        }
        "remove" => found(controls.remove_role(&read::<Arn>(request)?.arn)),
        _ => nowhere(),
    }
}

/// An OIDC provider with its keys.
#[derive(Deserialize)]
pub(crate) struct AddProvider {
    arn: String,
    issuer: String,
    jwks: Value,
}

impl AddProvider {
    pub(crate) fn apply(self, controls: &Controls) -> Result<(), ApiError> {
        controls.add_oidc_provider(&self.arn, &self.issuer, &self.jwks.to_string())
    }
}

/// Whose tokens a role takes.
#[derive(Deserialize)]
pub(crate) struct TrustTokens {
    role: String,
    provider: String,
    subject: String,
}

impl TrustTokens {
    pub(crate) fn apply(self, controls: &Controls) {
        controls.add_oidc_role(&self.role, &self.provider, &self.subject);
    }
}

pub(super) fn change_oidc(controls: &Controls, verb: &str, request: &ApiRequest) -> Answer {
    match verb {
        "provider" => read::<AddProvider>(request)?.apply(controls)?,
        "role" => read::<TrustTokens>(request)?.apply(controls),
        _ => return nowhere(),
    }
    done()
}

#[derive(Deserialize)]
struct Denied {
    who: String,
    secret: String,
}

#[derive(Deserialize)]
struct Allowed {
    who: String,
    secrets: Vec<String>,
}

#[derive(Deserialize)]
struct Who {
    who: String,
}

pub(super) fn change_policies(controls: &Controls, verb: &str, request: &ApiRequest) -> Answer {
    match verb {
        "deny" => {
            let Denied { who, secret } = read(request)?;
            controls.deny(&who, &secret);
        }
        "allow-only" => {
            let Allowed { who, secrets } = read(request)?;
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            controls.allow_only(&who, &secrets);
        }
        "deny-decrypt" => controls.deny_decrypt(&read::<Who>(request)?.who),
        "clear" => controls.clear_policies(),
        _ => return nowhere(),
    }
    done()
}

/// The instance's role, and how its metadata service behaves.
#[derive(Deserialize)]
pub(crate) struct Instance {
    role: Option<String>,
    mode: Option<MetadataMode>,
    lifetime: Option<Span>,
}

impl Instance {
    pub(crate) fn apply(self, controls: &Controls) {
        if let Some(role) = self.role {
            controls.set_instance_role(Some(role.as_str()).filter(|role| !role.is_empty()));
        }
        if let Some(mode) = self.mode {
            controls.set_metadata_mode(mode);
        }
        if let Some(Span(lifetime)) = self.lifetime {
            controls.set_instance_lifetime(lifetime);
        }
    }
}

#[derive(Deserialize)]
struct Lifetime {
    lifetime: Option<Span>,
}

/// How long assumed sessions live.
pub(super) fn change_sessions(controls: &Controls, request: &ApiRequest) -> Answer {
    let lifetime: Option<Duration> = read::<Lifetime>(request)?.lifetime.map(|Span(it)| it);
    controls.set_session_lifetime(lifetime);
    done()
}
