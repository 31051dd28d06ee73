//! Faults on demand: which calls they hit and what happens then.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::errors::{ApiError, error};
use crate::managed::seconds;

/// What happens to a call that a fault hits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "kebab-case")]
pub enum Effect {
    /// An error answer.
    Error(ApiError),
    /// No answer, ever.
    Hang,
    /// The right answer, read at once and sent later.
    Delay {
        /// How much later.
        #[serde(with = "seconds")]
        seconds: Duration,
    },
    /// The connection is reset without an answer.
    Reset,
    /// The right answer, of which half arrives before the connection ends.
    Truncated,
    /// Bytes that are no HTTP.
    Garbage,
    /// Status 200 with a body that is no JSON.
    GarbageBody,
    /// Status 502 with an HTML page, as from a proxy.
    BadGateway,
    /// Status 200 with a `SecretData` of that many bytes.
    Huge {
        /// Size of the value.
        bytes: u64,
    },
    /// Status 200 with an empty body.
    Empty,
    /// The right answer with these fields replaced; null takes a field away.
    Patch {
        /// Field names and values.
        fields: Map<String, Value>,
    },
    /// Status 302.
    Redirect {
        /// Where to.
        location: String,
    },
    /// The right answer, a few bytes at a time.
    Drip {
        /// Bytes in each piece.
        bytes: usize,
        /// Time before each piece.
        #[serde(with = "seconds")]
        seconds: Duration,
    },
    /// An answer given whole.
    Raw {
        /// HTTP status.
        status: u16,
        /// Headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Body.
        body: String,
    },
}

/// A fault: an effect, the calls that it hits, and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// What happens.
    #[serde(flatten)]
    pub effect: Effect,
    /// Only calls of that action.
    #[serde(default)]
    pub action: Option<String>,
    /// Only calls for that secret.
    #[serde(default)]
    pub secret: Option<String>,
    /// Only calls with that access key.
    #[serde(default)]
    pub access_key: Option<String>,
    /// Only so many calls; otherwise until cleared.
    #[serde(default)]
    pub times: Option<u64>,
    /// The share of calls that are hit, 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// The answer is XML whatever was asked for.
    #[serde(default)]
    pub xml: bool,
}

fn always() -> f64 {
    1.0
}

impl Fault {
    /// A fault with that effect, on every call until cleared.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            action: None,
            secret: None,
            access_key: None,
            times: None,
            probability: 1.0,
            xml: false,
        }
    }

    /// The error of that code with its documented status.
    #[must_use]
    pub fn code(code: &str) -> Self {
        Self::new(Effect::Error(error(code)))
    }

    /// An error answer.
    #[must_use]
    pub fn error(error: ApiError) -> Self {
        Self::new(Effect::Error(error))
    }

    /// The right answer with fields replaced; null takes a field away. `fields` must be an object.
    #[must_use]
    pub fn patch(fields: &Value) -> Self {
        let fields = fields.as_object().cloned().unwrap_or_default();
        Self::new(Effect::Patch { fields })
    }

    /// Status 200 without `SecretData`.
    #[must_use]
    pub fn without_secret_data() -> Self {
        Self::patch(&serde_json::json!({ "SecretData": null }))
    }

    /// Only calls of that action.
    #[must_use]
    pub fn on_action(mut self, action: &str) -> Self {
        self.action = Some(action.to_owned());
        self
    }

    /// Only calls for that secret.
    #[must_use]
    pub fn on_secret(mut self, name: &str) -> Self {
        self.secret = Some(name.to_owned());
        self
    }

    /// Only calls with that access key.
    #[must_use]
    pub fn on_key(mut self, id: &str) -> Self {
        self.access_key = Some(id.to_owned());
        self
    }

    /// Only the next `n` calls.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }

    /// Only that share of the calls.
    #[must_use]
    pub fn with_probability(mut self, share: f64) -> Self {
        self.probability = share;
        self
    }

    /// Answers in XML.
    #[must_use]
    pub fn as_xml(mut self) -> Self {
        self.xml = true;
        self
    }

    fn hits(&self, call: &Hit<'_>) -> bool {
        let fits = |wanted: &Option<String>, got| wanted.is_none() || wanted.as_deref() == got;
        fits(&self.action, Some(call.action))
            && fits(&self.secret, call.secret)
            && fits(&self.access_key, call.access_key)
            && self.times != Some(0)
            && (self.probability >= 1.0 || dice() < self.probability)
    }
}

/// What a fault is compared with.
#[derive(Clone, Copy)]
pub(crate) struct Hit<'a> {
    pub(crate) action: &'a str,
    pub(crate) secret: Option<&'a str>,
    pub(crate) access_key: Option<&'a str>,
}

fn dice() -> f64 {
    let (high, ..) = Uuid::new_v4().as_fields();
    f64::from(high) / f64::from(u32::MAX)
}

/// Names a fault, to clear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultId(pub(crate) u64);

#[derive(Default)]
pub(crate) struct Faults {
    next: u64,
    active: Vec<(FaultId, Fault)>,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) -> FaultId {
        let id = FaultId(self.next);
        self.next += 1;
        self.active.push((id, fault));
        id
    }

    pub(crate) fn clear(&mut self, id: FaultId) -> bool {
        let before = self.active.len();
        self.active.retain(|(known, _)| *known != id);
        before != self.active.len()
    }

    pub(crate) fn clear_all(&mut self) {
        self.active.clear();
    }

    pub(crate) fn list(&self) -> Vec<(FaultId, Fault)> {
        self.active.clone()
    }

    /// The first fault that hits the call; it is used up by one.
    pub(crate) fn take(&mut self, call: &Hit<'_>) -> Option<Fault> {
        self.take_if(call, |_| true)
    }

    /// The first fault that hits the call and is so; it is used up by one.
    pub(crate) fn take_if(
        &mut self,
        call: &Hit<'_>,
        wanted: impl Fn(&Fault) -> bool,
    ) -> Option<Fault> {
        let at = self
            .active
            .iter()
            .position(|(_, fault)| wanted(fault) && fault.hits(call))?;
        let fault = &mut self.active[at].1;
        fault.times = fault.times.map(|n| n - 1);
        let taken = fault.clone();
        if fault.times == Some(0) {
            self.active.remove(at);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_what_it_names_and_so_often() {
        let mut faults = Faults::default();
        let fault = Fault::code("Rejected.Throttling").on_secret("a").times(2);
        faults.add(fault);
        let call = |secret| Hit {
            action: "GetSecretValue",
            secret: Some(secret),
            access_key: None,
        };
        let mut take = |secret| faults.take(&call(secret)).is_some();
        assert!(!take("b"));
        assert!(take("a"));
        assert!(take("a"));
        assert!(!take("a"));
    }

    #[test]
    fn a_fault_is_written_flat_in_json() {
        let json = r#"{"effect":"drip","bytes":3,"seconds":0.5,"secret":"a"}"#;
        let fault: Fault = serde_json::from_str(json).unwrap();
        assert_eq!(fault.secret.as_deref(), Some("a"));
        assert!(matches!(fault.effect, Effect::Drip { bytes: 3, .. }));
    }
}
