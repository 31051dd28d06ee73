//! Watches that expire, lag or fall silent: what they show late is done late, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kms_secret_operator::api::KmsSecret;
use serde_json::json;

use crate::gate::{Asked, Fate, Gate};
use crate::witness::Witness;
use crate::world::{Operator, World, a_while, eventually};

/// An operator of which each watch that `is_it` meets that fate.
async fn watching(world: &World, fate: Fate, is_it: fn(&Asked) -> bool) -> (Operator, Watches) {
    let watches = Watches::default();
    let counted = Arc::clone(&watches.0);
    let gate = Gate::new(move |asked| {
        if asked.is_of_lease() || !asked.is_watch || !is_it(asked) {
            return Fate::Pass;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        fate
    });
    let client = world.cluster.client_behind(&gate).await;
    let flags = ["--namespace", world.namespace.as_str()];
    (world.operator_by(client, &flags, |_| ()).await, watches)
}

/// How many watches met their fate.
#[derive(Default)]
struct Watches(Arc<AtomicUsize>);

fn is_of_secrets(asked: &Asked) -> bool {
    asked.path.ends_with("/secrets")
}

fn is_of_kms_secrets(asked: &Asked) -> bool {
    asked.path.ends_with("/kmssecrets")
}

/// A world with the KmsSecret `text`, which is read every second.
async fn world() -> World {
    let world = World::new().await;
    world.kms.put_generic("app/text", "1");
    let spec = json!({"refresh": {"interval": "1s"}});
    world.kms_secret("text", "app/text", spec).await;
    world
}

/// Gives it values one after the other, each once the last one is in the Secret.
async fn rotate(world: &World, values: std::ops::RangeInclusive<u32>) {
    for value in values {
        world.kms.put_generic("app/text", &value.to_string());
        world.until_text("text", "value", &value.to_string()).await;
    }
}

#[tokio::test]
async fn watches_that_always_expire_show_everything_by_lists() {
    let world = world().await;
    let (operator, watches) = watching(&world, Fate::Expired, |_| true).await;
    rotate(&world, 1..=2).await;
    // Each is seen by a list.
    world.kms_secret("other", "app/text", json!({})).await;
    world.until_text("other", "value", "2").await;
    // Before it goes: each look at one that the list still shows would tell of it again, in vain.
    world.until_synced("other").await;
    world.delete::<KmsSecret>("other").await;
    rotate(&world, 3..=4).await;
    let watches = watches.0.load(Ordering::Relaxed);
    assert!(watches <= 5 * 12, "{watches} of five kinds");
    let writes = operator.writes().await;
    assert!(writes <= 3 * 5, "{writes} writes");
}

#[tokio::test]
async fn a_watch_of_secrets_that_lags_makes_no_write_and_takes_no_value_back() {
    for by in [Duration::from_secs(4), Duration::from_hours(24)] {
        let world = world().await;
        let witness = Witness::of(&world).await;
        let (operator, _) = watching(&world, Fate::Late(by), is_of_secrets).await;
        rotate(&world, 1..=8).await;
        a_while().await;
        let values = witness.values(&world, "text").await;
        let expected: Vec<String> = (1..=8).map(|value| value.to_string()).collect();
        assert_eq!(values, expected, "{by:?}");
        // The Secret and the status, for each value.
        let writes = operator.writes().await;
        assert!(writes <= 3 * 8, "{writes} writes");
        // What somebody does to the Secret is found by the next read at the latest.
        world
            .patch::<Secret>("text", json!({"stringData": {"value": "planted"}}))
            .await;
        rotate(&world, 9..=9).await;
        world.delete::<Secret>("text").await;
        world.until_text("text", "value", "9").await;
    }
}

#[tokio::test]
async fn a_secret_that_went_with_its_kms_secret_is_not_made_again_by_a_watch_that_lags() {
    let world = world().await;
    let spec = json!({"target": {"creationPolicy": "Orphan"}});
    world.kms_secret("orphan", "app/text", spec).await;
    let witness = Witness::of(&world).await;
    let lag = Fate::Late(Duration::from_hours(24));
    let _operator = watching(&world, lag, is_of_kms_secrets).await;
    for name in ["text", "orphan"] {
        world.until_synced(name).await;
        world.delete::<KmsSecret>(name).await;
    }
    // One is collected, the other deleted by whoever wants it no more.
    world.delete::<Secret>("orphan").await;
    eventually("the Secret is collected", async || {
        let found = world.api::<Secret>().get_opt("text").await.unwrap();
        found.is_none().then_some(())
    })
    .await;
    a_while().await;
    let states = witness.states(&world).await;
    for name in ["text", "orphan"] {
        let there = states.iter().filter(|(of, _)| of == name);
        let there: Vec<bool> = there.map(|(_, data)| data.is_some()).collect();
        assert_eq!(there, [true, false], "{name}");
    }
}

#[tokio::test]
async fn a_watch_of_kms_secrets_that_lags_is_made_up_for_by_what_was_written() {
    let world = world().await;
    let witness = Witness::of(&world).await;
    let lag = Fate::Late(Duration::from_secs(4));
    let (operator, _) = watching(&world, lag, is_of_kms_secrets).await;
    rotate(&world, 1..=8).await;
    let spec = json!({"refresh": {"interval": "1s"}, "data": [{"key": "copy"}]});
    world.kms_secret("text", "app/text", spec).await;
    world.until_text("text", "copy", "8").await;
    world.until_synced("text").await;
    let values = witness.values(&world, "text").await;
    assert_eq!(values.len(), 9, "{values:?}");
    let writes = operator.writes().await;
    assert!(writes <= 3 * 9, "{writes} writes");
}
