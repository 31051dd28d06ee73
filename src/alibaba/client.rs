//! One signed call: sent, bounded in time and size, retried with a new signature, and its refusal read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Deserialize;
use serde_json::Value;

use super::endpoint::Origin;
use super::{AccessKey, Class, Denial, Error, Operation, Refusal, SignatureMethod, label, sign};

/// The most of an answer that is read: a secret's value has 30 KiB at most.
const ANSWER_MAX: usize = 1 << 20;
/// A call is sent this often at most.
const ATTEMPTS: u32 = 3;
/// How long one attempt may take: the SDKs read for 10 s.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A clock that is less off than this is not corrected: `Date` counts whole seconds.
const SKEW_MIN: SignedDuration = SignedDuration::from_secs(2);
/// A clock is corrected by this at most: the gateway accepts 15 minutes.
const SKEW_MAX: SignedDuration = SignedDuration::from_mins(15);

/// An answer with status 200, not yet read.
pub(super) struct Answer {
    pub(super) body: SecretSlice<u8>,
}

/// One attempt, as it ended: for metrics.
pub struct Attempt {
    /// The operation.
    pub action: &'static str,
    /// `OK`, the error code, or what else went wrong; from a bounded set.
    pub outcome: &'static str,
    /// How long it took.
    pub elapsed: Duration,
    /// The clock of the other side minus ours, where it told its time.
    pub clock_offset: Option<SignedDuration>,
}

/// Sends signed calls to allowed origins.
pub struct Client {
    http: reqwest::Client,
    clock: fn() -> Timestamp,
    observe: Box<dyn Fn(&Attempt) + Send + Sync>,
    offsets: Mutex<HashMap<Origin, SignedDuration>>,
}

impl Client {
    /// Makes a client that follows no redirect and uses no proxy.
    ///
    /// # Errors
    /// When the TLS back end can't be set up.
    pub fn new(
        clock: fn() -> Timestamp,
        observe: impl Fn(&Attempt) + Send + Sync + 'static,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("kms-secret-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // A nonce counts once, so only this module may send a request again.
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(ATTEMPT_DEADLINE)
            .build()?;
        Ok(Self {
            http,
            clock,
            observe: Box::new(observe),
            offsets: Mutex::default(),
        })
    }

    /// The clock of `origin` minus ours, where it is worth correcting (rules of `SKEW_MIN`, `SKEW_MAX`).
    pub fn offset(&self, origin: &Origin) -> SignedDuration {
        correction(self.measured(origin).unwrap_or_default())
    }

    fn measured(&self, origin: &Origin) -> Option<SignedDuration> {
        let offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.get(origin).copied()
    }

    /// Calls `operation`: what passes by itself is tried again, each time with a new nonce, time and signature.
    pub(super) async fn call(
        &self,
        origin: &Origin,
        key: &AccessKey,
        method: SignatureMethod,
        operation: &Operation,
    ) -> Result<Answer, Error> {
        let mut attempt = 1;
        loop {
            let started = Instant::now();
            let result = self.attempt(origin, key, method, operation).await;
            (self.observe)(&Attempt {
                action: operation.action,
                outcome: outcome(result.as_ref().err()),
                elapsed: started.elapsed(),
                clock_offset: self.measured(origin),
            });
            let Err(error) = &result else { return result };
            let Some(pause) = pause_before_retry(error, attempt) else {
                return result;
            };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        origin: &Origin,
        key: &AccessKey,
        method: SignatureMethod,
        operation: &Operation,
    ) -> Result<Answer, Error> {
        let now = (self.clock)() + self.offset(origin);
        let nonce = uuid::Uuid::new_v4().to_string();
        let signed = sign::sign(operation, origin.authority(), key, method, now, &nonce);
        let mut request = self
            .http
            .post(format!("{origin}/?{}", signed.query.expose_secret()))
            .header("accept", "application/json")
            .header("content-length", "0");
        for (name, value) in &signed.headers {
            let mut value = reqwest::header::HeaderValue::from_str(value.expose_secret())
                .map_err(|_| Error::Malformed(format!("{name} cannot be a header")))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        let mut response = request.send().await.map_err(transport_error)?;
        self.note_clock(origin, &response);
        let status = response.status().as_u16();
        let retry_after = header(&response, "x-acs-retry-after");
        let body = read_capped(&mut response).await?;
        if status == 200 {
            return Ok(Answer { body: body.into() });
        }
        let mut refusal = read_refusal(status, &body, retry_after.as_deref());
        // The echo is of what the service would have signed: equal to ours, the secret is wrong; else we are.
        if refusal.code.as_deref() == Some("SignatureDoesNotMatch")
            && !contains(&body, signed.string_to_sign.expose_secret())
        {
            tracing::debug!("KMS signed something else than we did, or echoed it otherwise");
        }
        refusal.request_id = refusal.request_id.filter(|id| id.len() <= 64);
        tracing::debug!(
            action = operation.action,
            status,
            code = refusal.code,
            request_id = refusal.request_id,
            "refused"
        );
        Err(Error::Refused(Box::new(refusal)))
    }

    /// Remembers how far the clock of the other side is from ours.
    fn note_clock(&self, origin: &Origin, response: &reqwest::Response) {
        let date = header(response, "date")
            .and_then(|date| jiff::fmt::rfc2822::parse(&date).ok())
            .map(|date| date.timestamp());
        if let Some(date) = date {
            let offset = date.duration_since((self.clock)());
            self.offsets
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(origin.clone(), offset);
        }
    }
}

fn correction(offset: SignedDuration) -> SignedDuration {
    if offset.abs() <= SKEW_MIN {
        SignedDuration::ZERO
    } else {
        offset.clamp(-SKEW_MAX, SKEW_MAX)
    }
}

/// How long to wait before the next attempt, or `None` when another one would not help.
///
/// A used nonce and a corrected clock are worth one attempt; an outage is worth all of them. Throttling is not:
/// the caller waits much longer.
fn pause_before_retry(error: &Error, attempts: u32) -> Option<Duration> {
    match error.class() {
        Class::Nonce | Class::Clock if attempts == 1 => Some(Duration::ZERO),
        Class::Unavailable if attempts < ATTEMPTS => {
            Some(Duration::from_millis(200 * u64::from(attempts * attempts)))
        }
        _ => None,
    }
}

/// The outcome of an attempt, from a closed set.
fn outcome(error: Option<&Error>) -> &'static str {
    match error {
        None => "OK",
        Some(Error::Refused(refusal)) => refusal.code.as_deref().map_or("Other", label),
        Some(Error::Unreachable(_)) => "Unreachable",
        Some(Error::Timeout) => "Timeout",
        Some(Error::Malformed(_)) => "Malformed",
    }
}

/// reqwest's own words name the URL, and V1's URL holds the token.
#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function in map_err"
)]
fn transport_error(error: reqwest::Error) -> Error {
    if error.is_timeout() {
        Error::Timeout
    } else if error.is_connect() {
        Error::Unreachable("no connection (name, network or TLS)")
    } else {
        Error::Unreachable("the connection broke off")
    }
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

async fn read_capped(response: &mut reqwest::Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(Error::Malformed(format!("longer than {ANSWER_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn contains(body: &[u8], needle: &str) -> bool {
    String::from_utf8_lossy(body).contains(needle)
}

/// The error bodies of the gateway: JSON with capital or small names, or XML.
#[derive(Deserialize, Default)]
#[serde(default)]
struct WireError {
    #[serde(rename = "Code", alias = "code", deserialize_with = "lenient")]
    code: Option<String>,
    #[serde(
        rename = "RequestId",
        alias = "requestId",
        deserialize_with = "lenient"
    )]
    request_id: Option<String>,
    #[serde(rename = "AccessDeniedDetail", alias = "accessDeniedDetail")]
    denied: Option<Value>,
}

/// The XML of the gateway, for requests whose format it could not tell.
fn read_xml(body: &[u8]) -> WireError {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct XmlError {
        code: Option<String>,
        request_id: Option<String>,
    }
    let text = std::str::from_utf8(body).unwrap_or_default();
    let error: XmlError = quick_xml::de::from_str(text).unwrap_or_default();
    WireError {
        code: error.code,
        request_id: error.request_id,
        denied: None,
    }
}

/// Reads any scalar as text and anything else as nothing.
pub(super) fn lenient<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    })
}

/// Reads a refusal; its message is left behind, whatever it says.
fn read_refusal(status: u16, body: &[u8], retry_after: Option<&str>) -> Refusal {
    let wire: WireError = serde_json::from_slice(body).unwrap_or_else(|_| read_xml(body));
    let code = wire.code.as_deref().and_then(Refusal::clean_code);
    Refusal {
        status,
        class: Class::of(status, code.as_deref()),
        code,
        retry_after: retry_after
            .and_then(|ms| ms.trim().parse::<u64>().ok())
            .filter(|ms| *ms > 0)
            .map(Duration::from_millis),
        request_id: wire.request_id.as_deref().and_then(clean_word),
        denied: wire.denied.as_ref().map(read_denial),
    }
}

fn read_denial(detail: &Value) -> Denial {
    let field = |name: &str| detail.get(name)?.as_str().and_then(clean_word);
    Denial {
        action: field("AuthAction"),
        principal: field("AuthPrincipalDisplayName"),
        kind: field("NoPermissionType"),
        policy: field("PolicyType"),
    }
}

/// A word of the other side that may be shown: short, and of harmless characters only.
fn clean_word(word: &str) -> Option<String> {
    let fits = (1..=128).contains(&word.len())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b));
    fits.then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals_are_read_in_every_shape_and_without_their_message() {
        let body = br#"{"Code":"Forbidden.NoPermission","Message":"server string to sign is:SecurityToken%3Dtop-secret","RequestId":"r2",
            "AccessDeniedDetail":{"AuthAction":"kms:GetSecretValue","AuthPrincipalDisplayName":"role:sess","NoPermissionType":"ImplicitDeny","PolicyType":"<script>"}}"#;
        let refusal = read_refusal(403, body, None);
        assert_eq!(refusal.class, Class::Denied);
        assert_eq!(refusal.request_id.as_deref(), Some("r2"));
        let denied = refusal.denied.as_ref().unwrap();
        assert_eq!(denied.action.as_deref(), Some("kms:GetSecretValue"));
        assert_eq!(denied.policy, None);
        assert!(!format!("{refusal:?} {refusal}").contains("top-secret"));

        let small = read_refusal(
            400,
            br#"{"code":"Throttling.User","requestId":1}"#,
            Some("250"),
        );
        assert_eq!(small.class, Class::Throttled);
        assert_eq!(small.retry_after, Some(Duration::from_millis(250)));

        let xml = b"<?xml version=\"1.0\"?><Error><RequestId>r7</RequestId><Code>MissingParameter</Code><Message>m</Message></Error>";
        assert_eq!(
            read_refusal(400, xml, Some("-1")).code.as_deref(),
            Some("MissingParameter")
        );

        for (status, body, class) in [
            (
                502,
                &b"<html><body>502 Bad Gateway</body></html>"[..],
                Class::Unavailable,
            ),
            (404, b"<html>", Class::Rejected),
            (500, b"\xff\xfe", Class::Unavailable),
            (302, b"", Class::Rejected),
        ] {
            let refusal = read_refusal(status, body, Some("soon"));
            assert_eq!(
                (refusal.class, refusal.retry_after),
                (class, None),
                "{status}"
            );
        }
    }

    #[test]
    fn a_small_skew_is_left_alone_and_a_large_one_is_clamped() {
        let seconds = SignedDuration::from_secs;
        assert_eq!(correction(seconds(-2)), SignedDuration::ZERO);
        assert_eq!(correction(seconds(3)), seconds(3));
        assert_eq!(correction(seconds(-7200)), -SKEW_MAX);
    }

    #[test]
    fn only_what_passes_by_itself_is_sent_again_and_not_for_ever() {
        let refused = |class| {
            let mut refusal = read_refusal(500, b"", None);
            refusal.class = class;
            Error::Refused(Box::new(refusal))
        };
        let sent = |error: &Error| {
            (1..10)
                .find(|attempt| pause_before_retry(error, *attempt).is_none())
                .unwrap()
        };
        assert_eq!(sent(&Error::Timeout), ATTEMPTS);
        assert_eq!(sent(&refused(Class::Unavailable)), ATTEMPTS);
        assert_eq!(sent(&refused(Class::Nonce)), 2);
        assert_eq!(sent(&refused(Class::Clock)), 2);
        for class in [
            Class::Throttled,
            Class::Credential,
            Class::NotFound,
            Class::Rejected,
        ] {
            assert_eq!(sent(&refused(class)), 1, "{class:?}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        let error = |code: &str| {
            Error::Refused(Box::new(read_refusal(
                400,
                format!(r#"{{"Code":"{code}"}}"#).as_bytes(),
                None,
            )))
        };
        assert_eq!(outcome(Some(&error("Made.Up"))), "Other");
        assert_eq!(
            outcome(Some(&error("InvalidParameter"))),
            "InvalidParameter"
        );
        assert_eq!(outcome(Some(&error("Throttling.User"))), "Throttling.*");
        assert_eq!(outcome(None), "OK");
    }

    proptest! {
        #[test]
        fn no_error_body_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..400), status in 201u16..600) {
            let _ = read_refusal(status, &body, None);
        }
    }
}
