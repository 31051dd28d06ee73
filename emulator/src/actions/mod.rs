//! What the calls do, once they are let in.

mod kms;
mod sts;

use serde_json::{Map, Value};

use crate::controls::Controls;
use crate::errors::{ApiError, error};
use crate::keys::Caller;
use crate::request::ApiRequest;

/// The fields of a good answer, without `RequestId`.
pub(crate) type Fields = Map<String, Value>;

/// The calls that the emulator answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    GetSecretValue,
    DescribeSecret,
    ListSecretVersionIds,
    PutSecretValue,
    UpdateSecretVersionStage,
    RotateSecret,
    GetCallerIdentity,
    AssumeRole,
}

const KMS: &str = "2016-01-20";
const STS: &str = "2015-04-01";

const ACTIONS: &[(&str, &str, Action)] = &[
    ("GetSecretValue", KMS, Action::GetSecretValue),
    ("DescribeSecret", KMS, Action::DescribeSecret),
    ("ListSecretVersionIds", KMS, Action::ListSecretVersionIds),
    ("PutSecretValue", KMS, Action::PutSecretValue),
    (
        "UpdateSecretVersionStage",
        KMS,
        Action::UpdateSecretVersionStage,
    ),
    ("RotateSecret", KMS, Action::RotateSecret),
    ("GetCallerIdentity", STS, Action::GetCallerIdentity),
    ("AssumeRole", STS, Action::AssumeRole),
];

/// Finds the action that a request names.
pub(crate) fn route(action: &str, version: &str) -> Result<Action, ApiError> {
    if action.is_empty() {
        return Err(error("MissingParameter").message("Action is mandatory for this request."));
    }
    let (_, known_version, found) = ACTIONS
        .iter()
        .find(|(name, ..)| *name == action)
        .ok_or_else(|| error("InvalidAction.NotFound"))?;
    if *known_version == version {
        Ok(*found)
    } else {
        Err(error("InvalidVersion"))
    }
}

pub(crate) fn act(
    action: Action,
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    match action {
        Action::GetSecretValue => kms::get_secret_value(request, controls),
        Action::DescribeSecret => kms::describe_secret(request, controls),
        Action::ListSecretVersionIds => kms::list_secret_version_ids(request, controls),
        Action::PutSecretValue => kms::put_secret_value(request, controls),
        Action::UpdateSecretVersionStage => kms::update_secret_version_stage(request, controls),
        Action::RotateSecret => kms::rotate_secret(request, controls),
        Action::GetCallerIdentity => Ok(sts::get_caller_identity(caller)),
        Action::AssumeRole => sts::assume_role(request, caller, controls),
    }
}

fn required<'a>(request: &'a ApiRequest, name: &str) -> Result<&'a str, ApiError> {
    request.param(name).ok_or_else(|| {
        let text = format!(
            "The parameter {name} that is mandatory for processing this request is not supplied."
        );
        error("MissingParameter").message(text)
    })
}

/// Makes fields of a JSON object.
fn fields(object: Value) -> Fields {
    match object {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}
