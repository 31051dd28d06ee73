//! The KmsSecrets that an object becomes: none, one, or one for each namespace that it names.

use serde_json::Value;

use super::node::{Node, Seen};
use super::report::{Line, Report};
use super::target::Metadata;
use super::{Id, Object, Peer, Use, ack, eso, schema, takeover, unread};
use crate::api::KmsSecret;

/// The KmsSecrets of an object, the secrets that they read, and what became of it.
pub(super) fn secrets(object: &Object) -> (Vec<Value>, Vec<Use>, Vec<Line>) {
    let mut report = object.report();
    let seen = Seen::default();
    let spec = Node::new(&object.value["spec"], "spec", &seen);
    let mut made = Vec::new();
    match (object.peer(), object.kind.as_str()) {
        (Some(peer), "ExternalSecret") => {
            made.push((
                object.id.clone(),
                one(peer, &object.id, &spec, &object.metadata(), &mut report),
            ));
        }
        (Some(peer), "ClusterExternalSecret") => {
            let metadata = spec.at("externalSecretMetadata");
            let metadata = Metadata {
                labels: metadata.at("labels").pairs(),
                annotations: metadata.at("annotations").pairs(),
            };
            let name = spec.at("externalSecretName").text();
            for namespace in namespaces(&spec, &mut report) {
                let id = Id {
                    namespace: Some(namespace),
                    name: name.clone().unwrap_or_else(|| object.id.name.clone()),
                };
                let inner = spec.at("externalSecretSpec");
                // The same words would be said of each namespace.
                let mut its = Report::of("");
                let first = made.is_empty();
                let secret = one(
                    peer,
                    &id,
                    &inner,
                    &metadata,
                    if first { &mut report } else { &mut its },
                );
                made.push((id, secret));
            }
        }
        (Some(_), _) if object.is_store() => return Default::default(),
        _ => {
            report.note(
                "",
                if object.kind == "Secret" {
                    "left out: Secrets are never read or printed"
                } else {
                    "left out: it is none of the kinds that are converted"
                },
            );
            return (Vec::new(), Vec::new(), report.into_lines());
        }
    }
    unread(&spec, &mut report);
    let mut documents = Vec::new();
    let mut uses = Vec::new();
    for (id, (mut secret, used)) in made {
        secret.metadata.namespace.clone_from(&id.namespace);
        takeover::steps(object, &id, secret.target_name(), &mut report);
        if let Ok(document) = serde_json::to_value(&secret) {
            schema::check(&document, &mut report);
            documents.push(document);
        }
        uses.extend(used);
    }
    if report.is_refused() {
        (documents, uses) = Default::default();
    }
    (documents, uses, report.into_lines())
}

fn one(
    peer: Peer,
    id: &Id,
    spec: &Node<'_>,
    metadata: &Metadata,
    report: &mut Report,
) -> (KmsSecret, Vec<Use>) {
    match peer {
        Peer::Ack => ack::convert(id, spec, report),
        Peer::Eso => eso::convert(id, spec, metadata, report),
    }
}

/// The namespaces that an object for many names; those that it selects are not known.
fn namespaces(spec: &Node<'_>, report: &mut Report) -> Vec<String> {
    let selected = "one object for the namespaces that labels or patterns select has no equal: make a KmsSecret in each, as by Helm, Kustomize or an ApplicationSet";
    let mut names = spec.at("namespaces").texts();
    let conditions = spec.at("conditions").items();
    let fields = ["namespaceSelector", "namespaceSelectors"].map(|name| spec.at(name));
    let inner = conditions.iter().flat_map(|condition| {
        ["namespaceSelector", "namespaceRegexes"].map(|name| condition.at(name))
    });
    for field in fields.into_iter().chain(inner) {
        if field.is_given() {
            report.refuse(&field.path, selected);
        }
    }
    names.extend(
        conditions
            .iter()
            .flat_map(|condition| condition.at("namespaces").texts()),
    );
    for unused in ["refreshTime", "rotationInterval"] {
        if spec.at(unused).is_given() {
            report.note(
                &spec.at(unused).path,
                "it said how often namespaces were looked for",
            );
        }
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        report.refuse("spec", "it names no namespaces");
    }
    names
}
