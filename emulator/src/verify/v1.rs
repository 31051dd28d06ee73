//! `HMAC-SHA1` over the parameters of query and form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::{Claims, Signature, canonical_query, encode};
use crate::request::ApiRequest;

pub(super) fn read_claims(request: &ApiRequest) -> Claims<'_> {
    let given = request.param("Signature");
    let access_key = request.param("AccessKeyId");
    let signature = if given.is_some() || access_key.is_some() {
        Signature::V1
    } else {
        Signature::Unsigned
    };
    Claims {
        signature,
        action: request.param("Action").unwrap_or_default(),
        version: request.param("Version").unwrap_or_default(),
        access_key,
        json: request
            .param("Format")
            .is_some_and(|f| f.eq_ignore_ascii_case("json")),
        token: request.param("SecurityToken"),
        time: request.param("Timestamp"),
        nonce: request.param("SignatureNonce"),
        given: given.filter(|_| is_known_method(request)),
        signed_headers: Vec::new(),
    }
}

fn is_known_method(request: &ApiRequest) -> bool {
    request.param("SignatureMethod") == Some("HMAC-SHA1")
        && request.param("SignatureVersion") == Some("1.0")
}

pub(super) fn string_to_sign(request: &ApiRequest) -> String {
    let signed = request
        .query
        .iter()
        .chain(&request.form)
        .filter(|(key, _)| key != "Signature");
    let query = canonical_query(signed);
    format!("{}&%2F&{}", request.method, encode(&query))
}

pub(super) fn matches(secret: &str, string_to_sign: &str, given: &str) -> bool {
    let Ok(given) = STANDARD.decode(given) else {
        return false;
    };
    let key = format!("{secret}&");
    let Ok(mac) = Hmac::<Sha1>::new_from_slice(key.as_bytes()) else {
        return false;
    };
    mac.chain_update(string_to_sign)
        .verify_slice(&given)
        .is_ok()
}
