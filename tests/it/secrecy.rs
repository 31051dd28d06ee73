//! No secret value, access key secret, token or signature is ever said: not in a log at any level, an Event, a status
//! or a metric.

use std::process::{Child, Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::jiff::SignedDuration;
use kms_emulator::{Effect, Fault, Role, StsKey};
use kms_secret_operator::alibaba::sign::encode;
use kms_secret_operator::api::{KmsSecret, KmsStore};
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::cluster;
use crate::credentials::{SECOND, federate, rrsa, store};
use crate::world::{KEY_SECRET, World, a_while, condition, eventually};

/// The operator as it is shipped, with every log there is.
struct Process {
    child: Child,
    log: std::path::PathBuf,
    admin: String,
    events: String,
}

impl Process {
    async fn start(world: &World) -> Self {
        let log = std::env::temp_dir().join(format!("{}.log", world.namespace));
        let address = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let (admin, events) = (address(), address());
        let token = log.with_extension("token");
        std::fs::write(&token, TOKEN).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms-secret-operator"));
        command
            .args([
                "run",
                "--namespace",
                &world.namespace,
                "--allow-endpoint",
                &world.kms.origin(),
            ])
            .args([
                "--admin-listen",
                &admin,
                "--event-listen",
                &events,
                "--event-token-file",
                token.to_str().unwrap(),
                "--log-level",
                "trace",
                "--min-refresh-interval",
                "1s",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        if let Some(kubeconfig) = cluster().await.kubeconfig() {
            command.env("KUBECONFIG", kubeconfig);
        }
        Self {
            child: command.spawn().unwrap(),
            log,
            admin,
            events,
        }
    }

    /// Tells of an event with a value in it, with the right token and with a wrong one.
    async fn tell(&self) {
        let event = json!({
            "serviceName": "Kms", "eventName": "PutSecretValue", "eventId": "e1",
            "requestParameters": {"SecretName": "app/text", "SecretData": VALUE},
        });
        let url = format!("http://{}/events", self.events);
        for (token, body, status) in [
            (TOKEN, event.to_string(), 202),
            (TOKEN, format!("no JSON: {VALUE}"), 400),
            (WRONG, event.to_string(), 401),
        ] {
            let request = reqwest::Client::new().post(&url).bearer_auth(token);
            let answer = request.body(body).send().await.unwrap();
            assert_eq!(answer.status(), status);
            assert!(!answer.text().await.unwrap().contains(VALUE));
        }
    }

    async fn metrics(&self) -> String {
        let answer = reqwest::get(format!("http://{}/metrics", self.admin))
            .await
            .unwrap();
        answer.text().await.unwrap()
    }

    /// Asks it to end, as Kubernetes does, and answers its exit code and its log.
    async fn end(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let status = tokio::task::spawn_blocking(move || (self.child.wait().unwrap(), self.log));
        let (status, log) = status.await.unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(log.with_extension("token")).unwrap();
        std::fs::remove_file(&log).unwrap();
        (status.code(), text)
    }
}

const VALUE: &str = "top-secret-Value/1+x";
const PART: &str = "part-secret-Value/2+y";
const TOKEN: &str = "token-of-whoever-may-tell-of-events";
const WRONG: &str = "wrong-key-secret-of-the-test";

/// Secrets that hold the planted values, and stores with a session's credentials, right and wrong, for each signature.
async fn plant(world: &World) -> StsKey {
    let kms = &world.kms;
    kms.put_generic("app/text", VALUE);
    kms.put_generic(
        "app/json",
        &json!({"whole": VALUE, "part": PART}).to_string(),
    );
    kms.put_binary_text("app/broken", VALUE);
    let sts = StsKey::fresh(kms.now() + SignedDuration::from_hours(1));
    kms.add_sts_key(&sts);
    for (name, secret) in [
        ("session", sts.access_key_secret.as_str()),
        ("wrong", WRONG),
    ] {
        let manifest = json!({
            "metadata": {"labels": {"alikms.dev/credentials": "true"}},
            "stringData": {"accessKeyId": sts.access_key_id, "accessKeySecret": secret, "token": sts.security_token},
        });
        world.apply::<Secret>(name, manifest).await;
        for signature in ["V1", "V3"] {
            let auth = json!({"accessKey": {"secretRef": {"securityTokenKey": "token"}}});
            let store = format!("{name}-{}", signature.to_lowercase());
            world
                .store(&store, name, json!({"signature": signature, "auth": auth}))
                .await;
        }
    }
    plant_roles(world).await;
    sts
}

/// A store that reads by a role that is assumed after that of a ServiceAccount, and three for which that goes wrong.
async fn plant_roles(world: &World) {
    federate(world).await;
    world.kms.put_role(Role::new(SECOND).trusting("*"));
    let hop = || json!({"assumeRole": [{"roleArn": SECOND}]});
    store(world, "hop", rrsa("orders"), hop()).await;
    for (name, role) in [
        ("hop-unknown", "unknown"),
        ("hop-truncated", "truncated"),
        ("hop-garbage", "garbage"),
    ] {
        let role = format!("acs:ram::1234567890123456:role/{role}");
        if name == "hop-unknown" {
            plant_hop(world, name).await;
        } else {
            world.kms.add_role(&role);
        }
    }
}

/// A store that reads by the role of its own name.
async fn plant_hop(world: &World, name: &str) {
    let role = name.replace("hop-", "acs:ram::1234567890123456:role/");
    let more = json!({"assumeRole": [{"roleArn": role}]});
    store(world, name, rrsa("orders"), more).await;
}

/// STS answers what cannot be read, and then again what can.
async fn fail_at_sts(world: &World) {
    world
        .kms_secret(
            "hop-unknown",
            "app/text",
            json!({"storeRef": {"name": "hop-unknown"}}),
        )
        .await;
    world
        .until_ready("hop-unknown", "False", "IdentityRefused")
        .await;
    for (name, effect) in [
        ("hop-truncated", Effect::Truncated),
        ("hop-garbage", Effect::Patch { fields: garbage() }),
    ] {
        let fault = world.kms.fault(Fault::new(effect).on_action("AssumeRole"));
        plant_hop(world, name).await;
        world
            .kms_secret(name, "app/text", json!({"storeRef": {"name": name}}))
            .await;
        world
            .until_ready(name, "False", "IdentityUnavailable")
            .await;
        world.kms.clear_fault(fault);
    }
}

/// STS says of whose the credentials are what it must not.
async fn lie_about_identities(world: &World) {
    let lie = |fields| Fault::patch(&fields);
    let user = json!({"Arn": format!("acs:ram::1:assumed-role/x/{WRONG} {VALUE}"), "AssumedRoleId": VALUE});
    for fault in [
        lie(json!({"Arn": VALUE, "RequestId": VALUE})).on_action("GetCallerIdentity"),
        lie(json!({"AssumedRoleUser": user})).on_action("AssumeRole"),
    ] {
        world.kms.fault(fault);
    }
    let more = json!({"assumeRole": [{"roleArn": SECOND}]});
    store(world, "liar", rrsa("orders"), more).await;
    let stores = world.api::<KmsStore>();
    eventually("it was looked at", async || {
        let status = stores.get("liar").await.unwrap().status?;
        let reason = &status.conditions.first()?.reason;
        (reason == "IdentityUnavailable" && status.identity.is_none()).then_some(())
    })
    .await;
    world.kms.clear_faults();
}

fn garbage() -> serde_json::Map<String, serde_json::Value> {
    let garbage = json!({"Credentials": {"AccessKeyId": {"x": WRONG}, "SecurityToken": WRONG, "Expiration": WRONG}});
    garbage.as_object().unwrap().clone()
}

/// Everything that works.
async fn succeed(world: &World) {
    for store in ["prod", "session-v1", "session-v3", "rrsa", "hop"] {
        world
            .kms_secret(store, "app/text", json!({"storeRef": {"name": store}}))
            .await;
        world.until_synced(store).await;
    }
    let part = json!({"data": [{"key": "part", "path": "part"}, {"key": "hash", "template": "{{ json.part | bcrypt }}"}],
        "extract": [{"prefix": "all-"}]});
    world.kms_secret("json", "app/json", part).await;
    world.until_synced("json").await;
    world.delete::<Secret>("json").await;
    world.until_text("json", "part", PART).await;
}

/// Everything that fails, with the value at hand.
async fn fail(world: &World) {
    let config = json!({"target": {"type": "kubernetes.io/dockerconfigjson"}, "data": [{"key": ".dockerconfigjson"}]});
    let failing = [
        (
            "wrong-v1",
            "app/text",
            json!({"storeRef": {"name": "wrong-v1"}}),
            "CredentialsInvalid",
        ),
        (
            "wrong-v3",
            "app/text",
            json!({"storeRef": {"name": "wrong-v3"}}),
            "CredentialsInvalid",
        ),
        (
            "miss",
            "app/json",
            json!({"data": [{"key": "k", "path": "missing"}]}),
            "ValueInvalid",
        ),
        (
            "type",
            "app/json",
            json!({"data": [{"key": "k", "path": "abs(part)"}]}),
            "ValueInvalid",
        ),
        (
            "path",
            "app/text",
            json!({"data": [{"key": "k", "path": "a"}]}),
            "ValueInvalid",
        ),
        (
            "template",
            "app/json",
            json!({"data": [{"key": "k", "template": "{{ json.part | b64decode }}{{ json.missing }}"}]}),
            "ValueInvalid",
        ),
        (
            "lookup",
            "app/json",
            json!({"data": [{"key": "k", "template": "{{ json[json.part] }}"}]}),
            "ValueInvalid",
        ),
        (
            "extract",
            "app/json",
            json!({"extract": [{}, {}]}),
            "ValueInvalid",
        ),
        ("base64", "app/broken", json!({}), "ValueInvalid"),
        ("missing", "app/none", json!({}), "SecretNotFound"),
        (
            "foreign",
            "app/text",
            json!({"target": {"name": "session"}}),
            "TargetOwnedByOther",
        ),
        ("config", "app/text", config, "TargetInvalid"),
    ];
    for (name, secret, spec, reason) in failing {
        world.kms_secret(name, secret, spec).await;
        world.until_ready(name, "False", reason).await;
    }
    let patch = |fields| Fault::patch(&fields);
    let faults = [
        ("truncated", Fault::new(Effect::Truncated)),
        ("garbage", Fault::new(Effect::GarbageBody)),
        (
            "mixed",
            patch(
                json!({"VersionStages": 7, "VersionId": {"x": VALUE}, "NextRotationDate": VALUE}),
            ),
        ),
        ("wrongtype", patch(json!({"SecretData": {"x": VALUE}}))),
    ];
    for (name, fault) in faults {
        world.kms.put_generic(name, VALUE);
        world.kms.fault(fault.on_secret(name));
        world.kms_secret(name, name, json!({})).await;
        eventually("it was looked at", async || {
            let object = world.object(name).await;
            condition(&object, "Ready").map(|_| ())
        })
        .await;
    }
}

/// All that was said but the log.
async fn said(world: &World, process: &Process) -> Vec<String> {
    let all = ListParams::default();
    let objects = world.api::<KmsSecret>().list(&all).await.unwrap().items;
    let stores = world.api::<KmsStore>().list(&all).await.unwrap().items;
    vec![
        process.metrics().await,
        format!("{:?}", world.events().await),
        serde_json::to_string(&objects).unwrap(),
        serde_json::to_string(&stores).unwrap(),
    ]
}

#[tokio::test]
async fn nothing_secret_is_said_in_a_life_full_of_failures() {
    let world = World::new().await;
    let sts = plant(&world).await;
    let process = Process::start(&world).await;
    succeed(&world).await;
    fail(&world).await;
    process.tell().await;
    fail_at_sts(&world).await;
    lie_about_identities(&world).await;
    a_while().await;
    let mut said = said(&world, &process).await;
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0), "SIGTERM is a clean stop");
    assert!(
        log.contains("\"level\":\"TRACE\""),
        "the log is at its most talkative"
    );
    assert!(log.contains("ValueInvalid") && log.contains("SignatureDoesNotMatch"));
    assert!(log.contains("KMS told of a secret"));
    said.push(log);

    let secrets = [
        VALUE,
        PART,
        KEY_SECRET,
        TOKEN,
        WRONG,
        &sts.access_key_secret,
        &sts.security_token,
    ];
    for secret in secrets {
        let forms = [
            secret.to_owned(),
            BASE64_STANDARD.encode(secret),
            encode(secret),
            encode(&encode(secret)),
        ];
        for (form, text) in forms
            .iter()
            .flat_map(|form| said.iter().map(move |text| (form, text)))
        {
            let at = text.find(form);
            let around = at.map(|at| &text[text.floor_char_boundary(at.saturating_sub(300))..at]);
            assert_eq!(at, None, "{form:?} after {around:?}");
        }
    }
    // Every token of the API server begins so, and every one of the emulated STS.
    for word in ["eyJhbGci", "CAIS"] {
        assert!(said.iter().all(|text| !text.contains(word)), "{word}");
    }
    for word in ["Signature=", "Authorization:", "authorization:"] {
        assert!(said.iter().all(|text| !text.contains(word)), "{word}");
    }
}
