//! What the calls do, once they are let in.

mod kms;
mod sts;

use serde_json::{Map, Value};

pub(crate) use kms::{Wanted, read_value};

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
    BatchGetSecretValue,
    DescribeSecret,
    ListSecretVersionIds,
    PutSecretValue,
    UpdateSecretVersionStage,
    RotateSecret,
    GetCallerIdentity,
    AssumeRole,
    AssumeRoleWithOidc,
}

impl Action {
    /// Whether anybody may call it, without a signature.
    pub(crate) fn is_unsigned(self) -> bool {
        self == Self::AssumeRoleWithOidc
    }
}

const KMS: &str = "2016-01-20";
const STS: &str = "2015-04-01";

const ACTIONS: &[(&str, &str, Action)] = &[
    ("GetSecretValue", KMS, Action::GetSecretValue),
    ("BatchGetSecretValue", KMS, Action::BatchGetSecretValue),
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
    ("AssumeRoleWithOIDC", STS, Action::AssumeRoleWithOidc),
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
        Action::GetSecretValue => kms::get_secret_value(request, caller, controls),
        // Its items are read one by one, before it would come here.
        Action::BatchGetSecretValue => Err(error("UnsupportedOperation")),
        Action::DescribeSecret => kms::describe_secret(request, caller, controls),
        Action::ListSecretVersionIds => kms::list_secret_version_ids(request, caller, controls),
        Action::PutSecretValue => kms::put_secret_value(request, caller, controls),
        Action::UpdateSecretVersionStage => {
            kms::update_secret_version_stage(request, caller, controls)
        }
        Action::RotateSecret => kms::rotate_secret(request, caller, controls),
        Action::GetCallerIdentity => Ok(sts::get_caller_identity(caller)),
        Action::AssumeRole => sts::assume_role(request, caller, controls),
        Action::AssumeRoleWithOidc => sts::assume_role_with_oidc(request, controls),
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
