//! Every way to credentials, on a real API server whose tokens the emulated STS verifies.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kms_emulator::jiff::SignedDuration;
use kms_emulator::{Fault, MetadataMode, Role, StsKey};
use kms_secret_operator::alibaba::environment::{self, Environment};
use kms_secret_operator::api::{ClusterKmsStore, KmsSecret, KmsStore};
use kms_secret_operator::cluster::Cluster;
use kms_secret_operator::sync::Reason;
use kube::Api;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};

use crate::world::{KEY_ID, KEY_SECRET, Operator, World, a_while, condition, eventually};

const PROVIDER: &str = "acs:ram::1234567890123456:oidc-provider/ack-rrsa-test";
const ROLE: &str = "acs:ram::1234567890123456:role/shop";
pub(crate) const SECOND: &str = "acs:ram::1234567890123456:role/second";
const REMOTE: &str = "acs:ram::9876543210987654:role/remote";
const OIDC: &str = "AssumeRoleWithOIDC";

/// A world whose cluster is an OIDC provider in RAM, with the ServiceAccount `orders`, whose role takes its tokens, and
/// the store `rrsa`.
async fn federated() -> World {
    let world = World::new().await;
    world.kms.put_generic("app/text", "hello");
    federate(&world).await;
    world
}

/// The same for a world that is there.
pub(crate) async fn federate(world: &World) {
    add_provider(world).await;
    world.kms.add_oidc_role(ROLE, PROVIDER, &subject(world));
    account(world, "orders", json!({"alikms.dev/role-arn": ROLE})).await;
    store(world, "rrsa", rrsa("orders"), json!({})).await;
}

/// Registers the cluster's own issuer and keys, as the API server publishes them.
async fn add_provider(world: &World) {
    let get = async |folder: &str, name: &str| {
        let request = Request::new(folder).get(name, &GetParams::default());
        let request = request.unwrap();
        world.client.request_text(request).await.unwrap()
    };
    let configuration: Value =
        serde_json::from_str(&get("/.well-known", "openid-configuration").await).unwrap();
    let issuer = configuration["issuer"].as_str().unwrap();
    let jwks = get("/openid/v1", "jwks").await;
    world
        .kms
        .add_oidc_provider(PROVIDER, issuer, &jwks)
        .unwrap();
}

fn subject(world: &World) -> String {
    format!("system:serviceaccount:{}:orders", world.namespace)
}

pub(crate) async fn account(world: &World, name: &str, annotations: Value) {
    let manifest = json!({"metadata": {"annotations": annotations}});
    world.apply::<ServiceAccount>(name, manifest).await;
}

pub(crate) fn rrsa(account: &str) -> Value {
    json!({"serviceAccount": {"name": account, "oidcProviderArn": PROVIDER}})
}

pub(crate) async fn store(world: &World, name: &str, auth: Value, more: Value) {
    let mut spec = json!({"region": "cn-hangzhou", "endpoint": world.kms.origin(), "auth": auth});
    let more = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(more);
    world.apply::<KmsStore>(name, json!({"spec": spec})).await;
}

async fn read(world: &World, name: &str, store: &str) {
    let more = json!({"storeRef": {"name": store}});
    world.kms_secret(name, "app/text", more).await;
}

fn message(object: &KmsSecret) -> String {
    condition(object, "Ready").unwrap().2.to_owned()
}

/// The keys that secrets were read with, in order and without repeats.
fn keys(world: &World) -> Vec<String> {
    keys_of(world, None)
}

fn keys_of(world: &World, secret: Option<&str>) -> Vec<String> {
    let reads = world.kms.reads().into_iter();
    let reads = reads.filter(|read| secret.is_none() || read.secret.as_deref() == secret);
    let mut keys: Vec<_> = reads.filter_map(|read| read.access_key).collect();
    keys.dedup();
    keys
}

#[tokio::test]
async fn the_role_of_a_service_account_is_taken_once_for_a_hundred_secrets() {
    let world = federated().await;
    let names: Vec<_> = (0..100).map(|n| format!("o{n}")).collect();
    for name in &names {
        read(&world, name, "rrsa").await;
    }
    let _operator = world.operator().await;
    for name in &names {
        world.until_synced(name).await;
    }
    assert_eq!(world.kms.count(OIDC), 1);
    assert!(keys(&world).iter().all(|key| key.starts_with("STS.")));
}

#[tokio::test]
async fn two_stores_that_look_alike_share_no_session() {
    let world = federated().await;
    store(&world, "twin", rrsa("orders"), json!({})).await;
    let _operator = world.operator().await;
    for store in ["rrsa", "twin"] {
        read(&world, store, store).await;
        world.until_synced(store).await;
    }
    assert_eq!(world.kms.count(OIDC), 2);
    assert_eq!(keys(&world).len(), 2);
}

#[tokio::test]
async fn a_service_account_is_used_only_with_its_consent() {
    let world = federated().await;
    account(&world, "silent", json!({})).await;
    store(&world, "silent", rrsa("silent"), json!({})).await;
    let _operator = world.operator().await;
    world.settled().await;
    let exchanges = world.kms.count(OIDC);
    read(&world, "silent", "silent").await;
    let object = world
        .until_ready("silent", "False", "CredentialsNotAllowed")
        .await;
    let command = format!(
        "`kubectl annotate serviceaccount -n {} silent alikms.dev/role-arn=",
        world.namespace
    );
    assert!(message(&object).contains(&command), "{}", message(&object));

    // A role that the ServiceAccount does not name is not taken, not even one that would take its tokens.
    let mut auth = rrsa("orders");
    auth["serviceAccount"]["roleArn"] = SECOND.into();
    world.kms.add_oidc_role(SECOND, PROVIDER, &subject(&world));
    store(&world, "other", auth, json!({})).await;
    read(&world, "other", "other").await;
    let object = world
        .until_ready("other", "False", "CredentialsNotAllowed")
        .await;
    for part in [ROLE, SECOND, "--overwrite"] {
        assert!(message(&object).contains(part), "{}", message(&object));
    }
    store(&world, "nobody", rrsa("nobody"), json!({})).await;
    read(&world, "nobody", "nobody").await;
    world
        .until_ready("nobody", "False", "CredentialsNotFound")
        .await;
    assert_eq!(world.kms.count(OIDC), exchanges, "STS was not asked");

    world
        .kms
        .add_oidc_role(ROLE, PROVIDER, &subject(&world).replace("orders", "silent"));
    account(
        &world,
        "silent",
        json!({"ack.alibabacloud.com/role-arn": ROLE}),
    )
    .await;
    eventually("it heals when it is asked for", async || {
        world.force("silent").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.data("silent").await.get("value").map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_role_that_does_not_trust_the_account_is_told_and_costs_few_calls() {
    let world = federated().await;
    world.kms.put_role(Role::new(ROLE));
    let names: Vec<_> = (0..50).map(|n| format!("o{n}")).collect();
    for name in &names {
        read(&world, name, "rrsa").await;
    }
    let _operator = world.operator().await;
    for name in &names {
        world.until_ready(name, "False", "IdentityRefused").await;
    }
    let message = message(&world.object("o0").await);
    for part in [
        "\"rrsa\"",
        "AssumeRoleWithOIDC",
        ROLE,
        "AuthenticationFail.NoPermission",
        "trust policy",
    ] {
        assert!(message.contains(part), "{message}");
    }
    for _ in 0..3 {
        world.force("o0").await;
        a_while().await;
    }
    assert_eq!(world.kms.count(OIDC), 1, "a forced sync hears it again");
    assert_eq!(world.kms.reads().len(), 0);
}

#[tokio::test]
async fn a_token_that_expired_on_its_way_is_replaced_once() {
    let world = federated().await;
    let fault = || Fault::code("AuthenticationFail.OIDCToken.Expired").on_action(OIDC);
    world.kms.fault(fault().times(1));
    let _operator = world.operator().await;
    read(&world, "text", "rrsa").await;
    world.until_synced("text").await;
    assert_eq!(world.kms.count(OIDC), 2);
    world.kms.fault(fault());
    store(&world, "again", rrsa("orders"), json!({})).await;
    read(&world, "again", "again").await;
    world.until_ready("again", "False", "IdentityRefused").await;
    assert_eq!(world.kms.count(OIDC), 4);
}

#[tokio::test]
async fn the_rights_of_the_example_suffice_and_never_reach_the_account_of_the_operator() {
    let world = federated().await;
    let client = world.with_rights_of_the_example().await;
    account(&world, "operator", json!({"alikms.dev/role-arn": ROLE})).await;
    let subject = subject(&world).replace("orders", "operator");
    world.kms.add_oidc_role(ROLE, PROVIDER, &subject);
    store(&world, "own", rrsa("operator"), json!({})).await;

    let own = &world.namespace;
    let flags = ["--namespace", own, "--lease-namespace", own];
    let _operator = world.operator_by(client, &flags, |_| ()).await;
    read(&world, "text", "rrsa").await;
    world.until_synced("text").await;
    world.kms.reset_calls();
    read(&world, "own", "own").await;
    let object = world
        .until_ready("own", "False", "CredentialsNotAllowed")
        .await;
    assert!(message(&object).contains("operator's own"));
    assert_eq!(world.kms.count(OIDC), 0);
}

#[tokio::test]
async fn a_service_account_that_was_made_anew_since_its_consent_gives_no_token() {
    let world = federated().await;
    let cluster = Cluster::new(world.client.clone(), |_, _| ());
    let namespace = &world.namespace;
    let seen = cluster.service_account(namespace, "orders").await.unwrap();
    let uid = seen.unwrap().uid.unwrap();
    assert!(cluster.token(namespace, "orders", &uid).await.is_ok());
    world.delete::<ServiceAccount>("orders").await;
    account(&world, "orders", json!({})).await;
    let refused = cluster.token(namespace, "orders", &uid).await;
    assert_eq!(
        refused.map(|_| ()).unwrap_err().reason,
        Reason::CredentialsNotFound
    );
}

#[tokio::test]
async fn a_pair_of_one_origin_is_trusted_by_one_authority() {
    let world = federated().await;
    let more = json!({"endpoint": world.kms.https_origin(), "caBundle": world.kms.ca_pem()});
    store(&world, "private", rrsa("orders"), more).await;
    let pair = world.kms.https_origin();
    let _operator = world.operator_with(&["--allow-endpoint", &pair]).await;
    read(&world, "text", "private").await;
    world.until_synced("text").await;

    // Elsewhere, the store's authority counts for nothing.
    let apart = World::new().await;
    federate(&apart).await;
    let (kms, sts) = (apart.kms.https_origin(), world.kms.https_origin());
    let more = json!({"endpoint": kms, "caBundle": world.kms.ca_pem()});
    store(&apart, "apart", rrsa("orders"), more).await;
    let pair = format!("{kms}={sts}");
    let _operator = apart.operator_with(&["--allow-endpoint", &pair]).await;
    read(&apart, "text", "apart").await;
    let object = apart
        .until_ready("text", "False", "IdentityUnavailable")
        .await;
    assert!(
        message(&object).contains("certificate"),
        "{}",
        message(&object)
    );
}

#[tokio::test]
async fn roles_are_assumed_one_by_the_other_into_another_account() {
    let world = federated().await;
    world.kms.put_role(Role::new(SECOND).trusting(ROLE));
    let remote = || Role::new(REMOTE).trusting(SECOND).external_id("shop-7");
    world.kms.put_role(remote());
    let arn = "acs:kms:cn-hangzhou:9876543210987654:secret/app/remote";
    world.kms.put_generic(arn, "from afar");
    let hops = |id: &str| json!({"assumeRole": [{"roleArn": SECOND, "durationSeconds": 900}, {"roleArn": REMOTE, "externalId": id}]});
    store(&world, "remote", rrsa("orders"), hops("shop-7")).await;
    let _operator = world.operator().await;
    let more = json!({"storeRef": {"name": "remote"}});
    world.kms_secret("remote", "app/remote", more).await;
    world.until_text("remote", "value", "from afar").await;
    world.settled().await;
    // One exchange for each of the two stores, made when they were looked at, and the hops of the one that has any.
    assert_eq!(
        (world.kms.count(OIDC), world.kms.count("AssumeRole")),
        (2, 2)
    );

    store(&world, "wrong", rrsa("orders"), hops("shop-8")).await;
    read(&world, "wrong", "wrong").await;
    let object = world.until_ready("wrong", "False", "IdentityRefused").await;
    let message = message(&object);
    for part in [
        &format!("assumeRole[1] {REMOTE}"),
        "NoPermission",
        "externalId",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_session_out_of_a_secret_reads_and_assumes_roles() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "hello");
    let sts = StsKey::fresh(world.kms.now() + SignedDuration::from_hours(1));
    world.kms.add_sts_key(&sts);
    world.kms.add_role(ROLE);
    let manifest = json!({
        "metadata": {"labels": {"alikms.dev/credentials": "true"}},
        "stringData": {"accessKeyId": sts.access_key_id, "accessKeySecret": sts.access_key_secret, "token": sts.security_token},
    });
    world.apply::<Secret>("sts", manifest).await;
    let auth = json!({"accessKey": {"secretRef": {"name": "sts", "securityTokenKey": "token"}}});
    store(&world, "session", auth.clone(), json!({})).await;
    let hop = json!({"assumeRole": [{"roleArn": ROLE}]});
    store(&world, "hop", auth, hop.clone()).await;
    let key = json!({"accessKey": {"secretRef": {"name": "kms-credentials"}}});
    store(&world, "key", key, hop).await;
    let _operator = world.operator().await;
    for name in ["session", "hop", "key"] {
        read(&world, name, name).await;
        world.until_synced(name).await;
    }
    assert_eq!(world.kms.count("AssumeRole"), 2);
    assert!(
        !keys(&world).contains(&KEY_ID.to_owned()),
        "the session of the role reads"
    );
    world.kms.disable_key(KEY_ID);
    store(
        &world,
        "disabled",
        json!({"accessKey": {"secretRef": {"name": "kms-credentials"}}}),
        json!({"assumeRole": [{"roleArn": ROLE}]}),
    )
    .await;
    read(&world, "disabled", "disabled").await;
    let object = world
        .until_ready("disabled", "False", "IdentityRefused")
        .await;
    assert!(message(&object).contains("InvalidAccessKeyId.Inactive"));
}

/// This takes a minute and a half: no two exchanges of one identity are closer than a minute.
#[tokio::test]
async fn a_session_is_replaced_when_kms_refuses_it_and_ahead_of_its_end() {
    let world = federated().await;
    for name in ["long", "short"] {
        world.kms.put_generic(name, "one");
    }
    let _operator = world.operator().await;
    let more = json!({"storeRef": {"name": "rrsa"}});
    world.kms_secret("long", "long", more).await;
    world.until_synced("long").await;
    world
        .kms
        .set_session_lifetime(Some(Duration::from_secs(100)));
    store(&world, "short", rrsa("orders"), json!({})).await;
    let more = json!({"storeRef": {"name": "short"}, "refresh": {"interval": "2s"}});
    world.kms_secret("short", "short", more).await;
    world.until_synced("short").await;
    world.kms.set_session_lifetime(None);
    tokio::time::sleep(Duration::from_secs(60)).await;

    // KMS refuses the session: one exchange, and the read is made again.
    let refused = Fault::code("InvalidSecurityToken.Expired").on_secret("long");
    world.kms.fault(refused.times(1));
    world.kms.put_generic("long", "two");
    world.force("long").await;
    world.until_text("long", "value", "two").await;
    world.until_synced("long").await;
    assert_eq!(world.kms.count(OIDC), 3);
    assert_eq!(keys_of(&world, Some("long")).len(), 2);

    // STS is down when the other should be renewed: the old session serves.
    world
        .kms
        .fault(Fault::code("ServiceUnavailableTemporary").on_action(OIDC));
    let began = std::time::Instant::now();
    while world.kms.count(OIDC) == 3 && began.elapsed() < Duration::from_secs(60) {
        a_while().await;
    }
    assert!(world.kms.count(OIDC) > 3, "it is renewed ahead");
    world.kms.put_generic("short", "two");
    world.until_text("short", "value", "two").await;
    assert_eq!(keys_of(&world, Some("short")).len(), 1);
    world.kms.clear_faults();
    eventually("a new session reads", async || {
        (keys_of(&world, Some("short")).len() == 2).then_some(())
    })
    .await;
    let is_refused = |outcome: &str| outcome.starts_with("InvalidSecurityToken");
    assert_eq!(world.kms.count_where(|call| is_refused(&call.outcome)), 1);
    let object = world.object("short").await;
    assert_eq!(condition(&object, "Ready").unwrap().0, "True");
}

/// Makes a `ClusterKmsStore` and a KmsSecret of that name that uses it.
pub(crate) async fn read_by_cluster(world: &World, name: &str, auth: Value) {
    let spec = json!({
        "region": "cn-hangzhou", "endpoint": world.kms.origin(), "auth": auth,
        "namespaces": {"names": [world.namespace]}, "secretNames": ["app/*"],
    });
    let manifest = json!({
        "apiVersion": "alikms.dev/v1alpha1", "kind": "ClusterKmsStore", "metadata": {"name": name}, "spec": spec,
    });
    let params = PatchParams::apply("user").force();
    Api::<ClusterKmsStore>::all(world.client.clone())
        .patch(name, &params, &Patch::Apply(&manifest))
        .await
        .unwrap();
    let more = json!({"storeRef": {"kind": "ClusterKmsStore", "name": name}});
    world.kms_secret(name, "app/text", more).await;
}

/// A token of the ServiceAccount `orders`, as the kubelet writes it into a pod.
async fn mounted_token(world: &World) -> std::path::PathBuf {
    let wanted: TokenRequest = serde_json::from_value(json!({
        "spec": {"audiences": ["sts.aliyuncs.com"], "expirationSeconds": 3600},
    }))
    .unwrap();
    let made = world
        .api::<ServiceAccount>()
        .create_token_request("orders", &PostParams::default(), &wanted)
        .await
        .unwrap();
    let path = std::env::temp_dir().join(format!("{}.token", world.namespace));
    std::fs::write(&path, made.status.unwrap().token).unwrap();
    path
}

pub(crate) async fn operator_in(world: &World, environment: &[(&str, &str)]) -> Operator {
    let get = |name: &'static str| {
        let found = environment.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let environment: Environment = environment::read(get, &[]).unwrap();
    let metadata = world.kms.origin();
    let client = world.cluster.client().await;
    let flags = ["--metadata-endpoint", &metadata];
    let adapt = |run: &mut kms_secret_operator::config::Run| run.reach.environment = environment;
    world.operator_by(client, &flags, adapt).await
}

#[tokio::test]
async fn a_cluster_store_may_read_as_the_operator_or_as_its_node() {
    let world = World::alone().await;
    world.kms.put_generic("app/text", "hello");
    add_provider(&world).await;
    world.kms.add_oidc_role(ROLE, PROVIDER, &subject(&world));
    account(&world, "orders", json!({})).await;
    let token = mounted_token(&world).await;
    let operator = operator_in(
        &world,
        &[
            ("ALIBABA_CLOUD_ROLE_ARN", ROLE),
            ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", PROVIDER),
            ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", token.to_str().unwrap()),
        ],
    )
    .await;
    read_by_cluster(&world, "own", json!({"operator": {}})).await;
    world.until_synced("own").await;
    assert_eq!(world.kms.count(OIDC), 1);
    std::fs::write(&token, "no.token.any-more").unwrap();
    read_by_cluster(&world, "stale", json!({"operator": {}})).await;
    let object = world.until_ready("stale", "False", "IdentityRefused").await;
    assert!(message(&object).contains("AuthenticationFail.OIDCToken.Invalid"));
    std::fs::remove_file(&token).unwrap();
    read_by_cluster(&world, "gone", json!({"operator": {}})).await;
    let object = world
        .until_ready("gone", "False", "CredentialsNotFound")
        .await;
    assert!(message(&object).contains(".token"));

    read_as_the_node(&world).await;
    operator.stop().await;

    // An AccessKey serves as well, and nothing else is tried where there is none.
    let key = [
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", KEY_SECRET),
    ];
    let operator = operator_in(&world, &key).await;
    world.kms.reset_calls();
    read_by_cluster(&world, "key", json!({"operator": {}})).await;
    world.until_synced("key").await;
    assert!(keys(&world).contains(&KEY_ID.to_owned()));
    operator.stop().await;
    let _operator = operator_in(&world, &[]).await;
    read_by_cluster(&world, "none", json!({"operator": {}})).await;
    let object = world
        .until_ready("none", "False", "CredentialsNotFound")
        .await;
    assert!(message(&object).contains("ack-pod-identity-webhook"));
}

async fn read_as_the_node(world: &World) {
    let kms = &world.kms;
    let node = || json!({"ecsRamRole": {}});
    read_by_cluster(world, "no-role", node()).await;
    let object = world
        .until_ready("no-role", "False", "IdentityRefused")
        .await;
    assert!(
        message(&object).contains("RAM role"),
        "{}",
        message(&object)
    );

    kms.set_instance_role(Some("worker"));
    for (name, mode) in [
        ("both", MetadataMode::Both),
        ("second", MetadataMode::V2Only),
        ("first", MetadataMode::V1Only),
        ("not-allowed", MetadataMode::V1OnlyNotAllowed),
    ] {
        kms.set_metadata_mode(mode);
        read_by_cluster(world, name, node()).await;
        world.until_synced(name).await;
    }
    kms.set_metadata_mode(MetadataMode::Both);
    read_by_cluster(
        world,
        "named",
        json!({"ecsRamRole": {"roleName": "worker"}}),
    )
    .await;
    world.until_synced("named").await;
    read_by_cluster(world, "other", json!({"ecsRamRole": {"roleName": "other"}})).await;
    world.until_ready("other", "False", "IdentityRefused").await;
    kms.set_metadata_mode(MetadataMode::NotSuccess);
    read_by_cluster(world, "failed", node()).await;
    let object = world
        .until_ready("failed", "False", "IdentityRefused")
        .await;
    assert!(
        message(&object).contains("(Failed)"),
        "{}",
        message(&object)
    );

    // A service that is out of order is not asked in another way.
    kms.set_metadata_mode(MetadataMode::Broken);
    let asked = kms.count("MetadataRole") + kms.count("MetadataCredentials");
    read_by_cluster(world, "broken", node()).await;
    world
        .until_ready("broken", "False", "IdentityUnavailable")
        .await;
    assert_eq!(
        kms.count("MetadataRole") + kms.count("MetadataCredentials"),
        asked
    );
    kms.set_metadata_mode(MetadataMode::V2Only);
    world.until_synced("broken").await;
}
