//! Many secrets in one call.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::actions::{Fields, Wanted, read_value};
use crate::clock::lock;
use crate::controls::Controls;
use crate::envelope::{Outcome, patch, request_id};
use crate::errors::{ApiError, error};
use crate::fault::{Effect, Fault, Faults, Hit};
use crate::hold::{Gate, Reads, pass_all};
use crate::keys::Caller;
use crate::request::ApiRequest;
use crate::secrets::{is_name, plain_name};

pub(crate) const ACTION: &str = "BatchGetSecretValue";
const MOST_ITEMS: usize = 20;

/// What the service makes of `BatchGetSecretValue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Batch {
    /// It answers.
    #[default]
    Present,
    /// It does not know it: 404 `InvalidAction.NotFound`.
    Absent,
    /// It refuses it: 400 `UnsupportedOperation`.
    Unsupported,
}

impl Batch {
    pub(crate) fn check(self) -> Result<(), ApiError> {
        match self {
            Self::Present => Ok(()),
            Self::Absent => Err(error("InvalidAction.NotFound")),
            Self::Unsupported => Err(error("UnsupportedOperation")),
        }
    }
}

/// What is not settled about the real answer, and so must be possible both ways.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct BatchWays {
    pub(crate) support: Batch,
    pub(crate) shuffled: bool,
    pub(crate) plain_names: bool,
    pub(crate) costs_one: bool,
    pub(crate) refuses_repeats: bool,
}

impl Controls {
    // === batches

    /// What the service makes of `BatchGetSecretValue`.
    pub fn set_batch(&self, support: Batch) {
        lock(&self.batch).support = support;
    }

    /// Whether answers come in another order than they were asked for.
    pub fn set_batch_shuffled(&self, shuffled: bool) {
        lock(&self.batch).shuffled = shuffled;
    }

    /// Whether answers name secrets by their plain names even if ARNs were asked for.
    pub fn set_batch_plain_names(&self, plain: bool) {
        lock(&self.batch).plain_names = plain;
    }

    /// Whether a batch costs the limit one call, instead of one for each item.
    pub fn set_batch_costs_one(&self, one: bool) {
        lock(&self.batch).costs_one = one;
    }

    /// Whether a batch that names a secret twice is refused as a whole.
    pub fn set_batch_refuses_repeats(&self, refuses: bool) {
        lock(&self.batch).refuses_repeats = refuses;
    }
}

/// An item as it is asked for.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    secret_name: String,
    version_stage: Option<String>,
    version_id: Option<String>,
    fetch_extended_config: Option<String>,
}

/// One read among those of a batch.
pub(crate) struct Item {
    name: String,
    pub(crate) key: String,
    pub(crate) stage: Option<String>,
    pub(crate) version_id: Option<String>,
    extended: bool,
    fault: Option<Fault>,
}

/// The reads of a batch call, in the order of the request.
pub(crate) struct BatchCall {
    pub(crate) items: Vec<Item>,
}

impl BatchCall {
    pub(crate) fn parse(
        request: &ApiRequest,
        account: &str,
        controls: &Controls,
    ) -> Result<Self, ApiError> {
        let wrong = || {
            error("InvalidParameter").message("The specified parameter SecretsList is not valid.")
        };
        let text = request.param("SecretsList").ok_or_else(wrong)?;
        let asked: Vec<Asked> = serde_json::from_str(text).map_err(|_| wrong())?;
        if asked.is_empty() || asked.len() > MOST_ITEMS {
            return Err(wrong());
        }
        let secrets = lock(&controls.secrets);
        let item = |asked: Asked| {
            let given = |text: Option<String>| text.filter(|text| !text.is_empty());
            Item {
                key: secrets.key_for(&asked.secret_name, account),
                name: asked.secret_name,
                stage: given(asked.version_stage),
                version_id: given(asked.version_id),
                extended: asked
                    .fetch_extended_config
                    .is_some_and(|text| text.eq_ignore_ascii_case("true")),
                fault: None,
            }
        };
        let items: Vec<Item> = asked.into_iter().map(item).collect();
        let different: HashSet<&str> = items.iter().map(|item| item.key.as_str()).collect();
        let has_repeats = different.len() < items.len();
        if has_repeats && lock(&controls.batch).refuses_repeats {
            return Err(wrong());
        }
        Ok(Self { items })
    }

    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.items.len()).unwrap_or(u32::MAX)
    }

    /// Finds the faults of the items' secrets. One that is no matter of an item is answered: it hits the whole call.
    pub(crate) fn take_faults(
        &mut self,
        faults: &mut Faults,
        access_key: &str,
        is_hit: bool,
    ) -> Option<Fault> {
        let mut whole = None;
        for item in &mut self.items {
            let call = Hit {
                action: ACTION,
                secret: Some(&item.key),
                access_key: Some(access_key),
            };
            let may_hit_all = !is_hit && whole.is_none();
            let taken = faults.take_if(&call, |fault| {
                fault.secret.is_some() && (may_hit_all || fault.effect.suits_an_item())
            });
            match taken {
                Some(fault) if fault.effect.suits_an_item() => item.fault = Some(fault),
                Some(fault) => whole = Some(fault),
                None => {}
            }
        }
        whole
    }

    /// Reads all items at once.
    pub(crate) fn read(&self, caller: &Caller, controls: &Controls) -> Vec<Outcome> {
        let read = |item: &Item| item.read(caller, controls);
        self.items.iter().map(read).collect()
    }

    /// The same, kept back by the gate of any item.
    pub(crate) async fn read_behind_gates(
        &self,
        caller: &Caller,
        controls: &Controls,
    ) -> Vec<Outcome> {
        let gates: Vec<Option<Arc<Gate>>> = {
            let mut holds = lock(&controls.holds);
            let keys = self.items.iter().map(|item| &item.key);
            keys.map(|key| holds.gate(key)).collect()
        };
        let mut outcomes = self.read(caller, controls);
        let mut closed: Vec<Arc<Gate>> = gates.iter().flatten().cloned().collect();
        closed.sort_by_key(|gate| Arc::as_ptr(gate).addr());
        closed.dedup_by(|a, b| Arc::ptr_eq(a, b));
        pass_all(&closed).await;
        for ((item, gate), outcome) in self.items.iter().zip(gates).zip(&mut outcomes) {
            if gate.is_some_and(|gate| gate.reads == Reads::AtRelease) {
                *outcome = item.read(caller, controls);
            }
        }
        outcomes
    }

    /// The answer: what could be read, and what could not.
    pub(crate) fn write(&self, outcomes: &[Outcome], controls: &Controls) -> Fields {
        let ways = *lock(&controls.batch);
        let mut pairs: Vec<_> = self.items.iter().zip(outcomes).collect();
        if ways.shuffled {
            shuffle(&mut pairs);
        }
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for (item, outcome) in pairs {
            match outcome {
                Ok(answer) => values.push(Value::Object(answer.clone())),
                Err(error) => errors.push(json!({
                    "SecretName": item.shown_name(ways),
                    "Code": error.code,
                    "HttpStatus": error.status,
                    "Message": error.message,
                })),
            }
        }
        let mut answer = Fields::new();
        answer.insert("SecretValues".to_owned(), values.into());
        answer.insert("Errors".to_owned(), errors.into());
        answer
    }
}

impl Item {
    pub(crate) fn effect(&self) -> Option<&Effect> {
        self.fault.as_ref().map(|fault| &fault.effect)
    }

    fn shown_name(&self, ways: BatchWays) -> &str {
        if ways.plain_names {
            plain_name(&self.name)
        } else {
            &self.name
        }
    }

    fn read(&self, caller: &Caller, controls: &Controls) -> Outcome {
        if let Some(Effect::Error(error)) = self.effect() {
            return Err(error.clone());
        }
        if !is_name(&self.name) {
            return Err(error("InvalidParameter")
                .message("The specified parameter SecretName is not valid."));
        }
        let wanted = Wanted {
            key: &self.key,
            stage: self.stage.as_deref(),
            version_id: self.version_id.as_deref(),
            extended: self.extended,
        };
        let mut answer = read_value(&wanted, caller, controls)?;
        let ways = *lock(&controls.batch);
        answer.insert("SecretName".to_owned(), self.shown_name(ways).into());
        answer.insert("RequestId".to_owned(), request_id().into());
        Ok(match self.effect() {
            Some(Effect::Patch { fields }) => patch(answer, fields),
            _ => answer,
        })
    }
}

/// Another order than before, if there is one.
fn shuffle<T: Copy>(items: &mut [T]) {
    let mut order: Vec<(Uuid, usize)> = (0..items.len()).map(|at| (Uuid::new_v4(), at)).collect();
    order.sort();
    if order.is_sorted_by_key(|(_, at)| *at) {
        order.rotate_left(1.min(items.len()));
    }
    let shuffled: Vec<T> = order.into_iter().map(|(_, at)| items[at]).collect();
    items.copy_from_slice(&shuffled);
}
