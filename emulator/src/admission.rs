//! Whether a call is let in, and what will happen to it.

use std::time::Instant;

use tokio::time::sleep;

use crate::actions::{Action, Fields, act, route};
use crate::batch::BatchCall;
use crate::calls::ItemEnd;
use crate::clock::lock;
use crate::controls::Controls;
use crate::envelope::Outcome;
use crate::errors::ApiError;
use crate::fault::{Effect, Fault, Hit};
use crate::gateway::{code_of, name_of, version_in};
use crate::hold::{Reads, pass_all};
use crate::keys::Caller;
use crate::request::ApiRequest;
use crate::roles::account_in;
use crate::verify::{Claims, check, spend_nonce};

/// A call that passed the gateway.
pub(crate) struct Admitted {
    work: Work,
    caller: Caller,
    fault: Option<Fault>,
}

enum Work {
    One(Action, Option<String>),
    Batch(BatchCall),
}

/// A call that is done, and what the answer is made of.
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    pub(crate) fault: Option<Fault>,
    pub(crate) items: Vec<ItemEnd>,
}

impl Done {
    pub(crate) fn refused(refusal: ApiError) -> Self {
        Self {
            outcome: Err(refusal),
            fault: None,
            items: Vec::new(),
        }
    }
}

/// The key of the secret that a call names, seen from that account.
pub(crate) fn secret_key(
    controls: &Controls,
    request: &ApiRequest,
    account: &str,
) -> Option<String> {
    let name = request.param("SecretName")?;
    Some(lock(&controls.secrets).key_for(name, account))
}

pub(crate) fn admit(
    controls: &Controls,
    request: &ApiRequest,
    claims: &Claims<'_>,
) -> Result<Admitted, ApiError> {
    let action = route(claims.action, claims.version)?;
    let ways = *lock(&controls.batch);
    if action == Action::BatchGetSecretValue {
        ways.support.check()?;
    }
    let caller = identify(controls, request, claims, action)?;
    let batch = (action == Action::BatchGetSecretValue)
        .then(|| BatchCall::parse(request, &caller.account, controls));
    let cost = match &batch {
        Some(Ok(batch)) if !ways.costs_one => f64::from(batch.size()),
        _ => 1.0,
    };
    lock(&controls.throttling).take(&caller.account, cost, Instant::now())?;
    let mut work = match batch {
        Some(batch) => Work::Batch(batch?),
        None => Work::One(action, secret_key(controls, request, &caller.account)),
    };
    let fault = take_faults(controls, claims.action, &mut work, &caller.access_key);
    Ok(Admitted {
        work,
        caller,
        fault,
    })
}

fn identify(
    controls: &Controls,
    request: &ApiRequest,
    claims: &Claims<'_>,
    action: Action,
) -> Result<Caller, ApiError> {
    if action.is_unsigned() {
        let payer = request.param("RoleArn").and_then(account_in);
        let own = lock(&controls.keys).account().to_owned();
        return Ok(Caller::anonymous(payer.unwrap_or(&own)));
    }
    let now = controls.clock.shown();
    let caller = check(request, claims, &lock(&controls.keys), now)?;
    spend_nonce(&mut lock(&controls.nonces), claims, now)?;
    Ok(caller)
}

fn take_faults(
    controls: &Controls,
    action: &str,
    work: &mut Work,
    access_key: &str,
) -> Option<Fault> {
    let mut faults = lock(&controls.faults);
    let secret = match work {
        Work::One(_, secret) => secret.as_deref(),
        Work::Batch(_) => None,
    };
    let fault = faults.take(&Hit {
        action,
        secret,
        access_key: Some(access_key),
    });
    let is_over = |fault: &Fault| !fault.effect.needs_outcome();
    match work {
        Work::Batch(batch) if !fault.as_ref().is_some_and(is_over) => {
            let of_an_item = batch.take_faults(&mut faults, access_key, fault.is_some());
            fault.or(of_an_item)
        }
        _ => fault,
    }
}

impl Admitted {
    pub(crate) async fn perform(self, controls: &Controls, request: &ApiRequest) -> Done {
        let (outcome, items) = match self.fault.as_ref().map(|fault| &fault.effect) {
            Some(Effect::Hang) => std::future::pending().await,
            Some(effect) if !effect.needs_outcome() => (Ok(Fields::new()), Vec::new()),
            Some(Effect::Delay { seconds }) => {
                let done = self.run(controls, request);
                sleep(*seconds).await;
                done
            }
            _ => self.run_behind_gates(controls, request).await,
        };
        Done {
            outcome,
            fault: self.fault,
            items,
        }
    }

    fn run(&self, controls: &Controls, request: &ApiRequest) -> (Outcome, Vec<ItemEnd>) {
        match &self.work {
            Work::One(action, _) => (act(*action, request, &self.caller, controls), Vec::new()),
            Work::Batch(batch) => {
                let outcomes = batch.read(&self.caller, controls);
                finish_batch(batch, &outcomes, controls)
            }
        }
    }

    async fn run_behind_gates(
        &self,
        controls: &Controls,
        request: &ApiRequest,
    ) -> (Outcome, Vec<ItemEnd>) {
        let key = match &self.work {
            Work::One(_, key) => key,
            Work::Batch(batch) => {
                let outcomes = batch.read_behind_gates(&self.caller, controls).await;
                return finish_batch(batch, &outcomes, controls);
            }
        };
        let gate = key.as_ref().and_then(|key| lock(&controls.holds).gate(key));
        let Some(gate) = gate else {
            return self.run(controls, request);
        };
        match gate.reads {
            Reads::AtArrival => {
                let done = self.run(controls, request);
                pass_all(&[gate]).await;
                done
            }
            Reads::AtRelease => {
                pass_all(&[gate]).await;
                self.run(controls, request)
            }
        }
    }
}

fn finish_batch(
    batch: &BatchCall,
    outcomes: &[Outcome],
    controls: &Controls,
) -> (Outcome, Vec<ItemEnd>) {
    let end = |(item, outcome): (&crate::batch::Item, &Outcome)| {
        let said = match (item.effect(), outcome) {
            (Some(effect), Ok(_)) => name_of(effect, outcome),
            _ => code_of(outcome),
        };
        (said, version_in(outcome))
    };
    let ends = batch.items.iter().zip(outcomes).map(end).collect();
    (Ok(batch.write(outcomes, controls)), ends)
}
