//! What both peers say of the Secret in the same words.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::draft::Draft;
use super::node::Node;
use super::report::Report;
use super::{duration, gotemplate};
use crate::api::kms_secret::Refresh;

/// Labels and annotations.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// The shortest interval that an operator allows, if its flags do not say otherwise.
const INTERVAL_MIN: SignedDuration = SignedDuration::from_mins(1);

/// `target.template`.
pub(super) fn template(template: &Node<'_>, draft: &mut Draft, report: &mut Report) {
    let engine = template.at("engineVersion");
    if engine.text().is_some_and(|version| version != "v2") {
        report.refuse(
            &engine.path,
            "only templates of the engine v2 are understood",
        );
    }
    draft.target.type_ = template.at("type").text();
    if let Some("kubernetes.io/service-account-token" | "bootstrap.kubernetes.io/token") =
        draft.target.type_.as_deref()
    {
        report.refuse(
            &template.at("type").path,
            "Secrets that hold tokens of Kubernetes are never written",
        );
    }
    let policy = template.at("mergePolicy");
    match policy.text().as_deref() {
        None | Some("Replace") => {}
        Some("Merge") => draft.keep_keys(),
        Some(other) => report.refuse(&policy.path, format!("{other:?} is no policy")),
    }
    if template.at("templateFrom").is_given() {
        report.refuse(
            &template.at("templateFrom").path,
            "templates stand in the KmsSecret only: write them into data[].template",
        );
    }
    if template.at("metadata").at("finalizers").is_given() {
        report.lose(
            &template.at("metadata").at("finalizers").path,
            "no finalizers are put on Secrets",
        );
    }
    let data = template.at("data");
    for (key, text) in data.pairs() {
        let field = data.at(&key).path;
        match gotemplate::parts(&text) {
            Ok(parts) => draft.template(key, parts, &field, report),
            Err(why) => report.refuse(&field, why),
        }
    }
    let metadata = template.at("metadata");
    let (labels, annotations) = (metadata.at("labels"), metadata.at("annotations"));
    draft.target.labels = fixed(&labels, report);
    draft.target.annotations = fixed(&annotations, report);
}

/// Labels or annotations that are no templates and in no domain that is refused.
fn fixed(node: &Node<'_>, report: &mut Report) -> BTreeMap<String, String> {
    let mut kept = node.pairs();
    kept.retain(|key, value| {
        let field = node.at(key).path;
        if value.contains("{{") {
            report.refuse(&field, "labels and annotations are no templates here");
        } else if is_refused(key) {
            report.lose(&field, DOMAIN);
        } else {
            return true;
        }
        false
    });
    kept
}

const DOMAIN: &str = "this domain means something to Kubernetes or to controllers that copy Secrets, so no KmsSecret may set it";

/// Copies an object's own labels and annotations.
pub(super) fn copy(metadata: &Metadata, draft: &mut Draft, report: &mut Report) {
    let keep = |from: &BTreeMap<String, String>, field: &str, report: &mut Report| {
        let mut kept = from.clone();
        kept.retain(|key, _| {
            // Marks of those who apply the object, which are wrong on another one.
            if key == "kubectl.kubernetes.io/last-applied-configuration"
                || key.starts_with("argocd.argoproj.io/")
                || key.starts_with("force-sync")
            {
                return false;
            }
            let is_kept = !is_refused(key);
            if !is_kept {
                report.lose(
                    &format!("metadata.{field}.{key}"),
                    format!("it was copied to the Secret; {DOMAIN}"),
                );
            }
            is_kept
        });
        kept
    };
    draft.target.labels = keep(&metadata.labels, "labels", report);
    draft.target.annotations = keep(&metadata.annotations, "annotations", report);
}

fn is_refused(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let refused = [
        "kubernetes.io",
        "k8s.io",
        crate::api::GROUP,
        "reflector.v1.k8s.emberstack.com",
        "replicator.v1.mittwald.de",
        "sealedsecrets.bitnami.com",
    ];
    refused.into_iter().any(|refused| {
        let rest = domain.strip_suffix(refused);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// A time between two reads.
pub(super) fn interval(text: Option<&str>, field: &str, report: &mut Report) -> Option<Refresh> {
    let text = text?;
    let Some(mut interval) = duration::parse(text) else {
        report.refuse(field, format!("{text:?} is no duration"));
        return None;
    };
    if interval < INTERVAL_MIN {
        interval = INTERVAL_MIN;
        report.note(field, format!("{text} becomes 1m, the least without --min-refresh-interval; rotations are followed at once, whatever the interval"));
    }
    Some(Refresh {
        policy: None,
        interval: Some(duration::write(interval)),
    })
}
