//! What goes wrong is told in words, costs no burst of calls, and never spoils the last good Secret.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kms_emulator::{Effect, Emulator, Fault, Options, error};
use kms_secret_operator::api::KmsSecret;
use kube::ResourceExt as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::world::{KEY_ID, KEY_SECRET, World, a_while, condition, eventually};

fn calls_of(world: &World, secret: &str) -> usize {
    world
        .kms
        .count_where(|call| call.secret.as_deref() == Some(secret))
}

/// Codes that only a human can mend, and how often one attempt calls KMS.
const LASTING: [(&str, &str, usize); 25] = [
    ("Forbidden.ResourceNotFound", "SecretNotFound", 1),
    ("Forbidden.KeyNotFound", "KeyUnavailable", 1),
    ("Forbidden.KeyVersionNotFound", "KeyUnavailable", 1),
    ("Forbidden.AliasNotFound", "KeyUnavailable", 1),
    ("Rejected.Disabled", "KeyUnavailable", 1),
    ("Rejected.PendingDeletion", "KeyUnavailable", 1),
    ("Rejected.PendingImport", "KeyUnavailable", 1),
    ("Rejected.StateModifiedFailed", "KeyUnavailable", 1),
    ("Forbidden.NoPermission", "AccessDenied", 1),
    ("Forbidden.AccessKey", "CredentialsInvalid", 1),
    ("InvalidAccessKeyId.NotFound", "CredentialsInvalid", 1),
    ("InvalidAccessKeyId.Inactive", "CredentialsInvalid", 1),
    ("SignatureDoesNotMatch", "CredentialsInvalid", 1),
    ("IncompleteSignature", "CredentialsInvalid", 1),
    ("InvalidSecurityToken.Expired", "CredentialsInvalid", 1),
    ("MissingSecurityToken", "CredentialsInvalid", 1),
    ("Forbidden.InDebt", "AccountUnavailable", 1),
    ("Forbidden.InDebtOverdue", "AccountUnavailable", 1),
    ("Forbidden.KmsServiceNotEnabled", "AccountUnavailable", 1),
    ("Forbidden.ProhibitedByRiskControl", "AccountUnavailable", 1),
    (
        "Forbidden.DKMSInstanceStateInvalid",
        "InstanceUnavailable",
        1,
    ),
    ("Forbidden.DKMSInstanceNotFound", "InstanceUnavailable", 1),
    ("MissingParameter", "RequestRejected", 1),
    ("InvalidParameter", "RequestRejected", 1),
    ("UnsupportedHTTPMethod", "RequestRejected", 1),
];

#[tokio::test]
async fn each_lasting_error_has_its_reason_and_one_call_and_leaves_the_last_good_secret() {
    let world = World::new().await;
    let _operator = world.operator().await;
    let name = |code: &str| code.to_lowercase();
    for (code, ..) in LASTING {
        world.kms.put_generic(code, "good");
        // Credentials that are refused stop their whole store, so each has one of its own.
        world.store(&name(code), "kms-credentials", json!({})).await;
        let spec = json!({"storeRef": {"name": name(code)}});
        world.kms_secret(&name(code), code, spec).await;
    }
    for (code, ..) in LASTING {
        world.until_synced(&name(code)).await;
        world.kms.fault(Fault::code(code).on_secret(code));
    }
    world.kms.reset_calls();
    for (code, ..) in LASTING {
        world.force(&name(code)).await;
    }
    for (code, reason, _) in LASTING {
        let object = world.until_ready(&name(code), "False", reason).await;
        let (_, _, message) = condition(&object, "Ready").unwrap();
        assert!(message.contains(code), "{message}");
        assert_eq!(condition(&object, "Stalled").unwrap().1, reason);
        let told = object.status.unwrap().error.unwrap();
        assert_eq!(told.code.as_deref(), Some(code));
        assert!(!told.action.is_empty());
    }
    a_while().await;
    for (code, _, calls) in LASTING {
        assert_eq!(calls_of(&world, code), calls, "{code}");
        assert_eq!(
            world.text(&name(code), "value").await.unwrap(),
            "good",
            "{code}"
        );
    }
    world.kms.clear_faults();
    for (code, ..) in LASTING {
        world.force(&name(code)).await;
    }
    for (code, ..) in LASTING {
        world.until_synced(&name(code)).await;
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_told_where_there_is_no_good_value_yet_and_tried_again() {
    let world = World::new().await;
    let patch_away = json!({"SecretData": null});
    let cases = [
        ("500", Fault::code("InternalFailure"), "KmsUnavailable", 3),
        (
            "503",
            Fault::code("ServiceUnavailableTemporary"),
            "KmsUnavailable",
            3,
        ),
        ("429", Fault::code("Rejected.Throttling"), "Throttled", 1),
        ("throttling", Fault::code("Throttling.User"), "Throttled", 1),
        (
            "xml",
            Fault::code("InternalFailure").as_xml(),
            "KmsUnavailable",
            3,
        ),
        ("html", Fault::new(Effect::BadGateway), "KmsUnavailable", 3),
        ("reset", Fault::new(Effect::Reset), "KmsUnavailable", 3),
        (
            "truncated",
            Fault::new(Effect::Truncated),
            "KmsUnavailable",
            3,
        ),
        ("garbage", Fault::new(Effect::Garbage), "KmsUnavailable", 3),
        ("body", Fault::new(Effect::GarbageBody), "KmsUnavailable", 1),
        ("empty", Fault::new(Effect::Empty), "KmsUnavailable", 1),
        (
            "huge",
            Fault::new(Effect::Huge { bytes: 64 << 20 }),
            "KmsUnavailable",
            3,
        ),
        ("valueless", Fault::patch(&patch_away), "KmsUnavailable", 1),
        (
            "nonce",
            Fault::code("SignatureNonceUsed"),
            "KmsUnavailable",
            2,
        ),
        (
            "clock",
            Fault::code("InvalidTimeStamp.Expired"),
            "ClockSkewed",
            2,
        ),
    ];
    let _operator = world.operator().await;
    for (name, fault, ..) in &cases {
        world.kms.put_generic(name, "good");
        world.kms.fault(fault.clone().on_secret(name));
        // Whoever is throttled slows its whole store down, as it should.
        world.store(name, "kms-credentials", json!({})).await;
        let spec = json!({"storeRef": {"name": name}});
        world.kms_secret(name, name, spec).await;
    }
    for (name, _, reason, _) in &cases {
        let object = world.until_ready(name, "False", reason).await;
        assert!(
            condition(&object, "Stalled").is_none(),
            "{name} passes by itself"
        );
        assert!(
            world.secret(name).await.is_none(),
            "{name}: nothing is better than something wrong"
        );
    }
    a_while().await;
    for (name, .., most) in &cases {
        // At once, a second later and two seconds after that: doubling, each attempt bounded.
        let calls = calls_of(&world, name);
        assert!(calls <= 4 * most, "{name}: {calls} calls");
    }
    world.kms.clear_faults();
    for (name, ..) in &cases {
        world.until_synced(name).await;
    }
}

#[tokio::test]
async fn a_kms_that_never_answers_is_given_up_in_time() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "good");
    world.kms.fault(Fault::new(Effect::Hang));
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    let object = world.until_ready("text", "False", "KmsUnavailable").await;
    assert!(condition(&object, "Ready").unwrap().2.contains("deadline"));
}

#[tokio::test]
async fn an_outage_does_not_touch_the_status_of_a_young_value() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "good");
    let operator = world.operator().await;
    world
        .kms_secret("text", "app/text", json!({"refresh": {"interval": "2s"}}))
        .await;
    let before = world.until_synced("text").await;
    world.kms.fault(Fault::code("InternalFailure"));
    eventually("KMS has refused for a while", async || {
        let refused = world
            .kms
            .count_where(|call| call.outcome == "InternalFailure");
        (refused >= 6).then_some(())
    })
    .await;
    let after = world.object("text").await;
    assert_eq!(after.resource_version(), before.resource_version());
    assert_eq!(world.text("text", "value").await.unwrap(), "good");
    let failed = operator
        .counter("kms_secret_operator_syncs_total", &["KmsUnavailable"])
        .await;
    assert!(failed >= 2, "the metrics tell at once");
}

#[tokio::test]
async fn a_value_that_cannot_be_shaped_is_told_without_it_and_spoils_nothing() {
    let world = World::new().await;
    world
        .kms
        .put_generic("app/json", r#"{"user":"u","password":"good"}"#);
    let _operator = world.operator().await;
    let data =
        json!({"data": [{"key": "user", "path": "user"}, {"key": "password", "path": "password"}]});
    world.kms_secret("json", "app/json", data).await;
    world.until_synced("json").await;
    for bad in [
        r#"{"user":"changed"}"#,
        "not json at all",
        r#"{"user":"changed","password":null}"#,
    ] {
        world.kms.put_generic("app/json", bad);
        world.force("json").await;
        eventually("the force was handled", async || {
            let object = world.object("json").await;
            let handled = object.status.as_ref()?.last_handled_sync.clone();
            (handled == object.annotations().get("alikms.dev/sync").cloned()).then_some(())
        })
        .await;
        let object = world.until_ready("json", "False", "ValueInvalid").await;
        assert!(!condition(&object, "Ready").unwrap().2.contains("changed"));
        let data = world.data("json").await;
        assert_eq!(
            (&data["user"][..], &data["password"][..]),
            (&b"u"[..], &b"good"[..])
        );
    }
}

#[tokio::test]
async fn an_answer_of_another_version_is_not_written() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    world
        .kms
        .fault(Fault::patch(&json!({"VersionId": "other"})));
    world
        .kms_secret("pinned", "app/text", json!({"source": {"versionId": "v1"}}))
        .await;
    world
        .until_ready("pinned", "False", "VersionMismatch")
        .await;
    world.kms.clear_faults();
    world.kms.fault(Fault::patch(
        &json!({"VersionStages": {"VersionStage": ["ACSPrevious"]}}),
    ));
    world.kms_secret("current", "app/text", json!({})).await;
    world
        .until_ready("current", "False", "VersionMismatch")
        .await;
    world.kms.clear_faults();
    let day = Duration::from_secs(86_400);
    world
        .kms
        .put_managed("app/db", kms_emulator::Managed::rds(day));
    world
        .kms_secret("managed", "app/db", json!({"source": {"versionId": "v1"}}))
        .await;
    world
        .until_ready("managed", "False", "VersionIdNotSupported")
        .await;
    for name in ["pinned", "current", "managed"] {
        assert!(world.secret(name).await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_denial_says_who_was_denied_what() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "good");
    let detail = json!({
        "AuthAction": "kms:GetSecretValue",
        "AuthPrincipalDisplayName": "reader",
        "NoPermissionType": "ImplicitDeny",
        "EncodedDiagnosticMessage": "AQE=",
    });
    world.kms.fault(Fault::error(
        error("Forbidden.NoPermission").with("AccessDeniedDetail", detail),
    ));
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    let object = world.until_ready("text", "False", "AccessDenied").await;
    let (_, _, message) = condition(&object, "Ready").unwrap();
    for part in [
        "kms:GetSecretValue",
        "reader",
        "ImplicitDeny",
        "RAM administrator",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("AQE="), "{message}");
    let told = eventually("an Event tells it", async || {
        world
            .events()
            .await
            .into_iter()
            .find(|event| event.reason.as_deref() == Some("AccessDenied"))
    })
    .await;
    assert_eq!(told.note.as_deref(), Some(message));
}

#[tokio::test]
async fn mended_credentials_heal_every_object_of_the_store() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "good");
    world.credentials("kms-credentials", KEY_ID, "wrong").await;
    let _operator = world.operator().await;
    let names = ["a", "b", "c"];
    for name in names {
        world.kms_secret(name, "app/text", json!({})).await;
    }
    for name in names {
        world.until_ready(name, "False", "CredentialsInvalid").await;
    }
    a_while().await;
    let calls = world.kms.count("GetSecretValue");
    assert!(
        calls <= names.len(),
        "{calls} calls: the first refusal stops the store"
    );
    world.kms_secret("late", "app/text", json!({})).await;
    world
        .until_ready("late", "False", "CredentialsInvalid")
        .await;
    assert_eq!(
        world.kms.count("GetSecretValue"),
        calls,
        "whoever comes later is told without a call"
    );
    world
        .credentials("kms-credentials", KEY_ID, KEY_SECRET)
        .await;
    for name in names.into_iter().chain(["late"]) {
        world.until_synced(name).await;
    }
}

#[tokio::test]
async fn credentials_that_are_missing_or_do_not_consent_are_told_with_the_remedy() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "good");
    world.delete::<Secret>("kms-credentials").await;
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    world
        .until_ready("text", "False", "CredentialsNotFound")
        .await;
    let secret = json!({"metadata": {}, "stringData": {"accessKeyId": KEY_ID, "accessKeySecret": KEY_SECRET}});
    world.apply::<Secret>("kms-credentials", secret).await;
    world.force("text").await;
    let object = world
        .until_ready("text", "False", "CredentialsNotAllowed")
        .await;
    let (_, _, message) = condition(&object, "Ready").unwrap();
    let namespace = &world.namespace;
    let command =
        format!("kubectl label secret -n {namespace} kms-credentials alikms.dev/credentials=true");
    assert!(message.to_lowercase().contains(&command), "{message}");
    assert_eq!(world.kms.count("GetSecretValue"), 0);
    world
        .patch::<Secret>(
            "kms-credentials",
            json!({"metadata": {"labels": {"alikms.dev/credentials": "true"}}}),
        )
        .await;
    world.until_synced("text").await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_allowed_gets_no_call() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    world
        .store("prod", "kms-credentials", json!({"endpoint": endpoint}))
        .await;
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    let object = world.until_ready("text", "False", "StoreInvalid").await;
    assert!(
        condition(&object, "Ready")
            .unwrap()
            .2
            .contains("--allow-endpoint")
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(500), listener.accept())
            .await
            .is_err()
    );
}

/// A server that sends everybody this, and then a piece each second, without an end.
async fn dripping(answer: &'static str, piece: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(answer.as_bytes()).await;
                while stream.write_all(piece.as_bytes()).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    });
    origin
}

/// A KMS whose certificate was good once.
async fn expired() -> Emulator {
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let options = Options {
        tls_pair: Some((pem, key.serialize_pem())),
        ..Options::default()
    };
    Emulator::start(options).await.unwrap()
}

#[tokio::test]
async fn a_service_that_is_not_there_or_never_ends_is_told_and_holds_up_nobody_else() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let old = expired().await;
    let at = |endpoint: String| json!({"endpoint": endpoint});
    let body = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{";
    let cases = [
        (
            "no-host",
            at("https://kms.invalid:8443".to_owned()),
            "no connection",
        ),
        (
            "no-port",
            at("https://127.0.0.1:1".to_owned()),
            "no connection",
        ),
        (
            "no-tls",
            at(world.kms.origin().replace("http:", "https:")),
            "no TLS",
        ),
        (
            "expired",
            json!({"endpoint": old.https_origin(), "caBundle": old.ca_pem()}),
            "expired",
        ),
        ("silent", at(dripping("", "").await), "deadline"),
        ("half-closed", at(dripping(body, "").await), "deadline"),
        (
            "slow-head",
            at(dripping("HTTP/1.1 200 OK\r\nX: ", "x").await),
            "deadline",
        ),
        ("slow-body", at(dripping(body, " ").await), "deadline"),
        (
            "slow-notices",
            at(dripping("", "HTTP/1.1 103 Early Hints\r\n\r\n").await),
            "deadline",
        ),
    ];
    let mut flags = Vec::new();
    for (name, more, _) in &cases {
        flags.extend(["--allow-endpoint", more["endpoint"].as_str().unwrap()]);
        world.store(name, "kms-credentials", more.clone()).await;
        let spec = json!({"storeRef": {"name": name}});
        world.kms_secret(name, "app/text", spec).await;
    }
    let _operator = world.operator_with(&flags).await;
    let often = json!({"refresh": {"interval": "2s"}});
    world.kms_secret("text", "app/text", often).await;
    world.until_text("text", "value", "one").await;
    world.kms.put_generic("app/text", "two");
    world.until_text("text", "value", "two").await;
    for (name, _, word) in &cases {
        let object = world.until_ready(name, "False", "KmsUnavailable").await;
        let message = condition(&object, "Ready").unwrap().2;
        assert!(message.contains(word), "{name}: {message}");
        assert!(world.secret(name).await.is_none(), "{name}");
    }
    for (name, ..) in &cases {
        world.store(name, "kms-credentials", json!({})).await;
    }
    for (name, ..) in &cases {
        world.until_text(name, "value", "two").await;
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/", listener.local_addr().unwrap());
    world.kms.put_generic("app/text", "good");
    world.kms.fault(Fault::new(Effect::Redirect { location }));
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_ready("text", "False", "RequestRejected").await;
    assert!(
        tokio::time::timeout(Duration::from_millis(500), listener.accept())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_nothing_half_done() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let operator = world.operator().await;
    let hold = world.kms.hold("app/text");
    world.kms_secret("text", "app/text", json!({})).await;
    hold.until_waiting(1).await;
    operator.kill();
    hold.release();
    a_while().await;
    assert!(world.secret("text").await.is_none());
    let _operator = world.operator().await;
    world.until_synced("text").await;
}

#[tokio::test]
async fn a_namespace_that_goes_away_is_let_go() {
    let (world, operator) = World::synced("one").await;
    let spaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(world.client.clone());
    spaces
        .delete(&world.namespace, &kube::api::DeleteParams::background())
        .await
        .unwrap();
    eventually("the namespace is gone", async || {
        spaces
            .get_opt(&world.namespace)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    let calls = world.kms.count("GetSecretValue");
    a_while().await;
    assert_eq!(world.kms.count("GetSecretValue"), calls);
    assert!(
        world
            .api::<KmsSecret>()
            .get_opt("text")
            .await
            .unwrap()
            .is_none()
    );
    operator.stop().await;
}

#[tokio::test]
async fn no_number_of_kms_brings_the_operator_down() {
    let world = World::new().await;
    let operator = world.operator().await;
    let wild = json!({
        "SecretType": "Rds", "AutomaticRotation": "Enabled", "RotationInterval": "999999999999s",
        "LastRotationDate": "9999-12-30T22:00:00Z", "NextRotationDate": null,
    });
    let soon = json!({"NextRotationDate": "-009999-01-02T01:59:59Z", "RotationInterval": "1s", "AutomaticRotation": "Enabled"});
    let far = json!({"NextRotationDate": "9999-12-30T22:00:00Z", "AutomaticRotation": "Enabled"});
    for (name, fields) in [("wild", wild), ("soon", soon), ("far", far)] {
        world.kms.put_generic(name, "good");
        world.kms.fault(Fault::patch(&fields).on_secret(name));
        world.kms_secret(name, name, json!({})).await;
        world.until_synced(name).await;
    }
    world.kms.put_generic("patient", "good");
    let throttled = error("Throttling.User").header("x-acs-retry-after", "999999999999999999");
    world
        .kms
        .fault(Fault::error(throttled).on_secret("patient"));
    world.store("slow", "kms-credentials", json!({})).await;
    world
        .kms_secret("patient", "patient", json!({"storeRef": {"name": "slow"}}))
        .await;
    eventually("it was throttled", async || {
        (calls_of(&world, "patient") > 0).then_some(())
    })
    .await;
    a_while().await;
    assert_eq!(operator.get("healthz").await, "ok");
}

#[tokio::test]
async fn an_outage_is_told_at_once_where_the_target_is_missing() {
    let (world, _operator) = World::synced("good").await;
    world.kms.fault(Fault::code("InternalFailure"));
    world.delete::<Secret>("text").await;
    world.until_ready("text", "False", "KmsUnavailable").await;
    world.kms.clear_faults();
    world.until_synced("text").await;
    assert!(world.secret("text").await.is_some());
}

#[tokio::test]
async fn another_secret_under_the_old_name_is_believed_and_a_new_name_is_not_held_against_the_old()
{
    let world = World::new().await;
    let day = Duration::from_secs(86_400);
    world
        .kms
        .put_managed("app/one", kms_emulator::Managed::rds(day));
    world.kms.rotate("app/one").unwrap();
    world
        .kms
        .put_managed("app/two", kms_emulator::Managed::rds(day));
    let _operator = world.operator().await;
    world.kms_secret("db", "app/one", json!({})).await;
    world.until_synced("db").await;
    world.kms.fault(
        Fault::code("Forbidden.NoPermission")
            .on_secret("app/two")
            .times(1),
    );
    world.kms_secret("db", "app/two", json!({})).await;
    world.until_ready("db", "False", "AccessDenied").await;
    world.force("db").await;
    world.until_synced("db").await;
    // Made anew: it was never rotated.
    world.kms.delete("app/two");
    world
        .kms
        .put_managed("app/two", kms_emulator::Managed::rds(day));
    world.force("db").await;
    world.until_synced("db").await;
    let current = world.kms.current("app/two").unwrap().value;
    world.until_text("db", "value", &current).await;
}

#[tokio::test]
async fn consent_that_is_withdrawn_stops_the_reads_and_keeps_the_secret() {
    let (world, _operator) = World::synced("one").await;
    let label = |value| json!({"metadata": {"labels": {"alikms.dev/credentials": value}}});
    world
        .patch::<Secret>("kms-credentials", label(json!(null)))
        .await;
    world
        .until_ready("text", "False", "CredentialsNotAllowed")
        .await;
    world.kms.put_generic("app/text", "two");
    let calls = world.kms.count("GetSecretValue");
    world.force("text").await;
    a_while().await;
    assert_eq!(world.kms.count("GetSecretValue"), calls);
    assert_eq!(world.text("text", "value").await.unwrap(), "one");
    world
        .patch::<Secret>("kms-credentials", label(json!("true")))
        .await;
    world.until_text("text", "value", "two").await;
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_told() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let quota = json!({"metadata": {}, "spec": {"hard": {"count/secrets": "1"}}});
    world.apply::<ResourceQuota>("few", quota).await;
    eventually("the quota counts", async || {
        let quota = world.api::<ResourceQuota>().get("few").await.unwrap();
        quota.status?.used.map(|_| ())
    })
    .await;
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_ready("text", "False", "QuotaExceeded").await;
}
