//! A tenant, or a network, that means harm: each test tries to get around a rule, and nothing comes of it.

use futures::StreamExt as _;
use kms_emulator::{Effect, Fault};
use serde_json::json;

use crate::world::{Operator, World, eventually};

#[tokio::test]
async fn a_tenant_whose_store_is_slow_holds_up_nobody_else() {
    let world = World::alone().await;
    let slow = json!({"requestsPerSecond": 1, "batch": "Never"});
    world.store("prod", "kms-credentials", slow).await;
    let made = (0..2000).map(|n| {
        let world = &world;
        async move {
            let name = format!("s{n}");
            world.kms_secret(&name, &name, json!({})).await;
        }
    });
    futures::stream::iter(made)
        .buffer_unordered(16)
        .count()
        .await;
    let other = world.beside().await;
    let operator = world
        .operator_of(&["--allow-endpoint", &other.kms.origin()])
        .await;
    eventually(
        "everything that waits for the slow store waits",
        async || {
            let metrics = operator.get("metrics").await;
            let waiting = metrics.lines().find(|line| {
                line.contains("store_reads_waiting{") && line.contains(&world.namespace)
            })?;
            let waiting: f64 = waiting.rsplit(' ').next()?.parse().ok()?;
            (waiting >= 500.0).then_some(())
        },
    )
    .await;
    other.kms.put_generic("app/text", "hello");
    for name in ["a", "b", "c", "d", "e"] {
        other.kms_secret(name, "app/text", json!({})).await;
    }
    for name in ["a", "b", "c", "d", "e"] {
        other.until_synced(name).await;
    }
}

/// Syncs that ended in anything but success.
async fn failures(operator: &Operator) -> u64 {
    let name = "kms_secret_operator_syncs_total";
    operator.counter(name, &[]).await - operator.counter(name, &["reason=\"Synced\""]).await
}

/// Twenty KmsSecrets, `<name>0` to `<name>19`, over secrets of those names.
async fn twenty(world: &World, name: &str) -> Vec<String> {
    let names: Vec<_> = (0..20).map(|n| format!("{name}{n}")).collect();
    for name in &names {
        world.kms.put_generic(name, &format!("value of {name}"));
    }
    let made = names
        .iter()
        .map(|name| world.kms_secret(name, name, json!({})));
    futures::future::join_all(made).await;
    names
}

async fn until_right(world: &World, names: &[String]) {
    for name in names {
        world
            .until_text(name, "value", &format!("value of {name}"))
            .await;
    }
}

#[tokio::test]
async fn an_answer_to_a_batch_that_is_not_to_the_question_reaches_nobody() {
    let value = |name: &str, data: &str| json!({"SecretName": name, "SecretData": data, "VersionId": "v1", "VersionStages": {"VersionStage": ["ACSCurrent"]}});
    let faults = [
        // Of a secret that nobody asked for, and the same one twice.
        Fault::patch(
            &json!({"SecretValues": [value("other/db", "planted"), value("a0", "planted"), value("a0", "planted too")]}),
        ),
        // Another version, and a value and an error of one secret.
        Fault::patch(&json!({
            "SecretValues": [value("b1", "planted"), {"SecretName": "b2", "SecretData": "planted", "VersionStages": ["ACSPrevious"]}],
            "Errors": [{"SecretName": "b1", "Code": "Forbidden.ResourceNotFound", "HttpStatus": 404}],
        })),
        Fault::patch(&json!({"SecretValues": {}, "Errors": "none"})),
        Fault::new(Effect::GarbageBody),
        Fault::new(Effect::Empty),
        // What concerns one of them is not what the others are told.
        Fault::code("Forbidden.NoPermission"),
        Fault::code("Forbidden.ResourceNotFound"),
        Fault::code("Rejected.Disabled"),
        Fault::code("Forbidden.DKMSInstanceStateInvalid"),
        Fault::code("Forbidden.InDebt"),
    ];
    for (fault, name) in faults.into_iter().zip('a'..) {
        let world = World::new().await;
        world.kms.fault(fault.on_action("BatchGetSecretValue"));
        let names = twenty(&world, &name.to_string()).await;
        let operator = world.operator().await;
        until_right(&world, &names).await;
        assert!(world.kms.count("BatchGetSecretValue") > 0, "{name}");
        assert_eq!(failures(&operator).await, 0, "{name}");
    }
}

#[tokio::test]
async fn secrets_that_make_a_batch_too_large_spoil_it_for_nobody() {
    let world = World::new().await;
    let names = twenty(&world, "n").await;
    // As JSON, each is twice as long.
    for name in &names[1..] {
        world.kms.put_generic(name, &"\"".repeat(30 << 10));
    }
    let operator = world.operator().await;
    until_right(&world, &names[..1]).await;
    for name in &names {
        world.until_synced(name).await;
    }
    assert!(world.kms.count("BatchGetSecretValue") > 0);
    assert_eq!(failures(&operator).await, 0);
}
