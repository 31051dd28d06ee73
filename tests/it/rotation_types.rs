//! Rotation by type of secret: what each type does that the others do not.

use std::time::Duration;

use kms_emulator::jiff::SignedDuration;
use kms_emulator::{Automatic, Kind, Managed};
use kms_secret_operator::api::KmsSecret;
use serde_json::json;

use crate::world::{World, condition, eventually};

const DAY: Duration = Duration::from_secs(86_400);

/// Every managed type, one that no document knows among them.
fn kinds() -> Vec<(&'static str, Kind)> {
    vec![
        ("rds", Kind::Rds),
        ("redis", Kind::Redis),
        ("polardb", Kind::PolarDb),
        ("acs/ram/user/app", Kind::RamCredentials),
        ("ecs-password", Kind::EcsPassword),
        ("ecs-key-pair", Kind::EcsKeyPair),
        ("unknown", Kind::Other("Quantum".into())),
    ]
}

/// The name of the object that syncs a secret.
fn object(secret_name: &str) -> String {
    secret_name.replace('/', "-")
}

/// When the object means to read again, in seconds after its last read.
fn planned(object: &KmsSecret) -> i64 {
    let status = object.status.clone().unwrap();
    let (next, last) = (
        status.next_sync_time.unwrap(),
        status.last_sync_time.unwrap(),
    );
    next.0.duration_since(last.0).as_secs()
}

#[tokio::test]
async fn every_type_follows_its_rotation_with_one_read() {
    let world = World::new().await;
    let secrets = kinds().into_iter().flat_map(|(name, kind)| {
        let single = Managed::new(kind, Duration::from_secs(3));
        let dual = single.clone().dual();
        [(name.to_owned(), single), (format!("{name}-dual"), dual)]
    });
    let names: Vec<String> = secrets
        .map(|(name, managed)| {
            world.kms.put_managed(&name, managed);
            name
        })
        .collect();
    let _operator = world.operator().await;
    for name in &names {
        world.kms_secret(&object(name), name, json!({})).await;
    }
    futures::future::join_all(names.iter().map(|name| follows(&world, name))).await;
}

/// Waits for a rotation of a secret, and counts the reads that it took.
async fn follows(world: &World, name: &str) {
    world.until_synced(&object(name)).await;
    let before = world.text(&object(name), "value").await;
    let reads = world.kms.count_reads(name);
    eventually(&format!("{name} follows"), async || {
        let now = world.text(&object(name), "value").await;
        (now != before && now? == world.kms.current(name)?.value).then_some(())
    })
    .await;
    let rotations = world.kms.history(name).len();
    let reads = world.kms.count_reads(name) - reads;
    assert!(
        reads <= rotations,
        "{name}: {reads} reads, {rotations} rotations"
    );
}

#[tokio::test]
async fn where_kms_does_not_rotate_the_ceiling_is_by_type() {
    let world = World::new().await;
    let _operator = world.operator().await;
    world.kms.put_generic("generic", "x");
    world.kms_secret("generic", "generic", json!({})).await;
    for (name, kind) in kinds() {
        let idle = Managed::new(kind, Duration::from_secs(60)).automatic(Automatic::Disabled);
        world.kms.put_managed(name, idle);
        world.kms_secret(&object(name), name, json!({})).await;
    }
    for (name, minutes) in [
        ("generic", 60),
        ("rds", 10),
        ("redis", 60),
        ("polardb", 60),
        ("acs/ram/user/app", 10),
        ("ecs-password", 10),
        ("ecs-key-pair", 10),
        ("unknown", 60),
    ] {
        let synced = world.until_synced(&object(name)).await;
        let least = minutes * 60;
        // A tenth of it, and five minutes at most, spreads the objects.
        let most = least + (least / 10).min(300);
        assert!(
            (least..=most).contains(&planned(&synced)),
            "{name}: {}",
            planned(&synced)
        );
        assert!(condition(&synced, "RotationOverdue").is_none(), "{name}");
    }
    world
        .kms
        .set_rotation_status("rds", Automatic::Enabled)
        .unwrap();
    world.force("rds").await;
    let synced = world.until_synced("rds").await;
    assert!(
        planned(&synced) <= 62,
        "its dates count again: {}",
        planned(&synced)
    );
}

#[tokio::test]
async fn ram_credentials_may_take_two_days() {
    let world = World::new().await;
    let late = |hours: i64| {
        let first = world.kms.now() - SignedDuration::from_hours(hours);
        Managed::new(Kind::RamCredentials, 30 * DAY).first(first)
    };
    // Announced two days ago, and about to happen.
    let about_to = late(48).late(2 * DAY + Duration::from_secs(6));
    world.kms.put_managed("acs/ram/user/slow", about_to);
    world
        .kms
        .put_managed("acs/ram/user/stuck", late(73).late(9 * DAY));
    let _operator = world.operator().await;
    world
        .kms_secret("slow", "acs/ram/user/slow", json!({}))
        .await;
    world
        .kms_secret("stuck", "acs/ram/user/stuck", json!({}))
        .await;
    let slow = world.until_synced("slow").await;
    assert!(condition(&slow, "RotationOverdue").is_none());
    assert!(
        planned(&slow) <= 600,
        "confirmed in steps of ten minutes at most"
    );
    let stuck = world.until_synced("stuck").await;
    assert_eq!(condition(&stuck, "RotationOverdue").unwrap().1, "Late");

    let before = world.text("slow", "value").await;
    eventually("KMS rotates", async || {
        (world.kms.history("acs/ram/user/slow").len() == 2).then_some(())
    })
    .await;
    world.force("slow").await;
    let slow = world.until_synced("slow").await;
    assert_ne!(world.text("slow", "value").await, before);
    assert!(condition(&slow, "RotationOverdue").is_none());
    let next = slow.status.unwrap().sources[0].next_rotation_date.clone();
    assert!(next.unwrap().0 > world.kms.now(), "the next date counts");
}

#[tokio::test]
async fn a_secret_that_was_deleted_and_made_anew_is_believed() {
    let world = World::new().await;
    world.kms.put_generic("generic", "first");
    world.kms.put_managed("rds", Managed::rds(DAY));
    world.kms.rotate("rds").unwrap();
    let _operator = world.operator().await;
    for name in ["generic", "rds"] {
        world.kms_secret(name, name, json!({})).await;
        world.until_synced(name).await;
        assert!(world.kms.delete(name));
        world.force(name).await;
        world.until_ready(name, "False", "SecretNotFound").await;
    }
    // The version ids of the new one begin anew; a managed one was never rotated.
    world.kms.put_generic("generic", "second");
    world.kms.put_managed("rds", Managed::rds(DAY));
    let value = world.kms.current("rds").unwrap().value;
    for (name, text) in [("generic", "second"), ("rds", value.as_str())] {
        world.force(name).await;
        world.until_synced(name).await;
        world.until_text(name, "value", text).await;
    }
}
