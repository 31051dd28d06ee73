//! Secrets, over the admin API.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Span, done, found, nowhere, read, wrong};
use crate::clock::lock;
use crate::controls::Controls;
use crate::hold::Reads;
use crate::managed::{Automatic, Managed};
use crate::request::ApiRequest;

/// A secret to be made or given a new value.
#[derive(Deserialize)]
pub(crate) struct Put {
    name: String,
    text: Option<String>,
    base64: Option<String>,
    managed: Option<Managed>,
    version_id: Option<String>,
}

impl Put {
    pub(crate) fn apply(self, controls: &Controls) -> Answer {
        let name = &self.name;
        let version_id = match (self.managed, self.base64, self.text, self.version_id) {
            (Some(managed), None, None, None) => controls.put_managed(name, managed),
            (None, Some(base64), None, None) => {
                let bytes = STANDARD
                    .decode(base64)
                    .map_err(|_| wrong("base64 is not Base64."))?;
                controls.put_binary(name, &bytes)
            }
            (None, None, Some(text), Some(id)) => {
                controls.put_generic_version(name, &id, &text)?;
                id
            }
            (None, None, Some(text), None) => controls.put_generic(name, &text),
            _ => {
                return Err(wrong(
                    "Give one of text, base64 and managed; version_id goes with text.",
                ));
            }
        };
        Ok(json!({ "version_id": version_id }))
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Rotate {
    name: String,
    value: Option<String>,
}

#[derive(Deserialize)]
struct Move {
    name: String,
    stage: String,
    version_id: String,
}

#[derive(Deserialize)]
struct Plan {
    name: String,
    status: Option<Automatic>,
    lateness: Option<Span>,
    interval: Option<Span>,
    next: Option<Timestamp>,
    moves_next_date: Option<bool>,
}

impl Plan {
    fn apply(self, controls: &Controls) -> Answer {
        let name = &self.name;
        if let Some(status) = self.status {
            controls.set_rotation_status(name, status)?;
        }
        if let Some(Span(lateness)) = self.lateness {
            controls.set_lateness(name, lateness)?;
        }
        if let Some(Span(interval)) = self.interval {
            controls.set_interval(name, interval)?;
        }
        if let Some(next) = self.next {
            controls.set_next_rotation(name, next)?;
        }
        if let Some(moves) = self.moves_next_date {
            controls.set_moves_next_date(name, moves)?;
        }
        done()
    }
}

#[derive(Deserialize)]
struct HoldName {
    name: String,
    #[serde(default)]
    at_release: bool,
}

pub(super) fn change_secret(controls: &Controls, verb: &str, request: &ApiRequest) -> Answer {
    match verb {
        "put" => read::<Put>(request)?.apply(controls),
        "rotation" => read::<Plan>(request)?.apply(controls),
        "rotate" => {
            let Rotate { name, value } = read(request)?;
            let id = match value {
                Some(value) => controls.rotate_to(&name, &value)?,
                None => controls.rotate(&name)?,
            };
            Ok(json!({ "version_id": id }))
        }
        "delete" => {
            let Named { name } = read(request)?;
            found(controls.delete(&name))
        }
        "move-stage" => {
            let Move {
                name,
                stage,
                version_id,
            } = read(request)?;
            controls.move_stage(&name, &stage, &version_id)?;
            done()
        }
        "hold" => {
            let HoldName { name, at_release } = read(request)?;
            let reads = if at_release {
                Reads::AtRelease
            } else {
                Reads::AtArrival
            };
            let hold = controls.hold_reading(&name, reads);
            lock(&controls.admin_holds).insert(name, hold);
            done()
        }
        "release" => {
            let Named { name } = read(request)?;
            let hold = lock(&controls.admin_holds).remove(&name);
            found(hold.is_some())
        }
        _ => nowhere(),
    }
}
