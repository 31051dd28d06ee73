//! Versions, labels, kinds of secrets and what is answered of them.

use std::time::Duration;

use kms_emulator::{Automatic, Kind, Managed};
use serde_json::{Value, json};

use crate::client::{ask, get, start};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_generic_secret_has_exactly_its_documented_fields() {
    let kms = start();
    kms.put_generic("s", "text");
    let answer = get(&kms, "s")
        .with("FetchExtendedConfig", "true")
        .send(&kms)
        .json();
    let mut names: Vec<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    let wanted = [
        "CreateTime",
        "RequestId",
        "SecretData",
        "SecretDataType",
        "SecretName",
        "SecretType",
        "VersionId",
        "VersionStages",
    ];
    assert_eq!(names, wanted);
    assert_eq!(
        answer["VersionStages"],
        json!({ "VersionStage": ["ACSCurrent"] })
    );
    assert_eq!(answer["SecretType"], "Generic");
}

#[test]
fn binary_data_is_base64() {
    let kms = start();
    kms.put_binary("s", &[0, 255, 16]);
    let answer = get(&kms, "s").send(&kms).json();
    assert_eq!(answer["SecretData"], "AP8Q");
    assert_eq!(answer["SecretDataType"], "binary");
}

#[test]
fn labels_versions_and_rollback_over_the_wire() {
    let kms = start();
    kms.put_generic("s", "one");
    kms.put_generic("s", "two");
    let read = |name: &str, value: &str| get(&kms, "s").with(name, value).send(&kms);
    assert_eq!(read("VersionStage", "ACSPrevious").data(), "one");
    assert_eq!(read("VersionId", "v1").data(), "one");
    assert_eq!(read("VersionStage", "").data(), "two");
    assert_eq!(read("VersionStage", "blue").status, 404);
    assert_eq!(read("VersionId", "v9").code(), "Forbidden.ResourceNotFound");
    let both = read("VersionStage", "ACSCurrent");
    assert_eq!(both.data(), "two");
    let both = get(&kms, "s")
        .with("VersionStage", "ACSCurrent")
        .with("VersionId", "v1");
    assert_eq!(both.send(&kms).data(), "one");
    kms.move_stage("s", "ACSCurrent", "v1").unwrap();
    assert_eq!(get(&kms, "s").send(&kms).data(), "one");
    let order: Vec<String> = kms.history("s").into_iter().map(|r| r.version_id).collect();
    assert_eq!(order, ["v1", "v2", "v1"]);
}

#[test]
fn puts_and_listings_over_the_wire() {
    let kms = start();
    kms.put_generic("s", "one");
    let put = |id: &str, data: &str| {
        let params = [("SecretName", "s"), ("VersionId", id), ("SecretData", data)];
        ask(&kms, "PutSecretValue", &params).send(&kms)
    };
    assert_eq!(put("new", "two").status, 200);
    assert_eq!(put("new", "two").status, 200);
    assert_eq!(put("new", "other").code(), "Rejected.ResourceExist");
    assert_eq!(get(&kms, "s").send(&kms).data(), "two");
    let params = [
        ("SecretName", "s"),
        ("VersionStage", "ACSCurrent"),
        ("MoveToVersion", "v1"),
        ("RemoveFromVersion", "new"),
    ];
    assert_eq!(
        ask(&kms, "UpdateSecretVersionStage", &params)
            .send(&kms)
            .status,
        200
    );
    let list = ask(&kms, "ListSecretVersionIds", &[("SecretName", "s")])
        .send(&kms)
        .json();
    let listed = list["VersionIds"]["VersionId"].as_array().unwrap();
    assert_eq!(list["TotalCount"], 1);
    assert_eq!(listed[0]["VersionId"], "v1");
    let all = ask(
        &kms,
        "ListSecretVersionIds",
        &[("SecretName", "s"), ("IncludeDeprecated", "true")],
    );
    assert_eq!(all.send(&kms).json()["TotalCount"], 2);
    let described = ask(&kms, "DescribeSecret", &[("SecretName", "s")])
        .send(&kms)
        .json();
    assert_eq!(
        described["Arn"],
        "acs:kms:cn-hangzhou:1234567890123456:secret/s"
    );
}

#[test]
fn arns_reach_own_and_foreign_secrets() {
    let kms = start();
    kms.put_generic("s", "own");
    let foreign = "acs:kms:cn-hangzhou:999:secret/s";
    kms.put_generic(foreign, "foreign");
    let read = |name: &str| get(&kms, name).send(&kms);
    assert_eq!(
        read("acs:kms:cn-hangzhou:1234567890123456:secret/s").data(),
        "own"
    );
    assert_eq!(read(foreign).data(), "foreign");
    assert_eq!(read(foreign).json()["SecretName"], "s");
    assert_eq!(
        read("acs:kms:us-west-1:1234567890123456:secret/s").status,
        404
    );
    assert_eq!(read("no spaces").code(), "InvalidParameter");
    assert_eq!(
        ask(&kms, "GetSecretValue", &[]).send(&kms).code(),
        "MissingParameter"
    );
}

#[test]
fn a_dry_run_always_fails_and_says_why() {
    let kms = start();
    kms.put_generic("s", "x");
    let dry = |name: &str| get(&kms, name).with("DryRun", "true").send(&kms).code();
    assert_eq!(dry("s"), "DryRunOperationError");
    assert_eq!(dry("none"), "ValidationError");
    assert_eq!(
        get(&kms, "s").with("DryRun", "false").send(&kms).status,
        200
    );
}

#[test]
fn a_managed_secret_ignores_version_ids_and_has_rotation_fields() {
    let kms = start();
    kms.put_managed("m", Managed::rds(HOUR));
    let answer = get(&kms, "m")
        .with("VersionId", "nonsense")
        .send(&kms)
        .json();
    assert_eq!(answer["AutomaticRotation"], "Enabled");
    assert_eq!(answer["RotationInterval"], "3600s");
    assert!(answer.get("LastRotationDate").is_none() && answer.get("ExtendedConfig").is_none());
    let first = kms.rotate("m").unwrap();
    let answer = get(&kms, "m")
        .with("FetchExtendedConfig", "True")
        .send(&kms)
        .json();
    assert_eq!(answer["VersionId"], first.as_str());
    assert!(answer["LastRotationDate"].is_string());
    let config: Value = serde_json::from_str(answer["ExtendedConfig"].as_str().unwrap()).unwrap();
    assert_eq!(config["SecretSubType"], "SingleUser");
    assert_eq!(
        get(&kms, "m")
            .with("VersionStage", "blue")
            .send(&kms)
            .status,
        404
    );
    let put = [("SecretName", "m"), ("VersionId", "v"), ("SecretData", "x")];
    assert_eq!(ask(&kms, "PutSecretValue", &put).send(&kms).status, 400);
}

#[test]
fn two_accounts_alternate_and_previous_keeps_the_old_one() {
    let kms = start();
    kms.put_managed("m", Managed::rds(HOUR).dual().account("app"));
    let before = get(&kms, "m").send(&kms).data();
    kms.rotate("m").unwrap();
    let after = get(&kms, "m").send(&kms).data();
    assert!(before.contains(r#""AccountName":"app""#));
    assert!(after.contains(r#""AccountName":"app_clone""#));
    assert_eq!(
        get(&kms, "m")
            .with("VersionStage", "ACSPrevious")
            .send(&kms)
            .data(),
        before
    );
}

#[test]
fn kinds_and_states_are_spelled_as_on_the_wire() {
    let kms = start();
    for (kind, wire) in [
        (Kind::PolarDb, "PolarDB"),
        (Kind::RamCredentials, "RAMCredentials"),
        (Kind::EcsKeyPair, "ECS"),
        (Kind::Other("MongoDB".to_owned()), "MongoDB"),
    ] {
        kms.put_managed("m", Managed::new(kind, HOUR));
        assert_eq!(get(&kms, "m").send(&kms).json()["SecretType"], wire);
    }
    kms.set_rotation_status("m", Automatic::Disabled).unwrap();
    let answer = get(&kms, "m").send(&kms).json();
    assert_eq!(answer["AutomaticRotation"], "Disabled");
    assert!(answer.get("NextRotationDate").is_none());
}

#[test]
fn a_deleted_secret_is_missing_and_keeps_its_history() {
    let kms = start();
    kms.put_generic("s", "x");
    assert!(kms.delete("s"));
    assert_eq!(get(&kms, "s").send(&kms).status, 404);
    assert_eq!(kms.history("s").len(), 1);
    kms.put_generic("s", "y");
    assert_eq!(kms.history("s").len(), 2);
    assert_eq!(kms.current("s").unwrap().value, "y");
}
