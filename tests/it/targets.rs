//! The policies of a target: its labels, what becomes of it when the KmsSecret goes, and taking over what was there.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kms_emulator::jiff::SignedDuration;
use kms_secret_operator::api::{KmsSecret, KmsStore};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::world::{World, a_while, condition, eventually};

fn target(target: &Value) -> Value {
    json!({"target": target})
}

async fn until_gone(world: &World, name: &str) {
    eventually(&format!("Secret {name} is gone"), async || {
        world.secret(name).await.is_none().then_some(())
    })
    .await;
}

/// Waits until a Secret meets a condition.
async fn until(world: &World, name: &str, what: &str, is: impl Fn(&Secret) -> bool) -> Secret {
    eventually(what, async || {
        world.secret(name).await.filter(|secret| is(secret))
    })
    .await
}

#[tokio::test]
async fn labels_and_annotations_are_those_of_the_spec_and_leave_with_it() {
    let (world, _operator) = World::synced("one").await;
    let more = target(
        &json!({"labels": {"team": "a", "tier": "db"}, "annotations": {"acme.io/owner": "a"}}),
    );
    world.kms_secret("text", "app/text", more).await;
    let labelled = |secret: &Secret| secret.labels().get("tier").map(String::as_str) == Some("db");
    let secret = until(&world, "text", "the labels are there", labelled).await;
    assert_eq!(
        secret
            .annotations()
            .get("acme.io/owner")
            .map(String::as_str),
        Some("a")
    );
    assert_eq!(
        secret
            .labels()
            .get("alikms.dev/managed")
            .map(String::as_str),
        Some("true")
    );

    let less = target(&json!({"labels": {"team": "b"}}));
    world.kms_secret("text", "app/text", less).await;
    let changed = |secret: &Secret| secret.labels().get("team").map(String::as_str) == Some("b");
    let secret = until(&world, "text", "the labels changed", changed).await;
    assert!(
        !secret.labels().contains_key("tier")
            && !secret.annotations().contains_key("acme.io/owner")
    );

    let denied = target(
        &json!({"annotations": {"reflector.v1.k8s.emberstack.com/reflection-allowed": "true"}}),
    );
    let version = secret.resource_version();
    world.kms_secret("text", "app/text", denied).await;
    let object = world.until_ready("text", "False", "SpecInvalid").await;
    assert!(
        condition(&object, "Ready")
            .unwrap()
            .2
            .contains("--deny-target-metadata")
    );
    assert_eq!(
        world.secret("text").await.unwrap().resource_version(),
        version
    );
}

#[tokio::test]
async fn an_orphan_stays_when_its_kms_secret_goes_and_is_taken_up_again() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    let orphan = || target(&json!({"creationPolicy": "Orphan"}));
    world.kms_secret("text", "app/text", orphan()).await;
    world.until_synced("text").await;
    let secret = world.secret("text").await.unwrap();
    assert!(secret.owner_references().is_empty());
    world.delete::<KmsSecret>("text").await;
    a_while().await;
    assert_eq!(world.text("text", "value").await.as_deref(), Some("one"));

    world.kms.put_generic("app/text", "two");
    world.kms_secret("text", "app/text", orphan()).await;
    world.until_text("text", "value", "two").await;
    assert_eq!(
        world.secret("text").await.unwrap().uid(),
        secret.uid(),
        "the same Secret, never absent"
    );

    // The policy can change both ways; the owner comes and goes with it.
    world
        .kms_secret(
            "text",
            "app/text",
            target(&json!({"creationPolicy": "Owner"})),
        )
        .await;
    until(&world, "text", "it has an owner", |secret| {
        !secret.owner_references().is_empty()
    })
    .await;
    world.kms_secret("text", "app/text", orphan()).await;
    until(&world, "text", "it has none", |secret| {
        secret.owner_references().is_empty()
    })
    .await;
    world
        .kms_secret(
            "text",
            "app/text",
            target(&json!({"creationPolicy": "Owner"})),
        )
        .await;
    until(&world, "text", "it has an owner", |secret| {
        !secret.owner_references().is_empty()
    })
    .await;
    world.delete::<KmsSecret>("text").await;
    until_gone(&world, "text").await;
}

#[tokio::test]
async fn a_renamed_orphan_leaves_the_old_secret_without_our_marks() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    let named = |name: &str| target(&json!({"creationPolicy": "Orphan", "name": name}));
    world.kms_secret("text", "app/text", named("old")).await;
    world.until_synced("text").await;
    world.kms_secret("text", "app/text", named("new")).await;
    world.until_text("new", "value", "one").await;
    let unmarked = |secret: &Secret| !secret.labels().contains_key("alikms.dev/managed");
    let old = until(&world, "old", "the old Secret is let go", unmarked).await;
    assert!(!old.annotations().contains_key("alikms.dev/kmssecret"));
    assert_eq!(
        world.text("old", "value").await.as_deref(),
        Some("one"),
        "it stays"
    );
    // Nobody repairs it any more.
    world.delete::<Secret>("old").await;
    a_while().await;
    assert!(world.secret("old").await.is_none());
}

#[tokio::test]
async fn a_secret_that_is_there_is_taken_over_only_with_its_consent() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "ours");
    let theirs = |annotations: Value| json!({"metadata": {"annotations": annotations}, "stringData": {"value": "theirs", "more": "x"}});
    world.apply::<Secret>("text", theirs(json!({}))).await;
    let before = world.secret("text").await.unwrap();
    let _operator = world.operator().await;
    world
        .kms_secret("text", "app/text", target(&json!({"adopt": "IfUnowned"})))
        .await;
    let object = world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    let command = format!(
        "kubectl annotate secret -n {} text alikms.dev/allow=text",
        world.namespace
    );
    assert!(condition(&object, "Ready").unwrap().2.contains(&command));

    world
        .apply::<Secret>("text", theirs(json!({"alikms.dev/allow": "somebody-else"})))
        .await;
    world.force("text").await;
    a_while().await;
    assert_eq!(world.text("text", "value").await.as_deref(), Some("theirs"));

    world
        .apply::<Secret>("text", theirs(json!({"alikms.dev/allow": "text"})))
        .await;
    world.force("text").await;
    world.until_text("text", "value", "ours").await;
    world.until_synced("text").await;
    let after = world.secret("text").await.unwrap();
    assert_eq!(after.uid(), before.uid(), "in place, never absent");
    let data = world.data("text").await;
    assert_eq!(
        data.keys().collect::<Vec<_>>(),
        ["value"],
        "their other keys are gone"
    );
    assert!(
        !after.labels().contains_key("app.kubernetes.io/managed-by"),
        "we did not make it"
    );
    world.delete::<KmsSecret>("text").await;
    until_gone(&world, "text").await;
}

#[tokio::test]
async fn a_secret_that_is_gone_from_kms_is_deleted_only_where_asked_for_and_after_its_time() {
    let world = World::new().await;
    let delete = || target(&json!({"deletionPolicy": "Delete"}));
    for (name, more) in [("kept", json!({})), ("gone", delete())] {
        world.kms.put_generic(name, "one");
        world.kms_secret(name, name, more).await;
    }
    let client = world.cluster.client().await;
    let namespaced = ["--namespace", world.namespace.as_str()];
    let _operator = world
        .operator_by(client, &namespaced, |run| {
            run.gone_after = SignedDuration::from_secs(3);
        })
        .await;
    for name in ["kept", "gone"] {
        world.until_synced(name).await;
        assert!(world.kms.delete(name));
        world.force(name).await;
        world.until_ready(name, "False", "SecretNotFound").await;
    }
    // Once more is not again and again.
    a_while().await;
    assert!(world.secret("gone").await.is_some());
    a_while().await;
    a_while().await;
    world.force("gone").await;
    a_while().await;
    assert!(
        world.secret("gone").await.is_some(),
        "two reads are too few"
    );
    for name in ["kept", "gone"] {
        world.force(name).await;
    }
    until_gone(&world, "gone").await;
    eventually("an Event tells it", async || {
        let events = world.events().await;
        let told = |event: &k8s_openapi::api::events::v1::Event| {
            event.reason.as_deref() == Some("SecretDeleted")
        };
        events.iter().any(told).then_some(())
    })
    .await;
    assert_eq!(world.text("kept", "value").await.as_deref(), Some("one"));
    // It comes back with the secret.
    world.kms.put_generic("gone", "two");
    world.force("gone").await;
    world.until_text("gone", "value", "two").await;
}

#[tokio::test]
async fn secrets_outlive_their_store_and_orphans_the_definitions() {
    let world = World::alone().await;
    world.kms.put_generic("app/text", "one");
    let operator = world.operator().await;
    world.kms_secret("owned", "app/text", json!({})).await;
    let orphan = target(&json!({"creationPolicy": "Orphan"}));
    world.kms_secret("orphan", "app/text", orphan).await;
    for name in ["owned", "orphan"] {
        world.until_synced(name).await;
    }
    world.delete::<KmsStore>("prod").await;
    for name in ["owned", "orphan"] {
        world.until_ready(name, "False", "StoreNotFound").await;
        assert_eq!(world.text(name, "value").await.as_deref(), Some("one"));
    }
    operator.stop().await;
    a_while().await;
    for name in ["owned", "orphan"] {
        assert_eq!(world.text(name, "value").await.as_deref(), Some("one"));
    }
    let definitions = Api::<CustomResourceDefinition>::all(world.client.clone());
    let params = DeleteParams::default();
    definitions
        .delete("kmssecrets.alikms.dev", &params)
        .await
        .unwrap();
    until_gone(&world, "owned").await;
    assert_eq!(world.text("orphan", "value").await.as_deref(), Some("one"));
}
