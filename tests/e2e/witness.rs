//! Whoever watches the Secret through the API server.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::task::JoinHandle;

/// What was seen and when; nothing stands for a Secret that is absent, or has no password.
type Sightings = Arc<Mutex<Vec<(Timestamp, Option<String>)>>>;

/// Keeps every value that a Secret's password has had since.
pub(crate) struct Witness {
    sightings: Sightings,
    watch: JoinHandle<()>,
}

impl Witness {
    /// Watches a Secret that is there.
    pub(crate) fn of_secret(client: Client, namespace: &str, name: &str) -> Self {
        let sightings = Sightings::default();
        let secrets = Api::namespaced(client, namespace);
        let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let watch = tokio::spawn(look(secrets, one, Arc::clone(&sightings)));
        Self { sightings, watch }
    }

    /// When a value was seen first.
    pub(crate) fn when(&self, password: &str) -> Option<Timestamp> {
        let sightings = self.sightings.lock().unwrap();
        let found = sightings
            .iter()
            .find(|(_, seen)| seen.as_deref() == Some(password));
        found.map(|(at, _)| *at)
    }

    /// What is there now.
    pub(crate) fn last(&self) -> Option<String> {
        self.seen().pop().flatten()
    }

    /// Everything, the oldest first.
    pub(crate) fn seen(&self) -> Vec<Option<String>> {
        assert!(!self.watch.is_finished(), "the watch has ended");
        let sightings = self.sightings.lock().unwrap();
        sightings.iter().map(|(_, seen)| seen.clone()).collect()
    }
}

async fn look(secrets: Api<Secret>, one: watcher::Config, sightings: Sightings) {
    let mut events = pin!(watcher(secrets, one));
    let mut listed = None;
    while let Some(event) = events.next().await {
        let seen = match event.expect("the watch goes on") {
            Event::Init => {
                listed = None;
                continue;
            }
            Event::InitApply(secret) => {
                listed = password(secret);
                continue;
            }
            Event::InitDone => listed.take(),
            Event::Apply(secret) => password(secret),
            Event::Delete(_) => None,
        };
        let mut sightings = sightings.lock().unwrap();
        if sightings.last().map(|(_, last)| last) != Some(&seen) {
            sightings.push((now(), seen));
        }
    }
}

fn password(secret: Secret) -> Option<String> {
    let value = secret.data?.remove("password")?.0;
    String::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "a test's own clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
