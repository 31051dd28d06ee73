//! `KmsStore` and `ClusterKmsStore`: where KMS is, by whose identity it is read, and who may use it.

#![expect(
    unreachable_pub,
    reason = "the schema derive repeats the types in a module of its own"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::{AccessKeySecretRef, AssumeRole, Auth, ClusterAssumeRole, ClusterAuth};

/// Where KMS is, and by whose identity it is read.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "alikms.dev",
    version = "v1alpha1",
    kind = "KmsStore",
    namespaced,
    status = "KmsStoreStatus",
    derive = "PartialEq",
    category = "alikms",
    validation = Rule::new("!has(self.spec.caBundle) || !has(self.spec.caBundleRef)").message("give caBundle or caBundleRef, not both"),
    doc = "Says where Alibaba Cloud KMS is and by whose identity it is read; usable from its own namespace only.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(name = "Identity", type_ = "string", json_path = ".status.identity"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint", priority = 1),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct KmsStoreSpec {
    /// Where KMS is and how it is called.
    #[serde(flatten)]
    pub settings: StoreSettings,
    /// The ConfigMap of this namespace that holds what `caBundle` would; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,
    /// By whose identity KMS is read.
    pub auth: Auth,
    /// Roles that are assumed after it, one by the other: for another account, or for less rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub assume_role: Option<Vec<AssumeRole>>,
}

/// Where KMS is, by whose identity it is read, and who may use it for what.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "alikms.dev",
    version = "v1alpha1",
    kind = "ClusterKmsStore",
    status = "KmsStoreStatus",
    derive = "PartialEq",
    category = "alikms",
    validation = Rule::new("!has(self.spec.caBundle) || !has(self.spec.caBundleRef)").message("give caBundle or caBundleRef, not both"),
    doc = "Says where Alibaba Cloud KMS is, by whose identity it is read, which namespaces may use it, and for which secrets.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(name = "Identity", type_ = "string", json_path = ".status.identity"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint", priority = 1),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterKmsStoreSpec {
    /// Where KMS is and how it is called.
    #[serde(flatten)]
    pub settings: StoreSettings,
    /// The ConfigMap that holds what `caBundle` would; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<ClusterCaBundleRef>,
    /// By whose identity KMS is read; each reference names its namespace.
    pub auth: ClusterAuth,
    /// Roles that are assumed after it, one by the other: for another account, or for less rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub assume_role: Option<Vec<ClusterAssumeRole>>,
    /// The namespaces whose KmsSecrets may use this store.
    pub namespaces: Namespaces,
    /// The secrets that they may read, as patterns: `*` stays within one segment of the name, `**` crosses `/`, and the segment `${namespace}` is the KmsSecret's own namespace. A pattern that begins with `acs:kms:` is compared with ARNs, part by part; others never match one. Left out: `${namespace}/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(
            length(min = 1, max = 320),
            regex(pattern = r"^[A-Za-z0-9_/+=.@:*${}-]+$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub secret_names: Option<Vec<String>>,
}

/// The namespaces that may use a store: those that are named, and those that the selector selects.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.names) || has(self.selector)").message("namespaces needs names or a selector"))]
pub struct Namespaces {
    /// Names of namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
    /// Labels of namespaces; select only by labels that tenants cannot set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Labels that a namespace must have, all of them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// The labels; at least one, since none would select everything.
    #[schemars(extend("maxProperties" = 16))]
    #[x_kube(validation = Rule::new("size(self) > 0").message("an empty selector would select every namespace"))]
    pub match_labels: BTreeMap<String, String>,
}

/// Whether the store's credentials work, and whose they are.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KmsStoreStatus {
    /// Generation of the spec that this status tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: STS or KMS knew who asked, the last time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// ARN of the user, role or session that the credentials belong to, as STS tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Digest of what of the store decides where KMS is and who reads it, as it was looked at; nothing secret is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The `resourceVersion` of the Secret with the credentials, as it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_resource_version: Option<String>,
}

/// Where certificates of authorities are.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CaBundleRef {
    /// Kind of the object; `ConfigMap` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<CaBundleKind>,
    /// Name of the `ConfigMap`, which carries the label `alikms.dev/ca-bundle: "true"`, by which the operator sees it.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Key of the certificates, as PEM; `ca.crt` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// Where certificates of authorities are, in a namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCaBundleRef {
    /// Namespace of the `ConfigMap`.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub namespace: String,
    /// The `ConfigMap`.
    #[serde(flatten)]
    pub reference: CaBundleRef,
}

/// Kind of the object that holds certificates: `ConfigMap`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaBundleKind {
    /// A `ConfigMap`.
    #[default]
    ConfigMap,
}

/// Where KMS is and how it is called.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.network) || !has(self.endpoint)").message("network means nothing beside endpoint"))]
#[x_kube(validation = Rule::new("self.region.matches('^[a-z]{2}-') || (has(self.endpoint) && self.endpoint.startsWith('http'))").message("region is a region id of Alibaba Cloud, as cn-hangzhou: hosts are named after it"))]
pub struct StoreSettings {
    /// Region id, as `cn-hangzhou`.
    #[schemars(
        length(min = 2, max = 63),
        regex(pattern = "^[a-z0-9][a-z0-9-]{1,62}$")
    )]
    pub region: String,
    /// The network that KMS is reached over, when `endpoint` is left out; `Vpc` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Host of KMS: `kms[-vpc].<region>.aliyuncs.com` or an instance's `<id>.cryptoservice.kms.aliyuncs.com`; anything else only as an origin that the operator was started with (`--allow-endpoint`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(
        "self.matches('^kms(-vpc)?[.][a-z]{2}-[a-z0-9-]{1,60}[.]aliyuncs[.]com$') || self.matches('^[a-z0-9][a-z0-9-]{0,62}[.]cryptoservice[.]kms[.]aliyuncs[.]com$') || self.matches('^https?://[a-z0-9.:\\\\[\\\\]-]+$')"
    ).message("endpoint is kms[-vpc].<region>.aliyuncs.com or <instance>.cryptoservice.kms.aliyuncs.com (a bare lower-case host), or an origin that the operator allows"))]
    pub endpoint: Option<String>,
    /// The authority that signed the endpoint's certificate, as PEM, where it is not a public one: an instance's own CA. It replaces the public ones for this store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    #[x_kube(validation = Rule::new("self.contains('-----BEGIN CERTIFICATE-----')").message("caBundle is one or more certificates as PEM"))]
    pub ca_bundle: Option<String>,
    /// How requests are signed; `V3` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Whether secrets are read many at once where the endpoint can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchMode>,
    /// The most reads a second; 100 when left out. The account's quota of 450 is shared by everything in the account, so the operator goes slower by itself when KMS asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub requests_per_second: Option<i32>,
}

/// Whether secrets are read many at once: `Auto` (default: by `BatchGetSecretValue` where the endpoint knows it) or `Never`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchMode {
    /// By `BatchGetSecretValue`, where the endpoint knows it.
    #[default]
    Auto,
    /// One by one.
    Never,
}

/// The network that KMS is reached over when `endpoint` is left out: `Vpc` (default, `kms-vpc.<region>.aliyuncs.com`) or `Public` (`kms.<region>.aliyuncs.com`).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// `kms-vpc.<region>.aliyuncs.com`, from inside any VPC of the region.
    #[default]
    Vpc,
    /// `kms.<region>.aliyuncs.com`, over the Internet.
    Public,
}

/// How requests are signed: `V3` (default, `ACS3-HMAC-SHA256`, in headers) or `V1` (HMAC-SHA1; puts the `AccessKeyId` and the signature into the URL).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signature {
    /// `ACS3-HMAC-SHA256`, in headers.
    #[default]
    V3,
    /// HMAC-SHA1 over the parameters; puts the `AccessKeyId` and the signature in the URL.
    V1,
}

impl KmsStore {
    /// Namespace and reference of the `ConfigMap` with the authority's certificates.
    #[must_use]
    pub fn ca_bundle_ref(&self) -> Option<(&str, &CaBundleRef)> {
        let namespace = self.metadata.namespace.as_deref()?;
        Some((namespace, self.spec.ca_bundle_ref.as_ref()?))
    }

    /// Namespace and name of the Secret that holds the credentials.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, &AccessKeySecretRef)> {
        let access_key = self.spec.auth.access_key.as_ref()?;
        Some((self.metadata.namespace.clone()?, &access_key.secret_ref))
    }
}

impl ClusterKmsStore {
    /// Namespace and reference of the `ConfigMap` with the authority's certificates.
    #[must_use]
    pub fn ca_bundle_ref(&self) -> Option<(&str, &CaBundleRef)> {
        let given = self.spec.ca_bundle_ref.as_ref()?;
        Some((&given.namespace, &given.reference))
    }

    /// Namespace and name of the Secret that holds the credentials.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, &AccessKeySecretRef)> {
        let secret_ref = &self.spec.auth.access_key.as_ref()?.secret_ref;
        Some((secret_ref.namespace.clone(), &secret_ref.secret))
    }
}
