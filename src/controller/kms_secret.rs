//! One `KmsSecret`: gather, plan, act, record.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::Context;
use super::caches::SecretMeta;
use super::gather::{Round, gather};
use super::kms_store::{self, Resolved};
use super::record::Outcome;
use crate::alibaba::endpoint::Origin;
use crate::alibaba::reader::Rank;
use crate::alibaba::secret_value::SecretValue;
use crate::api::KmsSecret;
use crate::api::kms_secret::{SourceStatus, StoreStatus, TargetStatus};
use crate::cluster::{Desired, Fence, WriteError};
use crate::sync::backoff::Repair;
use crate::sync::plan::{self, Plan, Target, Why};
use crate::sync::schedule::{announced, note_rotation, overdue};
use crate::sync::status::{self, Synced};
use crate::sync::{Failure, Reason, shape};

/// A managed secret that stays older than it was for so long was deleted and made anew.
const STALE_MAX: SignedDuration = SignedDuration::from_secs(60);
/// A version of a generic secret that comes back is read once more after this.
const ROLLBACK_CONFIRM: Duration = Duration::from_secs(3);
/// The name of the one source, in the status.
const SOURCE_NAME: &str = "source";

/// Reconciles one object; everything that can go wrong ends in its status.
pub(super) async fn reconcile(
    object: Arc<KmsSecret>,
    context: Arc<Context>,
) -> Result<Action, Infallible> {
    context.caches.filled().await;
    let mut round = gather(&object, &context).await;
    let plan = plan::plan(&round.seen());
    tracing::debug!(object = %object.name_any(), namespace = ?object.namespace(), ?plan, "planned");
    let outcome = match plan {
        Plan::Done => Outcome::Done,
        Plan::Wait(until) => Outcome::Waited(until),
        Plan::Refuse(failure) => Outcome::Refused(failure),
        Plan::Suspend => Outcome::Suspended,
        Plan::Fetch(why) => round.sync(why).await,
    };
    Ok(round.record(outcome).await)
}

impl Round<'_> {
    /// Reads KMS, makes the data, writes the target: all of it or nothing.
    async fn sync(&mut self, why: Why) -> Outcome {
        let outcome = self.attempt(why).await;
        let reason = match &outcome {
            Outcome::Synced(..) => Reason::Synced,
            Outcome::Failed(failure) | Outcome::Refused(failure) => failure.reason,
            _ => Reason::Conflict,
        };
        self.context.metrics.observe_sync(why, reason);
        outcome
    }

    async fn attempt(&mut self, why: Why) -> Outcome {
        let read_at = (self.context.clock)();
        let (store, origin, value) = match self.read(why).await {
            Ok(read) => read,
            Err(failure) => return Outcome::Failed(failure),
        };
        let kms_now = read_at + self.context.kms.offset(&origin);
        let source = match self.judge(&value, &store, kms_now) {
            Ok(source) => source,
            Err(failure) => return Outcome::Failed(failure),
        };
        let spec = &self.object.spec;
        let data = match shape::shape(&spec.data, self.object.target_type(), &value) {
            Ok(data) => data,
            Err(failure) => return Outcome::Failed(failure),
        };
        if self.has_moved(&store).await {
            return Outcome::Moved;
        }
        let fence = match &self.target {
            Target::Ours {
                uid,
                resource_version,
                is_orphan,
            } => Fence::Unchanged {
                uid: uid.clone(),
                resource_version: resource_version.clone(),
                is_orphan: *is_orphan,
            },
            _ => Fence::Absent,
        };
        let desired = Desired {
            owner: self.object,
            data: &data,
        };
        let target = match self.context.cluster.apply(&desired, &fence).await {
            Ok(target) => target,
            Err(WriteError::Stale) => {
                self.memory.look = true;
                return Outcome::Moved;
            }
            Err(WriteError::Gone) => return Outcome::Gone,
            Err(WriteError::Failed(failure)) => return Outcome::Failed(failure),
        };
        self.remove_old_targets(why, &target).await;
        self.note_repair(why, &target);
        self.observe_rotation(&source, &origin);
        let synced = Synced {
            read_at,
            store,
            overdue: overdue(std::slice::from_ref(&source), kms_now),
            sources: vec![source],
            target,
        };
        Outcome::Synced(Box::new(synced), read_at)
    }

    /// One read, and the store that it came from.
    async fn read(&self, why: Why) -> Result<(StoreStatus, Origin, Arc<SecretValue>), Failure> {
        let store = self.store.as_ref().map_err(Clone::clone)?;
        let reader = kms_store::reader(store, self.context).await?;
        let source = &self.object.spec.source;
        let tenant = self.object.namespace().unwrap_or_default().into();
        let value = reader
            .read(shape::request(source), rank(why), &tenant)
            .await
            .map_err(|err| Failure::of_kms(&err, &source.secret_name, &store.name))?;
        Ok((store.status.clone(), store.origin.clone(), value))
    }

    /// Checks that the answer is one to the question, and not older than what we had.
    fn judge(
        &self,
        value: &SecretValue,
        store: &StoreStatus,
        kms_now: Timestamp,
    ) -> Result<SourceStatus, Failure> {
        let source = &self.object.spec.source;
        shape::check_version(source, &value.facts)?;
        let mut seen = status::source_status(SOURCE_NAME, &source.secret_name, &value.facts);
        let status = &self.memory.status;
        let is_same_store = status
            .store
            .as_ref()
            .is_some_and(|old| old.uid == store.uid);
        let Some(old) = status
            .sources
            .first()
            .filter(|old| is_same_store && old.secret_name == seen.secret_name)
        else {
            return Ok(seen);
        };
        if value.facts.is_managed()
            && is_before(&seen, old)
            && !self.has_waited_for(Reason::StaleAnswer)
        {
            return Err(Failure::new(
                Reason::StaleAnswer,
                format!(
                    "KMS answered {:?} as it was before its last rotation",
                    source.secret_name
                ),
                "no action needed: it is read again, and believed after a minute",
            ));
        }
        if !value.facts.is_managed() && self.is_doubtful_rollback(&seen) {
            return Err(Failure {
                retry_after: Some(ROLLBACK_CONFIRM),
                ..Failure::new(
                    Reason::StaleAnswer,
                    format!(
                        "KMS answered an earlier version of {:?}",
                        source.secret_name
                    ),
                    "no action needed: it is read once more and then believed, since it may have been rolled back",
                )
            });
        }
        note_rotation(old, &mut seen, kms_now);
        Ok(seen)
    }

    /// A version that was replaced is back, though nobody asked for another, and was not yet seen twice: a rollback, or a
    /// copy of KMS that lags.
    fn is_doubtful_rollback(&self, seen: &SourceStatus) -> bool {
        let is_same_spec =
            self.memory.status.observed_generation == self.object.metadata.generation;
        let is_back = self.memory.replaced.contains(&seen.version_id);
        let is_confirmed = self
            .memory
            .backoff
            .as_ref()
            .is_some_and(|last| last.reason == Reason::StaleAnswer);
        is_same_spec && is_back && !is_confirmed
    }

    /// It has failed for this reason for a minute: it is no lagging copy of KMS, but a secret that was made anew.
    fn has_waited_for(&self, reason: Reason) -> bool {
        let backoff = self
            .memory
            .backoff
            .as_ref()
            .filter(|backoff| backoff.reason == reason);
        backoff.is_some_and(|backoff| self.now.duration_since(backoff.since) >= STALE_MAX)
    }

    /// After a rename, and once the new target is written: removes the old ones, or a credential would stay that nobody
    /// renews. Only what is still ours, and as it was seen. What cannot be removed is told and tried again at the next
    /// sync; it takes nothing from the success.
    async fn remove_old_targets(&mut self, why: Why, new: &TargetStatus) {
        let is_renamed = self
            .memory
            .status
            .target
            .as_ref()
            .is_some_and(|old| old.name != new.name);
        if !(is_renamed
            || self.memory.has_old_targets
            || matches!(why, Why::Changed | Why::Missing | Why::Forced))
        {
            return;
        }
        let namespace = self.object.namespace().unwrap_or_default();
        let uid = self.object.uid().unwrap_or_default();
        let is_old = |secret: &SecretMeta| {
            secret.namespace().as_ref() == Some(&namespace)
                && secret.name_any() != new.name
                // Not our annotation alone: who took the owner reference away wants to keep the Secret.
                && secret
                    .owner_references()
                    .iter()
                    .any(|owner| owner.controller == Some(true) && owner.uid == uid)
        };
        let olds = self.context.caches.targets.state_filter(is_old);
        self.memory.has_old_targets = false;
        for old in olds {
            let name = old.name_any();
            if self
                .context
                .cluster
                .delete(&namespace, &name, &old.metadata)
                .await
                .is_err()
            {
                self.memory.has_old_targets = true;
                let message = format!(
                    "Secret {name:?}, the target before the last rename, could not be deleted; it is tried again at the next sync."
                );
                self.context
                    .cluster
                    .publish(self.object, true, "OldTargetLeft", &message)
                    .await;
            }
        }
    }

    /// Takes note of a repair, if somebody's doing was undone by it: an apply that moves nothing undid nothing.
    fn note_repair(&mut self, why: Why, target: &TargetStatus) {
        let is_repair = match (why, &self.target) {
            (
                Why::Drift,
                Target::Ours {
                    resource_version, ..
                },
            ) => *resource_version != target.resource_version,
            (Why::Missing, Target::Absent) => self
                .memory
                .status
                .target
                .as_ref()
                .is_some_and(|old| old.name == target.name),
            _ => false,
        };
        if is_repair {
            self.memory.repaired = Some(Repair::after(self.memory.repaired.as_ref(), self.now));
        }
    }

    /// The object changed or went while we were reading, or the store was taken from it: what we have in hand is not for
    /// it.
    async fn has_moved(&self, store: &StoreStatus) -> bool {
        let is_same_store = |found: Resolved| found.status == *store;
        if !kms_store::resolve(self.object, self.context)
            .await
            .is_ok_and(is_same_store)
        {
            return true;
        }
        let now = self
            .context
            .caches
            .kms_secrets
            .get(&ObjectRef::from_obj(self.object));
        now.is_none_or(|now| {
            now.uid() != self.object.uid()
                || now.metadata.generation != self.object.metadata.generation
                || now.metadata.deletion_timestamp.is_some()
        })
    }

    /// Measures how long after its announced date a rotation was written, in the time of KMS.
    fn observe_rotation(&self, source: &SourceStatus, origin: &Origin) {
        let Some(old) = self.memory.status.sources.first() else {
            return;
        };
        let kms_now = (self.context.clock)() + self.context.kms.offset(origin);
        if old.version_id != source.version_id
            && let Some(date) = announced(old).filter(|date| *date <= kms_now)
        {
            let delay = kms_now.duration_since(date);
            self.context
                .metrics
                .observe_rotation(Duration::try_from(delay).unwrap_or_default());
        }
    }
}

/// Both were rotated, and `new` was not rotated since.
fn is_before(new: &SourceStatus, old: &SourceStatus) -> bool {
    matches!((&new.last_rotation_date, &old.last_rotation_date), (Some(new), Some(old)) if new < old)
}

/// New, changed and rotated go before periodic: somebody waits for them.
fn rank(why: Why) -> Rank {
    match why {
        Why::Forced => Rank::Forced,
        Why::New | Why::Missing | Why::Changed | Why::Drift | Why::Rotation => Rank::Urgent,
        Why::Retry | Why::Store | Why::Due => Rank::Later,
    }
}
