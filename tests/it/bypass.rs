//! A tenant, or a network, that means harm: each test tries to get around a rule, and nothing comes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kms_emulator::{Effect, Fault};
use kms_secret_operator::api::{ClusterKmsStore, KmsSecret, KmsStore};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::credentials::{account, federate, operator_in, read_by_cluster, rrsa, store};
use crate::world::{KEY_ID, KEY_SECRET, Operator, World, a_while, condition, eventually};

/// Creates what the types here could not even say; the API server drops the fields that it does not know.
async fn create<K: Resource<DynamicType = ()>>(world: &World, name: &str, spec: Value) {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap();
    let resource = ApiResource::erase::<K>(&());
    Api::<DynamicObject>::namespaced_with(world.client.clone(), &world.namespace, &resource)
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

/// The names of the secrets that KMS was asked for.
fn asked(world: &World) -> BTreeSet<String> {
    let reads = world.kms.reads().into_iter();
    reads.filter_map(|read| read.secret).collect()
}

fn by_store(name: &str) -> Value {
    json!({"storeRef": {"name": name}})
}

#[tokio::test]
async fn a_store_reaches_nothing_in_another_namespace() {
    let world = World::alone().await;
    let other = world.beside().await;
    world.kms.put_generic("app/text", "hello");
    other.credentials("theirs", KEY_ID, KEY_SECRET).await;
    federate(&other).await;
    // Theirs would use it, and rightly.
    other.delete::<KmsStore>("rrsa").await;
    let bundle = json!({
        "metadata": {"labels": {"alikms.dev/ca-bundle": "true"}}, "data": {"ca.crt": world.kms.ca_pem()},
    });
    other.apply::<ConfigMap>("theirs", bundle).await;
    let spec = |auth: Value| json!({"region": "cn-hangzhou", "endpoint": world.kms.origin(), "auth": auth});
    let theirs = &other.namespace;
    let secret = json!({"accessKey": {"secretRef": {"name": "theirs", "namespace": theirs}}});
    create::<KmsStore>(&world, "secret", spec(secret)).await;
    let mut token = rrsa("orders");
    token["serviceAccount"]["namespace"] = theirs.as_str().into();
    create::<KmsStore>(&world, "account", spec(token)).await;
    let mut bundle = spec(json!({"accessKey": {"secretRef": {"name": "kms-credentials"}}}));
    bundle["caBundleRef"] = json!({"name": "theirs", "namespace": theirs});
    create::<KmsStore>(&world, "bundle", bundle).await;
    let reference = json!({"name": "prod", "namespace": theirs, "kind": "KmsStore"});
    let source = json!({"secretName": "app/text"});
    world.delete::<KmsStore>("prod").await;
    create::<KmsSecret>(
        &world,
        "store",
        json!({"storeRef": reference, "source": source}),
    )
    .await;
    for name in [format!("{theirs}/prod"), format!("../{theirs}/prod")] {
        let place = name.len();
        let spec = json!({"storeRef": {"name": name}, "source": source});
        create::<KmsSecret>(&world, &format!("path-{place}"), spec).await;
    }
    let _operator = world
        .operator_of(&["--allow-endpoint", &other.kms.origin()])
        .await;
    for (name, reason) in [
        ("secret", "CredentialsNotFound"),
        ("account", "CredentialsNotFound"),
        ("bundle", "StoreInvalid"),
    ] {
        world.kms_secret(name, "app/text", by_store(name)).await;
        world.until_ready(name, "False", reason).await;
    }
    let objects = world.api::<KmsSecret>();
    for object in objects
        .list(&kube::api::ListParams::default())
        .await
        .unwrap()
    {
        let name = object.metadata.name.unwrap();
        if name == "store" || name.starts_with("path") {
            world.until_ready(&name, "False", "StoreNotFound").await;
        }
    }
    assert!(asked(&world).is_empty() && asked(&other).is_empty());
    assert_eq!(other.kms.count("AssumeRoleWithOIDC"), 0);
}

#[tokio::test]
async fn no_spelling_of_an_endpoint_gets_a_call() {
    let world = World::new().await;
    let port = world.kms.address().port();
    let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let another = outside.local_addr().unwrap().port();
    let spellings = [
        format!("http://127.0.0.1:{another}"),
        format!("http://localhost:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://[::ffff:127.0.0.1]:{another}"),
        format!("http://127.0.0.1.:{another}"),
        format!("http://127.0.0.1:{port}0"),
        format!("https://127.0.0.1:{port}"),
        "http://100.100.100.200".to_owned(),
        "https://100.100.100.200".to_owned(),
        "http://169.254.169.254".to_owned(),
        "https://169.254.169.254".to_owned(),
        "http://[::ffff:169.254.169.254]:8080".to_owned(),
        format!("http://[::ffff:7f00:1]:{port}"),
        format!("http://2130706433:{port}0"),
        "https://kubernetes.default.svc".to_owned(),
        "https://10.96.0.1:443".to_owned(),
        "https://kms.cn-hangzhou.aliyuncs.com".to_owned(),
    ];
    for (n, endpoint) in spellings.iter().enumerate() {
        let name = format!("s{n}");
        let more = json!({"endpoint": endpoint});
        world.store(&name, "kms-credentials", more).await;
        world.kms_secret(&name, "app/text", by_store(&name)).await;
    }
    // Where there is no KMS, so that what is refused by the schema only is seen too.
    let params = PatchParams::default();
    for endpoint in [
        format!("http://user@127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}?x"),
        format!("HTTP://127.0.0.1:{port}"),
        "KMS.cn-hangzhou.aliyuncs.com".to_owned(),
        "kms.cn-hangzhou.aliyuncs.com.".to_owned(),
        "kms.oss-cn-hangzhou.aliyuncs.com".to_owned(),
        "100.100.100.200".to_owned(),
    ] {
        let patch = Patch::Merge(json!({"spec": {"endpoint": endpoint}}));
        let patched = world.api::<KmsStore>().patch("prod", &params, &patch).await;
        assert!(patched.is_err(), "{endpoint}");
    }
    let _operator = world.operator().await;
    for n in 0..spellings.len() {
        world
            .until_ready(&format!("s{n}"), "False", "StoreInvalid")
            .await;
    }
    assert!(asked(&world).is_empty());
    let called = tokio::time::timeout(Duration::from_millis(500), outside.accept()).await;
    assert!(called.is_err());
}

/// A `ClusterKmsStore` of the world's KMS, under the name of its namespace.
async fn cluster_store(world: &World, more: Value) {
    let mut spec = json!({
        "region": "cn-hangzhou", "endpoint": world.kms.origin(),
        "auth": {"accessKey": {"secretRef": {"namespace": world.namespace, "name": "kms-credentials"}}},
    });
    let fields = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    world
        .apply_cluster::<ClusterKmsStore>(json!({"spec": spec}))
        .await;
}

fn by_cluster_store(world: &World) -> Value {
    json!({"storeRef": {"name": world.namespace, "kind": "ClusterKmsStore"}})
}

#[tokio::test]
async fn no_spelling_of_a_name_and_no_second_source_reads_what_a_store_does_not_allow() {
    let world = World::alone().await;
    let mine = world.namespace.clone();
    let allowed = format!("{mine}/db");
    let arn = |account: &str, region: &str, name: &str| {
        format!("acs:kms:{region}:{account}:secret/{name}")
    };
    for name in [&allowed, "other/db", "acs/ram/user/app", "other-x/db"] {
        world.kms.put_generic(name, "value");
    }
    let patterns = json!([
        "${namespace}/*",
        "other-${namespace}/*",
        "acs:kms:*:1234567890123456:secret/${namespace}/*",
        "**/public"
    ]);
    cluster_store(
        &world,
        json!({"namespaces": {"names": [mine]}, "secretNames": patterns}),
    )
    .await;
    let _operator = world.operator_of(&[]).await;
    let ours = arn("1234567890123456", "cn-hangzhou", &allowed);
    world
        .kms_secret("good", &allowed, by_cluster_store(&world))
        .await;
    world.until_synced("good").await;
    let names = [
        "other/db".to_owned(),
        "other-x/db".to_owned(),
        format!("other-{mine}/db"),
        format!("{mine}/../other/db"),
        format!("{mine}//db"),
        format!("/{mine}/db"),
        format!("{mine}/db/"),
        format!("{mine}/db/x"),
        mine.clone(),
        format!("{}/db", mine.to_uppercase()),
        "acs/ram/user/app".to_owned(),
        "acs/ram/public".to_owned(),
        arn("1234567890123456", "cn-hangzhou", "other/db"),
        arn("1234567890123457", "cn-hangzhou", &allowed),
        arn("1234567890123456", "cn-hangzhou", "acs/ram/public"),
    ];
    for (n, name) in names.iter().enumerate() {
        world
            .kms_secret(&format!("s{n}"), name, by_cluster_store(&world))
            .await;
    }
    let sources = |second: Value| {
        let mut spec = by_cluster_store(&world);
        spec["source"] = Value::Null;
        spec["sources"] = json!([{"name": "one", "secretName": allowed}, second]);
        spec["data"] = json!([{"key": "k", "source": "one"}]);
        spec
    };
    for (name, second) in [
        ("two", json!({"name": "two", "secretName": "other/db"})),
        (
            "optional",
            json!({"name": "two", "secretName": "other/db", "optional": true}),
        ),
    ] {
        let spec = sources(second);
        create::<KmsSecret>(&world, name, spec).await;
    }
    for n in 0..names.len() {
        world
            .until_ready(&format!("s{n}"), "False", "NotAllowed")
            .await;
    }
    for name in ["two", "optional"] {
        world.until_ready(name, "False", "NotAllowed").await;
    }
    // Another region is not even that of the store.
    let abroad = arn("1234567890123456", "cn-beijing", &allowed);
    world
        .kms_secret("abroad", &abroad, by_cluster_store(&world))
        .await;
    world.until_ready("abroad", "False", "NotAllowed").await;
    // An edit takes nothing along from what was allowed before.
    world
        .kms_secret("good", "other/db", by_cluster_store(&world))
        .await;
    world.until_ready("good", "False", "NotAllowed").await;
    assert_eq!(world.text("good", "value").await.unwrap(), "value");
    assert_eq!(asked(&world), BTreeSet::from([allowed]));
    world
        .kms_secret("arn", &ours, by_cluster_store(&world))
        .await;
    world.until_synced("arn").await;
}

#[tokio::test]
async fn what_is_no_name_of_a_secret_is_refused_before_anybody_looks_at_it() {
    let world = World::new().await;
    world.kms_secret("good", "app/text", json!({})).await;
    for name in [
        "a%2Fb",
        "${namespace}/db",
        "a b",
        "acs:kms:cn-hangzhou:1:key/x",
        "ACS:kms:cn-hangzhou:1:secret/x",
        "",
    ] {
        let patch = json!({"spec": {"source": {"secretName": name}}});
        let objects = world.api::<KmsSecret>();
        let patched = objects
            .patch("good", &PatchParams::default(), &Patch::Merge(patch))
            .await;
        assert!(patched.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn what_was_read_before_access_was_taken_away_is_not_written() {
    let world = World::alone().await;
    let selector = json!({"selector": {"matchLabels": {"team": "a"}}});
    cluster_store(
        &world,
        json!({"namespaces": selector, "secretNames": ["app/*"]}),
    )
    .await;
    let spaces = Api::<Namespace>::all(world.client.clone());
    let label = async |value: Value| {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"team": value}}}));
        let params = PatchParams::default();
        spaces
            .patch(&world.namespace, &params, &patch)
            .await
            .unwrap();
    };
    label(json!("a")).await;
    world.kms.put_generic("app/text", "hello");
    let hold = world.kms.hold("app/text");
    let _operator = world.operator_of(&[]).await;
    world
        .kms_secret("text", "app/text", by_cluster_store(&world))
        .await;
    hold.until_waiting(1).await;
    label(Value::Null).await;
    // The label's event is there when that of a later one is.
    let probe = json!({"storeRef": {"name": "prod"}});
    world.kms.put_generic("app/probe", "there");
    world.kms_secret("probe", "app/probe", probe).await;
    world.until_synced("probe").await;
    a_while().await;
    hold.release();
    world.until_ready("text", "False", "NotAllowed").await;
    assert!(world.secret("text").await.is_none());
}

#[tokio::test]
async fn reads_that_wait_when_consent_is_withdrawn_are_not_sent() {
    let world = World::new().await;
    let slow = json!({"requestsPerSecond": 1, "batch": "Never"});
    world.store("prod", "kms-credentials", slow).await;
    let names = twenty(&world, "s").await;
    let _operator = world.operator().await;
    eventually("reads wait", async || {
        let sent = world.kms.reads().len();
        (1..10).contains(&sent).then_some(())
    })
    .await;
    let label = json!({"metadata": {"labels": {"alikms.dev/credentials": null}}});
    world.patch::<Secret>("kms-credentials", label).await;
    let denied = async |name: &str| {
        let object = world.object(name).await;
        condition(&object, "Ready").is_some_and(|(_, reason, _)| reason == "CredentialsNotAllowed")
    };
    eventually("all are told", async || {
        for name in &names {
            if !denied(name).await && world.secret(name).await.is_none() {
                return None;
            }
        }
        Some(())
    })
    .await;
    let sent = world.kms.reads().len();
    a_while().await;
    a_while().await;
    assert_eq!(world.kms.reads().len(), sent);
    assert!(sent < names.len(), "{sent}");
}

#[tokio::test]
async fn a_session_is_as_narrow_as_its_policy_and_named_after_its_store() {
    let world = World::new().await;
    for name in ["app/text", "app/other"] {
        world.kms.put_generic(name, "hello");
    }
    let role = "acs:ram::1234567890123456:role/reader";
    world.kms.add_role(role);
    let policy = json!({"Version": "1", "Statement": [
        {"Effect": "Allow", "Action": "kms:*", "Resource": "acs:kms:*:*:secret/app/text"},
        {"Effect": "Allow", "Action": "sts:*", "Resource": "*"},
    ]});
    let auth = json!({"accessKey": {"secretRef": {"name": "kms-credentials"}}});
    let spec = json!({
        "region": "cn-hangzhou", "endpoint": world.kms.origin(), "auth": auth,
        "assumeRole": [{"roleArn": role, "policy": policy.to_string(), "sessionName": "root@platform"}],
    });
    create::<KmsStore>(&world, "narrow", spec).await;
    let _operator = world.operator().await;
    world
        .kms_secret("text", "app/text", by_store("narrow"))
        .await;
    world.until_synced("text").await;
    world
        .kms_secret("other", "app/other", by_store("narrow"))
        .await;
    world.until_ready("other", "False", "AccessDenied").await;
    let identity = eventually("the store tells whose it is", async || {
        let store = world.api::<KmsStore>().get("narrow").await.unwrap();
        store.status?.identity
    })
    .await;
    let session = format!("assumed-role/reader/{}.narrow", world.namespace);
    assert!(identity.ends_with(&session), "{identity}");
}

#[tokio::test]
async fn an_account_lends_no_other_role_than_the_one_that_it_names() {
    let world = World::new().await;
    federate(&world).await;
    world.kms.put_generic("app/text", "hello");
    let (one, two) = (
        "acs:ram::1234567890123456:role/shop",
        "acs:ram::1234567890123456:role/root",
    );
    for annotations in [
        json!({"ack.alibabacloud.com/role-arn": one}),
        json!({"alikms.dev/role-arn": one, "ack.alibabacloud.com/role-arn": two}),
        json!({"alikms.dev/role-arn": format!("{two} ")}),
        json!({"alikms.dev/role-arn": ""}),
    ] {
        account(&world, "orders", annotations).await;
        let name = format!("s{}", uuid::Uuid::new_v4());
        let mut auth = rrsa("orders");
        auth["serviceAccount"]["roleArn"] = two.into();
        store(&world, &name, auth, json!({})).await;
        let operator = world.operator().await;
        world.kms_secret(&name, "app/text", by_store(&name)).await;
        world
            .until_ready(&name, "False", "CredentialsNotAllowed")
            .await;
        operator.stop().await;
    }
    let asked_as = world
        .kms
        .count_where(|call| call.action == "AssumeRoleWithOIDC" && call.outcome != "OK");
    assert_eq!(asked_as, 0, "no other role was asked for");
}

#[tokio::test]
async fn sts_that_redirects_or_answers_without_end_gets_no_further() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "hello");
    let role = "acs:ram::1234567890123456:role/reader";
    world.kms.add_role(role);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/", listener.local_addr().unwrap());
    let _operator = world.operator().await;
    let garbage = "x".repeat(3 << 20);
    for (name, effect, reason) in [
        ("redirect", Effect::Redirect { location }, "IdentityRefused"),
        (
            "huge",
            Effect::Raw {
                status: 200,
                headers: Vec::new(),
                body: garbage.clone(),
            },
            "IdentityUnavailable",
        ),
        (
            "huge-error",
            Effect::Raw {
                status: 403,
                headers: Vec::new(),
                body: garbage,
            },
            "IdentityUnavailable",
        ),
        (
            "slow",
            Effect::Drip {
                bytes: 1,
                seconds: Duration::from_secs(1),
            },
            "IdentityUnavailable",
        ),
    ] {
        let fault = world.kms.fault(Fault::new(effect).on_action("AssumeRole"));
        let auth = json!({"accessKey": {"secretRef": {"name": "kms-credentials"}}});
        store(
            &world,
            name,
            auth,
            json!({"assumeRole": [{"roleArn": role}]}),
        )
        .await;
        world.kms_secret(name, "app/text", by_store(name)).await;
        world.until_ready(name, "False", reason).await;
        world.kms.clear_fault(fault);
    }
    let called = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
    assert!(called.is_err(), "the redirect was followed");
    assert!(asked(&world).is_empty());
}

#[tokio::test]
async fn a_metadata_service_that_redirects_or_answers_without_end_gets_no_further() {
    let world = World::alone().await;
    world.kms.put_generic("app/text", "hello");
    world.kms.set_instance_role(Some("worker"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/", listener.local_addr().unwrap());
    let _operator = operator_in(&world, &[]).await;
    let redirect = || Effect::Redirect {
        location: location.clone(),
    };
    let raw = |body: &str| Effect::Raw {
        status: 200,
        headers: Vec::new(),
        body: body.to_owned(),
    };
    for (name, action, effect, reason) in [
        ("token", "MetadataToken", redirect(), "IdentityRefused"),
        ("role", "MetadataRole", redirect(), "IdentityRefused"),
        (
            "redirect",
            "MetadataCredentials",
            redirect(),
            "IdentityRefused",
        ),
        (
            "huge",
            "MetadataCredentials",
            raw(&"x".repeat(3 << 20)),
            "IdentityUnavailable",
        ),
        (
            "line",
            "MetadataToken",
            raw("a\r\nb: c"),
            "IdentityUnavailable",
        ),
        (
            "path",
            "MetadataRole",
            raw("../../../user-data"),
            "IdentityUnavailable",
        ),
        ("up", "MetadataRole", raw(".."), "IdentityUnavailable"),
        (
            "slow",
            "MetadataCredentials",
            Effect::Drip {
                bytes: 1,
                seconds: Duration::from_secs(1),
            },
            "IdentityUnavailable",
        ),
    ] {
        let fault = world.kms.fault(Fault::new(effect).on_action(action));
        read_by_cluster(&world, name, json!({"ecsRamRole": {}})).await;
        world.until_ready(name, "False", reason).await;
        world.kms.clear_fault(fault);
    }
    let called = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
    assert!(called.is_err(), "a redirect was followed");
    assert!(asked(&world).is_empty());
}

#[tokio::test]
async fn a_tenant_whose_store_is_slow_holds_up_nobody_else() {
    let world = World::alone().await;
    let slow = json!({"requestsPerSecond": 1, "batch": "Never"});
    world.store("prod", "kms-credentials", slow).await;
    let made = (0..2000).map(|n| {
        let world = &world;
        async move {
            let name = format!("s{n}");
            world.kms_secret(&name, &name, json!({})).await;
        }
    });
    futures::stream::iter(made)
        .buffer_unordered(16)
        .count()
        .await;
    let other = world.beside().await;
    let operator = world
        .operator_of(&["--allow-endpoint", &other.kms.origin()])
        .await;
    eventually(
        "everything that waits for the slow store waits",
        async || {
            let metrics = operator.get("metrics").await;
            let waiting = metrics.lines().find(|line| {
                line.contains("store_reads_waiting{") && line.contains(&world.namespace)
            })?;
            let waiting: f64 = waiting.rsplit(' ').next()?.parse().ok()?;
            (waiting >= 500.0).then_some(())
        },
    )
    .await;
    other.kms.put_generic("app/text", "hello");
    for name in ["a", "b", "c", "d", "e"] {
        other.kms_secret(name, "app/text", json!({})).await;
    }
    for name in ["a", "b", "c", "d", "e"] {
        other.until_synced(name).await;
    }
}

/// Syncs that ended in anything but success.
async fn failures(operator: &Operator) -> u64 {
    let name = "kms_secret_operator_syncs_total";
    operator.counter(name, &[]).await - operator.counter(name, &["reason=\"Synced\""]).await
}

/// Twenty KmsSecrets, `<name>0` to `<name>19`, over secrets of those names.
async fn twenty(world: &World, name: &str) -> Vec<String> {
    let names: Vec<_> = (0..20).map(|n| format!("{name}{n}")).collect();
    for name in &names {
        world.kms.put_generic(name, &format!("value of {name}"));
    }
    let made = names
        .iter()
        .map(|name| world.kms_secret(name, name, json!({})));
    futures::future::join_all(made).await;
    names
}

async fn until_right(world: &World, names: &[String]) {
    for name in names {
        world
            .until_text(name, "value", &format!("value of {name}"))
            .await;
    }
}

#[tokio::test]
async fn an_answer_to_a_batch_that_is_not_to_the_question_reaches_nobody() {
    let value = |name: &str, data: &str| json!({"SecretName": name, "SecretData": data, "VersionId": "v1", "VersionStages": {"VersionStage": ["ACSCurrent"]}});
    let faults = [
        // Of a secret that nobody asked for, and the same one twice.
        Fault::patch(
            &json!({"SecretValues": [value("other/db", "planted"), value("a0", "planted"), value("a0", "planted too")]}),
        ),
        // Another version, and a value and an error of one secret.
        Fault::patch(&json!({
            "SecretValues": [value("b1", "planted"), {"SecretName": "b2", "SecretData": "planted", "VersionStages": ["ACSPrevious"]}],
            "Errors": [{"SecretName": "b1", "Code": "Forbidden.ResourceNotFound", "HttpStatus": 404}],
        })),
        Fault::patch(&json!({"SecretValues": {}, "Errors": "none"})),
        Fault::new(Effect::GarbageBody),
        Fault::new(Effect::Empty),
        // What concerns one of them is not what the others are told.
        Fault::code("Forbidden.NoPermission"),
        Fault::code("Forbidden.ResourceNotFound"),
        Fault::code("Rejected.Disabled"),
        Fault::code("Forbidden.DKMSInstanceStateInvalid"),
        Fault::code("Forbidden.InDebt"),
    ];
    for (fault, name) in faults.into_iter().zip('a'..) {
        let world = World::new().await;
        world.kms.fault(fault.on_action("BatchGetSecretValue"));
        let names = twenty(&world, &name.to_string()).await;
        let operator = world.operator().await;
        until_right(&world, &names).await;
        assert!(world.kms.count("BatchGetSecretValue") > 0, "{name}");
        assert_eq!(failures(&operator).await, 0, "{name}");
    }
}

#[tokio::test]
async fn secrets_that_make_a_batch_too_large_spoil_it_for_nobody() {
    let world = World::new().await;
    let names = twenty(&world, "n").await;
    // As JSON, each is twice as long.
    for name in &names[1..] {
        world.kms.put_generic(name, &"\"".repeat(30 << 10));
    }
    let operator = world.operator().await;
    until_right(&world, &names[..1]).await;
    for name in &names {
        world.until_synced(name).await;
    }
    assert!(world.kms.count("BatchGetSecretValue") > 0);
    assert_eq!(failures(&operator).await, 0);
}
