//! Asks KMS, without reading a value, whether KmsSecrets could be synced: the same checks of store, consent and tenancy as
//! the operator's own.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::runtime::watcher::Event;
use kube::{Api, ResourceExt as _};

use super::caches::{self, Writers};
use super::{Context, Shared, readers, store};
use crate::api::kms_secret::StoreKind;
use crate::api::{CA_BUNDLE_LABEL, ClusterKmsStore, KmsSecret, KmsStore};
use crate::sync::{Failure, sources};

/// What became of asking for one source.
#[derive(Debug)]
pub struct Checked {
    /// Name of the `KmsSecret`.
    pub object: String,
    /// Name of the source.
    pub source: String,
    /// The secret in KMS.
    pub secret_name: String,
    /// Whether it could be read.
    pub result: Result<(), Failure>,
}

/// Checks the `KmsSecrets` of a namespace that are named, or all of them.
///
/// # Errors
/// The API server does not let us read what has to be read, or there is no such `KmsSecret`.
pub async fn check(
    shared: Arc<Shared>,
    namespace: &str,
    names: &[String],
) -> Result<Vec<Checked>, kube::Error> {
    let client = shared.cluster.client();
    let of_namespace = Api::<KmsSecret>::namespaced(client.clone(), namespace);
    let mut objects = Vec::new();
    if names.is_empty() {
        objects = of_namespace
            .list(&kube::api::ListParams::default())
            .await?
            .items;
    }
    for name in names {
        objects.push(of_namespace.get(name).await?);
    }
    let (caches, mut writers) = caches::empty(true);
    fill(&mut writers, &client, namespace, &objects).await?;
    let context = Context::new(shared, None, caches);
    let mut checked = Vec::new();
    for object in &objects {
        checked.extend(check_one(object, &context).await);
    }
    Ok(checked)
}

async fn check_one(object: &KmsSecret, context: &Context) -> Vec<Checked> {
    let link = async {
        let store = store::resolve(object, context).await?;
        let link = readers::link(&store, context).await?;
        Ok((link, store.name))
    };
    let link: Result<_, Failure> = link.await;
    let mut checked = Vec::new();
    for named in object.spec.all_sources() {
        let secret_name = &named.source.secret_name;
        let result = match &link {
            Ok((link, store)) => {
                let answer = link.check(&sources::request(named.source)).await;
                answer.map_err(|err| Failure::of_kms(&err, secret_name, store))
            }
            Err(failure) => Err(failure.clone()),
        };
        checked.push(Checked {
            object: object.name_any(),
            source: named.name.to_owned(),
            secret_name: secret_name.clone(),
            result,
        });
    }
    checked
}

/// Puts into the caches what the objects need, and nothing else: whoever checks need not be able to list a cluster.
async fn fill(
    writers: &mut Writers,
    client: &kube::Client,
    namespace: &str,
    objects: &[KmsSecret],
) -> Result<(), kube::Error> {
    let mut bundles = Vec::new();
    for object in objects {
        let name = &object.spec.store_ref.name;
        match object.store_kind() {
            StoreKind::KmsStore => {
                let api = Api::<KmsStore>::namespaced(client.clone(), namespace);
                if let Some(store) = api.get_opt(name).await? {
                    bundles.extend(named_bundle(store.ca_bundle_ref()));
                    writers.stores.apply_watcher_event(&Event::Apply(store));
                }
            }
            StoreKind::ClusterKmsStore => {
                let Some((stores, namespaces)) = &mut writers.cluster else {
                    continue;
                };
                let api = Api::<ClusterKmsStore>::all(client.clone());
                if let Some(store) = api.get_opt(name).await? {
                    bundles.extend(named_bundle(store.ca_bundle_ref()));
                    stores.apply_watcher_event(&Event::Apply(store));
                }
                let api = Api::<Namespace>::all(client.clone());
                if let Some(space) = api.get_metadata_opt(namespace).await? {
                    namespaces.apply_watcher_event(&Event::Apply(space));
                }
            }
        }
    }
    for (namespace, name) in bundles {
        let api = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
        let found = api.get_opt(&name).await?;
        let is_labelled = |map: &ConfigMap| {
            map.labels()
                .get(CA_BUNDLE_LABEL)
                .is_some_and(|value| value == "true")
        };
        if let Some(bundle) = found.filter(is_labelled) {
            writers
                .ca_bundles
                .apply_watcher_event(&Event::Apply(bundle));
        }
    }
    Ok(())
}

fn named_bundle(
    given: Option<(&str, &crate::api::kms_store::CaBundleRef)>,
) -> Option<(String, String)> {
    given.map(|(namespace, reference)| (namespace.to_owned(), reference.name.clone()))
}
