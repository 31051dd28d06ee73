//! From a request to an answer: who calls, may they, what goes wrong on purpose, what is said.

use std::io;
use std::time::Instant;

use http::Response;
use tokio::time::sleep;

use crate::admission::{Done, admit, secret_key};
use crate::answer::Body;
use crate::batch::{self, BatchCall, Item};
use crate::calls::{Call, InFlight, PENDING, Read};
use crate::clock::lock;
use crate::controls::Controls;
use crate::envelope::{Envelope, Outcome};
use crate::fault::Effect;
use crate::request::ApiRequest;
use crate::verify::{Claims, Signature, read_claims};
use crate::wire::Sabotage;

/// Answers a call; an error ends the connection without an answer.
pub(crate) async fn answer(
    controls: &Controls,
    request: &ApiRequest,
    sabotage: &Sabotage,
) -> io::Result<Response<Body>> {
    let claims = read_claims(request);
    let mut in_flight = InFlight::begin(&controls.calls, describe(controls, request, &claims));
    let half = controls.latency() / 2;
    pause(half).await;
    let Done {
        outcome,
        fault,
        items,
    } = match admit(controls, request, &claims) {
        Ok(admitted) => admitted.perform(controls, request).await,
        Err(refusal) => Done::refused(refusal),
    };
    in_flight.end_items(items);
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

/// A call that nothing is known of yet but what it wants.
pub(crate) fn begin_call(controls: &Controls, action: &str, host: &str) -> Call {
    Call {
        at: controls.clock.now(),
        since_start: controls.clock.since_start(),
        arrived: Instant::now(),
        took_ms: None,
        action: action.to_owned(),
        secret: None,
        stage: None,
        version_id: None,
        answered_version: None,
        access_key: None,
        signature: Signature::Unsigned,
        host: host.to_owned(),
        status: 0,
        outcome: PENDING.to_owned(),
        items: Vec::new(),
    }
}

fn describe(controls: &Controls, request: &ApiRequest, claims: &Claims<'_>) -> Call {
    let own = |text: Option<&str>| text.map(str::to_owned);
    let account = lock(&controls.keys)
        .account_of(claims.access_key)
        .to_owned();
    let mut call = Call {
        secret: secret_key(controls, request, &account),
        stage: own(request.param("VersionStage")),
        version_id: own(request.param("VersionId")),
        access_key: own(claims.access_key),
        signature: claims.signature,
        ..begin_call(controls, claims.action, request.host())
    };
    if claims.action == batch::ACTION
        && let Ok(batch) = BatchCall::parse(request, &account, controls)
    {
        call.items = batch
            .items
            .into_iter()
            .map(|item| begin(item, &call))
            .collect();
    }
    call
}

fn begin(item: Item, call: &Call) -> Read {
    Read {
        at: call.at,
        arrived: call.arrived,
        secret: Some(item.key),
        stage: item.stage,
        version_id: item.version_id,
        answered_version: None,
        access_key: call.access_key.clone(),
        outcome: PENDING.to_owned(),
        batched: true,
    }
}

impl Effect {
    /// Whether what happens is made of the right answer.
    pub(crate) fn needs_outcome(&self) -> bool {
        matches!(
            self,
            Self::Delay { .. } | Self::Truncated | Self::Patch { .. } | Self::Drip { .. }
        )
    }

    /// Whether it can happen to one item of a batch without the others.
    pub(crate) fn suits_an_item(&self) -> bool {
        matches!(self, Self::Error(_) | Self::Patch { .. })
    }
}

pub(crate) fn code_of(outcome: &Outcome) -> String {
    match outcome {
        Ok(_) => "OK".to_owned(),
        Err(error) => error.code.clone(),
    }
}

pub(crate) fn version_in(outcome: &Outcome) -> Option<String> {
    let version = outcome.as_ref().ok()?.get("VersionId")?;
    version.as_str().map(str::to_owned)
}

pub(crate) fn name_of(effect: &Effect, outcome: &Outcome) -> String {
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
