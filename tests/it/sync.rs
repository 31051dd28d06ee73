//! From a KmsSecret to its Secret, and what does not cost a call.

use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::Managed;
use kms_secret_operator::api::{KmsSecret, KmsStore};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;

use crate::world::{World, a_while, condition, eventually};

#[tokio::test]
async fn a_text_arrives_byte_for_byte() {
    let world = World::new().await;
    let text = "pa ss\twörd 密码🔑\r\n\"quoted\" \\ {{ not a template }} \u{7f}";
    world.kms.put_generic("app/text", text);
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    let object = world.until_synced("text").await;
    assert_eq!(world.data("text").await["value"], text.as_bytes());

    let secret = world.secret("text").await.unwrap();
    let owner = &secret.owner_references()[0];
    assert_eq!(
        (owner.uid.as_str(), owner.controller),
        (object.uid().unwrap().as_str(), Some(true))
    );
    assert_eq!(owner.block_owner_deletion, None);
    assert_eq!(secret.labels()["alikms.dev/managed"], "true");
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    let status = object.status.unwrap();
    assert_eq!(status.sources[0].version_id, "v1");
    assert_eq!(status.sources[0].version_stages, ["ACSCurrent"]);
    assert_eq!(status.sources[0].secret_type.as_deref(), Some("Generic"));
    let target = status.target.unwrap();
    assert_eq!(Some(target.uid), secret.uid());
    assert_eq!(Some(target.resource_version), secret.resource_version());
    assert!(
        world.events().await.is_empty(),
        "a first success is no news"
    );
}

#[tokio::test]
async fn a_binary_arrives_byte_for_byte() {
    let world = World::new().await;
    let bytes: Vec<u8> = (0..=255).collect();
    world.kms.put_binary("app/binary", &bytes);
    let _operator = world.operator().await;
    world.kms_secret("binary", "app/binary", json!({})).await;
    world
        .kms_secret(
            "raw",
            "app/binary",
            json!({"data": [{"key": "b64", "decode": "None"}]}),
        )
        .await;
    world.until_synced("binary").await;
    world.until_synced("raw").await;
    assert_eq!(world.data("binary").await["value"], bytes);
    assert!(
        world
            .text("raw", "b64")
            .await
            .unwrap()
            .starts_with("AAECAwQF")
    );
}

#[tokio::test]
async fn a_json_is_taken_apart_by_paths() {
    let world = World::new().await;
    world.kms.put_generic(
        "app/json",
        r#"{"db":{"user":"a b","port":5432},"blob":"AAH/","list":[1,2]}"#,
    );
    let _operator = world.operator().await;
    let data = json!([
        {"key": "user", "path": "db.user"},
        {"key": "port", "path": "db.port"},
        {"key": "second", "path": "list[1]"},
        {"key": "db.json", "path": "db"},
        {"key": "blob", "path": "blob", "decode": "Base64"},
        {"key": "all"},
    ]);
    world
        .kms_secret(
            "json",
            "app/json",
            json!({"data": data, "target": {"name": "made-of-json"}}),
        )
        .await;
    world.until_synced("json").await;
    let data = world.data("made-of-json").await;
    assert_eq!(data["user"], b"a b");
    assert_eq!(data["port"], b"5432");
    assert_eq!(data["second"], b"2");
    assert_eq!(data["db.json"], br#"{"port":5432,"user":"a b"}"#);
    assert_eq!(data["blob"], [0, 1, 255]);
    assert!(data["all"].starts_with(b"{\"db\":"));
    assert!(world.secret("json").await.is_none());
}

#[tokio::test]
async fn extended_config_is_a_document_too() {
    let world = World::new().await;
    world
        .kms
        .put_managed("app/db", Managed::rds(Duration::from_secs(86_400)));
    let _operator = world.operator().await;
    let data = json!([{"key": "subtype", "from": "ExtendedConfig", "path": "SecretSubType"}]);
    let spec = json!({"source": {"fetchExtendedConfig": true}, "data": data});
    world.kms_secret("db", "app/db", spec).await;
    world.until_synced("db").await;
    assert_eq!(world.text("db", "subtype").await.unwrap(), "SingleUser");
}

#[tokio::test]
async fn previous_and_pinned_versions() {
    let world = World::new().await;
    world.kms.put_generic("app/versions", "one");
    world.kms.put_generic("app/versions", "two");
    world.kms.put_generic("app/versions", "three");
    let _operator = world.operator().await;
    world
        .kms_secret(
            "previous",
            "app/versions",
            json!({"source": {"versionStage": "ACSPrevious"}}),
        )
        .await;
    world
        .kms_secret(
            "pinned",
            "app/versions",
            json!({"source": {"versionId": "v1"}}),
        )
        .await;
    world.until_synced("previous").await;
    world.until_synced("pinned").await;
    assert_eq!(world.text("previous", "value").await.unwrap(), "two");
    assert_eq!(world.text("pinned", "value").await.unwrap(), "one");
    let asked = world
        .kms
        .calls()
        .into_iter()
        .find(|call| call.version_id.is_some())
        .unwrap();
    assert_eq!(asked.stage, None, "KMS would hold a stage against the id");
}

#[tokio::test]
async fn v1_signatures_work_as_well() {
    let world = World::new().await;
    world.kms.put_generic("a/b+c=d@e", "x");
    world
        .store("prod", "kms-credentials", json!({"signature": "V1"}))
        .await;
    let _operator = world.operator().await;
    world.kms_secret("odd", "a/b+c=d@e", json!({})).await;
    world.until_synced("odd").await;
    assert_eq!(world.text("odd", "value").await.unwrap(), "x");
}

#[tokio::test]
async fn keys_that_leave_the_spec_leave_the_secret() {
    let world = World::new().await;
    world.kms.put_generic("app/json", r#"{"a":"1","b":"2"}"#);
    let _operator = world.operator().await;
    let keys = |names: &[&str]| -> serde_json::Value {
        let items = names.iter().map(|name| json!({"key": name, "path": name}));
        json!({"data": items.collect::<Vec<_>>()})
    };
    world
        .kms_secret("keys", "app/json", keys(&["a", "b"]))
        .await;
    world.until_synced("keys").await;
    assert_eq!(
        world.data("keys").await.keys().collect::<Vec<_>>(),
        ["a", "b"]
    );
    world.kms_secret("keys", "app/json", keys(&["b"])).await;
    world.until_synced("keys").await;
    assert_eq!(world.data("keys").await.keys().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_forced_sync_reads_at_once_and_once() {
    let (world, _operator) = World::synced("one").await;
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    world.until_synced("text").await;
    assert_eq!(world.text("text", "value").await.unwrap(), "two");
    a_while().await;
    assert_eq!(world.kms.count("GetSecretValue"), 2);
}

#[tokio::test]
async fn a_suspended_object_is_left_alone_and_still_collected() {
    let (world, _operator) = World::synced("one").await;
    world
        .patch::<KmsSecret>("text", json!({"spec": {"suspend": true}}))
        .await;
    world.until_ready("text", "True", "Suspended").await;
    world.kms.put_generic("app/text", "two");
    world.kms.reset_calls();
    world.force("text").await;
    world
        .patch::<Secret>("text", json!({"stringData": {"value": "edited"}}))
        .await;
    a_while().await;
    assert_eq!(world.kms.count("GetSecretValue"), 0);
    assert_eq!(world.text("text", "value").await.unwrap(), "edited");

    world
        .patch::<KmsSecret>("text", json!({"spec": {"suspend": false}}))
        .await;
    world.until_synced("text").await;
    assert_eq!(world.text("text", "value").await.unwrap(), "two");
    world
        .patch::<KmsSecret>("text", json!({"spec": {"suspend": true}}))
        .await;
    world.until_ready("text", "True", "Suspended").await;
    world.delete::<KmsSecret>("text").await;
    eventually("the Secret is collected", async || {
        world.secret("text").await.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn once_is_once() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    world
        .kms_secret("text", "app/text", json!({"refresh": {"policy": "Once"}}))
        .await;
    world.until_synced("text").await;
    world.kms.put_generic("app/text", "two");
    world
        .patch::<KmsSecret>(
            "text",
            json!({"spec": {"source": {"fetchExtendedConfig": true}}}),
        )
        .await;
    world.until_synced("text").await;
    assert_eq!(world.text("text", "value").await.unwrap(), "one");
    world.delete::<Secret>("text").await;
    world.until_text("text", "value", "two").await;
}

#[tokio::test]
async fn what_was_done_once_does_not_need_its_store_any_more() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let operator = world.operator().await;
    world
        .kms_secret("text", "app/text", json!({"refresh": {"policy": "Once"}}))
        .await;
    world.until_synced("text").await;
    world.delete::<KmsStore>("prod").await;
    a_while().await;
    operator.stop().await;
    let _operator = world.operator().await;
    a_while().await;
    assert_eq!(
        condition(&world.object("text").await, "Ready").unwrap().1,
        "Synced"
    );
}

#[tokio::test]
async fn on_change_is_not_by_time() {
    let world = World::new().await;
    world
        .kms
        .put_managed("app/db", Managed::rds(Duration::from_secs(2)));
    let _operator = world.operator().await;
    world
        .kms_secret("db", "app/db", json!({"refresh": {"policy": "OnChange"}}))
        .await;
    world.until_synced("db").await;
    let before = world.text("db", "value").await;
    eventually("KMS has rotated", async || {
        (world.kms.history("app/db").len() > 2).then_some(())
    })
    .await;
    assert_eq!(world.kms.count("GetSecretValue"), 1);
    world.force("db").await;
    world.until_synced("db").await;
    assert_ne!(world.text("db", "value").await, before);
}

#[tokio::test]
async fn a_status_that_could_not_be_written_is_written_later() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let only_here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
        "resourceRules": [{"apiGroups": ["alikms.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["kmssecrets/status"]}]});
    let policy = json!({"matchConstraints": only_here, "validations": [{"expression": "false", "message": "no"}]});
    let binding = json!({"policyName": world.namespace, "validationActions": ["Deny"]});
    world
        .apply_cluster::<ValidatingAdmissionPolicy>(json!({"spec": policy}))
        .await;
    world
        .apply_cluster::<ValidatingAdmissionPolicyBinding>(json!({"spec": binding}))
        .await;
    eventually("the policy is in force", async || {
        world
            .kms_secret("probe", "app/text", json!({"suspend": true}))
            .await;
        let params = PatchParams::default();
        let patch = Patch::Merge(json!({"status": {"observedGeneration": 7}}));
        world
            .api::<KmsSecret>()
            .patch_status("probe", &params, &patch)
            .await
            .err()
            .map(|_| ())
    })
    .await;
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_text("text", "value", "one").await;
    let bindings = kube::Api::<ValidatingAdmissionPolicyBinding>::all(world.client.clone());
    bindings
        .delete(&world.namespace, &DeleteParams::default())
        .await
        .unwrap();
    world.until_synced("text").await;
    assert!(
        world.kms.count("GetSecretValue") <= 2,
        "what was read is remembered"
    );
}

#[tokio::test]
async fn what_the_spec_cannot_ask_for_is_refused_in_words_and_without_a_call() {
    let world = World::new().await;
    let _operator = world
        .operator_with(&["--min-refresh-interval", "60s"])
        .await;
    world
        .kms_secret("short", "app/text", json!({"refresh": {"interval": "59s"}}))
        .await;
    world
        .kms_secret(
            "type",
            "app/text",
            json!({"target": {"type": "example.com/x"}}),
        )
        .await;
    world
        .kms_secret(
            "store",
            "app/text",
            json!({"storeRef": {"name": "missing"}}),
        )
        .await;
    let short = world.until_ready("short", "False", "SpecInvalid").await;
    assert!(
        condition(&short, "Ready")
            .unwrap()
            .2
            .contains("--min-refresh-interval")
    );
    assert_eq!(condition(&short, "Stalled").unwrap().1, "SpecInvalid");
    let type_ = world.until_ready("type", "False", "SpecInvalid").await;
    assert!(
        condition(&type_, "Ready")
            .unwrap()
            .2
            .contains("--allow-secret-type")
    );
    world.until_ready("store", "False", "StoreNotFound").await;
    assert_eq!(world.kms.count("GetSecretValue"), 0);

    world.store("missing", "kms-credentials", json!({})).await;
    world.kms.put_generic("app/text", "one");
    world.until_synced("store").await;
}

#[tokio::test]
async fn a_type_asks_for_its_keys_and_cannot_change() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    let tls = json!({"target": {"type": "kubernetes.io/tls"}, "data": [{"key": "tls.crt"}]});
    world.kms_secret("tls", "app/text", tls).await;
    let object = world.until_ready("tls", "False", "SpecInvalid").await;
    assert!(condition(&object, "Ready").unwrap().2.contains("tls.key"));
    let both = json!({"target": {"type": "kubernetes.io/tls"}, "data": [{"key": "tls.crt"}, {"key": "tls.key"}]});
    world.kms_secret("tls", "app/text", both).await;
    world.until_synced("tls").await;
    let ssh =
        json!({"target": {"type": "kubernetes.io/ssh-auth"}, "data": [{"key": "ssh-privatekey"}]});
    world.kms_secret("tls", "app/text", ssh).await;
    world
        .until_ready("tls", "False", "TargetTypeImmutable")
        .await;
    assert_eq!(
        world.data("tls").await.len(),
        2,
        "what was there is still there"
    );
}

#[tokio::test]
async fn an_immutable_target_is_told_and_left_alone() {
    let (world, _operator) = World::synced("one").await;
    world
        .patch::<Secret>("text", json!({"immutable": true}))
        .await;
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    world.until_ready("text", "False", "TargetImmutable").await;
    assert_eq!(world.text("text", "value").await.unwrap(), "one");
}

#[tokio::test]
async fn a_restart_with_200_in_sync_costs_no_call_and_no_write() {
    const COUNT: usize = 200;
    let world = World::new().await;
    world
        .store(
            "prod",
            "kms-credentials",
            json!({"batch": "Never", "requestsPerSecond": 1000}),
        )
        .await;
    let operator = world.operator().await;
    let names: Vec<String> = (0..COUNT).map(|n| format!("s{n}")).collect();
    for name in &names {
        world.kms.put_generic(name, "one");
    }
    let applied = names
        .iter()
        .map(|name| world.kms_secret(name, name, json!({})));
    futures::stream::iter(applied)
        .buffer_unordered(16)
        .count()
        .await;
    for name in &names {
        world.until_synced(name).await;
    }
    let (calls, writes) = (world.kms.count("GetSecretValue"), operator.writes().await);
    assert_eq!(calls, COUNT, "one call for each");
    assert_eq!(
        writes,
        2 * COUNT as u64 + 1,
        "a Secret and a status for each, the status of the store, and no Event"
    );
    let reads = operator
        .counter(
            "kms_secret_operator_apiserver_requests_total",
            &["verb=\"get\""],
        )
        .await;
    assert_eq!(reads, 1, "the credentials");
    operator.stop().await;

    world.kms.reset_calls();
    let operator = world.operator().await;
    a_while().await;
    assert_eq!(world.kms.count("GetSecretValue"), 0);
    assert_eq!(operator.writes().await, 0);
}
