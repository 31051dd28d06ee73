//! What the operator counts. Labels come from closed sets only, but for the names of stores, and of objects where they are
//! asked for.

mod labels;
mod loops;
mod notices;
mod objects;
mod process;
mod series;
mod stores;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::sync::Reason;
use crate::sync::plan::Why;
use crate::sync::share::Share;
use labels::{
    ActionLabels, HintLabels, KmsLabels, NoticeLabels, RequestLabels, ResourceLabels, SyncLabels,
};
use loops::Loops;
pub use loops::{Load, Sight};
pub use notices::{HintResult, NoticeOutcome};
use process::Process;
pub use stores::StoreLabels;

/// The registry and the handles into it.
pub struct Metrics {
    registry: Registry,
    loops: Loops,
    kms_requests: Family<KmsLabels, Counter>,
    kms_seconds: Family<ActionLabels, Histogram, fn() -> Histogram>,
    syncs: Family<SyncLabels, Counter>,
    sync_seconds: Histogram,
    apiserver_requests: Family<RequestLabels, Counter>,
    watch_errors: Family<ResourceLabels, Counter>,
    rotation_delay: Histogram,
    clock_offset: Gauge<f64, AtomicU64>,
    event_notices: Family<NoticeLabels, Counter>,
    event_hints: Family<HintLabels, Counter>,
    members: Gauge,
    share: Gauge<f64, AtomicU64>,
    lease_renewed: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Metrics {
    /// Nothing was counted yet. `with_each`: each object has metrics of its own.
    #[must_use]
    pub fn new(with_each: bool) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            loops: Loops::new(with_each),
            kms_requests: Family::default(),
            kms_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.005, 2.0, 12))
            }),
            syncs: Family::default(),
            sync_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
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
        metrics.begin_at_zero();
        metrics
    }

    fn register(&mut self) {
        self.registry.register_collector(Box::new(Process));
        let registry = self
            .registry
            .sub_registry_with_prefix("kms_secret_operator");
        registry.register(
            "kms_requests",
            "Requests to KMS, STS and the metadata service, retries included, by action and error code (OK: success)",
            self.kms_requests.clone(),
        );
        registry.register_with_unit(
            "kms_request_duration",
            "Time until a request to KMS, STS or the metadata service was answered, by action",
            Unit::Seconds,
            self.kms_seconds.clone(),
        );
        registry.register(
            "syncs",
            "Attempts to sync, by what caused them and how they ended",
            self.syncs.clone(),
        );
        registry.register_with_unit(
            "sync_duration",
            "Time that an attempt to sync took, from the read to the write",
            Unit::Seconds,
            self.sync_seconds.clone(),
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
        registry.register_collector(Box::new(self.loops.clone()));
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
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
        ];
        registry.register("build", "The operator", Info::new(build));
    }

    /// A counter that is there before it counts: else its first step shows in no rate.
    fn begin_at_zero(&self) {
        for outcome in NoticeOutcome::ALL {
            self.count_notices(outcome, 0);
        }
        for result in HintResult::ALL {
            self.count_hints(result, 0);
        }
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
        self.kms_seconds
            .get_or_create(&ActionLabels { action })
            .observe(elapsed.as_secs_f64());
        if let Some(offset) = clock_offset {
            self.clock_offset.set(offset.as_secs_f64());
        }
    }

    /// An attempt to sync ended.
    pub fn observe_sync(&self, why: Why, reason: Reason, elapsed: Duration) {
        let labels = SyncLabels {
            why: why.as_str(),
            reason: reason.as_str(),
        };
        self.syncs.get_or_create(&labels).inc();
        self.sync_seconds.observe(elapsed.as_secs_f64());
    }

    /// A request goes to the API server.
    pub fn count_request(&self, verb: &'static str, resource: &'static str) {
        let labels = RequestLabels { verb, resource };
        self.apiserver_requests.get_or_create(&labels).inc();
    }

    /// There is a watch of this resource, which may break.
    pub fn expect_watch(&self, resource: &'static str) {
        self.watch_errors
            .get_or_create(&ResourceLabels { resource })
            .inc_by(0);
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

    /// Has a loop asked at each scrape.
    pub fn watch_loop(&self, look: impl Fn() -> Sight + Send + Sync + 'static) {
        self.loops.add(look);
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
