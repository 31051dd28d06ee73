//! Why a template failed, in words out of the spec and never out of a value.

use std::error::Error as _;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::document::{Documents, cut, list_names, too_large};
use super::filters::Complaint;
use super::grammar::Names;
use crate::api::kms_secret::Document;
use crate::sync::{Failure, Reason};

/// A failure names so many names that are not there.
const MISSING_MAX: usize = 5;

/// It is no template.
pub(super) fn unreadable(err: &Error) -> Failure {
    let line = err.line().unwrap_or(1);
    Failure::new(
        Reason::SpecInvalid,
        format!("the template cannot be read (line {line})"),
        "mend it; see docs/shaping.md",
    )
}

/// Why a template failed: the kind, the line, and names out of the spec; never what minijinja says, which can quote
/// values.
pub(super) fn explain(
    err: &Error,
    names: &Names<'_>,
    context: &Value,
    bound: Option<&Documents<'_>>,
) -> Failure {
    let line = err.line().unwrap_or(1);
    let complaint = err.source().and_then(|source| source.downcast_ref());
    let of_spec = |what: String, action| Failure::new(Reason::SpecInvalid, what, action);
    let of_value = |what: String, action| Failure::new(Reason::ValueInvalid, what, action);
    match (err.kind(), complaint) {
        (_, Some(complaint @ (Complaint::Cost | Complaint::TooManyHashes))) => {
            of_spec(format!("{complaint} (line {line})"), "mend the template")
        }
        (_, Some(complaint)) => of_value(
            format!("{complaint} (line {line})"),
            "mend the template, or the value in KMS",
        ),
        (ErrorKind::UndefinedError, _) => of_value(
            format!(
                "the template takes {} (line {line})",
                missing(line, names, context, bound)
            ),
            "mend the template, or the value in KMS; for what may be missing there are default and \"is defined\"",
        ),
        (ErrorKind::OutOfFuel, _) => of_spec(
            format!("the templates of this KmsSecret do more work than they may (line {line})"),
            "make them smaller",
        ),
        (ErrorKind::WriteFailure, _) => too_large(),
        (ErrorKind::SyntaxError | ErrorKind::BadEscape, _) => unreadable(err),
        _ => of_value(
            format!(
                "the template does not fit the value (line {line}): an operator or a filter got what it cannot take"
            ),
            "mend the template, or the value in KMS",
        ),
    }
}

/// `json.a, which is not there (the fields are "b")`: the names on the line, or else anywhere, that are not there.
fn missing(
    line: usize,
    names: &Names<'_>,
    context: &Value,
    bound: Option<&Documents<'_>>,
) -> String {
    let lost = |is_here: &dyn Fn(usize) -> bool| -> Vec<(String, &str, Value)> {
        let here = names.used.iter().filter(|(at, _)| is_here((*at).into()));
        here.filter(|(_, name)| name.first().is_some_and(|root| !names.own.contains(root)))
            .filter_map(|(_, name)| {
                let (parent, root) = lost_in(name, context)?;
                Some((cut(&name.join(".")), root, parent))
            })
            .take(MISSING_MAX)
            .collect()
    };
    let mut found = lost(&|at| at == line);
    if found.is_empty() {
        found = lost(&|_| true);
    }
    let Some((_, root, parent)) = found.first() else {
        return "something that is not there".into();
    };
    let why = match (*root, bound) {
        ("value", Some(documents)) => documents.text().err().map(|failure| failure.what),
        ("json", Some(documents)) => documents.json(Document::Value).err().map(|no| no.what),
        ("extended", Some(documents)) => {
            let parsed = documents.json(Document::ExtendedConfig);
            parsed.err().map(|failure| failure.what)
        }
        ("value" | "json" | "extended", None) => {
            Some("the key names no source: write sources.<name>, or set data[].source".into())
        }
        _ => None,
    };
    let fields = || match (parent.kind(), parent.try_iter()) {
        (ValueKind::Map, Ok(keys)) => {
            let keys: Vec<String> = keys.map(|key| key.to_string()).collect();
            list_names(keys.iter())
        }
        _ => "what it is taken of has no fields".into(),
    };
    let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
    let names = names.join(", ");
    format!(
        "{names}, which is not there ({})",
        why.unwrap_or_else(fields)
    )
}

/// The last part of a name that is there, and the first word of the name; `None` if all of it is there.
fn lost_in<'n>(name: &[&'n str], context: &Value) -> Option<(Value, &'n str)> {
    let mut parent = context.clone();
    for word in name {
        let next = parent.get_attr(word).unwrap_or_default();
        if next.is_undefined() {
            return Some((parent, name.first()?));
        }
        parent = next;
    }
    None
}
