//! What was measured, as it is kept in docs/bench/results.json.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One run of the benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// What it ran on.
    pub(crate) machine: Machine,
    /// In the order in which they were measured.
    pub(crate) rows: Vec<Row>,
}

/// What a run of the benchmark ran on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// In GiB.
    pub(crate) memory: f64,
    pub(crate) system: String,
    pub(crate) kubernetes: String,
    /// Whether the operator was built as a release.
    pub(crate) build: String,
}

/// One measurement: a scenario with so many KmsSecrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) objects: usize,
    /// By name; the names tell the unit.
    pub(crate) numbers: BTreeMap<String, f64>,
}

impl Row {
    pub(crate) fn new(scenario: &str, objects: usize) -> Self {
        Self {
            scenario: scenario.to_owned(),
            objects,
            numbers: BTreeMap::new(),
        }
    }

    /// Adds a number.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, number: f64) -> Self {
        self.numbers.insert(name.to_owned(), number);
        self
    }

    /// Adds a count.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts here are small")]
    pub(crate) fn with_count(self, name: &str, count: u64) -> Self {
        self.with(name, count as f64)
    }

    /// Adds a time, in seconds.
    #[must_use]
    pub(crate) fn with_time(self, name: &str, time: Duration) -> Self {
        self.with(name, time.as_secs_f64())
    }
}

impl Results {
    /// A number of a measurement, if that was made.
    pub(crate) fn number(&self, scenario: &str, objects: usize, name: &str) -> Option<f64> {
        let is_it = |row: &&Row| row.scenario == scenario && row.objects == objects;
        let row = self.rows.iter().find(is_it)?;
        row.numbers.get(name).copied()
    }

    /// The sizes that were measured, ascending.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<_> = self.rows.iter().map(|row| row.objects).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_what_it_is_of() {
        let row = |objects, count| Row::new("floor", objects).with_count("seconds", count);
        let results = Results {
            rows: vec![row(1000, 2), row(100, 1)],
            ..Results::default()
        };
        assert_eq!(results.number("floor", 1000, "seconds"), Some(2.0));
        assert_eq!(results.number("floor", 100, "seconds"), Some(1.0));
        assert_eq!(results.number("floor", 10, "seconds"), None);
        assert_eq!(results.number("floor", 100, "writes"), None);
        assert_eq!(results.sizes(), [100, 1000]);
    }
}
