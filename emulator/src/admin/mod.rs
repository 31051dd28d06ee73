//! The admin API: what the library can do, as JSON over HTTP.

mod access;
mod secrets;

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::batch::Batch;
use crate::clock::lock;
use crate::controls::Controls;
use crate::errors::{ApiError, error};
use crate::fault::{Effect, Fault, FaultId};
use crate::managed::seconds;
use crate::request::ApiRequest;
use crate::throttle::Throttle;

pub(crate) use access::{AddKey, AddProvider, Instance, TrustTokens};
use access::{change_key, change_oidc, change_policies, change_role, change_sessions};
pub(crate) use secrets::Put;
use secrets::change_secret;

/// A path that KMS does not use.
pub(crate) const PREFIX: &str = "/_emulator/";

type Answer = Result<Value, ApiError>;

/// Does what the request asks of the emulator itself.
pub(crate) fn administer(controls: &Controls, request: &ApiRequest) -> Answer {
    let path = request.path.strip_prefix(PREFIX).unwrap_or_default();
    if request.method == Method::GET {
        return look(controls, path, request);
    }
    if request.method != Method::POST {
        return Err(error("UnsupportedHTTPMethod"));
    }
    let (topic, verb) = path.split_once('/').unwrap_or((path, ""));
    match topic {
        "secrets" => change_secret(controls, verb, request),
        "keys" => change_key(controls, verb, request),
        "faults" => change_faults(controls, verb, request),
        "clock" => change_clock(controls, verb, request),
        "roles" => change_role(controls, verb, request),
        "oidc" => change_oidc(controls, verb, request),
        "policies" => change_policies(controls, verb, request),
        "sessions" => change_sessions(controls, request),
        "metadata" => {
            read::<Instance>(request)?.apply(controls);
            done()
        }
        "batch" => read::<ChangeBatch>(request)?.apply(controls),
        "throttle" => change_throttle(controls, request),
        "latency" => {
            let Seconds { seconds } = read(request)?;
            controls.set_latency(seconds);
            done()
        }
        "calls" if verb == "reset" => {
            controls.reset_calls();
            done()
        }
        _ => nowhere(),
    }
}

fn look(controls: &Controls, path: &str, request: &ApiRequest) -> Answer {
    let name = || {
        request
            .param("name")
            .ok_or_else(|| error("MissingParameter").message("name is missing."))
    };
    Ok(match path {
        "health" => json!({ "status": "ok" }),
        "clock" => json!({ "now": controls.now() }),
        "secrets" => json!(controls.secrets()),
        "current" => {
            let current = controls
                .current(name()?)
                .ok_or_else(|| error("Forbidden.ResourceNotFound"))?;
            json!({ "version_id": current.version_id, "value": current.value })
        }
        "history" => {
            let entry = |r: crate::Readable| json!({ "version_id": r.version_id, "value": r.value, "since": r.since });
            controls.history(name()?).into_iter().map(entry).collect()
        }
        "faults" => {
            let entry = |(id, fault)| json!({ "id": id, "fault": fault });
            lock(&controls.faults)
                .list()
                .into_iter()
                .map(entry)
                .collect()
        }
        "calls" => json!(controls.calls()),
        "reads" => json!(controls.reads()),
        "counts" => json!({
            "counts": controls.counts(),
            "reads": controls.read_counts(),
            "in_flight": controls.in_flight(),
            "peak_in_flight": controls.peak_in_flight(),
        }),
        _ => return nowhere(),
    })
}

/// Seconds in JSON.
#[derive(Clone, Copy, Deserialize)]
#[serde(transparent)]
struct Span(#[serde(with = "seconds")] Duration);

/// What `BatchGetSecretValue` does, as far as it shall change.
#[derive(Deserialize)]
struct ChangeBatch {
    support: Option<Batch>,
    shuffled: Option<bool>,
    plain_names: Option<bool>,
    costs_one: Option<bool>,
    refuses_repeats: Option<bool>,
}

impl ChangeBatch {
    fn apply(self, controls: &Controls) -> Answer {
        if let Some(support) = self.support {
            controls.set_batch(support);
        }
        if let Some(shuffled) = self.shuffled {
            controls.set_batch_shuffled(shuffled);
        }
        if let Some(plain) = self.plain_names {
            controls.set_batch_plain_names(plain);
        }
        if let Some(one) = self.costs_one {
            controls.set_batch_costs_one(one);
        }
        if let Some(refuses) = self.refuses_repeats {
            controls.set_batch_refuses_repeats(refuses);
        }
        done()
    }
}

/// Limits all accounts, or the one that the body names; without a limit it lifts it.
fn change_throttle(controls: &Controls, request: &ApiRequest) -> Answer {
    let mut given: Map<String, Value> = read(request)?;
    let account = given.remove("account");
    let limit: Option<Throttle> = if given.is_empty() {
        None
    } else {
        Some(serde_json::from_value(given.into()).map_err(|e| wrong(&e.to_string()))?)
    };
    match account {
        None => controls.throttle(limit),
        Some(Value::String(account)) => controls.throttle_account(&account, limit),
        Some(_) => return Err(wrong("account is no text.")),
    }
    done()
}

#[derive(Deserialize)]
struct ClearFault {
    id: Option<FaultId>,
}

fn change_faults(controls: &Controls, verb: &str, request: &ApiRequest) -> Answer {
    match verb {
        "add" => Ok(json!({ "id": controls.fault(read_fault(request)?) })),
        "clear" => {
            if let Some(id) = read::<ClearFault>(request)?.id {
                return found(controls.clear_fault(id));
            }
            controls.clear_faults();
            done()
        }
        _ => nowhere(),
    }
}

/// An error may be given by its code alone.
fn read_fault(request: &ApiRequest) -> Result<Fault, ApiError> {
    let mut given: Value = read(request)?;
    let bare_code = given["code"].as_str().filter(|_| given["status"].is_null());
    if let Some(known) = bare_code.map(|code| Effect::Error(error(code)))
        && let (Some(given), Ok(Value::Object(known))) =
            (given.as_object_mut(), serde_json::to_value(known))
    {
        for (name, value) in known {
            given.entry(name).or_insert(value);
        }
    }
    serde_json::from_value(given).map_err(|e| wrong(&e.to_string()))
}

#[derive(Deserialize)]
struct Seconds {
    #[serde(with = "seconds")]
    seconds: Duration,
}

#[derive(Deserialize)]
struct Now {
    now: Timestamp,
}

fn change_clock(controls: &Controls, verb: &str, request: &ApiRequest) -> Answer {
    match verb {
        "advance" => controls.advance(read::<Seconds>(request)?.seconds),
        "set" => controls.set_now(read::<Now>(request)?.now),
        _ => return nowhere(),
    }
    Ok(json!({ "now": controls.now() }))
}

fn read<T: DeserializeOwned>(request: &ApiRequest) -> Result<T, ApiError> {
    let body: &[u8] = if request.body.is_empty() {
        b"{}"
    } else {
        &request.body
    };
    serde_json::from_slice(body).map_err(|e| wrong(&e.to_string()))
}

fn wrong(text: &str) -> ApiError {
    error("InvalidParameter").message(text)
}

#[expect(clippy::unnecessary_wraps, reason = "it ends functions that can fail")]
fn done() -> Answer {
    Ok(json!({}))
}

fn found(found: bool) -> Answer {
    if found {
        done()
    } else {
        Err(error("Forbidden.ResourceNotFound"))
    }
}

fn nowhere() -> Answer {
    Err(error("InvalidAction.NotFound").message("There is no such path in the admin API."))
}
