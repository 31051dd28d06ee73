//! Property tests that get past the parsers: answers that hold the fields that are looked at, with anything behind them.
//!
//! `make fuzz` runs all tests of modules of this name for long, `cargo test` some hundreds of each.

mod notices;
mod places;
mod refusals;
mod sessions;
mod signing;
mod values;

pub(crate) use refusals::refusals;
pub(crate) use values::values;

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::Error;

/// Stands where secrets stand. There is a space in any three characters of it, so no part of it that would count as shown
/// can be a clean word.
pub(crate) const PLANTED: &str = "S +e =c ~r ?e !t";

/// Text, in this form or that; most strategies here are of it.
pub(crate) type Text = BoxedStrategy<String>;

/// Stands where numbers stand that are secret.
pub(crate) const NUMBER: &str = "7391648205";

/// A field by its name, and JSON that fits it.
pub(crate) type Field = (&'static str, Text);

/// What arrived, shown as text where a test fails.
#[derive(Clone)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Some of what was planted is in `shown`.
pub(crate) fn reveals(shown: &str) -> bool {
    let mut parts = PLANTED.as_bytes().windows(5);
    parts.any(|part| std::str::from_utf8(part).is_ok_and(|part| shown.contains(part)))
}

/// Text of odd characters, and of any.
pub(crate) fn odd_text(most: usize) -> Text {
    const ODD: &str =
        "aZ09 -_.:/+=@*~%&<>\"'\\{}[]$\0\t\r\n\u{7f}\u{85}\u{feff}\u{202e}\u{fffd}\u{10ffff}é密🔑";
    let odd: Vec<char> = ODD.chars().collect();
    let one = prop_oneof![6 => select(odd), 1 => any::<char>()];
    vec(one, 0..=most)
        .prop_map(|all| all.into_iter().collect())
        .boxed()
}

/// One of these words, between which there are dots.
pub(crate) fn words(words: &'static str) -> Text {
    let words: Vec<&str> = words.split(" · ").collect();
    select(words).prop_map(str::to_owned).boxed()
}

/// A name or an ARN, more or less.
pub(crate) fn name() -> Text {
    let fixed = words(
        "db · shop/db · acs/ram/user/x · acs:kms:cn-hangzhou:1:secret/shop/db · \
        acs:kms:cn-beijing:1****:secret/db · acs:kms:::: · acs:kms:cn-hangzhou:1:key/k · acs:ram::1:role/shop · \
        acs:sts::1:assumed-role/shop/shop.prod",
    );
    prop_oneof![8 => fixed, 1 => odd_text(200)].boxed()
}

/// A date, most of the time.
pub(crate) fn date() -> Text {
    let odd = words(
        "9999-12-31T23:59:59Z · 9999-12-31T23:59:60Z · -009999-01-02T01:59:59Z · \
        -009999-01-01T00:00:00+25:59:59 · 0000-00-00T00:00:00Z · 1970-01-01T00:00:00Z · \
        1969-12-31T23:59:59.999999999Z · 2200-01-01T00:00:00Z · 2200-01-01T00:00:01Z · 2026-02-29T00:00:00Z · \
        2026-06-01T24:00:00Z · 2026-06-01T00:00:00 · 2026-06-01T00:00Z[Asia/Shanghai] · 2026-06-01 00:00:00z · \
        20260601T000000Z · 1780272000000 · soon",
    );
    let real = (0..5_000_000_000_i64).prop_map(|seconds| {
        let date = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        date.to_string()
    });
    let digits = (any::<i32>(), any::<[u8; 5]>(), any::<u32>()).prop_map(|(year, rest, part)| {
        let [month, day, hour, minute, second] = rest;
        let (year, month, day) = (year % 12_000, month % 14, day % 33);
        let (hour, minute, second) = (hour % 26, minute % 62, second % 62);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{part}Z")
    });
    prop_oneof![5 => real, 2 => odd, 2 => digits].boxed()
}

/// A `RotationInterval`, most of the time.
pub(crate) fn interval() -> Text {
    let unit = select(vec!["s", "m", "h", "d", "S", "", " s", "日"]);
    let count = prop_oneof![
        4 => (0..40_000_000_i64).prop_map(i128::from),
        1 => any::<i64>().prop_map(i128::from),
        1 => any::<i128>(),
    ];
    (count, unit)
        .prop_map(|(count, unit)| format!("{count}{unit}"))
        .boxed()
}

/// One of these words, most of the time.
pub(crate) fn word(words: &'static [&'static str]) -> Text {
    prop_oneof![6 => select(words).prop_map(str::to_owned), 1 => odd_text(20)].boxed()
}

/// The JSON string of a text.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// JSON strings of texts.
pub(crate) fn string(texts: impl Strategy<Value = String> + 'static) -> Text {
    texts.prop_map(|text| quoted(&text)).boxed()
}

/// Any JSON, and some that is nearly none: of the wrong type, without end, or very deep.
pub(crate) fn any_json() -> Text {
    let odd = words(
        "null · true · 0 · -0 · -1 · 429 · 1e400 · -1e-400 · 18446744073709551616 · 0.1e+1 · \"\" · \" \" · \
        \"\\ud83d\" · \"\\u0000\" · \"\\ud83d\\udd11\" · {} · [] · 01",
    );
    let deep = (1..300_usize, any::<bool>()).prop_map(|(depth, is_list)| {
        let (open, close) = if is_list {
            ("[", "]")
        } else {
            ("{\"a\":", "}")
        };
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    });
    let leaf = prop_oneof![
        4 => odd,
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| number.to_string()),
        2 => string(odd_text(24)),
        2 => Just(quoted(PLANTED)),
        1 => Just(NUMBER.to_owned()),
        1 => string(date()),
    ];
    let tree = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            (odd_text(4), inner.clone())
                .prop_map(|(key, value)| format!("{{{}:{value}}}", quoted(&key))),
            // A document in a string, as some of them come.
            inner.prop_map(|value| quoted(&value)),
        ]
    });
    prop_oneof![12 => tree, 1 => deep].boxed()
}

/// A list of JSON.
pub(crate) fn list(of: &Text, most: usize) -> Text {
    vec(of.clone(), 0..=most)
        .prop_map(|items| format!("[{}]", items.join(",")))
        .boxed()
}

/// An object with most of these fields, mostly with what fits them; sometimes one twice, and some that nobody knows.
pub(crate) fn object(fields: Vec<Field>) -> Text {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let known: Vec<_> = fields
        .into_iter()
        .map(|(name, fits)| {
            prop_oneof![
                24 => fits.prop_map(move |json| Some((name.to_owned(), json))),
                2 => any_json().prop_map(move |json| Some((name.to_owned(), json))),
                1 => Just(None),
            ]
        })
        .collect();
    let more = (
        prop_oneof![select(names).prop_map(str::to_owned), odd_text(8)],
        any_json(),
    );
    let more = prop_oneof![5 => Just(Vec::new()), 1 => vec(more, 1..3)];
    (known, more)
        .prop_flat_map(|(known, more)| {
            let all: Vec<_> = known.into_iter().flatten().chain(more).collect();
            Just(all).prop_shuffle()
        })
        .prop_map(|fields| {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, json)| format!("{}:{json}", quoted(name)))
                .collect();
            format!("{{{}}}", fields.join(","))
        })
        .boxed()
}

/// Something that happens to bytes on their way.
#[derive(Clone, Debug)]
enum Damage {
    Cut(Index),
    Flip(Index, u8),
    Insert(Index, &'static str),
    Drop(Index, usize),
    Twice(Index, usize),
}

impl Damage {
    fn happen(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Self::Cut(index) => bytes.truncate(at(index)),
            Self::Flip(index, bit) => {
                let at = at(index);
                bytes
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Self::Insert(index, text) => {
                let at = at(index);
                bytes.splice(at..at, text.bytes());
            }
            Self::Drop(index, length) => {
                let at = at(index);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Self::Twice(index, length) => {
                let at = at(index);
                let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// What may arrive instead of a text.
pub(crate) fn damaged(whole: Text) -> BoxedStrategy<Vec<u8>> {
    const PIECES: [&str; 12] = [
        "\"", "\\", "{", "}", "[", "]", ",", ":", "null", "\0", "\u{feff}", "<!--",
    ];
    let damage = prop_oneof![
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (any::<Index>(), select(PIECES.to_vec())).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Damage::Drop(at, length)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Damage::Twice(at, length)),
    ];
    (whole, vec(damage, 1..4))
        .prop_map(|(whole, damages)| {
            let mut bytes = whole.into_bytes();
            for damage in &damages {
                damage.happen(&mut bytes);
            }
            bytes
        })
        .boxed()
}

/// Bodies of answers: made of fields or taken from these samples, whole or damaged, and sometimes anything.
pub(crate) fn bodies(made: &Text, samples: Vec<String>) -> BoxedStrategy<Body> {
    let sample = select(samples).boxed();
    prop_oneof![
        6 => made.clone().prop_map(String::into_bytes),
        2 => damaged(made.clone()),
        2 => damaged(sample),
        1 => any_json().prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..200),
    ]
    .prop_map(Body)
    .boxed()
}

/// The bodies of answers that the official SDKs were given, of status 200 or of others.
pub(crate) fn samples(is_ok: bool) -> Vec<String> {
    let file = include_str!("../../../tests/vectors/responses.json");
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    let cases = file["cases"].as_array().unwrap().iter();
    cases
        .filter(|case| (case["status"] == 200) == is_ok)
        .map(|case| case["body"].as_str().unwrap().to_owned())
        .collect()
}

/// An answer that was not read says so in a few words of our own.
fn check_malformed(error: &Error) -> Result<(), TestCaseError> {
    prop_assert!(matches!(error, Error::Malformed(_)), "{error:?}");
    let said = format!("{error} {error:?}");
    prop_assert!(
        said.len() < 300 && !reveals(&said) && !said.contains(NUMBER),
        "{said}"
    );
    Ok(())
}

/// How many of 1000 are this, as some samples tell. A generator whose answers are nearly all refused at the door tests the door.
pub(crate) fn share<T: fmt::Debug>(of: &BoxedStrategy<T>, is: impl Fn(&T) -> bool) -> usize {
    const SAMPLES: usize = 250;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut found = 0;
    for _ in 0..SAMPLES {
        let tree = of.new_tree(&mut runner).unwrap();
        found += usize::from(is(&tree.current()));
    }
    found * 1000 / SAMPLES
}

#[test]
fn any_part_of_what_is_planted_counts() {
    for (shown, expected) in [
        (PLANTED, true),
        ("a=c ~b", false),
        ("x =c ~r y", true),
        ("", false),
        ("S+e=c~r?e!t", false),
    ] {
        assert_eq!(reveals(shown), expected, "{shown}");
    }
}
