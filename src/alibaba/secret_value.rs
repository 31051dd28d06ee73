//! A secret's value as `GetSecretValue` of KMS 2016-01-20 is asked for it and answers it.
//!
//! Liberal in what is read (every shape that a document or an SDK shows), strict in what is believed.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{lenient, read_json};
use super::{Error, Operation};

pub(super) const VERSION: &str = "2016-01-20";

/// The parameters of `GetSecretValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GetSecretValue {
    /// Name or ARN.
    pub secret_name: String,
    /// Stage label; KMS takes `ACSCurrent` when neither this nor the id is given.
    pub version_stage: Option<String>,
    /// Version id; KMS ignores it for managed secrets.
    pub version_id: Option<String>,
    /// Ask for `ExtendedConfig`; KMS ignores it for generic secrets.
    pub fetch_extended_config: bool,
    /// Ask whether the call would succeed, without its answer.
    pub dry_run: bool,
}

/// What KMS said of a secret, and its value.
#[derive(Clone, Debug)]
pub struct SecretValue {
    /// The name under which KMS answered; of a secret that was asked for by ARN it may be the plain one.
    pub secret_name: String,
    /// Everything but the value.
    pub facts: Facts,
    /// `SecretData`, as it came.
    pub data: SecretString,
    /// `ExtendedConfig`, as it came. Made by people, so treated as secret too.
    pub extended_config: Option<SecretString>,
}

/// What KMS said of a secret besides its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Id of the version that was read.
    pub version_id: String,
    /// Its stage labels.
    pub version_stages: Vec<String>,
    /// Type of the secret, as KMS spells it.
    pub secret_type: Option<String>,
    /// `text` or `binary`.
    pub secret_data_type: Option<String>,
    /// `Enabled`, `Disabled` or `Invalid`.
    pub automatic_rotation: Option<String>,
    /// As `604800s`.
    pub rotation_interval: Option<String>,
    /// When the secret was made; `None` also where it can't be read.
    pub create_time: Option<Timestamp>,
    /// When the secret was last rotated; `None` also where it can't be read.
    pub last_rotation_date: Option<Timestamp>,
    /// When it will be rotated next; `None` also where it can't be read.
    pub next_rotation_date: Option<Timestamp>,
}

impl Facts {
    /// KMS says that the value is binary, which means Base64.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        is(self.secret_data_type.as_deref(), "binary")
    }

    /// A type whose rotation is KMS's own. The spelling varies between the documents and the SDKs.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.secret_type.is_some() && !is(self.secret_type.as_deref(), "Generic")
    }
}

fn is(field: Option<&str>, word: &str) -> bool {
    field.is_some_and(|field| field.eq_ignore_ascii_case(word))
}

/// The call that asks for it: only the parameters that were given.
#[must_use]
pub fn operation(request: &GetSecretValue) -> Operation {
    let mut parameters = vec![("SecretName", request.secret_name.clone())];
    let optional = [
        ("VersionStage", request.version_stage.clone()),
        ("VersionId", request.version_id.clone()),
        (
            "FetchExtendedConfig",
            request.fetch_extended_config.then(|| "true".to_owned()),
        ),
        ("DryRun", request.dry_run.then(|| "true".to_owned())),
    ];
    parameters.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    Operation {
        action: "GetSecretValue",
        version: VERSION,
        parameters,
        form: Vec::new(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSecretValue {
    #[serde(default, deserialize_with = "lenient")]
    secret_name: Option<String>,
    secret_data: Option<SecretString>,
    #[serde(default, deserialize_with = "lenient")]
    secret_data_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    secret_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    version_id: Option<String>,
    #[serde(default)]
    version_stages: Value,
    #[serde(default, deserialize_with = "lenient")]
    automatic_rotation: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    rotation_interval: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    create_time: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    last_rotation_date: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    next_rotation_date: Option<String>,
    #[serde(default, deserialize_with = "text_or_json")]
    extended_config: Option<SecretString>,
}

/// `ExtendedConfig` is JSON in a string; where a gateway unpacked it, it is packed again.
fn text_or_json<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretString>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => None,
        Value::String(text) => Some(text.into()),
        other => Some(other.to_string().into()),
    })
}

/// Reads the body of an answer to `GetSecretValue`.
///
/// # Errors
/// [`Error::Malformed`], which tells the position and never the content.
pub fn read_secret_value(body: &[u8]) -> Result<SecretValue, Error> {
    let wire: WireSecretValue = read_json(body)?;
    let data = wire
        .secret_data
        .filter(|data| !data.expose_secret().is_empty())
        .ok_or_else(|| Error::Malformed("it holds no SecretData".into()))?;
    let next_rotation_date = wire.next_rotation_date.as_deref().and_then(read_date);
    let next_is_unreadable = wire.next_rotation_date.is_some() && next_rotation_date.is_none();
    Ok(SecretValue {
        secret_name: wire.secret_name.unwrap_or_default(),
        facts: Facts {
            version_id: wire.version_id.unwrap_or_default(),
            version_stages: read_stages(&wire.version_stages),
            secret_type: wire.secret_type,
            secret_data_type: wire.secret_data_type,
            automatic_rotation: wire.automatic_rotation,
            // An announced date that can't be read leaves nothing to reckon with.
            rotation_interval: wire.rotation_interval.filter(|_| !next_is_unreadable),
            create_time: wire.create_time.as_deref().and_then(read_date),
            last_rotation_date: wire.last_rotation_date.as_deref().and_then(read_date),
            next_rotation_date,
        },
        data,
        extended_config: wire.extended_config,
    })
}

/// `{"VersionStage": [..]}` on the wire, a flat array on an instance, an array of JSON text in the newest document.
fn read_stages(value: &Value) -> Vec<String> {
    match value {
        Value::Object(object) => object
            .get("VersionStage")
            .map_or_else(Vec::new, read_stages),
        Value::Array(items) => items.iter().flat_map(read_stages).collect(),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(inner @ (Value::Object(_) | Value::Array(_))) => read_stages(&inner),
            _ => vec![text.clone()],
        },
        _ => Vec::new(),
    }
}

/// Reads a date of this era; a gateway that answers another one has none.
fn read_date(text: &str) -> Option<Timestamp> {
    let date: Timestamp = text.trim().parse().ok()?;
    let years = Timestamp::UNIX_EPOCH..=Timestamp::from_second(DATE_MAX).ok()?;
    years.contains(&date).then_some(date)
}

/// The year 2200, in seconds.
const DATE_MAX: i64 = 7_258_118_400;

/// KMS rotates at least once in 365 days; ten years, in seconds, is more than any secret's.
const INTERVAL_MAX: i64 = 10 * 365 * 86_400;

/// Reads a `RotationInterval`: a whole number and a unit (`s` when read, `d`, `h`, `m` when set).
#[must_use]
pub fn read_interval(text: &str) -> Option<SignedDuration> {
    let text = text.trim();
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let count: i64 = text[..text.len() - 1].parse().ok()?;
    let total = count
        .checked_mul(seconds)
        .filter(|total| (1..=INTERVAL_MAX).contains(total))?;
    Some(SignedDuration::from_secs(total))
}

/// Decodes Base64 (standard alphabet, padded, as both ACK components do); line breaks are allowed as Go allows them.
///
/// # Errors
/// The text is not Base64.
pub fn decode_base64(text: &str) -> Result<SecretSlice<u8>, NotBase64> {
    let joined: String;
    let text = if text.contains(['\r', '\n']) {
        joined = text.replace(['\r', '\n'], "");
        &joined
    } else {
        text
    };
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| NotBase64)?;
    Ok(bytes.into())
}

/// The text is not Base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> SecretValue {
        read_secret_value(body.as_bytes()).unwrap()
    }

    #[test]
    fn stages_are_read_in_every_shape() {
        for stages in [
            r#"{"VersionStage":["ACSCurrent","blue"]}"#,
            r#"["ACSCurrent","blue"]"#,
            r#"["{ \"VersionStage\": [ \t\"ACSCurrent\", \"blue\" \t] }"]"#,
            r#""{\"VersionStage\":[\"ACSCurrent\",\"blue\"]}""#,
        ] {
            let value = read(&format!(r#"{{"SecretData":"x","VersionStages":{stages}}}"#));
            assert_eq!(
                value.facts.version_stages,
                ["ACSCurrent", "blue"],
                "{stages}"
            );
        }
        for stages in ["null", "7", "{}", r#"{"VersionStage":null}"#] {
            let value = read(&format!(r#"{{"SecretData":"x","VersionStages":{stages}}}"#));
            assert!(value.facts.version_stages.is_empty(), "{stages}");
        }
    }

    #[test]
    fn unknown_and_missing_fields_do_no_harm() {
        let value = read(
            r#"{"SecretData":"x","New":{"a":1},"SecretType":null,"RotationInterval":604800,"NextRotationDate":"soon","LastRotationDate":"2023-07-05T08:22:03Z"}"#,
        );
        assert_eq!(value.facts.secret_type, None);
        assert_eq!(value.facts.next_rotation_date, None);
        assert_eq!(
            value.facts.rotation_interval, None,
            "nothing to reckon with"
        );
        assert!(value.facts.last_rotation_date.is_some());
        assert!(!value.facts.is_binary() && !value.facts.is_managed());
    }

    #[test]
    fn a_value_that_is_not_there_is_an_error_that_does_not_quote_the_answer() {
        for body in [
            "",
            "{}",
            r#"{"SecretData":""}"#,
            r#"{"SecretData":null}"#,
            r#"{"SecretData":{"top":"secret"}}"#,
            r#"{"SecretData":"top-secret""#,
            "[]",
            r#"["name", "top-secret"]"#,
            " \n[null, \"top-secret\"]",
            "\"top-secret\"",
            "<html>top-secret</html>",
        ] {
            let error = read_secret_value(body.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Malformed(_)), "{body}");
            assert!(
                !format!("{error} {error:?}").contains("secret\""),
                "{error:?}"
            );
            assert!(!error.to_string().contains("top"), "{error}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_sent() {
        let names = |request: &GetSecretValue| -> Vec<&str> {
            operation(request)
                .parameters
                .iter()
                .map(|(name, _)| *name)
                .collect()
        };
        let mut request = GetSecretValue {
            secret_name: "a".into(),
            version_id: Some("v2".into()),
            ..GetSecretValue::default()
        };
        assert_eq!(names(&request), ["SecretName", "VersionId"]);
        request.version_stage = Some("ACSPrevious".into());
        request.fetch_extended_config = true;
        request.dry_run = true;
        assert_eq!(
            names(&request),
            [
                "SecretName",
                "VersionStage",
                "VersionId",
                "FetchExtendedConfig",
                "DryRun"
            ]
        );
    }

    #[test]
    fn intervals_are_read_with_their_unit() {
        for (text, seconds) in [
            ("604800s", Some(604_800)),
            ("7d", Some(604_800)),
            ("6h", Some(21_600)),
            ("0s", None),
            ("-1s", None),
            ("s", None),
            ("604800", None),
            ("9999999999999999999s", None),
            ("999999999999s", None),
            ("7日", None),
        ] {
            assert_eq!(
                read_interval(text),
                seconds.map(SignedDuration::from_secs),
                "{text}"
            );
        }
    }

    #[test]
    fn base64_is_the_standard_one_with_padding() {
        let decoded = |text: &str| decode_base64(text).map(|bytes| bytes.expose_secret().to_vec());
        assert_eq!(decoded("AAEC\r\nAw==\n"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(decoded("AAECAw"), Err(NotBase64));
        assert_eq!(decoded("_-__"), Err(NotBase64));
        assert_eq!(decoded("testdata1"), Err(NotBase64));
    }
}
