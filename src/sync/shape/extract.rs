//! The top-level fields of a JSON object as keys.

use std::borrow::Cow;

use jmespath::Variable;
use regex::{Regex, RegexBuilder};
use secrecy::SecretString;

use super::document::{cut, to_text};
use crate::api::kms_secret::{Extract, Rename};
use crate::sync::{Failure, Reason};

/// The longest key that the API server takes.
const KEY_MAX: usize = 253;
/// A name may be longer than a key until the last rename, but not without end.
const NAME_MAX: usize = 1024;
/// What a regular expression may take when it is compiled.
const REGEX_MAX: usize = 64 << 10;

/// The keys and values of an object's fields, in the order of their names. Fields that are null are left out, as a path
/// finds nothing there.
pub(super) fn extract(
    wanted: &Extract,
    json: &Variable,
) -> Result<Vec<(String, SecretString)>, Failure> {
    let Variable::Object(fields) = json else {
        return Err(Failure::new(
            Reason::ValueInvalid,
            "the value is JSON, but not an object, so it has no fields",
            "store an object in KMS, or take the value by spec.data",
        ));
    };
    let renames = wanted.rename.iter().map(compile);
    let renames: Vec<_> = renames.collect::<Result<_, _>>()?;
    let prefix = wanted.prefix.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for (name, field) in fields {
        let at = |failure: Failure| failure.at(format_args!("field {:?}", cut(name)));
        if let Some(text) = to_text(field).map_err(at)? {
            let key = key(format!("{prefix}{name}"), &renames).map_err(at)?;
            found.push((key, text));
        }
    }
    if found.is_empty() {
        return Err(Failure::new(
            Reason::ValueInvalid,
            "the object has no fields, or all of them are null",
            "store fields in KMS",
        ));
    }
    Ok(found)
}

fn compile(rename: &Rename) -> Result<(Regex, &str), Failure> {
    let pattern = &rename.pattern;
    let regex = RegexBuilder::new(pattern)
        .size_limit(REGEX_MAX)
        .dfa_size_limit(REGEX_MAX)
        .build()
        .map_err(|err| {
            let what = match err {
                regex::Error::CompiledTooBig(_) => "too large",
                _ => "not a regular expression",
            };
            Failure::new(
                Reason::SpecInvalid,
                format!("the pattern {pattern:?} is {what}"),
                "mend it; the syntax is that of RE2 and Go, as at docs.rs/regex",
            )
        })?;
    let replacement = rename.replacement.as_str();
    match unknown_group(&regex, replacement) {
        None => Ok((regex, replacement)),
        Some(group) => Err(Failure::new(
            Reason::SpecInvalid,
            format!(
                "the replacement {replacement:?} names a group {group:?} that the pattern {pattern:?} has not"
            ),
            "mend it; before a letter, a digit or an underscore write ${1}, not $1",
        )),
    }
}

/// The first group that a replacement names and the pattern lacks: `$1_x` is a group of the name `1_x`, for which
/// nothing would be put in.
fn unknown_group<'a>(regex: &Regex, replacement: &'a str) -> Option<&'a str> {
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let is_over = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let group = if let Some(braced) = rest.strip_prefix('{') {
            braced.split_once('}')?.0
        } else {
            rest.split(is_over).next()?
        };
        let is_known = match group.parse::<usize>() {
            Ok(index) => index < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|name| name == group),
        };
        if !is_known && !group.is_empty() {
            return Some(group);
        }
    }
    None
}

/// The key of a field, if it is one that a Secret can have.
fn key(name: String, renames: &[(Regex, &str)]) -> Result<String, Failure> {
    let mut name = name;
    for (pattern, replacement) in renames {
        if name.len() > NAME_MAX {
            break;
        }
        if let Cow::Owned(renamed) = pattern.replace_all(&name, *replacement) {
            name = renamed;
        }
    }
    if is_key(&name) {
        return Ok(name);
    }
    Err(Failure::new(
        Reason::ValueInvalid,
        format!("{:?} cannot be a key of a Secret", cut(&name)),
        "rename it by rename: keys have 1 to 253 characters of A-Z a-z 0-9 - _ .",
    ))
}

/// The API server takes this as a key.
pub(super) fn is_key(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=KEY_MAX).contains(&name.len())
        && name.chars().all(is_legal)
        && name != "."
        && !name.starts_with("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    fn wanted(prefix: &str, rename: &[(&str, &str)]) -> Extract {
        let rename = rename.iter().map(|(pattern, replacement)| Rename {
            pattern: (*pattern).into(),
            replacement: (*replacement).into(),
        });
        Extract {
            prefix: Some(prefix.into()),
            rename: rename.collect(),
            ..Extract::default()
        }
    }

    fn found(wanted: &Extract, json: &str) -> Result<Vec<(String, String)>, Failure> {
        let found = extract(wanted, &serde_json::from_str(json).unwrap())?;
        let shown = found
            .into_iter()
            .map(|(key, text)| (key, text.expose_secret().to_owned()));
        Ok(shown.collect())
    }

    fn keys(wanted: &Extract, json: &str) -> Vec<String> {
        let found = found(wanted, json).unwrap();
        found.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn every_field_becomes_a_key_and_null_none() {
        let json = r#"{"user":"a b","port":5432,"tls":true,"o":{"x":[1]},"none":null,"e":""}"#;
        let expected = [
            ("e", ""),
            ("o", r#"{"x":[1]}"#),
            ("port", "5432"),
            ("tls", "true"),
            ("user", "a b"),
        ]
        .map(|(key, text)| (key.to_owned(), text.to_owned()));
        assert_eq!(found(&wanted("", &[]), json).unwrap(), expected);
    }

    #[test]
    fn names_get_the_prefix_and_then_every_rename() {
        let json = r#"{"account name":"a","AccountPassword":"b"}"#;
        for (prefix, rename, expected) in [
            (
                "db.",
                &[(" ", "_")][..],
                ["db.AccountPassword", "db.account_name"],
            ),
            (
                "",
                &[(" ", "_"), ("^(.*)$", "DB_$1")],
                ["DB_AccountPassword", "DB_account_name"],
            ),
            ("X", &[("(?i)^xaccount ?", "")], ["Password", "name"]),
            (
                "",
                &[("a", "$$"), (r"\$", "s"), (" ", "")],
                ["AccountPsssword", "sccountnsme"],
            ),
            (
                "",
                &[("^(?P<first>.).*", "${first}_$first")],
                ["A_A", "a_a"],
            ),
        ] {
            assert_eq!(keys(&wanted(prefix, rename), json), expected, "{rename:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_key_names_the_field_and_no_value() {
        let long = "x".repeat(254);
        for (json, word) in [
            (r#"{"a/b":"secret"}"#.to_owned(), "\"a/b\""),
            (r#"{"密":"secret"}"#.to_owned(), "密"),
            (r#"{"":"secret"}"#.to_owned(), "\"\""),
            (r#"{"..":"secret"}"#.to_owned(), "\"..\""),
            (format!(r#"{{"{long}":"secret"}}"#), &long[..64]),
            (r#"["secret"]"#.to_owned(), "not an object"),
            ("{}".to_owned(), "no fields"),
            (r#"{"secret":null}"#.to_owned(), "no fields"),
            (r#"{"n":12345678901234567890123}"#.to_owned(), "\"n\""),
        ] {
            let failure = found(&wanted("", &[]), &json).unwrap_err();
            assert_eq!(failure.reason, Reason::ValueInvalid);
            let message = failure.message();
            assert!(
                message.contains(word) && !message.contains("secret\""),
                "{message}"
            );
            assert!(message.len() < 400, "{message}");
        }
    }

    #[test]
    fn a_rename_that_cannot_work_is_refused() {
        for (pattern, replacement, word) in [
            ("(", "", "not a regular expression"),
            (r"(\w{50}){50}", "", "too large"),
            ("(.*)", "$1_old", "\"1_old\""),
            ("(.*)", "${2}", "\"2\""),
            ("(.*)", "$name", "\"name\""),
        ] {
            let failure =
                found(&wanted("", &[(pattern, replacement)]), r#"{"a":"x"}"#).unwrap_err();
            assert_eq!(failure.reason, Reason::SpecInvalid);
            assert!(failure.what.contains(word), "{failure:?}");
        }
        let grows = wanted("", &[("x*", "y".repeat(256).as_str()); 8]);
        assert!(found(&grows, &format!(r#"{{"{}":"a"}}"#, "z".repeat(900))).is_err());
    }

    proptest! {
        #[test]
        fn no_field_and_no_rename_makes_an_illegal_key(
            name in ".{0,40}", prefix in "[-._a-zA-Z0-9]{0,9}", pattern in ".{0,20}", replacement in ".{0,20}"
        ) {
            let json = serde_json::json!({name: "planted", "b": 1}).to_string();
            match found(&wanted(&prefix, &[(&pattern, &replacement)]), &json) {
                Ok(found) => prop_assert!(found.iter().all(|(key, _)| is_key(key)), "{:?}", found),
                Err(failure) => {
                    let said = format!("{failure:?}");
                    prop_assert!(!said.contains("planted"), "{}", said);
                }
            }
        }
    }
}
