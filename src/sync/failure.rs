//! Why an attempt failed, and what the user is told of it.

use std::fmt;
use std::time::Duration;

use super::Reason;

/// Why an attempt failed, in words for people: nothing in it comes from a value or from a foreign error text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub reason: Reason,
    /// What happened, to which object.
    pub what: String,
    /// What to do, and who can do it.
    pub action: String,
    /// The error code of the service, where it gave one.
    pub code: Option<String>,
    /// How long the service asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that has no error code of a service.
    #[must_use]
    pub fn new(reason: Reason, what: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            reason,
            what: what.into(),
            action: action.into(),
            code: None,
            retry_after: None,
        }
    }

    /// The same, of a place: a key, a field.
    #[must_use]
    pub(super) fn at(self, place: impl fmt::Display) -> Self {
        Self {
            what: format!("{place}: {}", self.what),
            ..self
        }
    }

    /// The message of a condition or an Event.
    #[must_use]
    pub fn message(&self) -> String {
        format!(
            "{}. {}.",
            capitalised(&self.what),
            capitalised(&self.action)
        )
    }
}

/// A sentence. What begins with a command or a field stays as it is, to be copied.
fn capitalised(text: &str) -> String {
    let first = text.split(' ').next().unwrap_or_default();
    if first == "kubectl" || first.contains('.') {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sentences_but_for_what_is_to_be_copied() {
        for (what, action, message) in [
            ("it broke", "mend it", "It broke. Mend it."),
            ("it broke", "kubectl label x", "It broke. kubectl label x."),
            ("spec.a is none", "mend it", "spec.a is none. Mend it."),
            ("", "", ". ."),
        ] {
            let failure = Failure::new(Reason::SpecInvalid, what, action);
            assert_eq!(failure.message(), message);
        }
    }
}
