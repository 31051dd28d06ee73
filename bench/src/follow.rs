//! Watches of the cluster that write down what they see, and notice when they have missed something.

use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kms_secret_operator::api::{KmsSecret, MANAGED_LABEL};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::world::World;

/// What became of an object.
pub(crate) enum Change<'a, K> {
    Written(&'a K),
    Gone(&'a K),
}

/// Takes note of a change, and of when it was seen.
pub(crate) type Note<T, K> = fn(&mut T, Change<'_, K>, Instant);

/// What was written down.
#[derive(Default)]
pub(crate) struct Page<T> {
    notes: T,
    /// All that was seen, so that one knows whether anything moves.
    pub(crate) events: u64,
    /// The lists at the beginning that have ended.
    listed: usize,
    /// Why there are gaps.
    broken: Option<String>,
}

impl<T> Deref for Page<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.notes
    }
}

impl<T> DerefMut for Page<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.notes
    }
}

/// How long somebody waits.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// Between two looks.
    pub(crate) look: Duration,
    /// The longest time between two changes.
    pub(crate) most: Duration,
}

/// Two watches: of the Secrets with the operator's label, and of KmsSecrets.
pub(crate) struct Follower<T> {
    page: Arc<Mutex<Page<T>>>,
    tasks: [JoinHandle<()>; 2],
    patience: Patience,
}

impl<T: Default + Send + 'static> Follower<T> {
    /// Opens the watches; what is there already was not seen to be written.
    pub(crate) async fn open(
        world: &World,
        patience: Patience,
        secret: Note<T, PartialObjectMeta<Secret>>,
        object: Note<T, KmsSecret>,
    ) -> Result<Self> {
        let page = Arc::default();
        let managed = format!("{MANAGED_LABEL}=true");
        let tasks = [
            follow(&page, world.api(), &managed, secret),
            follow(&page, world.api(), "", object),
        ];
        let follower = Self {
            page,
            tasks,
            patience,
        };
        drop(follower.until(|page| page.listed == 2).await?);
        Ok(follower)
    }

    pub(crate) fn page(&self) -> MutexGuard<'_, Page<T>> {
        lock(&self.page)
    }

    /// Waits until what was written is so, and answers it. Gives up when nothing has changed for long.
    pub(crate) async fn until(
        &self,
        mut is_so: impl FnMut(&Page<T>) -> bool,
    ) -> Result<MutexGuard<'_, Page<T>>> {
        let mut progress = (Instant::now(), 0);
        loop {
            {
                let page = self.page();
                if let Some(why) = &page.broken {
                    bail!("a watch broke, so that nobody has seen everything: {why}");
                }
                if is_so(&page) {
                    return Ok(page);
                }
                if page.events != progress.1 {
                    progress = (Instant::now(), page.events);
                }
                let most = self.patience.most;
                if progress.0.elapsed() > most {
                    let events = page.events;
                    bail!("waited in vain: after {events} changes nothing moved for {most:?}");
                }
            }
            tokio::time::sleep(self.patience.look).await;
        }
    }
}

impl<T> Drop for Follower<T> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn follow<T, K>(
    page: &Arc<Mutex<Page<T>>>,
    api: Api<K>,
    labels: &str,
    note: Note<T, K>,
) -> JoinHandle<()>
where
    T: Send + 'static,
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let page = Arc::clone(page);
    let config = watcher::Config::default().any_semantic().labels(labels);
    tokio::spawn(async move {
        let mut events = pin!(watcher(api, config));
        let mut is_listed = false;
        while let Some(event) = events.next().await {
            let (mut page, now) = (lock(&page), Instant::now());
            page.events += 1;
            match event {
                Ok(Event::Apply(object)) => note(&mut page, Change::Written(&object), now),
                Ok(Event::Delete(object)) => note(&mut page, Change::Gone(&object), now),
                Ok(Event::InitDone) if !is_listed => {
                    is_listed = true;
                    page.listed += 1;
                }
                // What was written meanwhile, and when, nobody has seen.
                Ok(Event::Init) if is_listed => page.broken = Some("it was begun anew".into()),
                Err(err) => page.broken = Some(err.to_string()),
                Ok(Event::Init | Event::InitApply(_) | Event::InitDone) => {}
            }
        }
    })
}

fn lock<T>(page: &Mutex<Page<T>>) -> MutexGuard<'_, Page<T>> {
    page.lock().unwrap_or_else(PoisonError::into_inner)
}
