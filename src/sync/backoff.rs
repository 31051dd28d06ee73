//! How long to hold back: after attempts that failed, and from a target that somebody keeps editing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Reason, later};
use crate::api::KmsSecret;
use crate::api::kms_secret::StoreStatus;

/// A target that somebody keeps editing is repaired this often at most.
const REPAIR_MIN: SignedDuration = SignedDuration::from_secs(30);

/// Attempts that failed, one after the other and for the same thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// What was attempted; anything else is tried at once.
    pub attempt: Attempted,
    /// When the first failed.
    pub since: Timestamp,
    /// When the last failed.
    pub last: Timestamp,
    /// Why the last failed.
    pub reason: Reason,
    /// How long the service asked us to wait.
    pub retry_after: Option<Duration>,
}

/// What makes an attempt another one, so that it does not wait for the last one's backoff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// The sync annotation.
    pub sync: Option<String>,
    /// The store.
    pub store: Option<StoreStatus>,
    /// Uid of the target, if there is one: what it refused, another one may take.
    pub target: Option<String>,
}

impl Attempted {
    /// What an attempt made now would be.
    #[must_use]
    pub fn of(object: &KmsSecret, store: Option<&StoreStatus>, target: Option<&str>) -> Self {
        Self {
            generation: object.metadata.generation,
            sync: object.sync_token().map(ToOwned::to_owned),
            store: store.cloned(),
            target: target.map(ToOwned::to_owned),
        }
    }
}

impl Backoff {
    /// When to try again: as long again as it has been failing, within the bounds of the class, spread by the uid.
    #[must_use]
    pub fn retry_at(&self, hash: u64) -> Timestamp {
        let (least, most) = self.reason.retry().bounds();
        let failing = Duration::try_from(self.last.duration_since(self.since)).unwrap_or_default();
        let wait = failing
            .clamp(least, most)
            .max(self.retry_after.unwrap_or_default());
        let parts = u32::try_from(hash % 200).unwrap_or_default();
        let wait = wait + wait * parts / 1000;
        later(
            self.last,
            SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX),
        )
    }
}

/// The last repairs of a target that somebody edits or deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// When the last was.
    pub at: Timestamp,
    /// How many followed each other closely.
    pub count: u32,
}

impl Repair {
    /// When the next may be: `free` at once, and after them at doubling steps from 30 s on.
    #[must_use]
    pub fn next_at(self, free: u32) -> Timestamp {
        let Some(steps) = self.count.checked_sub(free) else {
            return self.at;
        };
        later(self.at, REPAIR_MIN * 2i32.pow(steps.min(6)))
    }

    /// The repair that is made at `now`, after `last`.
    #[must_use]
    pub fn after(last: Option<&Self>, now: Timestamp) -> Self {
        let quiet = |last: &&Self| now.duration_since(last.at) > REPAIR_MIN * 128;
        let count = last
            .filter(|last| !quiet(last))
            .map_or(0, |last| last.count);
        Self {
            at: now,
            count: count + 1,
        }
    }
}
