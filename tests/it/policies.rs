//! The chart's admission policies: they let the operator do all of its work, and nothing else; and nobody name in a store
//! what is not theirs.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kms_secret_operator::api::{ClusterKmsStore, KmsSecret, KmsStore};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::credentials::{account, federate, rrsa};
use crate::helm::{RELEASE, Release};
use crate::world::{Operator, World, eventually};

/// A world with a release of the chart, and a client that is its operator. All policies are in force.
async fn held() -> (World, Release, Client) {
    let world = World::new().await;
    let watched = format!("watchNamespaces={}", json!([world.namespace]));
    let only = [
        "crds.install=false",
        "rbac.aggregate=false",
        "rolloutRestart.enabled=true",
    ];
    let release = Release::install(&world, &[&only[..], &[&watched]].concat()).await;
    let operator = world.cluster.client_as(&world.namespace, RELEASE).await;
    world
        .apply::<Secret>("probe", json!({"stringData": {"key": "theirs"}}))
        .await;
    world
        .apply::<Deployment>("probe", workload("Deployment", json!({})))
        .await;
    tenant(&world, "stranger", "probe").await;
    let stranger = world.cluster.client_as(&world.namespace, "stranger").await;
    // A policy counts some time after it was made, and each in its own time.
    eventually("every policy is in force", async || {
        let secret = change::<Secret>(&world, &operator, "probe", json!({"data": {"key": null}}));
        let token = token(&world, &operator, "default", json!(["elsewhere"]), 600);
        let paused = json!({"spec": {"paused": true}});
        let paused = change::<Deployment>(&world, &operator, "probe", paused);
        let store = make_store(&world, &stranger, "probe", "kms-credentials");
        let refused = [secret.await, token.await, paused.await, store.await];
        refused.iter().all(Option::is_some).then_some(())
    })
    .await;
    (world, release, operator)
}

/// The message of a refusal by a policy; anything else is the end.
fn refusal<T>(outcome: kube::Result<T>) -> Option<String> {
    match outcome {
        Ok(_) => None,
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            assert!(
                status.message.contains("ValidatingAdmissionPolicy"),
                "by RBAC alone: {}",
                status.message
            );
            Some(status.message.clone())
        }
        Err(err) => panic!("{err}"),
    }
}

fn told(refused: Option<String>, of: &str) {
    let refused = refused.unwrap_or_else(|| panic!("not refused: {of}"));
    assert!(refused.contains(of), "{refused}");
}

/// Tries a merge patch without storing it.
async fn change<K>(world: &World, by: &Client, name: &str, patch: Value) -> Option<String>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(by.clone(), &world.namespace);
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    refusal(api.patch(name, &params, &Patch::Merge(patch)).await)
}

/// Tries to create an object without storing it.
async fn create<K>(world: &World, by: &Client, object: Value) -> Option<String>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(by.clone(), &world.namespace);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object: K = serde_json::from_value(object).unwrap();
    refusal(api.create(&params, &object).await)
}

/// Tries to delete a Secret without doing so.
async fn delete(world: &World, by: &Client, name: &str) -> Option<String> {
    let api: Api<Secret> = Api::namespaced(by.clone(), &world.namespace);
    refusal(api.delete(name, &DeleteParams::default().dry_run()).await)
}

async fn token(
    world: &World,
    by: &Client,
    name: &str,
    audiences: Value,
    seconds: i64,
) -> Option<String> {
    let api: Api<ServiceAccount> = Api::namespaced(by.clone(), &world.namespace);
    let request: TokenRequest = serde_json::from_value(json!({
        "spec": {"audiences": audiences, "expirationSeconds": seconds},
    }))
    .unwrap();
    let params = PostParams::default();
    refusal(api.create_token_request(name, &params, &request).await)
}

#[expect(clippy::needless_pass_by_value, reason = "the calls read better")]
fn workload(kind: &str, annotations: Value) -> Value {
    let mut object = json!({
        "metadata": {"annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"app": "probe"}},
            "template": {
                "metadata": {"labels": {"app": "probe"}, "annotations": {"theirs": "1"}},
                "spec": {"containers": [{"name": "app", "image": "registry.example.com/app:1"}]},
            },
        },
    });
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = "probe".into();
    }
    object
}

/// A ServiceAccount that may write `KmsStores`, and get this Secret.
async fn tenant(world: &World, name: &str, secret: &str) {
    account(world, name, json!({})).await;
    let rules = json!({"rules": [
        {"apiGroups": ["alikms.dev"], "resources": ["kmsstores"], "verbs": ["get", "create", "update", "patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [secret], "verbs": ["create"]},
    ]});
    world.apply::<Role>(name, rules).await;
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": world.namespace}],
    });
    world.apply::<RoleBinding>(name, binding).await;
    until_allowed(world, name, "kmsstores", Some(&world.namespace)).await;
}

/// RBAC counts some time after it was written.
async fn until_allowed(world: &World, account: &str, resource: &str, namespace: Option<&str>) {
    let by = world.cluster.client_as(&world.namespace, account).await;
    let question = json!({
        "metadata": {},
        "spec": {"resourceAttributes": {
            "group": "alikms.dev", "resource": resource, "verb": "create", "namespace": namespace,
        }},
    });
    let question: SelfSubjectAccessReview = serde_json::from_value(question).unwrap();
    eventually("RBAC lets the tenant", async || {
        let api: Api<SelfSubjectAccessReview> = Api::all(by.clone());
        let answer = api.create(&PostParams::default(), &question).await.unwrap();
        answer.status.unwrap().allowed.then_some(())
    })
    .await;
}

#[expect(clippy::needless_pass_by_value, reason = "the calls read better")]
fn store_spec(auth: Value) -> Value {
    json!({"region": "cn-hangzhou", "auth": auth})
}

fn by_secret(name: &str) -> Value {
    json!({"accessKey": {"secretRef": {"name": name}}})
}

async fn make_store(world: &World, by: &Client, name: &str, secret: &str) -> Option<String> {
    let object = json!({"metadata": {"name": name}, "spec": store_spec(by_secret(secret))});
    create::<KmsStore>(world, by, object).await
}

/// How often the API server kept the operator from something.
async fn hindrances(operator: &Operator) -> u64 {
    let syncs = "kms_secret_operator_syncs_total";
    operator
        .counter(syncs, &["reason=\"KubernetesUnavailable\""])
        .await
}

#[tokio::test]
async fn the_operator_does_all_of_its_work_under_the_policies() {
    let (world, _release, client) = held().await;
    world.kms.put_generic("app/text", "one");
    federate(&world).await;
    let own = world.namespace.as_str();
    let flags = ["--namespace", own, "--lease-namespace", own];
    let operator = world.operator_by(client, &flags, |_| ()).await;

    world.kms_secret("text", "app/text", json!({})).await;
    world.until_text("text", "value", "one").await;
    world.until_synced("text").await;
    world.kms.put_generic("app/text", "two");
    world.force("text").await;
    world.until_text("text", "value", "two").await;

    // Edits of others are undone, that of our own marks too.
    let edits = json!({"metadata": {"labels": {"alikms.dev/managed": null}}, "stringData": {"planted": "x"}});
    world.patch::<Secret>("text", edits).await;
    eventually("the label is back, and the key is gone", async || {
        let secret = world.secret("text").await.unwrap();
        let is_clean = secret.labels().contains_key("alikms.dev/managed")
            && !secret.data.unwrap_or_default().contains_key("planted");
        is_clean.then_some(())
    })
    .await;
    world.delete::<Secret>("text").await;
    world.until_text("text", "value", "two").await;

    // Taking over what consents.
    let consent = json!({"metadata": {"annotations": {"alikms.dev/allow": "adopted"}}, "stringData": {"old": "x"}});
    world.apply::<Secret>("adopted", consent).await;
    let adopt = json!({"target": {"adopt": "IfUnowned"}});
    world.kms_secret("adopted", "app/text", adopt).await;
    world.until_text("adopted", "value", "two").await;

    // Renamed: the old one goes, or is let go of.
    let renamed = json!({"target": {"name": "renamed"}});
    world.kms_secret("text", "app/text", renamed).await;
    world.until_text("renamed", "value", "two").await;
    eventually("the old one is gone", async || {
        world.secret("text").await.is_none().then_some(())
    })
    .await;
    let orphan = |name: &str| json!({"target": {"name": name, "creationPolicy": "Orphan"}});
    world
        .kms_secret("orphan", "app/text", orphan("orphan-1"))
        .await;
    world.until_text("orphan-1", "value", "two").await;
    world
        .kms_secret("orphan", "app/text", orphan("orphan-2"))
        .await;
    world.until_text("orphan-2", "value", "two").await;
    eventually("the old one is let go of", async || {
        let old = world.secret("orphan-1").await.unwrap();
        (!old.labels().contains_key("alikms.dev/managed")).then_some(())
    })
    .await;

    // That of a predecessor, as after a restore.
    let api = world.api::<KmsSecret>();
    let leave = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    let before = world.secret("adopted").await.unwrap().metadata.uid;
    api.delete("adopted", &leave).await.unwrap();
    eventually("the KmsSecret is gone", async || {
        api.get_opt("adopted")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    world.kms_secret("adopted", "app/text", json!({})).await;
    world.until_synced("adopted").await;
    assert_eq!(world.secret("adopted").await.unwrap().metadata.uid, before);

    // The role of a ServiceAccount, by a token for STS.
    world
        .kms_secret("by-role", "app/text", json!({"storeRef": {"name": "rrsa"}}))
        .await;
    world.until_text("by-role", "value", "two").await;
    world.settled().await;
    assert_eq!(hindrances(&operator).await, 0);
}

#[expect(clippy::too_many_lines, reason = "a list of what is refused")]
#[tokio::test]
async fn the_operator_touches_no_secret_that_is_not_its_own() {
    let (world, _release, operator) = held().await;
    let is = |labels: Value, annotations: Value, kind: &str| {
        json!({
            "metadata": {"name": "new", "labels": labels, "annotations": annotations},
            "type": kind, "stringData": {"key": "x"},
        })
    };
    let label = json!({"alikms.dev/managed": "true"});
    let annotation = json!({"alikms.dev/kmssecret": "text"});
    let ours = |kind: &str| is(label.clone(), annotation.clone(), kind);
    assert_eq!(
        create::<Secret>(&world, &operator, ours("Opaque")).await,
        None
    );
    for unmarked in [
        is(json!({}), json!({}), "Opaque"),
        is(label.clone(), json!({}), "Opaque"),
        is(json!({}), annotation.clone(), "Opaque"),
        is(
            json!({"alikms.dev/managed": "false"}),
            annotation.clone(),
            "Opaque",
        ),
        is(json!({}), json!({"alikms.dev/allow": "text"}), "Opaque"),
    ] {
        told(
            create::<Secret>(&world, &operator, unmarked).await,
            "creates only Secrets with its label",
        );
    }
    let mut of_account = ours("kubernetes.io/service-account-token");
    of_account["metadata"]["annotations"]["kubernetes.io/service-account.name"] = "default".into();
    for token in [of_account, ours("bootstrap.kubernetes.io/token")] {
        told(
            create::<Secret>(&world, &operator, token).await,
            "writes no Secret of type",
        );
    }

    let taken =
        json!({"metadata": {"labels": label, "annotations": annotation}, "data": {"key": "eA=="}});
    for name in ["probe", "kms-credentials"] {
        told(
            change::<Secret>(&world, &operator, name, taken.clone()).await,
            "changes only Secrets that are its own",
        );
        told(
            delete(&world, &operator, name).await,
            "deletes only Secrets that are its own",
        );
    }
    // Helm's own record of the release.
    let record = format!("sh.helm.release.v1.{RELEASE}.v1");
    told(
        delete(&world, &operator, &record).await,
        "deletes only Secrets that are its own",
    );

    // Consent is to being changed, not to being deleted.
    for consent in [
        json!({"annotations": {"alikms.dev/allow": "text"}}),
        json!({"annotations": {"alikms.dev/merged.1234": "text"}}),
        json!({"labels": {"alikms.dev/managed": "true"}}),
    ] {
        world.delete::<Secret>("probe").await;
        world
            .apply::<Secret>("probe", json!({"metadata": consent}))
            .await;
        assert_eq!(
            change::<Secret>(&world, &operator, "probe", taken.clone()).await,
            None
        );
        told(
            delete(&world, &operator, "probe").await,
            "deletes only Secrets that are its own",
        );
    }
    let owner = world
        .kms_secret("text", "app/text", json!({}))
        .await
        .controller_owner_ref(&())
        .unwrap();
    for mark in [
        json!({"annotations": annotation}),
        json!({"ownerReferences": [owner]}),
    ] {
        world.delete::<Secret>("probe").await;
        world
            .apply::<Secret>("probe", json!({"metadata": mark}))
            .await;
        assert_eq!(
            change::<Secret>(&world, &operator, "probe", taken.clone()).await,
            None
        );
        assert_eq!(delete(&world, &operator, "probe").await, None);
    }
    let mut foreign = owner;
    foreign.api_version = "example.com/v1".to_owned();
    world.delete::<Secret>("probe").await;
    world
        .apply::<Secret>("probe", json!({"metadata": {"ownerReferences": [foreign]}}))
        .await;
    told(
        delete(&world, &operator, "probe").await,
        "deletes only Secrets that are its own",
    );

    // Everybody else is free.
    assert_eq!(delete(&world, &world.client, "kms-credentials").await, None);
}

#[tokio::test]
async fn the_operator_gets_tokens_for_sts_alone_and_none_of_its_own() {
    let (world, _release, operator) = held().await;
    account(&world, "orders", json!({})).await;
    let sts = json!(["sts.aliyuncs.com"]);
    assert_eq!(
        token(&world, &operator, "orders", sts.clone(), 600).await,
        None
    );
    for audiences in [
        json!([]),
        json!(["https://kubernetes.default.svc"]),
        json!(["sts.aliyuncs.com", "https://kubernetes.default.svc"]),
    ] {
        told(
            token(&world, &operator, "orders", audiences, 600).await,
            "only with the one audience sts.aliyuncs.com",
        );
    }
    told(
        token(&world, &operator, "orders", sts.clone(), 3600).await,
        "600 seconds at most",
    );
    told(
        token(&world, &operator, RELEASE, sts.clone(), 600).await,
        "no token of its own ServiceAccount",
    );
    assert_eq!(
        token(&world, &world.client, RELEASE, json!([]), 3600).await,
        None
    );
}

#[tokio::test]
async fn the_operator_changes_one_annotation_of_a_workload_that_consents() {
    let (world, _release, operator) = held().await;
    let restart =
        json!({"spec": {"template": {"metadata": {"annotations": {"alikms.dev/restarted": "1"}}}}});
    told(
        change::<Deployment>(&world, &operator, "probe", restart.clone()).await,
        "only workloads that consent",
    );

    let consent = json!({"alikms.dev/restart": "text"});
    world
        .apply::<Deployment>("d", workload("Deployment", consent.clone()))
        .await;
    world
        .apply::<StatefulSet>("s", workload("StatefulSet", consent.clone()))
        .await;
    world
        .apply::<DaemonSet>("n", workload("DaemonSet", consent))
        .await;
    for patch in [
        json!({"metadata": {"annotations": {"alikms.dev/restart": "other"}}}),
        json!({"metadata": {"labels": {"app": "x"}}}),
        json!({"metadata": {"finalizers": ["example.com/x"]}}),
        json!({"spec": {"minReadySeconds": 5}}),
        json!({"spec": {"template": {"metadata": {"annotations": {"theirs": "2"}}}}}),
        json!({"spec": {"template": {"metadata": {"annotations": {"theirs": null}}}}}),
        json!({"spec": {"template": {"metadata": {"annotations": {"new": "1"}}}}}),
        json!({"spec": {"template": {"metadata": {"labels": {"more": "x"}}}}}),
        json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}),
        json!({"spec": {"template": {"spec": {"serviceAccountName": RELEASE}}}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "evil"}]}}}}),
    ] {
        let mut both = patch.clone();
        both["spec"]["template"]["metadata"]["annotations"]["alikms.dev/restarted"] = "1".into();
        for patch in [patch, both] {
            let of = "changes nothing of a workload but the annotation";
            told(
                change::<Deployment>(&world, &operator, "d", patch.clone()).await,
                of,
            );
            told(
                change::<StatefulSet>(&world, &operator, "s", patch.clone()).await,
                of,
            );
            told(change::<DaemonSet>(&world, &operator, "n", patch).await, of);
        }
    }
    told(
        change::<Deployment>(&world, &operator, "d", json!({"spec": {"replicas": 0}})).await,
        "changes nothing of a workload",
    );
    for again in ["1", "2"] {
        let mut patch = restart.clone();
        patch["spec"]["template"]["metadata"]["annotations"]["alikms.dev/restarted"] = again.into();
        assert_eq!(
            change::<Deployment>(&world, &operator, "d", patch.clone()).await,
            None
        );
        assert_eq!(
            change::<StatefulSet>(&world, &operator, "s", patch.clone()).await,
            None
        );
        assert_eq!(
            change::<DaemonSet>(&world, &operator, "n", patch.clone()).await,
            None
        );
        world.patch::<Deployment>("d", patch).await;
    }
    // A template without annotations of its own.
    let bare = json!({"spec": {"template": {"metadata": {"annotations": null}}}});
    world.patch::<Deployment>("d", bare).await;
    assert_eq!(
        change::<Deployment>(&world, &operator, "d", restart).await,
        None
    );
}

#[tokio::test]
async fn nobody_names_in_a_store_what_they_may_not_use_themselves() {
    let (world, _release, _) = held().await;
    tenant(&world, "tenant", "theirs").await;
    let by = world.cluster.client_as(&world.namespace, "tenant").await;
    let of = |secret: &str| {
        format!(
            "only who may get Secret {secret} of namespace {}",
            world.namespace
        )
    };
    assert_eq!(make_store(&world, &by, "new", "theirs").await, None);
    told(
        make_store(&world, &by, "new", "kms-credentials").await,
        &of("kms-credentials"),
    );

    // A store that is there may be edited, but not be pointed elsewhere.
    assert_eq!(
        change::<KmsStore>(
            &world,
            &by,
            "prod",
            json!({"spec": {"requestsPerSecond": 5}})
        )
        .await,
        None
    );
    let other = json!({"spec": {"auth": by_secret("probe")}});
    told(
        change::<KmsStore>(&world, &by, "prod", other).await,
        &of("probe"),
    );
    let another_key =
        json!({"spec": {"auth": {"accessKey": {"secretRef": {"accessKeyIdKey": "other"}}}}});
    told(
        change::<KmsStore>(&world, &by, "prod", another_key).await,
        &of("kms-credentials"),
    );
    let own = json!({"spec": {"auth": by_secret("theirs")}});
    assert_eq!(change::<KmsStore>(&world, &by, "prod", own).await, None);

    let by_account =
        |name: &str| json!({"metadata": {"name": "new"}, "spec": store_spec(rrsa(name))});
    assert_eq!(
        create::<KmsStore>(&world, &by, by_account("theirs")).await,
        None
    );
    told(
        create::<KmsStore>(&world, &by, by_account("default")).await,
        "only who may create serviceaccounts/token of ServiceAccount default",
    );

    // The same for stores of the cluster, which name a namespace.
    let rules = json!({"rules": [
        {"apiGroups": ["alikms.dev"], "resources": ["clusterkmsstores"], "verbs": ["create"]},
    ]});
    world.apply_cluster::<ClusterRole>(rules).await;
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": world.namespace},
        "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": world.namespace}],
    });
    world.apply_cluster::<ClusterRoleBinding>(binding).await;
    until_allowed(&world, "tenant", "clusterkmsstores", None).await;
    let make = async |by: &Client, auth: Value| {
        let mut spec = store_spec(auth);
        spec["namespaces"] = json!({"names": ["shop"]});
        let object = json!({"metadata": {"name": world.namespace}, "spec": spec});
        let object: ClusterKmsStore = serde_json::from_value(object).unwrap();
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let api: Api<ClusterKmsStore> = Api::all(by.clone());
        refusal(api.create(&params, &object).await)
    };
    let within = |mut auth: Value, namespace: &str| {
        for part in ["/accessKey/secretRef", "/serviceAccount"] {
            if let Some(part) = auth.pointer_mut(part) {
                part["namespace"] = namespace.into();
            }
        }
        auth
    };
    let here = world.namespace.as_str();
    assert_eq!(make(&by, within(by_secret("theirs"), here)).await, None);
    told(
        make(&by, within(by_secret("theirs"), "kube-system")).await,
        "only who may get Secret theirs of namespace kube-system",
    );
    assert_eq!(make(&by, within(rrsa("theirs"), here)).await, None);
    told(
        make(&by, within(rrsa("theirs"), "kube-system")).await,
        "ServiceAccount theirs of namespace kube-system",
    );
    assert_eq!(make(&by, json!({"operator": {}})).await, None);
    assert_eq!(
        make(&world.client, within(by_secret("any"), "kube-system")).await,
        None
    );
}
