//! The few reads and writes that go to the API server, each with a deadline.
//!
//! Answers that could hold the data of a Secret are never asked for: metadata serves. What must be read whole, a store's
//! credentials and the token of a `ServiceAccount`, is read as text, since kube logs a body that it cannot decode.

mod account;
mod merge;
mod refusal;
mod secret;
mod shared;
mod workload;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{PartialObjectMeta, Request};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};

use crate::api::kms_secret::{CreationPolicy, TargetStatus};
use crate::api::{CREDENTIALS_LABEL, KmsSecret};
use crate::sync::{Failure, Reason};
use refusal::{CallError, status_error, unavailable, write_error};
use secret::{ApplySecret, foreign_keys, release, take_over};
use writes::{Kind, Writes};

pub use refusal::WriteError;
pub use secret::{Desired, Fence, Leaving, classify, leaving};
pub use shared::{is_merger, merger};
pub use workload::{RestartError, SeenWorkload};

/// Field manager of everything that we apply.
const MANAGER: &str = "kms-secret-operator";
/// Nothing waits longer for the API server: the client's own retries go on for minutes.
const DEADLINE: Duration = Duration::from_secs(30);
/// An Event's note is cut to this many characters; ours are mostly one byte each, and 1 KiB is the limit.
const NOTE_MAX: usize = 900;
/// Workloads in hand at once. Apart from the writes: admission webhooks of workloads may be slow, and nothing waits for a
/// restart.
const RESTARTS_MAX: usize = 16;

/// The API server, as the controllers use it.
pub struct Cluster {
    client: Client,
    writes: Writes,
    restarts: Semaphore,
    recorder: Recorder,
    /// The name that the API server knows us by.
    own_name: OnceCell<String>,
    observe: Box<dyn Fn(&'static str, &'static str) + Send + Sync>,
}

impl Cluster {
    /// Wraps a client; `observe` is told verb and resource of every request.
    #[must_use]
    pub fn new(
        client: Client,
        observe: impl Fn(&'static str, &'static str) + Send + Sync + 'static,
    ) -> Self {
        let reporter = Reporter {
            controller: MANAGER.into(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            writes: Writes::default(),
            restarts: Semaphore::new(RESTARTS_MAX),
            own_name: OnceCell::new(),
            client,
            observe: Box::new(observe),
        }
    }

    /// The client itself, for the watches.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Metadata of a Secret, or `None` if there is no such Secret.
    ///
    /// # Errors
    /// `KubernetesUnavailable`.
    pub async fn secret_metadata(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ObjectMeta>, Failure> {
        (self.observe)("get", "secrets");
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let answer = within_deadline(api.get_metadata_opt(name)).await;
        let found = answer.map_err(|err| unavailable(&err, "read the metadata of a Secret"))?;
        Ok(found.map(|secret| secret.metadata))
    }

    /// Values of some keys of a Secret that consents to it, at one version; a missing Secret or key is `None`.
    ///
    /// # Errors
    /// `Conflict` if it changed since, `KubernetesUnavailable`; nothing of the Secret is in it.
    pub async fn secret_values(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        keys: &[&str],
    ) -> Result<Option<Vec<Option<SecretString>>>, Failure> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            metadata: WireMeta,
            #[serde(default)]
            data: BTreeMap<String, SecretString>,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct WireMeta {
            labels: BTreeMap<String, String>,
            resource_version: String,
        }
        (self.observe)("get", "secrets");
        let unreadable = || {
            Failure::new(
                Reason::CredentialsNotFound,
                format!("Secret {name:?} of namespace {namespace:?} cannot be read as text"),
                "store its keys as plain UTF-8",
            )
        };
        let path = Secret::url_path(&(), Some(namespace));
        let request = Request::new(path)
            .get(name, &kube::api::GetParams::default())
            .map_err(|_| unreadable())?;
        let text: SecretString = match within_deadline(self.client.request_text(request)).await {
            Ok(text) => text.into(),
            Err(CallError::Api(status)) if status.is_not_found() => return Ok(None),
            Err(err) => return Err(unavailable(&err, "read a Secret with credentials")),
        };
        let secret: Wire = serde_json::from_str(text.expose_secret()).map_err(|_| unreadable())?;
        let consents = secret
            .metadata
            .labels
            .get(CREDENTIALS_LABEL)
            .is_some_and(|value| value == "true");
        if !consents || secret.metadata.resource_version != resource_version {
            return Err(Failure::new(
                Reason::Conflict,
                format!("Secret {name:?} of namespace {namespace:?} changed while it was read"),
                "no action needed: it is read again",
            ));
        }
        let decode = |key: &&str| -> Result<Option<SecretString>, Failure> {
            let Some(encoded) = secret.data.get(*key) else {
                return Ok(None);
            };
            let bytes = BASE64_STANDARD
                .decode(encoded.expose_secret())
                .map_err(|_| unreadable())?;
            let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
            Ok(Some(text.trim().to_owned().into()))
        };
        keys.iter().map(decode).collect::<Result<_, _>>().map(Some)
    }

    /// Applies a target under a fence, and removes keys that somebody else put into it. Asks for metadata only.
    ///
    /// # Errors
    /// [`WriteError::Stale`] if the object is not as the fence says; then nothing was written.
    pub async fn apply(
        &self,
        desired: &Desired<'_>,
        fence: &Fence,
    ) -> Result<TargetStatus, WriteError> {
        let _place = self.writes.wait(Kind::Secret).await;
        if desired.owner.creation_policy() == CreationPolicy::Merge {
            return self.merge(desired, fence).await;
        }
        let namespace = desired.owner.namespace().unwrap_or_default();
        let name = desired.owner.target_name();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let mut fence = fence.clone();
        if let Fence::Unchanged {
            uid,
            resource_version,
            is_predecessors: true,
        } = &mut fence
        {
            (self.observe)("patch", "secrets");
            let patch = Patch::Merge(take_over(desired.owner, uid, resource_version));
            let taken =
                within_deadline(api.patch_metadata(name, &PatchParams::default(), &patch)).await;
            let taken = taken.map_err(|err| write_error(&err, name))?;
            *resource_version = taken.metadata.resource_version.unwrap_or_default();
        }
        (self.observe)("apply", "secrets");
        // To warn of misspelt fields, it would decode all of it a second time.
        let params = PatchParams::apply(MANAGER).force().validation_ignore();
        let patch = Patch::Apply(ApplySecret::new(desired, &fence));
        let applied = within_deadline(api.patch_metadata(name, &params, &patch)).await;
        let mut applied = applied.map_err(|err| write_error(&err, name))?;
        // What it was given while it was somebody else's is held no more as such.
        applied.metadata = self
            .withdraw(name, &applied.metadata, desired.owner)
            .await?;
        let foreign = foreign_keys(&applied.metadata, desired.data);
        if foreign.is_empty() {
            return Ok(target_status(name, &applied));
        }
        (self.observe)("patch", "secrets");
        let removal: BTreeMap<_, _> = foreign.iter().map(|key| (key, Value::Null)).collect();
        let patch = Patch::Merge(json!({
            "metadata": {"uid": applied.metadata.uid, "resourceVersion": applied.metadata.resource_version},
            "data": removal,
        }));
        let params = PatchParams::default();
        let pruned = within_deadline(api.patch_metadata(name, &params, &patch)).await;
        Ok(target_status(
            name,
            &pruned.map_err(|err| write_error(&err, name))?,
        ))
    }

    /// Lets go of a Secret, if it is still the one that was seen: it stays, without our marks and without the owner `uid`.
    ///
    /// # Errors
    /// [`WriteError::Stale`] if it changed.
    pub async fn release(
        &self,
        namespace: &str,
        name: &str,
        seen: &ObjectMeta,
        uid: Option<&String>,
    ) -> Result<(), WriteError> {
        let _place = self.writes.wait(Kind::Secret).await;
        (self.observe)("patch", "secrets");
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(release(seen, uid)));
        match within_deadline(api.patch_metadata(name, &params, &patch)).await {
            Ok(_) => Ok(()),
            Err(CallError::Api(status)) if status.is_not_found() => Ok(()),
            Err(err) => Err(write_error(&err, name)),
        }
    }

    /// Deletes a Secret, if it is still the one that was seen. One that is gone already is no error.
    ///
    /// # Errors
    /// [`WriteError::Stale`] if it changed.
    pub async fn delete(
        &self,
        namespace: &str,
        name: &str,
        seen: &ObjectMeta,
    ) -> Result<(), WriteError> {
        let _place = self.writes.wait(Kind::Secret).await;
        (self.observe)("delete", "secrets");
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: seen.uid.clone(),
                resource_version: seen.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let request = Request::new(Secret::url_path(&(), Some(namespace))).delete(name, &params);
        let request = request.map_err(|_| WriteError::Stale)?;
        // The answer would be the Secret; as text it is dropped without being read.
        match within_deadline(api.into_client().request_text(request)).await {
            Ok(_) => Ok(()),
            Err(CallError::Api(status)) if status.is_not_found() => Ok(()),
            Err(err) => Err(write_error(&err, name)),
        }
    }

    /// Patches the status of a `KmsSecret` under its resourceVersion; answers the new one.
    ///
    /// # Errors
    /// [`WriteError::Stale`] if the object changed, [`WriteError::Gone`] if it is gone.
    pub async fn patch_status(
        &self,
        object: &KmsSecret,
        resource_version: &str,
        patch: Value,
    ) -> Result<String, WriteError> {
        let _place = self.writes.wait(Kind::Status).await;
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        (self.observe)("patch", "kmssecrets/status");
        let api: Api<PartialObjectMeta<KmsSecret>> =
            Api::namespaced(self.client.clone(), &namespace);
        let patch = Patch::Merge(json!({
            "metadata": {"uid": object.uid(), "resourceVersion": resource_version},
            "status": patch,
        }));
        let params = PatchParams::default().validation_ignore();
        match within_deadline(api.patch_status(&name, &params, &patch)).await {
            Ok(patched) => Ok(patched.metadata.resource_version.unwrap_or_default()),
            Err(err) => Err(status_error(&err, &KmsSecret::kind(&()), &name)),
        }
    }

    /// Patches the status of a store under its resourceVersion; answers the new one. `resource` names it to the metrics.
    ///
    /// # Errors
    /// [`WriteError::Stale`] if it changed, [`WriteError::Gone`] if it is gone.
    pub async fn patch_store_status<K: Resource<DynamicType = ()>>(
        &self,
        store: &K,
        resource: &'static str,
        resource_version: &str,
        patch: Value,
    ) -> Result<String, WriteError> {
        let _place = self.writes.wait(Kind::Secret).await;
        (self.observe)("patch", resource);
        let name = store.name_any();
        let url = K::url_path(&(), store.meta().namespace.as_deref());
        let patch = Patch::Merge(json!({
            "metadata": {"uid": store.meta().uid, "resourceVersion": resource_version},
            "status": patch,
        }));
        let params = PatchParams::default();
        let request = Request::new(url)
            .patch_subresource("status", &name, &params, &patch)
            .map_err(|_| WriteError::Stale)?;
        let answer = self.client.request::<PartialObjectMeta<KmsSecret>>(request);
        match within_deadline(answer).await {
            Ok(patched) => Ok(patched.metadata.resource_version.unwrap_or_default()),
            Err(err) => Err(status_error(&err, &K::kind(&()), &name)),
        }
    }

    /// What has the name of that `KmsSecret` now, from the API server itself.
    ///
    /// # Errors
    /// `KubernetesUnavailable`.
    pub async fn kms_secret(&self, object: &KmsSecret) -> Result<Option<KmsSecret>, Failure> {
        (self.observe)("get", "kmssecrets");
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let api: Api<KmsSecret> = Api::namespaced(self.client.clone(), &namespace);
        let answer = within_deadline(api.get_opt(&name)).await;
        answer.map_err(|err| unavailable(&err, "read a KmsSecret"))
    }

    /// Publishes an Event about an object. One that can't be published is only logged.
    pub async fn publish(
        &self,
        about: &ObjectReference,
        warning: bool,
        reason: &str,
        message: &str,
    ) {
        (self.observe)("create", "events");
        let note = message.chars().take(NOTE_MAX).collect();
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Sync".into(),
            secondary: None,
        };
        let publishing = self.recorder.publish(&event, about).boxed();
        let published = tokio::time::timeout(DEADLINE, publishing);
        if !matches!(published.await, Ok(Ok(()))) {
            tracing::warn!(
                object = about.name,
                reason,
                "an Event could not be published"
            );
        }
    }
}

fn target_status(name: &str, secret: &PartialObjectMeta<Secret>) -> TargetStatus {
    TargetStatus {
        name: name.to_owned(),
        uid: secret.metadata.uid.clone().unwrap_or_default(),
        resource_version: secret.metadata.resource_version.clone().unwrap_or_default(),
        keys: Vec::new(),
    }
}

/// The call is boxed: whoever may make it, and hardly ever does, is not to be as large as it.
fn within_deadline<'a, T>(
    call: impl Future<Output = kube::Result<T>> + Send + 'a,
) -> impl Future<Output = Result<T, CallError>> + Send {
    let call = tokio::time::timeout(DEADLINE, call.boxed());
    async move {
        match call.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(CallError::Api(status)),
            Ok(Err(_)) => Err(CallError::Other),
            Err(_) => Err(CallError::Timeout),
        }
    }
}
