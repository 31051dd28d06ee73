//! Reading answers and refusals: liberal in their shape, and strict in what of them is kept.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use super::{Denial, Error, Refusal};

/// No wait that a gateway asks for is longer, in milliseconds.
const RETRY_AFTER_MAX: u64 = 600_000;

/// What is looked at of an error body.
#[derive(Default)]
struct WireError {
    code: Option<String>,
    request_id: Option<String>,
    denied: Option<Value>,
}

/// Names come with capital or small letters, and some gateways write one in both ways.
fn read_names(body: &[u8]) -> Option<WireError> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let field = |names: [&str; 2]| {
        let mut fields = names.iter().filter_map(|name| json.get(name));
        fields.find(|field| !field.is_null()).cloned()
    };
    Some(WireError {
        code: field(["Code", "code"]).and_then(scalar),
        request_id: field(["RequestId", "requestId"]).and_then(scalar),
        denied: field(["AccessDeniedDetail", "accessDeniedDetail"]),
    })
}

/// The XML of the gateway, for requests whose format it could not tell.
fn read_xml(body: &[u8]) -> WireError {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct XmlError {
        code: Option<String>,
        request_id: Option<String>,
    }
    let text = std::str::from_utf8(body).unwrap_or_default();
    let error: XmlError = quick_xml::de::from_str(text).unwrap_or_default();
    WireError {
        code: error.code,
        request_id: error.request_id,
        denied: None,
    }
}

/// Reads any scalar as text and anything else as nothing.
pub(super) fn lenient<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Value::deserialize(deserializer).map(scalar)
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Reads a JSON object. Of a list serde would take the items for the fields in their order, and something that is not
/// KMS would have answered a value.
///
/// # Errors
/// [`Error::Malformed`], which tells the position and never the content: serde's own words can quote it.
pub(super) fn read_json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Error> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::Malformed("it is a list".into()));
    }
    serde_json::from_slice(body).map_err(|err| {
        let what = match err.classify() {
            Category::Eof => "it breaks off",
            Category::Data => "a field has the wrong type",
            Category::Syntax | Category::Io => "it is not JSON",
        };
        let (line, column) = (err.line(), err.column());
        Error::Malformed(format!("{what} at line {line} column {column}"))
    })
}

/// Reads a refusal; its message is left behind, whatever it says.
#[must_use]
pub fn read_refusal(status: u16, body: &[u8], retry_after: Option<&str>) -> Refusal {
    let wire = read_names(body).unwrap_or_else(|| read_xml(body));
    Refusal {
        retry_after: retry_after
            .and_then(|ms| ms.trim().parse::<u64>().ok())
            .filter(|ms| *ms > 0)
            .map(|ms| ms.min(RETRY_AFTER_MAX))
            .map(Duration::from_millis),
        request_id: wire.request_id.as_deref().and_then(clean_word),
        denied: wire.denied.as_ref().map(read_denial),
        ..Refusal::of_code(status, wire.code.as_deref())
    }
}

fn read_denial(detail: &Value) -> Denial {
    let field = |name: &str| detail.get(name)?.as_str().and_then(clean_word);
    Denial {
        action: field("AuthAction"),
        principal: field("AuthPrincipalDisplayName"),
        kind: field("NoPermissionType"),
        policy: field("PolicyType"),
    }
}

/// A word of the other side that may be shown: short, and of harmless characters only.
fn clean_word(word: &str) -> Option<String> {
    let fits = (1..=128).contains(&word.len())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b));
    fits.then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::Class;

    #[test]
    fn refusals_are_read_in_every_shape_and_without_their_message() {
        let body = br#"{"Code":"Forbidden.NoPermission","Message":"server string to sign is:SecurityToken%3Dtop-secret","RequestId":"r2",
            "AccessDeniedDetail":{"AuthAction":"kms:GetSecretValue","AuthPrincipalDisplayName":"role:sess","NoPermissionType":"ImplicitDeny","PolicyType":"<script>"}}"#;
        let refusal = read_refusal(403, body, None);
        assert_eq!(refusal.class, Class::Denied);
        assert_eq!(refusal.request_id.as_deref(), Some("r2"));
        let denied = refusal.denied.as_ref().unwrap();
        assert_eq!(denied.action.as_deref(), Some("kms:GetSecretValue"));
        assert_eq!(denied.policy, None);
        assert!(!format!("{refusal:?} {refusal}").contains("top-secret"));

        let small = read_refusal(
            400,
            br#"{"code":"Throttling.User","requestId":1}"#,
            Some("250"),
        );
        assert_eq!(small.class, Class::Throttled);
        assert_eq!(small.retry_after, Some(Duration::from_millis(250)));

        let xml = b"<?xml version=\"1.0\"?><Error><RequestId>r7</RequestId><Code>MissingParameter</Code><Message>m</Message></Error>";
        assert_eq!(
            read_refusal(400, xml, Some("-1")).code.as_deref(),
            Some("MissingParameter")
        );

        for twice in [
            r#"{"code":"Other","Code":"Throttling.User","RequestId":"r","requestId":"r"}"#,
            r#"{"Code":"Other","Code":"Throttling.User"}"#,
            r#"{"Code":null,"code":"Throttling.User"}"#,
        ] {
            let refusal = read_refusal(400, twice.as_bytes(), None);
            assert_eq!(refusal.class, Class::Throttled, "{twice}");
        }

        for (status, body, class) in [
            (
                502,
                &b"<html><body>502 Bad Gateway</body></html>"[..],
                Class::Unavailable,
            ),
            (404, b"<html>", Class::Rejected),
            (500, b"\xff\xfe", Class::Unavailable),
            (302, b"", Class::Rejected),
        ] {
            let refusal = read_refusal(status, body, Some("soon"));
            assert_eq!(
                (refusal.class, refusal.retry_after),
                (class, None),
                "{status}"
            );
        }
    }
}
