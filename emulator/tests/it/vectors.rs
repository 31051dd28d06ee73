//! What the official SDKs sent, byte for byte, must be let in.

use std::path::Path;

use base64::Engine;
use kms_emulator::{Emulator, Options, StsKey};
use serde_json::Value;

use crate::client::{Answer, parse, send_raw};

fn read(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json["vectors"].as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// An emulator that knows the vector's key and stands at its time.
fn emulator(inputs: &Value) -> Emulator {
    let kms = Emulator::start_blocking(Options::default()).unwrap();
    let time = inputs["timestamp"]
        .as_str()
        .unwrap_or("2024-02-21T15:39:26Z");
    kms.set_now(time.parse().unwrap());
    let (id, secret) = (
        text(inputs, "access_key_id"),
        text(inputs, "access_key_secret"),
    );
    match inputs["security_token"].as_str() {
        None => kms.add_access_key(id, secret),
        Some(token) => kms.add_sts_key(&StsKey {
            access_key_id: id.to_owned(),
            access_key_secret: secret.to_owned(),
            security_token: token.to_owned(),
            expires: "2030-01-01T00:00:00Z".parse().unwrap(),
        }),
    }
    kms
}

/// The raw request with `Connection: close` among the unsigned headers, so that the answer has an end.
fn replay(kms: &Emulator, raw: &Value) -> Answer {
    let raw = base64::engine::general_purpose::STANDARD
        .decode(raw.as_str().unwrap())
        .unwrap();
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let mut request = raw[..end].to_vec();
    request.extend_from_slice(b"\r\nConnection: close");
    request.extend_from_slice(&raw[end..]);
    parse(&send_raw(kms, &request).unwrap())
}

const REFUSED_AT_THE_DOOR: [&str; 8] = [
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "InvalidAccessKeyId.NotFound",
    "InvalidTimeStamp.Expired",
    "IllegalTimestamp",
    "SignatureNonceUsed",
    "MissingSecurityToken",
    "InvalidSecurityToken.Malformed",
];

fn assert_let_in(answer: &Answer, id: &str) {
    let code = answer.code();
    assert!(
        !REFUSED_AT_THE_DOOR.contains(&code.as_str()),
        "{id}: {code}"
    );
}

fn assert_all_let_in(file: &str, count: usize) {
    let vectors = read(file);
    assert_eq!(vectors.len(), count);
    for vector in vectors {
        let kms = emulator(&vector["inputs"]);
        let raw = &vector["final"]["raw_request_base64"];
        let id = text(&vector, "id");
        assert_let_in(&replay(&kms, raw), id);
        let known = kms.calls().pop().unwrap().outcome != "InvalidAction.NotFound";
        if known {
            assert_eq!(replay(&kms, raw).code(), "SignatureNonceUsed", "{id}");
        }
    }
}

#[test]
fn all_v1_requests_of_the_old_sdk_are_let_in_once() {
    assert_all_let_in("v1_rpc_hmac_sha1_old_sdk.json", 55);
}

#[test]
fn all_v3_requests_of_the_new_sdk_are_let_in_once() {
    assert_all_let_in("v3_acs3_hmac_sha256_new_sdk.json", 38);
}

#[test]
fn the_credentials_library_can_assume_roles() {
    let signed = read("credentials_wire.json");
    let signed = signed
        .iter()
        .filter(|vector| vector["signature"].is_string());
    let mut seen = 0;
    for vector in signed {
        let kms = emulator(&vector["inputs"]);
        let answer = replay(&kms, &vector["requests"][0]["raw_request_base64"]);
        assert_let_in(&answer, text(vector, "id"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        seen += 1;
    }
    assert_eq!(seen, 2);
}

fn find(file: &str, id: &str) -> Value {
    let mut vectors = read(file).into_iter();
    vectors.find(|vector| text(vector, "id") == id).unwrap()
}

#[test]
fn the_new_sdk_can_read_batches() {
    let vector = find("v3_acs3_hmac_sha256_new_sdk.json", "batch_get");
    let kms = emulator(&vector["inputs"]);
    kms.put_generic("secret001", "x");
    let answer = replay(&kms, &vector["final"]["raw_request_base64"]).json();
    assert_eq!(answer["SecretValues"][0]["SecretData"], "x");
    assert_eq!(answer["Errors"].as_array().unwrap().len(), 2);
}

#[test]
fn the_credentials_library_can_bring_tokens() {
    let vector = find("credentials_wire.json", "assume_role_with_oidc");
    let kms = emulator(&vector["inputs"]);
    let issuer = kms_emulator::TokenIssuer::es256("x").unwrap();
    let provider = "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c123";
    kms.add_oidc_provider(provider, "x", &issuer.jwks())
        .unwrap();
    let answer = replay(&kms, &vector["requests"][0]["raw_request_base64"]);
    assert_eq!(answer.code(), "AuthenticationFail.OIDCToken.Invalid");
}

#[test]
fn the_credentials_library_can_ask_for_metadata() {
    let mut seen = 0;
    for id in ["ecs_ram_role_named", "ecs_ram_role_discover"] {
        for request in find("credentials_wire.json", id)["requests"]
            .as_array()
            .unwrap()
        {
            let kms = emulator(&Value::Null);
            let target = text(request, "target");
            let role = target.rsplit('/').next().filter(|role| !role.is_empty());
            kms.set_instance_role(role.or(Some("worker")));
            if target != "/latest/api/token" {
                // The token in the capture is not one of ours.
                kms.set_metadata_mode(kms_emulator::MetadataMode::V1Only);
            }
            assert_eq!(
                replay(&kms, &request["raw_request_base64"]).status,
                200,
                "{target}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 5);
}

#[test]
fn a_request_changed_in_one_place_is_refused() {
    for file in [
        "v1_rpc_hmac_sha1_old_sdk.json",
        "v3_acs3_hmac_sha256_new_sdk.json",
    ] {
        let vector = read(file).remove(0);
        let kms = emulator(&vector["inputs"]);
        let raw = text(&vector["final"], "raw_request_base64");
        let raw = base64::engine::general_purpose::STANDARD
            .decode(raw)
            .unwrap();
        let changed = String::from_utf8(raw).unwrap();
        let changed = changed
            .replace("SecretName=secret001", "SecretName=secret002")
            .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let answer = parse(&send_raw(&kms, changed.as_bytes()).unwrap());
        assert_eq!(answer.code(), "SignatureDoesNotMatch", "{file}");
    }
}
