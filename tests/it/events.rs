//! KMS tells of a change, and the Secret follows at once; nobody else can tell anything, and telling costs little.

use std::path::PathBuf;
use std::time::Instant;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kms_emulator::Managed;
use kms_secret_operator::api::{ClusterKmsStore, KmsSecret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::world::{Operator, World, a_while, condition, eventually};

const TOKEN: &str = "a-token-of-the-test-that-is-long-enough";
const REGION: &str = "cn-hangzhou";

/// Files of one test, gone with it.
pub(crate) struct Files(PathBuf);

impl Files {
    fn of(world: &World) -> Self {
        let folder = std::env::temp_dir().join(format!("{}-events", world.namespace));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An operator that is told by whoever has the token.
pub(crate) async fn told_operator(world: &World, flags: &[&str]) -> (Operator, Files) {
    let files = Files::of(world);
    let token = files.write("token", TOKEN);
    let listen = [
        "--event-listen",
        "127.0.0.1:0",
        "--event-token-file",
        &token,
    ];
    (
        world.operator_of(&[&listen[..], flags].concat()).await,
        files,
    )
}

async fn namespaced(world: &World) -> (Operator, Files) {
    told_operator(world, &["--namespace", &world.namespace]).await
}

fn url(operator: &Operator) -> String {
    format!("http://{}/events", operator.events.unwrap())
}

/// Posts a body with the token.
async fn post(operator: &Operator, body: String) -> (StatusCode, String) {
    post_by(&Client::new(), operator, body).await
}

async fn post_by(client: &Client, operator: &Operator, body: String) -> (StatusCode, String) {
    let request = client.post(url(operator)).bearer_auth(TOKEN).body(body);
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// Tells of events and answers how many were accepted.
pub(crate) async fn tell(operator: &Operator, events: &Value) -> u64 {
    let (status, text) = post(operator, events.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["accepted"].as_u64().unwrap()
}

/// A system event of `CloudMonitor`.
pub(crate) fn rotated(id: &str, arn: &str) -> Value {
    let name = arn.split_once(":secret/").map_or(arn, |(_, name)| name);
    json!({
        "product": "KMS", "level": "INFO", "name": "Secret:RotateSecret:Success", "status": "Normal", "ver": "1.0",
        "regionId": arn.split(':').nth(2).unwrap_or(REGION), "resourceId": format!(" {arn}"),
        "content": {"eventId": id, "secretName": name, "secretType": "Rds", "rotationStatus": "Enabled"},
    })
}

fn failed(id: &str, name: &str) -> Value {
    let mut event = rotated(id, name);
    event["name"] = json!("Secret:RotateSecret:Failure");
    event["content"]["failureInfo"] =
        json!({"errorCode": "X", "errorMessage": "a text that nobody sees"});
    event
}

/// An operation that `ActionTrail` recorded, as `EventBridge` delivers it.
fn recorded(id: &str, operation: &str, name: &str) -> Value {
    json!({
        "id": id, "source": "acs.kms", "specversion": "1.0", "type": "kms:ActionTrail:ApiCall",
        "aliyunregionid": REGION,
        "data": {
            "eventId": id, "eventRW": "Write", "serviceName": "Kms", "eventName": operation, "acsRegion": REGION,
            "requestParameters": {"SecretName": name, "SecretData": "hidden"},
        },
    })
}

/// An operator that is told, and the KmsSecret `text` with the text `one` of KMS's `app/text`, which is due in an hour.
async fn synced() -> (World, Operator, Files) {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let (operator, files) = namespaced(&world).await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    world.kms.reset_calls();
    (world, operator, files)
}

#[tokio::test]
async fn a_rotation_by_hand_reaches_the_secret_when_cloudmonitor_tells_of_it() {
    let world = World::new().await;
    world.kms.put_managed(
        "app/db",
        Managed::rds(std::time::Duration::from_secs(86_400)),
    );
    let (operator, _files) = namespaced(&world).await;
    let spec = json!({"refresh": {"interval": "1h"}});
    world.kms_secret("db", "app/db", spec).await;
    world.until_synced("db").await;
    world.kms.rotate("app/db").unwrap();
    let arn = "acs:kms:cn-hangzhou:1234567890123456:secret/app/db";
    assert_eq!(tell(&operator, &rotated("e1", arn)).await, 1);
    let value = world.kms.current("app/db").unwrap().value;
    world.until_text("db", "value", &value).await;
    let syncs = "kms_secret_operator_syncs_total";
    assert_eq!(
        operator
            .counter(syncs, &["why=\"hinted\"", "reason=\"Synced\""])
            .await,
        1
    );
}

#[tokio::test]
async fn a_new_value_reaches_the_secret_when_eventbridge_tells_of_it() {
    let (world, operator, _files) = synced().await;
    world.kms.put_generic("app/text", "two");
    let other = recorded("e1", "PutSecretValue", "app/other");
    let unknown = json!({"type": "kms:Config:NonCompliantNotification", "data": {}});
    let batch = json!([other, unknown, recorded("e2", "PutSecretValue", "app/text")]);
    let (status, text) = post(&operator, batch.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer, json!({"accepted": 2, "duplicate": 0, "ignored": 1}));
    world.until_text("text", "value", "two").await;
    assert_eq!(world.kms.reads().len(), 1);
}

#[tokio::test]
async fn a_secret_that_was_missing_is_read_when_kms_tells_that_it_was_made() {
    let world = World::new().await;
    let (operator, _files) = namespaced(&world).await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_ready("text", "False", "SecretNotFound").await;
    world.kms.put_generic("app/text", "one");
    tell(&operator, &recorded("e1", "CreateSecret", "app/text")).await;
    world.until_text("text", "value", "one").await;
}

#[tokio::test]
async fn without_the_token_nothing_is_told_and_nothing_is_learned() {
    let (world, operator, _files) = synced().await;
    world.kms.put_generic("app/text", "two");
    let event = rotated("e1", "app/text").to_string();
    let client = Client::new();
    let wrong = format!("{}X", &TOKEN[..TOKEN.len() - 1]);
    let base = url(&operator);
    for (request, body) in [
        (client.post(&base), &event),
        (client.post(&base).bearer_auth(&wrong), &event),
        (client.post(&base).bearer_auth(""), &event),
        (client.post(&base).basic_auth("user", Some(TOKEN)), &event),
        (client.post(&base).header("authorization", TOKEN), &event),
        (
            client
                .post(&base)
                .header("x-eventbridge-signature-token", &wrong),
            &event,
        ),
        (client.post(format!("{base}?token={TOKEN}")), &event),
        (
            client.post(format!("{base}/none")).bearer_auth(&wrong),
            &event,
        ),
        (client.get(&base), &event),
    ] {
        let answer = request.body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.text().await.unwrap(), "");
    }
    // Its body is not even read, so that the connection may break before the answer arrives.
    let large = client.post(&base).bearer_auth(&wrong);
    if let Ok(answer) = large.body("x".repeat(100_000)).send().await {
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    a_while().await;
    assert_eq!(world.kms.reads().len(), 0);
    let notices = "kms_secret_operator_event_notices_total";
    assert_eq!(
        operator
            .counter(notices, &["outcome=\"unauthorised\""])
            .await,
        10
    );

    let eventbridge = client
        .post(&base)
        .header("x-eventbridge-signature-token", TOKEN);
    let answer = eventbridge.body(event).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    world.until_text("text", "value", "two").await;
}

#[tokio::test]
async fn what_is_no_notice_is_refused_or_ignored_without_a_call() {
    let (world, operator, _files) = synced().await;
    let mut large = rotated("e1", "app/text").to_string();
    large.extend(std::iter::repeat_n(' ', 64 * 1024 + 1 - large.len()));
    for (body, status) in [
        (large, StatusCode::PAYLOAD_TOO_LARGE),
        ("no JSON".to_owned(), StatusCode::BAD_REQUEST),
        (String::new(), StatusCode::BAD_REQUEST),
        ("{}".to_owned(), StatusCode::ACCEPTED),
        ("[".repeat(60_000), StatusCode::BAD_REQUEST),
    ] {
        let (is, text) = post(&operator, body).await;
        assert_eq!(is, status);
        assert!(!text.contains("app/text"), "{text}");
    }
    let client = Client::new();
    let elsewhere = format!("{}/none", url(&operator));
    for (request, status) in [
        (client.post(elsewhere), StatusCode::NOT_FOUND),
        (client.get(url(&operator)), StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = request.bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    a_while().await;
    assert_eq!(world.kms.reads().len(), 0);
}

#[tokio::test]
async fn an_event_that_comes_again_costs_no_call() {
    let (world, operator, _files) = synced().await;
    world.kms.put_generic("app/text", "two");
    assert_eq!(tell(&operator, &rotated("e1", "app/text")).await, 1);
    world.until_text("text", "value", "two").await;
    for _ in 0..5 {
        assert_eq!(tell(&operator, &rotated("e1", "app/text")).await, 0);
    }
    a_while().await;
    assert_eq!(world.kms.reads().len(), 1);
}

#[tokio::test]
async fn a_flood_costs_what_the_bucket_holds_and_its_last_word_arrives() {
    let (world, operator, _files) = synced().await;
    let (began, client) = (Instant::now(), Client::new());
    let mut ids = 0..;
    loop {
        let flood = ids.by_ref().take(300).map(|id| {
            let event = rotated(&id.to_string(), "app/text");
            post_by(&client, &operator, event.to_string())
        });
        let answers: Vec<_> = futures::stream::iter(flood)
            .buffer_unordered(16)
            .map(|(status, _)| status)
            .collect()
            .await;
        let limited = |status: &StatusCode| *status == StatusCode::TOO_MANY_REQUESTS;
        assert!(
            answers
                .iter()
                .all(|status| limited(status) || *status == StatusCode::ACCEPTED)
        );
        if answers.iter().any(limited) {
            break;
        }
    }
    world.kms.put_generic("app/text", "two");
    eventually("the last word is let in", async || {
        let (status, _) = post(&operator, rotated("last", "app/text").to_string()).await;
        (status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    world.until_text("text", "value", "two").await;
    let reads = world.kms.reads().len() as u64;
    let allowed = 2 + began.elapsed().as_secs() / 10;
    assert!(reads <= allowed, "{reads} reads, {allowed} allowed");
}

#[tokio::test]
async fn a_notice_for_another_place_or_for_those_who_do_not_follow_is_none() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let (operator, _files) = namespaced(&world).await;
    let arn = |region: &str, account: &str| format!("acs:kms:{region}:{account}:secret/app/text");
    let ours = arn(REGION, "1234567890123456");
    world.kms_secret("text", "app/text", json!({})).await;
    world.kms_secret("arn", &ours, json!({})).await;
    for (name, spec) in [
        ("once", json!({"refresh": {"policy": "Once"}})),
        ("change", json!({"refresh": {"policy": "OnChange"}})),
        ("suspended", json!({})),
    ] {
        world.kms_secret(name, "app/text", spec).await;
    }
    for name in ["text", "arn", "once", "change", "suspended"] {
        world.until_synced(name).await;
    }
    world
        .kms_secret("suspended", "app/text", json!({"suspend": true}))
        .await;
    world.until_ready("suspended", "True", "Suspended").await;
    world.kms.put_generic("app/text", "two");
    world.kms.reset_calls();
    tell(
        &operator,
        &rotated("e1", &arn("cn-beijing", "1234567890123456")),
    )
    .await;
    tell(
        &operator,
        &rotated("e2", "acs:kms:cn-hangzhou:1:secret/app/tex"),
    )
    .await;
    a_while().await;
    assert_eq!(world.kms.reads().len(), 0);

    // An account is known of an ARN only.
    tell(&operator, &rotated("e3", &arn(REGION, "9"))).await;
    world.until_text("text", "value", "two").await;
    a_while().await;
    assert_eq!(world.text("arn", "value").await.unwrap(), "one");
    tell(&operator, &rotated("e4", &ours)).await;
    world.until_text("arn", "value", "two").await;
    for name in ["once", "change", "suspended"] {
        assert_eq!(world.text(name, "value").await.unwrap(), "one", "{name}");
    }
}

#[tokio::test]
async fn a_notice_wakes_every_namespace_through_its_own_store_only() {
    let world = World::alone().await;
    world.kms.put_generic("shared/db", "one");
    let spec = json!({
        "region": REGION, "endpoint": world.kms.origin(), "namespaces": {"names": ["shop", "till"]},
        "secretNames": ["shared/*"],
        "auth": {"accessKey": {"secretRef": {"namespace": world.namespace, "name": "kms-credentials"}}},
    });
    world
        .apply_cluster::<ClusterKmsStore>(json!({"spec": spec}))
        .await;
    for name in ["shop", "till", "other"] {
        let space: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let spaces = Api::<Namespace>::all(world.client.clone());
        spaces.create(&PostParams::default(), &space).await.unwrap();
        let manifest = json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "metadata": {"name": "db"},
            "spec": {
                "storeRef": {"name": world.namespace, "kind": "ClusterKmsStore"},
                "source": {"secretName": "shared/db"},
            },
        });
        let objects = Api::<KmsSecret>::namespaced(world.client.clone(), name);
        let params = PatchParams::apply("user").force();
        objects
            .patch("db", &params, &Patch::Apply(&manifest))
            .await
            .unwrap();
    }
    let (operator, _files) = told_operator(&world, &[]).await;
    let until = async |namespace: &str, reason: &str, version: Option<&str>| {
        let objects = Api::<KmsSecret>::namespaced(world.client.clone(), namespace);
        eventually(&format!("{namespace}/db is {reason}"), async || {
            let object = objects.get("db").await.unwrap();
            let is = condition(&object, "Ready")?.1 == reason;
            let sources = &object.status.as_ref()?.sources;
            let read = sources.first().map(|source| source.version_id.as_str());
            (is && version.is_none_or(|version| read == Some(version))).then_some(())
        })
        .await;
    };
    until("shop", "Synced", None).await;
    until("till", "Synced", None).await;
    until("other", "NotAllowed", None).await;
    world.kms.put_generic("shared/db", "two");
    world.kms.reset_calls();
    tell(&operator, &rotated("e1", "shared/db")).await;
    let version = world.kms.current("shared/db").unwrap().version_id;
    until("shop", "Synced", Some(&version)).await;
    until("till", "Synced", Some(&version)).await;
    let hints = "kms_secret_operator_event_hints_total";
    assert_eq!(operator.counter(hints, &["result=\"due\""]).await, 2);
    assert_eq!(
        operator.counter(hints, &["result=\"not_allowed\""]).await,
        1
    );
    assert!(
        world.kms.reads().len() <= 2,
        "and nobody reads for the third"
    );
    until("other", "NotAllowed", None).await;
}

#[tokio::test]
async fn an_operator_of_several_namespaces_tells_each_of_them() {
    let (world, other) = (World::new().await, World::new().await);
    let here = json!({"endpoint": world.kms.origin()});
    other.store("prod", "kms-credentials", here).await;
    world.kms.put_generic("app/text", "one");
    let namespaces = [
        "--namespace",
        &world.namespace,
        "--namespace",
        &other.namespace,
    ];
    let (operator, _files) = told_operator(&world, &namespaces).await;
    for world in [&world, &other] {
        world.kms_secret("text", "app/text", json!({})).await;
        world.until_synced("text").await;
    }
    world.kms.put_generic("app/text", "two");
    tell(&operator, &rotated("e1", "app/text")).await;
    for world in [&world, &other] {
        world.until_text("text", "value", "two").await;
    }
}

#[tokio::test]
async fn a_rotation_that_failed_by_an_event_is_overdue_until_it_is_made() {
    let world = World::new().await;
    let day = std::time::Duration::from_secs(86_400);
    world.kms.put_managed("app/db", Managed::rds(day));
    let (operator, _files) = namespaced(&world).await;
    world.kms_secret("db", "app/db", json!({})).await;
    world.until_synced("db").await;
    tell(&operator, &failed("e1", "app/db")).await;
    let overdue = async || {
        let object = world.object("db").await;
        condition(&object, "RotationOverdue")
            .map(|(_, reason, message)| (reason.to_owned(), message.to_owned()))
    };
    let (reason, message) = eventually("the failure is told", overdue).await;
    assert_eq!(reason, "Invalid");
    assert!(!message.contains("a text that nobody sees"), "{message}");
    let object = world.object("db").await;
    assert_eq!(condition(&object, "Ready").unwrap().0, "True");

    // Another read that shows nothing new does not end it, not even by another process.
    operator.stop().await;
    let _operator = world.operator().await;
    world.force("db").await;
    world.until_synced("db").await;
    assert!(overdue().await.is_some());
    world.kms.rotate("app/db").unwrap();
    world.force("db").await;
    eventually("the rotation ends it", async || {
        overdue().await.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_rotates_with_its_file_and_goes_with_it() {
    let (world, operator, files) = synced().await;
    let next = "the-next-token-of-the-test-that-is-long-enough";
    let client = Client::new();
    let status = async |token: &str| {
        let request = client.post(url(&operator)).bearer_auth(token).body("[]");
        request.send().await.unwrap().status()
    };
    let until = async |token: &str, expected: StatusCode| {
        eventually(&format!("{expected}"), async || {
            (status(token).await == expected).then_some(())
        })
        .await;
    };
    files.write("token", &format!("{TOKEN}\n{next}\n"));
    until(next, StatusCode::ACCEPTED).await;
    assert_eq!(status(TOKEN).await, StatusCode::ACCEPTED, "both, meanwhile");
    files.write("token", next);
    until(TOKEN, StatusCode::UNAUTHORIZED).await;
    assert_eq!(status(next).await, StatusCode::ACCEPTED);
    files.write("token", "short");
    until(next, StatusCode::UNAUTHORIZED).await;
    assert_eq!(status("short").await, StatusCode::UNAUTHORIZED);
    world.kms.reset_calls();
}

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for loopback and its key, as PEM.
    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn with_an_authority_only_its_certificates_are_let_in() {
    let world = World::new().await;
    world.kms.put_generic("app/text", "one");
    let files = Files::of(&world);
    let (servers, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let (certificate, key) = servers.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let flags = [
        "--namespace",
        &world.namespace,
        "--event-listen",
        "127.0.0.1:0",
        "--event-tls-cert",
        &files.write("tls.crt", &certificate),
        "--event-tls-key",
        &files.write("tls.key", &key),
        "--event-client-ca",
        &files.write("ca.crt", &clients.0.pem()),
    ];
    let operator = world.operator_of(&flags).await;
    world.kms_secret("text", "app/text", json!({})).await;
    world.until_synced("text").await;
    world.kms.put_generic("app/text", "two");

    let root = reqwest::Certificate::from_pem(servers.0.pem().as_bytes()).unwrap();
    let client = |identity: Option<(String, String)>| {
        let builder = Client::builder().tls_certs_only([root.clone()]);
        let builder = match identity {
            Some((certificate, key)) => {
                let pem = format!("{certificate}{key}");
                builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            }
            None => builder,
        };
        builder.build().unwrap()
    };
    let address = format!("https://{}/events", operator.events.unwrap());
    let event = rotated("e1", "app/text").to_string();
    for identity in [
        None,
        Some(others.issue(ExtendedKeyUsagePurpose::ClientAuth)),
    ] {
        let answer = client(identity)
            .post(&address)
            .bearer_auth(TOKEN)
            .body(event.clone())
            .send()
            .await;
        assert!(answer.is_err(), "{answer:?}");
    }
    a_while().await;
    assert_eq!(world.text("text", "value").await.unwrap(), "one");
    let ours = client(Some(clients.issue(ExtendedKeyUsagePurpose::ClientAuth)));
    let answer = ours.post(&address).body(event).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    world.until_text("text", "value", "two").await;
}
