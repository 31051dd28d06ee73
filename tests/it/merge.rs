//! Keys of ours in Secrets that somebody else keeps: with their consent, and nothing but those keys.

use k8s_openapi::api::core::v1::Secret;
use kms_emulator::Emulator;
use kms_secret_operator::api::KmsSecret;
use kube::ResourceExt as _;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::world::{World, a_while, condition, eventually};

/// The spec of a KmsSecret that merges one secret under one key.
fn merging(target: &str, key: &str) -> Value {
    json!({"target": {"name": target, "creationPolicy": "Merge"}, "data": [{"key": key}]})
}

/// A Secret of somebody's, with the key `theirs`, that lets these KmsSecrets put keys into it.
async fn somebodys(world: &World, name: &str, allowed: &str) -> Secret {
    let annotations = json!({"alikms.dev/allow": allowed});
    let manifest = json!({"metadata": {"annotations": annotations, "labels": {"team": "a"}}, "data": {"theirs": "dGhlaXJz"}});
    world.apply::<Secret>(name, manifest).await
}

/// A world where the KmsSecret `text` has merged the key `password` into the Secret `app`.
async fn merged() -> (World, crate::world::Operator) {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    somebodys(&world, "app", "text").await;
    let operator = world.operator().await;
    world
        .kms_secret("text", "app/text", merging("app", "password"))
        .await;
    world.until_synced("text").await;
    (world, operator)
}

async fn keys(world: &World, name: &str) -> Vec<String> {
    world.data(name).await.into_keys().collect()
}

async fn until_keys(world: &World, name: &str, expected: &[&str]) {
    eventually(&format!("{name} has the keys {expected:?}"), async || {
        (keys(world, name).await == expected).then_some(())
    })
    .await;
}

fn reads(kms: &Emulator) -> usize {
    kms.count("GetSecretValue")
}

/// How the API server says that a manager owns something of a Secret.
fn has_manager(secret: &Secret, manager: &str) -> bool {
    let mut entries = secret.metadata.managed_fields.iter().flatten();
    entries.any(|entry| entry.manager.as_deref() == Some(manager))
}

#[tokio::test]
async fn it_waits_for_the_secret_and_its_consent_and_then_adds_keys_alone() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    world
        .kms_secret("text", "app/text", merging("app", "password"))
        .await;
    let command = format!(
        "kubectl annotate secret -n {} app alikms.dev/allow=text",
        world.namespace
    );
    let object = world.until_ready("text", "False", "TargetNotFound").await;
    assert!(condition(&object, "Ready").unwrap().2.contains(&command));
    assert!(
        world.secret("app").await.is_none(),
        "it is not for us to make"
    );

    let manifest = json!({"metadata": {}, "type": "acme.io/app", "data": {"theirs": "dGhlaXJz"}});
    world.apply::<Secret>("app", manifest).await;
    world.force("text").await;
    let object = world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    assert!(condition(&object, "Ready").unwrap().2.contains(&command));
    assert_eq!(reads(&world.kms), 0, "KMS is not asked before");

    let annotations = json!({"metadata": {"annotations": {"alikms.dev/allow": "text"}}});
    let before = world.patch::<Secret>("app", annotations).await;
    world.force("text").await;
    let object = world.until_synced("text").await;
    let secret = world.secret("app").await.unwrap();
    assert_eq!(secret.uid(), before.uid());
    assert_eq!(keys(&world, "app").await, ["password", "theirs"]);
    assert_eq!(world.text("app", "password").await.as_deref(), Some("one"));
    assert_eq!(secret.type_.as_deref(), Some("acme.io/app"));
    assert!(secret.owner_references().is_empty());
    assert!(!secret.labels().contains_key("app.kubernetes.io/managed-by"));
    assert!(!secret.annotations().contains_key("alikms.dev/kmssecret"));
    assert!(has_manager(
        &secret,
        &format!("kms-secret-operator.{}", object.uid().unwrap())
    ));
    assert_eq!(object.status.unwrap().target.unwrap().keys, ["password"]);

    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    world.until_text("app", "password", "two").await;
    assert_eq!(world.text("app", "theirs").await.as_deref(), Some("theirs"));
}

#[tokio::test]
async fn a_key_that_somebody_else_owns_is_refused_and_unharmed() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "ours");
    let consent = json!({"annotations": {"alikms.dev/allow": "text"}});
    // Of each way in which a Secret is made, and even of the value that is already ours.
    let applied = json!({"metadata": consent, "data": {"password": "dGhlaXJz"}});
    let as_text = json!({"metadata": consent, "stringData": {"password": "theirs"}});
    let same = json!({"metadata": consent, "stringData": {"password": "ours"}});
    let manifests = [("applied", applied), ("as-text", as_text), ("same", same)];
    for (name, manifest) in manifests {
        world.apply::<Secret>(name, manifest).await;
    }
    let created: Secret = serde_json::from_value(json!({
        "metadata": {"name": "created", "annotations": {"alikms.dev/allow": "text"}},
        "stringData": {"password": "theirs"},
    }))
    .unwrap();
    let params = PostParams {
        field_manager: Some("user".into()),
        ..PostParams::default()
    };
    world
        .api::<Secret>()
        .create(&params, &created)
        .await
        .unwrap();
    let _operator = world.operator().await;
    for name in ["applied", "as-text", "same", "created"] {
        let before = world.secret(name).await.unwrap();
        world
            .kms_secret("text", "app/text", merging(name, "password"))
            .await;
        let object = world
            .until_ready("text", "False", "TargetOwnedByOther")
            .await;
        let message = condition(&object, "Ready").unwrap().2;
        assert!(message.contains("a key \"password\""), "{message}");
        assert!(message.contains("\"user\""), "{message}");
        let after = world.secret(name).await.unwrap();
        assert_eq!(
            after.resource_version(),
            before.resource_version(),
            "{name}"
        );
    }
    // Another name for it, and all is well.
    world
        .kms_secret("text", "app/text", merging("created", "token"))
        .await;
    world.until_synced("text").await;
    assert_eq!(keys(&world, "created").await, ["password", "token"]);
}

#[tokio::test]
async fn what_others_do_to_their_keys_costs_neither_a_call_nor_a_write() {
    let (world, operator) = merged().await;
    let (calls, writes) = (reads(&world.kms), operator.writes().await);
    for n in 0..5 {
        let edit = json!({"stringData": {"theirs": format!("{n}")}, "metadata": {"labels": {"team": "b"}}});
        world.patch::<Secret>("app", edit).await;
    }
    world
        .patch::<Secret>("app", json!({"data": {"theirs": null}}))
        .await;
    a_while().await;
    assert_eq!(reads(&world.kms), calls);
    assert_eq!(operator.writes().await, writes);
    assert_eq!(keys(&world, "app").await, ["password"]);
    // Nor does a new process find anything to do.
    operator.stop().await;
    let operator = world.operator().await;
    a_while().await;
    assert_eq!(reads(&world.kms), calls);
    assert_eq!(operator.writes().await, 0);
}

#[tokio::test]
async fn an_edit_of_a_key_of_ours_is_repaired() {
    let (world, _operator) = merged().await;
    let edits = [
        json!({"stringData": {"password": "wrong"}}),
        json!({"data": {"password": null}}),
        json!({"metadata": {"labels": {"alikms.dev/managed": null}}}),
        json!({"metadata": {"labels": {"alikms.dev/managed": "false"}}}),
    ];
    for edit in edits {
        let calls = reads(&world.kms);
        world.patch::<Secret>("app", edit.clone()).await;
        // What is repaired once is repaired again only after a while: a forced sync does not wait for that.
        world.force("text").await;
        eventually(&format!("{edit} is repaired"), async || {
            let secret = world.secret("app").await?;
            let labels = secret.labels().get("alikms.dev/managed").cloned();
            let is_marked = labels.as_deref() == Some("true");
            let is_ours = world.text("app", "password").await.as_deref() == Some("one");
            (is_marked && is_ours && reads(&world.kms) > calls).then_some(())
        })
        .await;
        world.until_synced("text").await;
    }
    assert_eq!(keys(&world, "app").await, ["password", "theirs"]);
}

#[tokio::test]
async fn one_edit_is_noticed_by_itself_and_again_and_again_is_a_contest() {
    let (world, _operator) = merged().await;
    let edit = || json!({"stringData": {"password": "wrong"}});
    world.patch::<Secret>("app", edit()).await;
    world.until_text("app", "password", "one").await;
    world.patch::<Secret>("app", edit()).await;
    world.until_ready("text", "False", "TargetContested").await;
}

#[tokio::test]
async fn several_share_a_secret_and_each_takes_only_its_own_keys_along() {
    let (world, _operator) = merged().await;
    world.kms.put_generic("app/more", "more");
    world
        .kms_secret("more", "app/more", merging("app", "token"))
        .await;
    let object = world
        .until_ready("more", "False", "TargetOwnedByOther")
        .await;
    let command = "alikms.dev/allow=text,more --overwrite";
    assert!(condition(&object, "Ready").unwrap().2.contains(command));
    somebodys(&world, "app", "text,more").await;
    world.force("more").await;
    world.until_synced("more").await;
    assert_eq!(keys(&world, "app").await, ["password", "theirs", "token"]);

    // Keys that leave the spec leave the Secret.
    let mut two = merging("app", "password");
    two["data"] = json!([{"key": "password"}, {"key": "user", "template": "u"}]);
    world.kms_secret("text", "app/text", two).await;
    until_keys(&world, "app", &["password", "theirs", "token", "user"]).await;
    world
        .kms_secret("text", "app/text", merging("app", "secret"))
        .await;
    until_keys(&world, "app", &["secret", "theirs", "token"]).await;

    // And with another target all of them do.
    somebodys(&world, "other", "text").await;
    world
        .kms_secret("text", "app/text", merging("other", "secret"))
        .await;
    until_keys(&world, "other", &["secret", "theirs"]).await;
    until_keys(&world, "app", &["theirs", "token"]).await;
    let app = world.secret("app").await.unwrap();
    assert!(
        app.labels().contains_key("alikms.dev/managed"),
        "it still holds keys of the other"
    );
    world.kms.put_generic("app/more", "newer");
    world.force("more").await;
    world.until_text("app", "token", "newer").await;
}

#[tokio::test]
async fn keys_stay_when_their_kms_secret_goes_and_its_successor_takes_them_up() {
    let (world, _operator) = merged().await;
    let first = world.object("text").await.uid().unwrap();
    world.delete::<KmsSecret>("text").await;
    a_while().await;
    assert_eq!(world.text("app", "password").await.as_deref(), Some("one"));

    world.kms.put_generic("app/text", "two");
    let mut spec = merging("app", "password");
    spec["data"] = json!([{"key": "password"}, {"key": "token"}]);
    let second = world
        .kms_secret("text", "app/text", spec)
        .await
        .uid()
        .unwrap();
    world.until_synced("text").await;
    assert_eq!(world.text("app", "password").await.as_deref(), Some("two"));
    let secret = world.secret("app").await.unwrap();
    assert!(!has_manager(
        &secret,
        &format!("kms-secret-operator.{first}")
    ));
    assert!(has_manager(
        &secret,
        &format!("kms-secret-operator.{second}")
    ));
    assert!(
        !secret
            .annotations()
            .contains_key(&format!("alikms.dev/merged.{first}"))
    );
    // What the first one wrote is the second one's, and leaves with its spec.
    world
        .kms_secret("text", "app/text", merging("app", "token"))
        .await;
    until_keys(&world, "app", &["theirs", "token"]).await;
}

#[tokio::test]
async fn a_secret_that_is_made_anew_is_waited_for_and_filled_again() {
    let (world, _operator) = merged().await;
    let calls = reads(&world.kms);
    world.delete::<Secret>("app").await;
    world.until_ready("text", "False", "TargetNotFound").await;
    assert_eq!(reads(&world.kms), calls);
    somebodys(&world, "app", "text").await;
    world.force("text").await;
    until_keys(&world, "app", &["password", "theirs"]).await;
}

#[tokio::test]
async fn without_its_consent_a_secret_is_not_touched_any_more() {
    let (world, _operator) = merged().await;
    let withdrawn = json!({"metadata": {"annotations": {"alikms.dev/allow": null}}});
    let before = world.patch::<Secret>("app", withdrawn).await;
    world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    let calls = reads(&world.kms);
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    a_while().await;
    assert_eq!(reads(&world.kms), calls);
    let after = world.secret("app").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
}

#[tokio::test]
async fn a_secret_that_another_kms_secret_keeps_whole_takes_no_keys() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    world.kms_secret("keeper", "app/text", json!({})).await;
    world.until_synced("keeper").await;
    let consent = json!({"metadata": {"annotations": {"alikms.dev/allow": "text"}}});
    world.patch::<Secret>("keeper", consent).await;
    world
        .kms_secret("text", "app/text", merging("keeper", "password"))
        .await;
    let object = world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    assert!(
        condition(&object, "Ready")
            .unwrap()
            .2
            .contains("KmsSecret \"keeper\"")
    );
    assert_eq!(keys(&world, "keeper").await, ["value"]);
}

#[tokio::test]
async fn the_policy_can_change_to_merge_and_back() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    let whole = |more: Value| {
        let mut target =
            json!({"name": "app", "type": "kubernetes.io/basic-auth", "labels": {"team": "b"}});
        target
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"target": target, "data": [{"key": "password"}, {"key": "old"}]})
    };
    world.kms_secret("text", "app/text", whole(json!({}))).await;
    world.until_synced("text").await;
    let first = world.secret("app").await.unwrap();

    // What was ours is somebody's from now on: it has to consent, like any other.
    world
        .kms_secret("text", "app/text", merging("app", "password"))
        .await;
    world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    world.kms.put_generic("app/text", "two");
    let consent = json!({"metadata": {"annotations": {"alikms.dev/allow": "text"}}, "stringData": {"theirs": "x"}});
    world.patch::<Secret>("app", consent).await;
    world.until_text("app", "password", "two").await;
    world.until_synced("text").await;
    let secret = world.secret("app").await.unwrap();
    assert_eq!(secret.uid(), first.uid(), "never absent");
    assert!(
        secret.owner_references().is_empty(),
        "Kubernetes would collect it"
    );
    assert_eq!(
        secret.labels().keys().collect::<Vec<_>>(),
        ["alikms.dev/managed"]
    );
    assert!(!secret.annotations().contains_key("alikms.dev/kmssecret"));
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/basic-auth"));
    assert_eq!(keys(&world, "app").await, ["password", "theirs"]);

    // And back: somebody's Secret is taken over, or left alone.
    world.kms_secret("text", "app/text", whole(json!({}))).await;
    world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    assert_eq!(keys(&world, "app").await, ["password", "theirs"]);
    world.kms.put_generic("app/text", "three");
    world
        .kms_secret("text", "app/text", whole(json!({"adopt": "IfUnowned"})))
        .await;
    let object = world.until_synced("text").await;
    let secret = world.secret("app").await.unwrap();
    assert_eq!(secret.uid(), first.uid(), "never absent");
    assert_eq!(secret.owner_references()[0].uid, object.uid().unwrap());
    assert_eq!(keys(&world, "app").await, ["old", "password"]);
    assert_eq!(
        world.text("app", "password").await.as_deref(),
        Some("three")
    );
    let merger = object.uid().unwrap();
    assert!(
        !secret
            .annotations()
            .contains_key(&format!("alikms.dev/merged.{merger}"))
    );
    assert!(!has_manager(
        &secret,
        &format!("kms-secret-operator.{merger}")
    ));
}

#[tokio::test]
async fn a_value_that_was_read_before_an_edit_of_somebody_does_not_undo_it() {
    let (world, _operator) = merged().await;
    let hold = world.kms.hold("app/text");
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    hold.until_waiting(1).await;
    let edit = json!({"stringData": {"theirs": "edited"}});
    world.patch::<Secret>("app", edit).await;
    hold.release();
    world.until_text("app", "password", "two").await;
    assert_eq!(world.text("app", "theirs").await.as_deref(), Some("edited"));
}
