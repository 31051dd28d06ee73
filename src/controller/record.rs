//! What a reconcile leaves behind: memory, status, Event, and when to come back.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{Resource as _, ResourceExt as _};

use super::gather::Round;
use super::known::Known;
use super::memory::Hint;
use super::queue::Again;
use crate::api::kms_secret::KmsSecretStatus;
use crate::cluster::WriteError;
use crate::sync::backoff::{Attempted, Backoff};
use crate::sync::plan;
use crate::sync::status::{self, Synced};
use crate::sync::{Failure, Reason};

/// A status that is refused as stale is computed anew this often before the next event decides.
const STATUS_TRIES: usize = 3;
/// Waited before looking again at something that changed under our hands.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_millis(500);
/// After so many looks in a row somebody is told.
const MOVES_MAX: u32 = 6;
/// A Secret that is not ours is looked at this often: no watch of ours shows it.
const FOREIGN_LOOK: SignedDuration = SignedDuration::from_secs(30);

/// How a reconcile ended.
pub(super) enum Outcome {
    /// It was done once and for all.
    Done,
    /// Nothing was due.
    Waited(Option<Timestamp>),
    /// The target was written.
    Synced(Box<Synced>),
    /// An attempt failed.
    Failed(Failure),
    /// Nothing may be attempted.
    Refused(Failure),
    /// `spec.suspend`.
    Suspended,
    /// The world moved: nothing to tell, look again.
    Moved,
    /// The object or its namespace is going away: nothing to tell.
    Gone,
}

/// When to come back.
enum Next {
    /// As the schedule says.
    Scheduled,
    /// Then.
    At(Timestamp),
    /// When something changes.
    OnChange,
    /// Never, and there is nothing to tell.
    Never,
}

impl Round<'_> {
    /// Tells the outcome: memory, status, Event; and says when to come back.
    pub(super) async fn record(mut self, outcome: Outcome) -> Again<Duration> {
        let is_synced = matches!(outcome, Outcome::Synced(_));
        let (before, told) = (self.memory.status.clone(), self.memory.stored.clone());
        let context = status::Context {
            generation: self.object.metadata.generation,
            sync: self.object.sync_token(),
            now: (self.context.clock)(),
        };
        let next = match self.remember(outcome, context) {
            Next::At(at) => Some(at),
            Next::OnChange => None,
            Next::Scheduled => plan::schedule(&self.seen())
                .and_then(|schedule| schedule.next())
                .map(|due| due.at),
            Next::Never => {
                self.context.keep(self.object, self.memory);
                return Again::Never;
            }
        };
        if self.memory.status != before {
            self.memory
                .status
                .change(|status| status::show_next(status, next));
        }
        if is_synced && self.context.objects.is_busy() {
            // Secrets go before statuses: the next look finds nothing to read, and tells of this one.
            self.context.keep(self.object, self.memory);
            return Again::Later;
        }
        let next = if self.write_status().await {
            self.announce(&told).await;
            next.into_iter().chain(self.roll_out().await).min()
        } else {
            self.write_again(next)
        };
        let now = (self.context.clock)();
        let leftover = self.memory.leftover.map(|left| left.until);
        let leftover = leftover.filter(|until| *until > now);
        let soonest = next.into_iter().chain(self.again).chain(leftover).min();
        let wait = soonest.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        self.context.keep(self.object, self.memory);
        // Never zero: the clock may stand still between two looks.
        wait.map_or(Again::Never, |wait| {
            Again::At(wait.max(Duration::from_millis(1)))
        })
    }

    /// Takes the outcome into the memory, and says when to come back.
    fn remember(&mut self, outcome: Outcome, context: status::Context<'_>) -> Next {
        let refused = matches!(outcome, Outcome::Refused(_));
        if !refused && self.memory.refused_since.take().is_some() {
            self.context.memories.stop_waiting(self.object);
        }
        let memory = &mut self.memory;
        match outcome {
            Outcome::Gone => Next::Never,
            Outcome::Waited(_) if self.object.metadata.deletion_timestamp.is_some() => Next::Never,
            Outcome::Waited(until) => {
                if memory.moved_until.is_none_or(|until| until <= context.now) {
                    memory.moved = 0;
                }
                memory.status = status::waiting(&memory.status, context).into();
                until.map_or(Next::Scheduled, Next::At)
            }
            Outcome::Done => {
                memory.status = status::done(&memory.status, context).into();
                Next::OnChange
            }
            Outcome::Suspended => {
                memory.status = status::suspended(&memory.status, context).into();
                Next::OnChange
            }
            Outcome::Synced(synced) => {
                memory.note_versions(&synced.sources);
                let read_at = synced.read_at;
                memory.written = Some(Box::new((synced.target.clone(), context.now)));
                memory.status = status::synced(&memory.status, context, *synced).into();
                memory.last_read = Some(read_at);
                memory.backoff = None;
                memory.moved = 0;
                memory.moved_until = None;
                memory.tried = false;
                memory.told = Hint::default();
                Next::Scheduled
            }
            Outcome::Moved => self.look_again(context),
            Outcome::Failed(failure) => self.fail(&failure, context),
            Outcome::Refused(failure) => self.refuse(&failure, context),
        }
    }

    /// The world moved: once is chance, again and again is somebody.
    fn look_again(&mut self, context: status::Context<'_>) -> Next {
        self.memory.moved += 1;
        let wait = LOOK_AGAIN * 2i32.pow(self.memory.moved.min(7) - 1);
        if self.memory.moved >= MOVES_MAX {
            let failure = plan::contested(self.object.target_name(), wait);
            self.tell_failure(&failure, context);
        }
        self.memory.moved_until = Some(context.now + wait);
        Next::At(context.now + wait)
    }

    /// An attempt failed: the next one waits, unless it is for something else.
    fn fail(&mut self, failure: &Failure, context: status::Context<'_>) -> Next {
        let seen = self.seen();
        let attempt = Attempted::of(self.object, seen.store.ok(), seen.target_uid());
        let same = self
            .memory
            .backoff
            .as_ref()
            .filter(|last| last.attempt == attempt);
        let since = same.map_or(context.now, |last| last.since);
        let backoff = backoff(attempt, since, failure, context.now);
        let at = backoff.retry_at(self.hash);
        self.memory.backoff = Some(backoff.into());
        self.memory.tried = true;
        self.tell_failure(failure, context);
        Next::At(at)
    }

    /// Nothing was attempted: what heals it may be attempted at once.
    fn refuse(&mut self, failure: &Failure, context: status::Context<'_>) -> Next {
        self.memory.backoff = None;
        self.memory.tried = true;
        let since = *self.memory.refused_since.get_or_insert(context.now);
        self.tell_failure(failure, context);
        if matches!(
            failure.reason,
            Reason::TargetOwnedByOther | Reason::TargetNotFound
        ) {
            let memories = &self.context.memories;
            memories.wait_for(self.object, self.object.target_name());
            return Next::At(context.now + FOREIGN_LOOK);
        }
        let attempt = Attempted::of(self.object, None, None);
        Next::At(backoff(attempt, since, failure, context.now).retry_at(self.hash))
    }

    fn tell_failure(&mut self, failure: &Failure, context: status::Context<'_>) {
        let (ceiling, is_intact) = (self.ceiling(), self.seen().is_intact());
        tracing::info!(
            object = %self.object.name_any(),
            namespace = self.object.metadata.namespace,
            reason = failure.reason.as_str(),
            code = failure.code,
            "{}", failure.message()
        );
        self.memory.status =
            status::failed(&self.memory.status, context, failure, ceiling, is_intact).into();
    }

    fn ceiling(&self) -> SignedDuration {
        plan::schedule(&self.seen()).map_or(SignedDuration::ZERO, |schedule| schedule.ceiling())
    }

    /// An Event on each change of fortune against what was told `before`; none on a first success.
    async fn announce(&self, before: &KmsSecretStatus) {
        let (about, cluster) = (self.object.object_ref(&()), &self.context.cluster);
        let (was, is) = (status::ready(before), status::ready(&self.memory.status));
        if let Some((value, reason)) = is.filter(|_| is != was) {
            let message = status::ready_message(&self.memory.status);
            let has_recovered = was.is_some_and(|(value, _)| value == "False");
            if value == "False" || has_recovered {
                cluster
                    .publish(&about, value == "False", reason, message)
                    .await;
            }
        }
        let overdue = status::rotation_overdue(&self.memory.status);
        if overdue.is_some() && overdue != status::rotation_overdue(before) {
            let message = "KMS does not rotate the secret as it announced.";
            cluster
                .publish(&about, true, "RotationOverdue", message)
                .await;
        }
    }

    /// Writes the status if it is worth a write, under the version that it was computed from. Answers whether what the
    /// API server has is now good enough.
    pub(super) async fn write_status(&mut self) -> bool {
        let ceiling = self.ceiling();
        for _ in 0..STATUS_TRIES {
            let memory = &mut self.memory;
            if !status::worth_writing(&memory.stored, &memory.status, ceiling) {
                memory.unwritten = 0;
                return true;
            }
            let to_json =
                |status: &KmsSecretStatus| serde_json::to_value(status).unwrap_or_default();
            let patch = status::merge_patch(&to_json(&memory.stored), &to_json(&memory.status));
            let patched = self
                .context
                .cluster
                .patch_status(self.object, &memory.version, patch)
                .await;
            match patched {
                Ok(version) => {
                    memory.stored = memory.status.clone();
                    memory.version = version;
                    memory.unwritten = 0;
                    return true;
                }
                Err(WriteError::Stale) => {}
                Err(WriteError::Gone) => return true,
                Err(WriteError::Failed(failure)) => {
                    tracing::warn!(object = %self.object.name_any(), namespace = self.object.metadata.namespace, "{}", failure.message());
                    return false;
                }
            }
            let fresh = self.context.cluster.kms_secret(self.object).await;
            let Ok(Some(fresh)) = fresh else { return false };
            if fresh.uid() != self.object.uid() {
                return true;
            }
            self.memory.version = fresh.resource_version().unwrap_or_default();
            let told = Known::from(fresh.status.unwrap_or_default());
            let is_others = told != self.memory.stored;
            self.memory.stored = told.clone();
            if is_others {
                // Another process told of it meanwhile: what it knows is newer than what we began with.
                self.memory.status = told;
                self.memory.last_read = None;
                return false;
            }
        }
        false
    }

    /// When to come back after a status that could not be written.
    pub(super) fn write_again(&mut self, next: Option<Timestamp>) -> Option<Timestamp> {
        self.memory.unwritten += 1;
        let at = (self.context.clock)() + LOOK_AGAIN * 2i32.pow(self.memory.unwritten.min(9));
        next.into_iter().chain([at]).min()
    }
}

fn backoff(attempt: Attempted, since: Timestamp, failure: &Failure, now: Timestamp) -> Backoff {
    Backoff {
        attempt,
        since,
        last: now,
        reason: failure.reason,
        retry_after: failure.retry_after,
    }
}
