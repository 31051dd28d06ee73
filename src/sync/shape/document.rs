//! The documents that KMS answered with, each parsed once, and what is found in them as the text of a key.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io;

use jmespath::{Rcvar, Variable};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use crate::alibaba::secret_value::{SecretValue, decode_base64};
use crate::api::kms_secret::Document;
use crate::sync::{Failure, Reason};

/// The API server's limit on the data of a Secret.
pub(super) const DATA_MAX: usize = 1 << 20;
/// A miss lists this many of the fields that are there,
const NAMES_MAX: usize = 20;
/// and so many characters of each.
const NAME_MAX: usize = 64;

/// A source by its name, and its value; `None`: it is optional and does not exist.
#[derive(Clone, Copy, Debug)]
pub struct Sourced<'a> {
    /// Name of the source.
    pub name: &'a str,
    /// What KMS answered.
    pub value: Option<&'a SecretValue>,
}

/// A parsed document, or why it is none.
type Parsed = OnceCell<Result<Rcvar, Failure>>;

/// The documents of one source.
pub(super) struct Documents<'a> {
    pub(super) name: &'a str,
    value: &'a SecretValue,
    json: Parsed,
    extended: Parsed,
}

/// The sources by their names; `None`: it is optional and does not exist.
pub(super) type Sources<'a> = BTreeMap<&'a str, Option<Documents<'a>>>;

/// The sources, of which nothing is parsed yet.
pub(super) fn sources<'a>(all: &[Sourced<'a>]) -> Sources<'a> {
    let documents = all.iter().map(|source| {
        let documents = source.value.map(|value| Documents {
            name: source.name,
            value,
            json: OnceCell::new(),
            extended: OnceCell::new(),
        });
        (source.name, documents)
    });
    documents.collect()
}

/// The source that is asked for by name, or the only one; `None` if it is optional and does not exist.
pub(super) fn choose<'a, 's>(
    sources: &'s Sources<'a>,
    asked: Option<&str>,
) -> Result<Option<&'s Documents<'a>>, Failure> {
    let found = match asked {
        Some(name) => sources.get(name),
        None if sources.len() == 1 => sources.values().next(),
        None => None,
    };
    // The schema rules it out; an object from before the rule could still ask for it.
    found.map(Option::as_ref).ok_or_else(|| {
        Failure::new(
            Reason::SpecInvalid,
            "no source of spec.sources is named",
            "name it by source",
        )
    })
}

impl<'a> Documents<'a> {
    /// Says of a binary value that it is Base64.
    pub(super) fn is_binary(&self) -> bool {
        self.value.facts.is_binary()
    }

    /// A document as KMS answered it.
    pub(super) fn raw(&self, document: Document) -> Result<&'a SecretString, Failure> {
        match document {
            Document::Value => Ok(&self.value.data),
            Document::ExtendedConfig => self.value.extended_config.as_ref().ok_or_else(|| {
                Failure::new(
                    Reason::ValueInvalid,
                    "KMS answered no extended configuration",
                    "set fetchExtendedConfig: true on the source; generic secrets have none",
                )
            }),
        }
    }

    /// The value as text: of a binary one, what it encodes.
    pub(super) fn text(&self) -> Result<SecretString, Failure> {
        if !self.is_binary() {
            return Ok(self.value.data.clone());
        }
        let bytes = decode_base64(self.value.data.expose_secret())
            .map_err(|_| no_text("the binary value is not Base64"))?;
        let text = std::str::from_utf8(bytes.expose_secret())
            .map_err(|_| no_text("the value is binary, and no text"))?;
        Ok(text.into())
    }

    /// A document as JSON.
    pub(super) fn json(&self, document: Document) -> Result<&Rcvar, Failure> {
        let parsed = match document {
            Document::Value => self
                .json
                .get_or_init(|| parse(self.text()?.expose_secret())),
            Document::ExtendedConfig => self.extended.get_or_init(|| {
                parse_twice_escaped(self.raw(document)?.expose_secret())
                    .ok_or_else(|| no_json("the extended configuration is no JSON"))
            }),
        };
        parsed.as_ref().map_err(Clone::clone)
    }
}

fn no_text(what: &str) -> Failure {
    let action = "take the whole value, without a path or a template";
    Failure::new(Reason::ValueInvalid, what, action)
}

fn no_json(what: impl Into<String>) -> Failure {
    let action = "store JSON in KMS, or take the whole value, without a path";
    Failure::new(Reason::ValueInvalid, what, action)
}

fn parse(text: &str) -> Result<Rcvar, Failure> {
    serde_json::from_str(text).map(Rcvar::new).map_err(|err| {
        let (line, column) = (err.line(), err.column());
        no_json(format!(
            "the value is no JSON (line {line} column {column})"
        ))
    })
}

/// `ExtendedConfig` is a string that holds JSON; in the newest document's example it is escaped once more.
fn parse_twice_escaped(text: &str) -> Option<Rcvar> {
    let parsed = serde_json::from_str(text).ok().or_else(|| {
        let unescaped: String = serde_json::from_str(&format!("\"{text}\"")).ok()?;
        serde_json::from_str(&unescaped).ok()
    });
    parsed.map(Rcvar::new)
}

/// What was found as the text of a key: text as it is, anything else as compact JSON. `None` if it is null.
pub(super) fn to_text(found: &impl Serialize) -> Result<Option<SecretString>, Failure> {
    let mut json = Capped::default();
    serde_json::to_writer(&mut json, found).map_err(|_| too_large())?;
    let json = json.into_text();
    let is_exact = || serde_json::from_str(&json).is_ok_and(|number| !loses_digits(&number));
    match json.bytes().next() {
        None | Some(b'n') => Ok(None),
        Some(b'"') => Ok(serde_json::from_str(&json).ok()),
        Some(b'-' | b'0'..=b'9') if !is_exact() => Err(Failure::new(
            Reason::ValueInvalid,
            "the number is larger than what a JSON number keeps exactly",
            "store it as text in KMS",
        )),
        _ => Ok(Some(json.into())),
    }
}

/// Beyond 2^53 a floating-point number no longer holds every whole one.
fn loses_digits(number: &serde_json::Number) -> bool {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= EXACT)
}

/// Takes what a Secret can hold, and then no more.
#[derive(Default)]
pub(super) struct Capped(Vec<u8>);

impl Capped {
    /// What was written, which must have been text.
    pub(super) fn into_text(self) -> String {
        String::from_utf8(self.0).unwrap_or_default()
    }
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > DATA_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn too_large() -> Failure {
    Failure::new(
        Reason::ValueInvalid,
        format!("it would be larger than the {DATA_MAX} bytes that a Secret holds"),
        "take less of the value",
    )
}

/// The names of the fields that are there, never their values.
pub(super) fn field_names(json: &Variable) -> String {
    let Variable::Object(fields) = json else {
        return " (the value is JSON, but not an object)".into();
    };
    format!(" ({})", list_names(fields.keys()))
}

/// `the fields are "a", "b", …`
pub(super) fn list_names<T: AsRef<str>>(names: impl ExactSizeIterator<Item = T>) -> String {
    let count = names.len();
    let names: Vec<_> = names
        .take(NAMES_MAX)
        .map(|name| format!("{:?}", cut(name.as_ref())))
        .collect();
    let more = if count > NAMES_MAX { ", …" } else { "" };
    match names.as_slice() {
        [] => "there are no fields".into(),
        names => format!("the fields are {}{more}", names.join(", ")),
    }
}

/// The beginning of a name, for messages.
pub(super) fn cut(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::secret_value::Facts;
    use serde_json::json;

    fn value(data: &str, kind: &str) -> SecretValue {
        SecretValue {
            secret_name: "a".into(),
            facts: Facts {
                secret_data_type: Some(kind.into()),
                ..Facts::default()
            },
            data: data.into(),
            extended_config: None,
        }
    }

    fn shown(found: &serde_json::Value) -> Result<Option<String>, Failure> {
        Ok(to_text(found)?.map(|text| text.expose_secret().to_owned()))
    }

    #[test]
    fn text_is_taken_as_it_is_and_the_rest_as_compact_json() {
        for (found, expected) in [
            (json!("a \"b\"\n\u{1F511}"), Some("a \"b\"\n\u{1F511}")),
            (json!("null"), Some("null")),
            (json!(""), Some("")),
            (json!(1), Some("1")),
            (json!(-1.0), Some("-1.0")),
            (
                json!(18_446_744_073_709_551_615_u64),
                Some("18446744073709551615"),
            ),
            (json!(true), Some("true")),
            (
                json!({"b": [1, null], "a": "<&>"}),
                Some(r#"{"a":"<&>","b":[1,null]}"#),
            ),
            (json!(null), None),
        ] {
            assert_eq!(shown(&found).unwrap().as_deref(), expected, "{found}");
        }
    }

    #[test]
    fn what_would_lose_digits_or_is_too_large_is_refused() {
        let huge: serde_json::Value = serde_json::from_str("12345678901234567890123").unwrap();
        assert!(shown(&huge).unwrap_err().what.contains("exactly"));
        assert!(shown(&json!(["x".repeat(DATA_MAX)])).is_err());
    }

    #[test]
    fn a_binary_value_is_the_text_that_it_encodes() {
        let read = |data: &str, kind: &str| {
            let value = value(data, kind);
            let only = Sourced {
                name: "s",
                value: Some(&value),
            };
            let sources = sources(&[only]);
            let documents = choose(&sources, None).unwrap().unwrap();
            documents.text().map(|text| text.expose_secret().to_owned())
        };
        assert_eq!(read("eyJhIjoiYiJ9", "text").unwrap(), "eyJhIjoiYiJ9");
        assert_eq!(read("eyJhIjoiYiJ9", "binary").unwrap(), r#"{"a":"b"}"#);
        assert!(
            read("AAEC/w==", "binary")
                .unwrap_err()
                .what
                .contains("binary")
        );
        assert!(
            read("secret!", "binary")
                .unwrap_err()
                .what
                .contains("Base64")
        );
    }

    #[test]
    fn names_are_listed_up_to_a_number_and_a_length() {
        let fields: serde_json::Map<_, _> = (0..30)
            .map(|n| (format!("{n:02}{}", "x".repeat(100)), json!("secret")))
            .collect();
        let json = Variable::try_from(serde_json::Value::Object(fields)).unwrap();
        let said = field_names(&json);
        assert!(said.contains("\"00") && said.contains("\"19") && said.ends_with(", …)"));
        assert!(
            !said.contains("\"20") && !said.contains(&"x".repeat(63)) && !said.contains("secret")
        );
    }
}
