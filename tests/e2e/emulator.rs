//! The admin API of the chart's emulator, which listens within its Pod only.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::stage::{OPERATOR, Stage};

/// A version of a secret, in the words of what it is here for.
#[derive(Clone)]
pub(crate) struct Version {
    /// When KMS answered it for the first time.
    pub(crate) since: Timestamp,
    pub(crate) password: String,
}

/// The emulator, through `kubectl port-forward`.
pub(crate) struct Emulator {
    origin: String,
    client: reqwest::Client,
    forward: Child,
}

impl Emulator {
    /// Opens the way to it.
    pub(crate) async fn reach(stage: &Stage) -> Self {
        let mut forward = stage
            .kubectl_command()
            .args([
                "port-forward",
                "--namespace",
                OPERATOR,
                "deployment/kms-secret-operator-emulator",
                ":8900",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stdout = BufReader::new(forward.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        // It ends when nobody listens to what it says.
        std::thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        let address = said
            .strip_prefix("Forwarding from ")
            .and_then(|rest| rest.split_once(" -> "))
            .unwrap_or_else(|| panic!("kubectl forwards nothing: {said}"))
            .0;
        let emulator = Self {
            origin: format!("http://{address}"),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            forward,
        };
        assert_eq!(emulator.get("health").await, json!({"status": "ok"}));
        emulator
    }

    /// Makes a database account whose password KMS changes.
    pub(crate) async fn rotate_every(&self, name: &str, interval: Duration) {
        let managed = json!({"kind": "Rds", "account": "orders", "interval": interval.as_secs()});
        self.post("secrets/put", &json!({"name": name, "managed": managed}))
            .await;
    }

    /// Ends its rotations; returns what it has ever been.
    pub(crate) async fn stop_rotating(&self, name: &str) -> Vec<Version> {
        self.post(
            "secrets/rotation",
            &json!({"name": name, "status": "Disabled"}),
        )
        .await;
        self.history(name).await
    }

    /// What a secret has ever been, the oldest first.
    pub(crate) async fn history(&self, name: &str) -> Vec<Version> {
        #[derive(Deserialize)]
        struct Entry {
            value: String,
            since: Timestamp,
        }
        let entries = self.get(&format!("history?name={name}")).await;
        let entries: Vec<Entry> = serde_json::from_value(entries).unwrap();
        let version = |entry: Entry| {
            let value: Value = serde_json::from_str(&entry.value).unwrap();
            Version {
                since: entry.since,
                password: value["AccountPassword"].as_str().unwrap().to_owned(),
            }
        };
        entries.into_iter().map(version).collect()
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}/_emulator/{path}", self.origin);
        read(self.client.get(url)).await
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/_emulator/{path}", self.origin);
        read(self.client.post(url).body(body.to_string())).await
    }
}

async fn read(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {body}");
    serde_json::from_str(&body).unwrap_or(Value::Null)
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.forward.kill();
        let _ = self.forward.wait();
    }
}
