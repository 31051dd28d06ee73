//! By whose identity a store reads KMS.

#![expect(
    unreachable_pub,
    reason = "the schema derive repeats the types in a module of its own"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// By whose identity KMS is read: exactly one way, never a chain of attempts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.accessKey), has(self.serviceAccount)].exists_one(given, given)").message("auth needs exactly one of: accessKey, serviceAccount (operator and ecsRamRole are for ClusterKmsStores only)"))]
pub struct Auth {
    /// An `AccessKey` pair in a Secret of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKeyAuth>,
    /// The RAM role of a ServiceAccount of this namespace (RRSA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountAuth>,
}

/// By whose identity KMS is read: exactly one way, never a chain of attempts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.accessKey), has(self.serviceAccount), has(self.operator), has(self.ecsRamRole)].exists_one(given, given)").message("auth needs exactly one of: accessKey, serviceAccount, operator, ecsRamRole"))]
pub struct ClusterAuth {
    /// An `AccessKey` pair in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<ClusterAccessKeyAuth>,
    /// The RAM role of a ServiceAccount (RRSA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ClusterServiceAccountAuth>,
    /// The operator's own identity, as its pod's environment gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorAuth>,
    /// The RAM role of the ECS instance that the operator's pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs_ram_role: Option<EcsRamRoleAuth>,
}

/// An `AccessKey` pair.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeyAuth {
    /// The Secret, which consents by its label `alikms.dev/credentials: "true"`.
    pub secret_ref: AccessKeySecretRef,
}

/// Where in a Secret an `AccessKey` pair is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeySecretRef {
    /// Name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Key of the `AccessKey` id; `accessKeyId` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_id_key: Option<String>,
    /// Key of the `AccessKey` secret; `accessKeySecret` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_secret_key: Option<String>,
    /// Key of an STS token that belongs to the pair; none when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub security_token_key: Option<String>,
}

/// An `AccessKey` pair.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAccessKeyAuth {
    /// The Secret, which consents by its label `alikms.dev/credentials: "true"`.
    pub secret_ref: ClusterAccessKeySecretRef,
}

/// Where an `AccessKey` pair is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAccessKeySecretRef {
    /// Namespace of the Secret.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub namespace: String,
    /// The Secret and its keys.
    #[serde(flatten)]
    pub secret: AccessKeySecretRef,
}

/// The RAM role of a ServiceAccount: the operator asks the API server for a token of it, and STS for the role.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountAuth {
    /// Name of the ServiceAccount, which consents by its annotation `alikms.dev/role-arn` (or `ack.alibabacloud.com/role-arn`): the ARN of the role. The annotation is read each time that a session is asked for, so a change counts from the next one.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// ARN of the role; if given, the ServiceAccount's annotation must be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^acs:ram::[0-9]{1,32}:role/[A-Za-z0-9._-]{1,64}$")
    )]
    pub role_arn: Option<String>,
    /// ARN of the OIDC provider in RAM that stands for this cluster, as `acs:ram::<account>:oidc-provider/ack-rrsa-<cluster>`.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = "^acs:ram::[0-9]{1,32}:oidc-provider/[A-Za-z0-9._-]{1,128}$")
    )]
    pub oidc_provider_arn: String,
    /// How the session is narrowed.
    #[serde(flatten)]
    pub session: SessionSettings,
}

/// The RAM role of a ServiceAccount of a namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterServiceAccountAuth {
    /// Namespace of the ServiceAccount.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub namespace: String,
    /// Name of the session, which the audit log shows; `cluster@<store>` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = "^[A-Za-z0-9.@_-]+$"))]
    pub session_name: Option<String>,
    /// The ServiceAccount and its role.
    #[serde(flatten)]
    pub account: ServiceAccountAuth,
}

/// The operator's own identity: RRSA as `ack-pod-identity-webhook` injects it, else an `AccessKey` in the environment.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct OperatorAuth {}

/// The RAM role of the ECS instance.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EcsRamRoleAuth {
    /// Name of the role; the instance's metadata service names it when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9.-]{1,64}$"))]
    pub role_name: Option<String>,
}

/// A role that is assumed by the identity before it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// ARN of the role.
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^acs:ram::[0-9]{1,32}:role/[A-Za-z0-9._-]{1,64}$")
    )]
    pub role_arn: String,
    /// What the role's trust policy asks to be told; no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224), regex(pattern = "^[A-Za-z0-9=,.@:/_-]+$"))]
    pub external_id: Option<String>,
    /// How the session is narrowed.
    #[serde(flatten)]
    pub session: SessionSettings,
}

/// A role that is assumed by the identity before it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAssumeRole {
    /// Name of the session, which the audit log shows; `cluster@<store>` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = "^[A-Za-z0-9.@_-]+$"))]
    pub session_name: Option<String>,
    /// The role.
    #[serde(flatten)]
    pub role: AssumeRole,
}

/// How a session is narrowed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SessionSettings {
    /// How long a session lasts, in seconds; an hour when left out. The role's own maximum is the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 900, max = 43_200))]
    pub duration_seconds: Option<i32>,
    /// A RAM policy, as JSON, that narrows what the session may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub policy: Option<String>,
}
