//! What the operator counts. Labels come from closed sets only.

use std::time::Duration;

use jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::sync::Reason;
use crate::sync::plan::Why;

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

/// The registry and the handles into it.
pub struct Metrics {
    registry: Registry,
    kms_requests: Family<KmsLabels, Counter>,
    kms_seconds: Histogram,
    syncs: Family<SyncLabels, Counter>,
    apiserver_requests: Family<RequestLabels, Counter>,
    watch_errors: Family<ResourceLabels, Counter>,
    rotation_delay: Histogram,
    clock_offset: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("kms_secret_operator"),
            kms_requests: Family::default(),
            kms_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            syncs: Family::default(),
            apiserver_requests: Family::default(),
            watch_errors: Family::default(),
            rotation_delay: Histogram::new(exponential_buckets(0.25, 2.0, 16)),
            clock_offset: Gauge::default(),
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
            "Requests to KMS, retries included, by action and error code (OK: success)",
            self.kms_requests.clone(),
        );
        registry.register_with_unit(
            "kms_request_duration",
            "Time until KMS answered a request",
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
            "Clock of KMS minus ours, at the last answer",
            Unit::Seconds,
            self.clock_offset.clone(),
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

    /// The registry in the text format of `OpenMetrics`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
