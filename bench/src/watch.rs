//! What anybody who watches the cluster sees of the operator's work, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use kms_secret_operator::api::KmsSecret;
use kube::ResourceExt as _;

use crate::follow::{Change, Follower, Patience};
use crate::world::World;

const PATIENCE: Patience = Patience {
    look: Duration::from_millis(5),
    most: Duration::from_secs(90),
};

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
}

impl Seen {
    /// When the last of them was written.
    pub(crate) fn last(times: &Times) -> Option<Instant> {
        times.values().max().copied()
    }

    fn note_object(&mut self, object: &KmsSecret, now: Instant) {
        if is_ready(object) {
            self.ready.entry(object.name_any()).or_insert(now);
        }
        let status = object.status.as_ref();
        if let Some(token) = status.and_then(|status| status.last_handled_sync.clone()) {
            self.handled.insert(object.name_any(), token);
        }
    }
}

/// Follows the cluster.
pub(crate) struct Watch(Follower<Seen>);

impl Watch {
    /// Opens the watches; what is there already was not seen to be written.
    pub(crate) async fn open(world: &World) -> Result<Self> {
        let follower = Follower::<Seen>::open(
            world,
            PATIENCE,
            |seen, secret, now| {
                if let Change::Written(secret) = secret {
                    seen.secrets.entry(secret.name_any()).or_insert(now);
                }
            },
            |seen, object, now| {
                if let Change::Written(object) = object {
                    seen.note_object(object, now);
                }
            },
        );
        Ok(Self(follower.await?))
    }

    /// Forgets what was seen.
    pub(crate) fn forget(&self) {
        let mut seen = self.0.page();
        seen.secrets.clear();
        seen.ready.clear();
    }

    /// Waits until what was seen is so. Gives up when nothing has changed for long.
    pub(crate) async fn until(&self, is_so: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let seen = self.0.until(|seen| is_so(seen)).await?;
        Ok(Seen::clone(&seen))
    }

    /// Waits until so many Secrets were written, and so many statuses that are ready.
    pub(crate) async fn until_synced(&self, count: usize) -> Result<Seen> {
        self.until(|seen| seen.secrets.len() >= count && seen.ready.len() >= count)
            .await
    }
}

fn is_ready(object: &KmsSecret) -> bool {
    object.status.as_ref().is_some_and(|status| {
        let conditions = &mut status.conditions.iter();
        status.observed_generation == object.metadata.generation
            && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}
