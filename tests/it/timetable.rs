//! The tables of `docs/rotation.md`, reckoned anew.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kms_secret_operator::api::kms_secret::{RefreshPolicy, SourceStatus};
use kms_secret_operator::sync::schedule::{Overdue, Schedule, overdue};

use crate::docs::read;

/// The rows of the table with this header, without it.
fn table(header: &str) -> Vec<Vec<String>> {
    let page = read("docs/rotation.md");
    let (_, rest) = page
        .split_once(header)
        .unwrap_or_else(|| panic!("no table {header}"));
    let rows = rest
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

fn duration(text: &str) -> SignedDuration {
    text.parse().unwrap_or_else(|err| panic!("{text}: {err}"))
}

fn source(secret_type: &str, interval: &str) -> SourceStatus {
    let word = |word: &str| (!word.is_empty()).then(|| word.to_owned());
    SourceStatus {
        secret_type: word(secret_type),
        rotation_interval: word(interval),
        ..SourceStatus::default()
    }
}

fn schedule(sources: &[SourceStatus], hash: u64) -> Schedule<'_> {
    Schedule {
        policy: RefreshPolicy::Rotation,
        interval: None,
        pinned: false,
        sources,
        last_read: Timestamp::UNIX_EPOCH,
        offset: SignedDuration::ZERO,
        hash,
    }
}

#[test]
fn the_examples_of_the_next_read_are_right() {
    let header = "| type | AutomaticRotation | RotationInterval | refresh | KMS announces | next read after |\n";
    let rows = table(header);
    assert!(rows.len() > 10);
    for row in rows {
        let [secret_type, automatic, interval, refresh, announced, next] = &row[..] else {
            panic!("{row:?}");
        };
        let mut source = source(secret_type, interval);
        source.automatic_rotation = (!automatic.is_empty()).then(|| automatic.clone());
        let date = match (
            announced.strip_prefix("in "),
            announced.strip_suffix(" ago"),
        ) {
            (Some(ahead), _) => Some(Timestamp::UNIX_EPOCH + duration(ahead)),
            (_, Some(ago)) => Some(Timestamp::UNIX_EPOCH - duration(ago)),
            _ => None,
        };
        source.next_rotation_date = date.map(Time);
        let sources = [source];
        // The first and the last thousandth of what the uid decides.
        let [least, most] = [0, 999].map(|hash| {
            let mut schedule = schedule(&sources, hash);
            match refresh.as_str() {
                "" => {}
                "pinned" => schedule.pinned = true,
                "Interval" => schedule.policy = RefreshPolicy::Interval,
                "OnChange" => schedule.policy = RefreshPolicy::OnChange,
                interval => schedule.interval = Some(duration(interval)),
            }
            let due = schedule.next()?;
            Some(due.at.duration_since(Timestamp::UNIX_EPOCH))
        });
        if next == "never" {
            assert_eq!(least, None, "{row:?}");
            continue;
        }
        let (from, to) = next.split_once(" to ").unwrap_or((next, next));
        let (from, to) = (duration(from), duration(to));
        assert_eq!(least, Some(from), "{row:?}");
        assert_eq!(most, Some(from + (to - from) * 999 / 1000), "{row:?}");
    }
}

#[test]
fn so_many_reads_confirm_a_late_rotation() {
    for row in table("| late by | reads by then, ceiling 10m | reads by then, ceiling 1h |\n") {
        let late = Timestamp::UNIX_EPOCH + duration(&row[0]);
        for (cell, ceiling) in [(&row[1], "10m"), (&row[2], "1h")] {
            let mut source = source("PolarDB", "604800s");
            source.next_rotation_date = Some(Time(Timestamp::UNIX_EPOCH));
            let sources = [source];
            let mut schedule = schedule(&sources, 0);
            schedule.interval = Some(duration(ceiling));
            schedule.last_read -= duration("1m");
            let reads = std::iter::from_fn(|| {
                schedule.last_read = schedule.next()?.at;
                Some(schedule.last_read)
            });
            let count = reads.take_while(|read| *read <= late).count();
            assert_eq!(cell, &count.to_string(), "{row:?}, ceiling {ceiling}");
        }
    }
}

#[test]
fn a_rotation_is_overdue_when_the_page_says() {
    let rows = table("| type | RotationInterval | RotationOverdue after |\n");
    assert!(rows.len() > 3);
    for row in rows {
        let mut source = source(&row[0], &row[1]);
        source.next_rotation_date = Some(Time(Timestamp::UNIX_EPOCH));
        let patience = Timestamp::UNIX_EPOCH + duration(&row[2]);
        let sources = [source];
        assert_eq!(overdue(&sources, patience), None, "{row:?}");
        let after = patience + duration("1s");
        assert_eq!(overdue(&sources, after), Some(Overdue::Late), "{row:?}");
    }
}
