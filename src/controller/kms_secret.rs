//! One `KmsSecret`: gather, plan, act, record.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::Context;
use super::kms_store::{self, Resolved};
use super::memory::{Memory, is_older};
use crate::alibaba::kms;
use crate::api::KmsSecret;
use crate::api::kms_secret::{KmsSecretStatus, SourceStatus, StoreStatus, TargetStatus};
use crate::cluster::{Desired, Fence, WriteError, classify};
use crate::sync::plan::{self, Attempted, Backoff, Plan, Repair, Seen, Target, Why};
use crate::sync::schedule::{note_rotation, overdue};
use crate::sync::status::{self, Synced};
use crate::sync::{Failure, Reason, shape, share};

/// A status that is refused as stale is computed anew this often before the next event decides.
const STATUS_TRIES: usize = 3;
/// Waited before looking again at something that changed under our hands.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_millis(500);
/// The name of the one source, in the status.
const SOURCE_NAME: &str = "source";

/// How a reconcile ended.
enum Outcome {
    /// Nothing was due.
    Waited(Option<Timestamp>),
    /// The target was written.
    Synced(Box<Synced>, Timestamp),
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

/// What is in hand during one reconcile.
struct Round<'a> {
    object: &'a KmsSecret,
    context: &'a Context,
    memory: Memory,
    /// There was a memory: what the status tells was done by this process, or seen by it.
    known: bool,
    store: Result<Resolved, Failure>,
    target: Target,
    /// The target must be looked at again then.
    again: Option<Timestamp>,
    hash: u64,
    now: Timestamp,
}

/// Reconciles one object; everything that can go wrong ends in its status.
///
/// # Errors
/// Never.
pub async fn reconcile(
    object: Arc<KmsSecret>,
    context: Arc<Context>,
) -> Result<Action, Infallible> {
    context.caches.filled().await;
    let mut round = gather(&object, &context).await;
    let plan = match &round.store {
        _ if object.metadata.deletion_timestamp.is_some() => Plan::Wait(None),
        _ => plan::plan(&round.seen()),
    };
    tracing::debug!(object = %object.name_any(), namespace = ?object.namespace(), ?plan, "planned");
    let outcome = match plan {
        Plan::Wait(until) => Outcome::Waited(until),
        Plan::Refuse(failure) => Outcome::Refused(failure),
        Plan::Suspend => Outcome::Suspended,
        Plan::Fetch(why) => round.sync(why).await,
    };
    Ok(round.record(outcome).await)
}

/// Reads what the plan looks at: from the caches, and from the API server only where they cannot be trusted.
async fn gather<'a>(object: &'a KmsSecret, context: &'a Context) -> Round<'a> {
    let (memory, known) = context.memories.recall(object);
    let now = (context.clock)();
    let is_idle = object.spec.suspend == Some(true) || object.metadata.deletion_timestamp.is_some();
    let (store, sight): (_, Result<Sight, _>) = if is_idle {
        let unused = Failure::new(Reason::Suspended, "suspended", "");
        (Err(unused), Ok(Target::Absent.into()))
    } else {
        futures::join!(
            kms_store::resolve(object, context),
            find_target(object, &memory, now, context)
        )
    };
    let (store, sight) = match (store, sight) {
        (store, Ok(sight)) => (store, sight),
        (_, Err(failure)) => (Err(failure), Target::Absent.into()),
    };
    Round {
        hash: share::hash(&object.uid().unwrap_or_default()),
        object,
        context,
        memory,
        known,
        store,
        target: sight.target,
        again: sight.again,
        now,
    }
}

/// A target, and when to look at it again because the cache may not show our own write yet.
struct Sight {
    target: Target,
    again: Option<Timestamp>,
}

impl From<Target> for Sight {
    fn from(target: Target) -> Self {
        Self {
            target,
            again: None,
        }
    }
}

/// The Secret of the target's name.
///
/// The cache shows only Secrets with our label, and can lag behind our own write; where it shows none although there
/// should be one, the label may be gone, so the API server is asked.
async fn find_target(
    object: &KmsSecret,
    memory: &Memory,
    now: Timestamp,
    context: &Context,
) -> Result<Sight, Failure> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.target_name());
    if !memory.look {
        let reference = ObjectRef::new(name).within(&namespace);
        let cached = context.caches.targets.get(&reference);
        let lags = |written: &TargetStatus| {
            cached.as_ref().is_none_or(|cached| {
                let version = cached.resource_version().unwrap_or_default();
                is_older(&version, &written.resource_version)
            })
        };
        if let Some((written, until)) = memory
            .unseen(name, now)
            .filter(|(written, _)| lags(written))
        {
            return Ok(Sight {
                target: Target::Ours {
                    uid: written.uid.clone(),
                    resource_version: written.resource_version.clone(),
                },
                again: Some(until),
            });
        }
        if let Some(cached) = cached {
            return Ok(classify(&cached.metadata, object).into());
        }
    }
    let ready = status::ready(&memory.status);
    let expected = memory.status.target.as_ref();
    let worth_asking = memory.look
        || memory.refused_since.is_some()
        || expected.is_some_and(|target| target.name == name)
        || ready.is_some_and(|(_, reason)| reason == Reason::TargetOwnedByOther.as_str());
    if !worth_asking {
        return Ok(Target::Absent.into());
    }
    let found = context.cluster.secret_metadata(&namespace, name).await?;
    let target = found.map_or(Target::Absent, |secret| classify(&secret, object));
    Ok(target.into())
}

impl Round<'_> {
    fn seen(&self) -> Seen<'_> {
        let store = self.store.as_ref();
        Seen {
            object: self.object,
            status: &self.memory.status,
            last_read: self.memory.last_read,
            known: self.known,
            store: store
                .map(|store| store.status.clone())
                .map_err(Clone::clone),
            target: self.target.clone(),
            backoff: self.memory.backoff.as_ref(),
            repaired: self.memory.repaired.as_ref(),
            started: self.context.started,
            offset: store.map_or(SignedDuration::ZERO, |store| {
                self.context.kms.offset(&store.origin)
            }),
            hash: self.hash,
            limits: &self.context.limits,
            now: self.now,
        }
    }

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
        let (store, value) = match self.read().await {
            Ok(read) => read,
            Err(failure) => return Outcome::Failed(failure),
        };
        let source = match self.judge(&value) {
            Ok(source) => source,
            Err(failure) => return Outcome::Failed(failure),
        };
        let spec = &self.object.spec;
        let data = match shape::shape(&spec.data, self.object.target_type(), &value) {
            Ok(data) => data,
            Err(failure) => return Outcome::Failed(failure),
        };
        if self.has_moved() {
            return Outcome::Moved;
        }
        let fence = match &self.target {
            Target::Ours {
                uid,
                resource_version,
            } => Fence::Unchanged {
                uid: uid.clone(),
                resource_version: resource_version.clone(),
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
        if why == Why::Drift {
            self.memory.repaired = Some(Repair::after(self.memory.repaired.as_ref(), self.now));
        }
        self.observe_rotation(&source, read_at);
        let kms_now = read_at + self.context.kms.offset(&store.1);
        let synced = Synced {
            read_at,
            store: store.0,
            overdue: overdue(std::slice::from_ref(&source), kms_now),
            sources: vec![source],
            target,
        };
        Outcome::Synced(Box::new(synced), read_at)
    }

    /// One read, and what it says of the store that it came from.
    async fn read(
        &self,
    ) -> Result<
        (
            (StoreStatus, crate::alibaba::endpoint::Origin),
            kms::SecretValue,
        ),
        Failure,
    > {
        let store = self.store.as_ref().map_err(Clone::clone)?;
        let key = kms_store::access_key(store, self.context).await?;
        let source = &self.object.spec.source;
        let request = shape::request(source);
        let value = kms::get_secret_value(
            &self.context.kms,
            &store.origin,
            &key,
            store.method,
            &request,
        )
        .await
        .map_err(|err| Failure::of_kms(&err, &source.secret_name, &store.name))?;
        Ok(((store.status.clone(), store.origin.clone()), value))
    }

    /// Checks that the answer is one to the question, and not older than what we had.
    fn judge(&self, value: &kms::SecretValue) -> Result<SourceStatus, Failure> {
        let source = &self.object.spec.source;
        shape::check_version(source, &value.facts)?;
        let mut seen = status::source_status(SOURCE_NAME, &value.facts);
        if let Some(old) = self.memory.status.sources.first()
            && self.memory.status.observed_generation == self.object.metadata.generation
        {
            if value.facts.is_managed() && seen.last_rotation_date < old.last_rotation_date {
                return Err(Failure::new(
                    Reason::StaleAnswer,
                    format!(
                        "KMS answered {:?} as it was before its last rotation",
                        source.secret_name
                    ),
                    "nothing: it is read again",
                ));
            }
            note_rotation(old, &mut seen);
        }
        Ok(seen)
    }

    /// The object changed or went while we were reading: what we have in hand is not for it.
    fn has_moved(&self) -> bool {
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

    /// Measures how long after its announced date a rotation was written.
    fn observe_rotation(&self, source: &SourceStatus, read_at: Timestamp) {
        let Some(old) = self.memory.status.sources.first() else {
            return;
        };
        let announced = crate::sync::schedule::announced(old);
        if old.version_id != source.version_id
            && let Some(date) = announced.filter(|date| *date <= read_at)
        {
            let delay = (self.context.clock)().duration_since(date);
            self.context
                .metrics
                .observe_rotation(Duration::try_from(delay).unwrap_or_default());
        }
    }

    /// Tells the outcome: memory, status, Event; and says when to come back.
    async fn record(mut self, outcome: Outcome) -> Action {
        let before = self.memory.status.clone();
        let context = status::Context {
            generation: self.object.metadata.generation,
            sync: plan::sync_token(self.object),
            now: (self.context.clock)(),
        };
        let next = match self.remember(outcome, context) {
            Next::At(at) => Some(at),
            Next::OnChange => None,
            Next::Scheduled => plan::schedule(&self.seen())
                .and_then(|schedule| schedule.next())
                .map(|due| due.at),
            Next::Never => {
                self.context.memories.keep(self.object, self.memory);
                return Action::await_change();
            }
        };
        if self.memory.status != before {
            status::show_next(&mut self.memory.status, next);
        }
        self.announce(&before).await;
        self.write_status().await;
        let soonest = next.into_iter().chain(self.again).min();
        let action = soonest.map_or_else(Action::await_change, |at| {
            let wait = at.duration_since((self.context.clock)());
            // Never zero: the clock may stand still between two looks.
            Action::requeue(
                Duration::try_from(wait)
                    .unwrap_or_default()
                    .max(Duration::from_millis(1)),
            )
        });
        self.context.memories.keep(self.object, self.memory);
        action
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
            Outcome::Moved => Next::At(context.now + LOOK_AGAIN),
            Outcome::Waited(until) => {
                if self.object.metadata.deletion_timestamp.is_some() {
                    return Next::Never;
                }
                memory.status = status::waiting(&memory.status, context);
                until.map_or(Next::Scheduled, Next::At)
            }
            Outcome::Suspended => {
                memory.status = status::suspended(&memory.status, context);
                Next::OnChange
            }
            Outcome::Synced(synced, read_at) => {
                memory.written = Some((synced.target.clone(), context.now));
                memory.status = status::synced(&memory.status, context, *synced);
                memory.last_read = Some(read_at);
                memory.backoff = None;
                memory.look = false;
                Next::Scheduled
            }
            Outcome::Failed(failure) => {
                let attempt = Attempted::of(
                    self.object,
                    self.store.as_ref().ok().map(|store| &store.status),
                );
                let since = memory
                    .backoff
                    .as_ref()
                    .filter(|last| last.attempt == attempt)
                    .map(|last| last.since);
                let backoff = Backoff {
                    attempt,
                    since: since.unwrap_or(context.now),
                    last: context.now,
                    retry: failure.reason.retry(),
                    retry_after: failure.retry_after,
                };
                let at = backoff.retry_at(self.hash);
                memory.backoff = Some(backoff);
                self.tell_failure(&failure, context);
                Next::At(at)
            }
            Outcome::Refused(failure) => {
                memory.backoff = None;
                let since = *memory.refused_since.get_or_insert(context.now);
                if failure.reason == Reason::TargetOwnedByOther {
                    self.context
                        .memories
                        .wait_for(self.object, self.object.target_name());
                }
                let refusal = Backoff {
                    attempt: Attempted::of(self.object, None),
                    since,
                    last: context.now,
                    retry: failure.reason.retry(),
                    retry_after: failure.retry_after,
                };
                self.tell_failure(&failure, context);
                Next::At(refusal.retry_at(self.hash))
            }
        }
    }

    fn tell_failure(&mut self, failure: &Failure, context: status::Context<'_>) {
        let ceiling = self.ceiling();
        tracing::info!(
            object = %self.object.name_any(),
            namespace = ?self.object.namespace(),
            reason = failure.reason.as_str(),
            code = failure.code,
            "{}", failure.message()
        );
        self.memory.status = status::failed(&self.memory.status, context, failure, ceiling);
    }

    fn ceiling(&self) -> SignedDuration {
        plan::schedule(&self.seen()).map_or(SignedDuration::ZERO, |schedule| schedule.ceiling())
    }

    /// An Event on each change of fortune; none on a first success.
    async fn announce(&self, before: &KmsSecretStatus) {
        let (was, is) = (status::ready(before), status::ready(&self.memory.status));
        if let Some((value, reason)) = is
            && is != was
        {
            let ready = self
                .memory
                .status
                .conditions
                .iter()
                .find(|condition| condition.type_ == "Ready");
            let message = ready.map_or("", |ready| ready.message.as_str());
            let recovered = was.is_some_and(|(value, _)| value == "False");
            match value {
                "False" => {
                    self.context
                        .cluster
                        .publish(self.object, true, reason, message)
                        .await;
                }
                "True" if recovered => {
                    self.context
                        .cluster
                        .publish(self.object, false, reason, message)
                        .await;
                }
                _ => {}
            }
        }
        let overdue = status::rotation_overdue(&self.memory.status);
        if overdue.is_some() && overdue != status::rotation_overdue(before) {
            let message = "KMS does not rotate the secret as it announced.";
            self.context
                .cluster
                .publish(self.object, true, "RotationOverdue", message)
                .await;
        }
    }

    /// Writes the status if it is worth a write, under the version that it was computed from.
    async fn write_status(&mut self) {
        let ceiling = self.ceiling();
        for _ in 0..STATUS_TRIES {
            let memory = &mut self.memory;
            if !status::worth_writing(&memory.stored, &memory.status, ceiling) {
                return;
            }
            let to_json =
                |status: &KmsSecretStatus| serde_json::to_value(status).unwrap_or_default();
            let patch = status::merge_patch(&to_json(&memory.stored), &to_json(&memory.status));
            match self
                .context
                .cluster
                .patch_status(self.object, &memory.version, patch)
                .await
            {
                Ok(version) => {
                    memory.stored = memory.status.clone();
                    memory.version = version;
                    return;
                }
                Err(WriteError::Stale) => {}
                Err(WriteError::Gone) => return,
                Err(WriteError::Failed(failure)) => {
                    tracing::warn!(object = %self.object.name_any(), "the status was not written: {}", failure.message());
                    return;
                }
            }
            let namespace = self.object.namespace().unwrap_or_default();
            let fresh = self
                .context
                .cluster
                .kms_secret(&namespace, &self.object.name_any())
                .await;
            match fresh {
                Ok(Some(fresh)) if fresh.uid() == self.object.uid() => {
                    self.memory.stored = fresh.status.clone().unwrap_or_default();
                    self.memory.version = fresh.resource_version().unwrap_or_default();
                }
                _ => return,
            }
        }
    }
}
