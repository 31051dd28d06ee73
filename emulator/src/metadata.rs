//! The instance metadata service, from which instances learn the credentials of their role.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use http::{Method, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::Body;
use crate::calls::InFlight;
use crate::clock::{floor, lock, plus, spell};
use crate::controls::Controls;
use crate::envelope::{Envelope, respond};
use crate::fault::{Effect, Hit};
use crate::gateway::{begin_call, http_date, name_of};
use crate::keys::{Identity, StsKey};
use crate::request::ApiRequest;
use crate::wire::Sabotage;

/// Paths of the metadata service.
pub(crate) const PREFIX: &str = "/latest/";
const TOKEN: &str = "api/token";
const ROLES: &str = "meta-data/ram/security-credentials";
const TTL_HEADER: &str = "x-aliyun-ecs-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aliyun-ecs-metadata-token";
const INSTANCE: &str = "i-emulated";
const LONGEST_TTL: u64 = 21_600;

/// How the metadata service behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataMode {
    /// With tokens and without.
    #[default]
    Both,
    /// Without a token, 403.
    V2Only,
    /// It has no tokens: that call answers 404.
    V1Only,
    /// It has no tokens: that call answers 405.
    V1OnlyNotAllowed,
    /// 500 for everything.
    Broken,
    /// The token call works, and the credentials come with another `Code` than `Success` and without keys.
    NotSuccess,
}

pub(crate) struct Metadata {
    mode: MetadataMode,
    role: Option<String>,
    lifetime: Duration,
    tokens: HashMap<String, Timestamp>,
    issued: Option<(Timestamp, StsKey)>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            mode: MetadataMode::default(),
            role: None,
            lifetime: Duration::from_secs(6 * 3600),
            tokens: HashMap::new(),
            issued: None,
        }
    }
}

impl Controls {
    // === instance metadata

    /// Gives the instance a role, by its name, or takes it away. Without one the metadata service knows no role.
    pub fn set_instance_role(&self, role: Option<&str>) {
        let mut metadata = lock(&self.metadata);
        metadata.role = role.map(str::to_owned);
        metadata.issued = None;
    }

    /// How the metadata service behaves.
    pub fn set_metadata_mode(&self, mode: MetadataMode) {
        lock(&self.metadata).mode = mode;
    }

    /// How long the credentials of the instance live; six hours otherwise. New ones come when a sixth is left.
    pub fn set_instance_lifetime(&self, lifetime: Duration) {
        let mut metadata = lock(&self.metadata);
        metadata.lifetime = lifetime;
        metadata.issued = None;
    }
}

struct Said {
    status: u16,
    content_type: &'static str,
    text: String,
}

impl Said {
    fn new(status: u16, content_type: &'static str, text: String) -> Self {
        Self {
            status,
            content_type,
            text,
        }
    }

    fn text(text: impl Into<String>) -> Self {
        Self::new(200, "text/plain", text.into())
    }

    fn json(value: &Value) -> Self {
        Self::new(200, "application/json", value.to_string())
    }

    /// Errors are pages, as they are on instances.
    fn status(status: u16) -> Self {
        let page = format!("<html><body><h1>{status}</h1></body></html>");
        Self::new(status, "text/html", page)
    }
}

/// Answers a call for metadata. Only faults that name one of its actions hit it.
pub(crate) async fn answer_metadata(
    controls: &Controls,
    request: &ApiRequest,
    sabotage: &Sabotage,
) -> io::Result<Response<Body>> {
    let path = request.path.strip_prefix(PREFIX).unwrap_or_default();
    let action = action_of(path);
    let in_flight = InFlight::begin(
        &controls.calls,
        begin_call(controls, action, request.host()),
    );
    let call = Hit {
        action,
        secret: None,
        access_key: None,
    };
    let fault = lock(&controls.faults).take_if(&call, |fault| fault.action.is_some());
    let envelope = Envelope {
        json: true,
        action,
        host: request.host(),
        date: http_date(controls),
    };
    match fault.as_ref().map(|fault| &fault.effect) {
        Some(Effect::Hang) => std::future::pending().await,
        Some(Effect::Delay { seconds }) => tokio::time::sleep(*seconds).await,
        _ => {}
    }
    let spoils = fault.filter(|fault| !matches!(fault.effect, Effect::Delay { .. }));
    if let Some(fault) = spoils {
        let nothing = Ok(crate::actions::Fields::new());
        let said = name_of(&fault.effect, &nothing);
        let response = envelope.write_faulty(&fault, nothing, sabotage);
        let status = response.as_ref().map_or(0, |it| it.status().as_u16());
        in_flight.finish(status, &said, None);
        return response;
    }
    let said = tell(controls, request, path);
    let outcome = match said.status {
        200 => "OK".to_owned(),
        status => status.to_string(),
    };
    in_flight.finish(said.status, &outcome, None);
    let body = Body::whole(said.text);
    Ok(respond(
        said.status,
        said.content_type,
        body,
        &envelope.date,
    ))
}

fn action_of(path: &str) -> &'static str {
    if path == TOKEN {
        return "MetadataToken";
    }
    match path.strip_prefix(ROLES) {
        Some("" | "/") => "MetadataRole",
        Some(_) => "MetadataCredentials",
        None => "Metadata",
    }
}

fn tell(controls: &Controls, request: &ApiRequest, path: &str) -> Said {
    let now = controls.clock.shown();
    let mut metadata = lock(&controls.metadata);
    if metadata.mode == MetadataMode::Broken {
        return Said::status(500);
    }
    if path == TOKEN {
        return metadata.give_token(request, now);
    }
    if request.method != Method::GET {
        return Said::status(405);
    }
    if let Err(status) = metadata.check_token(request.header(TOKEN_HEADER), now) {
        return Said::status(status);
    }
    if path == "meta-data/region-id" {
        return Said::text(controls.region.as_str());
    }
    let Some(role) = metadata.role.clone() else {
        return Said::status(404);
    };
    match path.strip_prefix(ROLES) {
        Some("" | "/") => Said::text(role),
        Some(asked) if asked.strip_prefix('/') == Some(&role) => {
            metadata.give_credentials(&role, controls, now)
        }
        _ => Said::status(404),
    }
}

impl Metadata {
    fn give_token(&mut self, request: &ApiRequest, now: Timestamp) -> Said {
        match self.mode {
            MetadataMode::V1Only => return Said::status(404),
            MetadataMode::V1OnlyNotAllowed => return Said::status(405),
            _ if request.method != Method::PUT => return Said::status(405),
            _ => {}
        }
        let ttl = request.header(TTL_HEADER).and_then(|ttl| ttl.parse().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=LONGEST_TTL).contains(ttl)) else {
            return Said::status(400);
        };
        let token = format!("{}==", Uuid::new_v4().simple());
        self.tokens.retain(|_, expires| *expires > now);
        let expires = plus(now, Duration::from_secs(ttl));
        self.tokens.insert(token.clone(), expires);
        Said::text(token)
    }

    fn check_token(&self, token: Option<&str>, now: Timestamp) -> Result<(), u16> {
        let has_none = matches!(
            self.mode,
            MetadataMode::V1Only | MetadataMode::V1OnlyNotAllowed
        );
        match token {
            _ if has_none => Ok(()),
            None if self.mode == MetadataMode::V2Only => Err(403),
            None => Ok(()),
            Some(token) if self.tokens.get(token).is_some_and(|end| *end > now) => Ok(()),
            Some(_) => Err(401),
        }
    }

    fn give_credentials(&mut self, role: &str, controls: &Controls, now: Timestamp) -> Said {
        if self.mode == MetadataMode::NotSuccess {
            return Said::json(&json!({ "Code": "Failed", "LastUpdated": spell(now) }));
        }
        let (since, sts) = match self.issued.take() {
            Some(issued) if now < plus(issued.0, self.lifetime * 5 / 6) => issued,
            _ => (now, issue(role, controls, floor(plus(now, self.lifetime)))),
        };
        let said = Said::json(&json!({
            "AccessKeyId": sts.access_key_id,
            "AccessKeySecret": sts.access_key_secret,
            "SecurityToken": sts.security_token,
            "Expiration": spell(sts.expires),
            "LastUpdated": spell(since),
            "Code": "Success",
        }));
        self.issued = Some((since, sts));
        said
    }
}

fn issue(role: &str, controls: &Controls, expires: Timestamp) -> StsKey {
    let sts = StsKey::fresh(expires);
    let mut keys = lock(&controls.keys);
    let account = keys.account().to_owned();
    let identity = Identity::of_session(&account, role, INSTANCE);
    keys.add_session(&sts, &account, identity, None);
    sts
}
