//! No call that need not be: reads are joined, batched, paced, and stopped where they cannot work.

use std::time::Duration;

use futures::StreamExt as _;
use kms_emulator::{Batch, Fault, Throttle};
use kms_secret_operator::api::KmsSecret;
use serde_json::{Value, json};

use crate::world::{KEY_ID, KEY_SECRET, World, a_while, eventually};

fn secret(n: usize) -> String {
    format!("s{n}")
}

/// Makes `objects` KmsSecrets over `secrets` secrets of KMS, before any operator runs.
async fn make(world: &World, objects: usize, secrets: usize) -> Vec<String> {
    for n in 0..secrets {
        world.kms.put_generic(&secret(n), &format!("value {n}"));
    }
    let names: Vec<String> = (0..objects).map(|n| format!("o{n}")).collect();
    let made = names.iter().enumerate().map(|(n, name)| async move {
        world
            .kms_secret(name, &secret(n % secrets), json!({}))
            .await;
    });
    futures::stream::iter(made)
        .buffer_unordered(16)
        .count()
        .await;
    names
}

async fn until_all_synced(world: &World, names: &[String]) {
    for name in names {
        world.until_synced(name).await;
    }
}

async fn store(world: &World, more: Value) {
    world.store("prod", "kms-credentials", more).await;
}

#[tokio::test]
async fn a_thousand_objects_over_two_hundred_secrets_are_two_hundred_reads_in_ten_batches() {
    let world = World::new().await;
    store(&world, json!({"requestsPerSecond": 1})).await;
    let operator = world.operator().await;
    let of_store = ["kind=\"KmsStore\"", "name=\"prod\"", &world.namespace];
    let counted = async |metric: &str| {
        let name = format!("kms_secret_operator_store_reads_{metric}_total");
        operator.counter(&name, &of_store).await
    };
    // Twenty secrets at once use up the pace of twenty seconds, in which the others have time to wish.
    let sources: Vec<_> = (0..20)
        .map(|n| json!({"name": format!("p{n}"), "secretName": format!("pace{n}")}))
        .collect();
    for n in 0..20 {
        world.kms.put_generic(&format!("pace{n}"), "1");
    }
    let spec = json!({
        "storeRef": {"name": "prod"},
        "sources": sources,
        "data": [{"key": "a", "source": "p0"}],
    });
    world
        .apply::<KmsSecret>("pace", json!({"spec": spec}))
        .await;
    world.until_synced("pace").await;
    let names = make(&world, 1000, 200).await;
    eventually("every object waits for its read", async || {
        (counted("wished").await == 1020).then_some(())
    })
    .await;
    assert_eq!(counted("sent").await, 20, "the pace holds them back");
    store(&world, json!({"requestsPerSecond": 10_000})).await;
    until_all_synced(&world, &names).await;
    for n in [0, 199, 200, 999] {
        assert_eq!(
            world.text(&format!("o{n}"), "value").await.unwrap(),
            format!("value {}", n % 200)
        );
    }
    assert_eq!(world.kms.reads().len(), 20 + 200);
    assert_eq!(world.kms.count("BatchGetSecretValue"), 1 + 10);
    assert_eq!(world.kms.count("GetSecretValue"), 0);
    assert_eq!(
        (counted("wished").await, counted("sent").await),
        (1020, 220)
    );
}

#[tokio::test]
async fn a_service_that_throttles_refuses_few_and_everything_arrives() {
    let world = World::new().await;
    store(&world, json!({"batch": "Never"})).await;
    world.kms.throttle(Some(Throttle::new(20.0, 20.0)));
    let names = make(&world, 200, 200).await;
    let _operator = world.operator().await;
    until_all_synced(&world, &names).await;
    let refused = world.kms.count_where(|call| call.outcome != "OK");
    assert!(
        refused <= 20,
        "{refused} of {} calls were refused",
        world.kms.count("GetSecretValue")
    );
}

#[tokio::test]
async fn an_endpoint_without_batches_is_read_singly() {
    for without in [Batch::Absent, Batch::Unsupported] {
        let world = World::new().await;
        world.kms.set_batch(without);
        world.kms.set_latency(Duration::from_millis(50));
        let names = make(&world, 60, 60).await;
        let _operator = world.operator().await;
        until_all_synced(&world, &names).await;
        assert!(world.kms.count("BatchGetSecretValue") <= 3);
    }
}

#[tokio::test]
async fn a_batch_in_any_order_and_under_plain_names_reaches_the_right_objects() {
    let world = World::new().await;
    world.kms.set_batch_shuffled(true);
    world.kms.set_batch_plain_names(true);
    world.kms.set_latency(Duration::from_millis(50));
    let names = make(&world, 60, 60).await;
    let arn = |name: &str| format!("acs:kms:cn-hangzhou:1234567890123456:secret/{name}");
    for n in 0..20 {
        world
            .kms_secret(&format!("arn{n}"), &arn(&secret(n)), json!({}))
            .await;
    }
    world
        .kms
        .fault(Fault::code("Forbidden.NoPermission").on_secret("s7"));
    let _operator = world.operator().await;
    for (n, name) in names.iter().enumerate().filter(|(n, _)| *n != 7) {
        world.until_text(name, "value", &format!("value {n}")).await;
    }
    for n in (0..20).filter(|n| *n != 7) {
        world
            .until_text(&format!("arn{n}"), "value", &format!("value {n}"))
            .await;
    }
    world.until_ready("o7", "False", "AccessDenied").await;
    assert!(world.kms.count("BatchGetSecretValue") > 0);
}

#[tokio::test]
async fn one_store_with_bad_credentials_costs_a_handful_of_calls_and_others_do_not_notice() {
    let world = World::new().await;
    world.credentials("wrong", KEY_ID, "wrong").await;
    world.store("broken", "wrong", json!({})).await;
    let names = make(&world, 50, 50).await;
    for n in 0..200 {
        let spec = json!({"storeRef": {"name": "broken"}});
        world
            .kms_secret(&format!("broken{n}"), &secret(n % 50), spec)
            .await;
    }
    let _operator = world.operator().await;
    until_all_synced(&world, &names).await;
    world
        .until_ready("broken199", "False", "CredentialsInvalid")
        .await;
    a_while().await;
    let refused = world
        .kms
        .count_where(|call| call.outcome == "SignatureDoesNotMatch");
    assert!(
        (1..=5).contains(&refused),
        "{refused} calls with bad credentials"
    );
    world.credentials("wrong", KEY_ID, KEY_SECRET).await;
    for n in 0..200 {
        world.until_synced(&format!("broken{n}")).await;
    }
}

#[tokio::test]
async fn an_edit_of_a_store_reads_again_only_if_its_identity_changed() {
    let world = World::new().await;
    let names = make(&world, 20, 20).await;
    let _operator = world.operator().await;
    until_all_synced(&world, &names).await;
    world.kms.reset_calls();
    store(
        &world,
        json!({"requestsPerSecond": 50, "batch": "Never", "signature": "V1"}),
    )
    .await;
    a_while().await;
    assert_eq!(world.kms.calls().len(), 0);
    // The new pace and mode are in force for what is read next.
    for name in &names[..5] {
        world.force(name).await;
    }
    for name in &names[..5] {
        world.until_synced(name).await;
    }
    assert_eq!(world.kms.count("GetSecretValue"), 5);
    let by_v1 = |call: &kms_emulator::Call| call.signature == kms_emulator::Signature::V1;
    assert_eq!(world.kms.count_where(by_v1), 5, "as the edit asks");

    world.kms.reset_calls();
    world.credentials("others", KEY_ID, KEY_SECRET).await;
    world.store("prod", "others", json!({})).await;
    eventually("all are read by the other identity", async || {
        (world.kms.reads().len() == names.len()).then_some(())
    })
    .await;
}
