//! Restarts of workloads, once the status tells of them: what is pending survives a restart of ours.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, ResourceExt as _};

use super::gather::Round;
use crate::api::kms_secret::PendingRestart;
use crate::cluster::RestartError;
use crate::sync::rollout::{self, Hindrance, Look, Verdict};
use crate::sync::status;

/// A workload that changes under our hands is looked at again this often at once.
const TRIES: usize = 4;
/// The object is not reconciled meanwhile, so a slow admission webhook of a workload must not keep it long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a workload.
enum Fate {
    Restarted,
    Done,
    Hindered(Hindrance, Option<Timestamp>),
}

impl Round<'_> {
    /// Restarts what is pending and due; answers when to look again. Nothing that fails here takes from the success of
    /// the sync.
    pub(super) async fn roll_out(&mut self) -> Option<Timestamp> {
        let due = self.rollout_due()?;
        if due > (self.context.clock)() {
            return Some(due);
        }
        // In a box: few objects come here, and all wait with the room for it.
        Box::pin(self.restart_pending()).await
    }

    /// When to look at what is pending, if anything is.
    fn rollout_due(&self) -> Option<Timestamp> {
        let status = &self.memory.status;
        let is_pending = status
            .rollout
            .as_ref()
            .is_some_and(|rollout| !rollout.pending.is_empty());
        let is_idle = self.object.spec.suspend == Some(true)
            || self.object.metadata.deletion_timestamp.is_some();
        if is_idle || !is_pending {
            return None;
        }
        let began = self.memory.began.unwrap_or(self.now);
        let times = (began, (self.context.clock)());
        let last = self.memory.looked.as_deref();
        Some(Look::due(last, status, self.object, self.hash, times))
    }

    async fn restart_pending(&mut self) -> Option<Timestamp> {
        let status = &self.memory.status;
        let pending = rollout::pending(status, self.object);
        let token = status.rollout.as_ref()?.token.clone();
        let fates = join_all(pending.iter().map(|one| self.restart(one, &token))).await;
        let mut left = Vec::new();
        let mut hindered = Vec::new();
        for (pending, fate) in pending.into_iter().zip(fates) {
            match fate {
                Fate::Done => {}
                Fate::Restarted => self.tell_restart(&pending).await,
                Fate::Hindered(hindrance, until) => {
                    left.push((pending, hindrance));
                    hindered.push((hindrance, until));
                }
            }
        }
        let now = (self.context.clock)();
        let context = status::Context {
            generation: self.object.metadata.generation,
            sync: self.object.sync_token(),
            now,
        };
        let before = self.memory.status.clone();
        let after = rollout::looked(&before, self.object, &left, context);
        let last = self.memory.looked.take();
        if !left.is_empty() {
            let look = Look::after(
                last.as_deref(),
                &after,
                self.object,
                &hindered,
                self.hash,
                now,
            );
            self.memory.looked = Some(Box::new(look));
        }
        self.memory.status = after.into();
        let hindrance = rollout::hindrance(&self.memory.status);
        if let Some((reason, message)) =
            hindrance.filter(|is| rollout::hindrance(&before) != Some(*is))
        {
            let about = self.object.object_ref(&());
            let cluster = &self.context.cluster;
            cluster.publish(&about, true, reason, message).await;
        }
        let next = self.memory.looked.as_ref().map(|look| look.next);
        if self.write_status().await {
            next
        } else {
            self.write_again(next)
        }
    }

    /// Looks at a workload, and restarts it if it is due.
    async fn restart(&self, pending: &PendingRestart, token: &str) -> Fate {
        let tries = async {
            for _ in 0..TRIES {
                match self.try_restart(pending, token).await {
                    Ok(fate) => return fate,
                    Err(RestartError::Hindered(hindrance)) => {
                        return Fate::Hindered(hindrance, None);
                    }
                    Err(RestartError::Stale) => {}
                }
            }
            Fate::Hindered(Hindrance::WorkloadUnavailable, None)
        };
        let fate = tokio::time::timeout(PATIENCE, tries).await;
        fate.unwrap_or(Fate::Hindered(Hindrance::WorkloadUnavailable, None))
    }

    async fn try_restart(
        &self,
        pending: &PendingRestart,
        token: &str,
    ) -> Result<Fate, RestartError> {
        let (namespace, name) = (
            self.object.namespace().unwrap_or_default(),
            self.object.name_any(),
        );
        let cluster = &self.context.cluster;
        let _place = cluster.place_to_restart().await;
        let seen = cluster
            .workload(&namespace, pending, self.object.target_name())
            .await
            .map_err(RestartError::Hindered)?;
        let says = seen.as_ref().map(|seen| &seen.says);
        let now = (self.context.clock)();
        match (rollout::judge(says, pending, &name, token, now), &seen) {
            (Verdict::Restart(mark), Some(seen)) => {
                cluster.restart(&namespace, pending, seen, &mark).await?;
                Ok(Fate::Restarted)
            }
            (Verdict::Hindered(hindrance, until), _) => Ok(Fate::Hindered(hindrance, until)),
            (Verdict::Done | Verdict::Restart(_), _) => Ok(Fate::Done),
        }
    }

    /// Tells it to those who look at the `KmsSecret`, and to those who wonder about the workload.
    async fn tell_restart(&self, pending: &PendingRestart) {
        let (object, kind) = (self.object, pending.kind.as_str());
        let message = format!(
            "{kind} {:?} is restarted, since Secret {:?} of KmsSecret {:?} changed.",
            pending.name,
            object.target_name(),
            object.name_any()
        );
        let workload = ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some(kind.to_owned()),
            name: Some(pending.name.clone()),
            namespace: object.namespace(),
            ..ObjectReference::default()
        };
        for about in [object.object_ref(&()), workload] {
            let cluster = &self.context.cluster;
            cluster
                .publish(&about, false, "RolloutRestarted", &message)
                .await;
        }
    }
}
