//! Durations of Go.

use jiff::SignedDuration;

/// No interval is longer, in seconds.
const MAX: i64 = 999_999_999;

/// What Go's `time.ParseDuration` makes of a text, in whole seconds, of which one that began counts.
pub(super) fn parse(text: &str) -> Option<SignedDuration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(SignedDuration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut nanos = 0_u128;
    let mut rest = text;
    while !rest.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit() || c == '.';
        let (number, more) = rest.split_at(rest.find(|c| !is_digit(c))?);
        let (unit, more) = more.split_at(more.find(is_digit).unwrap_or(more.len()));
        nanos = nanos.saturating_add(count(number, nanos_of(unit)?)?);
        rest = more;
    }
    let seconds = i64::try_from(nanos.div_ceil(1_000_000_000)).ok()?;
    (seconds <= MAX).then(|| SignedDuration::from_secs(seconds))
}

fn nanos_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        // The sign of micro, and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ns" => 1,
        _ => return None,
    })
}

/// So many of a unit, in nanoseconds; parts of one are dropped, as Go does.
fn count(number: &str, unit: u64) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.contains('.') || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let read = |digits: &str| match digits {
        "" => Some(0),
        digits => digits.parse::<u64>().ok(),
    };
    // More digits than these are no nanosecond of an hour.
    let part = &part[..part.len().min(15)];
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let unit = u128::from(unit);
    Some(u128::from(read(whole)?) * unit + u128::from(read(part)?) * unit / scale)
}

/// A duration as a KmsSecret writes it.
pub(super) fn write(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts = parts.map(|(number, unit)| format!("{number}{unit}"));
    parts.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_keep_their_length() {
        for (text, written) in [
            ("1h", Some("1h")),
            ("1h0m0s", Some("1h")),
            ("90s", Some("1m30s")),
            ("1.5h", Some("1h30m")),
            ("1500ms", Some("2s")),
            ("1.1h", Some("1h6m")),
            ("100ms200ms700ms", Some("1s")),
            ("+1.h.5h", Some("1h30m")),
            ("1000000\u{b5}s\u{31}000000\u{3bc}s", Some("2s")),
            ("277777h46m39s", Some("277777h46m39s")),
            ("277777h46m40s", None),
            ("99999999999999999999h", None),
            ("1.2.3s", None),
            (".s", None),
            ("0", Some("")),
            ("0s", Some("")),
            ("", None),
            ("1d", None),
            ("h", None),
            ("1", None),
            ("-1h", None),
        ] {
            assert_eq!(parse(text).map(write).as_deref(), written, "{text}");
        }
    }
}
