//! What the watches have seen, and who uses what.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};

use super::target_meta::TargetMeta;
use crate::api::auth::AccessKeySecretRef;
use crate::api::kms_secret::StoreKind;
use crate::api::kms_store::CaBundleRef;
use crate::api::{ClusterKmsStore, KmsSecret, KmsStore};

/// Metadata of a Secret.
pub(super) type SecretMeta = PartialObjectMeta<Secret>;
/// Metadata of a Namespace.
pub(super) type NamespaceMeta = PartialObjectMeta<Namespace>;

/// What the watches have seen, trimmed to what is looked at.
pub(super) struct Caches {
    pub(super) kms_secrets: Store<KmsSecret>,
    pub(super) stores: Store<KmsStore>,
    pub(super) targets: Store<TargetMeta>,
    pub(super) credentials: Store<SecretMeta>,
    pub(super) ca_bundles: Store<ConfigMap>,
    /// What is of the cluster; none where the loop looks at one namespace.
    pub(super) cluster: Option<ClusterCaches>,
}

/// Some of the stores.
pub(super) struct Stores {
    pub(super) of_namespaces: Vec<Arc<KmsStore>>,
    pub(super) of_cluster: Vec<Arc<ClusterKmsStore>>,
}

/// What the watches of cluster-wide kinds have seen.
pub(super) struct ClusterCaches {
    pub(super) stores: Store<ClusterKmsStore>,
    pub(super) namespaces: Store<NamespaceMeta>,
}

/// The labels of a namespace.
pub(super) type Labels = BTreeMap<String, String>;

impl ClusterCaches {
    pub(super) fn labels_of(&self, namespace: &str) -> Labels {
        let found = self.namespaces.get(&ObjectRef::new(namespace));
        found
            .map(|namespace| namespace.labels().clone())
            .unwrap_or_default()
    }
}

/// The other ends of the caches, for the watches that fill them.
pub(super) struct Writers {
    pub(super) kms_secrets: Writer<KmsSecret>,
    pub(super) stores: Writer<KmsStore>,
    pub(super) targets: Writer<TargetMeta>,
    pub(super) credentials: Writer<SecretMeta>,
    pub(super) ca_bundles: Writer<ConfigMap>,
    pub(super) cluster: Option<(Writer<ClusterKmsStore>, Writer<NamespaceMeta>)>,
}

/// Makes empty caches, with those of cluster-wide kinds or without.
pub(super) fn empty(with_cluster: bool) -> (Caches, Writers) {
    let (kms_secrets, kms_secrets_writer) = store();
    let (stores, stores_writer) = store();
    let (targets, targets_writer) = store();
    let (credentials, credentials_writer) = store();
    let (ca_bundles, ca_bundles_writer) = store();
    let cluster = with_cluster.then(|| {
        let (stores, stores_writer) = store();
        let (namespaces, namespaces_writer) = store();
        (
            ClusterCaches { stores, namespaces },
            (stores_writer, namespaces_writer),
        )
    });
    let (cluster, cluster_writers) = cluster.unzip();
    let caches = Caches {
        kms_secrets,
        stores,
        targets,
        credentials,
        ca_bundles,
        cluster,
    };
    let writers = Writers {
        kms_secrets: kms_secrets_writer,
        stores: stores_writer,
        targets: targets_writer,
        credentials: credentials_writer,
        ca_bundles: ca_bundles_writer,
        cluster: cluster_writers,
    };
    (caches, writers)
}

impl Caches {
    /// Waits until every cache is filled: half a picture looks like missing targets.
    pub(super) async fn filled(&self) {
        // A writer lives as long as its watch, which lives as long as the loop: an error is the end of both.
        let _ = futures::join!(
            self.kms_secrets.wait_until_ready(),
            self.stores.wait_until_ready(),
            self.targets.wait_until_ready(),
            self.credentials.wait_until_ready(),
            self.ca_bundles.wait_until_ready(),
        );
        if let Some(cluster) = &self.cluster {
            let _ = futures::join!(
                cluster.stores.wait_until_ready(),
                cluster.namespaces.wait_until_ready()
            );
        }
    }

    pub(super) fn all(&self) -> Vec<ObjectRef<KmsSecret>> {
        self.users(|_| true)
    }

    /// The `KmsSecrets` that meet a condition.
    fn users(&self, uses: impl Fn(&KmsSecret) -> bool) -> Vec<ObjectRef<KmsSecret>> {
        let objects = self.kms_secrets.state_filter(|object| uses(object));
        objects
            .iter()
            .map(|object| ObjectRef::from_obj(&**object))
            .collect()
    }

    pub(super) fn users_of_store(&self, store: &KmsStore) -> Vec<ObjectRef<KmsSecret>> {
        let (namespace, name) = (store.namespace(), store.name_any());
        self.users(|object| {
            object.store_kind() == StoreKind::KmsStore
                && object.namespace() == namespace
                && object.spec.store_ref.name == name
        })
    }

    pub(super) fn users_of_cluster_store(
        &self,
        store: &ClusterKmsStore,
    ) -> Vec<ObjectRef<KmsSecret>> {
        let name = store.name_any();
        self.users(|object| {
            object.store_kind() == StoreKind::ClusterKmsStore && object.spec.store_ref.name == name
        })
    }

    /// The users of cluster stores in a namespace, whose labels may have given or taken access.
    pub(super) fn users_in(&self, namespace: &NamespaceMeta) -> Vec<ObjectRef<KmsSecret>> {
        let name = Some(namespace.name_any());
        self.users(|object| {
            object.store_kind() == StoreKind::ClusterKmsStore && object.namespace() == name
        })
    }

    /// The stores whose credentials stand in a Secret.
    pub(super) fn stores_of_credentials(&self, secret: &SecretMeta) -> Stores {
        let is_it = |credentials: Option<(String, &AccessKeySecretRef)>| {
            credentials.is_some_and(|(namespace, reference)| {
                Some(namespace) == secret.namespace() && reference.name == secret.name_any()
            })
        };
        self.stores_where(
            |store| is_it(store.credentials()),
            |store| is_it(store.credentials()),
        )
    }

    /// The stores that trust the certificates of a `ConfigMap`.
    pub(super) fn stores_of_ca_bundle(&self, bundle: &ConfigMap) -> Stores {
        let is_it = |given: Option<(&str, &CaBundleRef)>| {
            given.is_some_and(|(namespace, reference)| {
                bundle.namespace().as_deref() == Some(namespace)
                    && reference.name == bundle.name_any()
            })
        };
        self.stores_where(
            |store| is_it(store.ca_bundle_ref()),
            |store| is_it(store.ca_bundle_ref()),
        )
    }

    pub(super) fn all_stores(&self) -> Stores {
        self.stores_where(|_| true, |_| true)
    }

    fn stores_where(
        &self,
        is_one: impl Fn(&KmsStore) -> bool,
        is_cluster_one: impl Fn(&ClusterKmsStore) -> bool,
    ) -> Stores {
        let cluster = self.cluster.as_ref();
        Stores {
            of_namespaces: self.stores.state_filter(|store| is_one(store)),
            of_cluster: cluster.map_or_else(Vec::new, |cluster| {
                cluster.stores.state_filter(|store| is_cluster_one(store))
            }),
        }
    }

    /// The users of some stores.
    pub(super) fn users_of(&self, stores: &Stores) -> Vec<ObjectRef<KmsSecret>> {
        let of_namespaces = stores.of_namespaces.iter();
        let of_cluster = stores.of_cluster.iter();
        of_namespaces
            .flat_map(|store| self.users_of_store(store))
            .chain(of_cluster.flat_map(|store| self.users_of_cluster_store(store)))
            .collect()
    }
}
