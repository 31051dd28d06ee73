//! Durations of Go, paths of gjson, templates of Go: each by itself.

use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};

use crate::alibaba::fuzz::{odd_text, words};
use crate::api::parse_duration;
use crate::convert::duration;
use crate::convert::gjson::{jmespath, names};
use crate::convert::gotemplate::{Part, parts};

/// What Go names units by, and how many nanoseconds they have.
const UNITS: [(&str, u128); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
];

/// A duration as Go writes it or could have, and its nanoseconds.
fn durations() -> impl Strategy<Value = (String, u128)> {
    let number = prop_oneof![3 => 0..100_u64, 1 => 0..2_000_000_u64];
    let one = (
        number,
        proptest::option::of("[0-9]{1,4}"),
        select(UNITS.to_vec()),
    );
    let one = one.prop_map(|(whole, part, (unit, nanos))| {
        let part_nanos = part.iter().map(|digits| {
            let scale = 10_u128.pow(u32::try_from(digits.len()).unwrap());
            digits.parse::<u128>().unwrap() * nanos / scale
        });
        let total = u128::from(whole) * nanos + part_nanos.sum::<u128>();
        let part = part.map_or_else(String::new, |digits| format!(".{digits}"));
        (format!("{whole}{part}{unit}"), total)
    });
    vec(one, 1..5).prop_map(|all| {
        let text = all.iter().map(|(text, _)| text.as_str()).collect();
        (text, all.iter().map(|(_, nanos)| nanos).sum())
    })
}

/// A path as somebody could have written it who knows gjson, or does not.
fn gjson_path() -> impl Strategy<Value = String> {
    let piece = words(
        "a · b · user_name · 0 · 12 · - · é ·   · . · .. · \\ · \\. · \\* · * · # · | · @this · [ · : · \" · {a,b}",
    );
    prop_oneof![6 => vec(piece, 0..8).prop_map(|all| all.concat()), 1 => odd_text(12)]
}

proptest! {
    #[test]
    fn a_duration_of_go_keeps_its_length_to_the_second((text, nanos) in durations()) {
        let seconds = i64::try_from(nanos.div_ceil(1_000_000_000)).unwrap();
        let expected = (seconds < 1_000_000_000).then(|| SignedDuration::from_secs(seconds));
        let read = duration::parse(&text);
        prop_assert_eq!(read, expected, "{}", text);
        if let Some(read) = read.filter(|read| !read.is_zero()) {
            prop_assert_eq!(parse_duration(&duration::write(read)), Some(read));
        }
    }

    #[test]
    fn what_is_no_duration_is_none_and_what_is_one_can_be_written(
        text in prop_oneof!["[0-9.hmsnuµ+-]{0,12}", odd_text(12), "[0-9]{0,60}[.]?[0-9]{0,60}(h|ns)"]
    ) {
        if let Some(read) = duration::parse(&text) {
            prop_assert!(text.ends_with(['h', 'm', 's']) || text.trim_start_matches('+') == "0");
            let written = duration::write(read);
            prop_assert_eq!(parse_duration(&written), Some(read).filter(|read| !read.is_zero()));
        }
    }

    #[test]
    fn the_jmespath_finds_what_the_names_lead_to(names in vec("[ -~é]{1,8}", 1..4)) {
        let mut value = Value::from("found");
        for name in names.iter().rev() {
            value = Value::Object(Map::from_iter([(name.clone(), value)]));
        }
        let expression = jmespath::compile(&jmespath(&names)).unwrap();
        let found = expression.search(value).unwrap();
        prop_assert_eq!(found.as_string().map(String::as_str), Some("found"));
    }

    #[test]
    fn an_escaped_path_leads_along_its_names(expected in vec("[ -~é]{1,8}", 1..4)) {
        let is_number = |name: &String| name.chars().all(|c| c.is_ascii_digit());
        let escaped = expected.iter().map(|name| {
            let chars = name.chars().map(|c| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") });
            chars.collect::<String>()
        });
        let path = escaped.collect::<Vec<_>>().join(".");
        let read = names(&path);
        if expected.iter().any(is_number) {
            prop_assert!(read.is_err(), "{:?}", read);
        } else {
            prop_assert_eq!(read, Ok(expected));
        }
    }

    #[test]
    fn any_path_is_some_names_or_refused_in_words(path in gjson_path()) {
        match names(&path) {
            Ok(names) => {
                prop_assert!(names.iter().all(|name| !name.is_empty()));
                prop_assert!(jmespath::compile(&jmespath(&names)).is_ok(), "{:?}", names);
            }
            Err(why) => prop_assert!(why.contains("path") && !why.contains(char::is_control), "{}", why),
        }
    }

    #[test]
    fn any_template_is_all_of_its_text_and_keys_or_refused(text in prop_oneof![
        vec(words("{{ · }} · { · } · {{.a}} · {{ .b | b64enc }} · {{- .a -}} · {% · {# · | · .a · .5 · toString ·   · \n · x · é"), 0..9)
            .prop_map(|all| all.concat()),
        odd_text(24),
    ]) {
        match parts(&text) {
            Ok(parts) => {
                let keys = parts.iter().filter(|part| matches!(part, Part::Key(..))).count();
                prop_assert_eq!(keys, text.matches("{{").count(), "{:?}", parts);
                let kept = parts.iter().map(|part| match part {
                    Part::Text(text) => text.len(),
                    Part::Key(..) => 0,
                });
                let spent: usize = text.split("{{").skip(1).map(|rest| rest.find("}}").unwrap_or(0) + 4).sum();
                prop_assert_eq!(kept.sum::<usize>() + spent, text.len());
            }
            Err(why) => prop_assert!(why.len() <= text.len() + 120),
        }
    }
}
