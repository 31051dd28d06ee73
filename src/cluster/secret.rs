//! A target: whose it is, and what an apply of it says. Pure.

use std::collections::BTreeMap;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ManagedFieldsEntry, ObjectMeta, OwnerReference,
};
use kube::{Resource as _, ResourceExt as _};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::MANAGER;
use super::shared;
use crate::api::kms_secret::{Adopt, CreationPolicy, TargetStatus};
use crate::api::{ALLOW_ANNOTATION, KmsSecret, MANAGED_LABEL, OWNER_ANNOTATION};
use crate::sync::plan::Target;
use crate::sync::shape::Data;

/// What made an object, by Kubernetes' own convention.
const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

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
        /// Its owner is an object of our name that is gone: its reference goes first.
        is_predecessors: bool,
    },
}

/// A target is written only if it is still as it was seen.
impl From<&Target> for Fence {
    fn from(target: &Target) -> Self {
        let (uid, resource_version, is_predecessors) = match target {
            Target::Ours {
                uid,
                resource_version,
                is_predecessors,
            } => (uid, resource_version, *is_predecessors),
            Target::Adoptable {
                uid,
                resource_version,
            }
            | Target::Shared {
                uid,
                resource_version,
                ..
            } => (uid, resource_version, false),
            Target::Absent | Target::Foreign { .. } => return Self::Absent,
        };
        Self::Unchanged {
            uid: uid.clone(),
            resource_version: resource_version.clone(),
            is_predecessors,
        }
    }
}

impl Fence {
    /// The Secret whose metadata this is.
    pub(super) fn of(secret: &ObjectMeta) -> Self {
        Self::Unchanged {
            uid: secret.uid.clone().unwrap_or_default(),
            resource_version: secret.resource_version.clone().unwrap_or_default(),
            is_predecessors: false,
        }
    }
}

/// A target as it should be.
pub struct Desired<'a> {
    /// The object that it belongs to.
    pub owner: &'a KmsSecret,
    /// Its data.
    pub data: &'a Data,
    /// What our last write left.
    pub known: Option<&'a TargetStatus>,
}

/// Who owns a Secret, from the point of view of one `KmsSecret`.
///
/// Ours: its controller is of our kind and name (another uid is our predecessor, as after a restore), or it has no
/// controller and our annotation. Anything else is foreign.
#[must_use]
pub fn classify(secret: &ObjectMeta, owner: &KmsSecret) -> Target {
    if owner.creation_policy() == CreationPolicy::Merge {
        return shared::classify(secret, owner);
    }
    let name = owner.name_any();
    let controller = secret
        .owner_references
        .iter()
        .flatten()
        .find(|reference| reference.controller == Some(true));
    let is_ours = |kind: &str, api_version: &str| {
        kind == KmsSecret::kind(&()) && api_version.split('/').next() == Some(crate::api::GROUP)
    };
    let annotation = |name: &str| secret.annotations.as_ref()?.get(name);
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
        None => match annotation(OWNER_ANNOTATION) {
            Some(annotated) if *annotated == name => None,
            Some(annotated) => Some(format!("it belongs to KmsSecret {annotated:?}")),
            None => return classify_unowned(secret, owner),
        },
    };
    match foreign {
        Some(owner) => Target::Foreign {
            owner,
            action: "give spec.target.name another name, or remove that Secret".to_owned(),
        },
        None => Target::Ours {
            uid: secret.uid.clone().unwrap_or_default(),
            resource_version: secret.resource_version.clone().unwrap_or_default(),
            is_predecessors: controller
                .is_some_and(|controller| Some(&controller.uid) != owner.uid().as_ref()),
        },
    }
}

/// A Secret that belongs to nobody is taken over only if the spec asks for it and the Secret consents.
fn classify_unowned(secret: &ObjectMeta, owner: &KmsSecret) -> Target {
    let (namespace, name) = (owner.namespace().unwrap_or_default(), owner.name_any());
    let consent = secret
        .annotations
        .as_ref()
        .and_then(|all| all.get(ALLOW_ANNOTATION));
    let foreign = |action: String| Target::Foreign {
        owner: "it does not belong to a KmsSecret".to_owned(),
        action,
    };
    match (owner.adopt(), consent) {
        (Adopt::Never, _) => foreign(
            "give spec.target.name another name, remove that Secret, or let it be taken over (spec.target.adopt)".to_owned(),
        ),
        (Adopt::IfUnowned, Some(consent)) if *consent == name => Target::Adoptable {
            uid: secret.uid.clone().unwrap_or_default(),
            resource_version: secret.resource_version.clone().unwrap_or_default(),
        },
        (Adopt::IfUnowned, _) => foreign(format!(
            "to let it be taken over, run `kubectl annotate secret -n {namespace} {} {ALLOW_ANNOTATION}={name}`; its keys are then those of the KmsSecret and no others",
            owner.target_name()
        )),
    }
}

/// Our reference to the owner, where the policy asks for one.
fn owner_references(owner: &KmsSecret) -> Vec<OwnerReference> {
    match owner.creation_policy() {
        CreationPolicy::Owner => owner.controller_owner_ref(&()).into_iter().collect(),
        CreationPolicy::Orphan | CreationPolicy::Merge => Vec::new(),
    }
}

/// What becomes of a Secret that is the target no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It is deleted: we made it for this target alone.
    Delete,
    /// It stays, without our marks.
    Release,
    /// It stays, without our keys: it is somebody else's.
    Withdraw,
}

/// What becomes of a Secret that was the target before the last rename; `None` if it is not ours.
#[must_use]
pub fn leaving(secret: &ObjectMeta, owner: &KmsSecret) -> Option<Leaving> {
    let (uid, name) = (owner.uid().unwrap_or_default(), owner.name_any());
    let owners = secret.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    let controller = controllers.next().map(|controller| &controller.uid);
    if controller == Some(&uid) {
        return Some(match owner.creation_policy() {
            CreationPolicy::Orphan => Leaving::Release,
            CreationPolicy::Owner | CreationPolicy::Merge => Leaving::Delete,
        });
    }
    if shared::mergers(secret).any(|(merger, _)| merger == uid) {
        return Some(Leaving::Withdraw);
    }
    let marked = secret
        .annotations
        .as_ref()
        .and_then(|all| all.get(OWNER_ANNOTATION));
    // It was to stay; or somebody took the owner away, to keep it.
    (controller.is_none() && marked == Some(&name)).then_some(Leaving::Release)
}

/// The fenced merge patch by which a Secret is ours no more, and stays.
pub(super) fn release(secret: &ObjectMeta, uid: Option<&String>) -> Value {
    let others = secret.owner_references.iter().flatten();
    let others: Vec<_> = others.filter(|owner| Some(&owner.uid) != uid).collect();
    json!({"metadata": {
        "uid": secret.uid,
        "resourceVersion": secret.resource_version,
        "labels": {MANAGED_LABEL: null, MANAGED_BY_LABEL: null},
        "annotations": {OWNER_ANNOTATION: null},
        "ownerReferences": others,
    }})
}

/// The fenced merge patch that removes a predecessor's reference from its Secret: an apply could only add a second one.
pub(super) fn take_over(owner: &KmsSecret, uid: &str, resource_version: &str) -> Value {
    json!({"metadata": {
        "uid": uid,
        "resourceVersion": resource_version,
        "ownerReferences": owner_references(owner),
    }})
}

/// Keys of the Secret that are not in `data`, by the field ownership that the API server keeps: an apply removes only
/// what the same manager applied before, so whoever adds a key by hand would leave it there for ever.
pub(super) fn foreign_keys(secret: &ObjectMeta, data: &Data) -> Vec<String> {
    let keys_of = |entry: &ManagedFieldsEntry| -> Vec<String> {
        // Who applied `stringData` owns the keys under that name.
        let of = |name: &str| {
            entry
                .fields_v1
                .as_ref()
                .and_then(|fields| fields.0.get(name)?.as_object())
        };
        let fields = [of("f:data"), of("f:stringData")];
        let keys = fields.into_iter().flatten().flat_map(serde_json::Map::keys);
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
pub(super) struct ApplySecret<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    metadata: Value,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    type_: Option<&'a str>,
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
    pub(super) fn new(desired: &Desired<'a>, fence: &Fence) -> Self {
        let owner = desired.owner;
        let is_shared = owner.creation_policy() == CreationPolicy::Merge;
        let target = owner.spec.target.as_ref();
        let mut labels = target.map_or_else(BTreeMap::new, |target| target.labels.clone());
        let mut annotations =
            target.map_or_else(BTreeMap::new, |target| target.annotations.clone());
        labels.insert(MANAGED_LABEL.into(), "true".into());
        if owner.adopt() == Adopt::Never && !is_shared {
            // Only what we made ourselves says so.
            labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
        }
        let mark = if is_shared {
            shared::marker(owner)
        } else {
            OWNER_ANNOTATION.to_owned()
        };
        annotations.insert(mark, owner.name_any());
        let mut metadata = json!({
            "name": owner.target_name(),
            "labels": labels,
            "annotations": annotations,
        });
        if !is_shared {
            metadata["ownerReferences"] = json!(owner_references(owner));
        }
        match fence {
            // No object has this version: the apply creates, or conflicts with what is there.
            Fence::Absent => metadata["resourceVersion"] = "1".into(),
            Fence::Unchanged {
                uid,
                resource_version,
                ..
            } => {
                metadata["uid"] = uid.as_str().into();
                metadata["resourceVersion"] = resource_version.as_str().into();
            }
        }
        Self {
            api_version: "v1",
            kind: "Secret",
            metadata,
            type_: (!is_shared).then(|| owner.target_type()),
            data: desired
                .data
                .iter()
                .map(|(key, bytes)| (key.as_str(), Base64(bytes)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;

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
    fn a_secret_of_nobody_is_taken_over_only_if_both_sides_want_it() {
        let consent = |to: &str| ObjectMeta {
            annotations: Some([(ALLOW_ANNOTATION.to_owned(), to.to_owned())].into()),
            ..ObjectMeta::default()
        };
        let mut adopter = owner();
        adopter.spec.target = serde_json::from_value(json!({"adopt": "IfUnowned"})).unwrap();
        let is_adoptable = |meta: &ObjectMeta, owner: &KmsSecret| {
            matches!(classify(meta, owner), Target::Adoptable { .. })
        };
        assert!(is_adoptable(&consent("db"), &adopter));
        assert!(!is_adoptable(&consent("db"), &owner()), "nobody asked");
        assert!(!is_adoptable(&consent("other"), &adopter));
        assert!(!is_adoptable(&ObjectMeta::default(), &adopter));
        let mut owned = controlled_by("Certificate", "cert-manager.io/v1", "db", "c");
        owned.annotations = consent("db").annotations;
        assert!(!is_adoptable(&owned, &adopter), "a controller owns it");
        let mut marked = consent("db");
        marked
            .annotations
            .as_mut()
            .unwrap()
            .insert(OWNER_ANNOTATION.into(), "other".into());
        assert!(!is_adoptable(&marked, &adopter), "another KmsSecret's");
    }

    #[test]
    fn what_becomes_of_an_old_target_is_told_by_its_marks() {
        let with = |policy: &str| {
            let mut owner = owner();
            owner.spec.target = serde_json::from_value(json!({"creationPolicy": policy})).unwrap();
            owner
        };
        let controlled = controlled_by("KmsSecret", "alikms.dev/v1alpha1", "db", "u1");
        let predecessors = controlled_by("KmsSecret", "alikms.dev/v1alpha1", "db", "u0");
        let mut merged = controlled_by("Certificate", "cert-manager.io/v1", "db", "c");
        merged.annotations = Some([("alikms.dev/merged.u1".to_owned(), "db".to_owned())].into());
        let mut others = merged.clone();
        others.annotations = Some([("alikms.dev/merged.u2".to_owned(), "db".to_owned())].into());
        let mut taken = merged.clone();
        taken.annotations = annotated("db").annotations;
        for (secret, owned, orphan, merge) in [
            (
                &controlled,
                Some(Leaving::Delete),
                Some(Leaving::Release),
                Some(Leaving::Delete),
            ),
            (
                &annotated("db"),
                Some(Leaving::Release),
                Some(Leaving::Release),
                Some(Leaving::Release),
            ),
            (
                &merged,
                Some(Leaving::Withdraw),
                Some(Leaving::Withdraw),
                Some(Leaving::Withdraw),
            ),
            (&predecessors, None, None, None),
            (&others, None, None, None),
            (&taken, None, None, None),
            (&annotated("other"), None, None, None),
            (&ObjectMeta::default(), None, None, None),
        ] {
            for (policy, expected) in [("Owner", owned), ("Orphan", orphan), ("Merge", merge)] {
                assert_eq!(
                    leaving(secret, &with(policy)),
                    expected,
                    "{policy} {secret:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_merged_is_keys_and_marks_and_nothing_else() {
        let data: Data = [("password".to_owned(), b"x".to_vec().into())].into();
        let mut owner = owner();
        owner.spec.target = serde_json::from_value(json!({"creationPolicy": "Merge"})).unwrap();
        let desired = Desired {
            owner: &owner,
            data: &data,
            known: None,
        };
        let seen = ObjectMeta {
            uid: Some("t".into()),
            resource_version: Some("5".into()),
            ..ObjectMeta::default()
        };
        let body = serde_json::to_value(ApplySecret::new(&desired, &Fence::of(&seen))).unwrap();
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "db",
                "uid": "t",
                "resourceVersion": "5",
                "labels": {"alikms.dev/managed": "true"},
                "annotations": {"alikms.dev/merged.u1": "db"},
            },
            "data": {"password": "eA=="},
        });
        assert_eq!(body, expected);
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
                entry(json!({"f:stringData": {"f:applied": {}}})),
            ]),
            ..ObjectMeta::default()
        };
        let data: Data = [("password".to_owned(), b"x".to_vec().into())].into();
        assert_eq!(foreign_keys(&meta, &data), ["applied", "planted"]);
    }

    #[test]
    fn the_body_of_an_apply_is_fenced_and_shows_nothing() {
        let data: Data = [("password".to_owned(), b"\x00top-secret".to_vec().into())].into();
        let owner = owner();
        let desired = Desired {
            owner: &owner,
            data: &data,
            known: None,
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
            is_predecessors: false,
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
