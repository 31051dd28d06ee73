//! The way of docs/migration.md: a Secret of another operator becomes ours, without a moment of its absence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_secret_of_another_operator_is_taken_over_in_place() {
    let world = World::new().await;
    world.kms.put_generic("shop/orders-db", "the value");
    // It stands for the ExternalSecret, which owns the Secret.
    let old = world.apply::<ConfigMap>("orders-db", json!({})).await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "orders-db", "uid": old.uid(), "controller": true});
    let manifest = json!({
        "metadata": {"ownerReferences": [owner]},
        "stringData": {"value": "the value", "leftover": "of the other operator"},
    });
    let before = world.apply::<Secret>("orders-db", manifest).await;
    let _operator = world.operator().await;

    let done = Arc::new(AtomicBool::new(false));
    let watching = {
        let (api, done) = (world.api::<Secret>(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                let secret = api.get_opt("orders-db").await.unwrap();
                let data = secret.expect("it is never absent").data.unwrap_or_default();
                assert_eq!(data["value"].0, b"the value", "nor without its value");
                looks += 1;
            }
            looks
        })
    };

    let adopt = json!({"target": {"adopt": "IfUnowned"}});
    world.kms_secret("orders-db", "shop/orders-db", adopt).await;
    world
        .until_ready("orders-db", "False", "TargetOwnedByOther")
        .await;
    let consent = json!({"metadata": {"annotations": {"alikms.dev/allow": "orders-db"}, "ownerReferences": null}});
    world.patch::<Secret>("orders-db", consent).await;
    world.until_synced("orders-db").await;
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    let old = world.api::<ConfigMap>();
    old.delete("orders-db", &orphan).await.unwrap();
    world.kms.put_generic("shop/another", "x");
    world.kms_secret("another", "shop/another", json!({})).await;
    world.until_synced("another").await;
    done.store(true, Ordering::Relaxed);

    assert!(watching.await.unwrap() > 3);
    let after = world.secret("orders-db").await.unwrap();
    assert_eq!(after.uid(), before.uid());
    let owners: Vec<_> = after
        .owner_references()
        .iter()
        .map(|owner| &owner.kind)
        .collect();
    assert_eq!(owners, ["KmsSecret"]);
    assert_eq!(world.data("orders-db").await.len(), 1, "the keys are ours");
}
