//! The KMS calls about secrets.

use serde_json::{Value, json};

use super::{Fields, fields, required};
use crate::clock::{lock, spell};
use crate::controls::Controls;
use crate::errors::{ApiError, error};
use crate::keys::Caller;
use crate::managed::Automatic;
use crate::request::ApiRequest;
use crate::rotation::Rotation;
use crate::secret::{CURRENT, Secret};
use crate::secrets::is_name;
use crate::version::{Data, Version};

/// The key of the secret that the call names.
fn secret_key(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<String, ApiError> {
    let name = required(request, "SecretName")?;
    if is_name(name) {
        Ok(lock(&controls.secrets).key_for(name, &caller.account))
    } else {
        Err(error("InvalidParameter").message("The specified parameter SecretName is not valid."))
    }
}

/// The same, if the caller may do that with it.
fn allowed_key(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
    action: &str,
) -> Result<String, ApiError> {
    let key = secret_key(request, caller, controls)?;
    controls.authorise(caller, action, &key)?;
    Ok(key)
}

pub(super) fn get_secret_value(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    let answer = secret_key(request, caller, controls).and_then(|key| {
        let wanted = Wanted {
            key: &key,
            stage: request.param("VersionStage"),
            version_id: request.param("VersionId"),
            extended: request.is_true("FetchExtendedConfig"),
        };
        read_value(&wanted, caller, controls)
    });
    if request.is_true("DryRun") {
        return Err(as_dry_run(answer.err()));
    }
    answer
}

/// A dry run always fails; its code says what the call would have done.
fn as_dry_run(failure: Option<ApiError>) -> ApiError {
    match failure {
        None => error("DryRunOperationError"),
        Some(failure) if failure.status == 403 => {
            let mut denied = error("AccessDeniedError").message(failure.message);
            denied.extra = failure.extra;
            denied
        }
        Some(failure) => error("ValidationError").message(failure.message),
    }
}

/// A value to be read.
pub(crate) struct Wanted<'a> {
    pub(crate) key: &'a str,
    pub(crate) stage: Option<&'a str>,
    pub(crate) version_id: Option<&'a str>,
    pub(crate) extended: bool,
}

/// The answer to a read, alone or in a batch.
pub(crate) fn read_value(
    wanted: &Wanted<'_>,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    controls.authorise(caller, "kms:GetSecretValue", wanted.key)?;
    controls.authorise_decrypt(caller)?;
    let mut secrets = lock(&controls.secrets);
    let secret = secrets.get(wanted.key, &controls.clock)?;
    let version = secret.find(wanted.stage, wanted.version_id)?;
    let mut answer = fields(json!({
        "SecretName": secret.name,
        "SecretType": secret.kind.wire(),
        "SecretData": version.data.text,
        "SecretDataType": data_type(&version.data),
        "VersionId": version.id,
        "VersionStages": { "VersionStage": version.stages },
        "CreateTime": spell(secret.created),
    }));
    if let Some(rotation) = &secret.rotation {
        answer.extend(rotation_fields(rotation));
        if wanted.extended {
            answer.insert(
                "ExtendedConfig".to_owned(),
                rotation.extended_config.as_str().into(),
            );
        }
    }
    Ok(answer)
}

fn data_type(data: &Data) -> &'static str {
    if data.binary { "binary" } else { "text" }
}

/// Interval and date are there unless rotation is off; with `Invalid` the date stays in the past.
fn rotation_fields(rotation: &Rotation) -> Fields {
    let mut answer = Fields::new();
    let automatic = rotation.plan.automatic;
    answer.insert("AutomaticRotation".to_owned(), automatic.wire().into());
    if automatic != Automatic::Disabled {
        let interval = format!("{}s", rotation.interval().as_secs());
        answer.insert("RotationInterval".to_owned(), interval.into());
        answer.insert(
            "NextRotationDate".to_owned(),
            spell(rotation.announced).into(),
        );
    }
    if let Some(last) = rotation.last {
        answer.insert("LastRotationDate".to_owned(), spell(last).into());
    }
    answer
}

pub(super) fn describe_secret(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    let key = allowed_key(request, caller, controls, "kms:DescribeSecret")?;
    let mut secrets = lock(&controls.secrets);
    let arn = secrets.arn(&key);
    let secret = secrets.get(&key, &controls.clock)?;
    let mut answer = fields(json!({
        "Arn": arn,
        "SecretName": secret.name,
        "SecretType": secret.kind.wire(),
        "Description": "",
        "CreateTime": spell(secret.created),
        "UpdateTime": spell(secret.updated),
    }));
    if let Some(rotation) = &secret.rotation {
        answer.extend(rotation_fields(rotation));
        answer.insert(
            "ExtendedConfig".to_owned(),
            rotation.extended_config.as_str().into(),
        );
    }
    if request.is_true("FetchTags") {
        answer.insert("Tags".to_owned(), json!({ "Tag": [] }));
    }
    Ok(answer)
}

pub(super) fn list_secret_version_ids(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    let key = allowed_key(request, caller, controls, "kms:ListSecretVersionIds")?;
    let page = number(request, "PageNumber", 1)?.max(1);
    let size = number(request, "PageSize", 20)?.clamp(1, 100);
    let all = request.is_true("IncludeDeprecated");
    let mut secrets = lock(&controls.secrets);
    let secret = secrets.get(&key, &controls.clock)?;
    let versions: Vec<&Version> = secret
        .versions
        .iter()
        .rev()
        .filter(|version| all || !version.stages.is_empty())
        .collect();
    let shown = versions
        .iter()
        .skip((page - 1).saturating_mul(size))
        .take(size);
    Ok(fields(json!({
        "SecretName": secret.name,
        "PageNumber": page,
        "PageSize": size,
        "TotalCount": versions.len(),
        "VersionIds": { "VersionId": shown.map(|version| listed(version)).collect::<Vec<_>>() },
    })))
}

fn listed(version: &Version) -> Value {
    json!({
        "VersionId": version.id,
        "CreateTime": spell(version.created),
        "VersionStages": { "VersionStage": version.stages },
    })
}

fn number(request: &ApiRequest, name: &str, default: usize) -> Result<usize, ApiError> {
    let Some(text) = request.param(name) else {
        return Ok(default);
    };
    text.parse().map_err(|_| error("InvalidParameter"))
}

pub(super) fn put_secret_value(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    let key = allowed_key(request, caller, controls, "kms:PutSecretValue")?;
    let id = required(request, "VersionId")?;
    let data = Data {
        text: required(request, "SecretData")?.to_owned(),
        binary: request.param("SecretDataType") == Some("binary"),
    };
    if id.len() > 64 || data.text.len() > 30_720 {
        return Err(error("InvalidParameter"));
    }
    let stages: Vec<String> = match request.param("VersionStages") {
        Some(list) => serde_json::from_str(list).map_err(|_| error("InvalidParameter"))?,
        None => vec![CURRENT.to_owned()],
    };
    let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
    let clock = &controls.clock;
    let mut secrets = lock(&controls.secrets);
    let secret = generic(secrets.get(&key, clock)?)?;
    secret.put(id, data, &stages, clock.now(), clock)?;
    let stored = secret.version(id).map(|version| version.stages.clone());
    Ok(fields(json!({
        "SecretName": secret.name,
        "VersionId": id,
        "VersionStages": { "VersionStage": stored.unwrap_or_default() },
    })))
}

fn generic(secret: &mut Secret) -> Result<&mut Secret, ApiError> {
    if secret.rotation.is_some() {
        return Err(error("UnsupportedOperation").message("Only generic secrets support this."));
    }
    Ok(secret)
}

pub(super) fn update_secret_version_stage(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    let key = allowed_key(request, caller, controls, "kms:UpdateSecretVersionStage")?;
    let stage = required(request, "VersionStage")?;
    let mut secrets = lock(&controls.secrets);
    let secret = generic(secrets.get(&key, &controls.clock)?)?;
    let to = request.param("MoveToVersion");
    let from = request.param("RemoveFromVersion");
    secret.move_stage(stage, to, from, &controls.clock)?;
    Ok(fields(json!({ "SecretName": secret.name })))
}

pub(super) fn rotate_secret(
    request: &ApiRequest,
    caller: &Caller,
    controls: &Controls,
) -> Result<Fields, ApiError> {
    let key = allowed_key(request, caller, controls, "kms:RotateSecret")?;
    let id = controls.rotate(&key)?;
    let mut secrets = lock(&controls.secrets);
    let arn = secrets.arn(&key);
    let secret = secrets.get(&key, &controls.clock)?;
    Ok(fields(
        json!({ "Arn": arn, "SecretName": secret.name, "VersionId": id }),
    ))
}
