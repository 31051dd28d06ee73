//! `ExternalSecrets` of ack-secret-manager (`alibabacloud.com`).

use super::draft::{Draft, Place};
use super::eso::check_rename;
use super::node::Node;
use super::report::Report;
use super::{Id, Peer, Use, target};
use crate::api::KmsSecret;
use crate::api::kms_secret::{Adopt, Extract, Rename, Source, StoreRef};

/// What becomes of an `ExternalSecret`.
pub(super) fn convert(id: &Id, spec: &Node<'_>, report: &mut Report) -> (KmsSecret, Vec<Use>) {
    let mut draft = Draft::default();
    let provider = spec.at("provider");
    if provider
        .text()
        .is_some_and(|name| !name.eq_ignore_ascii_case("kms"))
    {
        report.refuse(&provider.path, "only KMS is read");
    }
    let (data, process) = (spec.at("data").items(), spec.at("dataProcess").items());
    let extracts = process.iter().map(|item| item.at("extract"));
    let stores: Vec<_> = data
        .iter()
        .cloned()
        .chain(extracts.filter(Node::is_there))
        .map(|item| (store(id, &item, report), item))
        .collect();
    let first = stores
        .first()
        .map(|(store, _)| store.clone())
        .unwrap_or_default();
    for (store, item) in &stores {
        if *store != first {
            report.refuse(&item.path, "it has another store or endpoint than the items before it, and a KmsSecret has one store: split it");
        }
    }
    for item in &data {
        one(item, &mut draft, report);
    }
    for item in &process {
        all(item, &mut draft, report);
    }
    draft.target.name = spec
        .at("target")
        .at("name")
        .text()
        .filter(|name| *name != id.name);
    draft.target.adopt = Some(Adopt::IfUnowned);
    let type_ = spec.at("type").text();
    target::template(&spec.at("target").at("template"), &mut draft, report);
    draft.target.type_ = draft.target.type_.take().or(type_);
    let interval = spec.at("rotationInterval");
    draft.refresh = target::interval(interval.text().as_deref(), &interval.path, report);
    let Store {
        name,
        is_cluster,
        endpoint,
    } = first;
    let store_ref = StoreRef {
        name,
        kind: super::store_kind(is_cluster),
    };
    let uses = Use::all(
        id,
        &store_ref,
        Peer::Ack,
        endpoint.as_deref(),
        draft.secret_names(),
    );
    let store_ref = StoreRef {
        name: super::stores::name_at(&store_ref.name, endpoint.as_deref()),
        ..store_ref
    };
    (draft.finish(&id.name, store_ref, report), uses)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Store {
    name: String,
    is_cluster: bool,
    endpoint: Option<String>,
}

fn store(id: &Id, item: &Node<'_>, report: &mut Report) -> Store {
    let reference = item.at("secretStoreRef");
    let kind = reference.at("kind").text();
    let is_cluster = kind.as_deref() == Some("ClusterSecretStore");
    let name = reference.at("name").text();
    if name.is_none() {
        report.refuse(&reference.path, "it is read by the controller's own identity, which no store says: make a ClusterKmsStore with auth.operator, and a KmsSecret that names it");
    }
    let namespace = reference.at("namespace");
    let elsewhere = namespace
        .text()
        .filter(|there| Some(there) != id.namespace.as_ref());
    if let (Some(there), false) = (elsewhere, is_cluster) {
        report.refuse(&namespace.path, format!("a KmsStore serves its own namespace only, and this one is in {there:?}: make a ClusterKmsStore that names the namespaces and secrets it is for"));
    }
    let endpoint = item
        .at("kmsEndpoint")
        .text()
        .map(|host| host.trim().to_owned());
    Store {
        name: name.unwrap_or_default(),
        is_cluster,
        endpoint,
    }
}

fn source(item: &Node<'_>, draft: &mut Draft, report: &mut Report) -> usize {
    let source = Source {
        secret_name: item.at("key").text().unwrap_or_default(),
        version_stage: item.at("versionStage").text(),
        version_id: item.at("versionId").text(),
        fetch_extended_config: None,
    };
    draft.source(source, &item.at("key").path, report)
}

fn one(item: &Node<'_>, draft: &mut Draft, report: &mut Report) {
    let source = source(item, draft, report);
    let (name, paths) = (item.at("name").text(), item.at("jmesPath").items());
    if paths.is_empty() {
        let key = name.or_else(|| item.at("key").text()).unwrap_or_default();
        draft.key(
            key,
            source,
            Place::Whole,
            None,
            &item.at("name").path,
            report,
        );
    }
    for path in paths {
        let (alias, expression) = (path.at("objectAlias"), path.at("path"));
        let text = expression.text().unwrap_or_default();
        if text.len() > 1024 || jmespath::compile(&text).is_err() {
            report.refuse(
                &expression.path,
                format!("{text:?} is no JMESPath of at most 1024 characters"),
            );
        }
        let key = alias.text().unwrap_or_default();
        draft.key(key, source, Place::Path(text), None, &alias.path, report);
    }
}

fn all(item: &Node<'_>, draft: &mut Draft, report: &mut Report) {
    let extract = item.at("extract");
    for unused in ["name", "jmesPath"] {
        // ack-secret-manager takes every field, whatever they say.
        if extract.at(unused).is_given() {
            report.note(
                &extract.at(unused).path,
                "it never meant anything there: every field was extracted",
            );
        }
    }
    let rules = item.at("replaceRule");
    let rename = rules.items().into_iter().map(|rule| Rename {
        pattern: rule.at("source").text().unwrap_or_default(),
        replacement: rule.at("target").text().unwrap_or_default(),
    });
    let rename: Vec<_> = rename.collect();
    check_rename(&rename, &rules.path, report);
    let source = source(&extract, draft, report);
    draft.extract(
        source,
        Extract {
            rename,
            ..Extract::default()
        },
    );
}
