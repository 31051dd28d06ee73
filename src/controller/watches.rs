//! The watches: they fill the caches and name the objects to look at.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, ObjectRef, Store, reflector};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::Context;
use super::caches::{NamespaceMeta, SecretMeta, Writers};
use super::target_meta::TargetMeta;
use super::{hints, shares};
use crate::api::{
    CA_BUNDLE_LABEL, CREDENTIALS_LABEL, ClusterKmsStore, KmsSecret, KmsStore, MANAGED_LABEL,
};

/// The watches, to be run.
pub(super) fn open(
    context: &Arc<Context>,
    namespace: Option<&str>,
    writers: Writers,
) -> Vec<BoxFuture<'static, ()>> {
    let (client, caches) = (context.cluster.client(), &context.caches);
    let waking = Waking(Arc::clone(context));
    let secrets = |label: &str| {
        let labelled = format!("{label}=true");
        watch::<SecretMeta>(scoped(&client, namespace), &labelled)
    };
    let mut watches = vec![
        waking.drive(
            "kmssecrets",
            guarded(
                watch(scoped(&client, namespace), ""),
                caches.kms_secrets.clone(),
                trim_kms_secret,
            ),
            writers.kms_secrets,
            wakes_itself,
        ),
        waking.drive(
            "kmsstores",
            guarded(
                watch(scoped(&client, namespace), ""),
                caches.stores.clone(),
                |store: &mut KmsStore| trim(&mut store.metadata),
            ),
            writers.stores,
            wakes_of_store,
        ),
        waking.drive(
            "secrets",
            secrets(MANAGED_LABEL).map_ok(in_little_room),
            writers.targets,
            wakes_of_target,
        ),
        waking.drive(
            "secrets",
            secrets(CREDENTIALS_LABEL).modify(|secret: &mut SecretMeta| trim(&mut secret.metadata)),
            writers.credentials,
            wakes_of_credentials,
        ),
        waking.drive(
            "configmaps",
            watch(
                scoped(&client, namespace),
                &format!("{CA_BUNDLE_LABEL}=true"),
            )
            .modify(trim_ca_bundle),
            writers.ca_bundles,
            |context, bundle| context.look_at(&context.caches.stores_of_ca_bundle(bundle)),
        ),
    ];
    if let (Some((stores, namespaces)), Some(cluster)) = (writers.cluster, &caches.cluster) {
        watches.push(waking.drive(
            "clusterkmsstores",
            guarded(
                watch(Api::all(client.clone()), ""),
                cluster.stores.clone(),
                |store: &mut ClusterKmsStore| trim(&mut store.metadata),
            ),
            stores,
            wakes_of_cluster_store,
        ));
        watches.push(
            waking.drive(
                "namespaces",
                watch(Api::all(client.clone()), "")
                    .modify(|space: &mut NamespaceMeta| trim(&mut space.metadata)),
                namespaces,
                |context, namespace| context.caches.users_in(namespace),
            ),
        );
    }
    watches.push(shares::follow(Arc::clone(context)).boxed());
    let told = context.hints.listen();
    watches.push(hints::follow(Arc::clone(context), told).boxed());
    watches
}

/// The objects of a kind in all namespaces or in one.
fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        None => Api::all(client.clone()),
        Some(namespace) => Api::namespaced(client.clone(), namespace),
    }
}

/// A watch that is begun anew when it breaks.
fn watch<K>(
    api: Api<K>,
    labels: &str,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().any_semantic().labels(labels);
    watcher(api, config).default_backoff()
}

/// Drops objects that this version of the types can't read, so that one of them does not stop the watch of all. To us it
/// is gone: what it was before must not be acted on.
fn guarded<K>(
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>> + Send,
    cache: Store<K>,
    trim: fn(&mut K),
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync,
{
    let read = move |DeserializeGuard(read): DeserializeGuard<K>| match read {
        Ok(mut object) => {
            trim(&mut object);
            Ok(object)
        }
        Err(invalid) => {
            let (namespace, name) = (
                invalid.metadata.namespace.unwrap_or_default(),
                invalid.metadata.name.unwrap_or_default(),
            );
            tracing::warn!(namespace, name, kind = %K::kind(&()), "this version of the operator cannot read the object");
            let known = cache
                .get(&ObjectRef::new(&name).within(&namespace))
                .or_else(|| cache.get(&ObjectRef::new(&name)));
            Err(known.map(|known| Event::Delete((*known).clone())))
        }
    };
    events.filter_map(move |event| {
        std::future::ready(match event {
            Ok(Event::Apply(object)) => read(object)
                .map_or_else(|gone| gone, |object| Some(Event::Apply(object)))
                .map(Ok),
            Ok(Event::Delete(object)) => read(object)
                .map_or_else(|gone| gone, |object| Some(Event::Delete(object)))
                .map(Ok),
            Ok(Event::InitApply(object)) => {
                read(object).ok().map(|object| Ok(Event::InitApply(object)))
            }
            Ok(Event::Init) => Some(Ok(Event::Init)),
            Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
            Err(err) => Some(Err(err)),
        })
    })
}

/// Names the objects that a watch wakes.
struct Waking(Arc<Context>);

impl Waking {
    /// Keeps a cache and wakes the objects that an event is about. After a new list, that is all of them: what vanished
    /// while nobody watched has no event.
    fn drive<K>(
        &self,
        resource: &'static str,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        writer: Writer<K>,
        wakes: fn(&Context, &K) -> Vec<ObjectRef<KmsSecret>>,
    ) -> BoxFuture<'static, ()>
    where
        K: Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
    {
        let context = Arc::clone(&self.0);
        context.metrics.expect_watch(resource);
        let awake = move |event: watcher::Result<Event<K>>| {
            let woken = match event {
                Ok(Event::Apply(object) | Event::Delete(object)) => wakes(&context, &object),
                Ok(Event::InitDone) => {
                    context.prune();
                    context.note_leftovers();
                    context.look_at(&context.caches.all_stores());
                    context.caches.all()
                }
                Ok(Event::Init | Event::InitApply(_)) => Vec::new(),
                Err(err) => {
                    context.metrics.count_watch_error(resource);
                    tracing::warn!(
                        resource,
                        kind = watch_error(&err),
                        "a watch broke; it is begun anew"
                    );
                    Vec::new()
                }
            };
            for object in woken {
                context.objects.look_at(object);
            }
            std::future::ready(())
        };
        reflector(writer, events).for_each(awake).boxed()
    }
}

/// What broke a watch, without the text: it can quote what could not be read.
fn watch_error(err: &watcher::Error) -> String {
    match err {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => {
            format!("HTTP {} {}", status.code, status.reason)
        }
        watcher::Error::WatchError(status) => format!("HTTP {} {}", status.code, status.reason),
        watcher::Error::NoResourceVersion => "no resourceVersion".into(),
        _ => "no answer that could be read".into(),
    }
}

fn wakes_itself(context: &Context, object: &KmsSecret) -> Vec<ObjectRef<KmsSecret>> {
    let reference = ObjectRef::from_obj(object);
    if context.caches.kms_secrets.get(&reference).is_none() {
        context.memories.forget(object);
    }
    vec![reference]
}

fn wakes_of_store(context: &Context, store: &KmsStore) -> Vec<ObjectRef<KmsSecret>> {
    context.prune();
    context.stores.look_at(ObjectRef::from_obj(store));
    context.caches.users_of_store(store)
}

fn wakes_of_cluster_store(context: &Context, store: &ClusterKmsStore) -> Vec<ObjectRef<KmsSecret>> {
    context.prune();
    context.cluster_stores.look_at(ObjectRef::from_obj(store));
    context.caches.users_of_cluster_store(store)
}

fn wakes_of_credentials(context: &Context, secret: &SecretMeta) -> Vec<ObjectRef<KmsSecret>> {
    if context
        .caches
        .credentials
        .get(&ObjectRef::from_obj(secret))
        .is_none()
    {
        // Gone, or its consent was withdrawn: nothing of it is kept.
        context.readers.forget_credentials(secret);
    }
    context.look_at(&context.caches.stores_of_credentials(secret))
}

/// The `KmsSecret` that a target is marked with, and those that wait for the target's name to be free.
fn wakes_of_target(context: &Context, secret: &TargetMeta) -> Vec<ObjectRef<KmsSecret>> {
    let (namespace, name) = (secret.namespace(), secret.name());
    let reference = ObjectRef::new(name).within(namespace);
    if context.caches.targets.get(&reference).is_some() {
        context.note_leftover(secret);
    }
    let mut woken: Vec<_> = secret.marked_for().collect();
    woken.extend(context.memories.waiting_for(namespace, name));
    woken.dedup();
    woken
}

/// Drops what nobody looks at.
fn trim(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    let mut ours = metadata.annotations.take().unwrap_or_default();
    ours.retain(|key, _| key.starts_with(crate::api::GROUP));
    // A map that became empty keeps its room.
    metadata.annotations = (!ours.is_empty()).then_some(ours);
}

fn in_little_room(event: Event<SecretMeta>) -> Event<TargetMeta> {
    match event {
        Event::Apply(secret) => Event::Apply(secret.into()),
        Event::Delete(secret) => Event::Delete(secret.into()),
        Event::InitApply(secret) => Event::InitApply(secret.into()),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

fn trim_ca_bundle(bundle: &mut ConfigMap) {
    trim(&mut bundle.metadata);
    bundle.binary_data = None;
}

fn trim_kms_secret(object: &mut KmsSecret) {
    trim(&mut object.metadata);
    object.metadata.labels = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{Request, Response};
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_falls_silent_is_begun_anew_within_five_minutes() {
        let watches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&watches);
        let answer = move |request: Request<kube::client::Body>| {
            let is_watch = request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch="));
            let body = if is_watch {
                counted.fetch_add(1, Ordering::Relaxed);
                Body::from_stream(futures::stream::pending::<Result<String, Infallible>>())
            } else {
                Body::from(r#"{"metadata": {"resourceVersion": "7"}, "items": []}"#)
            };
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        };
        let client = Client::new(tower::service_fn(answer), "shop");
        let events = watch::<ConfigMap>(Api::all(client), "").for_each(|event| {
            assert!(event.is_ok());
            std::future::ready(())
        });
        let _ = tokio::time::timeout(Duration::from_mins(5), events).await;
        assert_eq!(watches.load(Ordering::Relaxed), 2);
    }
}
