//! The status of a store: ready only when its credentials were really exchanged.

use kms_emulator::{Effect, Fault};
use kms_secret_operator::api::kms_store::KmsStoreStatus;
use kms_secret_operator::api::{ClusterKmsStore, KmsStore};
use kube::Api;
use serde_json::json;

use crate::world::{KEY_ID, KEY_SECRET, World, a_while, eventually};

/// Value, reason and message of `Ready`.
fn ready(status: Option<&KmsStoreStatus>) -> Option<(&str, &str, &str)> {
    let conditions = &status?.conditions;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    Some((&ready.status, &ready.reason, &ready.message))
}

async fn until(world: &World, name: &str, value: &str, reason: &str) -> KmsStore {
    eventually(&format!("store {name} is {value} {reason}"), async || {
        let store = world.api::<KmsStore>().get(name).await.unwrap();
        let status = store.status.as_ref()?;
        let seen = status.observed_generation == store.metadata.generation;
        let (is, why, _) = ready(Some(status))?;
        (seen && is == value && why == reason).then_some(store)
    })
    .await
}

fn identities(world: &World) -> usize {
    world.kms.count("GetCallerIdentity")
}

#[tokio::test]
async fn a_store_is_ready_when_its_credentials_were_exchanged_and_says_whose_they_are() {
    let world = World::new().await;
    world.credentials("wrong", KEY_ID, "wrong").await;
    world.store("wrong", "wrong", json!({})).await;
    world.store("missing", "nowhere", json!({})).await;
    world
        .store(
            "elsewhere",
            "wrong",
            json!({"endpoint": "http://127.0.0.1:1"}),
        )
        .await;
    let chain = json!([{"roleArn": "acs:ram::1234567890123456:role/reader"}]);
    world
        .store("chained", "kms-credentials", json!({"assumeRole": chain}))
        .await;
    let operator = world.operator().await;

    let good = until(&world, "prod", "True", "Authenticated").await;
    let identity = good.status.unwrap().identity.unwrap();
    assert!(
        identity.starts_with("acs:ram::1234567890123456:"),
        "{identity}"
    );
    let chained = until(&world, "chained", "True", "Authenticated").await;
    let identity = chained.status.unwrap().identity.unwrap();
    assert!(identity.contains("assumed-role/reader"), "{identity}");
    until(&world, "missing", "False", "CredentialsNotFound").await;
    until(&world, "elsewhere", "False", "StoreInvalid").await;
    let wrong = until(&world, "wrong", "False", "CredentialsInvalid").await;
    let message = ready(wrong.status.as_ref()).unwrap().2;
    assert!(
        message.contains("STS") && message.contains("\"wrong\""),
        "{message}"
    );
    assert_eq!(wrong.status.as_ref().unwrap().identity, None);

    world.credentials("wrong", KEY_ID, KEY_SECRET).await;
    until(&world, "wrong", "True", "Authenticated").await;
    eventually("both turns are told", async || {
        let events = world.events().await;
        let told = |reason: &str| {
            events.iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event
                        .regarding
                        .as_ref()
                        .is_some_and(|about| about.kind.as_deref() == Some("KmsStore"))
            })
        };
        (told("CredentialsInvalid") && told("Authenticated")).then_some(())
    })
    .await;

    // Nothing is exchanged to tell it again: not after a restart, and not for an edit of the pace.
    operator.stop().await;
    world.kms.reset_calls();
    let operator = world.operator().await;
    world
        .store("prod", "kms-credentials", json!({"requestsPerSecond": 7}))
        .await;
    until(&world, "prod", "True", "Authenticated").await;
    a_while().await;
    assert_eq!(identities(&world), 0);
    assert_eq!(
        operator
            .counter(
                "kms_secret_operator_apiserver_requests_total",
                &["kmsstores/status"]
            )
            .await,
        1
    );
}

#[tokio::test]
async fn what_kms_says_of_the_account_is_the_store_s_to_tell() {
    let (world, _operator) = World::synced("one").await;
    until(&world, "prod", "True", "Authenticated").await;
    let debt = world
        .kms
        .fault(Fault::code("Forbidden.InDebt").on_action("GetSecretValue"));
    world.force("text").await;
    until(&world, "prod", "False", "AccountUnavailable").await;
    a_while().await;
    until(&world, "prod", "False", "AccountUnavailable").await;
    world.kms.clear_fault(debt);
    world.force("text").await;
    until(&world, "prod", "True", "Authenticated").await;
}

#[tokio::test]
async fn a_store_works_without_sts_where_its_credentials_need_no_exchange() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let down = world
        .kms
        .fault(Fault::new(Effect::BadGateway).on_action("GetCallerIdentity"));
    let _operator = world.operator().await;
    until(&world, "prod", "False", "IdentityUnavailable").await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    let store = until(&world, "prod", "True", "Authenticated").await;
    assert_eq!(store.status.as_ref().unwrap().identity, None);
    assert!(ready(store.status.as_ref()).unwrap().2.contains("STS"));
    world.kms.clear_fault(down);
}

#[tokio::test]
async fn a_cluster_store_tells_it_too() {
    let world = World::alone().await;
    let spec = json!({
        "region": "cn-hangzhou",
        "endpoint": world.kms.origin(),
        "auth": {"accessKey": {"secretRef": {"namespace": world.namespace, "name": "kms-credentials"}}},
        "namespaces": {"names": ["shop"]},
    });
    world
        .apply_cluster::<ClusterKmsStore>(json!({"spec": spec}))
        .await;
    let _operator = world.operator_of(&[]).await;
    let api = Api::<ClusterKmsStore>::all(world.client.clone());
    eventually("the cluster store is ready", async || {
        let store = api.get(&world.namespace).await.unwrap();
        let status = store.status.as_ref()?;
        (ready(Some(status))?.0 == "True" && status.identity.is_some()).then_some(())
    })
    .await;
}
