//! From a request to an answer: who calls, may they, what goes wrong on purpose, what is said.

use std::io;
use std::time::Instant;

use http::Response;
use tokio::time::sleep;

use crate::actions::{Action, Fields, act, route};
use crate::answer::Body;
use crate::calls::{Call, InFlight, PENDING};
use crate::clock::lock;
use crate::controls::Controls;
use crate::envelope::{Envelope, Outcome};
use crate::errors::ApiError;
use crate::fault::{Effect, Fault};
use crate::hold::Reads;
use crate::keys::Caller;
use crate::request::ApiRequest;
use crate::verify::{Claims, check, read_claims, spend_nonce};
use crate::wire::Sabotage;

/// Answers a call; an error ends the connection without an answer.
pub(crate) async fn answer(
    controls: &Controls,
    request: &ApiRequest,
    sabotage: &Sabotage,
) -> io::Result<Response<Body>> {
    let claims = read_claims(request);
    let in_flight = InFlight::begin(&controls.calls, describe(controls, request, &claims));
    let half = controls.latency() / 2;
    pause(half).await;
    let (outcome, fault) = match admit(controls, request, &claims) {
        Ok(admitted) => admitted.perform(controls, request).await,
        Err(refusal) => (Err(refusal), None),
    };
    pause(half).await;
    let envelope = Envelope {
        json: claims.json,
        action: claims.action,
        host: request.host(),
        date: http_date(controls),
    };
    let version = version_in(&outcome);
    let (said, response) = match fault {
        Some(fault) => (
            name_of(&fault.effect, &outcome),
            envelope.write_faulty(&fault, outcome, sabotage),
        ),
        None => (code_of(&outcome), Ok(envelope.write(outcome))),
    };
    let status = response
        .as_ref()
        .map_or(0, |response| response.status().as_u16());
    in_flight.finish(status, &said, version);
    response
}

async fn pause(time: std::time::Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// The right date, whatever the host's clock says.
pub(crate) fn http_date(controls: &Controls) -> String {
    let now = controls.clock.shown();
    now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn describe(controls: &Controls, request: &ApiRequest, claims: &Claims<'_>) -> Call {
    let own = |text: Option<&str>| text.map(str::to_owned);
    Call {
        at: controls.clock.now(),
        since_start: controls.clock.since_start(),
        arrived: Instant::now(),
        took_ms: None,
        action: claims.action.to_owned(),
        secret: own(secret_key(controls, request).as_deref()),
        stage: own(request.param("VersionStage")),
        version_id: own(request.param("VersionId")),
        answered_version: None,
        access_key: own(claims.access_key),
        signature: claims.signature,
        host: request.host().to_owned(),
        status: 0,
        outcome: PENDING.to_owned(),
    }
}

fn secret_key(controls: &Controls, request: &ApiRequest) -> Option<String> {
    let name = request.param("SecretName")?;
    Some(lock(&controls.secrets).key(name).to_owned())
}

/// A call that passed the gateway.
struct Admitted {
    action: Action,
    caller: Caller,
    fault: Option<Fault>,
}

fn admit(
    controls: &Controls,
    request: &ApiRequest,
    claims: &Claims<'_>,
) -> Result<Admitted, ApiError> {
    let action = route(claims.action, claims.version)?;
    let now = controls.clock.shown();
    let caller = check(request, claims, &lock(&controls.keys), now)?;
    spend_nonce(&mut lock(&controls.nonces), claims, now)?;
    lock(&controls.throttling).take(&caller.account, 1.0, Instant::now())?;
    let secret = secret_key(controls, request);
    let key = Some(caller.access_key.as_str());
    let fault = lock(&controls.faults).take(claims.action, secret.as_deref(), key);
    Ok(Admitted {
        action,
        caller,
        fault,
    })
}

impl Admitted {
    async fn perform(self, controls: &Controls, request: &ApiRequest) -> (Outcome, Option<Fault>) {
        let run = || act(self.action, request, &self.caller, controls);
        let outcome = match self.fault.as_ref().map(|fault| &fault.effect) {
            Some(Effect::Hang) => std::future::pending().await,
            Some(effect) if !effect.needs_outcome() => Ok(Fields::new()),
            Some(Effect::Delay { seconds }) => {
                let outcome = run();
                sleep(*seconds).await;
                outcome
            }
            _ => behind_gate(controls, request, run).await,
        };
        (outcome, self.fault)
    }
}

async fn behind_gate(
    controls: &Controls,
    request: &ApiRequest,
    run: impl Fn() -> Outcome,
) -> Outcome {
    let gate = secret_key(controls, request).and_then(|key| lock(&controls.holds).gate(&key));
    let Some(gate) = gate else {
        return run();
    };
    match gate.reads {
        Reads::AtArrival => {
            let outcome = run();
            gate.pass().await;
            outcome
        }
        Reads::AtRelease => {
            gate.pass().await;
            run()
        }
    }
}

impl Effect {
    /// Whether what happens is made of the right answer.
    fn needs_outcome(&self) -> bool {
        matches!(
            self,
            Self::Delay { .. } | Self::Truncated | Self::Patch { .. } | Self::Drip { .. }
        )
    }
}

fn code_of(outcome: &Outcome) -> String {
    match outcome {
        Ok(_) => "OK".to_owned(),
        Err(error) => error.code.clone(),
    }
}

fn version_in(outcome: &Outcome) -> Option<String> {
    let version = outcome.as_ref().ok()?.get("VersionId")?;
    version.as_str().map(str::to_owned)
}

fn name_of(effect: &Effect, outcome: &Outcome) -> String {
    let name = match effect {
        Effect::Error(error) => return error.code.clone(),
        Effect::Delay { .. } => return code_of(outcome),
        Effect::Hang => "Hang",
        Effect::Reset => "Reset",
        Effect::Truncated => "Truncated",
        Effect::Garbage => "Garbage",
        Effect::GarbageBody => "GarbageBody",
        Effect::BadGateway => "BadGateway",
        Effect::Huge { .. } => "Huge",
        Effect::Empty => "Empty",
        Effect::Patch { .. } => "Patch",
        Effect::Redirect { .. } => "Redirect",
        Effect::Drip { .. } => "Drip",
        Effect::Raw { .. } => "Raw",
    };
    format!("Fault.{name}")
}
