//! Whether anything grows in the course of a day: its last quarter beside its second. The first still warms up.

use std::time::{Duration, Instant};

use super::account::{Account, Delays};
use crate::process::Usage;
use crate::statistics::quantile;

/// Memory may grow to so much.
const GROWTH: f64 = 1.05;
/// Half of all delays may grow by as much, in seconds. Reads are a second apart by the uid, and the machine may be busy.
const DRIFT: f64 = 0.25;

/// What the operator had used at a moment.
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) usage: Usage,
}

/// One number in the second and in the last quarter of the day, where it was measured in both.
pub(crate) struct Trend {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) early: Option<f64>,
    pub(crate) late: Option<f64>,
    /// What it may be late in the day.
    pub(crate) limit: Option<f64>,
}

impl Trend {
    fn new(
        what: &'static str,
        unit: &'static str,
        (early, late): (Option<f64>, Option<f64>),
    ) -> Self {
        Self {
            what,
            unit,
            early,
            late,
            limit: None,
        }
    }

    fn limited(mut self, limit: impl Fn(f64) -> f64) -> Self {
        self.limit = self.early.map(limit);
        self
    }

    pub(crate) fn complaint(&self) -> Option<String> {
        let Self {
            what,
            unit,
            early,
            late,
            limit,
        } = self;
        let limit = (*limit)?;
        let (Some(early), Some(late)) = (early, late) else {
            return Some(format!("{what}: too little was measured"));
        };
        let grows = *late > limit;
        grows.then(|| {
            format!("{what}: {early:.3} {unit} early in the day, {late:.3} {unit} late in it")
        })
    }
}

pub(crate) fn find(
    samples: &[Sample],
    account: &Account,
    (dawn, dusk): (Instant, Instant),
) -> Vec<Trend> {
    let quarter = (dusk - dawn) / 4;
    let quarters = [1, 3].map(|before| {
        let begin = dawn + quarter * before;
        begin..begin + quarter
    });
    let of = |measure: &dyn Fn(&std::ops::Range<Instant>) -> Option<f64>| {
        let [early, late] = quarters.each_ref().map(measure);
        (early, late)
    };
    let (delays, lags) = (&account.delays, &account.lags);
    let drifts = |early| early + DRIFT;
    let late_by =
        |what, delays, part| Trend::new(what, "s", of(&|quarter| delay(delays, quarter, part)));
    let resident = of(&|quarter| {
        let samples = samples.iter().filter(|sample| quarter.contains(&sample.at));
        mean(samples.map(|sample| sample.usage.resident))
    });
    let cpu = of(&|quarter| {
        let mut samples = samples.iter().filter(|sample| quarter.contains(&sample.at));
        Some(samples.next_back()?.usage.cpu - samples.next()?.usage.cpu)
    });
    vec![
        late_by("from readable to the Secret, p50", delays, 0.5).limited(drifts),
        late_by("from readable to the Secret, p99", delays, 0.99),
        late_by("from readable to the Secret, max", delays, 1.0),
        late_by("lag of a read at the ceiling, p50", lags, 0.5).limited(drifts),
        late_by("lag of a read at the ceiling, p99", lags, 0.99),
        Trend::new("resident memory", "MiB", resident).limited(|early| early * GROWTH),
        Trend::new("CPU time", "s", cpu),
    ]
}

fn delay(delays: &Delays, quarter: &std::ops::Range<Instant>, part: f64) -> Option<f64> {
    let within = delays.iter().filter(|(at, _)| quarter.contains(at));
    let within: Vec<Duration> = within.map(|(_, delay)| *delay).collect();
    quantile(&within, part).map(|delay| delay.as_secs_f64())
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let count = u32::try_from(values.clone().count()).ok()?;
    (count > 0).then(|| values.sum::<f64>() / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_beyond_its_limit_is_complained_about() {
        let complains = |early, late| {
            let trend = Trend::new("memory", "MiB", (early, late));
            trend.limited(|early| early * GROWTH).complaint().is_some()
        };
        assert!(!complains(Some(30.0), Some(31.0)));
        assert!(complains(Some(30.0), Some(32.0)));
        assert!(complains(Some(30.0), None), "too little was measured");
        let unlimited = Trend::new("CPU time", "s", (Some(1.0), Some(9.0)));
        assert_eq!(unlimited.complaint(), None);
    }

    #[test]
    fn delays_are_those_of_the_quarter() {
        let dawn = Instant::now();
        let after = |seconds| dawn + Duration::from_secs(seconds);
        let delays = [1, 2, 30]
            .map(|at| (after(at), Duration::from_secs(at)))
            .to_vec();
        let quarter = after(0)..after(10);
        assert_eq!(delay(&delays, &quarter, 1.0), Some(2.0));
        assert_eq!(delay(&delays, &(after(50)..after(60)), 1.0), None);
    }
}
