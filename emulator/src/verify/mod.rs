//! Whether a request is who it says it is: keys, times, tokens, signatures, nonces.

mod nonces;
mod v1;
mod v3;

use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::errors::{ApiError, error};
use crate::keys::{Caller, Keys};
use crate::request::ApiRequest;

pub(crate) use nonces::Nonces;

/// How far a request's time may be off, and how long a nonce is remembered.
pub(crate) const WINDOW: SignedDuration = SignedDuration::from_mins(15);

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The signature method of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Signature {
    /// None at all.
    Unsigned,
    /// `HMAC-SHA1` in the parameters.
    V1,
    /// `ACS3-HMAC-SHA256` in the headers.
    V3,
}

/// What a request claims, as far as it says it.
pub(crate) struct Claims<'a> {
    pub(crate) signature: Signature,
    pub(crate) action: &'a str,
    pub(crate) version: &'a str,
    pub(crate) access_key: Option<&'a str>,
    pub(crate) json: bool,
    token: Option<&'a str>,
    time: Option<&'a str>,
    nonce: Option<&'a str>,
    given: Option<&'a str>,
    signed_headers: Vec<&'a str>,
}

pub(crate) fn read_claims(request: &ApiRequest) -> Claims<'_> {
    if request.header("authorization").is_some_and(v3::is_ours) {
        v3::read_claims(request)
    } else {
        v1::read_claims(request)
    }
}

/// What the server signs for that request, for itself and for the error text.
pub(crate) fn string_to_sign(request: &ApiRequest, claims: &Claims<'_>) -> String {
    match claims.signature {
        Signature::V3 => v3::string_to_sign(request, &claims.signed_headers),
        _ => v1::string_to_sign(request),
    }
}

/// Checks all that a signed call must get right; `now` is the clock that the answers show.
pub(crate) fn check(
    request: &ApiRequest,
    claims: &Claims<'_>,
    keys: &Keys,
    now: Timestamp,
) -> Result<Caller, ApiError> {
    let incomplete = || with_string_to_sign(error("IncompleteSignature"), request, claims);
    let id = claims.access_key.ok_or_else(incomplete)?;
    let given = claims.given.ok_or_else(incomplete)?;
    claims.nonce.ok_or_else(incomplete)?;
    let key = keys.find(id)?;
    check_time(claims.time, now)?;
    keys.check_token(id, claims.token, now)?;
    let string_to_sign = string_to_sign(request, claims);
    let matches = match claims.signature {
        Signature::V1 => v1::matches(&key.secret, &string_to_sign, given),
        Signature::V3 => {
            if !v3::covers_what_matters(request, &claims.signed_headers) {
                return Err(incomplete());
            }
            v3::body_is_as_declared(request) && v3::matches(&key.secret, &string_to_sign, given)
        }
        Signature::Unsigned => return Err(incomplete()),
    };
    if matches {
        Ok(key.caller(id))
    } else {
        Err(with_string_to_sign(
            error("SignatureDoesNotMatch"),
            request,
            claims,
        ))
    }
}

/// Refuses a nonce that this key has used within the window.
pub(crate) fn spend_nonce(
    nonces: &mut Nonces,
    claims: &Claims<'_>,
    now: Timestamp,
) -> Result<(), ApiError> {
    let key = claims.access_key.unwrap_or_default();
    if nonces.spend(key, claims.nonce.unwrap_or_default(), now) {
        Ok(())
    } else {
        Err(error("SignatureNonceUsed"))
    }
}

/// The real gateway says what it signed, security token included.
fn with_string_to_sign(error: ApiError, request: &ApiRequest, claims: &Claims<'_>) -> ApiError {
    let text = format!(
        "{} server string to sign is:{}",
        error.message,
        string_to_sign(request, claims)
    );
    error.message(text)
}

fn check_time(time: Option<&str>, now: Timestamp) -> Result<(), ApiError> {
    let time = time
        .filter(|text| is_spelled_right(text))
        .and_then(|text| text.parse::<Timestamp>().ok())
        .ok_or_else(|| error("IllegalTimestamp"))?;
    if now.duration_since(time).abs() > WINDOW {
        return Err(error("InvalidTimeStamp.Expired"));
    }
    Ok(())
}

fn is_spelled_right(text: &str) -> bool {
    text.len() == "2024-02-21T15:39:26Z".len() && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn canonical_query<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> String {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use serde_json::Value;

    use super::*;

    fn vectors(file: &str) -> Vec<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
        let text = std::fs::read_to_string(path.join(file)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        json["vectors"].as_array().unwrap().clone()
    }

    fn captured(vector: &Value) -> ApiRequest {
        let raw = vector["final"]["raw_request_base64"].as_str().unwrap();
        let raw = STANDARD.decode(raw).unwrap();
        let end = raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&raw[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let method = first.next().unwrap().parse().unwrap();
        let target = first.next().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let body = Bytes::copy_from_slice(&raw[end + 4..]);
        ApiRequest::new(method, target, headers, body)
    }

    fn keys_of(vector: &Value) -> Keys {
        let text = |name: &str| vector["inputs"][name].as_str().map(str::to_owned);
        let id = text("access_key_id").unwrap();
        let secret = text("access_key_secret").unwrap();
        let mut keys = Keys::new("1");
        keys.add("1", &id, &secret);
        if let Some(token) = text("security_token") {
            let identity = keys.find(&id).unwrap().caller(&id).identity;
            let sts = crate::StsKey {
                access_key_id: id,
                access_key_secret: secret,
                security_token: token,
                expires: Timestamp::MAX,
            };
            keys.add_session(&sts, "1", identity, None);
        }
        keys
    }

    fn assert_verified(vector: &Value) {
        let id = vector["id"].as_str().unwrap();
        let request = captured(vector);
        let claims = read_claims(&request);
        assert_eq!(
            string_to_sign(&request, &claims),
            vector["string_to_sign"].as_str().unwrap(),
            "{id}"
        );
        let now = vector["inputs"]["timestamp"].as_str().unwrap();
        let caller = check(&request, &claims, &keys_of(vector), now.parse().unwrap());
        assert!(caller.is_ok(), "{id}: {}", caller.err().unwrap());
    }

    #[test]
    fn every_v1_request_of_the_old_sdk_verifies() {
        let vectors = vectors("v1_rpc_hmac_sha1_old_sdk.json");
        assert_eq!(vectors.len(), 55);
        vectors.iter().for_each(assert_verified);
    }

    #[test]
    fn every_v3_request_of_the_new_sdk_verifies() {
        let vectors = vectors("v3_acs3_hmac_sha256_new_sdk.json");
        assert_eq!(vectors.len(), 38);
        for vector in &vectors {
            let request = captured(vector);
            let claims = read_claims(&request);
            assert_eq!(
                v3::canonical_request(&request, &claims.signed_headers),
                vector["canonical_request"].as_str().unwrap()
            );
            assert_verified(vector);
        }
    }
}
