//! From values to data, by templates, paths and renames that could have been meant.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::asking::{document, one_of, path, template};
use crate::alibaba::fuzz::{NUMBER, odd_text, reveals};
use crate::alibaba::secret_value::{Facts, SecretValue};
use crate::api::kms_secret::{DataItem, Decode, Document, Extract, Rename};
use crate::sync::Failure;
use crate::sync::shape::{Data, Sourced, Wanted, is_costly, shape};

fn value() -> impl Strategy<Value = SecretValue> {
    let kind = proptest::option::of(select(vec!["text", "text", "text", "text", "binary"]));
    (
        document(),
        kind,
        weighted(0.9, document()),
        proptest::bool::weighted(0.8),
    )
        .prop_map(|(data, kind, extended, is_encoded)| {
            let is_encoded = kind == Some("binary") && is_encoded;
            let data = if is_encoded { base64(&data) } else { data };
            SecretValue {
                secret_name: "a".into(),
                facts: Facts {
                    secret_data_type: kind.map(Into::into),
                    ..Facts::default()
                },
                data: data.into(),
                extended_config: extended.map(Into::into),
            }
        })
}

fn base64(text: &str) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode(text)
}

/// A source, as it is named most of the time where there are two.
fn source() -> impl Strategy<Value = Option<String>> {
    let named = prop_oneof![24 => Just("source"), 2 => Just("previous"), 1 => Just("nobody")];
    weighted(0.95, named.prop_map(str::to_owned))
}

fn item(is_path: bool) -> impl Strategy<Value = DataItem> {
    let made = if is_path { path() } else { template() };
    let decode = weighted(
        0.2,
        select(vec![Decode::Auto, Decode::Base64, Decode::None]),
    );
    let from = weighted(0.2, select(vec![Document::Value, Document::ExtendedConfig]));
    let key = select(vec!["k", "k2", "tls.crt", "tls.key", "A_b-c"]);
    (key, made, decode, from, source()).prop_map(move |(key, made, decode, from, source)| {
        DataItem {
            key: key.into(),
            source,
            from: from.filter(|_| is_path),
            path: Some(made.clone()).filter(|_| is_path),
            template: Some(made).filter(|_| !is_path),
            decode,
        }
    })
}

fn extract() -> impl Strategy<Value = Extract> {
    let pattern = prop_oneof![
        3 => one_of(&["^(.*)$", "[^-._a-zA-Z0-9]", "(?P<first>.)(.*)", "", "a|b", "(?i)A", "$", "\\b", "(x)?", "(", "\\w{300}"]),
        1 => odd_text(8),
    ];
    let replacement = prop_oneof![
        3 => one_of(&["_", "", "DB_$1", "${1}", "$first", "${first}x", "$$", "$1_x", "$9", "${", "x"]),
        1 => odd_text(8),
    ];
    let rename = (pattern, replacement).prop_map(|(pattern, replacement)| Rename {
        pattern,
        replacement,
    });
    let rename = prop_oneof![
        // One that makes keys of all names of the documents here comes first, or few would be extracted.
        6 => vec(rename.clone(), 0..2).prop_map(|mut more| {
            more.insert(0, Rename { pattern: "[^-_a-zA-Z0-9]".into(), replacement: "_".into() });
            more
        }),
        1 => vec(rename, 0..4),
    ];
    let prefix = weighted(0.7, one_of(&["", "p-", "..", ".", "A_"]));
    (prefix, rename, source(), proptest::bool::weighted(0.2)).prop_map(
        |(prefix, rename, source, is_extended)| Extract {
            source,
            from: is_extended.then_some(Document::ExtendedConfig),
            prefix,
            rename,
        },
    )
}

/// What is asked for, of which sources.
#[derive(Clone, Debug)]
struct Asked {
    data: Vec<DataItem>,
    extract: Vec<Extract>,
    target_type: &'static str,
    value: SecretValue,
    /// Another source, if there is one, and what it holds: it is optional.
    previous: Vec<Option<SecretValue>>,
}

impl Asked {
    fn shape(&self) -> Result<Data, Failure> {
        let source = Sourced {
            name: "source",
            value: Some(&self.value),
        };
        let previous = self.previous.iter().map(|value| Sourced {
            name: "previous",
            value: value.as_ref(),
        });
        let sources: Vec<_> = previous.chain([source]).collect();
        shape(&self.wanted(), &sources)
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            data: &self.data,
            extract: &self.extract,
            target_type: self.target_type,
            uid: "uid-1",
        }
    }

    /// Made whole and within what a Secret can be, or told without a word of a value; and the same each time.
    fn check(&self) -> Result<(), TestCaseError> {
        let made = self.shape();
        match (&made, self.shape()) {
            (Ok(made), Ok(again)) => {
                prop_assert_eq!(shown(made), shown(&again));
                prop_assert!(
                    !made.is_empty() && made.keys().all(|key| is_key(key)),
                    "{:?}",
                    made.keys()
                );
                let size: usize = made
                    .iter()
                    .map(|(key, bytes)| key.len() + bytes.expose_secret().len())
                    .sum();
                prop_assert!(size <= 1 << 20, "{} bytes", size);
                let said = format!("{made:?}");
                prop_assert!(!reveals(&said), "{}", said);
            }
            (Err(failure), Err(again)) => {
                prop_assert_eq!(failure, &again);
                let said = format!("{failure:?}");
                prop_assert!(!reveals(&said) && !said.contains(&NUMBER[..8]), "{}", said);
                prop_assert!(!failure.what.is_empty() && !failure.action.is_empty());
                prop_assert!(said.len() < 4000, "{}", said);
            }
            _ => prop_assert!(false, "not the same twice"),
        }
        Ok(())
    }
}

fn shown(data: &Data) -> BTreeMap<&str, &[u8]> {
    data.iter()
        .map(|(key, bytes)| (key.as_str(), bytes.expose_secret()))
        .collect()
}

/// The API server's own rule.
fn is_key(key: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=253).contains(&key.len())
        && key.chars().all(is_legal)
        && key != "."
        && !key.starts_with("..")
}

/// Text as it is; of JSON what is not null, which templates leave out also within.
fn without_nulls(text: &[u8]) -> String {
    fn strip(json: &mut Value) {
        match json {
            Value::Object(fields) => {
                fields.retain(|_, field| !field.is_null());
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let Ok(mut json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_slice(text) else {
        return String::from_utf8_lossy(text).into_owned();
    };
    strip(&mut json);
    json.to_string()
}

fn asked(
    data: BoxedStrategy<Vec<DataItem>>,
    extract: BoxedStrategy<Vec<Extract>>,
) -> BoxedStrategy<Asked> {
    let types = prop_oneof![9 => Just("Opaque"), 1 => Just("kubernetes.io/tls"), 1 => Just("kubernetes.io/basic-auth")];
    let previous = prop_oneof![3 => Just(Vec::new()), 1 => vec(weighted(0.6, value()), 1)];
    (data, extract, types, value(), previous)
        .prop_map(|(data, extract, target_type, value, previous)| Asked {
            data,
            extract,
            target_type,
            value,
            previous,
        })
        .boxed()
}

fn by_templates() -> BoxedStrategy<Asked> {
    asked(vec(item(false), 1..3).boxed(), Just(Vec::new()).boxed())
}

fn by_paths() -> BoxedStrategy<Asked> {
    asked(vec(item(true), 1..3).boxed(), Just(Vec::new()).boxed())
}

fn by_extract() -> BoxedStrategy<Asked> {
    asked(vec(item(true), 0..2).boxed(), vec(extract(), 1..3).boxed())
}

proptest! {
    #[test]
    fn templates_make_all_of_it_or_tell_why_without_the_value(asked in by_templates()) {
        prop_assert!(is_costly(&asked.wanted()));
        asked.check()?;
    }

    #[test]
    fn paths_make_all_of_it_or_tell_why_without_the_value(asked in by_paths()) {
        asked.check()?;
    }

    #[test]
    fn extracts_make_all_of_it_or_tell_why_without_the_value(asked in by_extract()) {
        asked.check()?;
    }

    #[test]
    fn what_a_path_takes_a_template_prints(document in document(), field in select(vec!["a", "b", "n", "list", "o"])) {
        let value = SecretValue {
            secret_name: "a".into(),
            facts: Facts::default(),
            data: document.into(),
            extended_config: None,
        };
        let by = |path: Option<String>, template: Option<String>| {
            let item = DataItem { key: "k".into(), path, template, ..DataItem::default() };
            let asked = Asked {
                data: vec![item],
                extract: Vec::new(),
                target_type: "Opaque",
                value: value.clone(),
                previous: Vec::new(),
            };
            asked.shape().map(|made| made["k"].expose_secret().to_vec())
        };
        let taken = by(Some(field.to_owned()), None);
        let printed = by(None, Some(format!("{{{{ json.{field} }}}}")));
        prop_assert_eq!(taken.is_ok(), printed.is_ok(), "{:?} {:?}", taken, printed);
        if let (Ok(taken), Ok(printed)) = (taken, printed) {
            prop_assert_eq!(without_nulls(&taken), without_nulls(&printed));
        }
    }
}

#[test]
fn many_of_the_specs_make_something() {
    let share = |of| crate::alibaba::fuzz::share(&of, |asked: &Asked| asked.shape().is_ok());
    for (made, least) in [
        (share(by_templates()), 80),
        (share(by_paths()), 50),
        (share(by_extract()), 60),
    ] {
        assert!(made >= least, "{made} of 1000, where {least} were expected");
    }
}
