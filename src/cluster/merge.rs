//! Writes of keys into Secrets that somebody else keeps.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};

use super::refusal::{is_of_managers, write_error};
use super::secret::{ApplySecret, Desired, Fence};
use super::shared::{hand_over, manager, managers_of, nothing, taken};
use super::{Cluster, WriteError, target_status, within_deadline};
use crate::api::KmsSecret;
use crate::api::kms_secret::TargetStatus;

impl Cluster {
    /// Applies keys of ours, and no more, to the Secret that was seen. Never takes a key that was not ours.
    pub(super) async fn merge(
        &self,
        desired: &Desired<'_>,
        fence: &Fence,
    ) -> Result<TargetStatus, WriteError> {
        let Fence::Unchanged {
            uid,
            resource_version,
            ..
        } = fence
        else {
            return Err(WriteError::Stale);
        };
        let (owner, name) = (desired.owner, desired.owner.target_name());
        let namespace = owner.namespace().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let found = self.secret_metadata(&namespace, name).await;
        let mut secret = found
            .map_err(WriteError::Failed)?
            .ok_or(WriteError::Stale)?;
        if secret.uid.as_ref() != Some(uid)
            || secret.resource_version.as_ref() != Some(resource_version)
        {
            return Err(WriteError::Stale);
        }
        if let Some(patch) = hand_over(&secret, owner) {
            (self.observe)("patch", "secrets");
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            let handed = within_deadline(api.patch_metadata(name, &params, &patch)).await;
            secret = handed.map_err(|err| write_error(&err, name))?.metadata;
        }
        let known = desired.known.filter(|known| known.uid == *uid);
        let known = known.map_or(&[][..], |known| &known.keys);
        if let Some(failure) = taken(&secret, owner, desired.data, known) {
            return Err(WriteError::Failed(failure));
        }
        let fence = Fence::of(&secret);
        let body = ApplySecret::new(desired, &fence);
        let params = PatchParams::apply(&manager(owner));
        (self.observe)("apply", "secrets");
        let patch = Patch::Apply(&body);
        let applied = match within_deadline(api.patch_metadata(name, &params, &patch)).await {
            // Somebody edited what is ours, at the very version at which nothing else is in the way.
            Err(err) if is_of_managers(&err) => {
                (self.observe)("apply", "secrets");
                within_deadline(api.patch_metadata(name, &params.force(), &patch)).await
            }
            applied => applied,
        };
        let applied = applied.map_err(|err| write_error(&err, name))?;
        Ok(TargetStatus {
            keys: desired.data.keys().cloned().collect(),
            ..target_status(name, &applied)
        })
    }

    /// Takes the keys and marks of a `KmsSecret` out of a Secret, if it is still as it was seen; answers its metadata.
    pub async fn withdraw(
        &self,
        name: &str,
        seen: &ObjectMeta,
        owner: &KmsSecret,
    ) -> Result<ObjectMeta, WriteError> {
        let namespace = owner.namespace().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let mut secret = seen.clone();
        for manager in managers_of(seen, &owner.name_any()) {
            (self.observe)("apply", "secrets");
            let patch = Patch::Apply(nothing(name, &secret));
            let params = PatchParams::apply(&manager);
            let applied = within_deadline(api.patch_metadata(name, &params, &patch)).await;
            secret = applied.map_err(|err| write_error(&err, name))?.metadata;
        }
        Ok(secret)
    }
}
