//! The STS calls.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Fields, fields, required};
use crate::clock::{floor, lock, plus, spell};
use crate::controls::Controls;
use crate::errors::{ApiError, error};
use crate::keys::{Caller, Identity, StsKey};
use crate::oidc::{AUDIENCE, TokenClaims};
use crate::policy::SessionPolicy;
use crate::request::ApiRequest;
use crate::roles::split;

pub(super) fn get_caller_identity(caller: &Caller) -> Fields {
    fields(json!({
        "IdentityType": caller.identity.kind,
        "AccountId": caller.account,
        "PrincipalId": caller.identity.user_id,
        "UserId": caller.identity.user_id,
        "Arn": caller.identity.arn,
    }))
}

pub(super) fn assume_role(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    let wish = Wish::read(request)?;
    let external_id = request.param("ExternalId");
    check_external_id(external_id)?;
    let longest = lock(&controls.roles).assume(wish.role, caller, external_id)?;
    wish.grant(longest, controls)
}

pub(super) fn assume_role_with_oidc(
    request: &ApiRequest,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    let wish = Wish::read(request)?;
    let provider = required(request, "OIDCProviderArn")?;
    let token = required(request, "OIDCToken")?;
    if !is_provider_of(wish.account, provider) {
        return Err(error("InvalidParameter.OIDCProviderArn"));
    }
    if !(4..=20_000).contains(&token.len()) {
        return Err(error("InvalidParameter.OIDCToken"));
    }
    let now = controls.clock.shown();
    let claims = lock(&controls.providers).verify(provider, token, now)?;
    let longest = lock(&controls.roles).assume_with_token(wish.role, provider, &claims.sub)?;
    let mut answer = wish.grant(longest, controls)?;
    answer.insert("OIDCTokenInfo".to_owned(), token_info(&claims));
    Ok(answer)
}

fn is_provider_of(account: &str, arn: &str) -> bool {
    arn.strip_prefix("acs:ram::")
        .and_then(|rest| rest.split_once(":oidc-provider/"))
        .is_some_and(|(owner, name)| owner == account && !name.is_empty())
}

fn token_info(claims: &TokenClaims) -> Value {
    let mut info = json!({
        "Subject": claims.sub,
        "Issuer": claims.iss,
        "ClientIds": AUDIENCE,
        "ExpirationTime": spell_seconds(claims.exp),
        "VerificationInfo": "Success",
    });
    if let Some(issued) = claims.iat {
        info["IssuanceTime"] = spell_seconds(issued).into();
    }
    info
}

fn spell_seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds)
        .map(|since| spell(plus(Timestamp::UNIX_EPOCH, since)))
        .unwrap_or_default()
}

/// What both ways to a role are asked with.
struct Wish<'a> {
    role: &'a str,
    account: &'a str,
    name: &'a str,
    session: &'a str,
    lifetime: Duration,
    policy: Option<SessionPolicy>,
}

impl<'a> Wish<'a> {
    fn read(request: &'a ApiRequest) -> Result<Self, ApiError> {
        let role = required(request, "RoleArn")?;
        let (account, name) = split(role).ok_or_else(|| error("InvalidParameter.RoleArn"))?;
        let session = required(request, "RoleSessionName")?;
        check_session_name(session)?;
        Ok(Self {
            role,
            account,
            name,
            session,
            lifetime: lifetime(request)?,
            policy: request
                .param("Policy")
                .map(SessionPolicy::parse)
                .transpose()?,
        })
    }

    /// Makes the session; it ends by the clock that the answers show.
    fn grant(self, longest: Duration, controls: &Controls) -> Result<Fields, ApiError> {
        if self.lifetime > longest {
            return Err(error("InvalidParameter.DurationSeconds"));
        }
        let lifetime = controls.session_lifetime().unwrap_or(self.lifetime);
        let expires = floor(plus(controls.clock.shown(), lifetime));
        let identity = Identity::of_session(self.account, self.name, self.session);
        let sts = StsKey::fresh(expires);
        let answer = session_fields(&identity, &sts);
        let policy = self.policy.map(Arc::new);
        lock(&controls.keys).add_session(&sts, self.account, identity, policy);
        Ok(answer)
    }
}

/// The parts of an answer that carries a session.
fn session_fields(identity: &Identity, sts: &StsKey) -> Fields {
    fields(json!({
        "AssumedRoleUser": { "Arn": identity.arn, "AssumedRoleId": identity.user_id },
        "Credentials": {
            "AccessKeyId": sts.access_key_id,
            "AccessKeySecret": sts.access_key_secret,
            "SecurityToken": sts.security_token,
            "Expiration": spell(sts.expires),
        },
    }))
}

fn check_session_name(name: &str) -> Result<(), ApiError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ".@_-".contains(c);
    if (2..=64).contains(&name.len()) && name.chars().all(legal) {
        Ok(())
    } else {
        Err(error("InvalidParameter.RoleSessionName"))
    }
}

fn check_external_id(id: Option<&str>) -> Result<(), ApiError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "=,.@:/-_".contains(c);
    let is_legal = |id: &str| (2..=1224).contains(&id.len()) && id.chars().all(legal);
    if id.is_none_or(is_legal) {
        Ok(())
    } else {
        Err(error("InvalidParameter.ExternalId"))
    }
}

fn lifetime(request: &ApiRequest) -> Result<Duration, ApiError> {
    let wrong = || error("InvalidParameter.DurationSeconds");
    let seconds: u64 = request
        .param("DurationSeconds")
        .map_or(Ok(3600), str::parse)
        .map_err(|_| wrong())?;
    if seconds < 900 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}
