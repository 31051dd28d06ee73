//! A tenant, or a network, that means harm: each test tries to get around a rule, and nothing comes of it.

use futures::StreamExt as _;
use serde_json::json;

use crate::world::{World, eventually};

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
