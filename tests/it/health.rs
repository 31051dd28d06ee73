//! What the operator says of its own health, as Kubernetes asks it.

use serde_json::json;

use crate::world::{World, eventually};

#[tokio::test]
async fn an_operator_that_is_asked_to_stop_says_so_until_its_work_is_done() {
    let (world, operator) = World::synced("one").await;
    assert_eq!(operator.get("healthz").await, "ok");
    let hold = world.kms.hold("app/text");
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    hold.until_waiting(1).await;
    let url = operator.url("readyz");
    let stopping = tokio::spawn(operator.stop());
    let answer = eventually("it is stopping", async || {
        let answer = reqwest::get(&url).await.ok()?;
        let status = answer.status();
        (answer.text().await.ok()? == "stopping").then_some(status)
    })
    .await;
    assert_eq!(answer, 503);
    hold.release();
    stopping.await.unwrap();
    assert_eq!(world.text("text", "value").await.unwrap(), "two");
    assert!(reqwest::get(&url).await.is_err(), "it has ended");
}

#[tokio::test]
async fn an_operator_whose_kms_does_not_answer_and_whose_lease_is_lost_does_not_hang() {
    let world = World::new().await;
    let client = world.with_rights_of_the_example().await;
    let own = &world.namespace;
    let flags = ["--namespace", own, "--lease-namespace", own];
    let operator = world.operator_by(client, &flags, |_| ()).await;
    world.kms.put_generic("app/text", "one");
    let _hold = world.kms.hold("app/text");
    world.kms_secret("text", "app/text", json!({})).await;
    world
        .delete::<k8s_openapi::api::rbac::v1::RoleBinding>("leases")
        .await;
    operator.until_members(0).await;
    assert_ne!(operator.get("readyz").await, "ok");
    assert_eq!(operator.get("healthz").await, "ok");
}
