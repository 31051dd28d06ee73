//! What anybody who watches the cluster sees of the operator's work, and when.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kms_secret_operator::api::{KmsSecret, MANAGED_LABEL};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::world::World;

/// The longest time between two writes that is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

type Times = HashMap<String, Instant>;

/// Since the last [`Watch::forget`]: when each object was first written, by its name.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Secrets that the operator wrote, or somebody with its label.
    pub(crate) secrets: Times,
    /// KmsSecrets that are ready at their generation.
    pub(crate) ready: Times,
    /// The forced sync that each KmsSecret has handled last; not forgotten.
    pub(crate) handled: HashMap<String, String>,
    /// Why nothing can be said any more.
    broken: Option<String>,
    /// The lists at the beginning that have ended.
    listed: usize,
    /// How many objects were written, so that one sees whether anything moves at all.
    writes: u64,
}

impl Seen {
    /// When the last of them was written.
    pub(crate) fn last(times: &Times) -> Option<Instant> {
        times.values().max().copied()
    }
}

/// Two watches, of Secrets and of KmsSecrets.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

impl Watch {
    /// Opens the watches; what is there already was not seen to be written.
    pub(crate) async fn open(world: &World) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let secrets = world.api::<PartialObjectMeta<Secret>>();
        let managed = format!("{MANAGED_LABEL}=true");
        let objects = world.api::<KmsSecret>();
        let tasks = [
            follow(Arc::clone(&seen), secrets, &managed, |seen, secret, now| {
                seen.secrets.entry(secret.name_any()).or_insert(now);
            }),
            follow(Arc::clone(&seen), objects, "", |seen, object, now| {
                if is_ready(object) {
                    seen.ready.entry(object.name_any()).or_insert(now);
                }
                let status = object.status.as_ref();
                if let Some(token) = status.and_then(|status| status.last_handled_sync.clone()) {
                    seen.handled.insert(object.name_any(), token);
                }
            }),
        ];
        let watch = Self { seen, tasks };
        watch.until(|seen| seen.listed == 2).await?;
        Ok(watch)
    }

    /// Forgets what was seen.
    pub(crate) fn forget(&self) {
        let mut seen = lock(&self.seen);
        seen.secrets.clear();
        seen.ready.clear();
    }

    /// Waits until what was seen is so. Gives up when nothing has changed for long.
    pub(crate) async fn until(&self, is_so: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let mut progress = (Instant::now(), 0);
        loop {
            {
                let seen = lock(&self.seen);
                if let Some(why) = &seen.broken {
                    bail!("a watch of the benchmark broke, so what it measures is void: {why}");
                }
                if is_so(&seen) {
                    return Ok(seen.clone());
                }
                if seen.writes != progress.1 {
                    progress = (Instant::now(), seen.writes);
                }
                if progress.0.elapsed() > PATIENCE {
                    let (secrets, ready) = (seen.secrets.len(), seen.ready.len());
                    bail!("waited in vain: {secrets} Secrets and {ready} statuses were written");
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many Secrets were written, and so many statuses that are ready.
    pub(crate) async fn until_synced(&self, count: usize) -> Result<Seen> {
        self.until(|seen| seen.secrets.len() >= count && seen.ready.len() >= count)
            .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn is_ready(object: &KmsSecret) -> bool {
    object.status.as_ref().is_some_and(|status| {
        let conditions = &mut status.conditions.iter();
        status.observed_generation == object.metadata.generation
            && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

fn follow<K>(
    seen: Arc<Mutex<Seen>>,
    api: Api<K>,
    labels: &str,
    note: fn(&mut Seen, &K, Instant),
) -> JoinHandle<()>
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().any_semantic().labels(labels);
    tokio::spawn(async move {
        let mut events = pin!(watcher(api, config));
        let mut is_listed = false;
        while let Some(event) = events.next().await {
            let mut seen = lock(&seen);
            match event {
                Ok(Event::Apply(object)) => {
                    seen.writes += 1;
                    note(&mut seen, &object, Instant::now());
                }
                Ok(Event::InitDone) if !is_listed => {
                    is_listed = true;
                    seen.listed += 1;
                }
                // What was written meanwhile, and when, nobody has seen.
                Ok(Event::Init) if is_listed => seen.broken = Some("it was begun anew".into()),
                Err(err) => seen.broken = Some(err.to_string()),
                Ok(Event::Init | Event::InitApply(_) | Event::InitDone | Event::Delete(_)) => {}
            }
        }
    })
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
