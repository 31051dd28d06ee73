//! The few reads and writes that go to the API server, each with a deadline.
//!
//! Answers that could hold the data of a Secret are never asked for: metadata serves. The one Secret that is read
//! whole, a store's credentials, is read as text, since kube logs a body that it cannot decode.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::core::response::Status;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::api::kms_secret::TargetStatus;
use crate::api::{KmsSecret, MANAGED_LABEL, OWNER_ANNOTATION};
use crate::sync::plan::Target;
use crate::sync::shape::Data;
use crate::sync::{Failure, Reason};

/// Field manager of everything that we apply.
const MANAGER: &str = "kms-secret-operator";
/// Nothing waits longer for the API server: the client's own retries go on for minutes.
const DEADLINE: Duration = Duration::from_secs(30);
/// An Event's note is cut to this many characters; ours are mostly one byte each, and 1 KiB is the limit.
const NOTE_MAX: usize = 900;
/// Writes under way at once; more only queue up in the API server.
const WRITES_MAX: usize = 32;

/// The API server, as the controllers use it.
pub struct Cluster {
    client: Client,
    writes: Semaphore,
    recorder: Recorder,
    observe: Box<dyn Fn(&'static str, &'static str) + Send + Sync>,
}

/// Which object a write may touch: what was seen when it was decided on, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// There must be no such object.
    Absent,
    /// It must be this object, unchanged.
    Unchanged {
        /// Its uid: without it, an apply brings a deleted object back.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteError {
    /// The object is not as it was seen: look again.
    Stale,
    /// It would make no sense any more: the namespace is going away.
    Gone,
    /// Anything else.
    Failed(Failure),
}

/// A target as it should be.
pub struct Desired<'a> {
    /// The object that it belongs to.
    pub owner: &'a KmsSecret,
    /// Its data.
    pub data: &'a Data,
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
            writes: Semaphore::new(WRITES_MAX),
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

    /// Values of some keys of a Secret; a missing Secret or key is `None`.
    ///
    /// # Errors
    /// `KubernetesUnavailable`; nothing of the Secret is in it.
    pub async fn secret_values(
        &self,
        namespace: &str,
        name: &str,
        keys: &[&str],
    ) -> Result<Option<Vec<Option<SecretString>>>, Failure> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            data: BTreeMap<String, SecretString>,
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
        let request = kube::core::Request::new(path)
            .get(name, &kube::api::GetParams::default())
            .map_err(|_| unreadable())?;
        let text: SecretString = match within_deadline(self.client.request_text(request)).await {
            Ok(text) => text.into(),
            Err(CallError::Api(status)) if status.is_not_found() => return Ok(None),
            Err(err) => return Err(unavailable(&err, "read a Secret with credentials")),
        };
        let secret: Wire = serde_json::from_str(text.expose_secret()).map_err(|_| unreadable())?;
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
        let _permit = self.writes.acquire().await;
        let namespace = desired.owner.namespace().unwrap_or_default();
        let name = desired.owner.target_name();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        (self.observe)("apply", "secrets");
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(ApplySecret::new(desired, fence));
        let applied = within_deadline(api.patch_metadata(name, &params, &patch)).await;
        let applied = applied.map_err(|err| write_error(&err, name))?;
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
        let _permit = self.writes.acquire().await;
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        (self.observe)("patch", "kmssecrets/status");
        let api: Api<PartialObjectMeta<KmsSecret>> =
            Api::namespaced(self.client.clone(), &namespace);
        let patch = Patch::Merge(json!({
            "metadata": {"uid": object.uid(), "resourceVersion": resource_version},
            "status": patch,
        }));
        let params = PatchParams::default();
        match within_deadline(api.patch_status(&name, &params, &patch)).await {
            Ok(patched) => Ok(patched.metadata.resource_version.unwrap_or_default()),
            Err(CallError::Api(status)) if status.is_not_found() => Err(WriteError::Gone),
            Err(err) => Err(write_error(&err, &name)),
        }
    }

    /// Reads a `KmsSecret` from the API server itself.
    ///
    /// # Errors
    /// `KubernetesUnavailable`.
    pub async fn kms_secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<KmsSecret>, Failure> {
        (self.observe)("get", "kmssecrets");
        let api: Api<KmsSecret> = Api::namespaced(self.client.clone(), namespace);
        let answer = within_deadline(api.get_opt(name)).await;
        answer.map_err(|err| unavailable(&err, "read a KmsSecret"))
    }

    /// Publishes an Event about `object`. An Event that can't be published is only logged.
    pub async fn publish(&self, object: &KmsSecret, warning: bool, reason: &str, message: &str) {
        (self.observe)("create", "events");
        let reference: ObjectReference = object.object_ref(&());
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
        let published = tokio::time::timeout(DEADLINE, self.recorder.publish(&event, &reference));
        if !matches!(published.await, Ok(Ok(()))) {
            tracing::warn!(object = %reference.name.unwrap_or_default(), reason, "an Event could not be published");
        }
    }
}

/// Who owns a Secret, from the point of view of one `KmsSecret`.
///
/// Ours: its controller is of our kind and name (another uid is our predecessor, as after a restore), or it has no
/// controller and our annotation. Anything else is foreign.
#[must_use]
pub fn classify(secret: &ObjectMeta, owner: &KmsSecret) -> Target {
    let name = owner.name_any();
    let controller = secret
        .owner_references
        .iter()
        .flatten()
        .find(|reference| reference.controller == Some(true));
    let is_ours = |kind: &str, api_version: &str| {
        kind == KmsSecret::kind(&()) && api_version.split('/').next() == Some(crate::api::GROUP)
    };
    let foreign = match controller {
        Some(controller)
            if is_ours(&controller.kind, &controller.api_version) && controller.name == name =>
        {
            None
        }
        Some(controller) => Some(format!(
            "it belongs to {} {:?}",
            controller.kind, controller.name
        )),
        None => match secret
            .annotations
            .as_ref()
            .and_then(|all| all.get(OWNER_ANNOTATION))
        {
            Some(annotated) if *annotated == name => None,
            Some(annotated) => Some(format!("it belongs to KmsSecret {annotated:?}")),
            None => Some("it does not belong to a KmsSecret".to_owned()),
        },
    };
    match foreign {
        Some(owner) => Target::Foreign { owner },
        None => Target::Ours {
            uid: secret.uid.clone().unwrap_or_default(),
            resource_version: secret.resource_version.clone().unwrap_or_default(),
        },
    }
}

fn target_status(name: &str, secret: &PartialObjectMeta<Secret>) -> TargetStatus {
    TargetStatus {
        name: name.to_owned(),
        uid: secret.metadata.uid.clone().unwrap_or_default(),
        resource_version: secret.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// Keys of the Secret that are not in `data`, by the field ownership that the API server keeps: an apply removes only
/// what the same manager applied before, so whoever adds a key by hand would leave it there for ever.
fn foreign_keys(secret: &ObjectMeta, data: &Data) -> Vec<String> {
    let keys_of = |entry: &ManagedFieldsEntry| -> Vec<String> {
        let fields = entry
            .fields_v1
            .as_ref()
            .and_then(|fields| fields.0.get("f:data")?.as_object());
        let keys = fields.into_iter().flat_map(serde_json::Map::keys);
        keys.filter_map(|key| key.strip_prefix("f:").map(ToOwned::to_owned))
            .collect()
    };
    let mut keys: Vec<_> = secret
        .managed_fields
        .iter()
        .flatten()
        .flat_map(keys_of)
        .filter(|key| !data.contains_key(key))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The body of an apply; its `Debug` shows nothing, since kube asks for one.
#[derive(Serialize)]
struct ApplySecret<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    metadata: Value,
    #[serde(rename = "type")]
    type_: &'a str,
    data: BTreeMap<&'a str, Base64<'a>>,
}

struct Base64<'a>(&'a SecretSlice<u8>);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded: SecretString = BASE64_STANDARD.encode(self.0.expose_secret()).into();
        serializer.serialize_str(encoded.expose_secret())
    }
}

impl fmt::Debug for ApplySecret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApplySecret")
    }
}

impl<'a> ApplySecret<'a> {
    fn new(desired: &Desired<'a>, fence: &Fence) -> Self {
        let owner = desired.owner;
        let mut metadata = json!({
            "name": owner.target_name(),
            "labels": {
                MANAGED_LABEL: "true",
                "app.kubernetes.io/managed-by": MANAGER,
            },
            "annotations": {OWNER_ANNOTATION: owner.name_any()},
            "ownerReferences": owner.controller_owner_ref(&()).into_iter().collect::<Vec<_>>(),
        });
        match fence {
            // No object has this version: the apply creates, or conflicts with what is there.
            Fence::Absent => metadata["resourceVersion"] = "1".into(),
            Fence::Unchanged {
                uid,
                resource_version,
            } => {
                metadata["uid"] = uid.as_str().into();
                metadata["resourceVersion"] = resource_version.as_str().into();
            }
        }
        Self {
            api_version: "v1",
            kind: "Secret",
            metadata,
            type_: owner.target_type(),
            data: desired
                .data
                .iter()
                .map(|(key, bytes)| (key.as_str(), Base64(bytes)))
                .collect(),
        }
    }
}

/// A call that failed, without any foreign text that could quote a body.
enum CallError {
    Api(Box<Status>),
    Timeout,
    Other,
}

async fn within_deadline<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(CallError::Api(status)),
        Ok(Err(_)) => Err(CallError::Other),
        Err(_) => Err(CallError::Timeout),
    }
}

fn unavailable(err: &CallError, deed: &str) -> Failure {
    let (what, action) = match err {
        CallError::Api(status) if status.is_forbidden() => (
            format!("the API server does not let the operator {deed}"),
            "cluster administrator: give the operator's ServiceAccount its roles",
        ),
        CallError::Api(status) => (
            format!(
                "the API server answered {} when the operator wanted to {deed}",
                status.code
            ),
            "nothing: it is tried again",
        ),
        CallError::Timeout | CallError::Other => (
            format!("the API server did not answer when the operator wanted to {deed}"),
            "nothing: it is tried again",
        ),
    };
    Failure::new(Reason::KubernetesUnavailable, what, action)
}

/// What a refused write means. Foreign messages decide between cases but are never shown: they can quote the object.
fn write_error(err: &CallError, name: &str) -> WriteError {
    let CallError::Api(status) = err else {
        return WriteError::Failed(unavailable(err, "write"));
    };
    if status.is_conflict() || status.is_already_exists() {
        return WriteError::Stale;
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: Vec<&str> = causes.clone().map(|cause| cause.field.as_str()).collect();
    let is_terminating = causes
        .clone()
        .any(|cause| cause.reason == "NamespaceTerminating");
    if is_terminating || status.is_not_found() {
        return WriteError::Gone;
    }
    if status.is_forbidden() && status.message.contains("exceeded quota") {
        return WriteError::Failed(Failure::new(
            Reason::QuotaExceeded,
            format!("the quota of the namespace leaves no room for Secret {name:?}"),
            "raise the quota, or remove Secrets",
        ));
    }
    if !status.is_invalid() {
        return WriteError::Failed(unavailable(err, "write"));
    }
    let failure = if fields.contains(&"type") {
        Failure::new(
            Reason::TargetTypeImmutable,
            format!(
                "Secret {name:?} has another type, and Kubernetes does not let the type of a Secret change"
            ),
            "give spec.target.name another name: a Secret is never deleted and made anew",
        )
    } else if causes
        .clone()
        .any(|cause| cause.reason == "FieldValueForbidden" && cause.field == "data")
    {
        Failure::new(
            Reason::TargetImmutable,
            format!("Secret {name:?} is immutable"),
            "give spec.target.name another name: a Secret is never deleted and made anew",
        )
    } else {
        let fields: Vec<_> = fields
            .into_iter()
            .filter(|field| is_field_path(field))
            .collect();
        Failure::new(
            Reason::TargetInvalid,
            format!(
                "the API server refuses Secret {name:?} because of {}",
                fields.join(", ")
            ),
            "check spec.target and the keys of spec.data",
        )
    };
    WriteError::Failed(failure)
}

fn is_field_path(field: &str) -> bool {
    field.len() <= 128
        && field
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-[]/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, OwnerReference};

    fn owner() -> KmsSecret {
        serde_json::from_value(json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret",
            "metadata": {"name": "db", "namespace": "shop", "uid": "u1"},
            "spec": {"storeRef": {"name": "prod"}, "source": {"secretName": "a"}},
        }))
        .unwrap()
    }

    fn controlled_by(kind: &str, api_version: &str, name: &str, uid: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some("t".into()),
            resource_version: Some("5".into()),
            owner_references: Some(vec![OwnerReference {
                api_version: api_version.into(),
                kind: kind.into(),
                name: name.into(),
                uid: uid.into(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        }
    }

    fn annotated(name: &str) -> ObjectMeta {
        ObjectMeta {
            annotations: Some([(OWNER_ANNOTATION.to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn ours_is_what_our_reference_or_annotation_marks_and_nothing_else() {
        let ours = |meta: &ObjectMeta| matches!(classify(meta, &owner()), Target::Ours { .. });
        assert!(ours(&controlled_by(
            "KmsSecret",
            "alikms.dev/v1alpha1",
            "db",
            "u1"
        )));
        assert!(ours(&controlled_by(
            "KmsSecret",
            "alikms.dev/v1alpha1",
            "db",
            "predecessor"
        )));
        assert!(ours(&annotated("db")));
        assert!(!ours(&ObjectMeta::default()));
        assert!(!ours(&annotated("other")));
        assert!(!ours(&controlled_by(
            "KmsSecret",
            "alikms.dev/v1alpha1",
            "other",
            "u1"
        )));
        assert!(!ours(&controlled_by(
            "KmsSecret",
            "evil.dev/v1alpha1",
            "db",
            "u1"
        )));
        let mut both = controlled_by("Certificate", "cert-manager.io/v1", "db", "c");
        both.annotations = annotated("db").annotations;
        assert!(!ours(&both), "a controller outweighs an annotation");
    }

    #[test]
    fn keys_of_others_are_found_by_field_ownership() {
        let entry = |fields: Value| ManagedFieldsEntry {
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        };
        let meta = ObjectMeta {
            managed_fields: Some(vec![
                entry(json!({"f:data": {".": {}, "f:password": {}}, "f:type": {}})),
                entry(json!({"f:data": {"f:planted": {}, "f:password": {}}})),
                entry(json!({"f:metadata": {}})),
            ]),
            ..ObjectMeta::default()
        };
        let data: Data = [("password".to_owned(), b"x".to_vec().into())].into();
        assert_eq!(foreign_keys(&meta, &data), ["planted"]);
    }

    #[test]
    fn the_body_of_an_apply_is_fenced_and_shows_nothing() {
        let data: Data = [("password".to_owned(), b"\x00top-secret".to_vec().into())].into();
        let owner = owner();
        let desired = Desired {
            owner: &owner,
            data: &data,
        };
        let body = ApplySecret::new(&desired, &Fence::Absent);
        assert_eq!(format!("{body:?}"), "ApplySecret");
        let json = serde_json::to_value(&body).unwrap();
        assert_eq!(json["metadata"]["resourceVersion"], "1");
        assert_eq!(json["data"]["password"], "AHRvcC1zZWNyZXQ=");
        assert_eq!(json["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert!(
            json["metadata"]["ownerReferences"][0]
                .get("blockOwnerDeletion")
                .is_none()
        );
        let seen = Fence::Unchanged {
            uid: "t".into(),
            resource_version: "5".into(),
        };
        let json = serde_json::to_value(ApplySecret::new(&desired, &seen)).unwrap();
        assert_eq!(
            (
                &json["metadata"]["uid"],
                &json["metadata"]["resourceVersion"]
            ),
            (&json!("t"), &json!("5"))
        );
    }
}
