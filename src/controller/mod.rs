//! The loop: watches fill caches and name objects, the applier reconciles each of them once at a time.

mod gather;
mod kms_secret;
mod kms_store;
mod memory;
mod record;

use std::convert::Infallible;
use std::sync::Arc;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::{Config, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::alibaba::client::Client as KmsClient;
use crate::alibaba::endpoint::AllowedEndpoint;
use crate::api::{CREDENTIALS_LABEL, KmsSecret, KmsStore, MANAGED_LABEL, OWNER_ANNOTATION};
use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::sync::plan::Limits;
use memory::Memories;

/// Reconciles are many and cheap, and mostly wait: what is scarce has a gate of its own.
const CONCURRENCY: u16 = 1024;

/// Metadata of a Secret.
type SecretMeta = PartialObjectMeta<Secret>;
type Request = Result<ReconcileRequest<KmsSecret>, Infallible>;

/// What every loop shares.
pub struct Shared {
    /// The API server.
    pub cluster: Cluster,
    /// KMS.
    pub kms: Arc<KmsClient>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The one clock.
    pub clock: fn() -> Timestamp,
    /// When this process began.
    pub started: Timestamp,
    /// What the operator was told to allow.
    pub limits: Limits,
    /// Endpoints outside aliyuncs.com that stores may name.
    pub allowed_endpoints: Vec<AllowedEndpoint>,
}

/// One loop: over all namespaces, or over one.
pub struct Context {
    shared: Arc<Shared>,
    caches: Caches,
    memories: Memories,
    readers: kms_store::Readers,
}

impl std::ops::Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// What the watches have seen, trimmed to what is looked at.
struct Caches {
    kms_secrets: Store<KmsSecret>,
    stores: Store<KmsStore>,
    targets: Store<SecretMeta>,
    credentials: Store<SecretMeta>,
}

impl Caches {
    /// Waits until every cache is filled: half a picture looks like missing targets.
    async fn filled(&self) {
        // A writer lives as long as its watch, which lives as long as the loop: an error is the end of both.
        let _ = futures::join!(
            self.kms_secrets.wait_until_ready(),
            self.stores.wait_until_ready(),
            self.targets.wait_until_ready(),
            self.credentials.wait_until_ready(),
        );
    }

    fn all(&self) -> Vec<ObjectRef<KmsSecret>> {
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

    fn users_of_store(&self, store: &KmsStore) -> Vec<ObjectRef<KmsSecret>> {
        let name = store.name_any();
        self.users(|object| {
            object.namespace() == store.namespace() && object.spec.store_ref.name == name
        })
    }

    fn users_of_credentials(&self, secret: &SecretMeta) -> Vec<ObjectRef<KmsSecret>> {
        let stores = self.stores.state_filter(|store| {
            store.namespace() == secret.namespace()
                && kms_store::secret_name(store).is_some_and(|name| name == secret.name_any())
        });
        stores
            .iter()
            .flat_map(|store| self.users_of_store(store))
            .collect()
    }
}

/// Runs until `stop` ends, and then until what is under way is done. Calls `ready` once the caches are filled.
///
/// Without a namespace it looks at all of them, which needs a `ClusterRole`.
pub async fn run(
    shared: Arc<Shared>,
    namespace: Option<&str>,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) {
    let client = shared.cluster.client();
    let (kms_secrets, kms_secrets_writer) = store();
    let (stores, stores_writer) = store();
    let (targets, targets_writer) = store();
    let (credentials, credentials_writer) = store();
    let context = Arc::new(Context {
        shared,
        caches: Caches {
            kms_secrets: kms_secrets.clone(),
            stores,
            targets,
            credentials,
        },
        memories: Memories::default(),
        readers: kms_store::Readers::default(),
    });
    let (queue, requests) = unbounded::<Request>();
    let managed = format!("{MANAGED_LABEL}=true");
    let consenting = format!("{CREDENTIALS_LABEL}=true");
    let watches = [
        drive(
            "kmssecrets",
            guarded(watch(&client, namespace, ""), trim_kms_secret),
            kms_secrets_writer,
            Watch {
                context: Arc::clone(&context),
                queue: queue.clone(),
                wakes: wakes_itself,
            },
        ),
        drive(
            "kmsstores",
            guarded(watch(&client, namespace, ""), |store: &mut KmsStore| {
                trim(&mut store.metadata);
            }),
            stores_writer,
            Watch {
                context: Arc::clone(&context),
                queue: queue.clone(),
                wakes: |context, store| context.caches.users_of_store(store),
            },
        ),
        drive(
            "secrets",
            watch(&client, namespace, &managed)
                .modify(|secret: &mut SecretMeta| trim(&mut secret.metadata)),
            targets_writer,
            Watch {
                context: Arc::clone(&context),
                queue: queue.clone(),
                wakes: wakes_of_target,
            },
        ),
        drive(
            "secrets",
            watch(&client, namespace, &consenting)
                .modify(|secret: &mut SecretMeta| trim(&mut secret.metadata)),
            credentials_writer,
            Watch {
                context: Arc::clone(&context),
                queue: queue.clone(),
                wakes: |context, secret| context.caches.users_of_credentials(secret),
            },
        ),
    ];
    drop(queue);
    let filling = async {
        context.caches.filled().await;
        ready();
    };
    let config = Config::default().concurrency(CONCURRENCY);
    let loop_ = applier(
        |object, context| Box::pin(kms_secret::reconcile(object, context)),
        |_, never: &Infallible, _| match *never {},
        Arc::clone(&context),
        kms_secrets,
        requests.take_until(stop),
        config,
    )
    .for_each(|result| async move {
        match result {
            Ok((object, action)) => tracing::trace!(%object, ?action, "reconciled"),
            // An object that is gone by the time it is looked at.
            Err(err) => tracing::debug!(error = %err, "not reconciled"),
        }
    });
    // The watches run in tasks of their own: a reconcile waits for them, so they must not wait for reconciles.
    let tasks = watches.map(tokio::spawn);
    futures::join!(filling, loop_);
    for task in tasks {
        task.abort();
    }
}

/// A watch of one kind, in all namespaces or in one.
fn watch<K>(
    client: &Client,
    namespace: Option<&str>,
    labels: &str,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let config = watcher::Config::default().any_semantic().labels(labels);
    let api = match namespace {
        None => Api::<K>::all(client.clone()),
        Some(namespace) => Api::<K>::namespaced(client.clone(), namespace),
    };
    watcher(api, config).default_backoff()
}

/// Drops objects that this version of the types can't read, so that one of them does not stop the watch of all.
fn guarded<K: Resource<DynamicType = ()> + Send>(
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>> + Send,
    trim: fn(&mut K),
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    let read = move |DeserializeGuard(read): DeserializeGuard<K>| match read {
        Ok(mut object) => {
            trim(&mut object);
            Some(object)
        }
        Err(invalid) => {
            let (namespace, name) = (&invalid.metadata.namespace, &invalid.metadata.name);
            tracing::warn!(?namespace, ?name, kind = %K::kind(&()), error = %invalid.error, "this version of the operator cannot read the object");
            None
        }
    };
    events.filter_map(move |event| {
        std::future::ready(match event {
            Ok(Event::Apply(object)) => read(object).map(|object| Ok(Event::Apply(object))),
            Ok(Event::InitApply(object)) => read(object).map(|object| Ok(Event::InitApply(object))),
            Ok(Event::Delete(object)) => read(object).map(|object| Ok(Event::Delete(object))),
            Ok(Event::Init) => Some(Ok(Event::Init)),
            Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
            Err(err) => Some(Err(err)),
        })
    })
}

/// Whom a watch wakes.
struct Watch<K> {
    context: Arc<Context>,
    queue: UnboundedSender<Request>,
    wakes: fn(&Context, &K) -> Vec<ObjectRef<KmsSecret>>,
}

/// Keeps a cache and names the objects that an event is about. After a new list, that is all of them: what vanished
/// while nobody watched has no event.
fn drive<K>(
    resource: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    writer: kube::runtime::reflector::store::Writer<K>,
    watch: Watch<K>,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let Watch {
        context,
        queue,
        wakes,
    } = watch;
    Box::pin(events.reflect(writer).for_each(move |event| {
        let woken = match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => wakes(&context, &object),
            Ok(Event::InitDone) => context.caches.all(),
            Ok(Event::Init | Event::InitApply(_)) => Vec::new(),
            Err(err) => {
                context.metrics.count_watch_error(resource);
                tracing::warn!(resource, error = %err, "a watch broke; it is begun anew");
                Vec::new()
            }
        };
        for object in woken {
            // Nobody listens any more: we are stopping.
            let _ = queue.unbounded_send(Ok(object.into()));
        }
        std::future::ready(())
    }))
}

fn wakes_itself(context: &Context, object: &KmsSecret) -> Vec<ObjectRef<KmsSecret>> {
    let reference = ObjectRef::from_obj(object);
    if context.caches.kms_secrets.get(&reference).is_none() {
        context.memories.forget(object);
    }
    vec![reference]
}

/// The `KmsSecret` that a target is marked with, and those that wait for the target's name to be free.
fn wakes_of_target(context: &Context, secret: &SecretMeta) -> Vec<ObjectRef<KmsSecret>> {
    let namespace = secret.namespace().unwrap_or_default();
    let controllers = secret
        .owner_references()
        .iter()
        .filter(|owner| owner.kind == KmsSecret::kind(&()));
    let annotated = secret.annotations().get(OWNER_ANNOTATION).into_iter();
    let names = controllers.map(|owner| &owner.name).chain(annotated);
    let mut woken: Vec<_> = names
        .map(|name| ObjectRef::new(name).within(&namespace))
        .collect();
    woken.extend(context.memories.waiting_for(&namespace, &secret.name_any()));
    woken.dedup();
    woken
}

/// Drops what nobody looks at.
fn trim(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| key.starts_with(crate::api::GROUP));
    }
}

fn trim_kms_secret(object: &mut KmsSecret) {
    trim(&mut object.metadata);
    object.metadata.labels = None;
}
