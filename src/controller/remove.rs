//! What is removed: targets of former names, and those whose secret is gone from KMS.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use super::caches::SecretMeta;
use super::gather::Round;
use crate::api::kms_secret::TargetStatus;
use crate::cluster::{Leaving, leaving};
use crate::sync::Failure;
use crate::sync::absence::Absence;
use crate::sync::plan::{Target, Why};

impl Round<'_> {
    /// After a rename, and once the new target is written: removes the old ones, or a credential would stay that nobody
    /// renews; or lets go of them, if the policy is to keep Secrets, and takes our keys out of those
    /// of others. Only what is still ours, and as it was seen. What
    /// cannot be removed is told and tried again at the next sync; it takes nothing from the success.
    pub(super) async fn remove_old_targets(&mut self, why: Why, new: &TargetStatus) {
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
        let leaves = |secret: &SecretMeta| leaving(&secret.metadata, self.object);
        let is_old = |secret: &SecretMeta| {
            secret.namespace().as_ref() == Some(&namespace)
                && secret.name_any() != new.name
                && leaves(secret).is_some()
        };
        let olds = self.context.caches.targets.state_filter(is_old);
        self.memory.has_old_targets = false;
        for old in olds {
            let (cluster, name) = (&self.context.cluster, old.name_any());
            let Some(leaving) = leaves(&old) else {
                continue;
            };
            let removed = match leaving {
                Leaving::Delete => cluster.delete(&namespace, &name, &old.metadata).await,
                Leaving::Release => {
                    let uid = self.object.uid();
                    let released = cluster.release(&namespace, &name, &old.metadata, uid.as_ref());
                    released.await
                }
                Leaving::Withdraw => {
                    let withdrawn = cluster.withdraw(&name, &old.metadata, self.object);
                    withdrawn.await.map(drop)
                }
            };
            if removed.is_err() {
                self.memory.has_old_targets = true;
                let deed = match leaving {
                    Leaving::Delete => "deleted",
                    Leaving::Release => "let go",
                    Leaving::Withdraw => "rid of our keys",
                };
                let message = format!(
                    "Secret {name:?}, the target before the last rename, could not be {deed}; it is tried again at the next sync."
                );
                let about = self.object.object_ref(&());
                cluster
                    .publish(&about, true, "OldTargetLeft", &message)
                    .await;
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
