//! One `KmsSecret`: gather, plan, act, record.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::Context;
use super::gather::{Round, gather};
use super::memory::Hint;
use super::queue::Again;
use super::read::Fetched;
use super::record::Outcome;
use super::store::{self, Resolved};
use crate::api::KmsSecret;
use crate::api::kms_secret::{StoreStatus, TargetStatus};
use crate::cluster::{Desired, Fence, WriteError};
use crate::sync::backoff::Repair;
use crate::sync::plan::{self, Plan, Target, Why};
use crate::sync::rollout::{self, Written};
use crate::sync::schedule::{announced, overdue};
use crate::sync::status::{self, Synced};
use crate::sync::{Failure, Reason};

/// Reconciles one object, if it is there and this replica's; everything that can go wrong ends in its status.
pub(super) async fn reconcile(
    object: ObjectRef<KmsSecret>,
    context: Arc<Context>,
) -> Again<Duration> {
    let Some(object) = context.caches.kms_secrets.get(&object) else {
        return Again::Never;
    };
    if !context.is_ours(&object) {
        return Again::Never;
    }
    let uid = object.uid().unwrap_or_default();
    tokio::select! {
        // First, so that no step is taken once another replica may be at work.
        biased;
        () = context.shares.lost(&uid) => {
            context.memories.forget(&object);
            Again::Never
        }
        next = look(&object, &context) => next,
    }
}

async fn look(object: &Arc<KmsSecret>, context: &Context) -> Again<Duration> {
    // Boxed, here and below: a thousand of these wait for KMS at a time, and need not be as large as what comes before and
    // after that.
    let mut round = gather(object, context).boxed().await;
    let plan = plan::plan(&round.seen());
    tracing::debug!(object = %object.name_any(), namespace = object.metadata.namespace, ?plan, "planned");
    if round.hinted && matches!(plan, Plan::Done | Plan::Suspend | Plan::Wait(None)) {
        // Nothing will act on it. What is refused keeps it: it may pass in a moment.
        round.context.memories.take_hint(object);
    }
    if matches!(plan, Plan::Done | Plan::Wait(_)) {
        round.remove_again().boxed().await;
    }
    let outcome = match plan {
        Plan::Done => Outcome::Done,
        Plan::Wait(until) => Outcome::Waited(until),
        Plan::Refuse(failure) => Outcome::Refused(failure),
        Plan::Suspend => Outcome::Suspended,
        Plan::Fetch(why) => round.sync(why).await,
    };
    round.record(outcome).boxed().await
}

impl Round<'_> {
    /// Reads KMS, makes the data, writes the target: all of it or nothing.
    async fn sync(&mut self, why: Why) -> Outcome {
        let hint = self.take_wish(why);
        let began = tokio::time::Instant::now();
        let outcome = self.attempt(why).await;
        let elapsed = began.elapsed();
        if let (Some(hint), Outcome::Moved) = (hint, &outcome) {
            self.context.memories.hint(self.object, hint);
        }
        let reason = match &outcome {
            Outcome::Synced(_) => Reason::Synced,
            Outcome::Failed(failure) | Outcome::Refused(failure) => failure.reason,
            _ => Reason::Conflict,
        };
        self.context.metrics.observe_sync(why, reason, elapsed);
        match &outcome {
            Outcome::Failed(failure) => self.note_absence(failure).boxed().await,
            _ => self.memory.absence = None,
        }
        if let Ok(store) = &self.store {
            self.context.tell_of_clock(store).boxed().await;
        }
        if let Some(works) = tells_of_store(reason) {
            self.context.doubt_store(self.object, works);
        }
        outcome
    }

    /// Whatever the cause of a read, it is also what the hint asks for; it is taken before the read is sent, so that one
    /// that comes meanwhile asks for another. A failure is tried again by itself, and needs no hint for it.
    fn take_wish(&mut self, why: Why) -> Option<Hint> {
        if plan::is_wish(&self.seen(), why) {
            self.memory.wishes.take(self.now);
        }
        self.hinted = false;
        let hint = self.context.memories.take_hint(self.object);
        self.memory.told = self.memory.told.or(hint.unwrap_or_default());
        hint
    }

    async fn attempt(&mut self, why: Why) -> Outcome {
        let fetched = match self.fetch(why).await {
            Ok(fetched) => fetched,
            Err(failure) => {
                // It may have failed for what was changed meanwhile.
                return match &self.store {
                    Ok(store) if self.is_other_store(&store.status).await => Outcome::Moved,
                    _ => Outcome::Failed(failure),
                };
            }
        };
        let data = match fetched.shape(self.object, self.context).await {
            Ok(data) => data,
            Err(failure) => return Outcome::Failed(failure),
        };
        if self.has_moved(&fetched.store).await {
            return Outcome::Moved;
        }
        if self.seen().is_lost() {
            match self.is_alive().boxed().await {
                Ok(true) => {}
                Ok(false) => return Outcome::Gone,
                Err(failure) => return Outcome::Failed(failure),
            }
        }
        let desired = Desired {
            owner: self.object,
            data: &data,
            known: self.memory.status.target.as_ref(),
        };
        let target = match self
            .context
            .cluster
            .apply(&desired, &Fence::from(&self.target))
            .boxed()
            .await
        {
            Ok(target) => target,
            Err(WriteError::Stale) => {
                self.memory.look = true;
                return Outcome::Moved;
            }
            Err(WriteError::Gone) => return Outcome::Gone,
            Err(WriteError::Failed(failure)) => return Outcome::Failed(failure),
        };
        self.remove_old_targets(why, &target).boxed().await;
        self.note_repair(why, &target);
        self.observe_rotation(&fetched);
        let (status, is_told) = (&self.memory.status, self.memory.told.rotation_failed);
        let written = Written {
            store: &fetched.store,
            sources: &fetched.told,
            target: &target,
        };
        let rollout = rollout::after_write(status, self.object, &written);
        let by_event = status::told_failure(status, &fetched.told, is_told);
        let synced = Synced {
            read_at: fetched.read_at,
            overdue: by_event.or(overdue(&fetched.told, fetched.kms_now)),
            store: fetched.store,
            sources: fetched.told,
            target,
            rollout,
        };
        Outcome::Synced(Box::new(synced))
    }

    /// Takes note of a repair, if somebody's doing was undone by it: an apply that moves nothing undid nothing.
    fn note_repair(&mut self, why: Why, target: &TargetStatus) {
        let is_repair = match (why, &self.target) {
            (
                Why::Drift,
                Target::Ours {
                    resource_version, ..
                }
                | Target::Shared {
                    resource_version, ..
                },
            ) => *resource_version != target.resource_version,
            (Why::Missing, Target::Absent | Target::Shared { .. }) => {
                self.seen().written().is_some()
            }
            _ => false,
        };
        if is_repair {
            let last = self.memory.repaired.as_deref();
            self.memory.repaired = Some(Repair::after(last, self.now).into());
        }
    }

    /// Asks the API server whether the object is still there. A target that went may have gone with it, and the watch of
    /// Secrets be ahead of ours of objects: one made for an owner that is gone would be collected again and again, or,
    /// without an owner, stay for ever.
    async fn is_alive(&self) -> Result<bool, Failure> {
        let found = self.context.cluster.kms_secret(self.object).await?;
        Ok(found.is_some_and(|found| {
            found.uid() == self.object.uid() && found.metadata.deletion_timestamp.is_none()
        }))
    }

    /// The object changed or went while we were reading, or the store was taken from it: what we have in hand is not for
    /// it.
    async fn has_moved(&self, store: &StoreStatus) -> bool {
        if self.is_other_store(store).await {
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

    /// The store that the object may use now is not the one that we have in hand.
    async fn is_other_store(&self, store: &StoreStatus) -> bool {
        let is_same = |found: Resolved| found.status.is_same_identity(store);
        !store::resolve(self.object, self.context)
            .await
            .is_ok_and(is_same)
    }

    /// Measures how long after its announced date a rotation was written, in the time of KMS.
    fn observe_rotation(&self, fetched: &Fetched<'_>) {
        let kms_now = (self.context.clock)() + self.context.kms.offset(&fetched.origin);
        let delays = fetched.told.iter().filter_map(|new| {
            let known = &self.memory.status.sources;
            let old = known.iter().find(|old| old.name == new.name)?;
            let date = announced(old).filter(|date| *date <= kms_now)?;
            (old.version_id != new.version_id).then(|| kms_now.duration_since(date))
        });
        if let Some(delay) = delays.max() {
            self.context
                .metrics
                .observe_rotation(Duration::try_from(delay).unwrap_or_default());
        }
    }
}

/// Whether an attempt that ended so shows that the store's credentials work, or that they don't.
fn tells_of_store(reason: Reason) -> Option<bool> {
    match reason {
        Reason::Synced => Some(true),
        Reason::CredentialsInvalid
        | Reason::CredentialsNotFound
        | Reason::CredentialsNotAllowed
        | Reason::IdentityRefused
        | Reason::AccountUnavailable
        | Reason::InstanceUnavailable => Some(false),
        _ => None,
    }
}
