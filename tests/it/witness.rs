//! Sees every state that the Secrets of a namespace pass through.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::task::JoinHandle;

use crate::world::{World, eventually};

/// The data of a Secret, as texts.
pub(crate) type Data = BTreeMap<String, String>;

/// A state that a Secret was in, or `None`: it went.
pub(crate) type State = (String, Option<Data>);

/// Watches from its making on; the operators that it bears witness of start later.
pub(crate) struct Witness {
    states: Arc<Mutex<Vec<State>>>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Of the Secrets of a world that an operator keeps.
    pub(crate) async fn of(world: &World) -> Self {
        let api = world.api::<Secret>();
        let list = api.list(&ListParams::default()).await.unwrap();
        let mut version = list.metadata.resource_version.unwrap();
        let states = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&states);
        let task = tokio::spawn(async move {
            let params = WatchParams::default().disable_bookmarks();
            loop {
                // The API server ends a watch after some minutes; the next goes on where it ended.
                let events = api.watch(&params, &version).await.unwrap();
                let mut events = std::pin::pin!(events);
                while let Some(Ok(event)) = events.next().await {
                    let (secret, is_gone) = match event {
                        WatchEvent::Added(secret) | WatchEvent::Modified(secret) => (secret, false),
                        WatchEvent::Deleted(secret) => (secret, true),
                        other => panic!("the witness missed something: {other:?}"),
                    };
                    version = secret.resource_version().unwrap();
                    let name = secret.name_any();
                    let data = (!is_gone).then(|| texts(secret));
                    seen.lock().unwrap().push((name, data));
                }
            }
        });
        Self { states, task }
    }

    /// What was seen up to now, in the order of the API server.
    pub(crate) async fn states(&self, world: &World) -> Vec<State> {
        // A last Secret of our own, after which nothing is missing.
        let mark = format!("mark-{}", uuid::Uuid::new_v4());
        world.credentials(&mark, "", "").await;
        eventually("the witness has seen everything", async || {
            let seen = self.states.lock().unwrap();
            seen.iter().any(|(name, _)| *name == mark).then_some(())
        })
        .await;
        let mut states = self.states.lock().unwrap().clone();
        states.retain(|(name, _)| !name.starts_with("mark-"));
        states
    }

    /// The values that one Secret had under the key `value`, without repeats.
    pub(crate) async fn values(&self, world: &World, name: &str) -> Vec<String> {
        let states = self.states(world).await.into_iter();
        let of_it = states.filter(|(of, _)| of == name);
        let mut values: Vec<String> = of_it
            .map(|(_, data)| {
                data.and_then(|mut data| data.remove("value"))
                    .unwrap_or_default()
            })
            .collect();
        values.dedup();
        values
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn texts(secret: Secret) -> Data {
    let data = secret.data.unwrap_or_default().into_iter();
    data.map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes.0).into_owned()))
        .collect()
}
