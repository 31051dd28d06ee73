//! Several sources in one Secret: written together, of one moment, or not at all.

use std::time::Duration;

use kms_emulator::{Managed, Reads};
use kms_secret_operator::api::KmsSecret;
use serde_json::{Value, json};

use crate::world::{World, a_while, condition, eventually};

const DAY: Duration = Duration::from_secs(86_400);

/// Both versions of a managed secret, the password of each under a key of its own.
async fn pair(world: &World, name: &str, secret_name: &str) {
    let spec = json!({
        "storeRef": {"name": "prod"},
        "sources": [
            {"name": "previous", "secretName": secret_name, "versionStage": "ACSPrevious", "optional": true},
            {"name": "current", "secretName": secret_name},
        ],
        "data": [
            {"key": "now", "source": "current", "path": "AccountPassword"},
            {"key": "before", "source": "previous", "path": "AccountPassword"},
        ],
    });
    world.apply::<KmsSecret>(name, json!({"spec": spec})).await;
}

/// The passwords that KMS has had, oldest first.
fn passwords(world: &World, secret_name: &str) -> Vec<String> {
    let history = world.kms.history(secret_name);
    let password = |value: &str| {
        let value: Value = serde_json::from_str(value).unwrap();
        value["AccountPassword"].as_str().unwrap().to_owned()
    };
    history.iter().map(|held| password(&held.value)).collect()
}

async fn until_pair(world: &World, name: &str, now: &str, before: Option<&str>) {
    eventually("the Secret holds the pair", async || {
        let (is, was) = (
            world.text(name, "now").await,
            world.text(name, "before").await,
        );
        (is.as_deref() == Some(now) && was.as_deref() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_previous_version_joins_at_the_first_rotation_and_follows() {
    let world = World::new().await;
    world.kms.put_managed("app/db", Managed::rds(DAY));
    let _operator = world.operator().await;
    pair(&world, "db", "app/db").await;
    let object = world.until_synced("db").await;
    let first = passwords(&world, "app/db");
    until_pair(&world, "db", &first[0], None).await;
    let told: Vec<_> = object.status.unwrap().sources;
    assert_eq!(
        told.iter()
            .map(|source| source.name.as_str())
            .collect::<Vec<_>>(),
        ["current"]
    );

    world.kms.rotate("app/db").unwrap();
    world.force("db").await;
    let object = world.until_synced("db").await;
    let all = passwords(&world, "app/db");
    until_pair(&world, "db", &all[1], Some(&all[0])).await;
    let names: Vec<_> = object
        .status
        .unwrap()
        .sources
        .into_iter()
        .map(|source| source.name)
        .collect();
    assert_eq!(names, ["previous", "current"], "in the order of the spec");
}

#[tokio::test]
async fn a_rotation_between_two_reads_never_makes_a_pair_of_one_version() {
    let world = World::new().await;
    world.kms.put_managed("app/db", Managed::rds(DAY));
    world.kms.rotate("app/db").unwrap();
    let hold = world.kms.hold_reading("app/db", Reads::AtRelease);
    let _operator = world.operator().await;
    pair(&world, "db", "app/db").await;
    hold.until_waiting(1).await;
    hold.release_one();
    eventually(
        "the current version was answered, and the other asked for",
        async || (world.kms.count_reads("app/db") == 2).then_some(()),
    )
    .await;
    world.kms.rotate("app/db").unwrap();
    drop(hold);
    world.until_synced("db").await;
    let all = passwords(&world, "app/db");
    until_pair(&world, "db", &all[2], Some(&all[1])).await;
    assert_eq!(world.kms.count_reads("app/db"), 4, "both were read again");
}

#[tokio::test]
async fn one_source_that_fails_leaves_the_secret_as_it_is() {
    let world = World::new().await;
    world.kms.put_generic("app/a", "a1");
    world.kms.put_generic("app/b", "b1");
    let _operator = world.operator().await;
    let spec = json!({
        "storeRef": {"name": "prod"},
        "sources": [{"name": "a", "secretName": "app/a"}, {"name": "b", "secretName": "app/b", "optional": true}],
        "data": [{"key": "a", "source": "a"}, {"key": "b", "source": "b"}],
    });
    world.apply::<KmsSecret>("ab", json!({"spec": spec})).await;
    world.until_synced("ab").await;
    world.kms.put_generic("app/b", "b2");
    assert!(world.kms.delete("app/a"));
    world.force("ab").await;
    let object = world.until_ready("ab", "False", "SecretNotFound").await;
    assert!(condition(&object, "Ready").unwrap().2.contains("app/a"));
    a_while().await;
    assert_eq!(world.text("ab", "a").await.as_deref(), Some("a1"));
    assert_eq!(world.text("ab", "b").await.as_deref(), Some("b1"));

    // Optional means that it need not exist, and nothing else.
    world.kms.put_generic("app/a", "a2");
    world.kms.deny("*", "app/b");
    world.force("ab").await;
    world.until_ready("ab", "False", "AccessDenied").await;
    assert_eq!(world.text("ab", "a").await.as_deref(), Some("a1"));
}

#[tokio::test]
async fn a_secret_of_another_region_is_refused_without_a_call() {
    let world = World::new().await;
    let _operator = world.operator().await;
    let arn = "acs:kms:cn-beijing:1234567890123456:secret/app/text";
    world.kms_secret("far", arn, json!({})).await;
    let object = world.until_ready("far", "False", "SpecInvalid").await;
    let message = condition(&object, "Ready").unwrap().2;
    assert!(
        message.contains("cn-beijing") && message.contains("cn-hangzhou"),
        "{message}"
    );
    assert_eq!(world.kms.reads().len(), 0);
}

#[tokio::test]
async fn another_accounts_secret_is_read_by_its_arn() {
    let world = World::new().await;
    let arn = "acs:kms:cn-hangzhou:6543210987654321:secret/app/text";
    world.kms.put_generic(arn, "theirs");
    world.kms.put_generic("app/text", "ours");
    let _operator = world.operator().await;
    let spec = json!({
        "storeRef": {"name": "prod"},
        "sources": [{"name": "ours", "secretName": "app/text"}, {"name": "theirs", "secretName": arn}],
        "data": [{"key": "ours", "source": "ours"}, {"key": "theirs", "source": "theirs"}],
    });
    world.apply::<KmsSecret>("two", json!({"spec": spec})).await;
    world.until_synced("two").await;
    assert_eq!(world.text("two", "ours").await.as_deref(), Some("ours"));
    assert_eq!(world.text("two", "theirs").await.as_deref(), Some("theirs"));
}
