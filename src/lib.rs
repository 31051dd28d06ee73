//! Keeps native Kubernetes Secrets equal to secrets in Alibaba Cloud KMS Secrets Manager.
//!
//! The floors, from the top; imports go down only (`tests/it/floors.rs` holds it):
//!
//! - the shell parses and wires up: this file, [`config`], [`telemetry`], [`admin`], [`events`];
//! - [`controller`] gathers, plans, acts and records;
//! - [`plugin`] is what people ask of KmsSecrets at a command line;
//! - [`members`] finds out, by Leases, which part of the work is this replica's;
//! - [`cluster`] does the I/O with the API server, [`alibaba::client`] and what is built on it (as [`alibaba::reader`] and
//!   [`alibaba::credentials`]) that with the cloud, [`metrics`] counts, [`health`] knows whether all of it goes on;
//! - [`sync`], [`convert`], [`api`] and the rest of [`alibaba`] are pure.

pub mod admin;
pub mod alibaba;
pub mod api;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod convert;
pub mod events;
pub mod health;
pub mod members;
pub mod metrics;
pub mod plugin;
pub mod sync;
pub mod telemetry;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::{conditions, wait::await_condition};
use kube::{Api, Client, CustomResourceExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use alibaba::client::Client as KmsClient;
use alibaba::metadata::Metadata;
use alibaba::sts::Sts;
use cluster::Cluster;
use config::{Check, Reach, Run};
use controller::{Checked, Hints, Shared};
use health::Pulses;
use members::Shares;
use metrics::Metrics;
use plugin::{Access, Asked, Force, Report, Status};
use sync::share::group;
use sync::spec::Limits;

/// The `CustomResourceDefinitions` must be there by then.
const CRD_DEADLINE: Duration = Duration::from_secs(30);
/// What is under way when we stop has so long to end...
const DRAIN: Duration = Duration::from_secs(10);
/// ...but not as long where another replica waits to do it.
const HANDOVER: Duration = Duration::from_secs(2);
/// To give up the Lease takes no longer.
const LEAVE: Duration = Duration::from_secs(5);

/// Why the operator can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no cluster to talk to.
    #[error("no access to a cluster: set KUBECONFIG, or run in a pod with a ServiceAccount")]
    NoCluster(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The CRDs are missing.
    #[error(
        "the CustomResourceDefinition {0} is not there: run `kms-secret-operator crds | kubectl apply -f -`"
    )]
    NoDefinition(String),
    /// The API server does not answer, or does not let us read the CRDs.
    #[error(
        "the API server did not tell of the CustomResourceDefinitions within 30 s: check the address in KUBECONFIG, and that the operator may get customresourcedefinitions"
    )]
    Unreachable,
    /// What is to be checked can't be read.
    #[error("the KmsSecrets of namespace {0:?}, or what they name, cannot be read")]
    Unreadable(String, #[source] kube::Error),
    /// The TLS back end can't be set up.
    #[error("the HTTP client for KMS cannot be made")]
    Tls(#[source] reqwest::Error),
    /// The address is taken, or not ours.
    #[error("cannot listen on {0} ({1})")]
    Listen(SocketAddr, &'static str, #[source] std::io::Error),
    /// The receiver of events does not know whom to let in.
    #[error("notices of KMS cannot be received")]
    Events(#[source] events::Error),
    /// It can't share the work.
    #[error("the replica cannot take part in the work")]
    Members(#[source] members::Error),
}

/// What the operator is reached at.
pub struct Listeners {
    /// For `--admin-listen`.
    pub admin: TcpListener,
    /// For `--event-listen`.
    pub events: Option<TcpListener>,
}

impl Listeners {
    async fn bind(run: &Run) -> Result<Self, Error> {
        let events = match run.events.event_listen {
            Some(address) => Some(bind(address, "--event-listen").await?),
            None => None,
        };
        Ok(Self {
            admin: bind(run.admin_listen, "--admin-listen").await?,
            events,
        })
    }
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|err| Error::Listen(address, flag, err))
}

/// The one clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock; everything below takes it as an argument"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

/// The `CustomResourceDefinitions` as a YAML stream.
///
/// # Errors
/// The types can't be written as YAML, which a test rules out.
pub fn crds_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut yaml = String::new();
    for crd in api::definitions() {
        yaml.push_str("---\n");
        yaml.push_str(&serde_saphyr::to_string(&crd)?);
    }
    Ok(yaml)
}

/// Connects to the cluster that the flags name: by default that of KUBECONFIG, or the one that this pod runs in.
///
/// # Errors
/// [`Error::NoCluster`].
pub async fn connect(access: &Access) -> Result<Client, Error> {
    access.connect().await.map_err(Error::NoCluster)
}

/// Runs the operator until `stop` ends, and then until what is under way is done.
///
/// # Errors
/// It could not start.
pub async fn run(run: Run, client: Client, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let listeners = Listeners::bind(&run).await?;
    serve(run, client, listeners, stop).await
}

/// Runs the operator with listeners that are already bound.
///
/// # Errors
/// It could not start.
pub async fn serve(
    run: Run,
    client: Client,
    listeners: Listeners,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::new(run.object_metrics));
    let pulses = Pulses::default();
    let ready = Arc::new(AtomicBool::new(false));
    let (stopping, stopped) = watch::channel(false);
    let identity = run.replica.identity(
        &uuid::Uuid::new_v4().to_string(),
        client.default_namespace(),
        group(&run.namespace),
    );
    let (put_back, was_put_back) = watch::channel(());
    let (members, shares) = members::open(
        identity,
        client.clone(),
        Arc::clone(&metrics),
        pulses.clone(),
        now,
        put_back,
    );
    let (hints, told) = Hints::new();
    let limits = Limits {
        interval_min: run.min_refresh_interval,
        target_types: run.target_types(),
        denied_metadata: run.deny_target_metadata.clone(),
        gone_after: run.gone_after,
    };
    let common = shared(
        &run.reach,
        limits,
        client.clone(),
        Arc::clone(&metrics),
        pulses.clone(),
        hints.clone(),
        shares.clone(),
    )?;
    let pass = {
        let hints = hints.clone();
        move |notices| hints.pass(notices)
    };
    let events = receiver(&run, listeners.events, hints, &metrics, &ready)?;
    let admin = admin::Admin {
        metrics,
        pulses,
        ready: Arc::clone(&ready),
        stopping: stopped.clone(),
    };
    // Ended with this function, however that ends.
    let _servers = servers(listeners.admin, admin, events, &stopped);
    let (filled, is_filled) = watch::channel(false);
    let (leaving, left) = watch::channel(false);
    let mut membership = JoinSet::new();
    membership.spawn(members.run(until_true(is_filled), told, pass, until_true(left)));
    let work = async {
        tokio::select! {
            answered = await_definitions(&client, &run) => answered?,
            () = until_true(stopped.clone()) => return Ok(()),
        }
        controller::run(
            common,
            &run.namespace,
            || _ = filled.send_replace(true),
            was_put_back,
            until_true(stopped.clone()),
        )
        .await;
        Ok(())
    };
    let drain = async {
        stop.await;
        tracing::info!("stopping");
        stopping.send_replace(true);
        let patience = if shares.now().members() > 1 {
            HANDOVER
        } else {
            DRAIN
        };
        tokio::time::sleep(patience).await;
        tracing::warn!(
            "what was under way took too long and is abandoned; a fenced write cannot do harm"
        );
    };
    let result = tokio::select! {
        result = work => result,
        Some(Ok(Err(lost))) = membership.join_next() => Err(Error::Members(lost)),
        () = tell_ready(shares.clone(), &ready) => Ok(()),
        () = drain => Ok(()),
    };
    stopping.send_replace(true);
    leaving.send_replace(true);
    let _ = tokio::time::timeout(LEAVE, membership.join_next()).await;
    result
}

/// The receiver of events and where it listens, if it does.
fn receiver(
    run: &Run,
    listener: Option<TcpListener>,
    hints: Hints,
    metrics: &Arc<Metrics>,
    ready: &Arc<AtomicBool>,
) -> Result<Option<(events::Receiver, TcpListener)>, Error> {
    let Some(listener) = listener else {
        return Ok(None);
    };
    let (metrics, ready) = (Arc::clone(metrics), Arc::clone(ready));
    let receiver = events::Receiver::new(&run.events, hints, metrics, ready, now);
    let receiver = receiver.map_err(Error::Events)?;
    Ok(Some((receiver, listener)))
}

/// Whatever is asked from outside, each in a task of its own.
fn servers(
    listener: TcpListener,
    admin: admin::Admin,
    events: Option<(events::Receiver, TcpListener)>,
    stopped: &watch::Receiver<bool>,
) -> JoinSet<std::io::Result<()>> {
    let mut servers = JoinSet::new();
    servers.spawn(beat(admin.pulses.clone()));
    // To the very end: it tells that the operator is stopping.
    servers.spawn(admin::serve(listener, admin));
    if let Some((receiver, listener)) = events {
        let serving = receiver.serve(listener, until_true(stopped.clone()));
        servers.spawn(async move {
            serving.await;
            Ok(())
        });
    }
    servers
}

/// Beats for the runtime: that it still gives tasks their turn, and timers their time.
async fn beat(pulses: Pulses) -> std::io::Result<()> {
    let began = tokio::time::Instant::now().into_std();
    let heart = pulses.begin("the runtime".into(), health::BOUND, began);
    heart.keep_beating(|| true).await;
    Ok(())
}

/// Waits until it is true. An error means that the sender is gone, which is as good.
async fn until_true(mut told: watch::Receiver<bool>) {
    let _ = told.wait_for(|is_true| *is_true).await;
}

/// Tells whether this replica takes part in the work, for ever: not before the caches are filled, nor without a Lease.
async fn tell_ready(mut shares: Shares, ready: &AtomicBool) {
    loop {
        let is_ready = !shares.changed().await.is_none();
        if ready.swap(is_ready, Ordering::Relaxed) != is_ready {
            tracing::info!("{}", if is_ready { "ready" } else { "not ready" });
        }
    }
}

/// Looks how KmsSecrets stand; answers that and how it is printed.
///
/// # Errors
/// The API server does not let us read them.
pub async fn status(flags: &Status, client: Client) -> Result<(Report, String), plugin::Error> {
    let now = now();
    let report = plugin::status::look(flags, client, now).await?;
    let text = report.print(flags, now);
    Ok((report, text))
}

/// Has KmsSecrets synced now.
///
/// # Errors
/// The API server does not let us ask for it.
pub async fn force(flags: &Force, client: Client) -> Result<Vec<Asked>, plugin::Error> {
    plugin::force::ask(flags, client, &now().to_string()).await
}

/// Asks KMS, without reading a value, whether KmsSecrets could be synced.
///
/// # Errors
/// [`Error::Unreadable`] if the API server does not let us read what has to be read.
pub async fn check(check: Check, client: Client) -> Result<Vec<Checked>, Error> {
    let namespace = check.access.namespace(&client);
    let limits = Limits {
        interval_min: SignedDuration::ZERO,
        target_types: Vec::new(),
        denied_metadata: Vec::new(),
        gone_after: SignedDuration::MAX,
    };
    let shared = shared(
        &check.reach,
        limits,
        client,
        Arc::default(),
        Pulses::default(),
        Hints::new().0,
        Shares::whole(),
    )?;
    controller::check(shared, &namespace, &check.names)
        .await
        .map_err(|err| Error::Unreadable(namespace, err))
}

fn shared(
    reach: &Reach,
    limits: Limits,
    client: Client,
    metrics: Arc<Metrics>,
    pulses: Pulses,
    hints: Hints,
    shares: Shares,
) -> Result<Arc<Shared>, Error> {
    let kms = {
        let metrics = Arc::clone(&metrics);
        KmsClient::new(now, move |attempt| {
            metrics.observe_kms(
                attempt.action,
                attempt.outcome,
                attempt.elapsed,
                attempt.clock_offset,
            );
        })
        .map_err(Error::Tls)?
    };
    let kms = Arc::new(kms);
    let metadata = Metadata::new(Arc::clone(&kms), reach.metadata_endpoint.clone());
    let metadata = metadata.map_err(Error::Tls)?;
    let cluster = {
        let metrics = Arc::clone(&metrics);
        Cluster::new(client, move |verb, resource| {
            metrics.count_request(verb, resource);
        })
    };
    Ok(Arc::new(Shared {
        cluster,
        sts: Arc::new(Sts::new(Arc::clone(&kms))),
        metadata: Arc::new(metadata),
        environment: reach.environment.clone(),
        kms,
        metrics,
        pulses,
        clock: now,
        limits,
        allowed_endpoints: reach.allow_endpoint.clone(),
        shapers: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
        hints,
        shares,
    }))
}

/// Waits for the CRDs. In namespaced mode the operator may not read them; the watches then tell what is missing.
async fn await_definitions(client: &Client, run: &Run) -> Result<(), Error> {
    if !run.namespace.is_empty() {
        return Ok(());
    }
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in [
        api::KmsSecret::crd_name(),
        api::KmsStore::crd_name(),
        api::ClusterKmsStore::crd_name(),
    ] {
        let established = async {
            loop {
                match await_condition(api.clone(), name, conditions::is_crd_established()).await {
                    Ok(_) => return,
                    Err(err) => {
                        tracing::warn!(error = %err, "the API server does not tell of the CustomResourceDefinitions");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        };
        if tokio::time::timeout(CRD_DEADLINE, established)
            .await
            .is_err()
        {
            let answered = api.get_opt(name).await.is_ok();
            return Err(if answered {
                Error::NoDefinition(name.to_owned())
            } else {
                Error::Unreachable
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clients_can_be_made_with_the_one_tls_provider() {
        KmsClient::new(now, |_| ()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _guard = runtime.enter();
        let config = kube::Config::new("https://127.0.0.1:6443".parse().unwrap());
        Client::try_from(config).unwrap();
    }

    #[test]
    fn the_definitions_can_be_written() {
        let yaml = crds_yaml().unwrap();
        assert_eq!(yaml.matches("kind: CustomResourceDefinition").count(), 3);
    }
}
