//! The loop: watches fill caches and name objects, the applier reconciles each of them once at a time.

mod access_key;
mod ca_bundle;
mod caches;
mod check;
mod clock;
mod gather;
mod hints;
mod identity;
mod kms_secret;
mod known;
mod memory;
mod queue;
mod read;
mod readers;
mod record;
mod remove;
mod rollout;
mod shares;
mod shown;
mod store;
mod store_status;
mod target_meta;
mod watches;
mod work;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::alibaba::client::Client as KmsClient;
use crate::alibaba::endpoint::AllowedEndpoint;
use crate::alibaba::environment::Environment;
use crate::alibaba::metadata::Metadata;
use crate::alibaba::sts::Sts;
use crate::api::{ClusterKmsStore, KmsSecret, KmsStore};
use crate::cluster::Cluster;
use crate::health::Pulses;
use crate::members::Shares;
use crate::metrics::{Metrics, Sight};
use crate::sync::spec::Limits;
use caches::{Caches, Stores};
pub use check::{Checked, check};
pub use hints::Hints;
use memory::{Memories, Memory};
use work::Work;

/// Reconciles under way: many, since each is cheap and mostly waits, and what is scarce has a gate of its own. A
/// namespace alone has 1,152 of them: of the more objects that wait together, the more share a read, but each takes some
/// 14 KiB.
const PLACES: usize = 1536;
/// Looks at stores of a kind under way: each waits for STS.
const STORE_PLACES: usize = 64;

/// What every loop shares.
pub struct Shared {
    /// The API server.
    pub cluster: Cluster,
    /// KMS.
    pub kms: Arc<KmsClient>,
    /// STS, with the pace that all stores share.
    pub sts: Arc<Sts>,
    /// The metadata service of the node.
    pub metadata: Arc<Metadata>,
    /// The operator's own identity.
    pub environment: Environment,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the loops go on.
    pub pulses: Pulses,
    /// The one clock.
    pub clock: fn() -> Timestamp,
    /// What the operator was told to allow.
    pub limits: Limits,
    /// Endpoints outside aliyuncs.com that stores may name.
    pub allowed_endpoints: Vec<AllowedEndpoint>,
    /// Room for shaping that takes long: templates are code that tenants write.
    pub shapers: Semaphore,
    /// What KMS tells of changes.
    pub hints: Hints,
    /// What of the work is this replica's.
    pub shares: Shares,
}

/// One loop: over all namespaces, or over one.
pub struct Context {
    shared: Arc<Shared>,
    /// When the API server was put back to a backup, if this loop began for it.
    restored: Option<Timestamp>,
    caches: Caches,
    memories: Memories,
    readers: readers::Readers,
    objects: Work<KmsSecret>,
    /// Stores whose status is to be looked at.
    stores: Work<KmsStore>,
    cluster_stores: Work<ClusterKmsStore>,
    written: store_status::Written,
}

impl Context {
    fn new(shared: Arc<Shared>, restored: Option<Timestamp>, caches: Caches) -> Self {
        Self {
            shared,
            restored,
            caches,
            memories: Memories::default(),
            readers: readers::Readers::default(),
            objects: Work::new(PLACES),
            stores: Work::new(STORE_PLACES),
            cluster_stores: Work::new(STORE_PLACES),
            written: store_status::Written::default(),
        }
    }

    /// Puts the memory of an object back; of one that is gone or another replica's meanwhile, nothing is kept.
    fn keep(&self, object: &KmsSecret, memory: Box<Memory>) {
        let cached = self.caches.kms_secrets.get(&ObjectRef::from_obj(object));
        let is_there = cached.is_some_and(|cached| cached.uid() == object.uid());
        if is_there && self.is_ours(object) {
            self.memories.keep(object, memory);
        } else {
            self.memories.forget(object);
        }
    }

    /// Has some stores looked at; answers who uses them.
    fn look_at(&self, stores: &Stores) -> Vec<ObjectRef<KmsSecret>> {
        for store in &stores.of_namespaces {
            self.stores.look_at(ObjectRef::from_obj(&**store));
        }
        for store in &stores.of_cluster {
            self.cluster_stores.look_at(ObjectRef::from_obj(&**store));
        }
        self.caches.users_of(stores)
    }

    /// Drops what is remembered of objects and stores that are gone; after a new list, since those have no event.
    fn prune(&self) {
        let objects = self.caches.kms_secrets.state();
        let uids: HashSet<_> = objects.iter().filter_map(|object| object.uid()).collect();
        self.memories.retain(|uid| uids.contains(uid));
        let stores = self.caches.all_stores();
        let of_namespaces = stores.of_namespaces.iter().filter_map(|store| store.uid());
        let of_cluster = stores.of_cluster.iter().filter_map(|store| store.uid());
        let stores: HashSet<_> = of_namespaces.chain(of_cluster).collect();
        self.readers.retain(|uid| stores.contains(uid));
        self.written.retain(|uid| stores.contains(uid));
    }
}

impl std::ops::Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// Runs until `stop` ends, and then until what is under way is done. Calls `ready` when the caches are filled; works from
/// then on, on what is this replica's.
///
/// Without a namespace it looks at all of them, which needs a `ClusterRole`.
///
/// What caches and memories hold is compared by versions that count up and by times that go on. Where either was put
/// back, all of that is dropped: what is done after a start is right then too.
pub async fn run(
    shared: Arc<Shared>,
    namespaces: &[String],
    ready: impl Fn(),
    mut put_back: watch::Receiver<()>,
    stop: impl Future<Output = ()>,
) {
    let stop = stop.shared();
    let loops = loops(namespaces);
    let mut restored = None;
    loop {
        let unfilled = AtomicUsize::new(loops.len());
        let is_full = || {
            if unfilled.fetch_sub(1, Ordering::Relaxed) == 1 {
                ready();
            }
        };
        let running = loops.iter().map(|namespace| {
            let shared = Arc::clone(&shared);
            go_round(shared, restored, *namespace, is_full, stop.clone())
        });
        let upset = tokio::select! {
            _ = join_all(running) => return,
            Ok(()) = put_back.changed() => {
                restored = Some((shared.clock)());
                "the API server was put back to a backup"
            }
            () = clock::step(shared.clock) => {
                restored = None;
                "the clock was set, or the machine slept"
            }
        };
        tracing::warn!("{upset}; everything is looked at anew, as after a start");
        shared.kms.forget_clocks();
    }
}

/// One loop over all namespaces, or one for each that is named.
fn loops(namespaces: &[String]) -> BTreeSet<Option<&str>> {
    if namespaces.is_empty() {
        return [None].into();
    }
    let named = namespaces.iter().map(String::as_str);
    named.map(Some).collect()
}

/// One loop, until `stop` ends, and then until what is under way is done.
async fn go_round(
    shared: Arc<Shared>,
    restored: Option<Timestamp>,
    namespace: Option<&str>,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) {
    let (caches, writers) = caches::empty(namespace.is_none());
    let context = Arc::new(Context::new(shared, restored, caches));
    let weak = Arc::downgrade(&context);
    context.metrics.watch_loop(move || {
        let context = weak.upgrade();
        context.map_or_else(Sight::default, |context| context.sight())
    });
    let watches = watches::open(&context, namespace, writers);
    let stop = stop.shared();
    let filling = async {
        tokio::select! {
            () = context.caches.filled() => ready(),
            () = stop.clone() => {}
        }
    };
    let working = async {
        futures::join!(
            filling,
            context
                .objects
                .run(context.caches.filled(), stop.clone(), |object| {
                    kms_secret::reconcile(object, Arc::clone(&context))
                }),
            context
                .stores
                .run(context.caches.filled(), stop.clone(), |store| {
                    store_status::reconcile(store, Arc::clone(&context))
                }),
            context
                .cluster_stores
                .run(context.caches.filled(), stop.clone(), |store| {
                    store_status::reconcile(store, Arc::clone(&context))
                }),
        );
    };
    // The watches run in tasks of their own: a reconcile waits for them, so they must not wait for reconciles.
    let _watching: JoinSet<()> = watches.into_iter().collect();
    tokio::select! {
        () = working => {}
        () = context.beat(namespace) => {}
    }
}
