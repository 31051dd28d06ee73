//! What the operator counts. Labels come from closed sets only, but for the names of stores.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::alibaba::reader::Glance;
use crate::sync::Reason;
use crate::sync::plan::Why;
use crate::sync::share::Share;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KmsLabels {
    action: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SyncLabels {
    why: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

/// The labels of one store's metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    /// `KmsStore` or `ClusterKmsStore`.
    pub kind: &'static str,
    /// Its namespace; empty for a `ClusterKmsStore`.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Tells of the stores that are in use, at a scrape: nothing is kept of one that is gone.
type StoresInUse = Box<dyn Fn() -> Vec<(StoreLabels, Glance)> + Send + Sync>;

/// The stores of every loop.
#[derive(Clone, Default)]
struct Stores(Arc<Mutex<Vec<StoresInUse>>>);

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stores")
    }
}

impl Collector for Stores {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let loops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stores: Vec<_> = loops.iter().flat_map(|in_use| in_use()).collect();
        drop(loops);
        let mut gauge = |name, help, value: fn(&Glance) -> f64| {
            encode_each(&mut encoder, name, help, &stores, |glance| {
                ConstGauge::new(value(glance))
            })
        };
        gauge(
            "store_rate",
            "Reads a second that the store may make: less than it asks for after KMS throttled it",
            |glance| glance.rate,
        )?;
        gauge(
            "store_reads_waiting",
            "Secrets that wait to be read",
            |glance| count(glance.waiting),
        )?;
        gauge("store_calls_in_flight", "Calls under way", |glance| {
            count(glance.in_flight)
        })?;
        gauge(
            "store_breaker_open",
            "1 while reads are held back since the credentials do not work",
            |glance| f64::from(u8::from(glance.is_broken)),
        )?;
        let mut counter = |name, help, value: fn(&Glance) -> u64| {
            encode_each(&mut encoder, name, help, &stores, |glance| {
                ConstCounter::new(value(glance))
            })
        };
        counter(
            "store_reads_wished",
            "Reads that KmsSecrets asked for",
            |glance| glance.wished,
        )?;
        counter(
            "store_reads_sent",
            "Reads that were sent for them, alone or in a batch; identical ones are sent once",
            |glance| glance.sent,
        )
    }
}

/// A family of metrics with one value for each store.
fn encode_each<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    stores: &[(StoreLabels, Glance)],
    metric: impl Fn(&Glance) -> M,
) -> fmt::Result {
    let type_ = metric(&Glance::default()).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, type_)?;
    for (labels, glance) in stores {
        metric(glance).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NoticeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HintLabels {
    result: &'static str,
}

/// What became of a notice of KMS, or of the request that should have brought one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeOutcome {
    /// It was told to the loops.
    Accepted,
    /// It had come before.
    Duplicate,
    /// It is about something else.
    Ignored,
    /// The request was not JSON.
    Malformed,
    /// The request was too large or too slow, or broke off.
    Unreadable,
    /// Whoever sent the request did not show that it may.
    Unauthorised,
    /// Too many requests came.
    Limited,
    /// The caches were not filled yet.
    NotReady,
}

impl NoticeOutcome {
    /// The word in the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
            Self::Unreadable => "unreadable",
            Self::Unauthorised => "unauthorised",
            Self::Limited => "limited",
            Self::NotReady => "not_ready",
        }
    }
}

/// What became of an object that a notice names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintResult {
    /// It is due.
    Due,
    /// It was due by a hint already.
    Merged,
    /// Its store is missing, or does not let it read the secret.
    NotAllowed,
    /// A loop was too far behind to look at the notice at all, or more came than a replica can pass on.
    Lost,
}

impl HintResult {
    /// The word in the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Merged => "merged",
            Self::NotAllowed => "not_allowed",
            Self::Lost => "lost",
        }
    }
}

/// The registry and the handles into it.
pub struct Metrics {
    registry: Registry,
    stores: Stores,
    kms_requests: Family<KmsLabels, Counter>,
    kms_seconds: Histogram,
    syncs: Family<SyncLabels, Counter>,
    apiserver_requests: Family<RequestLabels, Counter>,
    watch_errors: Family<ResourceLabels, Counter>,
    rotation_delay: Histogram,
    clock_offset: Gauge<f64, std::sync::atomic::AtomicU64>,
    event_notices: Family<NoticeLabels, Counter>,
    event_hints: Family<HintLabels, Counter>,
    members: Gauge,
    share: Gauge<f64, std::sync::atomic::AtomicU64>,
    lease_renewed: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("kms_secret_operator"),
            stores: Stores::default(),
            kms_requests: Family::default(),
            kms_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            syncs: Family::default(),
            apiserver_requests: Family::default(),
            watch_errors: Family::default(),
            rotation_delay: Histogram::new(exponential_buckets(0.25, 2.0, 16)),
            clock_offset: Gauge::default(),
            event_notices: Family::default(),
            event_hints: Family::default(),
            members: Gauge::default(),
            share: Gauge::default(),
            lease_renewed: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "kms_requests",
            "Requests to KMS, STS and the metadata service, retries included, by action and error code (OK: success)",
            self.kms_requests.clone(),
        );
        registry.register_with_unit(
            "kms_request_duration",
            "Time until a request to KMS, STS or the metadata service was answered",
            Unit::Seconds,
            self.kms_seconds.clone(),
        );
        registry.register(
            "syncs",
            "Attempts to sync, by what caused them and how they ended",
            self.syncs.clone(),
        );
        registry.register(
            "apiserver_requests",
            "Requests to the API server besides the watches, by verb and resource",
            self.apiserver_requests.clone(),
        );
        registry.register(
            "watch_errors",
            "Watches that broke, by resource",
            self.watch_errors.clone(),
        );
        registry.register_with_unit(
            "rotation_delay",
            "Time from the announced date of a rotation to the write of the rotated value",
            Unit::Seconds,
            self.rotation_delay.clone(),
        );
        registry.register_with_unit(
            "kms_clock_offset",
            "Clock of KMS or STS minus ours, at the last answer",
            Unit::Seconds,
            self.clock_offset.clone(),
        );
        registry.register_collector(Box::new(self.stores.clone()));
        registry.register(
            "event_notices",
            "Notices of KMS that came, by what became of them; a request that was refused counts as one",
            self.event_notices.clone(),
        );
        registry.register(
            "event_hints",
            "Objects that notices named, by what became of the hint",
            self.event_hints.clone(),
        );
        registry.register(
            "members",
            "Replicas that share the work, as this one sees them; 0 while it may not work",
            self.members.clone(),
        );
        registry.register(
            "share",
            "What part of the work is this replica's, from 0 to 1",
            self.share.clone(),
        );
        registry.register_with_unit(
            "lease_renewed_timestamp",
            "When this replica last renewed its Lease, since 1970",
            Unit::Seconds,
            self.lease_renewed.clone(),
        );
        let version = env!("CARGO_PKG_VERSION");
        registry.register("build", "The operator", Info::new([("version", version)]));
    }

    /// A request to KMS ended; `clock_offset` is the clock of KMS minus ours.
    pub fn observe_kms(
        &self,
        action: &'static str,
        code: &'static str,
        elapsed: Duration,
        clock_offset: Option<SignedDuration>,
    ) {
        self.kms_requests
            .get_or_create(&KmsLabels { action, code })
            .inc();
        self.kms_seconds.observe(elapsed.as_secs_f64());
        if let Some(offset) = clock_offset {
            self.clock_offset.set(offset.as_secs_f64());
        }
    }

    /// An attempt to sync ended.
    pub fn observe_sync(&self, why: Why, reason: Reason) {
        let labels = SyncLabels {
            why: why.as_str(),
            reason: reason.as_str(),
        };
        self.syncs.get_or_create(&labels).inc();
    }

    /// A request goes to the API server.
    pub fn count_request(&self, verb: &'static str, resource: &'static str) {
        let labels = RequestLabels { verb, resource };
        self.apiserver_requests.get_or_create(&labels).inc();
    }

    /// A watch broke.
    pub fn count_watch_error(&self, resource: &'static str) {
        self.watch_errors
            .get_or_create(&ResourceLabels { resource })
            .inc();
    }

    /// A rotated value was written so long after its announced date.
    pub fn observe_rotation(&self, delay: Duration) {
        self.rotation_delay.observe(delay.as_secs_f64());
    }

    /// Asks `in_use` for its stores at each scrape.
    pub fn watch_stores(
        &self,
        in_use: impl Fn() -> Vec<(StoreLabels, Glance)> + Send + Sync + 'static,
    ) {
        let mut loops = self.stores.0.lock().unwrap_or_else(PoisonError::into_inner);
        loops.push(Box::new(in_use));
    }

    /// So many notices came.
    pub fn count_notices(&self, outcome: NoticeOutcome, count: usize) {
        let outcome = outcome.as_str();
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.event_notices
            .get_or_create(&NoticeLabels { outcome })
            .inc_by(count);
    }

    /// So many objects were named by notices.
    pub fn count_hints(&self, result: HintResult, count: u64) {
        let result = result.as_str();
        self.event_hints
            .get_or_create(&HintLabels { result })
            .inc_by(count);
    }

    /// This replica has another share of the work.
    pub fn set_share(&self, share: &Share) {
        let members = if share.is_none() { 0 } else { share.members() };
        self.members.set(members.into());
        self.share.set(share.fraction());
    }

    /// The Lease was renewed.
    pub fn set_lease_renewed(&self, at: Timestamp) {
        self.lease_renewed.set(at.as_duration().as_secs_f64());
    }

    /// The registry in the text format of `OpenMetrics`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
