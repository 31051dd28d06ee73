//! `KmsSecret`: one secret of KMS Secrets Manager, kept in one native Secret.

#![expect(
    unreachable_pub,
    reason = "the schema derive repeats the types in a module of its own"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DURATION_PATTERN, SYNC_ANNOTATION};

/// What to read from KMS, what to make of it, and where to put it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "alikms.dev",
    version = "v1alpha1",
    kind = "KmsSecret",
    namespaced,
    status = "KmsSecretStatus",
    derive = "PartialEq",
    shortname = "kmss",
    category = "alikms",
    validation = Rule::new("has(self.spec.source) != has(self.spec.sources)")
        .message("spec needs exactly one of source and sources"),
    validation = Rule::new(
        "!has(self.spec.target) || !has(self.spec.target.deletionPolicy) || self.spec.target.deletionPolicy != 'Delete' || (has(self.spec.source) && !has(self.spec.source.versionId) && !has(self.spec.source.versionStage) && (!has(self.spec.refresh) || !has(self.spec.refresh.policy) || !(self.spec.refresh.policy in ['Once', 'OnChange'])))"
    ).message("deletionPolicy Delete needs one plain source (no versionId, no versionStage) and a refresh policy that goes by time"),
    validation = Rule::new("!has(self.spec.sources) || size(self.spec.sources) == 1 || has(self.spec.data) || has(self.spec.extract)")
        .message("several sources need data or extract: which key is taken from which"),
    validation = Rule::new(
        "!has(self.spec.data) || self.spec.data.all(d, has(d.source) ? has(self.spec.sources) && self.spec.sources.exists(s, s.name == d.source) : has(d.template) || !has(self.spec.sources) || size(self.spec.sources) == 1)"
    ).message("with several sources each key without a template names one of them by data[].source; with spec.source none does"),
    validation = Rule::new(
        "!has(self.spec.extract) || self.spec.extract.all(e, has(e.source) ? has(self.spec.sources) && self.spec.sources.exists(s, s.name == e.source) : !has(self.spec.sources) || size(self.spec.sources) == 1)"
    ).message("with several sources each extract names one of them by extract[].source; with spec.source none does"),
    validation = Rule::new(
        "!has(self.spec.data) || !has(self.spec.source) || !self.spec.data.exists(d, has(d.from) && d.from == 'ExtendedConfig') || (has(self.spec.source.fetchExtendedConfig) && self.spec.source.fetchExtendedConfig)"
    ).message("data from ExtendedConfig needs source.fetchExtendedConfig: true"),
    validation = Rule::new(
        "!has(self.spec.extract) || !has(self.spec.source) || !self.spec.extract.exists(e, has(e.from) && e.from == 'ExtendedConfig') || (has(self.spec.source.fetchExtendedConfig) && self.spec.source.fetchExtendedConfig)"
    ).message("extract from ExtendedConfig needs source.fetchExtendedConfig: true"),
    doc = "Keeps a Secret of this namespace equal to a secret in Alibaba Cloud KMS Secrets Manager.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.target.name"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.sources[0].versionId"),
    printcolumn(name = "Last Sync", type_ = "date", json_path = ".status.lastSyncTime"),
    printcolumn(name = "Next Sync", type_ = "string", json_path = ".status.nextSyncTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Next Rotation", type_ = "string", json_path = ".status.sources[0].nextRotationDate", priority = 1),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.storeRef.name", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct KmsSecretSpec {
    /// The store that says where KMS is and by whose identity it is read.
    pub store_ref: StoreRef,
    /// The secret to read, in the words of `GetSecretValue`. Exactly one of this and `sources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Several secrets, or several versions of one, each under a name. They are written together or not at all, and two versions of one secret are of one moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sources: Vec<NamedSource>,
    /// The keys of the Secret, one by one. Neither this nor `extract`: the whole value under the key `value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub data: Vec<DataItem>,
    /// Whole JSON objects whose top-level fields become keys. No key may be made twice, by `data` or by this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub extract: Vec<Extract>,
    /// The Secret to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Boxed, here and below: most objects have none, and the cache holds many objects.
    pub target: Option<Box<Target>>,
    /// When to look again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// Workloads of this namespace that are restarted once the content of the Secret has changed. Each must use the Secret and consent by its annotation `alikms.dev/restart: <KmsSecret name>`. See docs/rollouts.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "name".into()]))]
    pub rollout_restart: Vec<WorkloadRef>,
    /// True: no call to KMS, no write, no repair, no restart. Garbage collection still works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// Names a workload of the `KmsSecret`'s own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Name of the workload.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}

/// Kind of a workload: `Deployment`, `StatefulSet` or `DaemonSet`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// A Deployment.
    Deployment,
    /// A `StatefulSet`.
    StatefulSet,
    /// A `DaemonSet`.
    DaemonSet,
}

impl WorkloadKind {
    /// The kind, as manifests spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

/// Names a store.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StoreRef {
    /// Name of the store.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Kind of the store; `KmsStore` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<StoreKind>,
}

/// Kind of the store: `KmsStore` (default, one of this namespace) or `ClusterKmsStore`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// A store of the `KmsSecret`'s own namespace.
    #[default]
    KmsStore,
    /// A store of the cluster, which says who may use it.
    ClusterKmsStore,
}

/// One secret of KMS, in the words of `GetSecretValue`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Name of the secret, or its ARN `acs:kms:<region>:<account>:secret/<name>` (needed for another account's).
    #[schemars(length(min = 1, max = 320))]
    #[x_kube(validation = Rule::new(
        "self.matches('^[A-Za-z0-9_/+=.@-]{1,192}$') || self.matches('^acs:kms:[a-z0-9-]{2,63}:[0-9]{1,32}:secret/[A-Za-z0-9_/+=.@-]{1,192}$')"
    ).message("secretName is a name of 1 to 192 characters of A-Z a-z 0-9 _ / + = . @ -, or an ARN acs:kms:<region>:<account>:secret/<name>"))]
    pub secret_name: String,
    /// Stage label of the version to read, as `ACSCurrent`, `ACSPrevious` or one of your own. `ACSCurrent` when neither this nor `versionId` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub version_stage: Option<String>,
    /// The one version to read. Only generic secrets have versions that can be asked for; the value then never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub version_id: Option<String>,
    /// Ask for the extended configuration too (managed secrets only), for `data` items with `from: ExtendedConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_extended_config: Option<bool>,
}

/// One of several sources.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NamedSource {
    /// Name by which `data` and templates speak of it.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The secret.
    #[serde(flatten)]
    pub source: Source,
    /// True: if KMS has no such secret, version or stage, its keys are left out, as of `ACSPrevious` before the first rotation. Any other failure fails the sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A source under the name that the status tells of it by.
#[derive(Clone, Copy, Debug)]
pub struct SourceRef<'a> {
    /// The name; [`SINGLE_SOURCE`] for `spec.source`.
    pub name: &'a str,
    /// The secret.
    pub source: &'a Source,
    /// Its keys are left out if it does not exist.
    pub optional: bool,
}

/// The name of `spec.source`, in the status.
pub const SINGLE_SOURCE: &str = "source";

/// One key of the Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.template) || (!has(self.path) && !has(self.from))").message("a key has a template, or a path or from"))]
pub struct DataItem {
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// Name of the source that this key is taken from; the only one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub source: Option<String>,
    /// The document that this key is taken from; the secret's value when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Document>,
    /// JMESPath expression into the document, which must then be JSON. Left out: the whole document. Text is taken as it is, anything else as compact JSON; numbers lose what a 64-bit number cannot hold, so store as text what must keep its digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// Text with `{{ … }}` in a part of the Jinja language, made of `value`, `json` and `extended` of the source, and of `sources.<name>`. See docs/shaping.md. Not with `path` or `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub template: Option<String>,
    /// How the bytes are made of the text that was found; `Auto` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Decode>,
}

/// A JSON object, each of whose top-level fields becomes a key. Text is taken as it is, anything else as compact JSON; fields that are null are left out.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Extract {
    /// Name of the source; the only one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub source: Option<String>,
    /// The document; the secret's value when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Document>,
    /// Put before every field's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[-._a-zA-Z0-9]*$"))]
    pub prefix: Option<String>,
    /// Applied to every name in this order, after the prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub rename: Vec<Rename>,
}

/// Replaces every match of a regular expression in a name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rename {
    /// Regular expression, in the syntax of RE2 and Go.
    #[schemars(length(min = 1, max = 256))]
    pub pattern: String,
    /// What stands for each match; `$1` or `${1}` is the first group of the pattern.
    #[schemars(length(max = 256))]
    pub replacement: String,
}

/// The document that this key is taken from: `Value` (`SecretData`, the default) or `ExtendedConfig` (the JSON that describes a managed secret; needs `source.fetchExtendedConfig: true`).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Document {
    /// `SecretData`, the secret's value.
    #[default]
    Value,
    /// `ExtendedConfig`, the JSON that describes a managed secret; needs `source.fetchExtendedConfig: true`.
    ExtendedConfig,
}

/// How the bytes of the key are made: `Auto` (default: Base64 where KMS says that the whole value is binary, else as it is), `Base64` (always decode), `None` (never).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decode {
    /// Base64 where KMS says that the whole value is binary, else as it is.
    #[default]
    Auto,
    /// Always decode Base64.
    Base64,
    /// Never decode.
    None,
}

/// The Secret to keep.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.creationPolicy) || self.creationPolicy != 'Merge' || !(has(self.type) || has(self.labels) || has(self.annotations))")
        .message("with creationPolicy Merge the Secret is somebody else's: type, labels and annotations are not ours to set"),
    validation = Rule::new("!has(self.creationPolicy) || self.creationPolicy != 'Merge' || !has(self.adopt) || self.adopt == 'Never'")
        .message("creationPolicy Merge takes nothing over: leave adopt out; the Secret's annotation alikms.dev/allow is needed all the same"),
    validation = Rule::new("!has(self.creationPolicy) || self.creationPolicy != 'Merge' || !has(self.deletionPolicy) || self.deletionPolicy == 'Retain'")
        .message("deletionPolicy Delete does not go with creationPolicy Merge: the Secret is somebody else's")
)]
pub struct Target {
    /// Name of the Secret; the `KmsSecret`'s own name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: Option<String>,
    /// Type of the Secret; `Opaque` when left out. Kubernetes does not let it change afterwards.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self != 'kubernetes.io/service-account-token' && self != 'bootstrap.kubernetes.io/token'")
        .message("Secrets that hold tokens of Kubernetes are never written"))]
    pub type_: Option<String>,
    /// Labels of the Secret: exactly these and the operator's own; the KmsSecret's are never copied. Domains that mean something to Kubernetes or make other controllers copy Secrets are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Secret, by the same rules.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// What becomes of the Secret when the `KmsSecret` goes; `Owner` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_policy: Option<CreationPolicy>,
    /// Whether a Secret that is there already may be taken over; `Never` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
    /// What becomes of the Secret when the secret is gone from KMS; `Retain` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// What becomes of the Secret when the secret is gone from KMS: `Retain` (default: the last good value stays) or `Delete` (the Secret is deleted once KMS has said for an hour, again and again, that there is no such secret).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The last good value stays.
    #[default]
    Retain,
    /// The Secret is deleted, after KMS has said so for an hour.
    Delete,
}

/// Whose the Secret is, and so what becomes of it when the `KmsSecret` goes: `Owner` (default: Kubernetes collects it), `Orphan` (it stays, and nobody renews it) or `Merge` (somebody else keeps the Secret and lets the `KmsSecret` put keys into it by the annotation `alikms.dev/allow: <KmsSecret name>`; the keys stay).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CreationPolicy {
    /// The Secret has the `KmsSecret` as its owner: Kubernetes collects it.
    #[default]
    Owner,
    /// The Secret has no owner: it stays.
    Orphan,
    /// The Secret is somebody else's, and holds our keys among others.
    Merge,
}

/// Whether a Secret that is there already may be taken over: `Never` (default) or `IfUnowned` (if no controller owns it and it consents by its annotation `alikms.dev/allow: <KmsSecret name>`; its other keys are then removed).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adopt {
    /// A Secret that is there already is refused.
    #[default]
    Never,
    /// It is taken over if no controller owns it and its annotation consents.
    IfUnowned,
}

/// When to look again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.interval) || !has(self.policy) || !(self.policy in ['Once', 'OnChange'])").message("interval means nothing to the policies Once and OnChange"))]
pub struct Refresh {
    /// The policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RefreshPolicy>,
    /// The longest time between two reads, as `1h` or `10m30s`. Left out: 10m for Rds, ECS and `RAMCredentials`, a day for a pinned version, else 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = DURATION_PATTERN))]
    pub interval: Option<String>,
}

/// What decides when to look again: `Rotation` (default: the dates that KMS announces, and `interval` at the latest), `Interval` (`interval` alone), `OnChange` (never time: a new spec, a forced sync, a target that is missing or was edited), `Once` (until the first success, then only if the target is missing).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefreshPolicy {
    /// The rotation dates that KMS announces, and `interval` at the latest.
    #[default]
    Rotation,
    /// `interval` alone.
    Interval,
    /// Never by time: a new spec, a forced sync, or a target that is missing or was edited.
    OnChange,
    /// Until the first success, then only if the target is missing.
    Once,
}

/// What the operator saw and did last.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KmsSecretStatus {
    /// Generation of the spec that this status tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`; `Stalled` while only a human can mend it; `RotationOverdue` while KMS is late (reasons Late, Invalid); `RolloutPending` while a workload is still to be restarted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// When KMS was last read with success. Written with other changes, else every 10 minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// When the next read is planned. Shown for people; never read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_time: Option<Time>,
    /// The value of the annotation `alikms.dev/sync` that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_sync: Option<String>,
    /// The store that the last success came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
    /// What KMS said of the secret at the last success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sources: Vec<SourceStatus>,
    /// The Secret as our last write left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// The failure of the last attempt, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<ErrorStatus>>,
    /// The restarts of `spec.rolloutRestart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Box<RolloutStatus>>,
}

/// The restarts that belong to the content of the Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Digest of what the content was made of: the Secret's uid, the versions that were read, and the spec. Nothing secret is in it.
    pub token: String,
    /// The workloads that are still to be restarted for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "name".into()]))]
    pub pending: Vec<PendingRestart>,
}

/// A workload that is still to be restarted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingRestart {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Name of the workload.
    pub name: String,
    /// Why it was not restarted yet, once that was tried; the reasons are those of the condition `RolloutPending`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The store that a value came from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// Kind of the store.
    pub kind: String,
    /// Uid of the store.
    pub uid: String,
    /// Generation of the store's spec.
    pub generation: i64,
    /// Digest of what of the store decides where KMS is and who reads it; nothing secret is in it. An edit that leaves it alone reads nothing again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The `resourceVersion` of the Secret that holds the store's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_resource_version: Option<String>,
}

impl StoreStatus {
    /// Whether both name one identity at one endpoint, by the same credentials.
    #[must_use]
    pub fn is_same_identity(&self, other: &Self) -> bool {
        let Self {
            kind,
            uid,
            generation: _,
            identity,
            credential_resource_version,
        } = self;
        *kind == other.kind
            && *uid == other.uid
            && *identity == other.identity
            && *credential_resource_version == other.credential_resource_version
    }
}

/// What KMS said of one source.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Name of the source.
    pub name: String,
    /// The secret that was read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret_name: String,
    /// The version that was read.
    pub version_id: String,
    /// The stage labels of that version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub version_stages: Vec<String>,
    /// Type of the secret, as KMS spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_type: Option<String>,
    /// `text` or `binary`, as KMS says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_data_type: Option<String>,
    /// `Enabled`, `Disabled` or `Invalid`, for managed secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatic_rotation: Option<String>,
    /// Time between two rotations, as KMS writes it (`604800s`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<String>,
    /// When the secret was made: one that was deleted and made anew may use the same version ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_time: Option<Time>,
    /// When KMS last rotated the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_date: Option<Time>,
    /// When KMS means to rotate it next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_date: Option<Time>,
    /// The announced date whose rotation was seen to have happened although KMS still announces it: it schedules nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_rotation_date: Option<Time>,
}

/// The Secret as our last write left it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Name of the Secret.
    pub name: String,
    /// Uid of the Secret.
    pub uid: String,
    /// The `resourceVersion` that our last write answered; another one means that somebody edited it.
    pub resource_version: String,
    /// With `creationPolicy: Merge`: the keys that are ours, by their names. The others are not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub keys: Vec<String>,
}

/// A failure, for machines and people.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ErrorStatus {
    /// The error code of the service that refused, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What to do, and who can do it.
    pub action: String,
}

impl KmsSecretSpec {
    /// A spec that names a store and nothing else.
    #[must_use]
    pub fn new(store_ref: StoreRef) -> Self {
        Self {
            store_ref,
            source: None,
            sources: Vec::new(),
            data: Vec::new(),
            extract: Vec::new(),
            target: None,
            refresh: None,
            rollout_restart: Vec::new(),
            suspend: None,
        }
    }

    /// What is read, in the order of the spec.
    #[must_use]
    pub fn all_sources(&self) -> Vec<SourceRef<'_>> {
        let single = self.source.iter().map(|source| SourceRef {
            name: SINGLE_SOURCE,
            source,
            optional: false,
        });
        let named = self.sources.iter().map(|named| SourceRef {
            name: &named.name,
            source: &named.source,
            optional: named.optional.unwrap_or_default(),
        });
        single.chain(named).collect()
    }
}

impl KmsSecret {
    /// The secrets of KMS that this object reads, as the spec names them.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        let sources = self.spec.all_sources().into_iter();
        sources.map(|named| named.source.secret_name.as_str())
    }

    /// Name of the Secret that this object keeps.
    #[must_use]
    pub fn target_name(&self) -> &str {
        self.spec
            .target
            .as_ref()
            .and_then(|target| target.name.as_deref())
            .or(self.metadata.name.as_deref())
            .unwrap_or_default()
    }

    /// Type of the Secret that this object keeps.
    #[must_use]
    pub fn target_type(&self) -> &str {
        self.spec
            .target
            .as_ref()
            .and_then(|target| target.type_.as_deref())
            .unwrap_or("Opaque")
    }

    /// What becomes of the Secret when this object goes.
    #[must_use]
    pub fn creation_policy(&self) -> CreationPolicy {
        let target = self.spec.target.as_ref();
        target
            .and_then(|target| target.creation_policy)
            .unwrap_or_default()
    }

    /// What becomes of the Secret when the secret is gone from KMS.
    #[must_use]
    pub fn deletion_policy(&self) -> DeletionPolicy {
        let target = self.spec.target.as_ref();
        target
            .and_then(|target| target.deletion_policy)
            .unwrap_or_default()
    }

    /// Whether a Secret that is there already may be taken over.
    #[must_use]
    pub fn adopt(&self) -> Adopt {
        let target = self.spec.target.as_ref();
        target.and_then(|target| target.adopt).unwrap_or_default()
    }

    /// Kind of the store that this object names.
    #[must_use]
    pub fn store_kind(&self) -> StoreKind {
        self.spec.store_ref.kind.unwrap_or_default()
    }

    /// The refresh policy in force.
    #[must_use]
    pub fn refresh_policy(&self) -> RefreshPolicy {
        self.spec
            .refresh
            .as_ref()
            .and_then(|refresh| refresh.policy)
            .unwrap_or_default()
    }

    /// `spec.refresh.interval` as it was written.
    #[must_use]
    pub fn refresh_interval(&self) -> Option<&str> {
        self.spec
            .refresh
            .as_ref()
            .and_then(|refresh| refresh.interval.as_deref())
    }

    /// The value of the annotation that forces a sync.
    #[must_use]
    pub fn sync_token(&self) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(SYNC_ANNOTATION).map(String::as_str)
    }
}
