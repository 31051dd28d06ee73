//! The metadata of a target, in little room: there are as many as KmsSecrets, and of each the cache holds what the
//! operator looks at and no more. In an `ObjectMeta` the first entry of a map alone takes half a KiB.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ManagedFieldsEntry, ObjectMeta, OwnerReference,
};
use kube::Resource;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{Lookup, ObjectRef};

use crate::api::{GROUP, KmsSecret, OWNER_ANNOTATION};
use crate::cluster::{is_merger, merger};

/// What is looked at of a Secret with our label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TargetMeta {
    namespace: Box<str>,
    name: Box<str>,
    pub(super) uid: Box<str>,
    pub(super) resource_version: Box<str>,
    owners: Box<[OwnerReference]>,
    /// Those of ours.
    annotations: Box<[(Box<str>, Box<str>)]>,
    /// Of who owns which fields, only who merged keys: that tells whether they are as they were written.
    mergers: Box<[ManagedFieldsEntry]>,
}

impl From<PartialObjectMeta<Secret>> for TargetMeta {
    fn from(secret: PartialObjectMeta<Secret>) -> Self {
        let metadata = secret.metadata;
        let text = |text: Option<String>| text.unwrap_or_default().into_boxed_str();
        let annotations = metadata.annotations.into_iter().flatten();
        let fields = metadata.managed_fields.into_iter().flatten();
        Self {
            namespace: text(metadata.namespace),
            name: text(metadata.name),
            uid: text(metadata.uid),
            resource_version: text(metadata.resource_version),
            owners: metadata.owner_references.unwrap_or_default().into(),
            annotations: annotations
                .filter(|(key, _)| key.starts_with(GROUP))
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
            mergers: fields.filter(is_merger).collect(),
        }
    }
}

impl TargetMeta {
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// As the API server shows it, of what is looked at.
    pub(super) fn metadata(&self) -> ObjectMeta {
        let annotations = self.annotations.iter();
        ObjectMeta {
            namespace: Some(self.namespace.to_string()),
            name: Some(self.name.to_string()),
            uid: Some(self.uid.to_string()),
            resource_version: Some(self.resource_version.to_string()),
            owner_references: Some(self.owners.to_vec()),
            annotations: Some(
                annotations
                    .map(|(key, value)| (key.to_string(), value.to_string()))
                    .collect(),
            ),
            managed_fields: Some(self.mergers.to_vec()),
            ..ObjectMeta::default()
        }
    }

    /// The KmsSecrets that it is marked with.
    pub(super) fn marked_for(&self) -> impl Iterator<Item = ObjectRef<KmsSecret>> {
        let names = self.marks();
        names.map(|name| ObjectRef::new(name).within(&self.namespace))
    }

    /// The names of the KmsSecrets of its namespace that it is marked with.
    pub(super) fn marks(&self) -> impl Iterator<Item = &str> {
        let owners = self.owners.iter();
        let owners = owners.filter(|owner| owner.kind == <KmsSecret as Resource>::kind(&()));
        let annotations = self.annotations.iter();
        let annotated = annotations
            .filter(|(key, _)| &**key == OWNER_ANNOTATION || merger(key).is_some())
            .map(|(_, name)| &**name);
        owners.map(|owner| owner.name.as_str()).chain(annotated)
    }
}

impl Lookup for TargetMeta {
    type DynamicType = ();

    fn kind((): &()) -> Cow<'_, str> {
        <Secret as Resource>::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        <Secret as Resource>::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        <Secret as Resource>::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        <Secret as Resource>::plural(&())
    }

    fn name(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.name))
    }

    fn namespace(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.namespace))
    }

    // The key in a cache would carry both once more.
    fn resource_version(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn uid(&self) -> Option<Cow<'_, str>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ALLOW_ANNOTATION, MERGED_ANNOTATION_PREFIX};
    use serde_json::{Value, json};

    fn secret(metadata: Value) -> PartialObjectMeta<Secret> {
        PartialObjectMeta {
            metadata: serde_json::from_value(metadata).unwrap(),
            ..PartialObjectMeta::default()
        }
    }

    #[test]
    fn of_the_metadata_what_is_looked_at_stays() {
        let merged = format!("{MERGED_ANNOTATION_PREFIX}u-2");
        let owner = json!({"apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "name": "db", "uid": "u-1", "controller": true});
        let fields = json!({"manager": "kms-secret-operator.u-2", "operation": "Apply", "fieldsV1": {"f:data": {"f:a": {}}}});
        let seen = TargetMeta::from(secret(json!({
            "namespace": "shop", "name": "db", "uid": "u", "resourceVersion": "7", "generation": 3,
            "labels": {"alikms.dev/managed": "true"},
            "annotations": {OWNER_ANNOTATION: "db", &merged: "more", ALLOW_ANNOTATION: "more", "kubectl.kubernetes.io/last-applied-configuration": "long"},
            "ownerReferences": [owner],
            "managedFields": [{"manager": "kubectl", "operation": "Apply"}, fields],
        })));
        let expected = json!({
            "namespace": "shop", "name": "db", "uid": "u", "resourceVersion": "7",
            "annotations": {OWNER_ANNOTATION: "db", &merged: "more", ALLOW_ANNOTATION: "more"},
            "ownerReferences": [owner],
            "managedFields": [fields],
        });
        assert_eq!(json!(seen.metadata()), expected);
    }

    #[test]
    fn a_secret_names_whoever_it_is_marked_with() {
        let merged = format!("{MERGED_ANNOTATION_PREFIX}u-2");
        let seen = TargetMeta::from(secret(json!({
            "namespace": "shop", "name": "db", "uid": "u", "resourceVersion": "7",
            "annotations": {OWNER_ANNOTATION: "b", merged: "c", ALLOW_ANNOTATION: "d"},
            "ownerReferences": [
                {"apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "name": "a", "uid": "u-1"},
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "e", "uid": "u-3"},
            ],
        })));
        let names: Vec<_> = seen.marked_for().map(|object| object.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
