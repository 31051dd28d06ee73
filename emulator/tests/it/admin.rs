//! The admin API does what the library does.

use kms_emulator::Emulator;
use serde_json::{Value, json};

use crate::client::{Answer, get, parse, send_raw, start};

pub(crate) fn send(kms: &Emulator, method: &str, path: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} /_emulator/{path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    parse(&send_raw(kms, request.as_bytes()).unwrap())
}

pub(crate) fn post(kms: &Emulator, path: &str, body: &Value) -> Value {
    let answer = send(kms, "POST", path, &body.to_string());
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

pub(crate) fn look(kms: &Emulator, path: &str) -> Value {
    let answer = send(kms, "GET", path, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

#[test]
fn secrets_are_made_read_and_deleted() {
    let kms = start();
    assert_eq!(look(&kms, "health")["status"], "ok");
    let put = post(
        &kms,
        "secrets/put",
        &json!({ "name": "a/b", "text": "one" }),
    );
    assert_eq!(put["version_id"], "v1");
    let second = json!({ "name": "a/b", "text": "two", "version_id": "second" });
    post(&kms, "secrets/put", &second);
    assert_eq!(get(&kms, "a/b").send(&kms).data(), "two");
    let back = json!({ "name": "a/b", "stage": "ACSCurrent", "version_id": "v1" });
    post(&kms, "secrets/move-stage", &back);
    assert_eq!(
        look(&kms, "current?name=a/b"),
        json!({ "version_id": "v1", "value": "one" })
    );
    assert_eq!(look(&kms, "history?name=a/b").as_array().unwrap().len(), 3);
    post(
        &kms,
        "secrets/put",
        &json!({ "name": "bin", "base64": "AP8Q" }),
    );
    assert_eq!(look(&kms, "secrets"), json!(["a/b", "bin"]));
    post(&kms, "secrets/delete", &json!({ "name": "bin" }));
    assert_eq!(get(&kms, "bin").send(&kms).status, 404);
}

#[test]
fn managed_secrets_are_planned_rotated_and_aged() {
    let kms = start();
    let managed = json!({ "kind": "Rds", "interval": 3600, "accounts": "Dual", "account": "app" });
    post(
        &kms,
        "secrets/put",
        &json!({ "name": "m", "managed": managed }),
    );
    let rotated = post(&kms, "secrets/rotate", &json!({ "name": "m" }));
    assert_eq!(
        get(&kms, "m").send(&kms).json()["VersionId"],
        rotated["version_id"]
    );
    post(
        &kms,
        "secrets/rotation",
        &json!({ "name": "m", "lateness": 100 }),
    );
    post(&kms, "clock/advance", &json!({ "seconds": 3650 }));
    assert_eq!(kms.history("m").len(), 2);
    post(&kms, "clock/advance", &json!({ "seconds": 100 }));
    assert_eq!(kms.history("m").len(), 3);
    let plan = json!({ "name": "m", "status": "Invalid", "interval": 7200, "moves_next_date": false, "next": "2031-01-01T00:00:00Z" });
    post(&kms, "secrets/rotation", &plan);
    let answer = get(&kms, "m").send(&kms).json();
    assert_eq!(answer["AutomaticRotation"], "Invalid");
    assert_eq!(answer["NextRotationDate"], "2031-01-01T00:00:00Z");
    post(&kms, "clock/set", &json!({ "now": "2032-01-01T00:00:00Z" }));
    assert!(
        look(&kms, "clock")["now"]
            .as_str()
            .unwrap()
            .starts_with("2032-01-01T00:00:0")
    );
}

#[test]
fn keys_faults_limits_and_calls_are_managed() {
    let kms = start();
    kms.put_generic("s", "x");
    post(&kms, "keys/add", &json!({ "id": "new", "secret": "key" }));
    let read = || get(&kms, "s").key("new", "key", None).send(&kms);
    assert_eq!(read().status, 200);
    post(&kms, "keys/disable", &json!({ "id": "new" }));
    assert_eq!(read().code(), "InvalidAccessKeyId.Inactive");
    post(&kms, "keys/enable", &json!({ "id": "new" }));
    let fault = json!({ "code": "Forbidden.NoPermission", "secret": "s", "times": 1 });
    post(&kms, "faults/add", &fault);
    assert_eq!(look(&kms, "faults").as_array().unwrap().len(), 1);
    assert_eq!((read().status, read().status), (403, 200));
    let id = post(&kms, "faults/add", &json!({ "effect": "bad-gateway" }));
    assert_eq!(read().status, 502);
    post(&kms, "faults/clear", &json!({ "id": id["id"] }));
    post(&kms, "throttle", &json!({ "rate": 0.001, "burst": 1 }));
    assert_eq!((read().status, read().status), (200, 429));
    assert_eq!(send(&kms, "POST", "throttle", "").status, 200);
    assert_eq!(read().status, 200);
    assert_eq!(
        look(&kms, "calls").as_array().unwrap().len(),
        kms.calls().len()
    );
    post(&kms, "calls/reset", &json!({}));
    assert_eq!(look(&kms, "counts")["counts"], json!([]));
    post(&kms, "keys/remove", &json!({ "id": "new" }));
    assert_eq!(read().code(), "InvalidAccessKeyId.NotFound");
}

#[test]
fn what_it_does_not_know_it_refuses() {
    let kms = start();
    assert_eq!(send(&kms, "GET", "nothing", "").status, 404);
    assert_eq!(
        send(&kms, "POST", "secrets/rotate", r#"{"name":"none"}"#).status,
        404
    );
    assert_eq!(
        send(&kms, "POST", "secrets/put", r#"{"name":"x"}"#).status,
        400
    );
    assert_eq!(
        send(&kms, "POST", "faults/add", r#"{"effect":"odd"}"#).status,
        400
    );
    assert_eq!(send(&kms, "DELETE", "secrets", "").status, 403);
    assert!(kms.calls().is_empty());
}

#[test]
fn a_hold_is_closed_and_opened() {
    let kms = start();
    kms.put_generic("s", "x");
    post(&kms, "secrets/hold", &json!({ "name": "s" }));
    let (there, asked) = (kms.clone(), get(&kms, "s"));
    let call = std::thread::spawn(move || asked.send(&there).status);
    while kms.in_flight() == 0 {
        std::thread::yield_now();
    }
    post(&kms, "secrets/release", &json!({ "name": "s" }));
    assert_eq!(call.join().unwrap(), 200);
}

#[test]
fn a_seed_file_speaks_the_same_words() {
    let kms = start();
    let file = std::env::temp_dir().join(format!("seed-{}.json", uuid::Uuid::new_v4()));
    let seed = json!({
        "keys": [{ "id": "seeded", "secret": "key" }],
        "secrets": [
            { "name": "s", "text": "x" },
            { "name": "m", "managed": { "kind": "RamCredentials", "interval": 86400 } },
        ],
        "oidc_providers": [{ "arn": "acs:ram::1:oidc-provider/p", "issuer": "i", "jwks": { "keys": [] } }],
        "oidc_roles": [{ "role": "acs:ram::1:role/r", "provider": "acs:ram::1:oidc-provider/p", "subject": "*" }],
        "instance": { "role": "worker" },
    });
    std::fs::write(&file, seed.to_string()).unwrap();
    kms.seed(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        get(&kms, "s").key("seeded", "key", None).send(&kms).data(),
        "x"
    );
    assert!(get(&kms, "m").send(&kms).data().contains("AccessKeyId"));
}
