//! `ACS3-HMAC-SHA256` over method, query, the headers that the caller lists, and the body's hash.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Claims, Signature, canonical_query};
use crate::request::ApiRequest;

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

pub(super) fn is_ours(authorization: &str) -> bool {
    authorization.starts_with(ALGORITHM)
}

pub(super) fn read_claims(request: &ApiRequest) -> Claims<'_> {
    let authorization = request.header("authorization").unwrap_or_default();
    let parts = authorization.strip_prefix(ALGORITHM).unwrap_or_default();
    let part = |name: &str| {
        parts
            .split(',')
            .filter_map(|part| part.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    };
    Claims {
        signature: Signature::V3,
        action: request.header("x-acs-action").unwrap_or_default(),
        version: request.header("x-acs-version").unwrap_or_default(),
        access_key: part("Credential"),
        json: true,
        token: request.header("x-acs-security-token"),
        time: request.header("x-acs-date"),
        nonce: request.header("x-acs-signature-nonce"),
        given: part("Signature"),
        signed_headers: part("SignedHeaders")
            .unwrap_or_default()
            .split(';')
            .collect(),
    }
}

/// Whoever could add or change one of these headers unseen could change the call.
pub(super) fn covers_what_matters(request: &ApiRequest, signed: &[&str]) -> bool {
    let sorted = signed.is_sorted() && signed.iter().all(|name| *name == name.to_lowercase());
    let required = [
        "host",
        "x-acs-action",
        "x-acs-version",
        "x-acs-content-sha256",
    ];
    let mut present = request
        .headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.starts_with("x-acs-") || *name == "content-type");
    sorted
        && required.iter().all(|name| signed.contains(name))
        && present.all(|name| signed.contains(&name))
}

pub(super) fn body_is_as_declared(request: &ApiRequest) -> bool {
    request
        .header("x-acs-content-sha256")
        .is_some_and(|declared| declared.eq_ignore_ascii_case(&hash(&request.body)))
}

pub(super) fn canonical_request(request: &ApiRequest, signed: &[&str]) -> String {
    let mut headers = String::new();
    for name in signed {
        headers.extend([name, ":", &canonical_header(request, name), "\n"]);
    }
    [
        request.method.as_str(),
        &request.path,
        &canonical_query(request.query.iter()),
        &headers,
        &signed.join(";"),
        &hash(&request.body),
    ]
    .join("\n")
}

fn canonical_header(request: &ApiRequest, name: &str) -> String {
    let values = request.headers.get_all(name).iter();
    let mut values: Vec<String> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
        .collect();
    values.sort();
    values.join(",")
}

pub(super) fn string_to_sign(request: &ApiRequest, signed: &[&str]) -> String {
    let canonical = canonical_request(request, signed);
    format!("{ALGORITHM}\n{}", hash(canonical.as_bytes()))
}

pub(super) fn matches(secret: &str, string_to_sign: &str, given: &str) -> bool {
    let Ok(given) = hex::decode(given) else {
        return false;
    };
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    mac.chain_update(string_to_sign)
        .verify_slice(&given)
        .is_ok()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
