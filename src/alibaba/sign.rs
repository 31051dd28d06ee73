//! Signing, as pure functions: canonical form, string to sign, signature, request.
//!
//! Sources: `aliyun-python-sdk-core` 2.16.1 (`rpc_signature_composer`) for V1, and
//! `alibabacloud_tea_openapi` 0.4.6 and darabonba-openapi (`getCanonicalHeaders`) for V3. Every stage is
//! held against requests that those SDKs sent (`tests/vectors`).

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{AccessKey, Operation, SignatureMethod};

/// RFC 3986: letters, digits and `-_.~` stay; everything else is `%XX`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The media type of a body that holds parameters.
const FORM: &str = "application/x-www-form-urlencoded";

/// A request that is ready to be sent once: POST to `/`.
pub struct Signed {
    /// The query, encoded.
    pub query: SecretString,
    /// The form, encoded; empty where there is none.
    pub body: SecretString,
    /// The headers, in lower case; the values of some are secret.
    pub headers: Vec<(&'static str, SecretString)>,
    /// What was signed, to be held against what the service says that it signed.
    pub string_to_sign: SecretString,
}

/// Signs `operation` for one attempt: a nonce counts once, so a retry is signed anew.
#[must_use]
pub fn sign(
    operation: &Operation,
    host: &str,
    key: &AccessKey,
    method: SignatureMethod,
    now: Timestamp,
    nonce: &str,
) -> Signed {
    let date = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    match method {
        SignatureMethod::V3 => sign_v3(operation, host, key, &date, nonce),
        SignatureMethod::V1 => sign_v1(operation, key, &date, nonce),
    }
}

/// The request of an operation that proves who calls by its own parameters, as `AssumeRoleWithOIDC`: nothing is signed.
#[must_use]
pub fn unsigned(operation: &Operation, now: Timestamp) -> Signed {
    let date = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut parameters = vec![
        ("Action", operation.action),
        ("Format", "JSON"),
        ("Timestamp", &date),
        ("Version", operation.version),
    ];
    parameters.extend(operation.parameters.iter().map(|(k, v)| (*k, v.as_str())));
    Signed {
        query: canonical_query(parameters).into(),
        body: form(operation).into(),
        headers: form_header(operation),
        string_to_sign: String::new().into(),
    }
}

fn form(operation: &Operation) -> String {
    canonical_query(operation.form.iter().map(|(k, v)| (*k, v.expose_secret())))
}

fn form_header(operation: &Operation) -> Vec<(&'static str, SecretString)> {
    if operation.form.is_empty() {
        Vec::new()
    } else {
        vec![("content-type", FORM.into())]
    }
}

fn sign_v3(operation: &Operation, host: &str, key: &AccessKey, date: &str, nonce: &str) -> Signed {
    let body = form(operation);
    let payload = hex_sha256(body.as_bytes());
    let mut headers = vec![
        ("host", host),
        ("x-acs-action", operation.action),
        ("x-acs-content-sha256", &payload),
        ("x-acs-date", date),
        ("x-acs-signature-nonce", nonce),
        ("x-acs-version", operation.version),
    ];
    if !body.is_empty() {
        headers.push(("content-type", FORM));
    }
    if let Some(token) = &key.security_token {
        headers.push(("x-acs-accesskey-id", key.id.expose_secret()));
        headers.push(("x-acs-security-token", token.expose_secret()));
    }
    let query = canonical_query(operation.parameters.iter().map(|(k, v)| (*k, v.as_str())));
    let (canonical, signed_names) = v3_canonical_request("POST", &query, &headers, &payload);
    let string_to_sign = v3_string_to_sign(&canonical);
    let signature = v3_signature(&string_to_sign, key.secret.expose_secret());
    let authorization = format!(
        "ACS3-HMAC-SHA256 Credential={},SignedHeaders={signed_names},Signature={signature}",
        key.id.expose_secret()
    );
    headers.push(("authorization", &authorization));
    Signed {
        query: query.into(),
        body: body.into(),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect(),
        // The service echoes the canonical request or the string to sign; a secret is in neither.
        string_to_sign: string_to_sign.into(),
    }
}

fn sign_v1(operation: &Operation, key: &AccessKey, date: &str, nonce: &str) -> Signed {
    let mut parameters = vec![
        ("AccessKeyId", key.id.expose_secret()),
        ("Action", operation.action),
        ("Format", "JSON"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureNonce", nonce),
        ("SignatureVersion", "1.0"),
        ("Timestamp", date),
        ("Version", operation.version),
    ];
    if let Some(token) = &key.security_token {
        parameters.push(("SecurityToken", token.expose_secret()));
    }
    parameters.extend(operation.parameters.iter().map(|(k, v)| (*k, v.as_str())));
    let query = canonical_query(parameters.iter().copied());
    // What is in the body is signed as if it stood in the query.
    parameters.extend(operation.form.iter().map(|(k, v)| (*k, v.expose_secret())));
    let string_to_sign = v1_string_to_sign("POST", &canonical_query(parameters));
    let signature = v1_signature(&string_to_sign, key.secret.expose_secret());
    Signed {
        query: format!("{query}&Signature={}", encode(&signature)).into(),
        body: form(operation).into(),
        headers: form_header(operation),
        string_to_sign: string_to_sign.into(),
    }
}

/// Percent-encodes as the gateway does (space is `%20`, `*` is `%2A`, `~` stays).
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The parameters, encoded and sorted by the bytes of their names; an empty value stays `name=`.
///
/// ```
/// use kms_secret_operator::alibaba::sign::canonical_query;
///
/// let query = canonical_query([("VersionStage", ""), ("SecretName", "shop/db *")]);
/// assert_eq!(query, "SecretName=shop%2Fdb%20%2A&VersionStage=");
/// ```
#[must_use]
pub fn canonical_query<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut parameters: Vec<_> = parameters.into_iter().collect();
    parameters.sort_unstable();
    let encoded: Vec<_> = parameters
        .into_iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    encoded.join("&")
}

/// V1: the string to sign of a request whose query and form parameters are in `canonical_query`.
#[must_use]
pub fn v1_string_to_sign(http_method: &str, canonical_query: &str) -> String {
    format!("{http_method}&%2F&{}", encode(canonical_query))
}

/// V1: Base64 of the HMAC-SHA1 (RFC 2104), keyed by the secret and an ampersand.
#[must_use]
pub fn v1_signature(string_to_sign: &str, secret: &str) -> String {
    let key = format!("{secret}&");
    BASE64_STANDARD.encode(mac::<Hmac<Sha1>>(key.as_bytes(), string_to_sign))
}

/// V3: the canonical request, and the list of signed headers that also goes into `Authorization`.
///
/// `headers` are the headers to sign with lower-case names; values of one name are joined by commas, sorted.
#[must_use]
pub fn v3_canonical_request(
    http_method: &str,
    canonical_query: &str,
    headers: &[(&str, &str)],
    hashed_payload: &str,
) -> (String, String) {
    let mut headers = headers.to_vec();
    headers.sort_unstable();
    let mut canonical_headers = String::new();
    let mut names: Vec<&str> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        if names.last() == Some(&name) {
            canonical_headers.pop();
            canonical_headers.push(',');
        } else {
            names.push(name);
            canonical_headers.push_str(name);
            canonical_headers.push(':');
        }
        canonical_headers.push_str(value.trim());
        canonical_headers.push('\n');
    }
    let names = names.join(";");
    let canonical = format!(
        "{http_method}\n/\n{canonical_query}\n{canonical_headers}\n{names}\n{hashed_payload}"
    );
    (canonical, names)
}

/// V3: the string to sign.
#[must_use]
pub fn v3_string_to_sign(canonical_request: &str) -> String {
    format!(
        "ACS3-HMAC-SHA256\n{}",
        hex_sha256(canonical_request.as_bytes())
    )
}

/// V3: hex of the HMAC-SHA256 (RFC 2104), keyed by the secret itself.
#[must_use]
pub fn v3_signature(string_to_sign: &str, secret: &str) -> String {
    hex(&mac::<Hmac<Sha256>>(secret.as_bytes(), string_to_sign))
}

/// Lower-case hex of SHA-256, as V3 hashes payloads and canonical requests.
#[must_use]
pub fn hex_sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &str) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes a key of any length (RFC 2104)"
    )]
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("any length of key");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "planted+token/==";

    fn operation() -> Operation {
        Operation {
            action: "AssumeRole",
            version: "2015-04-01",
            parameters: Vec::new(),
            form: vec![
                ("RoleArn", "acs:ram::1:role/a".into()),
                ("OIDCToken", TOKEN.into()),
            ],
        }
    }

    fn signed(method: SignatureMethod) -> Signed {
        let key = AccessKey {
            id: "LTAI".into(),
            secret: "secret".into(),
            security_token: None,
        };
        sign(
            &operation(),
            "sts",
            &key,
            method,
            Timestamp::UNIX_EPOCH,
            "n",
        )
    }

    fn has(signed: &Signed, name: &str, value: &str) -> bool {
        let found =
            |(key, said): &(&str, SecretString)| *key == name && said.expose_secret() == value;
        signed.headers.iter().any(found)
    }

    #[test]
    fn what_is_in_the_form_is_signed_and_in_no_url() {
        let unsigned = unsigned(&operation(), Timestamp::UNIX_EPOCH);
        for signed in [
            signed(SignatureMethod::V1),
            signed(SignatureMethod::V3),
            unsigned,
        ] {
            assert!(!signed.query.expose_secret().contains("planted"));
            assert_eq!(
                signed.body.expose_secret(),
                "OIDCToken=planted%2Btoken%2F%3D%3D&RoleArn=acs%3Aram%3A%3A1%3Arole%2Fa"
            );
            assert!(has(&signed, "content-type", FORM));
        }
        let v1 = signed(SignatureMethod::V1);
        let in_the_query = encode("OIDCToken=planted%2Btoken%2F%3D%3D&RoleArn=");
        assert!(v1.string_to_sign.expose_secret().contains(&in_the_query));
        let v3 = signed(SignatureMethod::V3);
        let hashed = hex_sha256(v3.body.expose_secret().as_bytes());
        assert!(has(&v3, "x-acs-content-sha256", &hashed));
    }

    #[test]
    fn an_unsigned_request_names_the_action_and_nobody() {
        let unsigned = unsigned(&operation(), Timestamp::UNIX_EPOCH);
        assert_eq!(
            unsigned.query.expose_secret(),
            "Action=AssumeRole&Format=JSON&Timestamp=1970-01-01T00%3A00%3A00Z&Version=2015-04-01"
        );
    }
}
