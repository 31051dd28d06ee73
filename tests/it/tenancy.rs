//! One store for many namespaces: who may use it, and for what.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kms_secret_operator::api::{ClusterKmsStore, KmsSecret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::{World, a_while, condition, eventually};

async fn cluster_store(world: &World, more: Value) {
    let mut spec = json!({
        "region": "cn-hangzhou",
        "endpoint": world.kms.origin(),
        "auth": {"accessKey": {"secretRef": {"namespace": world.namespace, "name": "kms-credentials"}}},
    });
    let fields = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    world
        .apply_cluster::<ClusterKmsStore>(json!({"spec": spec}))
        .await;
}

/// A KmsSecret in a tenant's namespace.
async fn tenant_secret(world: &World, namespace: &str, name: &str, secret_name: &str) {
    let manifest = json!({
        "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "metadata": {"name": name},
        "spec": {"storeRef": {"name": world.namespace, "kind": "ClusterKmsStore"}, "source": {"secretName": secret_name}},
    });
    let api = Api::<KmsSecret>::namespaced(world.client.clone(), namespace);
    api.patch(
        name,
        &PatchParams::apply("user").force(),
        &Patch::Apply(&manifest),
    )
    .await
    .unwrap();
}

async fn until(world: &World, namespace: &str, name: &str, reason: &str) -> KmsSecret {
    let api = Api::<KmsSecret>::namespaced(world.client.clone(), namespace);
    eventually(&format!("{namespace}/{name} is {reason}"), async || {
        let object = api.get(name).await.unwrap();
        let seen = object.status.as_ref()?.observed_generation == object.metadata.generation;
        (seen && condition(&object, "Ready")?.1 == reason).then_some(object)
    })
    .await
}

async fn namespace(world: &World, name: &str, labels: Value) {
    let space: Namespace =
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
    Api::<Namespace>::all(world.client.clone())
        .create(&PostParams::default(), &space)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cluster_store_serves_whom_it_names_for_what_it_names() {
    let world = World::alone().await;
    for name in ["shop/db", "other/db", "shared/ca", "acs/ram/user/x"] {
        world.kms.put_generic(name, name);
    }
    cluster_store(
        &world,
        json!({"namespaces": {"names": ["shop"], "selector": {"matchLabels": {"team": "a"}}}}),
    )
    .await;
    namespace(&world, "shop", json!({})).await;
    namespace(&world, "other", json!({})).await;
    let _operator = world.operator_of(&[]).await;

    tenant_secret(&world, "shop", "db", "shop/db").await;
    until(&world, "shop", "db", "Synced").await;
    for (name, secret_name) in [
        ("other", "other/db"),
        ("shared", "shared/ca"),
        ("ram", "acs/ram/user/x"),
        ("arn", "acs:kms:cn-hangzhou:1234567890123456:secret/shop/db"),
        ("dots", "shop/../other/db"),
    ] {
        tenant_secret(&world, "shop", name, secret_name).await;
        until(&world, "shop", name, "NotAllowed").await;
    }
    tenant_secret(&world, "other", "db", "other/db").await;
    until(&world, "other", "db", "NotAllowed").await;
    let read = world.kms.calls();
    assert!(
        read.iter()
            .filter_map(|call| call.secret.as_deref())
            .all(|name| name == "shop/db"),
        "nothing else was asked for"
    );

    // A label gives access at once, and takes it without a call and without harm.
    let spaces = Api::<Namespace>::all(world.client.clone());
    let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {"team": value}}}));
    spaces
        .patch("other", &PatchParams::default(), &label(json!("a")))
        .await
        .unwrap();
    until(&world, "other", "db", "Synced").await;
    world.kms.reset_calls();
    spaces
        .patch("other", &PatchParams::default(), &label(json!(null)))
        .await
        .unwrap();
    until(&world, "other", "db", "NotAllowed").await;
    a_while().await;
    assert_eq!(world.kms.count("GetSecretValue"), 0);
    let secrets =
        Api::<k8s_openapi::api::core::v1::Secret>::namespaced(world.client.clone(), "other");
    assert!(
        secrets.get_opt("db").await.unwrap().is_some(),
        "the Secret stays"
    );

    let patterns = json!([
        "${namespace}/*",
        "shared/*",
        "acs/ram/user/*",
        "acs:kms:*:1234567890123456:secret/${namespace}/**"
    ]);
    cluster_store(
        &world,
        json!({"namespaces": {"names": ["shop"]}, "secretNames": patterns}),
    )
    .await;
    for name in ["shared", "ram", "arn"] {
        until(&world, "shop", name, "Synced").await;
    }
    until(&world, "shop", "other", "NotAllowed").await;
}

#[tokio::test]
async fn an_operator_of_one_namespace_serves_no_cluster_store() {
    let world = World::new().await;
    let _operator = world.operator().await;
    world
        .kms_secret(
            "text",
            "app/text",
            json!({"storeRef": {"kind": "ClusterKmsStore"}}),
        )
        .await;
    let object = world.until_ready("text", "False", "StoreNotFound").await;
    assert!(
        condition(&object, "Ready")
            .unwrap()
            .2
            .contains("--namespace")
    );
}

#[tokio::test]
async fn the_api_server_refuses_a_cluster_store_that_would_serve_everybody() {
    let world = World::new().await;
    let auth = json!({"accessKey": {"secretRef": {"namespace": "a", "name": "b"}}});
    for (namespaces, expected) in [
        (json!({}), "needs names or a selector"),
        (json!({"selector": {"matchLabels": {}}}), "every namespace"),
        (json!({"names": []}), "at least 1"),
    ] {
        let manifest = json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "ClusterKmsStore", "metadata": {"name": "probe"},
            "spec": {"region": "cn-hangzhou", "auth": auth, "namespaces": namespaces},
        });
        let api = Api::<ClusterKmsStore>::all(world.client.clone());
        let params = PatchParams::apply("user").dry_run();
        let said = api
            .patch("probe", &params, &Patch::Apply(&manifest))
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains(expected), "{said}");
    }
    tokio::time::sleep(Duration::ZERO).await;
}
