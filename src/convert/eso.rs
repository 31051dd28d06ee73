//! `ExternalSecrets` of External Secrets (`external-secrets.io`).

use super::draft::{Draft, Place, tidy};
use super::node::Node;
use super::report::Report;
use super::target::{self, Metadata};
use super::{Id, Peer, Use, duration, gjson};
use crate::api::KmsSecret;
use crate::api::kms_secret::{
    Adopt, CreationPolicy, Decode, DeletionPolicy, Extract, Refresh, RefreshPolicy, Rename, Source,
    StoreRef,
};

/// What becomes of an `ExternalSecret`.
pub(super) fn convert(
    id: &Id,
    spec: &Node<'_>,
    metadata: &Metadata,
    report: &mut Report,
) -> (KmsSecret, Vec<Use>) {
    let mut draft = Draft::default();
    let store = spec.at("secretStoreRef");
    let kind = store.at("kind").text();
    let is_cluster = match kind.as_deref() {
        None | Some("SecretStore") => false,
        Some("ClusterSecretStore") => true,
        Some(other) => {
            report.refuse(
                &store.at("kind").path,
                format!("{other:?} is no kind of store"),
            );
            false
        }
    };
    let name = store.at("name").text();
    if name.is_none() {
        report.refuse(&store.path, "it names no store");
    }
    let store_ref = StoreRef {
        name: name.unwrap_or_default(),
        kind: super::store_kind(is_cluster),
    };
    for item in spec.at("data").items() {
        one(&item, &mut draft, report);
    }
    for item in spec.at("dataFrom").items() {
        all(&item, &mut draft, report);
    }
    policies(id, &spec.at("target"), &mut draft, report);
    let copied = (!spec.at("target").at("template").is_there()).then_some(metadata);
    target::template(&spec.at("target").at("template"), &mut draft, report);
    if let Some(metadata) = copied {
        target::copy(metadata, &mut draft, report);
    }
    draft.refresh = refresh(spec, report);
    let uses = Use::all(id, &store_ref, Peer::Eso, None, draft.secret_names());
    (draft.finish(&id.name, store_ref, report), uses)
}

/// The secret that a reference names.
fn source(reference: &Node<'_>) -> Source {
    Source {
        secret_name: reference.at("key").text().unwrap_or_default(),
        version_stage: None,
        version_id: reference.at("version").text(),
        fetch_extended_config: None,
    }
}

fn one(item: &Node<'_>, draft: &mut Draft, report: &mut Report) {
    let reference = item.at("remoteRef");
    if item.at("sourceRef").is_given() {
        report.refuse(
            &item.at("sourceRef").path,
            "a KmsSecret has one store, and no generators: give this key a KmsSecret of its own",
        );
    }
    common(&reference, report);
    // It speaks of the names of fields, of which there are none here.
    let _ = reference.at("conversionStrategy").text();
    let source = draft.source(source(&reference), &reference.at("key").path, report);
    let property = reference.at("property");
    let place = match property.text().map(|path| gjson::names(&path)) {
        None => Place::Whole,
        Some(Ok(names)) => Place::Names(names),
        Some(Err(why)) => {
            report.refuse(&property.path, why);
            Place::Whole
        }
    };
    let strategy = reference.at("decodingStrategy");
    let decode = match (strategy.text().as_deref(), &place) {
        // External Secrets hands on the Base64 of a binary secret as it is.
        (None | Some("None"), Place::Whole) => Some(Decode::None),
        (None | Some("None"), _) => None,
        (Some("Base64"), _) => Some(Decode::Base64),
        (Some(other), _) => {
            let text = format!("{other} has no equal: decode is None or Base64");
            report.refuse(&strategy.path, text);
            None
        }
    };
    let key = item.at("secretKey");
    let name = key.text().unwrap_or_default();
    draft.key(name, source, place, decode, &key.path, report);
}

/// What both kinds of references may hold that means nothing, or nothing good, to us.
fn common(reference: &Node<'_>, report: &mut Report) {
    let policy = reference.at("metadataPolicy");
    if policy.text().is_some_and(|policy| policy != "None") {
        report.refuse(
            &policy.path,
            "tags of secrets are not read: External Secrets does not read them of KMS either",
        );
    }
}

fn all(item: &Node<'_>, draft: &mut Draft, report: &mut Report) {
    for (field, why) in [
        (
            "find",
            "secrets are not found by name or tag: name them (External Secrets cannot find them in KMS either)",
        ),
        (
            "sourceRef",
            "a KmsSecret has one store, and no generators: make a KmsSecret of its own",
        ),
    ] {
        if item.at(field).is_given() {
            report.refuse(&item.at(field).path, why);
        }
    }
    let reference = item.at("extract");
    if !reference.is_there() {
        return;
    }
    common(&reference, report);
    let property = reference.at("property");
    if property.is_given() {
        report.refuse(&property.path, "extract takes the fields of the whole value, not of a part: name the keys in data, with paths");
    }
    let decoding = reference.at("decodingStrategy");
    if decoding.text().is_some_and(|strategy| strategy != "None") {
        report.refuse(
            &decoding.path,
            "extract does not decode: name the keys in data, with decode: Base64",
        );
    }
    let strategy = reference.at("conversionStrategy");
    let mut rename = Vec::new();
    for step in item.at("rewrite").items() {
        let regexp = step.at("regexp");
        if !regexp.is_there() {
            step.is_given();
            report.refuse(&step.path, "rename knows regular expressions only");
            continue;
        }
        rename.push(Rename {
            pattern: regexp.at("source").text().unwrap_or_default(),
            replacement: regexp.at("target").text().unwrap_or_default(),
        });
    }
    check_rename(&rename, &item.at("rewrite").path, report);
    match strategy.text().as_deref() {
        Some("Unicode") => {
            report.refuse(
                &strategy.path,
                "no name becomes _U0000_: rename the fields in the value, or name the keys in data",
            );
        }
        // External Secrets leaves what was rewritten alone.
        None | Some("Default") if rename.is_empty() => rename = tidy(),
        _ => {}
    }
    let source = draft.source(source(&reference), &reference.at("key").path, report);
    draft.extract(
        source,
        Extract {
            rename,
            ..Extract::default()
        },
    );
}

/// Refuses renames that the API server or the operator would refuse.
pub(super) fn check_rename(rename: &[Rename], field: &str, report: &mut Report) {
    if rename.len() > 8 {
        report.refuse(field, "there are more than 8 steps");
    }
    for Rename {
        pattern,
        replacement,
    } in rename
    {
        let is_long = pattern.is_empty() || pattern.len() > 256 || replacement.len() > 256;
        if is_long || regex::Regex::new(pattern).is_err() {
            report.refuse(
                field,
                format!("{pattern:?} is no regular expression of at most 256 characters"),
            );
        }
    }
}

fn policies(id: &Id, target: &Node<'_>, draft: &mut Draft, report: &mut Report) {
    draft.target.name = target.at("name").text().filter(|name| *name != id.name);
    draft.target.adopt = Some(Adopt::IfUnowned);
    let creation = target.at("creationPolicy");
    match creation.text().as_deref() {
        None | Some("Owner") => {}
        Some("Orphan") => draft.target.creation_policy = Some(CreationPolicy::Orphan),
        Some("Merge") => report.refuse(
            &creation.path,
            "keys are not merged into a Secret of somebody else yet",
        ),
        Some(other) => report.refuse(&creation.path, format!("{other} has no equal")),
    }
    let deletion = target.at("deletionPolicy");
    match deletion.text().as_deref() {
        None | Some("Retain") => {}
        Some("Delete") if draft.is_plain() => {
            draft.target.deletion_policy = Some(DeletionPolicy::Delete);
            report.note(
                &deletion.path,
                "the Secret is deleted once the secret has been gone for an hour, not at once",
            );
        }
        Some("Delete") => report.lose(
            &deletion.path,
            "Delete needs one source without a version; the Secret keeps its last value",
        ),
        Some(other) => report.lose(
            &deletion.path,
            format!("{other} has no equal; the Secret keeps its last value"),
        ),
    }
    let immutable = target.at("immutable");
    if immutable.flag() == Some(true) {
        report.lose(&immutable.path, "the operator keeps the Secret current, so it is not immutable; one that is immutable now cannot be taken over");
    }
    if target.at("manifest").is_given() {
        report.refuse(&target.at("manifest").path, "only Secrets are kept");
    }
}

fn refresh(spec: &Node<'_>, report: &mut Report) -> Option<Refresh> {
    let policy = spec.at("refreshPolicy");
    let interval = spec.at("refreshInterval");
    let given = interval.text();
    let of = |policy| {
        Some(Refresh {
            policy: Some(policy),
            interval: None,
        })
    };
    match policy.text().as_deref() {
        None | Some("Periodic") => {}
        Some("CreatedOnce") => return of(RefreshPolicy::Once),
        Some("OnChange") => return of(RefreshPolicy::OnChange),
        Some(other) => report.refuse(&policy.path, format!("{other:?} is no policy")),
    }
    if given
        .as_deref()
        .and_then(duration::parse)
        .is_some_and(|interval| interval.is_zero())
    {
        return of(RefreshPolicy::Once);
    }
    target::interval(given.as_deref(), &interval.path, report)
}
