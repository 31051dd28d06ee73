//! Many values at once, as `BatchGetSecretValue` of KMS 2016-01-20 is asked for them and answers them. Pure.
//!
//! What the documents leave open (the order of the answers, plain names for ARNs) is read either way: an answer counts
//! only if it can be that to one request and no other.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{lenient, read_json};
use super::secret_name::plain_name;
use super::secret_value::{
    Facts, GetSecretValue, SecretValue, VERSION, operation, read_secret_value,
};
use super::{Error, Operation, Refusal};

/// The most secrets that one `BatchGetSecretValue` reads.
pub const BATCH_MAX: usize = 20;

/// The call that reads many at once.
#[must_use]
pub fn batch_operation(requests: &[GetSecretValue]) -> Operation {
    let items: Vec<Value> = requests.iter().map(batch_item).collect();
    Operation {
        action: "BatchGetSecretValue",
        version: VERSION,
        parameters: vec![("SecretsList", Value::from(items).to_string())],
        form: Vec::new(),
    }
}

fn batch_item(request: &GetSecretValue) -> Value {
    let parameters = operation(request).parameters;
    parameters
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Reads the body of an answer to `BatchGetSecretValue`: for each request its value or its refusal, or `None` where
/// not exactly one item can have been produced by it; such a secret must be read alone.
///
/// # Errors
/// [`Error::Malformed`] where the answer as a whole can't be read.
pub fn read_batch(
    requests: &[GetSecretValue],
    body: &[u8],
) -> Result<Vec<Option<Result<SecretValue, Error>>>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire<'a> {
        #[serde(borrow)]
        secret_values: Option<&'a RawValue>,
        #[serde(borrow)]
        errors: Option<&'a RawValue>,
    }
    let wire: Wire<'_> = read_json(body)?;
    let values = items(wire.secret_values).into_iter();
    let values: Vec<_> = values
        .filter_map(|raw| read_secret_value(raw.get().as_bytes()).ok())
        .collect();
    let errors = items(wire.errors).into_iter();
    let errors: Vec<_> = errors
        .filter_map(|raw| read_json(raw.get().as_bytes()).ok())
        .collect();
    Ok(requests
        .iter()
        .map(|request| pick(request, &values, &errors))
        .collect())
}

/// The items of a list, each to be read by itself: one that is odd, or no list at all, must not keep the others from
/// being read, if need be alone.
fn items(list: Option<&RawValue>) -> Vec<&RawValue> {
    let items = list.map(|list| serde_json::from_str(list.get()));
    items.and_then(Result::ok).unwrap_or_default()
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct WireItemError {
    #[serde(deserialize_with = "lenient")]
    secret_name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    code: Option<String>,
    #[serde(deserialize_with = "lenient")]
    http_status: Option<String>,
}

/// The one item that can only be the answer to `request`.
fn pick(
    request: &GetSecretValue,
    values: &[SecretValue],
    errors: &[WireItemError],
) -> Option<Result<SecretValue, Error>> {
    let asked = plain_name(&request.secret_name);
    // Two different ARNs of one plain name are secrets of two accounts.
    let is_arn = |name: &str| plain_name(name) != name;
    let named = |name: &str| {
        name == request.secret_name
            || plain_name(name) == asked && !(is_arn(name) && is_arn(&request.secret_name))
    };
    let mut values = values.iter().filter(|value| named(&value.secret_name));
    let mut errors = errors
        .iter()
        .filter(|error| error.secret_name.as_deref().is_some_and(named));
    match (values.next(), errors.next()) {
        (Some(value), None) if values.next().is_none() && fits(request, &value.facts) => {
            Some(Ok(value.clone()))
        }
        (None, Some(error)) if errors.next().is_none() => {
            let status = error
                .http_status
                .as_deref()
                .and_then(|status| status.parse().ok())
                .unwrap_or(400);
            Some(Err(Error::Refused(Box::new(Refusal::of_code(
                status,
                error.code.as_deref(),
            )))))
        }
        _ => None,
    }
}

/// The answer carries the stage, or is of the version, that was asked for.
fn fits(request: &GetSecretValue, facts: &Facts) -> bool {
    if let Some(id) = &request.version_id {
        return *id == facts.version_id;
    }
    let stage = request.version_stage.as_deref().unwrap_or("ACSCurrent");
    facts.version_stages.iter().any(|label| label == stage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn asked(name: &str, stage: Option<&str>) -> GetSecretValue {
        GetSecretValue {
            secret_name: name.into(),
            version_stage: stage.map(Into::into),
            ..GetSecretValue::default()
        }
    }

    fn batch(requests: &[GetSecretValue], values: &Value, errors: &Value) -> Vec<Option<String>> {
        let body = serde_json::json!({"SecretValues": values, "Errors": errors}).to_string();
        let read = read_batch(requests, body.as_bytes()).unwrap();
        let tell = |result: Result<SecretValue, Error>| match result {
            Ok(value) => value.data.expose_secret().to_owned(),
            Err(error) => error.to_string(),
        };
        read.into_iter().map(|item| item.map(tell)).collect()
    }

    fn item(name: &str, data: &str, stage: &str) -> Value {
        serde_json::json!({"SecretName": name, "SecretData": data, "VersionId": "v1", "VersionStages": {"VersionStage": [stage]}})
    }

    #[test]
    fn a_batch_is_matched_by_name_whatever_its_order() {
        let requests = [
            asked("a", None),
            asked("acs:kms:cn-hangzhou:1:secret/b", None),
            asked("c", None),
        ];
        let values =
            serde_json::json!([item("b", "B", "ACSCurrent"), item("a", "A", "ACSCurrent")]);
        let errors = serde_json::json!([{"SecretName": "c", "Code": "Forbidden.NoPermission", "HttpStatus": 403, "Message": "x"}]);
        let expected =
            ["A", "B", "Forbidden.NoPermission (HTTP 403)"].map(|text| Some(text.to_owned()));
        assert_eq!(batch(&requests, &values, &errors), expected);
    }

    #[test]
    fn what_a_batch_does_not_answer_clearly_is_read_alone() {
        let one = [asked("a", None)];
        let none = serde_json::json!([]);
        for values in [
            none.clone(),
            serde_json::json!([item("other", "X", "ACSCurrent")]),
            serde_json::json!([item("a", "1", "ACSCurrent"), item("a", "2", "ACSCurrent")]),
            serde_json::json!([item("a", "1", "ACSPrevious")]),
            serde_json::json!([{"SecretName": "a", "SecretData": ""}]),
        ] {
            assert_eq!(batch(&one, &values, &none), [None], "{values}");
        }
        let arn = |account: u8| format!("acs:kms:cn-hangzhou:{account}:secret/a");
        let others = serde_json::json!([item(&arn(2), "X", "ACSCurrent")]);
        assert_eq!(batch(&[asked(&arn(1), None)], &others, &none), [None]);
        let both = serde_json::json!([{"SecretName": "a", "Code": "Forbidden.NoPermission", "HttpStatus": 403}]);
        assert_eq!(
            batch(
                &one,
                &serde_json::json!([item("a", "1", "ACSCurrent")]),
                &both
            ),
            [None]
        );
    }

    #[test]
    fn one_item_or_list_that_cannot_be_read_does_not_spoil_the_others() {
        let one = [asked("a", None), asked("b", None)];
        let a = item("a", "A", "ACSCurrent").to_string();
        for (values, errors) in [
            (format!("[{a}]"), "null"),
            (format!("[{a}, 7, null]"), r#"[{"Code":"x","Code":"y"}]"#),
            (
                format!("[{a}]"),
                r#"[7, {"SecretName":"b"}, {"SecretName":"b"}]"#,
            ),
            (format!("[{a}]"), r#"{"Error":[]}"#),
        ] {
            let body = format!(r#"{{"SecretValues":{values},"Errors":{errors}}}"#);
            let read = read_batch(&one, body.as_bytes()).unwrap();
            assert!(matches!(&read[..], [Some(Ok(_)), None]), "{body}");
        }
        for body in [
            "{}",
            r#"{"SecretValues":null}"#,
            r#"{"SecretValues":{"SecretValue":[]}}"#,
        ] {
            let read = read_batch(&one, body.as_bytes()).unwrap();
            assert!(matches!(&read[..], [None, None]), "{body}");
        }
    }

    #[test]
    fn a_list_is_no_batch_and_no_item() {
        let one = [asked("a", None), asked("b", None)];
        let items = r#"{"SecretValues":[["a","A"]],"Errors":[["b","Forbidden.NoPermission"]]}"#;
        let read = read_batch(&one, items.as_bytes()).unwrap();
        assert!(matches!(&read[..], [None, None]));
        assert!(read_batch(&one, b"[[], []]").is_err());
    }

    #[test]
    fn a_batch_asks_in_the_words_of_the_api() {
        let operation = batch_operation(&[asked("a", Some("ACSPrevious"))]);
        let (name, list) = &operation.parameters[0];
        assert_eq!(*name, "SecretsList");
        assert_eq!(list, r#"[{"SecretName":"a","VersionStage":"ACSPrevious"}]"#);
    }
}
