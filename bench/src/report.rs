//! The results as people read them: a part of docs/benchmarks.md.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::bars::Verdict;
use crate::results::{Machine, Results};
use crate::scenarios::cold_sync::{
    CREATED, CREATED_SINGLY, STARTED, STARTED_SHARING, STARTED_SINGLY,
};
use crate::scenarios::floor::FLOOR;

const BEGIN: &str = "<!-- made by `make bench` -->";
const END: &str = "<!-- end of what `make bench` made -->";
/// What a store does in a second where nobody raised its limiter.
const DEFAULT_PACE: f64 = 100.0;

/// Puts the results into the page, in place of those before.
pub(crate) fn place(page: &str, results: &str) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .context("the page has no place for results")?;
    let (_, after) = rest
        .split_once(END)
        .context("the place for results does not end")?;
    Ok(format!("{before}{BEGIN}\n\n{results}\n{END}{after}"))
}

/// Everything that was measured.
pub(crate) fn write(results: &Results, verdicts: &[Verdict]) -> String {
    let mut text = machine(&results.machine);
    text += "\n![Cost against the number of KmsSecrets](bench/cost.svg)\n";
    let parts = [
        ("The bars", bars(verdicts)),
        ("A cold sync", cold_syncs(results)),
        ("Everything else", others(results)),
    ];
    for (title, table) in parts {
        // Writing into a String does not fail.
        let _ = write!(text, "\n### {title}\n\n{table}");
    }
    text
}

fn machine(machine: &Machine) -> String {
    let Machine {
        commit,
        date,
        cpu,
        cores,
        memory,
        system,
        kubernetes,
        build,
    } = machine;
    format!(
        "{date}, commit {commit}, {build} build; {cpu}, {cores} cores, {memory} GiB, {system}; Kubernetes {kubernetes}.\n"
    )
}

fn bars(verdicts: &[Verdict]) -> String {
    let rows = verdicts.iter().map(|verdict| {
        let Verdict {
            what,
            objects,
            value,
            limit,
            unit,
            is_met,
            ..
        } = verdict;
        let ratio = verdict.ratio().map(number).unwrap_or_default();
        let met = if *is_met { "met" } else { "**not met**" };
        vec![
            (*what).to_owned(),
            objects.to_string(),
            quantity(*value, unit),
            quantity(*limit, unit),
            ratio,
            met.to_owned(),
        ]
    });
    table(&["what", "N", "is", "may be", "ratio", ""], rows)
}

fn cold_syncs(results: &Results) -> String {
    let ways = [
        STARTED,
        STARTED_SINGLY,
        STARTED_SHARING,
        CREATED,
        CREATED_SINGLY,
    ];
    let mut rows = Vec::new();
    for objects in results.sizes() {
        let of = |scenario: &str, name: &str| results.number(scenario, objects, name);
        let cell = |scenario: &str, name: &str| of(scenario, name).map(number).unwrap_or_default();
        let Some(floor) = of(FLOOR, "seconds") else {
            continue;
        };
        let creating = of(FLOOR, "creating_seconds").unwrap_or_default();
        let mut row = vec![objects.to_string(), "floor".into(), number(floor)];
        row.extend(["1".into(), String::new(), String::new()]);
        row.extend(std::iter::repeat_n(String::new(), 4));
        rows.push(row);
        for way in ways {
            let scenario = way.scenario;
            let Some(seconds) = of(scenario, "seconds") else {
                continue;
            };
            let floor = if way.is_running {
                floor + creating
            } else {
                floor
            };
            rows.push(vec![
                objects.to_string(),
                scenario.to_owned(),
                number(seconds),
                number(seconds / floor),
                cell(scenario, "kms_calls"),
                format!(
                    "{} / {} / {}",
                    cell(scenario, "secret_writes"),
                    cell(scenario, "status_writes"),
                    cell(scenario, "event_writes")
                ),
                cell(scenario, "gets"),
                cell(scenario, "cpu_seconds"),
                cell(scenario, "resident_mib"),
                cell(scenario, "peak_mib"),
            ]);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts here are small")]
        let paced = objects as f64 / DEFAULT_PACE;
        let mut row = vec![objects.to_string(), "default pace, reckoned".into()];
        row.extend([number(paced), number(paced / floor)]);
        row.extend(std::iter::repeat_n(String::new(), 6));
        rows.push(row);
    }
    let heads = [
        "N",
        "how",
        "seconds",
        "x floor",
        "calls to KMS",
        "writes: Secrets / statuses / Events",
        "objects read",
        "CPU s",
        "resident MiB",
        "peak MiB",
    ];
    table(&heads, rows.into_iter())
}

fn others(results: &Results) -> String {
    let told = [
        STARTED,
        STARTED_SINGLY,
        STARTED_SHARING,
        CREATED,
        CREATED_SINGLY,
    ];
    let is_told = |scenario: &str| told.iter().any(|way| way.scenario == scenario);
    let rows = results.rows.iter().filter(|row| !is_told(&row.scenario));
    let rows = rows.map(|row| {
        let numbers = row.numbers.iter();
        let numbers: Vec<_> = numbers.map(|(name, value)| named(name, *value)).collect();
        vec![
            row.scenario.clone(),
            row.objects.to_string(),
            numbers.join(", "),
        ]
    });
    table(&["what", "N", "numbers"], rows)
}

/// `p50_ms` of 12 is `p50 12 ms`.
fn named(name: &str, value: f64) -> String {
    let units = [("_seconds", "s"), ("_ms", "ms"), ("_mib", "MiB")];
    let found = units
        .iter()
        .find_map(|(end, unit)| Some((name.strip_suffix(end)?, *unit)));
    let (name, unit) = found.unwrap_or(if name == "seconds" {
        ("time", "s")
    } else {
        (name, "")
    });
    format!("{} {}", name.replace('_', " "), quantity(value, unit))
}

fn quantity(value: f64, unit: &str) -> String {
    format!("{} {unit}", number(value)).trim_end().to_owned()
}

/// Three digits that mean something, or the whole number.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<_> = heads.iter().map(|head| (*head).to_owned()).collect();
    let rule: Vec<_> = heads.iter().map(|_| "---".to_owned()).collect();
    let mut text = line(&heads) + &line(&rule);
    text.extend(rows.map(|row| line(&row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::{BARS, judge};
    use crate::results::Row;

    #[test]
    fn numbers_have_three_digits() {
        let told = [0.0, 0.1234, 1.0, 1.234, 12.345, 123.45, 12_345.6].map(number);
        assert_eq!(told, ["0", "0.123", "1", "1.23", "12.3", "123", "12346"]);
        assert_eq!(named("p50_ms", 1.5), "p50 1.50 ms");
        assert_eq!(named("seconds", 2.0), "time 2 s");
        assert_eq!(named("kms_calls", 3.0), "kms calls 3");
    }

    #[test]
    fn results_take_the_place_of_those_before() {
        let page = format!("# Title\n{BEGIN}\nold\n{END}\nmore\n");
        let placed = place(&page, "new\n").unwrap();
        assert_eq!(placed, format!("# Title\n{BEGIN}\n\nnew\n\n{END}\nmore\n"));
        assert_eq!(place(&placed, "new\n").unwrap(), placed);
        assert!(place("# Title\n", "new\n").is_err());
        assert!(place(BEGIN, "new\n").is_err());
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_head() {
        let results = Results {
            rows: vec![
                Row::new(FLOOR, 1000).with("seconds", 2.0),
                Row::new(STARTED.scenario, 1000).with("seconds", 4.0),
                Row::new("restart", 1000).with_count("kms_calls", 0),
            ],
            ..Results::default()
        };
        let text = write(&results, &judge(&results, BARS));
        let mut width = 0;
        for line in text.lines() {
            let cells = line.matches('|').count();
            assert!(cells == 0 || width == 0 || cells == width, "{line}");
            width = cells;
        }
        assert!(text.contains("| 1000 | started, batch | 4 | 2 |"), "{text}");
        assert!(
            text.contains("| 1000 | 4 s | 3 s | 1.33 | **not met** |"),
            "{text}"
        );
        assert!(text.contains("| restart | 1000 | kms calls 0 |"), "{text}");
    }
}
