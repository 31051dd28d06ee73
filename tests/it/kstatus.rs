//! What tools make of our objects at each moment: kstatus (Flux, Helm 4, kpt), the health of Argo CD, `kubectl wait`.

use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::Fault;
use kms_secret_operator::api::{KmsSecret, KmsStore};
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::gitops::health;
use crate::helm::helm;
use crate::kubectl::kubectl;
use crate::world::{World, eventually};

/// What kstatus says of an object of a kind that it has no rules of its own for: what its documentation lists, in that order.
fn kstatus(object: &Value) -> &'static str {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    if metadata["deletionTimestamp"].is_string() {
        return "Terminating";
    }
    let observed = &status["observedGeneration"];
    if observed.is_number() && *observed != metadata["generation"] {
        return "InProgress";
    }
    let conditions = || status["conditions"].as_array().into_iter().flatten();
    for condition in conditions().filter(|is| is["status"] == "True") {
        match condition["type"].as_str() {
            Some("Reconciling") => return "InProgress",
            Some("Stalled") => return "Failed",
            _ => {}
        }
    }
    match conditions().find(|is| is["type"] == "Ready") {
        Some(ready) if ready["status"] != "True" => "InProgress",
        _ => "Current",
    }
}

/// Follows the KmsSecret `text` from now until it is gone: what kstatus and Argo CD make of it, each change of that. Whenever
/// the first says Current, the Secret must hold what the spec asks for, or something newer: `app/<n>` holds the text n.
async fn follow(world: &World) -> JoinHandle<Vec<(&'static str, String)>> {
    let (api, secrets) = (world.api::<KmsSecret>(), world.api::<Secret>());
    let params = WatchParams::default().fields("metadata.name=text");
    let events = api.watch(&params, "0").await.unwrap().boxed();
    tokio::spawn(async move {
        let mut events = pin!(events);
        let mut diary = Vec::new();
        while let Some(event) = events.next().await {
            let object = match event.unwrap() {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => object,
                WatchEvent::Deleted(_) => break,
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => panic!("{status:?}"),
            };
            let wanted = number(object.secret_names().next().unwrap());
            let object = serde_json::to_value(&object).unwrap();
            let verdict = kstatus(&object);
            if verdict == "Current" {
                let held = held(&secrets).await;
                assert!(held >= wanted, "{held} instead of {wanted}: {object}");
            }
            diary.push((verdict, health("KmsSecret", &object).0));
        }
        diary.dedup();
        diary
    })
}

fn number(text: &str) -> u64 {
    text.trim_start_matches("app/").parse().unwrap()
}

/// The number that the Secret `text` holds.
async fn held(secrets: &Api<Secret>) -> u64 {
    let secret = secrets.get("text").await.unwrap();
    let value = secret.data.unwrap().remove("value").unwrap().0;
    number(&String::from_utf8(value).unwrap())
}

#[tokio::test]
async fn nothing_calls_a_kms_secret_current_before_its_secret_is() {
    let world = World::new().await;
    for n in 1..=5 {
        world.kms.put_generic(&format!("app/{n}"), &n.to_string());
    }
    world.kms.deny("*", "app/3");
    let diary = follow(&world).await;
    let source = |n: u64| json!({"spec": {"source": {"secretName": format!("app/{n}")}}});
    let change = async |patch: Value| world.patch::<KmsSecret>("text", patch).await;

    world.kms_secret("text", "app/1", json!({})).await;
    change(json!({"metadata": {"finalizers": ["it.example.com/held"]}})).await;
    let _operator = world.operator().await;
    world.until_ready("text", "True", "Synced").await;
    change(source(2)).await;
    world.until_ready("text", "True", "Synced").await;
    change(source(3)).await;
    world.until_ready("text", "False", "AccessDenied").await;
    change(source(4)).await;
    world.until_ready("text", "True", "Synced").await;
    let outage = world.kms.fault(Fault::code("InternalFailure"));
    change(source(5)).await;
    world.until_ready("text", "False", "KmsUnavailable").await;
    world.kms.clear_fault(outage);
    world.until_ready("text", "True", "Synced").await;
    change(json!({"spec": {"suspend": true}})).await;
    world.until_ready("text", "True", "Suspended").await;
    world.delete::<KmsSecret>("text").await;
    change(json!({"metadata": {"finalizers": null}})).await;

    let diary = diary.await.unwrap();
    let told: Vec<_> = diary.iter().map(|(a, b)| (*a, b.as_str())).collect();
    assert_eq!(
        told,
        [
            ("InProgress", "Progressing"), // new
            ("Current", "Healthy"),
            ("InProgress", "Progressing"), // a new spec
            ("Current", "Healthy"),
            ("InProgress", "Progressing"), // one that may not be read
            ("Failed", "Degraded"),
            ("InProgress", "Progressing"), // mended
            ("Current", "Healthy"),
            ("InProgress", "Progressing"), // KMS does not answer
            ("Current", "Healthy"),
            ("InProgress", "Progressing"), // suspended
            ("Current", "Suspended"),
            ("Terminating", "Progressing"),
        ]
    );
}

#[tokio::test]
async fn a_store_is_current_once_its_credentials_were_exchanged() {
    let world = World::new().await;
    let seen = async || {
        let store = world.api::<KmsStore>().get("prod").await.unwrap();
        let store = serde_json::to_value(store).unwrap();
        (kstatus(&store), health("KmsStore", &store).0)
    };
    assert_eq!(seen().await, ("InProgress", "Progressing".to_owned()));
    let _operator = world.operator().await;
    world.settled().await;
    assert_eq!(seen().await, ("Current", "Healthy".to_owned()));
    world.store("prod", "nowhere", json!({})).await;
    eventually("the store tells of it", async || {
        (seen().await.1 == "Degraded").then_some(())
    })
    .await;
    assert_eq!(seen().await.0, "InProgress");
}

#[tokio::test]
async fn kubectl_waits_for_the_spec_that_is_there_now() {
    let (world, _operator) = World::synced("1").await;
    let wait = async |timeout: &str| {
        let words = ["wait", "--for=condition=Ready", "kmssecret/text", timeout];
        kubectl(&world, &words, "").await
    };
    let done = wait("--timeout=60s").await.done();
    assert_eq!(done, "kmssecret.alikms.dev/text condition met\n");
    world.kms.put_generic("app/slow", "2");
    let hold = world.kms.hold("app/slow");
    let slow = json!({"spec": {"source": {"secretName": "app/slow"}}});
    world.patch::<KmsSecret>("text", slow).await;
    let waiting = wait("--timeout=1s").await;
    assert!(waiting.err.contains("timed out"), "{waiting:?}");
    drop(hold);
    wait("--timeout=60s").await.done();
    assert_eq!(world.text("text", "value").await.as_deref(), Some("2"));
}

/// Helm 4 waits by kstatus itself.
#[tokio::test]
async fn helm_waits_for_the_secret() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "there");
    world.kms.put_generic("app/denied", "x");
    world.kms.deny("*", "app/denied");
    let _operator = world.operator().await;
    let folder = std::env::temp_dir().join(format!("kso-chart-{}", world.namespace));
    let install = async |name: &str| {
        let chart = folder.join(name);
        std::fs::create_dir_all(chart.join("templates")).unwrap();
        let about = json!({"apiVersion": "v2", "name": name, "version": "1.0.0"});
        std::fs::write(chart.join("Chart.yaml"), about.to_string()).unwrap();
        let object = json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "metadata": {"name": name},
            "spec": {"storeRef": {"name": "prod"}, "source": {"secretName": format!("app/{name}")}},
        });
        std::fs::write(chart.join("templates/object.yaml"), object.to_string()).unwrap();
        let mut words = vec!["install".to_owned(), name.to_owned()];
        words.push(chart.to_string_lossy().into_owned());
        words.extend(
            [
                "--namespace",
                &world.namespace,
                "--wait",
                "--timeout",
                "20s",
            ]
            .map(Into::into),
        );
        if let Some(kubeconfig) = world.cluster.kubeconfig() {
            words.extend([
                "--kubeconfig".to_owned(),
                kubeconfig.to_string_lossy().into_owned(),
            ]);
        }
        tokio::task::spawn_blocking(move || helm(&words))
            .await
            .unwrap()
    };
    let installed = install("text").await;
    assert!(installed.is_ok(), "{installed:?}");
    let text = world.text("text", "value").await;
    assert_eq!(
        text.as_deref(),
        Some("there"),
        "it was there when Helm was done"
    );
    let refused = install("denied").await.unwrap_err();
    assert!(refused.contains("status: Failed"), "{refused}");
    assert!(refused.contains("may not read \"app/denied\""), "{refused}");
    let _ = std::fs::remove_dir_all(folder);
}
