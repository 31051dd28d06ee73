//! Rows as a table for people. Pure.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::line;
use super::standing::{Row, Standing};

/// Messages are cut after so many characters where the table is not wide.
const MESSAGE_MAX: usize = 80;
/// Enough of a version to tell it from the one before.
const VERSION_SHORT: usize = 8;
const GAP: &str = "   ";

/// What a table shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// Objects of several namespaces.
    pub(super) namespaces: bool,
    /// Everything, in full.
    pub(super) wide: bool,
}

/// The table, a line for each row.
pub(super) fn render(rows: &[&Row], shown: Shown, now: Timestamp) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = vec![heads(shown)];
    lines.extend(rows.iter().map(|row| cells(row, shown, now)));
    let columns = lines[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widths = lines.iter().map(|line| line[column].chars().count());
            widths.max().unwrap_or_default()
        })
        .collect();
    let mut table = String::new();
    for cells in lines {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}{GAP}");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// How many there are of each kind.
pub(super) fn summary(rows: &[Row]) -> String {
    let counts = Standing::ALL.iter().filter_map(|standing| {
        let count = rows.iter().filter(|row| row.standing == *standing).count();
        (count > 0).then(|| format!("{count} {}", standing.as_str()))
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    match rows.len() {
        1 => format!("1 KmsSecret: {counts}\n"),
        all => format!("{all} KmsSecrets: {counts}\n"),
    }
}

fn heads(shown: Shown) -> Vec<String> {
    let mut heads = vec![
        "NAME",
        "READY",
        "REASON",
        "SECRET",
        "VERSION",
        "LAST SYNC",
        "NEXT SYNC",
        "NEXT ROTATION",
    ];
    if shown.namespaces {
        heads.insert(0, "NAMESPACE");
    }
    if shown.wide {
        heads.push("STORE");
    }
    heads.push("MESSAGE");
    heads.into_iter().map(ToOwned::to_owned).collect()
}

fn cells(row: &Row, shown: Shown, now: Timestamp) -> Vec<String> {
    let or_none = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), line);
    let cut = |text: &str, most: usize| {
        let text = line(text);
        if shown.wide || text.chars().count() <= most {
            return text;
        }
        text.chars().take(most - 1).chain(['…']).collect()
    };
    let version = row.version.as_deref().map(|version| match version {
        long if !shown.wide => long.chars().take(VERSION_SHORT).collect(),
        whole => whole.to_owned(),
    });
    let mut cells = vec![
        row.name.clone(),
        or_none(row.ready.as_deref()),
        or_none(row.reason.as_deref()),
        line(&row.secret),
        or_none(version.as_deref()),
        or_none(past(row.last_sync_time.as_ref(), now).as_deref()),
        or_none(next_sync(row, now).as_deref()),
        or_none(to_come(row.next_rotation_date.as_ref(), now).as_deref()),
    ];
    if shown.namespaces {
        cells.insert(0, row.namespace.clone());
    }
    if shown.wide {
        cells.push(line(&row.store));
    }
    cells.push(cut(row.message.as_deref().unwrap_or_default(), MESSAGE_MAX));
    cells
}

fn past(time: Option<&Time>, now: Timestamp) -> Option<String> {
    time.map(|time| span(now.duration_since(time.0)))
}

/// What is past in a status that is not written after each read is due, and late only once that explains it no more.
fn next_sync(row: &Row, now: Timestamp) -> Option<String> {
    let next = row.next_sync_time.as_ref()?.0;
    Some(if next > now {
        format!("in {}", span(next.duration_since(now)))
    } else if row.standing == Standing::Late {
        format!("{} late", span(now.duration_since(next)))
    } else {
        "due".to_owned()
    })
}

fn to_come(time: Option<&Time>, now: Timestamp) -> Option<String> {
    let time = time?.0;
    Some(if time > now {
        format!("in {}", span(time.duration_since(now)))
    } else {
        format!("{} ago", span(now.duration_since(time)))
    })
}

/// A time span as kubectl writes ages: its largest unit, and the next one while that matters.
fn span(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: i64, unit: &str, small: i64, smaller: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{smaller}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn row(name: &str, standing: Standing) -> Row {
        Row {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            standing,
            ready: Some("True".to_owned()),
            reason: Some("Synced".to_owned()),
            message: None,
            secret: name.to_owned(),
            store: "kms".to_owned(),
            version: Some("bc13b568-1cff-4978-b7bb-76a46ecfcbd2".to_owned()),
            last_sync_time: Some(Time(at(0))),
            next_sync_time: Some(Time(at(3600))),
            next_rotation_date: None,
        }
    }

    #[test]
    fn the_columns_stand_below_their_heads() {
        let failing = Row {
            ready: Some("False".to_owned()),
            reason: Some("AccessDenied".to_owned()),
            message: Some(format!("denied\u{1b}[31m {}\nmore", "x".repeat(90))),
            version: None,
            last_sync_time: None,
            next_sync_time: None,
            ..row("mailer", Standing::Failing)
        };
        let fine = Row {
            next_rotation_date: Some(Time(at(86_400 * 3))),
            ..row("orders-db", Standing::Fine)
        };
        let shown = Shown::default();
        let expected = format!(
            "\
NAME        READY   REASON         SECRET      VERSION    LAST SYNC   NEXT SYNC   NEXT ROTATION   MESSAGE
mailer      False   AccessDenied   mailer      -          -           -           -               denied [31m {}…
orders-db   True    Synced         orders-db   bc13b568   5m          in 55m      in 2d23h
",
            "x".repeat(MESSAGE_MAX - 13)
        );
        assert_eq!(render(&[&failing, &fine], shown, at(300)), expected);

        let all = Shown {
            namespaces: true,
            wide: true,
        };
        let wide = render(&[&failing, &fine], all, at(300));
        let heads = wide.lines().next().unwrap();
        assert!(heads.starts_with("NAMESPACE   NAME"), "{wide}");
        assert!(heads.contains("STORE   MESSAGE"), "{wide}");
        assert!(wide.contains(&"x".repeat(90)), "{wide}");
        assert!(
            wide.contains("bc13b568-1cff-4978-b7bb-76a46ecfcbd2"),
            "{wide}"
        );
        assert_eq!(render(&[], shown, at(0)), "");
    }

    #[test]
    fn a_plan_that_passed_is_due_and_only_a_late_one_late() {
        let fine = row("db", Standing::Fine);
        assert_eq!(next_sync(&fine, at(3590)).as_deref(), Some("in 10s"));
        assert_eq!(next_sync(&fine, at(3612)).as_deref(), Some("due"));
        let late = row("db", Standing::Late);
        assert_eq!(next_sync(&late, at(3612)).as_deref(), Some("12s late"));
    }

    #[test]
    fn the_closing_line_counts() {
        let rows = [
            row("a", Standing::Failing),
            row("b", Standing::Fine),
            row("c", Standing::Fine),
        ];
        assert_eq!(summary(&rows), "3 KmsSecrets: 1 failing, 2 fine\n");
        assert_eq!(summary(&rows[1..2]), "1 KmsSecret: 1 fine\n");
    }

    #[test]
    fn spans_are_as_kubectl_writes_them() {
        for (seconds, text) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (3600, "60m"),
            (4 * 3600 + 60, "4h1m"),
            (8 * 3600 + 60, "8h"),
            (3 * 86_400, "3d"),
            (3 * 86_400 + 7200, "3d2h"),
            (400 * 86_400, "400d"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
    }
}
