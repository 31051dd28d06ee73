//! One `KmsSecret`: gather, plan, act, record.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::gather::{Round, gather};
use super::record::Outcome;
use super::{Context, kms_store};
use crate::alibaba::endpoint::Origin;
use crate::alibaba::reader::Rank;
use crate::alibaba::secret_value::SecretValue;
use crate::api::KmsSecret;
use crate::api::kms_secret::{SourceStatus, StoreStatus};
use crate::cluster::{Desired, Fence, WriteError};
use crate::sync::backoff::Repair;
use crate::sync::plan::{self, Plan, Target, Why};
use crate::sync::schedule::{announced, note_rotation, overdue};
use crate::sync::status::{self, Synced};
use crate::sync::{Failure, Reason, shape};

/// The name of the one source, in the status.
const SOURCE_NAME: &str = "source";

/// Reconciles one object; everything that can go wrong ends in its status.
///
/// # Errors
/// Never.
pub(super) async fn reconcile(
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
        let kms_now = read_at + self.context.kms.offset(&origin);
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
    fn judge(&self, value: &SecretValue) -> Result<SourceStatus, Failure> {
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
        let announced = announced(old);
        if old.version_id != source.version_id
            && let Some(date) = announced.filter(|date| *date <= read_at)
        {
            let delay = (self.context.clock)().duration_since(date);
            self.context
                .metrics
                .observe_rotation(Duration::try_from(delay).unwrap_or_default());
        }
    }
}

/// New, changed and rotated go before periodic: somebody waits for them.
fn rank(why: Why) -> Rank {
    match why {
        Why::Forced => Rank::Forced,
        Why::New | Why::Missing | Why::Changed | Why::Drift | Why::Rotation => Rank::Urgent,
        Why::Retry | Why::Store | Why::Due => Rank::Later,
    }
}
