//! How answers are written, the faulty ones too.

use std::io;

use http::header::{CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use crate::actions::Fields;
use crate::answer::{Body, write};
use crate::errors::ApiError;
use crate::fault::{Effect, Fault};
use crate::wire::Sabotage;

/// How a call ends when nothing is done to its answer.
pub(crate) type Outcome = Result<Fields, ApiError>;

/// Writes what the admin API says.
pub(crate) fn answer_admin(outcome: Result<Value, ApiError>) -> Response<Body> {
    let (status, value) = match outcome {
        Ok(value) => (200, value),
        Err(error) => (error.status, Value::from(error.body("", ""))),
    };
    let mut response = Response::new(Body::whole(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    set_header(&mut response, CONTENT_TYPE.as_str(), "application/json");
    response
}

/// How an answer is written.
pub(crate) struct Envelope<'a> {
    pub(crate) json: bool,
    pub(crate) action: &'a str,
    pub(crate) host: &'a str,
    pub(crate) date: String,
}

impl Envelope<'_> {
    pub(crate) fn write(&self, outcome: Outcome) -> Response<Body> {
        self.write_with(outcome, self.json, Body::whole)
    }

    fn write_with(
        &self,
        outcome: Outcome,
        json: bool,
        body: impl FnOnce(String) -> Body,
    ) -> Response<Body> {
        let request_id = request_id();
        let (status, fields, root, headers) = match outcome {
            Ok(mut fields) => {
                fields.insert("RequestId".to_owned(), request_id.as_str().into());
                (200, fields, format!("{}Response", self.action), Vec::new())
            }
            Err(error) => {
                let fields = error.body(&request_id, self.host);
                (error.status, fields, "Error".to_owned(), error.headers)
            }
        };
        let (content_type, text) = write(&fields, json, &root);
        let mut response = self.respond(status, content_type, body(text));
        set_header(&mut response, "x-acs-request-id", &request_id);
        for (name, value) in headers {
            set_header(&mut response, &name, &value);
        }
        response
    }

    fn respond(&self, status: u16, content_type: &str, body: Body) -> Response<Body> {
        respond(status, content_type, body, &self.date)
    }

    pub(crate) fn write_faulty(
        &self,
        fault: &Fault,
        outcome: Outcome,
        sabotage: &Sabotage,
    ) -> io::Result<Response<Body>> {
        let json = self.json && !fault.xml;
        Ok(match &fault.effect {
            Effect::Error(error) => self.write_with(Err(error.clone()), json, Body::whole),
            Effect::Hang | Effect::Reset => {
                sabotage.reset();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Effect::Delay { .. } => self.write_with(outcome, json, Body::whole),
            Effect::Truncated => self.write_with(outcome, json, Body::truncated),
            Effect::Garbage => {
                sabotage.garble();
                let mut response = self.respond(200, "text/plain", Body::whole(""));
                set_header(&mut response, "connection", "close");
                response
            }
            Effect::GarbageBody => {
                let junk = b"\x00\xff{\"Secret\xc3(\x1b[2J".as_slice();
                self.respond(200, "application/json;charset=utf-8", Body::whole(junk))
            }
            Effect::BadGateway => {
                let page = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>";
                self.respond(502, "text/html", Body::whole(page))
            }
            Effect::Huge { bytes } => {
                self.respond(200, "application/json;charset=utf-8", Body::huge(*bytes))
            }
            Effect::Empty => self.respond(200, "application/json;charset=utf-8", Body::whole("")),
            Effect::Patch { fields } => {
                let patched = outcome.map(|answer| patch(answer, fields));
                self.write_with(patched, json, Body::whole)
            }
            Effect::Redirect { location } => {
                let mut response = self.respond(302, "text/html", Body::whole(""));
                set_header(&mut response, "location", location);
                response
            }
            Effect::Drip { bytes, seconds } => {
                self.write_with(outcome, json, |text| Body::dripping(text, *bytes, *seconds))
            }
            Effect::Raw {
                status,
                headers,
                body,
            } => {
                let json = "application/json;charset=utf-8";
                let mut response = self.respond(*status, json, Body::whole(body.clone()));
                for (name, value) in headers {
                    set_header(&mut response, name, value);
                }
                response
            }
        })
    }
}

/// A fresh one, as the service spells them.
pub(crate) fn request_id() -> String {
    Uuid::new_v4().to_string().to_uppercase()
}

/// An answer with the headers that all have.
pub(crate) fn respond(status: u16, content_type: &str, body: Body, date: &str) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    set_header(&mut response, CONTENT_TYPE.as_str(), content_type);
    set_header(&mut response, DATE.as_str(), date);
    response
}

/// Replaces fields; null takes one away.
pub(crate) fn patch(mut answer: Fields, changes: &Fields) -> Fields {
    for (name, value) in changes {
        if *value == Value::Null {
            answer.remove(name);
        } else {
            answer.insert(name.clone(), value.clone());
        }
    }
    answer
}

/// Leaves out what is no header, which only a fault can ask for.
fn set_header(response: &mut Response<Body>, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        response.headers_mut().insert(name, value);
    }
}
