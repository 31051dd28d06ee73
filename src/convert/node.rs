//! A manifest that remembers which of its fields were read, so that none can be dropped in silence.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The paths that were read.
pub(super) type Seen = RefCell<BTreeSet<String>>;

/// A place in a manifest; there may be nothing at it.
#[derive(Clone)]
pub(super) struct Node<'a> {
    value: Option<&'a Value>,
    /// How the report names it.
    pub(super) path: String,
    seen: &'a Seen,
}

impl<'a> Node<'a> {
    pub(super) fn new(value: &'a Value, path: &str, seen: &'a Seen) -> Self {
        Self {
            value: Some(value),
            path: path.to_owned(),
            seen,
        }
    }

    /// A field of it.
    pub(super) fn at(&self, name: &str) -> Self {
        Self {
            value: self.value.and_then(|value| value.get(name)),
            path: format!("{}.{name}", self.path),
            seen: self.seen,
        }
    }

    /// Whether anything is there.
    pub(super) fn is_there(&self) -> bool {
        !self.value.is_none_or(is_empty)
    }

    /// The same, which counts as having read all of it.
    pub(super) fn is_given(&self) -> bool {
        self.mark();
        self.is_there()
    }

    fn mark(&self) {
        self.seen.borrow_mut().insert(self.path.clone());
    }

    /// A text. Another type of value stays unread; an empty text is none, as in Go's structs.
    pub(super) fn text(&self) -> Option<String> {
        let text = self.value?.as_str()?;
        self.mark();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// True or false.
    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.value?.as_bool()?;
        self.mark();
        Some(flag)
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = self.value.and_then(Value::as_array).into_iter().flatten();
        let item = |(index, value)| Self {
            value: Some(value),
            path: format!("{}[{index}]", self.path),
            seen: self.seen,
        };
        items.enumerate().map(item).collect()
    }

    /// A list of texts.
    pub(super) fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(Self::text).collect()
    }

    /// Names and texts.
    pub(super) fn pairs(&self) -> BTreeMap<String, String> {
        let fields = self.value.and_then(Value::as_object).into_iter().flatten();
        let pairs = fields.filter_map(|(name, value)| {
            let text = value.as_str()?;
            self.at(name).mark();
            Some((name.clone(), text.to_owned()))
        });
        pairs.collect()
    }

    /// The paths at which something is that nobody read.
    pub(super) fn unread(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.is_there() && !self.seen.borrow().contains(&self.path) {
            match self.value {
                Some(Value::Object(fields)) => {
                    found.extend(fields.keys().flat_map(|name| self.at(name).unread()));
                }
                Some(Value::Array(_)) => {
                    found.extend(self.items().iter().flat_map(Self::unread));
                }
                _ => found.push(self.path.clone()),
            }
        }
        found
    }
}

/// What no manifest means anything by.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_read_is_named() {
        let value = json!({"a": {"b": "x", "c": 1, "d": null}, "l": [{"m": "y"}, {"n": true}], "e": {}, "f": ""});
        let seen = Seen::default();
        let root = Node::new(&value, "spec", &seen);
        assert_eq!(
            root.unread(),
            ["spec.a.b", "spec.a.c", "spec.l[0].m", "spec.l[1].n"]
        );
        assert_eq!(root.at("a").at("b").text().as_deref(), Some("x"));
        assert_eq!(root.at("a").at("c").text(), None, "it is no text");
        assert_eq!(root.at("l").items()[1].at("n").flag(), Some(true));
        assert_eq!(root.unread(), ["spec.a.c", "spec.l[0].m"]);
        assert!(root.at("l").is_given());
        assert_eq!(root.unread(), ["spec.a.c"]);
    }
}
