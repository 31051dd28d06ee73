//! Somebody's Secret that holds keys of ours: who has which, by the field ownership that the API server keeps. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};

use super::MANAGER;
use crate::api::{
    ALLOW_ANNOTATION, GROUP, KmsSecret, MANAGED_LABEL, MERGED_ANNOTATION_PREFIX, OWNER_ANNOTATION,
};
use crate::sync::plan::Target;
use crate::sync::shape::Data;
use crate::sync::{Failure, Reason};

/// The field manager of one `KmsSecret`'s keys: it owns them and nothing else, so that what it leaves out leaves the
/// Secret, and the API server itself keeps it off what others own.
pub(super) fn manager(owner: &KmsSecret) -> String {
    manager_of(&owner.uid().unwrap_or_default())
}

fn manager_of(uid: &str) -> String {
    format!("{MANAGER}.{uid}")
}

/// Whether an entry tells of keys that a `KmsSecret` merged; nothing else of the field ownership is worth keeping.
#[must_use]
pub fn is_merger(entry: &ManagedFieldsEntry) -> bool {
    let rest = entry
        .manager
        .as_deref()
        .and_then(|it| it.strip_prefix(MANAGER));
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// The annotation that says whose keys the manager of this uid keeps.
pub(super) fn marker(owner: &KmsSecret) -> String {
    format!(
        "{MERGED_ANNOTATION_PREFIX}{}",
        owner.uid().unwrap_or_default()
    )
}

/// The uid of the `KmsSecret` that says by this annotation that it has keys in a Secret.
#[must_use]
pub fn merger(annotation: &str) -> Option<&str> {
    annotation.strip_prefix(MERGED_ANNOTATION_PREFIX)
}

/// The names of the `KmsSecrets` that say they have keys in a Secret, each with the uid that it had.
pub(super) fn mergers(secret: &ObjectMeta) -> impl Iterator<Item = (&str, &str)> {
    let annotations = secret.annotations.iter().flatten();
    annotations.filter_map(|(key, name)| Some((merger(key)?, name.as_str())))
}

/// What a Secret is to a `KmsSecret` that only wants to put keys into it: it must agree, and nobody may keep it whole.
pub(super) fn classify(secret: &ObjectMeta, owner: &KmsSecret) -> Target {
    let name = owner.name_any();
    if let Some(keeper) = keeper(secret).filter(|keeper| *keeper != name) {
        return Target::Foreign {
            owner: format!("it belongs to KmsSecret {keeper:?}, which keeps it whole"),
            action: "give spec.target.name another name".to_owned(),
        };
    }
    let allowed = allowed(secret);
    if !allowed.contains(&name.as_str()) {
        let names = [&allowed[..], &[name.as_str()]].concat().join(",");
        let overwrite = if allowed.is_empty() {
            ""
        } else {
            " --overwrite"
        };
        return Target::Foreign {
            owner: format!("it does not let KmsSecret {name:?} put keys into it"),
            action: format!(
                "to let it, run `kubectl annotate secret -n {} {} {ALLOW_ANNOTATION}={names}{overwrite}`",
                owner.namespace().unwrap_or_default(),
                owner.target_name()
            ),
        };
    }
    let fields = fields_of(secret, &manager(owner));
    let has = |path: [&str; 3]| fields.is_some_and(|fields| has(fields, &path));
    Target::Shared {
        uid: secret.uid.clone().unwrap_or_default(),
        resource_version: secret.resource_version.clone().unwrap_or_default(),
        keys: fields.map(keys).unwrap_or_default(),
        is_marked: has(["f:metadata", "f:labels", &field(MANAGED_LABEL)])
            && has(["f:metadata", "f:annotations", &field(&marker(owner))]),
    }
}

/// The `KmsSecret` that keeps a Secret whole.
fn keeper(secret: &ObjectMeta) -> Option<&str> {
    let owners = secret.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    let is_ours = |kind: &str, api_version: &str| {
        kind == KmsSecret::kind(&()) && api_version.split('/').next() == Some(GROUP)
    };
    let controller = controllers.find(|it| is_ours(&it.kind, &it.api_version));
    let annotated = || secret.annotations.as_ref()?.get(OWNER_ANNOTATION);
    controller
        .map(|it| it.name.as_str())
        .or_else(|| annotated().map(String::as_str))
}

/// The `KmsSecrets` that may put keys into a Secret. What could not be a name is left out, since it is shown.
fn allowed(secret: &ObjectMeta) -> Vec<&str> {
    let consent = secret
        .annotations
        .as_ref()
        .and_then(|all| all.get(ALLOW_ANNOTATION));
    let names = consent.into_iter().flat_map(|names| names.split(','));
    let is_name = |name: &&str| {
        let mut bytes = name.bytes();
        (1..=253).contains(&name.len())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    names.map(str::trim).filter(is_name).collect()
}

fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The fields that a manager applied.
fn fields_of<'a>(secret: &'a ObjectMeta, manager: &str) -> Option<&'a Value> {
    let mut entries = secret.managed_fields.iter().flatten();
    let entry = entries.find(|entry| is_applied_by(entry, manager))?;
    entry.fields_v1.as_ref().map(|fields| &fields.0)
}

fn is_applied_by(entry: &ManagedFieldsEntry, manager: &str) -> bool {
    entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some("Apply")
}

fn has(fields: &Value, path: &[&str]) -> bool {
    let found = path
        .iter()
        .try_fold(fields, |fields, step| fields.get(*step));
    found.is_some()
}

/// The keys among some fields, in order.
fn keys(fields: &Value) -> Vec<String> {
    let data = fields.get("f:data").and_then(Value::as_object);
    let names = data.into_iter().flat_map(Map::keys);
    let mut keys: Vec<_> = names
        .filter_map(|name| name.strip_prefix("f:").map(ToOwned::to_owned))
        .collect();
    keys.sort_unstable();
    keys
}

/// Why the keys may not be put into a Secret: one of them is somebody else's, and was not ours (`known`) before.
///
/// The API server refuses that as well, but only where the values differ, which they may do first at the next rotation,
/// and not where the other one wrote `stringData`.
pub(super) fn taken(
    secret: &ObjectMeta,
    owner: &KmsSecret,
    data: &Data,
    known: &[String],
) -> Option<Failure> {
    let ours = manager(owner);
    let held = fields_of(secret, &ours).map(keys).unwrap_or_default();
    let is_ours = |key: &String| held.contains(key) || known.contains(key);
    let others = secret.managed_fields.iter().flatten();
    let mut others = others.filter(|entry| !is_applied_by(entry, &ours));
    others.find_map(|entry| {
        let fields = &entry.fields_v1.as_ref()?.0;
        let has = |key: &&String| {
            ["f:data", "f:stringData"]
                .iter()
                .any(|of| has(fields, &[of, &field(key)]))
        };
        let key = data.keys().filter(|key| !is_ours(key)).find(has)?;
        let by = entry.manager.as_deref().unwrap_or_default();
        Some(Failure::new(
            Reason::TargetOwnedByOther,
            format!(
                "Secret {:?} has a key {key:?} already, which is not ours: the field manager {by:?} wrote it",
                owner.target_name()
            ),
            "give the key another name in spec.data, or take it out of that Secret and force a sync (annotation alikms.dev/sync)",
        ))
    })
}

/// The fenced merge patch that makes what a predecessor of ours applied our own: that of a `KmsSecret` of our name that
/// is gone, or ours from when we kept the Secret whole. Then the next apply removes what it leaves out. `None` if there is nothing.
pub(super) fn hand_over(secret: &ObjectMeta, owner: &KmsSecret) -> Option<Value> {
    let (ours, name) = (manager(owner), owner.name_any());
    let merged = mergers(secret).filter(|(_, merger)| *merger == name);
    let whole = keeper(secret).is_some_and(|keeper| keeper == name);
    let whole = whole.then(|| MANAGER.to_owned());
    let managers: Vec<_> = merged
        .map(|(uid, _)| manager_of(uid))
        .chain(whole)
        .collect();
    let is_before = |entry: &ManagedFieldsEntry| {
        !is_applied_by(entry, &ours) && managers.iter().any(|before| is_applied_by(entry, before))
    };
    let entries: Vec<_> = secret.managed_fields.iter().flatten().cloned().collect();
    let (before, mut kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_before);
    let mut entry = before.first()?.clone();
    let mine = kept.iter().position(|entry| is_applied_by(entry, &ours));
    let mine = mine.map(|at| kept.remove(at));
    let mut fields = json!({});
    for more in before
        .into_iter()
        .chain(mine)
        .filter_map(|entry| entry.fields_v1)
    {
        unite(&mut fields, more.0);
    }
    if let Some(fields) = fields.as_object_mut() {
        // Nobody need own the type, and whoever gives it up would change it.
        fields.remove("f:type");
    }
    entry.manager = Some(ours);
    entry.fields_v1 = Some(FieldsV1(fields));
    kept.push(entry);
    Some(json!({"metadata": {
        "uid": secret.uid,
        "resourceVersion": secret.resource_version,
        "managedFields": kept,
    }}))
}

fn unite(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, fields) in more {
                unite(into.entry(name).or_insert_with(|| json!({})), fields);
            }
        }
        (into, more) => *into = more,
    }
}

/// The apply that takes everything of a manager's out of a Secret, as it was seen.
pub(super) fn nothing(name: &str, seen: &ObjectMeta) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {
        "name": name,
        "uid": seen.uid,
        "resourceVersion": seen.resource_version,
    }})
}

/// The managers that hold keys of a `KmsSecret` of this name.
pub(super) fn managers_of(secret: &ObjectMeta, name: &str) -> Vec<String> {
    let merged = mergers(secret).filter(|(_, merger)| *merger == name);
    let managers = merged.map(|(uid, _)| manager_of(uid));
    managers
        .filter(|it| fields_of(secret, it).is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> KmsSecret {
        serde_json::from_value(json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret",
            "metadata": {"name": "db", "namespace": "shop", "uid": "u1"},
            "spec": {"storeRef": {"name": "prod"}, "source": {"secretName": "a"},
                "target": {"name": "app", "creationPolicy": "Merge"}},
        }))
        .unwrap()
    }

    /// A Secret with these annotations, in which each of these managers owns these fields.
    #[expect(clippy::needless_pass_by_value, reason = "the calls read better")]
    fn secret(annotations: Value, owned: &[(&str, &str, Value)]) -> ObjectMeta {
        let entry = |(manager, operation, fields): &(&str, &str, Value)| json!({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields});
        serde_json::from_value(json!({
            "uid": "t", "resourceVersion": "5", "annotations": annotations,
            "managedFields": owned.iter().map(entry).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    fn data(keys: &[&str]) -> Data {
        let pairs = keys
            .iter()
            .map(|key| ((*key).to_owned(), b"x".to_vec().into()));
        pairs.collect()
    }

    /// The fields of our marks and of one key.
    fn ours(key: &str) -> Value {
        json!({
            "f:data": {format!("f:{key}"): {}},
            "f:metadata": {
                "f:labels": {"f:alikms.dev/managed": {}},
                "f:annotations": {"f:alikms.dev/merged.u1": {}},
            },
        })
    }

    const OURS: &str = "kms-secret-operator.u1";

    #[test]
    fn a_secret_is_shared_only_with_whom_it_names() {
        for (consent, is_shared) in [
            ("db", true),
            ("web,db", true),
            ("web, db", true),
            ("", false),
            ("web", false),
            ("dbx", false),
            ("d,b", false),
            ("*", false),
        ] {
            let secret = secret(json!({"alikms.dev/allow": consent}), &[]);
            let target = classify(&secret, &owner());
            assert_eq!(
                matches!(target, Target::Shared { .. }),
                is_shared,
                "{consent:?}"
            );
        }
        let none = ObjectMeta::default();
        assert!(matches!(classify(&none, &owner()), Target::Foreign { .. }));
    }

    #[test]
    fn the_command_keeps_the_consent_that_others_have() {
        let action = |consent: &str| {
            let annotations = json!({"alikms.dev/allow": consent});
            match classify(&secret(annotations, &[]), &owner()) {
                Target::Foreign { action, .. } => action,
                other => panic!("{other:?}"),
            }
        };
        let command = "kubectl annotate secret -n shop app alikms.dev/allow=";
        assert!(action("").contains(&format!("`{command}db`")));
        assert!(action("web,cron").contains(&format!("`{command}web,cron,db --overwrite`")));
        let odd = action("web,$(reboot),`x`");
        assert!(
            odd.contains(&format!("`{command}web,db --overwrite`")),
            "{odd}"
        );
    }

    #[test]
    fn a_secret_that_another_kms_secret_keeps_whole_is_not_shared() {
        let consent = "alikms.dev/allow";
        let marked = json!({consent: "db", "alikms.dev/kmssecret": "web"});
        let mut owned = secret(json!({consent: "db"}), &[]);
        owned.owner_references =
            serde_json::from_value(json!([{"apiVersion": "alikms.dev/v1alpha1",
            "kind": "KmsSecret", "name": "web", "uid": "u2", "controller": true}]))
            .unwrap();
        for kept in [secret(marked, &[]), owned.clone()] {
            let Target::Foreign { owner, .. } = classify(&kept, &owner()) else {
                panic!("it is kept whole");
            };
            assert!(owner.contains("\"web\""), "{owner}");
        }
        let others = owned.owner_references.as_mut().unwrap();
        others[0].kind = "Certificate".into();
        others[0].api_version = "cert-manager.io/v1".into();
        assert!(
            matches!(classify(&owned, &owner()), Target::Shared { .. }),
            "anybody else's can hold keys of ours"
        );
    }

    #[test]
    fn what_is_ours_is_what_our_manager_applied() {
        let consent = || json!({"alikms.dev/allow": "db"});
        let seen =
            |owned: &[(&str, &str, Value)]| match classify(&secret(consent(), owned), &owner()) {
                Target::Shared {
                    keys, is_marked, ..
                } => (keys, is_marked),
                other => panic!("{other:?}"),
            };
        let none = (Vec::new(), false);
        assert_eq!(seen(&[]), none);
        assert_eq!(
            seen(&[(OURS, "Apply", ours("a"))]),
            (vec!["a".to_owned()], true)
        );
        assert_eq!(seen(&[(OURS, "Update", ours("a"))]), none);
        assert_eq!(
            seen(&[("kms-secret-operator.u2", "Apply", ours("a"))]),
            none
        );
        for mark in ["f:labels", "f:annotations"] {
            let mut fields = ours("a");
            fields["f:metadata"].as_object_mut().unwrap().remove(mark);
            assert_eq!(
                seen(&[(OURS, "Apply", fields)]),
                (vec!["a".to_owned()], false),
                "{mark}"
            );
        }
    }

    #[test]
    fn a_key_of_somebody_else_is_taken_and_one_that_was_ours_is_not() {
        let theirs = |of: &str| json!({of: {"f:a": {}, ".": {}}});
        let failure = |owned: &[(&str, &str, Value)], known: &[&str]| {
            let known: Vec<_> = known.iter().map(|key| (*key).to_owned()).collect();
            taken(
                &secret(json!({}), owned),
                &owner(),
                &data(&["a", "b"]),
                &known,
            )
        };
        assert_eq!(failure(&[], &[]), None);
        for (manager, operation, of) in [
            ("kubectl-create", "Update", "f:data"),
            ("argocd", "Apply", "f:data"),
            ("argocd", "Apply", "f:stringData"),
            ("kms-secret-operator", "Apply", "f:data"),
            ("kms-secret-operator.u2", "Apply", "f:data"),
        ] {
            let owned = [(manager, operation, theirs(of))];
            let message = failure(&owned, &["b"]).unwrap().message();
            assert!(
                message.contains("Secret \"app\" has a key \"a\""),
                "{message}"
            );
            assert!(message.contains(&format!("{manager:?}")), "{message}");
            assert_eq!(failure(&owned, &["a"]), None, "it was ours");
            let shared = [owned[0].clone(), (OURS, "Apply", ours("a"))];
            assert_eq!(failure(&shared, &[]), None, "it is ours too");
        }
        let other = json!({"f:data": {"f:c": {}}, "f:metadata": {"f:labels": {"f:a": {}}}});
        assert_eq!(failure(&[("argocd", "Apply", other)], &[]), None);
    }

    #[test]
    fn what_a_predecessor_applied_becomes_ours_and_the_rest_stays_as_it_is() {
        let before = "kms-secret-operator.u0";
        let merged = || json!({"alikms.dev/merged.u0": "db"});
        let whole = || json!({"alikms.dev/kmssecret": "db"});
        let fields = json!({"f:data": {"f:a": {}}, "f:type": {}});
        let theirs = ("argocd", "Apply", json!({"f:data": {"f:x": {}}}));
        let managers = |annotations: Value, owned: &[(&str, &str, Value)]| {
            let patch = hand_over(&secret(annotations, owned), &owner())?;
            assert_eq!(patch["metadata"]["uid"], "t");
            assert_eq!(patch["metadata"]["resourceVersion"], "5");
            let entries = patch["metadata"]["managedFields"].as_array().cloned();
            Some(entries.unwrap())
        };
        for (annotations, manager) in [(merged(), before), (whole(), MANAGER)] {
            let owned = [(manager, "Apply", fields.clone()), theirs.clone()];
            let entries = managers(annotations.clone(), &owned).unwrap();
            assert_eq!(entries.len(), 2);
            assert_eq!(
                (&entries[0]["manager"], &entries[1]["manager"]),
                (&json!("argocd"), &json!(OURS))
            );
            assert_eq!(
                entries[1]["fieldsV1"],
                json!({"f:data": {"f:a": {}}}),
                "without the type"
            );

            let both = [owned[0].clone(), (OURS, "Apply", ours("b"))];
            let entries = managers(annotations, &both).unwrap();
            assert_eq!(entries.len(), 1);
            assert_eq!(
                entries[0]["fieldsV1"]["f:data"],
                json!({"f:a": {}, "f:b": {}})
            );
        }
        let of_another = json!({"alikms.dev/merged.u0": "web", "alikms.dev/kmssecret": "web"});
        for (annotations, owned) in [
            (json!({}), (before, "Apply")),
            (json!({}), (MANAGER, "Apply")),
            (of_another, (before, "Apply")),
            (whole(), (MANAGER, "Update")),
            (json!({"alikms.dev/merged.u1": "db"}), (OURS, "Apply")),
        ] {
            let owned = [(owned.0, owned.1, fields.clone())];
            assert_eq!(managers(annotations, &owned), None, "{owned:?}");
        }
    }

    #[test]
    fn of_all_field_owners_only_mergers_are_kept() {
        for (manager, is_one) in [
            (OURS, true),
            ("kms-secret-operator", false),
            ("kms-secret-operator-2", false),
            ("kubectl", false),
        ] {
            let entry = secret(json!({}), &[(manager, "Apply", json!({}))]);
            assert_eq!(
                is_merger(&entry.managed_fields.unwrap()[0]),
                is_one,
                "{manager}"
            );
        }
    }
}
