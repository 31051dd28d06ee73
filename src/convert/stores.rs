//! Stores of both peers.

use std::collections::BTreeSet;

use super::identity::{self, Identity};
use super::node::Node;
use super::report::Report;
use super::{Id, Options, Peer, Use};
use crate::alibaba::endpoint::resolve;
use crate::api::kms_store::{
    ClusterKmsStoreSpec, KmsStoreSpec, NamespaceSelector, Namespaces, Network, StoreSettings,
};
use crate::api::{ClusterKmsStore, KmsStore};

/// A store of either kind.
pub(super) enum Store {
    Namespaced(Box<KmsStore>),
    Cluster(Box<ClusterKmsStore>),
}

/// More patterns than this are one that matches everything.
const SECRET_NAMES_MAX: usize = 64;

/// The name of a store for an endpoint of its own.
pub(super) fn name_at(name: &str, endpoint: Option<&str>) -> String {
    let host = endpoint.and_then(|host| host.split('.').next());
    host.map_or_else(|| name.to_owned(), |host| format!("{name}-{host}"))
}

/// What becomes of a store: one for each endpoint that it is used with.
pub(super) fn convert(
    id: &Id,
    peer: Peer,
    is_cluster: bool,
    spec: &Node<'_>,
    (uses, options): (&[Use], &Options),
    report: &mut Report,
) -> Vec<Store> {
    let identity = match peer {
        Peer::Ack => identity::of_ack(id, is_cluster, spec, options, report),
        Peer::Eso => identity::of_eso(id, is_cluster, spec, options, report),
    };
    let region = match peer {
        Peer::Ack => options.region.clone(),
        Peer::Eso => spec.at("provider").at("alibaba").at("regionID").text(),
    };
    let region = region.unwrap_or_else(|| {
        report.refuse(
            "spec",
            "it names no region, which is a flag of that controller: say --region",
        );
        String::new()
    });
    for retries in ["retrySettings", "refreshInterval"] {
        if peer == Peer::Eso && spec.at(retries).is_given() {
            report.note(&spec.at(retries).path, "the operator has its own pace");
        }
    }
    if spec.at("controller").is_given() {
        report.lose(
            &spec.at("controller").path,
            "every operator serves every store of its namespaces",
        );
    }
    let Some(identity) = identity else {
        return Vec::new();
    };
    let mine: Vec<_> = uses
        .iter()
        .filter(|used| used.is_of(id, peer, is_cluster))
        .collect();
    let reach = is_cluster.then(|| reach(&spec.at("conditions"), &mine, report));
    let mut endpoints: BTreeSet<_> = mine.iter().map(|used| used.endpoint.clone()).collect();
    if endpoints.is_empty() {
        endpoints.insert(None);
    }
    let made = endpoints.into_iter().map(|endpoint| {
        let settings = settings(&region, peer, endpoint.clone(), report);
        let name = name_at(&id.name, endpoint.as_deref());
        build(&name, settings, &identity, reach.clone())
    });
    made.collect()
}

fn settings(
    region: &str,
    peer: Peer,
    endpoint: Option<String>,
    report: &mut Report,
) -> StoreSettings {
    let resolved = resolve(region, true, None, &[]);
    if let (Err(why), false) = (resolved, region.is_empty()) {
        report.refuse("spec", why);
    }
    if let Some(host) = &endpoint {
        let is_instance = host.ends_with(".cryptoservice.kms.aliyuncs.com");
        let is_shared = [
            format!("kms.{region}.aliyuncs.com"),
            format!("kms-vpc.{region}.aliyuncs.com"),
        ]
        .contains(host);
        if is_instance {
            report.ask(format!("put the CA certificate of the instance {host} into caBundle of the store, or into a ConfigMap for caBundleRef, if its certificate is not signed by a public authority"));
        } else if !is_shared {
            report.refuse(
                "",
                format!("kmsEndpoint {host:?} is no endpoint of KMS in {region}"),
            );
        }
    }
    // External Secrets calls the public endpoint, ack-secret-manager that of the VPC, which is our default.
    let network = (peer == Peer::Eso && endpoint.is_none()).then_some(Network::Public);
    if network.is_some() {
        report.note("", "External Secrets reads over the Internet, and so does network: Public; inside a VPC of the region leave it out");
    }
    StoreSettings {
        region: region.to_owned(),
        network,
        endpoint,
        ca_bundle: None,
        signature: None,
        batch: None,
        requests_per_second: None,
    }
}

fn build(name: &str, settings: StoreSettings, identity: &Identity, reach: Option<Reach>) -> Store {
    match reach {
        None => Store::Namespaced(Box::new(KmsStore::new(
            name,
            KmsStoreSpec {
                settings,
                ca_bundle_ref: None,
                auth: identity.auth(),
                assume_role: identity.assume_role(),
            },
        ))),
        Some(reach) => Store::Cluster(Box::new(ClusterKmsStore::new(
            name,
            ClusterKmsStoreSpec {
                settings,
                ca_bundle_ref: None,
                auth: identity.cluster_auth(),
                assume_role: identity.cluster_assume_role(),
                namespaces: reach.namespaces,
                secret_names: Some(reach.secret_names),
            },
        ))),
    }
}

/// Who may use a store of the cluster, and for what.
#[derive(Clone, Debug)]
struct Reach {
    namespaces: Namespaces,
    secret_names: Vec<String>,
}

fn reach(conditions: &Node<'_>, uses: &[&Use], report: &mut Report) -> Reach {
    let mut names = BTreeSet::new();
    let mut selectors = Vec::new();
    let conditions_given = conditions.items();
    for condition in &conditions_given {
        names.extend(condition.at("namespaces").texts());
        if condition.at("namespaceRegexes").is_given() {
            report.refuse(
                &condition.at("namespaceRegexes").path,
                "namespaces are named or selected by labels, not by patterns",
            );
        }
        let selector = condition.at("namespaceSelector");
        if selector.at("matchExpressions").is_given() {
            report.refuse(
                &selector.at("matchExpressions").path,
                "only matchLabels has an equal",
            );
        }
        let labels = selector.at("matchLabels").pairs();
        if !labels.is_empty() {
            selectors.push(labels);
        }
    }
    if selectors.len() > 1 {
        report.refuse(&conditions.path, "a ClusterKmsStore has one selector: label the namespaces alike, or make a store for each");
    }
    let spaces: BTreeSet<_> = uses
        .iter()
        .filter_map(|used| used.namespace.clone())
        .collect();
    if conditions_given.is_empty() {
        if spaces.is_empty() {
            report.refuse("spec", "it served every namespace, which no ClusterKmsStore does, and no ExternalSecret of the input uses it: write one by hand that names its namespaces");
        } else {
            report.note("spec.conditions", "it served every namespace; the ClusterKmsStore serves those of the input that use it");
        }
        names = spaces;
    }
    if names.len() > 256 {
        report.refuse(
            "spec",
            "more than 256 namespaces use it: select them by a label that tenants cannot set",
        );
    }
    let mut secret_names: BTreeSet<_> = uses.iter().map(|used| used.secret_name.clone()).collect();
    if secret_names.is_empty() {
        report.refuse("spec", "it let everybody read every secret, which a ClusterKmsStore says name by name, and no ExternalSecret of the input uses it: write one by hand");
    } else if secret_names.len() > SECRET_NAMES_MAX {
        report.note("spec", "more than 64 secrets are read by it: secretNames is **, every secret; write patterns that leave each namespace its own");
        secret_names = ["**".to_owned()].into();
    } else {
        report.note("spec", "secretNames are those that the input reads; they are open to all of its namespaces, so split the store, or write patterns with ${namespace}");
    }
    let selector = selectors
        .pop()
        .map(|match_labels| NamespaceSelector { match_labels });
    Reach {
        namespaces: Namespaces {
            names: names.into_iter().collect(),
            selector,
        },
        secret_names: secret_names.into_iter().collect(),
    }
}
