//! Looks at the credentials of each store, and tells in its status whether they work and whose they are.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::reflector::{ObjectRef, Store as Cache};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::Context;
use super::queue::Again;
use super::readers;
use super::store::{Resolved, Store};
use crate::api::kms_secret::StoreKind;
use crate::api::kms_store::KmsStoreStatus;
use crate::api::{ClusterKmsStore, KmsSecret, KmsStore};
use crate::cluster::WriteError;
use crate::sync::store_status::{self, Verified};
use crate::sync::{Failure, is_older, status};

/// The statuses that we wrote, by the stores' uids, with their resourceVersions: a cache may not show them yet.
#[derive(Default)]
pub(super) struct Written {
    statuses: Mutex<HashMap<String, (String, KmsStoreStatus)>>,
    /// Stores of which was told that their KMS has another time.
    clocks: Mutex<HashSet<String>>,
    /// Stores whose status tells something else than KMS told this replica: whether they work.
    doubts: Mutex<HashMap<String, bool>>,
}

impl Written {
    /// The status of a store and the resourceVersion that it belongs to.
    fn newest<K: HasStatus>(&self, store: &K) -> (KmsStoreStatus, String) {
        let version = store.resource_version().unwrap_or_default();
        let mut written = self.lock();
        let uid = store.uid().unwrap_or_default();
        if let Some((ours, status)) = written.get(&uid) {
            if is_older(&version, ours) {
                return (status.clone(), ours.clone());
            }
            written.remove(&uid);
        }
        (store.status().cloned().unwrap_or_default(), version)
    }

    fn keep<K: HasStatus>(&self, store: &K, version: String, status: KmsStoreStatus) {
        let uid = store.uid().unwrap_or_default();
        self.lock().insert(uid, (version, status));
    }

    /// Takes note of whether a clock is off; answers whether that is to be told.
    fn note_clock(&self, uid: &str, is_off: bool) -> bool {
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        if is_off {
            return clocks.insert(uid.to_owned());
        }
        clocks.remove(uid);
        false
    }

    fn doubt(&self, uid: String, works: bool) {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.insert(uid, works);
    }

    fn take_doubt(&self, uid: &str) -> Option<bool> {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.remove(uid)
    }

    /// Forgets stores that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| is_there(uid));
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.retain(|uid| is_there(uid));
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.retain(|uid, _| is_there(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (String, KmsStoreStatus)>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store, as its status is concerned.
pub(super) trait HasStatus:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    const RESOURCE: &'static str;
    /// What the watch has seen; none where the kind is not watched.
    fn cache(context: &Context) -> Option<&Cache<Self>>;
    fn status(&self) -> Option<&KmsStoreStatus>;
    /// Whether any `KmsSecret` names it.
    fn is_used(&self, context: &Context) -> bool;
}

impl HasStatus for KmsStore {
    const RESOURCE: &'static str = "kmsstores/status";
    fn cache(context: &Context) -> Option<&Cache<Self>> {
        Some(&context.caches.stores)
    }
    fn status(&self) -> Option<&KmsStoreStatus> {
        self.status.as_ref()
    }
    fn is_used(&self, context: &Context) -> bool {
        !context.caches.users_of_store(self).is_empty()
    }
}

impl HasStatus for ClusterKmsStore {
    const RESOURCE: &'static str = "clusterkmsstores/status";
    fn cache(context: &Context) -> Option<&Cache<Self>> {
        Some(&context.caches.cluster.as_ref()?.stores)
    }
    fn status(&self) -> Option<&KmsStoreStatus> {
        self.status.as_ref()
    }
    fn is_used(&self, context: &Context) -> bool {
        !context.caches.users_of_cluster_store(self).is_empty()
    }
}

/// Looks at one store; everything that can go wrong ends in its status.
pub(super) async fn reconcile<K>(store: ObjectRef<K>, context: Arc<Context>) -> Again<Duration>
where
    K: HasStatus,
    for<'a> Store<'a>: From<&'a K>,
{
    let Some(store) = K::cache(&context).and_then(|cache| cache.get(&store)) else {
        return Again::Never;
    };
    let uid = store.uid().unwrap_or_default();
    // One replica looks after the status of each store, and besides it any that KMS told otherwise.
    let works = context.written.take_doubt(&uid);
    let may_write = works.is_some() && !context.shares.now().is_none();
    if !may_write && !context.shares.has(&uid) {
        return Again::Never;
    }
    let (told, version) = context.written.newest(&*store);
    let resolved = Store::from(&*store).resolve(&context).await;
    let by_reads = |resolved: &Resolved| {
        let (generation, store) = (store.meta().generation, &resolved.status);
        store_status::is_told_by_reads(&told, generation, store)
    };
    if works != Some(true) && resolved.as_ref().is_ok_and(by_reads) && store.is_used(&context) {
        // STS knows nothing of it: the next read that KMS answers ends it, in whatever replica.
        return Again::Never;
    }
    let found = match &resolved {
        Ok(resolved) => look(resolved, &told, &context).await,
        Err(failure) => Err(failure.clone()),
    };
    let now = (context.clock)();
    let seen = resolved.as_ref().ok().map(|resolved| &resolved.status);
    let new = store_status::after(&told, store.meta().generation, seen, &found, now);
    if new != told {
        match write(&*store, &version, &told, &new, &context).await {
            Ok(version) => {
                context.written.keep(&*store, version, new.clone());
                announce(&*store, &told, &found, &context).await;
            }
            // The watch shows what it is now, and names it again.
            Err(WriteError::Stale | WriteError::Gone) => return Again::Never,
            Err(WriteError::Failed(failure)) => {
                tracing::warn!(store = %store.name_any(), namespace = store.meta().namespace, "{}", failure.message());
                return Again::At(Duration::from_secs(5));
            }
        }
    }
    match found {
        Ok(Verified { identity: Some(_) }) => Again::Never,
        Ok(Verified { identity: None }) => Again::At(Duration::from_secs(300)),
        Err(failure) => Again::At(again_after(&failure, &new, now)),
    }
}

/// Whether the store's credentials work, and whose they are. Nothing is asked where the status tells it already.
async fn look(
    store: &Resolved,
    told: &KmsStoreStatus,
    context: &Context,
) -> Result<Verified, Failure> {
    let link = readers::link(store, context).await?;
    if let Some(error) = link.reader.broken() {
        return Err(Failure::of_kms(&error, "", &store.name));
    }
    if store_status::is_told(told, &store.status) && told.identity.is_some() {
        return Ok(Verified {
            identity: told.identity.clone(),
        });
    }
    match link.identify().await {
        Ok(arn) => Ok(Verified {
            identity: Some(arn),
        }),
        Err(error) => {
            let failure = Failure::of_sts(&error, &store.name);
            // KMS may be reached where STS is not: here, or where the status was written.
            let is_read =
                link.reader.glance().answered > 0 || store_status::is_told(told, &store.status);
            if failure.reason.is_transient() && is_read {
                Ok(Verified { identity: None })
            } else {
                Err(failure)
            }
        }
    }
}

/// As long again as it has been failing, within the bounds of its class.
fn again_after(failure: &Failure, status: &KmsStoreStatus, now: Timestamp) -> Duration {
    let (least, most) = failure.reason.retry().bounds();
    let failing = store_status::since(status).map_or(Duration::ZERO, |since| {
        Duration::try_from(now.duration_since(since)).unwrap_or_default()
    });
    // A store that is not looked at costs nobody a value: ten seconds are soon enough.
    failing.clamp(least.max(Duration::from_secs(10)), most)
}

async fn write<K: HasStatus>(
    store: &K,
    version: &str,
    told: &KmsStoreStatus,
    new: &KmsStoreStatus,
    context: &Context,
) -> Result<String, WriteError> {
    let to_json = |status| serde_json::to_value(status).unwrap_or_default();
    let patch = status::merge_patch(&to_json(told), &to_json(new));
    let cluster = &context.cluster;
    cluster
        .patch_store_status(store, K::RESOURCE, version, patch)
        .await
}

/// An Event on each change of fortune; none where a new store works.
async fn announce<K: HasStatus>(
    store: &K,
    told: &KmsStoreStatus,
    found: &Result<Verified, Failure>,
    context: &Context,
) {
    let was = store_status::ready(told);
    let (is_bad, reason, message) = match found {
        Ok(_) if was.is_some_and(|(value, _)| value == "False") => (
            false,
            store_status::AUTHENTICATED,
            "The credentials work again.".to_owned(),
        ),
        Err(failure) if was != Some(("False", failure.reason.as_str())) => {
            (true, failure.reason.as_str(), failure.message())
        }
        _ => return,
    };
    context
        .cluster
        .publish(&store.object_ref(&()), is_bad, reason, &message)
        .await;
}

/// A clock that is off by more is told: dates are corrected by 15 minutes at most.
const CLOCK_OFF: SignedDuration = SignedDuration::from_mins(1);

impl Context {
    /// An Event about a store whose KMS has another time than this node; one until the clocks agree again.
    pub(super) async fn tell_of_clock(&self, store: &Resolved) {
        let offset = self.kms.offset(&store.origin);
        let is_off = offset.abs() >= CLOCK_OFF;
        if !self.written.note_clock(&store.status.uid, is_off) {
            return;
        }
        let (minutes, way) = (
            offset.abs().as_mins(),
            if offset.is_negative() {
                "ahead of"
            } else {
                "behind"
            },
        );
        let message = format!(
            "The clock of the operator's node is {minutes} minutes {way} that of KMS. Dates of KMS are corrected by 15 minutes at most. Cluster administrator: set the clock of the node."
        );
        let labels = &store.labels;
        let about = ObjectReference {
            api_version: Some(KmsStore::api_version(&()).into_owned()),
            kind: Some(labels.kind.to_owned()),
            namespace: Some(labels.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(labels.name.clone()),
            uid: Some(store.status.uid.clone()),
            ..ObjectReference::default()
        };
        self.cluster
            .publish(&about, true, "ClockOff", &message)
            .await;
    }

    /// Has the store of `object` looked at, if its status tells something else than `works`.
    pub(super) fn doubt_store(&self, object: &KmsSecret, works: bool) {
        let name = &object.spec.store_ref.name;
        let tells = |status: Option<&KmsStoreStatus>| status.is_some_and(store_status::is_ready);
        match object.store_kind() {
            StoreKind::KmsStore => {
                let namespace = object.namespace().unwrap_or_default();
                let reference = ObjectRef::new(name).within(&namespace);
                let found = self.caches.stores.get(&reference);
                if let Some(store) = found.filter(|store| tells(store.status()) != works) {
                    self.written.doubt(store.uid().unwrap_or_default(), works);
                    self.stores.look_at(reference);
                }
            }
            StoreKind::ClusterKmsStore => {
                let reference = ObjectRef::new(name);
                let cluster = self.caches.cluster.as_ref();
                let found = cluster.and_then(|cluster| cluster.stores.get(&reference));
                if let Some(store) = found.filter(|store| tells(store.status()) != works) {
                    self.written.doubt(store.uid().unwrap_or_default(), works);
                    self.cluster_stores.look_at(reference);
                }
            }
        }
    }
}
