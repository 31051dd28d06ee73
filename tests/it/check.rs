//! `kms-secret-operator check`: what could be read, asked without reading a value.

use clap::Parser as _;
use kms_secret_operator::api::ClusterKmsStore;
use kms_secret_operator::api::KmsSecret;
use kms_secret_operator::config::{Cli, Command, Plugin};
use kms_secret_operator::controller::Checked;
use serde_json::json;

use crate::world::{KEY_ID, World};

/// Checks as somebody at a command line does.
async fn check(world: &World, names: &[&str]) -> Vec<Checked> {
    let origin = world.kms.origin();
    let words = [
        "kms-secret-operator",
        "check",
        "-n",
        &world.namespace,
        "--allow-endpoint",
        &origin,
    ];
    let cli = Cli::try_parse_from(words.iter().chain(names)).unwrap();
    let Command::Plugin(Plugin::Check(check)) = cli.command else {
        unreachable!()
    };
    kms_secret_operator::check(*check, world.cluster.client().await)
        .await
        .unwrap()
}

fn reason(checked: &Checked) -> &'static str {
    checked
        .result
        .as_ref()
        .map_or_else(|failure| failure.reason.as_str(), |()| "allowed")
}

#[tokio::test]
async fn it_tells_what_could_be_read_and_reads_nothing() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "top-secret-value");
    world.kms.put_generic("app/denied", "x");
    world.kms.deny("*", "app/denied");
    world.credentials("wrong", KEY_ID, "wrong").await;
    world.store("broken", "wrong", json!({})).await;
    world.kms_secret("good", "app/text", json!({})).await;
    world
        .kms_secret(
            "stopped",
            "app/text",
            json!({"storeRef": {"name": "broken"}}),
        )
        .await;
    let several = json!({
        "storeRef": {"name": "prod"},
        "sources": [{"name": "a", "secretName": "app/denied"}, {"name": "b", "secretName": "app/nowhere"}],
        "data": [{"key": "a", "source": "a"}, {"key": "b", "source": "b"}],
    });
    world
        .apply::<KmsSecret>("several", json!({"spec": several}))
        .await;

    let checked = check(&world, &[]).await;
    let told: Vec<_> = checked
        .iter()
        .map(|one| (one.object.as_str(), one.source.as_str(), reason(one)))
        .collect();
    assert_eq!(
        told,
        [
            ("good", "source", "allowed"),
            ("several", "a", "AccessDenied"),
            ("several", "b", "RequestRejected"),
            ("stopped", "source", "CredentialsInvalid"),
        ]
    );
    let denied = checked[1].result.as_ref().unwrap_err().message();
    assert!(denied.contains("kms:GetSecretValue"), "{denied}");
    assert_eq!(check(&world, &["good"]).await.len(), 1);
    let reads = world
        .kms
        .count_where(|call| call.outcome == "OK" && call.action == "GetSecretValue");
    assert_eq!(reads, 0, "no value was answered");
    assert!(world.secret("good").await.is_none());
}

#[tokio::test]
async fn a_gateway_that_does_not_know_dry_runs_answers_a_value_that_goes_nowhere() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "top-secret-value");
    world
        .kms
        .fault(kms_emulator::Fault::patch(&json!({})).on_action("GetSecretValue"));
    world.kms_secret("good", "app/text", json!({})).await;
    let checked = check(&world, &["good"]).await;
    assert_eq!(reason(&checked[0]), "allowed");
    assert!(!format!("{checked:?}").contains("top-secret-value"));
}

#[tokio::test]
async fn a_check_keeps_to_what_the_store_allows() {
    let world = World::alone().await;
    world.kms.put_generic("other/db", "x");
    let spec = json!({
        "region": "cn-hangzhou",
        "endpoint": world.kms.origin(),
        "auth": {"accessKey": {"secretRef": {"namespace": world.namespace, "name": "kms-credentials"}}},
        "namespaces": {"names": [world.namespace]},
    });
    world
        .apply_cluster::<ClusterKmsStore>(json!({"spec": spec}))
        .await;
    let store = json!({"storeRef": {"name": world.namespace, "kind": "ClusterKmsStore"}});
    world.kms_secret("theirs", "other/db", store).await;
    let checked = check(&world, &["theirs"]).await;
    assert_eq!(reason(&checked[0]), "NotAllowed");
    assert_eq!(world.kms.calls().len(), 0);
}
