//! The day in words: as it passes, and as tables in the end.

use std::time::Duration;

use super::Check;
use super::account::{Account, COUNTED, Line};
use super::trend::{Sample, Trend};

/// Says what the operator has used by the end of an hour.
pub(crate) fn tell_sample(hour: u32, sample: &Sample, calls: u64) {
    let usage = sample.usage;
    eprintln!(
        "hour {hour:2}: resident {:.1} MiB, CPU {:.2} s, {calls} calls to KMS",
        usage.resident, usage.cpu
    );
}

/// Says what comes.
pub(crate) fn announce(what: &str, span: Duration) {
    eprintln!("{what}, for {} s", span.as_secs());
}

/// What the arithmetic says, and what was seen, of all courses.
pub(crate) fn tell_account(account: &Account) {
    let mut header = vec!["KmsSecrets", "N"];
    header.extend(COUNTED);
    let row = |line: &Line| {
        let counts = line.counts.map(|count| {
            let mark = if count.is_met() { "" } else { " (!)" };
            format!("{} / {}{mark}", count.expected(), count.seen)
        });
        let names = [line.course.to_owned(), line.objects.to_string()];
        names.into_iter().chain(counts).collect()
    };
    let mut rows: Vec<_> = account.lines.iter().map(row).collect();
    rows.push(row(&account.sum()));
    tell(&header, &rows);
}

/// Other counts.
pub(crate) fn tell_checks(checks: &[Check]) {
    let rows = checks.iter().map(|(what, count)| {
        let met = if count.is_met() {
            "as expected"
        } else {
            "**not as expected**"
        };
        vec![
            (*what).to_owned(),
            count.expected(),
            count.seen.to_string(),
            met.to_owned(),
        ]
    });
    tell(&["what", "expected", "seen", ""], &rows.collect::<Vec<_>>());
}

pub(crate) fn tell_trends(trends: &[Trend]) {
    let number = |value: Option<f64>| value.map(|value| format!("{value:.3}")).unwrap_or_default();
    let rows = trends.iter().map(|trend| {
        vec![
            format!("{}, {}", trend.what, trend.unit),
            number(trend.early),
            number(trend.late),
            number(trend.limit),
        ]
    });
    tell(
        &["what", "second quarter", "last quarter", "may be"],
        &rows.collect::<Vec<_>>(),
    );
}

fn tell(header: &[&str], rows: &[Vec<String>]) {
    eprintln!("\n| {} |", header.join(" | "));
    eprintln!("|{}", " --- |".repeat(header.len()));
    for row in rows {
        eprintln!("| {} |", row.join(" | "));
    }
}
