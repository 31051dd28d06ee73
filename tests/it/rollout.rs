//! Restarts of workloads: once for each change, of those that consent, and nothing else of them changes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kms_secret_operator::api::KmsSecret;
use kms_secret_operator::api::kms_secret::{PendingRestart, WorkloadKind};
use kms_secret_operator::cluster::{Cluster, RestartError};
use kms_secret_operator::sync::rollout::Hindrance;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::docs::read;
use crate::kubectl::kubectl;
use crate::world::{Operator, World, a_while, condition, eventually};

const RESTARTED: &str = "alikms.dev/restarted";

/// The pod template of a workload that mounts the Secret `text`.
fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "it"}},
        "spec": {
            "containers": [{"name": "app", "image": "app"}],
            "volumes": [{"name": "text", "secret": {"secretName": "text"}}],
        },
    })
}

/// A workload that mounts the Secret `text` and consents to being restarted for the KmsSecret `text`.
pub(crate) fn workload() -> Value {
    json!({
        "metadata": {"annotations": {"alikms.dev/restart": "text"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "it"}}, "template": template()},
    })
}

pub(crate) fn restart(names: &[&str]) -> Value {
    let list = names
        .iter()
        .map(|name| json!({"kind": "Deployment", "name": name}));
    json!({"rolloutRestart": list.collect::<Vec<_>>()})
}

/// A synced world whose KmsSecret `text` restarts the Deployment `app`, which is as that manifest says.
async fn with_deployment(manifest: Value) -> (World, Operator) {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    world.apply::<Deployment>("app", manifest).await;
    let operator = world.operator().await;
    world
        .kms_secret("text", "app/text", restart(&["app"]))
        .await;
    world.until_synced("text").await;
    (world, operator)
}

/// Changes the value in KMS and waits until the Secret and the status have it.
async fn change(world: &World, text: &str) {
    world.kms.put_generic("app/text", text);
    world.force("text").await;
    world.until_text("text", "value", text).await;
    world.until_synced("text").await;
}

fn mark_of(deployment: &Deployment) -> Option<String> {
    let template = &deployment.spec.as_ref()?.template;
    let annotations = template.metadata.as_ref()?.annotations.as_ref()?;
    annotations.get(RESTARTED).cloned()
}

async fn mark(world: &World) -> Option<String> {
    let deployment = world.api::<Deployment>().get("app").await.unwrap();
    mark_of(&deployment)
}

/// Waits until nothing is pending, and answers the mark of the Deployment `app`.
pub(crate) async fn until_restarted(world: &World) -> String {
    eventually("app is restarted", async || {
        let mark = mark(world).await?;
        pending(&world.object("text").await)
            .is_empty()
            .then_some(mark)
    })
    .await
}

/// What is pending, as names and reasons.
fn pending(object: &KmsSecret) -> Vec<(String, Option<String>)> {
    let rollout = object
        .status
        .as_ref()
        .and_then(|status| status.rollout.as_ref());
    let pending = rollout.iter().flat_map(|rollout| &rollout.pending);
    pending
        .map(|one| (one.name.clone(), one.reason.clone()))
        .collect()
}

/// Waits until `RolloutPending` has this reason; answers its message.
async fn until_hindered(world: &World, reason: &str) -> String {
    eventually(&format!("the rollout waits for {reason}"), async || {
        let object = world.object("text").await;
        let (_, is, message) = condition(&object, "RolloutPending")?;
        assert_eq!(
            condition(&object, "Ready").unwrap().0,
            "True",
            "the sync succeeded"
        );
        (is == reason).then(|| message.to_owned())
    })
    .await
}

async fn replica_sets(world: &World) -> usize {
    let all = world.api::<ReplicaSet>().list(&ListParams::default()).await;
    all.unwrap().items.len()
}

#[tokio::test]
async fn a_change_restarts_the_deployment_once_and_nothing_else_does() {
    let (world, _operator) = with_deployment(workload()).await;
    a_while().await;
    assert_eq!(mark(&world).await, None, "its pods began with this value");
    change(&world, "two").await;
    let first = until_restarted(&world).await;
    assert!(!first.contains("two"), "{first}");
    eventually("the Deployment rolls", async || {
        (replica_sets(&world).await == 2).then_some(())
    })
    .await;
    let before = world.api::<Deployment>().get("app").await.unwrap();
    for _ in 0..2 {
        world.force("text").await;
        world.until_synced("text").await;
    }
    // Edits and deletions of the Secret are undone: the pods have had the value all along.
    world
        .patch::<Secret>("text", json!({"stringData": {"value": "planted"}}))
        .await;
    world.until_text("text", "value", "two").await;
    world.until_synced("text").await;
    world.delete::<Secret>("text").await;
    world.until_text("text", "value", "two").await;
    world.until_synced("text").await;
    a_while().await;
    let after = world.api::<Deployment>().get("app").await.unwrap();
    assert_eq!(after.metadata.generation, before.metadata.generation);
    assert_eq!(replica_sets(&world).await, 2);
    let events = world.events().await;
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("RolloutRestarted"))
        .filter_map(|event| event.regarding.as_ref()?.kind.clone())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.contains(&"KmsSecret".into()) && told.contains(&"Deployment".into()));
}

#[tokio::test]
async fn nothing_but_our_annotation_changes() {
    let (world, _operator) = with_deployment(workload()).await;
    let before = world.api::<Deployment>().get("app").await.unwrap();
    change(&world, "two").await;
    until_restarted(&world).await;
    let after = world.api::<Deployment>().get("app").await.unwrap();
    let mut spec = serde_json::to_value(&after.spec).unwrap();
    let template = spec["template"]["metadata"].as_object_mut().unwrap();
    assert_eq!(template["annotations"].as_object().unwrap().len(), 1);
    template.remove("annotations");
    assert_eq!(spec, serde_json::to_value(&before.spec).unwrap());
    let others = |deployment: &Deployment| {
        let mut annotations = deployment.annotations().clone();
        annotations.remove("deployment.kubernetes.io/revision");
        (annotations, deployment.labels().clone())
    };
    assert_eq!(others(&after), others(&before));
}

#[tokio::test]
async fn a_list_that_is_added_later_restarts_nothing_by_itself() {
    let (world, _operator) = World::synced("one").await;
    world.apply::<Deployment>("app", workload()).await;
    world
        .kms_secret("text", "app/text", restart(&["app"]))
        .await;
    world.until_synced("text").await;
    a_while().await;
    assert_eq!(mark(&world).await, None);
    change(&world, "two").await;
    until_restarted(&world).await;
}

#[tokio::test]
async fn every_kind_is_restarted_even_where_it_rolls_by_hand() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let mut paused = workload();
    paused["spec"]["paused"] = true.into();
    world.apply::<Deployment>("app", paused).await;
    let mut set = workload();
    set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    set["spec"]["serviceName"] = "it".into();
    world.apply::<StatefulSet>("app", set).await;
    let mut daemons = workload();
    daemons["spec"].as_object_mut().unwrap().remove("replicas");
    world.apply::<DaemonSet>("app", daemons).await;
    let _operator = world.operator().await;
    let kinds =
        ["Deployment", "StatefulSet", "DaemonSet"].map(|kind| json!({"kind": kind, "name": "app"}));
    world
        .kms_secret("text", "app/text", json!({"rolloutRestart": kinds}))
        .await;
    world.until_synced("text").await;
    change(&world, "two").await;
    until_restarted(&world).await;
    let set = world.api::<StatefulSet>().get("app").await.unwrap();
    let daemons = world.api::<DaemonSet>().get("app").await.unwrap();
    for template in [set.spec.unwrap().template, daemons.spec.unwrap().template] {
        let metadata = template.metadata.unwrap();
        assert!(metadata.annotations.unwrap().contains_key(RESTARTED));
    }
}

#[tokio::test]
async fn without_consent_the_command_that_gives_it_is_told_and_then_nothing_is_lost() {
    let mut silent = workload();
    silent["metadata"]["annotations"] = json!({"alikms.dev/restart": "another"});
    let (world, operator) = with_deployment(silent).await;
    change(&world, "two").await;
    let message = until_hindered(&world, "RolloutNotAllowed").await;
    let command = format!(
        "kubectl annotate deployment -n {} app --overwrite alikms.dev/restart=text",
        world.namespace
    );
    assert!(message.contains(&command), "{message}");
    eventually("an Event tells of it", async || {
        let events = world.events().await;
        let is_it = |reason: &Option<String>| reason.as_deref() == Some("RolloutNotAllowed");
        events
            .iter()
            .any(|event| is_it(&event.reason))
            .then_some(())
    })
    .await;
    assert_eq!(mark(&world).await, None);

    // Neither a restart of ours nor another change loses it.
    operator.kill();
    let _operator = world.operator().await;
    change(&world, "three").await;
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    kubectl(&world, &words, "").await.done();
    world.force("text").await;
    until_restarted(&world).await;
    assert_eq!(
        condition(&world.object("text").await, "RolloutPending"),
        None
    );
}

#[tokio::test]
async fn a_change_within_five_minutes_is_made_up_for() {
    let (world, operator) = with_deployment(workload()).await;
    change(&world, "two").await;
    let first = until_restarted(&world).await;
    change(&world, "three").await;
    until_hindered(&world, "RestartedRecently").await;
    assert_eq!(mark(&world).await.as_ref(), Some(&first));
    operator.kill();

    // Six minutes later, to a new process.
    let mut mark: Value = serde_json::from_str(&first).unwrap();
    let restarted: Timestamp = mark["restartedAt"].as_str().unwrap().parse().unwrap();
    let long_ago = restarted - SignedDuration::from_mins(6);
    mark["restartedAt"] = long_ago.strftime("%FT%TZ").to_string().into();
    let annotations = json!({RESTARTED: mark.to_string()});
    world
        .patch::<Deployment>(
            "app",
            json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}),
        )
        .await;
    let _operator = world.operator().await;
    let second = until_restarted(&world).await;
    let tokens =
        |mark: &str| serde_json::from_str::<Value>(mark).unwrap()["tokens"]["text"].clone();
    assert_ne!(tokens(&second), tokens(&first));
}

#[tokio::test]
async fn a_restart_whose_status_was_lost_is_not_made_twice() {
    let (world, operator) = with_deployment(workload()).await;
    change(&world, "two").await;
    let mark = until_restarted(&world).await;
    let generation = world
        .api::<Deployment>()
        .get("app")
        .await
        .unwrap()
        .metadata
        .generation;
    operator.stop().await;
    let lost = json!({"status": {"rollout": {"pending": [{"kind": "Deployment", "name": "app"}]}}});
    world
        .api::<KmsSecret>()
        .patch_status("text", &PatchParams::default(), &Patch::Merge(lost))
        .await
        .unwrap();
    let _operator = world.operator().await;
    assert_eq!(until_restarted(&world).await, mark);
    let deployment = world.api::<Deployment>().get("app").await.unwrap();
    assert_eq!(deployment.metadata.generation, generation);
}

#[tokio::test]
async fn what_is_missing_or_does_not_use_the_secret_is_told_and_not_restarted_at_first_sight() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let mut unused = workload();
    unused["spec"]["template"]["spec"]["volumes"] = json!([]);
    world.apply::<Deployment>("unused", unused).await;
    let _operator = world.operator().await;
    world
        .kms_secret("text", "app/text", restart(&["app", "unused"]))
        .await;
    world.until_synced("text").await;
    change(&world, "two").await;
    until_hindered(&world, "SecretNotUsed").await;
    let object = world.object("text").await;
    let told = |name: &str, reason: &str| (name.to_owned(), Some(reason.to_owned()));
    assert_eq!(
        pending(&object),
        [
            told("app", "WorkloadNotFound"),
            told("unused", "SecretNotUsed")
        ]
    );
    world.apply::<Deployment>("app", workload()).await;
    world.apply::<Deployment>("unused", workload()).await;
    world.force("text").await;
    eventually("nothing is pending", async || {
        pending(&world.object("text").await)
            .is_empty()
            .then_some(())
    })
    .await;
    for name in ["app", "unused"] {
        let deployment = world.api::<Deployment>().get(name).await.unwrap();
        assert_eq!(mark_of(&deployment), None, "{name} began with this value");
    }
}

#[tokio::test]
async fn a_secret_that_was_made_anew_under_the_same_version_restarts() {
    let (world, _operator) = with_deployment(workload()).await;
    world.kms.delete("app/text");
    world.kms.advance(Duration::from_secs(60));
    assert_eq!(world.kms.put_generic("app/text", "two"), "v1");
    world.force("text").await;
    world.until_text("text", "value", "two").await;
    until_restarted(&world).await;
}

#[tokio::test]
async fn a_new_key_restarts_and_a_new_label_does_not() {
    let (world, _operator) = with_deployment(workload()).await;
    let mut more = restart(&["app"]);
    more["target"] = json!({"labels": {"team": "shop"}});
    world.kms_secret("text", "app/text", more.clone()).await;
    world.until_synced("text").await;
    a_while().await;
    assert_eq!(mark(&world).await, None);
    more["data"] = json!([{"key": "value"}, {"key": "again"}]);
    world.kms_secret("text", "app/text", more).await;
    until_restarted(&world).await;
}

#[tokio::test]
async fn the_users_manifest_applied_again_neither_removes_the_annotation_nor_rolls() {
    let (world, _operator) = with_deployment(workload()).await;
    change(&world, "two").await;
    until_restarted(&world).await;
    let template = async || {
        let deployment = world.api::<Deployment>().get("app").await.unwrap();
        deployment.spec.unwrap().template
    };
    let before = template().await;
    world.apply::<Deployment>("app", workload()).await;
    assert_eq!(template().await, before);
    let mut manifest = workload();
    manifest["apiVersion"] = "apps/v1".into();
    manifest["kind"] = "Deployment".into();
    manifest["metadata"]["name"] = "app".into();
    for flags in [
        &["--server-side", "--force-conflicts"][..],
        &[][..],
        &[][..],
    ] {
        // Client-side, the first run writes the annotation with the manifest, and the second one compares with it.
        let words = [&["apply", "-f", "-"][..], flags].concat();
        kubectl(&world, &words, &manifest.to_string()).await.done();
        assert_eq!(template().await, before, "{flags:?}");
    }
}

#[tokio::test]
async fn a_workload_that_changed_since_it_was_seen_is_not_patched() {
    let world = World::new().await;
    world.apply::<Deployment>("app", workload()).await;
    let cluster = Cluster::new(world.client.clone(), |_, _| ());
    let app = PendingRestart {
        kind: WorkloadKind::Deployment,
        name: "app".into(),
        reason: None,
    };
    let seen = cluster.workload(&world.namespace, &app, "text").await;
    let seen = seen.unwrap().unwrap();
    let withdrawn = json!({"metadata": {"annotations": {"alikms.dev/restart": null}}});
    world.patch::<Deployment>("app", withdrawn).await;
    let refused = cluster.restart(&world.namespace, &app, &seen, "{}").await;
    assert_eq!(refused, Err(RestartError::Stale));
    world.delete::<Deployment>("app").await;
    let refused = cluster.restart(&world.namespace, &app, &seen, "{}").await;
    assert_eq!(refused, Err(RestartError::Stale));
    assert_eq!(mark_if_there(&world).await, None);
}

async fn mark_if_there(world: &World) -> Option<String> {
    let deployment = world.api::<Deployment>().get_opt("app").await.unwrap();
    deployment.as_ref().and_then(mark_of)
}

#[tokio::test]
async fn without_the_right_the_object_says_so_and_with_the_example_it_is_made_up_for() {
    let world = World::new().await;
    let account = &world.namespace;
    let binding = |name: &str, role: Value| {
        json!({
            "metadata": {"name": name},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": account}],
        })
    };
    let role =
        |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    world.kms.put_generic("app/text", "one");
    world.apply::<Deployment>("app", workload()).await;
    let client = world.with_rights_of_the_example().await;
    let flags = ["--namespace", account, "--lease-namespace", account];
    let _operator = world.operator_by(client, &flags, |_| ()).await;
    world
        .kms_secret("text", "app/text", restart(&["app"]))
        .await;
    world.until_synced("text").await;
    change(&world, "two").await;
    let message = until_hindered(&world, "RolloutForbidden").await;
    assert!(
        message.contains("get and patch on deployments"),
        "{message}"
    );
    change(&world, "three").await;

    let rules = rules_of("examples/rbac-rollouts.yaml");
    world
        .apply::<Role>("rollouts", json!({"rules": rules}))
        .await;
    world
        .apply::<RoleBinding>("rollouts", binding("rollouts", role("rollouts")))
        .await;
    // The API server takes a moment to know of it.
    eventually("app is restarted", async || {
        world.force("text").await;
        world.until_synced("text").await;
        mark(&world).await
    })
    .await;
}

/// The rules of the ClusterRole in an example, as far as a Role can have them.
fn rules_of(example: &str) -> Value {
    let yaml = read(example);
    let documents = yaml.split("\n---\n");
    let mut role = documents.filter(|document| document.contains("kind: ClusterRole\n"));
    let role: Value = serde_saphyr::from_str(role.next().unwrap()).unwrap();
    role["rules"].clone()
}

#[tokio::test]
async fn two_kms_secrets_restart_one_workload_by_one_annotation() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    world.kms.put_generic("app/other", "one");
    let mut both = workload();
    both["metadata"]["annotations"] = json!({"alikms.dev/restart": "text,other"});
    both["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"secretRef": {"name": "other"}}]);
    world.apply::<Deployment>("app", both).await;
    let _operator = world.operator().await;
    for name in ["text", "other"] {
        world
            .kms_secret(name, &format!("app/{name}"), restart(&["app"]))
            .await;
        world.until_synced(name).await;
    }
    change(&world, "two").await;
    until_restarted(&world).await;
    world.kms.put_generic("app/other", "two");
    world.force("other").await;
    eventually("other waits", async || {
        let object = world.object("other").await;
        let (_, reason, _) = condition(&object, "RolloutPending")?;
        (reason == "RestartedRecently").then_some(())
    })
    .await;
}

#[test]
fn every_reason_of_a_rollout_is_described() {
    let (page, reasons) = (read("docs/rollouts.md"), read("docs/reasons.md"));
    for hindrance in Hindrance::ALL.map(Hindrance::as_str) {
        assert!(page.contains(&format!("| `{hindrance}` |")), "{hindrance}");
        assert!(reasons.contains(&format!("`{hindrance}`")), "{hindrance}");
    }
}
