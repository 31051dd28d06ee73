//! What the numbers have to be, and whether they are.

use serde::Serialize;

use crate::results::Results;
use crate::scenarios as of;

/// The number that a measurement may reach.
type Limit = fn(&Case<'_>) -> Option<f64>;

/// One thing that has to be so.
pub(crate) struct Bar {
    /// What, as a reader understands it.
    what: &'static str,
    scenario: &'static str,
    number: &'static str,
    unit: &'static str,
    /// The bar holds for these numbers of KmsSecrets.
    sizes: std::ops::RangeInclusive<usize>,
    limit: Limit,
}

/// What a limit may depend on.
struct Case<'a> {
    results: &'a Results,
    objects: usize,
}

/// Whether a bar is met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) objects: usize,
    pub(crate) value: f64,
    pub(crate) limit: f64,
    pub(crate) unit: &'static str,
    pub(crate) is_met: bool,
}

impl Verdict {
    /// The value as a part of its limit, where the limit is not zero.
    pub(crate) fn ratio(&self) -> Option<f64> {
        (self.limit > 0.0).then(|| self.value / self.limit)
    }
}

const ANY: std::ops::RangeInclusive<usize> = 0..=usize::MAX;
/// A cold sync of a hundred takes less time than the start of a process.
const MANY: std::ops::RangeInclusive<usize> = 1000..=usize::MAX;
const THOUSAND: std::ops::RangeInclusive<usize> = 0..=1000;
const TEN_THOUSAND: std::ops::RangeInclusive<usize> = 1001..=10_000;

impl Case<'_> {
    #[expect(clippy::cast_precision_loss, reason = "counts here are small")]
    fn count(&self) -> f64 {
        self.objects as f64
    }

    fn floor(&self, name: &str) -> Option<f64> {
        self.results.number(of::floor::FLOOR, self.objects, name)
    }
}

/// One and a half times the floor, where the KmsSecrets are there.
fn started(case: &Case<'_>) -> Option<f64> {
    Some(1.5 * case.floor("seconds")?)
}

/// The same, where the KmsSecrets are created meanwhile.
fn created(case: &Case<'_>) -> Option<f64> {
    Some(1.5 * (case.floor("seconds")? + case.floor("creating_seconds")?))
}

const fn bar(
    what: &'static str,
    scenario: &'static str,
    number: &'static str,
    unit: &'static str,
    sizes: std::ops::RangeInclusive<usize>,
    limit: Limit,
) -> Bar {
    Bar {
        what,
        scenario,
        number,
        unit,
        sizes,
        limit,
    }
}

const STARTED: &str = of::cold_sync::STARTED.scenario;
const STARTED_SINGLY: &str = of::cold_sync::STARTED_SINGLY.scenario;
const STARTED_SHARING: &str = of::cold_sync::STARTED_SHARING.scenario;
const CREATED: &str = of::cold_sync::CREATED.scenario;
const CREATED_SINGLY: &str = of::cold_sync::CREATED_SINGLY.scenario;

/// All bars, in the order of the report.
#[rustfmt::skip]
pub(crate) const BARS: &[Bar] = &[
    bar("cold sync, operator started over the KmsSecrets: at most 1.5 x floor", STARTED, "seconds", "s", MANY, started),
    bar("the same with single reads", STARTED_SINGLY, "seconds", "s", MANY, started),
    bar("KmsSecrets created under the operator: at most 1.5 x (floor + creating them)", CREATED, "seconds", "s", MANY, created),
    bar("the same with single reads", CREATED_SINGLY, "seconds", "s", MANY, created),
    bar("calls to KMS in batches: at most N / 20 and a tenth", STARTED, "kms_calls", "", ANY, |case| Some((case.count() / 20.0).ceil() * 1.1)),
    bar("calls to KMS, single: at most N", STARTED_SINGLY, "kms_calls", "", ANY, |case| Some(case.count())),
    bar("calls to KMS where five read the same secret: at most N / 100 and a tenth", STARTED_SHARING, "kms_calls", "", ANY, |case| Some((case.count() / 100.0).ceil() * 1.1)),
    bar("writes of Secrets in a cold sync: 1 each", STARTED, "secret_writes", "", ANY, |case| Some(case.count())),
    bar("writes of statuses in a cold sync: 1 each", STARTED, "status_writes", "", ANY, |case| Some(case.count())),
    bar("Events of a cold sync: 0", STARTED, "event_writes", "", ANY, |_| Some(0.0)),
    bar("objects read from the API server in a cold sync: the Secret with the credentials", STARTED, "gets", "", ANY, |_| Some(1.0)),
    bar("resident memory after a cold sync: under 24 MiB", STARTED, "resident_mib", "MiB", THOUSAND, |_| Some(24.0)),
    bar("resident memory after a cold sync: under 64 MiB", STARTED, "resident_mib", "MiB", TEN_THOUSAND, |_| Some(64.0)),
    bar("restart in sync: 0 calls to KMS", of::restart::RESTART, "kms_calls", "", ANY, |_| Some(0.0)),
    bar("restart in sync: 0 writes besides Leases", of::restart::RESTART, "writes", "", ANY, |_| Some(0.0)),
    bar("two minutes at rest: 0 writes besides Leases", of::at_rest::AT_REST, "writes", "", ANY, |_| Some(0.0)),
    bar("two minutes at rest: under 0.2 CPU seconds", of::at_rest::AT_REST, "cpu_seconds", "s", THOUSAND, |_| Some(0.2)),
    bar("one rotation, from readable to the Secret, p99: 2 s", of::rotation::ONE, "p99_seconds", "s", ANY, |_| Some(2.0)),
    bar("all rotate at once, to the last Secret: at most 2 s or 1.3 x patching them", of::rotation::ALL, "last_secret_seconds", "s", ANY, |case| Some((1.3 * case.floor("patching_seconds")?).max(2.0))),
    bar("a new KmsSecret among N, p50: under 20 ms", of::new_object::NEW, "p50_ms", "ms", ANY, |_| Some(20.0)),
    bar("a new KmsSecret among N, p99: under 60 ms", of::new_object::NEW, "p99_ms", "ms", THOUSAND, |_| Some(60.0)),
    bar("a new KmsSecret among N, p99: under 100 ms", of::new_object::NEW, "p99_ms", "ms", TEN_THOUSAND, |_| Some(100.0)),
    bar("a replica of two is killed, its share is served again: under 20 s", of::replicas::KILLED, "seconds", "s", ANY, |_| Some(20.0)),
    bar("a replica of two is stopped, its share is served again: under 3 s", of::replicas::STOPPED, "seconds", "s", ANY, |_| Some(3.0)),
    bar("a share changes hands: 0 reads of what is in sync", of::replicas::KILLED, "reads_in_vain", "", ANY, |_| Some(0.0)),
    bar("the same after a clean stop", of::replicas::STOPPED, "reads_in_vain", "", ANY, |_| Some(0.0)),
    bar("two replicas, KMS at 200 ms, single reads: faster than one", of::replicas::NUMBERS[2], "seconds", "s", ANY, |case| case.results.number(of::replicas::NUMBERS[1], case.objects, "seconds")),
    bar("three replicas: not slower than two, or at most 1.5 x (floor + creating)", of::replicas::NUMBERS[3], "seconds", "s", ANY, |case| Some(case.results.number(of::replicas::NUMBERS[2], case.objects, "seconds")?.max(created(case)?))),
];

/// Holds the results against the bars; what was not measured has no verdict.
pub(crate) fn judge(results: &Results, bars: &[Bar]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for bar in bars {
        let sizes = results.sizes().into_iter();
        for objects in sizes.filter(|size| bar.sizes.contains(size)) {
            let case = Case { results, objects };
            let value = results.number(bar.scenario, objects, bar.number);
            if let (Some(value), Some(limit)) = (value, (bar.limit)(&case)) {
                verdicts.push(Verdict {
                    what: bar.what,
                    scenario: bar.scenario,
                    objects,
                    value,
                    limit,
                    unit: bar.unit,
                    is_met: value <= limit,
                });
            }
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Row;

    #[test]
    fn a_bar_is_held_against_the_floor_of_its_own_size() {
        let row =
            |scenario: &str, objects, seconds| Row::new(scenario, objects).with("seconds", seconds);
        let results = Results {
            rows: vec![
                row("floor", 100, 1.0),
                row("floor", 1000, 2.0),
                row("floor", 10_000, 20.0),
                row("x", 100, 9.0),
                row("x", 1000, 3.0),
                row("x", 10_000, 31.0),
            ],
            ..Results::default()
        };
        let bars = [
            bar("it is quick", "x", "seconds", "s", MANY, started),
            bar("it was measured", "y", "seconds", "s", ANY, |_| Some(1.0)),
        ];
        let verdicts = judge(&results, &bars);
        let told: Vec<_> = verdicts
            .iter()
            .map(|verdict| (verdict.objects, verdict.limit, verdict.is_met))
            .collect();
        assert_eq!(told, [(1000, 3.0, true), (10_000, 30.0, false)]);
        assert_eq!(verdicts[0].ratio(), Some(1.0));
    }

    #[test]
    fn a_limit_of_nothing_has_no_ratio() {
        let results = Results {
            rows: vec![Row::new("x", 1).with_count("writes", 1)],
            ..Results::default()
        };
        let bars = [bar("nothing", "x", "writes", "", ANY, |_| Some(0.0))];
        let verdict = judge(&results, &bars).remove(0);
        assert!(!verdict.is_met);
        assert_eq!(verdict.ratio(), None);
    }
}
