//! What dies in the middle of its work leaves nothing behind that whoever comes next does not make good.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::jiff::SignedDuration;
use kms_emulator::{Managed, Readable};
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::gate::{Fate, Gate};
use crate::witness::Witness;
use crate::world::{Operator, World, eventually};

#[tokio::test]
async fn what_could_not_be_removed_after_a_rename_is_removed_by_whoever_comes_next() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "hello");
    let gate = Gate::new(|asked| match asked.method.as_str() {
        "DELETE" if asked.path.contains("/secrets/") => Fate::Refused(500),
        _ => Fate::Pass,
    });
    let client = world.cluster.client_behind(&gate).await;
    let flags = ["--namespace", world.namespace.as_str()];
    let first = world.operator_by(client, &flags, |_| ()).await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    let spec = json!({"target": {"name": "renamed"}});
    world.kms_secret("text", "app/text", spec).await;
    world.until_synced("text").await;
    eventually("it is told", async || {
        let events = world.events().await;
        let told = |reason: &str| {
            events
                .iter()
                .any(|event| event.reason.as_deref() == Some(reason))
        };
        told("OldTargetLeft").then_some(())
    })
    .await;
    assert!(world.secret("text").await.is_some());
    first.kill();
    let before = world.object("text").await.resource_version();
    let calls = world.kms.count("GetSecretValue");
    let _second = world.rival().await;
    eventually("the old one is gone", async || {
        world.secret("text").await.is_none().then_some(())
    })
    .await;
    assert_eq!(
        world.kms.count("GetSecretValue"),
        calls,
        "nothing was read for it"
    );
    assert_eq!(world.object("text").await.resource_version(), before);
}

/// Starts a replica that knows the others.
async fn replica(world: &World) -> Operator {
    let flags = ["--namespace", world.namespace.as_str()];
    let client = world.cluster.client().await;
    world.operator_by(client, &flags, |_| ()).await
}

/// The passwords that a secret ever had, oldest first.
fn passwords(world: &World, name: &str) -> Vec<String> {
    let history = world.kms.history(name).into_iter();
    let password = |readable: Readable| -> String {
        let value: Value = serde_json::from_str(&readable.value).unwrap();
        value["AccountPassword"].as_str().unwrap().to_owned()
    };
    history.map(password).collect()
}

#[tokio::test]
async fn either_of_two_replicas_may_die_at_any_moment_of_a_rotation_of_500() {
    const SECRETS: usize = 500;
    const EVERY: Duration = Duration::from_secs(40);
    let world = World::new().await;
    world
        .store(
            "prod",
            "kms-credentials",
            json!({"requestsPerSecond": 10_000}),
        )
        .await;
    let first = world.kms.now() + SignedDuration::from_secs(30);
    let names: Vec<String> = (0..SECRETS).map(|n| format!("db{n}")).collect();
    for name in &names {
        world
            .kms
            .put_managed(name, Managed::rds(EVERY).first(first));
    }
    let spec = || json!({"data": [{"key": "password", "path": "AccountPassword"}]});
    let made = names
        .iter()
        .map(|name| world.kms_secret(name, name, spec()));
    futures::stream::iter(made)
        .buffer_unordered(16)
        .count()
        .await;
    let witness = Witness::of(&world).await;
    let mut replicas = vec![replica(&world).await, replica(&world).await];
    let current = async || -> usize {
        let secrets = world
            .api::<Secret>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let is_current = |secret: &Secret| {
            let password = secret.data.as_ref()?.get("password")?;
            let newest = passwords(&world, &secret.name_any()).pop()?;
            (password.0 == newest.into_bytes()).then_some(())
        };
        secrets.iter().filter_map(is_current).count()
    };
    let until_all = async || {
        eventually("every Secret is current", async || {
            (current().await == SECRETS).then_some(())
        })
        .await;
    };
    until_all().await;
    // When so many Secrets have followed, that one dies.
    for (followed, victim) in [(1, 0), (SECRETS / 2, 1), (SECRETS * 9 / 10, 0)] {
        eventually("they rotate", async || {
            (current().await < SECRETS / 10).then_some(())
        })
        .await;
        eventually("some have followed", async || {
            (current().await >= followed).then_some(())
        })
        .await;
        replicas.remove(victim).kill();
        until_all().await;
        replicas.insert(victim, replica(&world).await);
    }
    let states = witness.states(&world).await;
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (name, data) in states.iter().filter(|(name, _)| name.starts_with("db")) {
        let data = data.as_ref().expect("no Secret is ever absent");
        let keys: Vec<&String> = data.keys().collect();
        assert_eq!(keys, ["password"], "{name}");
        let passwords = passwords(&world, name);
        let index = passwords
            .iter()
            .position(|password| *password == data["password"]);
        let index = index.expect("a password that KMS had");
        let before = last.insert(name, index).unwrap_or(0);
        assert!(before <= index, "{name} went from {before} to {index}");
    }
    assert_eq!(last.len(), SECRETS);
}
