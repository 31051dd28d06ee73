//! The STS calls.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Fields, fields, required};
use crate::clock::{lock, plus, spell};
use crate::controls::Controls;
use crate::errors::{ApiError, error};
use crate::keys::{Caller, Identity, StsKey};
use crate::request::ApiRequest;

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
    let arn = required(request, "RoleArn")?;
    let session = required(request, "RoleSessionName")?;
    let role = Role::parse(arn)?;
    check_session_name(session)?;
    check_policy(request.param("Policy"))?;
    let lifetime = lifetime(request, controls)?;
    let mut keys = lock(&controls.keys);
    if !keys.has_role(arn) {
        return Err(error("EntityNotExist.Role").message(format!("The role not exists: {arn}.")));
    }
    if caller.identity.kind == "Account" {
        return Err(error("NoPermission").message("Roles may not be assumed by root accounts."));
    }
    let sts = StsKey::fresh(plus(controls.clock.now(), lifetime));
    let identity = role.assumed_as(session);
    let answer = session_fields(&identity, &sts);
    keys.add_session(&sts, role.account, identity);
    Ok(answer)
}

/// The parts of an answer that carries a session.
fn session_fields(identity: &Identity, sts: &StsKey) -> Fields {
    fields(json!({
        "AssumedRoleUser": { "Arn": identity.arn, "AssumedRoleId": identity.user_id },
        "Credentials": {
            "AccessKeyId": sts.access_key_id,
            "AccessKeySecret": sts.access_key_secret,
            "SecurityToken": sts.security_token,
            "Expiration": spell(whole(sts.expires)),
        },
    }))
}

/// `Expiration` has no fractions; rounding up would promise too much.
fn whole(time: Timestamp) -> Timestamp {
    crate::clock::floor(time)
}

struct Role<'a> {
    account: &'a str,
    name: &'a str,
}

impl<'a> Role<'a> {
    fn parse(arn: &'a str) -> Result<Self, ApiError> {
        let (account, name) = arn
            .strip_prefix("acs:ram::")
            .and_then(|rest| rest.split_once(":role/"))
            .filter(|(account, name)| !account.is_empty() && !name.is_empty())
            .ok_or_else(|| error("InvalidParameter.RoleArn"))?;
        Ok(Self { account, name })
    }

    fn assumed_as(&self, session: &str) -> Identity {
        let (account, name) = (self.account, self.name);
        Identity {
            kind: "AssumedRoleUser",
            arn: format!("acs:ram::{account}:assumed-role/{name}/{session}"),
            user_id: format!("3{:017}:{session}", name.len()),
        }
    }
}

fn check_session_name(name: &str) -> Result<(), ApiError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ".@_-".contains(c);
    if (2..=64).contains(&name.len()) && name.chars().all(legal) {
        Ok(())
    } else {
        Err(error("InvalidParameter.RoleSessionName"))
    }
}

fn check_policy(policy: Option<&str>) -> Result<(), ApiError> {
    match policy {
        Some(text) if text.len() > 2048 => Err(error("InvalidParameter.PolicySize")),
        Some(text) if serde_json::from_str::<Value>(text).is_err() => {
            Err(error("InvalidParameter.PolicyGrammar"))
        }
        _ => Ok(()),
    }
}

fn lifetime(request: &ApiRequest, controls: &Controls) -> Result<Duration, ApiError> {
    let wrong = || error("InvalidParameter.DurationSeconds");
    let seconds: u64 = request
        .param("DurationSeconds")
        .map_or(Ok(3600), str::parse)
        .map_err(|_| wrong())?;
    if !(900..=43_200).contains(&seconds) {
        return Err(wrong());
    }
    Ok(controls
        .session_lifetime()
        .unwrap_or(Duration::from_secs(seconds)))
}
