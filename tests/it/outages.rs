//! A control plane that ends and comes back: as it was, or as it was some time ago.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kms_secret_operator::api::KmsSecret;
use serde_json::json;

use crate::witness::Witness;
use crate::world::World;

const OBJECTS: usize = 12;

fn object(n: usize) -> String {
    format!("o{n}")
}

/// Gives every secret of KMS its next value.
fn rotate(world: &World, value: u32) {
    for n in 0..OBJECTS {
        world.kms.put_generic(&object(n), &value.to_string());
    }
}

/// Makes the KmsSecrets, which are read every second.
async fn make(world: &World) {
    rotate(world, 1);
    for n in 0..OBJECTS {
        let spec = json!({"refresh": {"interval": "1s"}});
        world.kms_secret(&object(n), &object(n), spec).await;
    }
    until_all(world, 1).await;
}

async fn until_all(world: &World, value: u32) {
    for n in 0..OBJECTS {
        world
            .until_text(&object(n), "value", &value.to_string())
            .await;
    }
}

#[tokio::test]
async fn what_rotated_while_the_api_server_was_away_is_made_up_for() {
    let world = World::alone().await;
    let operator = world.operator().await;
    make(&world).await;
    let mut value = 1;
    // Longer than a Lease is held without being renewed, and not as long.
    for away in [12, 1] {
        world.cluster.pause().await;
        value += 1;
        rotate(&world, value);
        tokio::time::sleep(Duration::from_secs(away)).await;
        value += 1;
        rotate(&world, value);
        world.cluster.resume().await;
        let witness = Witness::of(&world).await;
        until_all(&world, value).await;
        operator.until_members(1).await;
        for n in 0..OBJECTS {
            let values = witness.values(&world, &object(n)).await;
            assert!(
                values.is_sorted() && values.iter().all(|value| !value.is_empty()),
                "{values:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_cluster_that_was_put_back_to_a_backup_is_right_again_by_itself() {
    let world = World::alone().await;
    let _operator = world.operator().await;
    make(&world).await;
    world.kms.put_generic("quiet", "1");
    for name in ["quiet", "edited", "deleted"] {
        world.kms_secret(name, "quiet", json!({})).await;
        world.until_synced(name).await;
    }
    world.cluster.pause().await;
    world.cluster.back_up();
    world.cluster.resume().await;

    // What etcd will not know of.
    for value in [2, 3] {
        rotate(&world, value);
        until_all(&world, value).await;
    }
    let two = json!({"data": [{"key": "value"}, {"key": "copy"}]});
    world.kms_secret("edited", "quiet", two).await;
    world.until_text("edited", "copy", "1").await;
    world.delete::<KmsSecret>("deleted").await;
    world.kms_secret("newborn", "quiet", json!({})).await;
    world.until_synced("newborn").await;
    rotate(&world, 4);
    world.cluster.pause().await;
    world.cluster.restore();
    world.cluster.resume().await;

    until_all(&world, 4).await;
    let kept: Vec<String> = world.data("edited").await.into_keys().collect();
    assert_eq!(kept, ["value"], "as the spec of the backup says");
    assert_eq!(world.text("deleted", "value").await.as_deref(), Some("1"));
    assert!(world.secret("newborn").await.is_none());
    // It follows what happens from now on, as before.
    let other = json!({"data": [{"key": "other"}]});
    world.kms_secret("edited", "quiet", other).await;
    world.until_text("edited", "other", "1").await;
    world.kms_secret("newborn", "quiet", json!({})).await;
    world.until_synced("newborn").await;
    world
        .patch::<Secret>("quiet", json!({"stringData": {"value": "planted"}}))
        .await;
    world.until_text("quiet", "value", "1").await;
    rotate(&world, 5);
    until_all(&world, 5).await;
}
