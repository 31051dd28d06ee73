//! What is removed: targets of former names, and those whose secret is gone from KMS.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use super::Context;
use super::gather::Round;
use super::memory::Leftover;
use super::target_meta::TargetMeta;
use crate::api::KmsSecret;
use crate::api::kms_secret::TargetStatus;
use crate::cluster::{Leaving, leaving};
use crate::sync::Failure;
use crate::sync::absence::Absence;
use crate::sync::plan::{Target, Why};

/// Waited before a removal is tried again; doubled each time, up to about four minutes.
const REMOVE_AGAIN: SignedDuration = SignedDuration::from_millis(500);

impl Context {
    /// Takes note of whose Secrets of former names are there: whoever renamed them may have ended before they were removed.
    pub(super) fn note_leftovers(&self) {
        for secret in self.caches.targets.state() {
            self.note_leftover(&secret);
        }
    }

    /// The same of one Secret: the cache may show it only after its successor was written.
    pub(super) fn note_leftover(&self, secret: &TargetMeta) {
        for reference in secret.marked_for() {
            let object = self.caches.kms_secrets.get(&reference);
            if let Some(object) = object.filter(|object| is_leftover(secret, object)) {
                self.memories.note_leftover(&object);
            }
        }
    }
}

/// Cheap for what is not, since all targets are asked.
fn is_leftover(secret: &TargetMeta, object: &KmsSecret) -> bool {
    let metadata = &object.metadata;
    let is_marked = || {
        secret
            .marks()
            .any(|name| metadata.name.as_deref() == Some(name))
    };
    Some(secret.namespace()) == metadata.namespace.as_deref()
        && secret.name() != object.target_name()
        && is_marked()
        && leaving(&secret.metadata(), object).is_some()
}

impl Round<'_> {
    /// After a rename, and once the new target is written: removes the old ones, or a credential would stay that nobody
    /// renews; or lets go of them, if the policy is to keep Secrets, and takes our keys out of those of others. Only what
    /// is still ours, and as it was seen. What cannot be removed is told and tried again; it takes nothing from the success.
    pub(super) async fn remove_old_targets(&mut self, why: Why, new: &TargetStatus) {
        let old = self.memory.status.target.as_ref();
        let is_renamed = old.is_some_and(|old| old.name != new.name);
        if is_renamed
            || self.memory.leftover.is_some()
            || matches!(why, Why::Changed | Why::Missing)
        {
            self.remove_leftovers().await;
        }
    }

    /// The same when it is due, without a sync.
    pub(super) async fn remove_again(&mut self) {
        let is_due = self
            .memory
            .leftover
            .is_some_and(|left| left.until <= self.now);
        let status = &self.memory.status;
        // Until the new target is written, the old one is all there is.
        let is_written = status.observed_generation == self.object.metadata.generation
            && self.seen().is_intact();
        if is_due && is_written {
            self.remove_leftovers().await;
        }
    }

    async fn remove_leftovers(&mut self) {
        let object = self.object;
        let targets = &self.context.caches.targets;
        let olds = targets.state_filter(|secret| is_leftover(secret, object));
        let before = self.memory.leftover.take();
        let mut kept = Vec::new();
        for old in olds {
            if let Err(deed) = self.remove(&old).await {
                kept.push((old.name().to_owned(), deed));
            }
        }
        if kept.is_empty() {
            return;
        }
        let tries = before.map_or(0, |before| before.tries);
        let wait = REMOVE_AGAIN * 2i32.pow(tries.min(9));
        self.memory.leftover = Some(Leftover {
            tries: tries + 1,
            until: (self.context.clock)() + wait,
        });
        if tries > 0 {
            return;
        }
        for (name, deed) in kept {
            let message = format!(
                "Secret {name:?}, the target before the last rename, could not be {deed}; it is tried again."
            );
            let about = object.object_ref(&());
            let cluster = &self.context.cluster;
            cluster
                .publish(&about, true, "OldTargetLeft", &message)
                .await;
        }
    }

    /// Removes one Secret, or says what could not be done to it.
    async fn remove(&self, old: &TargetMeta) -> Result<(), &'static str> {
        let seen = old.metadata();
        let Some(leaving) = leaving(&seen, self.object) else {
            return Ok(());
        };
        let (cluster, namespace, name) = (&self.context.cluster, old.namespace(), old.name());
        match leaving {
            Leaving::Delete => {
                let deleted = cluster.delete(namespace, name, &seen).await;
                deleted.map_err(|_| "deleted")
            }
            Leaving::Release => {
                let uid = self.object.uid();
                let released = cluster.release(namespace, name, &seen, uid.as_ref());
                released.await.map_err(|_| "let go")
            }
            Leaving::Withdraw => {
                let withdrawn = cluster.withdraw(name, &seen, self.object);
                withdrawn.await.map(drop).map_err(|_| "rid of our keys")
            }
        }
    }

    /// Counts how long the secret has been gone from KMS; once that is final, and the spec asks for it, deletes the Secret
    /// that we saw.
    pub(super) async fn note_absence(&mut self, failure: &Failure) {
        let Ok(store) = &self.store else { return };
        let (known, now) = (self.memory.absence, (self.context.clock)());
        let (object, status) = (self.object, &self.memory.status);
        let absence = Absence::after(known, object, status, &store.status, failure, now);
        self.memory.absence = absence;
        let Target::Ours {
            uid,
            resource_version,
            is_predecessors: false,
        } = &self.target
        else {
            return;
        };
        let patience = self.context.limits.gone_after;
        if !absence.is_some_and(|absence| absence.is_final(patience, now)) {
            return;
        }
        let seen = ObjectMeta {
            uid: Some(uid.clone()),
            resource_version: Some(resource_version.clone()),
            ..ObjectMeta::default()
        };
        let namespace = object.namespace().unwrap_or_default();
        let (cluster, name) = (&self.context.cluster, object.target_name());
        // What failed is tried again at the next read.
        if cluster.delete(&namespace, name, &seen).await.is_ok() {
            let message = format!(
                "Secret {name:?} was deleted, as deletionPolicy Delete asks: the secret is gone from KMS."
            );
            let about = object.object_ref(&());
            cluster
                .publish(&about, true, "SecretDeleted", &message)
                .await;
        }
    }
}
