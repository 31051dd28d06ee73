//! Workloads: read on demand, and restarted as `kubectl rollout restart` does it, by an annotation of the pod template.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::SemaphorePermit;

use super::refusal::CallError;
use super::{Cluster, MANAGER, within_deadline};
use crate::api::kms_secret::{PendingRestart, WorkloadKind};
use crate::api::{RESTART_ANNOTATION, RESTARTED_ANNOTATION};
use crate::sync::rollout::{Hindrance, Workload};
use crate::sync::uses::uses;

/// A workload as it was read.
pub struct SeenWorkload {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// What it says of itself.
    pub says: Workload,
}

/// Why a workload was not restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartError {
    /// It is not as it was seen: look again.
    Stale,
    /// Anything else.
    Hindered(Hindrance),
}

impl Cluster {
    /// Waits for a place to look at a workload and restart it.
    pub async fn place_to_restart(&self) -> Option<SemaphorePermit<'_>> {
        self.restarts.acquire().await.ok()
    }

    /// Reads a workload; `None` if there is none. It is read as text: kube logs a body that it cannot decode, and a pod
    /// template may hold what is not for a log.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn workload(
        &self,
        namespace: &str,
        workload: &PendingRestart,
        target: &str,
    ) -> Result<Option<SeenWorkload>, Hindrance> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: ObjectMeta,
            spec: WireSpec,
        }
        #[derive(Deserialize)]
        struct WireSpec {
            template: PodTemplateSpec,
        }
        (self.observe)("get", plural(workload.kind));
        let request = Request::new(path(workload.kind, namespace))
            .get(&workload.name, &GetParams::default())
            .map_err(|_| Hindrance::RolloutRefused)?;
        let text = match within_deadline(self.client.request_text(request)).await {
            Ok(text) => text,
            Err(CallError::Api(status)) if status.is_not_found() => return Ok(None),
            Err(err) => return Err(hindrance(&err)),
        };
        let wire: Wire = serde_json::from_str(&text).map_err(|_| Hindrance::WorkloadUnavailable)?;
        let template = &wire.spec.template;
        let annotation = |metadata: Option<&ObjectMeta>, name: &str| {
            metadata?.annotations.as_ref()?.get(name).cloned()
        };
        Ok(Some(SeenWorkload {
            says: Workload {
                consent: annotation(Some(&wire.metadata), RESTART_ANNOTATION),
                uses: uses(template, target),
                mark: annotation(template.metadata.as_ref(), RESTARTED_ANNOTATION),
            },
            uid: wire.metadata.uid.unwrap_or_default(),
            resource_version: wire.metadata.resource_version.unwrap_or_default(),
        }))
    }

    /// Restarts a workload, if it is still as it was seen, by a new value of our annotation. Nothing else of it changes.
    ///
    /// # Errors
    /// [`RestartError::Stale`] if it changed.
    pub async fn restart(
        &self,
        namespace: &str,
        workload: &PendingRestart,
        seen: &SeenWorkload,
        mark: &str,
    ) -> Result<(), RestartError> {
        (self.observe)("patch", plural(workload.kind));
        let patch = Patch::Merge(json!({
            "metadata": {"uid": seen.uid, "resourceVersion": seen.resource_version},
            "spec": {"template": {"metadata": {"annotations": {RESTARTED_ANNOTATION: mark}}}},
        }));
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let request = Request::new(path(workload.kind, namespace))
            .patch_metadata(&workload.name, &params, &patch)
            .map_err(|_| RestartError::Hindered(Hindrance::RolloutRefused))?;
        match within_deadline(self.client.request_text(request)).await {
            Ok(_) => Ok(()),
            Err(CallError::Api(status)) if status.is_conflict() || status.is_not_found() => {
                Err(RestartError::Stale)
            }
            Err(err) => Err(RestartError::Hindered(hindrance(&err))),
        }
    }
}

fn path(kind: WorkloadKind, namespace: &str) -> String {
    match kind {
        WorkloadKind::Deployment => Deployment::url_path(&(), Some(namespace)),
        WorkloadKind::StatefulSet => StatefulSet::url_path(&(), Some(namespace)),
        WorkloadKind::DaemonSet => DaemonSet::url_path(&(), Some(namespace)),
    }
}

fn plural(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::DaemonSet => "daemonsets",
    }
}

/// What a refusal means. Foreign messages are never shown: they can quote the object.
fn hindrance(err: &CallError) -> Hindrance {
    match err {
        CallError::Api(status) if status.is_forbidden() => Hindrance::RolloutForbidden,
        CallError::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            Hindrance::RolloutRefused
        }
        _ => Hindrance::WorkloadUnavailable,
    }
}
