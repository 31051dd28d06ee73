//! Durations of Go.

use jiff::SignedDuration;

/// What Go's `time.ParseDuration` makes of a text, in whole seconds.
pub(super) fn parse(text: &str) -> Option<SignedDuration> {
    if text == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut seconds = 0.0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && seconds < 1e9).then(|| SignedDuration::from_secs_f64(seconds.ceil()))
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
