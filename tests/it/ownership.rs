//! Whose Secret it is: ours is kept right, anybody else's is left alone.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::{Effect, Fault};
use kms_secret_operator::api::KmsSecret;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams, WatchParams};
use kube::core::WatchEvent;
use serde_json::json;

use crate::witness::Witness;
use crate::world::{World, a_while, condition, eventually};

#[tokio::test]
async fn a_foreign_secret_is_refused_and_unharmed() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "ours");
    let _operator = world.operator().await;
    world
        .apply::<Secret>(
            "text",
            json!({"metadata": {}, "stringData": {"value": "theirs"}}),
        )
        .await;
    let version = world.secret("text").await.unwrap().resource_version();
    world.kms_secret("text", "app/text", json!({})).await;
    let object = world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    assert!(condition(&object, "Ready").unwrap().2.contains("\"text\""));
    a_while().await;
    let secret = world.secret("text").await.unwrap();
    assert_eq!(secret.resource_version(), version);
    assert!(world.kms.count("GetSecretValue") <= 1);

    world.delete::<Secret>("text").await;
    world.until_text("text", "value", "ours").await;
}

#[tokio::test]
async fn a_secret_of_another_controller_is_refused() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "ours");
    let owner = world.secret("kms-credentials").await.unwrap();
    let reference = json!({"apiVersion": "v1", "kind": "Secret", "name": owner.name_any(), "uid": owner.uid(), "controller": true});
    let metadata = json!({
        "labels": {"alikms.dev/managed": "true"},
        "annotations": {"alikms.dev/kmssecret": "text"},
        "ownerReferences": [reference],
    });
    world
        .apply::<Secret>(
            "text",
            json!({"metadata": metadata, "stringData": {"value": "theirs"}}),
        )
        .await;
    let _operator = world.operator().await;
    world.kms_secret("text", "app/text", json!({})).await;
    world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    assert_eq!(world.text("text", "value").await.unwrap(), "theirs");
    assert_eq!(
        world.kms.count("GetSecretValue"),
        0,
        "the label shows it before any call"
    );
}

#[tokio::test]
async fn of_two_with_one_target_the_first_stays_and_the_second_follows() {
    let world = World::new().await;
    world.kms.put_generic("app/first", "one");
    world.kms.put_generic("app/second", "two");
    let _operator = world.operator().await;
    let target = json!({"target": {"name": "shared"}});
    world.kms_secret("first", "app/first", target.clone()).await;
    world.until_synced("first").await;
    world.kms_secret("second", "app/second", target).await;
    let object = world
        .until_ready("second", "False", "TargetOwnedByOther")
        .await;
    assert!(condition(&object, "Ready").unwrap().2.contains("\"first\""));
    assert_eq!(world.text("shared", "value").await.unwrap(), "one");
    world.delete::<KmsSecret>("first").await;
    world.until_synced("second").await;
    world.until_text("shared", "value", "two").await;
}

#[tokio::test]
async fn an_edited_target_is_repaired() {
    let (world, _operator) = World::synced("right").await;
    let edit = json!({"stringData": {"value": "wrong", "planted": "x"}, "metadata": {"labels": {"mine": "too"}}});
    world.patch::<Secret>("text", edit).await;
    eventually("the data is as it was", async || {
        let data = world.data("text").await;
        (data.len() == 1 && data["value"] == b"right").then_some(())
    })
    .await;
    let secret = world.secret("text").await.unwrap();
    assert_eq!(secret.labels()["mine"], "too", "labels of others stay");
    let calls = world.kms.count("GetSecretValue");
    a_while().await;
    assert_eq!(
        world.kms.count("GetSecretValue"),
        calls,
        "and there it ends"
    );
}

#[tokio::test]
async fn a_target_that_is_edited_again_and_again_is_contested() {
    let (world, _operator) = World::synced("right").await;
    world
        .patch::<Secret>("text", json!({"stringData": {"value": "wrong"}}))
        .await;
    world.until_text("text", "value", "right").await;
    world
        .patch::<Secret>("text", json!({"stringData": {"value": "wrong"}}))
        .await;
    world.until_ready("text", "False", "TargetContested").await;
    for n in 0..5 {
        world
            .patch::<Secret>(
                "text",
                json!({"stringData": {"value": format!("wrong {n}")}}),
            )
            .await;
    }
    a_while().await;
    assert_eq!(
        world.kms.count("GetSecretValue"),
        2,
        "the first, and one repair"
    );
    world.force("text").await;
    world.until_text("text", "value", "right").await;
}

#[tokio::test]
async fn a_target_without_its_label_is_still_ours_and_gets_it_back() {
    let (world, _operator) = World::synced("right").await;
    let uid = world.secret("text").await.unwrap().uid();
    world
        .patch::<Secret>(
            "text",
            json!({"metadata": {"labels": {"alikms.dev/managed": null}}}),
        )
        .await;
    eventually("the label is back", async || {
        let secret = world.secret("text").await?;
        secret
            .labels()
            .contains_key("alikms.dev/managed")
            .then_some(())
    })
    .await;
    assert_eq!(world.secret("text").await.unwrap().uid(), uid);
}

#[tokio::test]
async fn a_deleted_target_is_made_again() {
    let (world, _operator) = World::synced("right").await;
    for _ in 0..2 {
        let uid = world.secret("text").await.unwrap().uid();
        world.delete::<Secret>("text").await;
        eventually("there is another Secret", async || {
            let secret = world.secret("text").await?;
            (secret.uid() != uid).then_some(())
        })
        .await;
    }
    world.until_synced("text").await;
    assert_eq!(world.text("text", "value").await.unwrap(), "right");
}

#[tokio::test]
async fn a_target_that_was_deleted_while_nobody_watched_is_made_again() {
    let (world, operator) = World::synced("right").await;
    operator.stop().await;
    world.delete::<Secret>("text").await;
    let _operator = world.operator().await;
    world.until_text("text", "value", "right").await;
}

#[tokio::test]
async fn the_secret_goes_with_its_kms_secret() {
    let (world, _operator) = World::synced("one").await;
    world.delete::<KmsSecret>("text").await;
    eventually("the Secret is collected", async || {
        world.secret("text").await.is_none().then_some(())
    })
    .await;
    a_while().await;
    assert!(
        world.secret("text").await.is_none(),
        "and does not come back"
    );
}

#[tokio::test]
async fn the_secret_of_a_predecessor_is_taken_over_in_place() {
    let world = World::new().await;
    let _operator = world.operator().await;
    replace_the_kms_secret(&world).await;
}

#[tokio::test]
async fn the_rights_of_the_example_suffice_where_owner_references_are_checked() {
    const PLUGIN: &str = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";
    let world = World::alone_with(&[PLUGIN]).await;
    let client = world.with_rights_of_the_example().await;
    let namespace = world.namespace.as_str();
    let flags = ["--namespace", namespace, "--lease-namespace", namespace];
    let _operator = world.operator_by(client, &flags, |_| ()).await;
    replace_the_kms_secret(&world).await;
    let spec = json!({"target": {"name": "renamed"}});
    world.kms_secret("text", "app/text", spec).await;
    world.until_synced("text").await;
    assert_eq!(world.text("renamed", "value").await.unwrap(), "two");
    eventually("the old Secret is deleted", async || {
        world.secret("text").await.is_none().then_some(())
    })
    .await;
}

/// Makes a KmsSecret, and another one of the same name in its place.
async fn replace_the_kms_secret(world: &World) {
    world.kms.put_generic("app/text", "one");
    let first = world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    let uid = world.secret("text").await.unwrap().uid();
    world
        .api::<KmsSecret>()
        .delete("text", &DeleteParams::orphan())
        .await
        .unwrap();
    eventually("the first is gone", async || {
        world
            .api::<KmsSecret>()
            .get_opt("text")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    world.kms.put_generic("app/text", "two");
    let second = world.kms_secret("text", "app/text", json!({})).await;
    assert_ne!(first.uid(), second.uid());
    world.until_synced("text").await;
    let secret = world.secret("text").await.unwrap();
    assert_eq!(secret.uid(), uid, "never absent");
    assert_eq!(Some(secret.owner_references()[0].uid.clone()), second.uid());
    assert_eq!(world.text("text", "value").await.unwrap(), "two");
}

#[tokio::test]
async fn the_secret_of_a_predecessor_that_a_restore_brought_is_taken_over_too() {
    let world = World::alone().await;
    world.cluster.stop_controllers();
    world.kms.put_generic("app/text", "ours");
    let reference = json!({"apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "name": "text",
        "uid": "00000000-0000-0000-0000-000000000000", "controller": true});
    world
        .kms_secret("text", "app/text", json!({"suspend": true}))
        .await;
    let restored: Secret = serde_json::from_value(json!({
        "metadata": {"name": "text", "labels": {"alikms.dev/managed": "true"},
            "annotations": {"alikms.dev/kmssecret": "text"}, "ownerReferences": [reference]},
        "stringData": {"value": "theirs", "old": "x"},
    }))
    .unwrap();
    let _operator = world.operator().await;
    let restored = world
        .api::<Secret>()
        .create(&PostParams::default(), &restored)
        .await
        .unwrap();
    world
        .patch::<KmsSecret>("text", json!({"spec": {"suspend": false}}))
        .await;
    let object = world.until_synced("text").await;
    let secret = world.secret("text").await.unwrap();
    assert_eq!(secret.uid(), restored.uid(), "in place");
    let owners: Vec<_> = secret
        .owner_references()
        .iter()
        .map(|owner| owner.uid.clone())
        .collect();
    assert_eq!(owners, [object.uid().unwrap()]);
    assert_eq!(
        world.data("text").await.keys().collect::<Vec<_>>(),
        ["value"]
    );
    assert_eq!(world.text("text", "value").await.unwrap(), "ours");
}

#[tokio::test]
async fn a_target_that_was_immutable_is_made_again_when_it_is_deleted() {
    let (world, _operator) = World::synced("one").await;
    world
        .patch::<Secret>("text", json!({"immutable": true}))
        .await;
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    world.until_ready("text", "False", "TargetImmutable").await;
    world.delete::<Secret>("text").await;
    world.until_text("text", "value", "two").await;
    world.until_synced("text").await;
}

#[tokio::test]
async fn labels_of_others_are_no_contest_and_a_rotation_is_never_held_back_by_one() {
    let (world, _operator) = World::synced("right").await;
    for n in 0..4 {
        let labels = json!({"metadata": {"labels": {"mine": format!("{n}")}}});
        let patched = world.patch::<Secret>("text", labels).await;
        eventually("the label was taken note of", async || {
            let target = world.object("text").await.status?.target?;
            (Some(target.resource_version) == patched.resource_version()).then_some(())
        })
        .await;
        assert_eq!(
            condition(&world.object("text").await, "Ready").unwrap().1,
            "Synced"
        );
    }
}

#[tokio::test]
async fn two_operators_at_once_tell_the_same_and_come_to_rest() {
    let world = World::new().await;
    let interval = Duration::from_secs(3);
    world
        .kms
        .put_managed("app/db", kms_emulator::Managed::rds(interval));
    let (_first, _second) = (world.operator().await, world.rival().await);
    let names = ["a", "b", "c"];
    for name in names {
        world.kms_secret(name, "app/db", json!({})).await;
    }
    for name in names {
        world.until_synced(name).await;
    }
    for _ in 0..60 {
        for name in names {
            let object = world.object(name).await;
            assert_eq!(condition(&object, "Ready").unwrap().1, "Synced", "{name}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world
        .kms
        .set_rotation_status("app/db", kms_emulator::Automatic::Disabled)
        .unwrap();
    for name in names {
        world.force(name).await;
        world.until_synced(name).await;
    }
    let settled = eventually("nothing is written any more", async || {
        let before = world.object("a").await.resource_version();
        a_while().await;
        (world.object("a").await.resource_version() == before).then_some(())
    });
    settled.await;
    assert!(world.events().await.is_empty(), "nobody contested anything");
}

#[tokio::test]
async fn a_slow_worker_cannot_put_an_old_value_over_a_newer_one() {
    let (world, slow) = World::synced("one").await;
    // The value is taken when the call arrives and answered three seconds later.
    let delay = Effect::Delay {
        seconds: Duration::from_secs(3),
    };
    world
        .kms
        .fault(Fault::new(delay).on_secret("app/text").times(1));
    world.kms.reset_calls();
    world.force("text").await;
    eventually("the slow worker has the old value in hand", async || {
        (world.kms.in_flight() == 1).then_some(())
    })
    .await;
    let witness = Witness::of(&world).await;
    world.kms.put_generic("app/text", "two");
    let quick = world.rival().await;
    world.until_text("text", "value", "two").await;
    quick.stop().await;
    eventually("the slow worker has had its answer", async || {
        (world.kms.in_flight() == 0).then_some(())
    })
    .await;
    a_while().await;
    assert_eq!(world.text("text", "value").await.unwrap(), "two");
    world.kms.put_generic("app/text", "three");
    world.force("text").await;
    world.until_text("text", "value", "three").await;
    let values = witness.values(&world, "text").await;
    assert_eq!(values, ["two", "three"], "and the slow worker works on");
    slow.stop().await;
}

#[tokio::test]
async fn a_slow_worker_cannot_bring_a_deleted_secret_back() {
    let (world, _operator) = World::synced("one").await;
    let hold = world.kms.hold("app/text");
    world.force("text").await;
    hold.until_waiting(1).await;
    world.delete::<KmsSecret>("text").await;
    eventually("the Secret is collected", async || {
        world.secret("text").await.is_none().then_some(())
    })
    .await;
    let api = world.api::<Secret>();
    let params = WatchParams::default().fields("metadata.name=text");
    let events = api.watch(&params, "").await.unwrap();
    let mut events = std::pin::pin!(events);
    hold.release();
    let revived = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Added(_) = event.unwrap() {
                return;
            }
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(3), revived)
            .await
            .is_err(),
        "not even for a moment"
    );
}

#[tokio::test]
async fn a_value_that_was_read_for_an_older_spec_is_not_written() {
    let world = World::new().await;
    world.kms.put_generic("app/one", "one");
    world.kms.put_generic("app/two", "two");
    let _operator = world.operator().await;
    let hold = world.kms.hold("app/one");
    world.kms_secret("text", "app/one", json!({})).await;
    hold.until_waiting(1).await;
    world.kms_secret("text", "app/two", json!({})).await;
    let watched = tokio::spawn({
        let api = world.api::<Secret>();
        async move {
            let params = WatchParams::default().fields("metadata.name=text");
            let events = api.watch(&params, "0").await.unwrap();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                if let WatchEvent::Added(secret) = event.unwrap() {
                    return secret.data.unwrap()["value"].0.clone();
                }
            }
            panic!("the watch ended");
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    hold.release();
    assert_eq!(watched.await.unwrap(), b"two");
}

#[tokio::test]
async fn a_renamed_target_leaves_no_old_one_behind() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    world
        .kms_secret("text", "app/text", json!({"target": {"name": "old"}}))
        .await;
    world.until_synced("text").await;
    // The new name is taken: the old one stays.
    world
        .apply::<Secret>(
            "taken",
            json!({"metadata": {}, "stringData": {"value": "theirs"}}),
        )
        .await;
    world
        .kms_secret("text", "app/text", json!({"target": {"name": "taken"}}))
        .await;
    world
        .until_ready("text", "False", "TargetOwnedByOther")
        .await;
    assert_eq!(world.text("old", "value").await.unwrap(), "one");
    world
        .kms_secret("text", "app/text", json!({"target": {"name": "new"}}))
        .await;
    let object = world.until_synced("text").await;
    assert_eq!(object.status.unwrap().target.unwrap().name, "new");
    assert_eq!(world.text("new", "value").await.unwrap(), "one");
    assert!(world.secret("old").await.is_none());
    assert_eq!(world.text("taken", "value").await.unwrap(), "theirs");
}

#[tokio::test]
async fn an_old_target_that_somebody_took_over_is_not_deleted() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let _operator = world.operator().await;
    // An owner reference that was taken away is enough: somebody keeps the Secret.
    for (name, annotations) in [
        ("unmarked", json!({"alikms.dev/kmssecret": null})),
        ("kept", json!({})),
    ] {
        let old = format!("{name}-old");
        world
            .kms_secret(name, "app/text", json!({"target": {"name": old}}))
            .await;
        world.until_synced(name).await;
        world
            .patch::<KmsSecret>(name, json!({"spec": {"suspend": true}}))
            .await;
        world.until_ready(name, "True", "Suspended").await;
        let theirs = json!({"metadata": {"ownerReferences": null, "annotations": annotations}});
        world.patch::<Secret>(&old, theirs).await;
        let renamed =
            json!({"spec": {"suspend": false, "target": {"name": format!("{name}-new")}}});
        world.patch::<KmsSecret>(name, renamed).await;
        world.until_synced(name).await;
        assert!(world.secret(&format!("{name}-new")).await.is_some());
        assert!(world.secret(&old).await.is_some(), "{name}");
    }
}
