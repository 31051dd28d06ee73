//! Manifests of other operators, made into ours: pure, and nothing is dropped in silence.
//!
//! A field that has no equal is reported; where the Secret would hold something else without it, the object is refused.
//! Each manifest is read through `node`, which knows what nobody looked at.

mod ack;
mod draft;
mod duration;
mod eso;
#[cfg(test)]
mod fuzz;
mod gjson;
mod gotemplate;
mod identity;
mod many;
mod node;
mod report;
mod schema;
mod stores;
mod takeover;
mod target;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::kms_secret::{StoreKind, StoreRef};
use node::{Node, Seen};
use report::Report;
pub use report::{Level, Line};
use target::Metadata;

/// What the manifests do not say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The region of ack-secret-manager's stores, which is a flag of that controller.
    pub region: Option<String>,
    /// The ServiceAccount of each store's namespace that takes the place of the controller's own.
    pub service_account: Option<String>,
    /// The namespace of objects that name none.
    pub namespace: Option<String>,
}

/// What became of a stream.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// The manifests, as a YAML stream.
    pub manifests: String,
    /// What became of everything, in the order of the input.
    pub report: Vec<Line>,
}

impl Converted {
    /// Whether everything has its equal.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.report.iter().all(|line| line.level > Level::Lost)
    }
}

/// Whose manifest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// ack-secret-manager.
    Ack,
    /// External Secrets.
    Eso,
}

/// Which object it is.
#[derive(Clone, Debug)]
struct Id {
    namespace: Option<String>,
    name: String,
}

/// A secret of KMS that is read by a store.
#[derive(Clone, Debug)]
struct Use {
    peer: Peer,
    store: StoreRef,
    endpoint: Option<String>,
    namespace: Option<String>,
    secret_name: String,
}

impl Use {
    fn all<'a>(
        id: &Id,
        store: &StoreRef,
        peer: Peer,
        endpoint: Option<&str>,
        secret_names: impl Iterator<Item = &'a str>,
    ) -> Vec<Self> {
        let used = secret_names.map(|secret_name| Self {
            peer,
            store: store.clone(),
            endpoint: endpoint.map(ToOwned::to_owned),
            namespace: id.namespace.clone(),
            secret_name: secret_name.to_owned(),
        });
        used.collect()
    }

    fn is_of(&self, id: &Id, peer: Peer, is_cluster: bool) -> bool {
        self.peer == peer
            && self.store.name == id.name
            && (self.store.kind == Some(StoreKind::ClusterKmsStore)) == is_cluster
            && (is_cluster || self.namespace == id.namespace)
    }
}

/// The kind of a store, written down only where it is not the default.
fn store_kind(is_cluster: bool) -> Option<StoreKind> {
    is_cluster.then_some(StoreKind::ClusterKmsStore)
}

/// The flag of kubectl that names a namespace.
fn flag(namespace: &str) -> String {
    if namespace.is_empty() {
        String::new()
    } else {
        format!(" -n {namespace}")
    }
}

/// An object of the input.
struct Object {
    value: Value,
    group: String,
    kind: String,
    id: Id,
}

/// Converts a YAML stream.
///
/// # Errors
/// A sentence that says where the YAML ends to be YAML, and quotes nothing of it: the stream may hold Secrets.
pub fn convert(input: &str, options: &Options) -> Result<Converted, String> {
    let documents = read(input)?;
    let objects: Vec<_> = documents
        .into_iter()
        .flat_map(flatten)
        .filter_map(|value| Object::of(value, options))
        .collect();
    let mut converted = Converted::default();
    let (mut secrets, mut uses, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for object in &objects {
        let (made, reads, lines) = many::secrets(object);
        secrets.extend(made);
        uses.extend(reads);
        reports.push(lines);
    }
    let mut documents = Vec::new();
    for (object, lines) in objects.iter().zip(reports) {
        converted.report.extend(lines);
        let (made, lines) = object.stores(&uses, options);
        documents.extend(made);
        converted.report.extend(lines);
    }
    documents.extend(secrets);
    let mut taken = BTreeSet::new();
    for document in documents {
        let text = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (kind, namespace, name) = (
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name"),
        );
        let object = named(
            &kind,
            Some(namespace.as_str()).filter(|space| !space.is_empty()),
            &name,
        );
        if !taken.insert(object.clone()) {
            let mut report = Report::of(object);
            report.refuse(
                "",
                "two objects of the input become this one: rename one of them",
            );
            converted.report.extend(report.into_lines());
            continue;
        }
        let yaml = serde_saphyr::to_string(&document)
            .map_err(|_| format!("{object} cannot be written as YAML"))?;
        converted.manifests.push_str("---\n");
        converted.manifests.push_str(&yaml);
    }
    Ok(converted)
}

/// The documents of a stream: as many as the largest of clusters has, and no more aliases than people write.
fn read(input: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_nodes: 20_000_000,
            max_events: 50_000_000,
        },
    };
    serde_saphyr::from_multiple_with_options(input, options).map_err(|err| {
        let line = err.location().map_or(0, |location| location.line());
        match err.without_snippet() {
            serde_saphyr::Error::Budget { .. } => format!(
                "the input nests too deep, or is too much for one stream, from line {line} on: convert it in parts"
            ),
            _ => format!("the input is no YAML from line {line} on"),
        }
    })
}

/// The objects of a document: a list of kubectl's holds many.
fn flatten(document: Value) -> Vec<Value> {
    let is_list = document["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"));
    match document {
        Value::Object(mut fields) if is_list => match fields.remove("items") {
            Some(Value::Array(items)) => items.into_iter().flat_map(flatten).collect(),
            _ => Vec::new(),
        },
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

fn named(kind: &str, namespace: Option<&str>, name: &str) -> String {
    let space = namespace.map_or_else(String::new, |space| format!("{space}/"));
    format!("{kind} {space}{name}")
}

impl Object {
    fn of(value: Value, options: &Options) -> Option<Self> {
        let text = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
        };
        let kind = text("/kind")?;
        let group = text("/apiVersion")?;
        let is_cluster = kind.starts_with("Cluster");
        let namespace = text("/metadata/namespace").or_else(|| options.namespace.clone());
        let id = Id {
            namespace: namespace.filter(|_| !is_cluster),
            name: text("/metadata/name").unwrap_or_default(),
        };
        Some(Self {
            value,
            group,
            kind,
            id,
        })
    }

    fn peer(&self) -> Option<Peer> {
        match self.group.as_str() {
            "alibabacloud.com/v1alpha1" => Some(Peer::Ack),
            "external-secrets.io/v1" | "external-secrets.io/v1beta1" => Some(Peer::Eso),
            _ => None,
        }
    }

    fn is_store(&self) -> bool {
        matches!(self.kind.as_str(), "SecretStore" | "ClusterSecretStore")
    }

    fn report(&self) -> Report {
        Report::of(named(
            &self.kind,
            self.id.namespace.as_deref(),
            &self.id.name,
        ))
    }

    fn metadata(&self) -> Metadata {
        let seen = Seen::default();
        let metadata = Node::new(&self.value["metadata"], "metadata", &seen);
        Metadata {
            labels: metadata.at("labels").pairs(),
            annotations: metadata.at("annotations").pairs(),
        }
    }

    /// The stores that it becomes, if it is one.
    fn stores(&self, uses: &[Use], options: &Options) -> (Vec<Value>, Vec<Line>) {
        let (Some(peer), true) = (self.peer(), self.is_store()) else {
            return (Vec::new(), Vec::new());
        };
        let (mut report, seen) = (self.report(), Seen::default());
        let spec = Node::new(&self.value["spec"], "spec", &seen);
        let is_cluster = self.kind.starts_with("Cluster");
        let made = stores::convert(
            &self.id,
            peer,
            is_cluster,
            &spec,
            (uses, options),
            &mut report,
        );
        unread(&spec, &mut report);
        let made = made.into_iter().filter_map(|store| match store {
            stores::Store::Namespaced(mut store) => {
                store.metadata.namespace.clone_from(&self.id.namespace);
                serde_json::to_value(&store).ok()
            }
            stores::Store::Cluster(store) => serde_json::to_value(&store).ok(),
        });
        let mut made: Vec<_> = made.collect();
        for store in &made {
            schema::check(store, &mut report);
        }
        if report.is_refused() {
            made.clear();
        }
        (made, report.into_lines())
    }
}

/// Refuses what nobody looked at: what it means is not known, so neither is what the Secret would hold without it.
fn unread(spec: &Node<'_>, report: &mut Report) {
    for path in spec.unread() {
        report.refuse(&path, "this field, or this kind of value in it, is not known: take it out if it may be left out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_known_by_its_whole_kind() {
        for (kind, is_store) in [
            ("SecretStore", true),
            ("ClusterSecretStore", true),
            ("<!--SecretStore", false),
            ("VaultSecretStore", false),
        ] {
            let object = format!(
                "{{apiVersion: external-secrets.io/v1, kind: {kind:?}, metadata: {{name: a}}, spec: {{}}}}"
            );
            let report = convert(&object, &Options::default()).unwrap().report;
            let is_left_out = report
                .iter()
                .any(|line| line.text.contains("none of the kinds"));
            assert_eq!(is_left_out, !is_store, "{kind}: {report:?}");
        }
    }
}
