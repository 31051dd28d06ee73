//! Everything that was written in a day, as anybody sees it who watches the cluster: what changed each Secret, and what each
//! write of a status was good for.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use anyhow::Result;
use kms_secret_operator::api::kms_secret::KmsSecretStatus;
use kms_secret_operator::api::{KmsSecret, parse_duration};
use kms_secret_operator::sync::status::is_ready;
use kube::ResourceExt as _;

use super::timing::heartbeat;
use crate::follow::{Change, Follower, Page, Patience};
use crate::world::World;

/// What a write of a status was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Good {
    /// It told something new.
    News,
    /// It renewed the times, which were old.
    Heartbeat,
    /// Nothing: it renewed times that were young.
    Nothing,
}

/// A status that was written.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    pub(crate) good: Good,
    pub(crate) is_ready: bool,
    /// The version of the secret that it tells of.
    pub(crate) version: Option<String>,
}

/// What was written until now, by the names of the objects.
#[derive(Default)]
pub(crate) struct Entries {
    /// When each Secret changed; first of all, when it was created.
    pub(crate) secrets: HashMap<String, Vec<Instant>>,
    pub(crate) statuses: HashMap<String, Vec<Told>>,
    /// Secrets that were deleted.
    pub(crate) gone: usize,
    /// The last status of each KmsSecret that is there.
    last: HashMap<String, KmsSecretStatus>,
}

impl Entries {
    /// How many KmsSecrets were last told to be ready.
    pub(crate) fn count_ready(&self) -> usize {
        let last = self.statuses.values().filter_map(|told| told.last());
        last.filter(|told| told.is_ready).count()
    }

    fn note_status(&mut self, object: &KmsSecret, at: Instant) {
        let (name, status) = (object.name_any(), object.status.clone().unwrap_or_default());
        // What the API server gives to every new object.
        let unwritten = KmsSecretStatus {
            observed_generation: Some(-1),
            ..KmsSecretStatus::default()
        };
        let before = self.last.insert(name.clone(), status.clone());
        let before = before.unwrap_or(unwritten);
        if before == status {
            return;
        }
        let interval = object.refresh_interval().and_then(parse_duration);
        let interval = interval.and_then(|interval| interval.try_into().ok());
        let told = Told {
            at,
            good: judge(&before, &status, heartbeat(interval.unwrap_or_default())),
            is_ready: is_ready(&status),
            version: status.sources.first().map(|it| it.version_id.clone()),
        };
        self.statuses.entry(name).or_default().push(told);
    }
}

/// What it was good for to write a status over another.
fn judge(before: &KmsSecretStatus, after: &KmsSecretStatus, heartbeat: Duration) -> Good {
    let but_for_times = KmsSecretStatus {
        last_sync_time: before.last_sync_time.clone(),
        next_sync_time: before.next_sync_time.clone(),
        ..after.clone()
    };
    if but_for_times != *before {
        return Good::News;
    }
    let aged = match (&before.last_sync_time, &after.last_sync_time) {
        (Some(before), Some(after)) => Duration::try_from(after.0.duration_since(before.0)).ok(),
        _ => None,
    };
    if aged.is_some_and(|aged| aged >= heartbeat) {
        Good::Heartbeat
    } else {
        Good::Nothing
    }
}

/// Writes it all down.
pub(crate) struct Journal(Follower<Entries>);

impl Journal {
    /// Opens it, before anything is there.
    pub(crate) async fn open(world: &World) -> Result<Self> {
        let follower = Follower::<Entries>::open(
            world,
            PATIENCE,
            |entries, secret, now| match secret {
                Change::Written(secret) => {
                    let changes = entries.secrets.entry(secret.name_any()).or_default();
                    changes.push(now);
                }
                Change::Gone(_) => entries.gone += 1,
            },
            |entries, object, now| match object {
                Change::Written(object) => entries.note_status(object, now),
                Change::Gone(object) => {
                    entries.last.remove(&object.name_any());
                }
            },
        );
        Ok(Self(follower.await?))
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, Page<Entries>> {
        self.0.page()
    }

    /// Waits until what was written is so. Gives up when nothing is written any more.
    pub(crate) async fn until(&self, mut is_so: impl FnMut(&Entries) -> bool) -> Result<()> {
        self.0.until(|entries| is_so(entries)).await.map(drop)
    }

    /// Waits until nothing has been written for a moment.
    pub(crate) async fn until_still(&self) -> Result<()> {
        let mut last = (Instant::now(), 0);
        let still = self.0.until(|entries| {
            if entries.events != last.1 {
                last = (Instant::now(), entries.events);
            }
            last.0.elapsed() > STILL
        });
        still.await.map(drop)
    }
}

const PATIENCE: Patience = Patience {
    look: Duration::from_millis(50),
    most: Duration::from_secs(120),
};
/// What was written is seen by then.
const STILL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(version: &str, synced: &str, next: &str) -> KmsSecretStatus {
        serde_json::from_value(json!({
            "observedGeneration": 1,
            "lastSyncTime": synced,
            "nextSyncTime": next,
            "sources": [{"name": "value", "secretName": "s", "versionId": version}],
        }))
        .unwrap()
    }

    #[test]
    fn times_alone_are_worth_a_write_when_they_are_old() {
        let before = status("v1", "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z");
        let judge = |after| judge(&before, &after, Duration::from_secs(600));
        let after = |version, synced| status(version, synced, "2026-01-01T01:00:00Z");
        assert_eq!(judge(after("v2", "2026-01-01T00:00:01Z")), Good::News);
        assert_eq!(judge(after("v1", "2026-01-01T00:10:00Z")), Good::Heartbeat);
        assert_eq!(judge(after("v1", "2026-01-01T00:09:59Z")), Good::Nothing);
        assert_eq!(judge(after("v1", "2026-01-01T00:00:00Z")), Good::Nothing);
    }
}
