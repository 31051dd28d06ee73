//! A KMS instance behind an authority of its own: trusted where the store says so, and nowhere else.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use crate::world::{KEY_ID, KEY_SECRET, World, a_while, condition, eventually};

#[tokio::test]
async fn a_private_authority_is_trusted_where_the_store_says_so_and_nowhere_else() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let other = kms_emulator::Emulator::start(kms_emulator::Options::default())
        .await
        .unwrap();
    let (https, plain) = (world.kms.https_origin(), world.kms.origin());
    for (name, more) in [
        (
            "right",
            json!({"endpoint": https, "caBundle": world.kms.ca_pem()}),
        ),
        (
            "wrong",
            json!({"endpoint": https, "caBundle": other.ca_pem()}),
        ),
        ("none", json!({"endpoint": https})),
        (
            "broken",
            json!({"endpoint": https, "caBundle": "-----BEGIN CERTIFICATE-----"}),
        ),
        ("plain", json!({"endpoint": plain})),
    ] {
        world.store(name, "kms-credentials", more).await;
    }
    let _operator = world.operator_with(&["--allow-endpoint", &https]).await;
    for name in ["right", "wrong", "none", "broken", "plain"] {
        world
            .kms_secret(name, "app/text", json!({"storeRef": {"name": name}}))
            .await;
    }
    world.until_synced("right").await;
    world.until_synced("plain").await;
    for name in ["wrong", "none"] {
        let object = world.until_ready(name, "False", "KmsUnavailable").await;
        assert!(
            condition(&object, "Ready").unwrap().2.contains("caBundle"),
            "{name}"
        );
    }
    world.until_ready("broken", "False", "StoreInvalid").await;
    assert_eq!(
        world.kms.count("GetSecretValue"),
        2,
        "nobody else got through"
    );
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let world = World::new().await;
    let here = std::net::TcpListener::bind("127.0.0.2:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let options = kms_emulator::Options {
        https_listen: here,
        ..kms_emulator::Options::default()
    };
    let elsewhere = kms_emulator::Emulator::start(options).await.unwrap();
    elsewhere.add_access_key(KEY_ID, KEY_SECRET);
    elsewhere.put_generic("app/text", "one");
    let origin = elsewhere.https_origin();
    world
        .store(
            "prod",
            "kms-credentials",
            json!({"endpoint": origin, "caBundle": elsewhere.ca_pem()}),
        )
        .await;
    let _operator = world.operator_with(&["--allow-endpoint", &origin]).await;
    world.kms_secret("text", "app/text", json!({})).await;
    let object = world.until_ready("text", "False", "KmsUnavailable").await;
    assert!(
        condition(&object, "Ready")
            .unwrap()
            .2
            .contains("certificate")
    );
}

async fn bundle(world: &World, labels: Value, key: &str, pem: &str) {
    let manifest = json!({"metadata": {"labels": labels}, "data": {key: pem}});
    world.apply::<ConfigMap>("kms-ca", manifest).await;
}

#[tokio::test]
async fn certificates_out_of_a_config_map_are_followed() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let https = world.kms.https_origin();
    let stranger = kms_emulator::Emulator::start(kms_emulator::Options::default())
        .await
        .unwrap();
    let spec = json!({"endpoint": https, "caBundleRef": {"name": "kms-ca", "key": "root.pem"}});
    world.store("prod", "kms-credentials", spec).await;
    let _operator = world.operator_with(&["--allow-endpoint", &https]).await;
    let told = async |part: &str| {
        let object = world.until_ready("text", "False", "StoreInvalid").await;
        let message = condition(&object, "Ready").unwrap().2;
        message
            .contains(part)
            .then_some(())
            .ok_or(message.to_owned())
    };
    let labelled = json!({"alikms.dev/ca-bundle": "true"});

    world.kms_secret("text", "app/text", json!({})).await;
    let command = format!(
        "kubectl label configmap -n {} kms-ca alikms.dev/ca-bundle=true",
        world.namespace
    );
    told(&command).await.unwrap();
    bundle(&world, json!({}), "root.pem", world.kms.ca_pem()).await;
    a_while().await;
    told(&command).await.unwrap();
    bundle(&world, labelled.clone(), "ca.crt", world.kms.ca_pem()).await;
    eventually("the missing key is told", async || {
        told("root.pem").await.ok()
    })
    .await;

    bundle(&world, labelled.clone(), "root.pem", world.kms.ca_pem()).await;
    world.until_synced("text").await;
    // Another authority: the old connections are not used any more, and the last good value stays.
    bundle(&world, labelled.clone(), "root.pem", stranger.ca_pem()).await;
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    a_while().await;
    assert_eq!(world.text("text", "value").await.as_deref(), Some("one"));
    bundle(&world, labelled, "root.pem", world.kms.ca_pem()).await;
    world.until_text("text", "value", "two").await;
}
