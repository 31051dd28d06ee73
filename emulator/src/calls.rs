//! The log of calls: who asked what and how it ended. It never holds a value.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::clock::lock;
use crate::managed::seconds;
use crate::verify::Signature;

/// Older calls are dropped from the log; the counts go on.
const LONGEST_LOG: usize = 200_000;

/// The outcome of a call that is not answered yet.
pub const PENDING: &str = "Pending";
/// The outcome of a call whose caller went away.
pub const ABANDONED: &str = "Abandoned";

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// When it came, by the emulator's clock.
    pub at: Timestamp,
    /// When it came, since the emulator started.
    #[serde(with = "seconds")]
    pub since_start: Duration,
    /// When it came, by the monotonic clock.
    #[serde(skip)]
    pub arrived: Instant,
    /// How long the answer took; none while pending.
    pub took_ms: Option<u128>,
    /// The action.
    pub action: String,
    /// The secret, by the name that the emulator knows it by.
    pub secret: Option<String>,
    /// The label that was asked for.
    pub stage: Option<String>,
    /// The version that was asked for.
    pub version_id: Option<String>,
    /// The version that was answered.
    pub answered_version: Option<String>,
    /// Who asked.
    pub access_key: Option<String>,
    /// The signature method.
    pub signature: Signature,
    /// The host that was asked.
    pub host: String,
    /// HTTP status; 0 if there was no answer.
    pub status: u16,
    /// `OK`, the error code, `Fault.…`, or one of [`PENDING`] and [`ABANDONED`].
    pub outcome: String,
    /// The reads of a batch, in the order of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Read>,
}

/// One read of one secret: a `GetSecretValue`, or an item of a batch.
#[derive(Clone, Debug, Serialize)]
pub struct Read {
    /// When it came, by the emulator's clock.
    pub at: Timestamp,
    /// When it came, by the monotonic clock.
    #[serde(skip)]
    pub arrived: Instant,
    /// The secret, by the name that the emulator knows it by.
    pub secret: Option<String>,
    /// The label that was asked for.
    pub stage: Option<String>,
    /// The version that was asked for.
    pub version_id: Option<String>,
    /// The version that was answered.
    pub answered_version: Option<String>,
    /// Who asked.
    pub access_key: Option<String>,
    /// As in [`Call::outcome`]. An item whose call failed as a whole has the call's.
    pub outcome: String,
    /// Whether it was an item of a batch.
    pub batched: bool,
}

impl Call {
    /// The reads that the call is made of.
    fn reads(&self) -> Vec<Read> {
        if self.action != "GetSecretValue" {
            return self.items.clone();
        }
        vec![Read {
            at: self.at,
            arrived: self.arrived,
            secret: self.secret.clone(),
            stage: self.stage.clone(),
            version_id: self.version_id.clone(),
            answered_version: self.answered_version.clone(),
            access_key: self.access_key.clone(),
            outcome: self.outcome.clone(),
            batched: false,
        }]
    }
}

/// How often something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The action.
    pub action: String,
    /// The outcome.
    pub outcome: String,
    /// Who asked.
    pub access_key: Option<String>,
    /// The secret.
    pub secret: Option<String>,
    /// How often.
    pub calls: u64,
}

type CountKey = (String, String, Option<String>, Option<String>);

#[derive(Default)]
pub(crate) struct Calls {
    log: VecDeque<Call>,
    first: u64,
    counts: HashMap<CountKey, u64>,
    read_counts: HashMap<CountKey, u64>,
    in_flight: usize,
    peak: usize,
    epoch: u64,
}

impl Calls {
    pub(crate) fn log(&self) -> Vec<Call> {
        self.log.iter().cloned().collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        self.log.iter().filter(|call| wanted(call)).count()
    }

    pub(crate) fn reads(&self) -> Vec<Read> {
        self.log.iter().flat_map(Call::reads).collect()
    }

    pub(crate) fn counts(&self) -> Vec<Count> {
        list(&self.counts)
    }

    pub(crate) fn read_counts(&self) -> Vec<Count> {
        list(&self.read_counts)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// Forgets the past; what is in flight stays counted as in flight.
    pub(crate) fn reset(&mut self) {
        self.log.clear();
        self.counts.clear();
        self.read_counts.clear();
        self.peak = self.in_flight;
        self.first = 0;
        self.epoch += 1;
    }

    fn begin(&mut self, call: Call) -> (u64, u64) {
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
        if self.log.len() == LONGEST_LOG {
            self.log.pop_front();
            self.first += 1;
        }
        self.log.push_back(call);
        (self.epoch, self.first + self.log.len() as u64 - 1)
    }

    fn end(&mut self, place: (u64, u64), call: &Call) {
        self.in_flight -= 1;
        let (epoch, number) = place;
        if epoch != self.epoch {
            return;
        }
        let key = (
            call.action.clone(),
            call.outcome.clone(),
            call.access_key.clone(),
            call.secret.clone(),
        );
        *self.counts.entry(key).or_default() += 1;
        for read in call.reads() {
            let key = (
                call.action.clone(),
                read.outcome,
                read.access_key,
                read.secret,
            );
            *self.read_counts.entry(key).or_default() += 1;
        }
        let logged = number
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.log.get_mut(at));
        if let Some(logged) = logged {
            logged.clone_from(call);
        }
    }
}

fn list(counts: &HashMap<CountKey, u64>) -> Vec<Count> {
    let count = |(key, calls): (&CountKey, &u64)| Count {
        action: key.0.clone(),
        outcome: key.1.clone(),
        access_key: key.2.clone(),
        secret: key.3.clone(),
        calls: *calls,
    };
    counts.iter().map(count).collect()
}

/// How a read of a batch ended: its outcome and the version that was answered.
pub(crate) type ItemEnd = (String, Option<String>);

/// A call under way; its end is logged when this is dropped, whatever the end is.
pub(crate) struct InFlight {
    calls: Arc<Mutex<Calls>>,
    place: (u64, u64),
    call: Call,
}

impl InFlight {
    pub(crate) fn begin(calls: &Arc<Mutex<Calls>>, call: Call) -> Self {
        let place = lock(calls).begin(call.clone());
        Self {
            calls: Arc::clone(calls),
            place,
            call,
        }
    }

    pub(crate) fn finish(mut self, status: u16, outcome: &str, version: Option<String>) {
        self.call.status = status;
        outcome.clone_into(&mut self.call.outcome);
        self.call.answered_version = version;
    }

    /// Says how the items of a batch ended, if they were looked at.
    pub(crate) fn end_items(&mut self, ends: Vec<ItemEnd>) {
        for (item, (outcome, version)) in self.call.items.iter_mut().zip(ends) {
            item.outcome = outcome;
            item.answered_version = version;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.call.outcome == PENDING {
            ABANDONED.clone_into(&mut self.call.outcome);
        }
        for item in &mut self.call.items {
            if item.outcome == PENDING {
                item.outcome.clone_from(&self.call.outcome);
            }
        }
        self.call.took_ms = Some(self.call.arrived.elapsed().as_millis());
        lock(&self.calls).end(self.place, &self.call);
    }
}
