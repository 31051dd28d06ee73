//! No secret value, access key secret, token or signature is ever said: not in a log at any level, an Event, a status
//! or a metric.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::jiff::SignedDuration;
use kms_emulator::{Effect, Fault, StsKey};
use kms_secret_operator::alibaba::sign::encode;
use kms_secret_operator::api::{KmsSecret, KmsStore};
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::cluster;
use crate::world::{KEY_SECRET, World, a_while, eventually};

/// The operator as it is shipped, with every log there is.
struct Process {
    child: Child,
    log: std::path::PathBuf,
    admin: String,
}

impl Process {
    async fn start(world: &World) -> Self {
        let log = std::env::temp_dir().join(format!("{}.log", world.namespace));
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let admin = format!("127.0.0.1:{port}");
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
        std::fs::remove_file(&log).unwrap();
        (status.code(), text)
    }
}

#[tokio::test]
async fn nothing_secret_is_said_in_a_life_full_of_failures() {
    const VALUE: &str = "top-secret-Value/1+x";
    const PART: &str = "part-secret-Value/2+y";
    const WRONG: &str = "wrong-key-secret-of-the-test";
    let world = World::new().await;
    let kms = &world.kms;
    kms.put_generic("app/text", VALUE);
    kms.put_generic(
        "app/json",
        &json!({"whole": VALUE, "part": PART}).to_string(),
    );
    kms.put_binary_text("app/broken", VALUE);
    kms.put_generic("app/gone", VALUE);
    let sts = StsKey::fresh(kms.now() + SignedDuration::from_hours(1));
    kms.add_sts_key(&sts);
    let session = |secret: &str| {
        json!({"metadata": {"labels": {"alikms.dev/credentials": "true"}}, "stringData": {
            "accessKeyId": sts.access_key_id, "accessKeySecret": secret, "token": sts.security_token,
        }})
    };
    world
        .apply::<Secret>("session", session(&sts.access_key_secret))
        .await;
    world.apply::<Secret>("wrong", session(WRONG)).await;
    for signature in ["V1", "V3"] {
        for credentials in ["session", "wrong"] {
            let more = json!({
                "signature": signature,
                "auth": {"accessKey": {"secretRef": {"securityTokenKey": "token"}}},
            });
            let name = format!("{credentials}-{}", signature.to_lowercase());
            world.store(&name, credentials, more).await;
        }
    }

    let process = Process::start(&world).await;
    for store in ["prod", "session-v1", "session-v3"] {
        world
            .kms_secret(store, "app/text", json!({"storeRef": {"name": store}}))
            .await;
        world.until_synced(store).await;
    }
    let part = json!({"data": [{"key": "part", "path": "part"}], "target": {"name": "json"}});
    world.kms_secret("json", "app/json", part).await;
    world.until_synced("json").await;
    for store in ["wrong-v1", "wrong-v3"] {
        world
            .kms_secret(store, "app/text", json!({"storeRef": {"name": store}}))
            .await;
        world
            .until_ready(store, "False", "CredentialsInvalid")
            .await;
    }
    let bad = [
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
        ("base64", "app/broken", json!({}), "ValueInvalid"),
        ("missing", "app/none", json!({}), "SecretNotFound"),
        (
            "foreign",
            "app/text",
            json!({"target": {"name": "session"}}),
            "TargetOwnedByOther",
        ),
        (
            "tls",
            "app/text",
            json!({"target": {"type": "kubernetes.io/dockerconfigjson"}, "data": [{"key": ".dockerconfigjson"}]}),
            "TargetInvalid",
        ),
    ];
    for (name, secret, spec, reason) in bad {
        world.kms_secret(name, secret, spec).await;
        world.until_ready(name, "False", reason).await;
    }
    let faults = [
        ("truncated", Effect::Truncated),
        ("garbage", Effect::GarbageBody),
        (
            "mixed",
            Effect::Patch {
                fields: json!({"VersionStages": 7, "SecretDataType": {"x": VALUE}})
                    .as_object()
                    .unwrap()
                    .clone(),
            },
        ),
        (
            "wrongtype",
            Effect::Patch {
                fields: json!({"SecretData": {"x": VALUE}})
                    .as_object()
                    .unwrap()
                    .clone(),
            },
        ),
    ];
    for (name, effect) in faults {
        kms.put_generic(name, VALUE);
        kms.fault(Fault::new(effect).on_secret(name));
        world.kms_secret(name, name, json!({})).await;
    }
    eventually("all of them were tried", async || {
        ["truncated", "garbage", "mixed", "wrongtype"]
            .iter()
            .all(|name| kms.count_where(|call| call.secret.as_deref() == Some(name)) > 0)
            .then_some(())
    })
    .await;
    kms.delete("app/gone");
    world.delete::<Secret>("json").await;
    world.until_text("json", "part", PART).await;
    a_while().await;

    let all = ListParams::default();
    let mut said = vec![process.metrics().await];
    said.push(format!("{:?}", world.events().await));
    said.push(
        serde_json::to_string(&world.api::<KmsSecret>().list(&all).await.unwrap().items).unwrap(),
    );
    said.push(
        serde_json::to_string(&world.api::<KmsStore>().list(&all).await.unwrap().items).unwrap(),
    );
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0), "SIGTERM is a clean stop");
    assert!(
        log.contains("\"level\":\"TRACE\""),
        "the log is at its most talkative"
    );
    assert!(log.contains("ValueInvalid") && log.len() > 10_000);
    said.push(log);

    let secrets = [
        VALUE,
        PART,
        KEY_SECRET,
        WRONG,
        &sts.access_key_secret,
        &sts.security_token,
    ];
    for secret in secrets {
        for form in [
            secret.to_owned(),
            BASE64_STANDARD.encode(secret),
            encode(secret),
            encode(&encode(secret)),
        ] {
            for text in &said {
                let at = text.find(&form);
                let around =
                    at.map(|at| &text[text.floor_char_boundary(at.saturating_sub(300))..at]);
                assert_eq!(at, None, "{secret:?} as {form:?} after {around:?}");
            }
        }
    }
    for word in ["Signature=", "Authorization", "authorization:"] {
        assert!(said.iter().all(|text| !text.contains(word)), "{word}");
    }
    tokio::time::sleep(Duration::ZERO).await;
}
