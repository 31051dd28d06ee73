//! One call: signed and sent, bounded in time and size, retried with a new signature, and its refusal read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretSlice};

use super::answer::read_refusal;
use super::endpoint::Origin;
use super::sign::{self, Signed};
use super::{AccessKey, Class, Error, Operation, SignatureMethod, label};

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
    /// When it was given, by the clock of the other side where that told its time, else by ours.
    pub(super) given: Timestamp,
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

/// Where a service is, and how it is reached.
#[derive(Clone)]
pub struct Endpoint {
    origin: Origin,
    http: reqwest::Client,
}

/// What every HTTP client of this module and its siblings has in common: no redirects, no proxy, no second attempt.
pub(super) fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("kms-secret-operator/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        // A nonce counts once, so only this module may send a request again.
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(ATTEMPT_DEADLINE)
}

/// A client that trusts these authorities and no other.
fn only_trusting(pem: &str) -> Option<reqwest::Client> {
    let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).ok()?;
    if certificates.is_empty() {
        return None;
    }
    builder().tls_certs_only(certificates).build().ok()
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
        let http = builder().build()?;
        Ok(Self {
            http,
            clock,
            observe: Box::new(observe),
            offsets: Mutex::default(),
        })
    }

    /// How an endpoint is reached: by certificates that the public authorities signed, or only by those of `ca_bundle`.
    ///
    /// # Errors
    /// A sentence, if `ca_bundle` is not PEM.
    pub fn endpoint(&self, origin: Origin, ca_bundle: Option<&str>) -> Result<Endpoint, String> {
        let http = match ca_bundle {
            None => self.http.clone(),
            Some(pem) => {
                only_trusting(pem).ok_or("caBundle holds no certificate that can be read")?
            }
        };
        Ok(Endpoint { origin, http })
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
        endpoint: &Endpoint,
        key: &AccessKey,
        method: SignatureMethod,
        operation: &Operation,
    ) -> Result<Answer, Error> {
        let host = endpoint.origin.authority();
        let signed = |now, nonce: &str| sign::sign(operation, host, key, method, now, nonce);
        self.send(endpoint, operation.action, signed).await
    }

    /// Calls an operation that is not signed, since its parameters prove who calls.
    pub(super) async fn call_unsigned(
        &self,
        endpoint: &Endpoint,
        operation: &Operation,
    ) -> Result<Answer, Error> {
        let signed = |now, _: &str| sign::unsigned(operation, now);
        self.send(endpoint, operation.action, signed).await
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        action: &'static str,
        sign: impl Fn(Timestamp, &str) -> Signed,
    ) -> Result<Answer, Error> {
        let mut attempt = 1;
        loop {
            let started = Instant::now();
            let result = self.attempt(endpoint, action, &sign).await;
            (self.observe)(&Attempt {
                action,
                outcome: outcome(result.as_ref().err()),
                elapsed: started.elapsed(),
                clock_offset: self.measured(&endpoint.origin),
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
        endpoint: &Endpoint,
        action: &'static str,
        sign: impl Fn(Timestamp, &str) -> Signed,
    ) -> Result<Answer, Error> {
        let origin = &endpoint.origin;
        let now = (self.clock)() + self.offset(origin);
        let signed = sign(now, &uuid::Uuid::new_v4().to_string());
        let body = signed.body.expose_secret().to_owned();
        let mut request = endpoint
            .http
            .post(format!("{origin}/?{}", signed.query.expose_secret()))
            .header("accept", "application/json")
            .header("content-length", body.len().to_string())
            .body(body);
        for (name, value) in &signed.headers {
            let mut value = reqwest::header::HeaderValue::from_str(value.expose_secret())
                .map_err(|_| Error::Malformed(format!("{name} cannot be a header")))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        let mut response = request.send().await.map_err(transport_error)?;
        let date = date(&response);
        if let Some(date) = date {
            self.note_clock(origin, date);
        }
        let status = response.status().as_u16();
        let retry_after = header(&response, "x-acs-retry-after");
        let body = read_capped(&mut response).await?;
        if status == 200 {
            return Ok(Answer {
                body: body.into(),
                given: date.unwrap_or_else(self.clock),
            });
        }
        let mut refusal = read_refusal(status, &body, retry_after.as_deref());
        // The echo is of what the service would have signed: equal to ours, the secret is wrong; else we are.
        if refusal.code.as_deref() == Some("SignatureDoesNotMatch")
            && !contains(&body, signed.string_to_sign.expose_secret())
        {
            tracing::debug!(
                "the service signed something else than we did, or echoed it otherwise"
            );
        }
        refusal.request_id = refusal.request_id.filter(|id| id.len() <= 64);
        tracing::debug!(
            action,
            status,
            code = refusal.code,
            request_id = refusal.request_id,
            "refused"
        );
        Err(Error::Refused(Box::new(refusal)))
    }

    /// Remembers how far the clock of the other side is from ours.
    fn note_clock(&self, origin: &Origin, date: Timestamp) {
        let offset = date.duration_since((self.clock)());
        self.offsets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(origin.clone(), offset);
    }

    /// Forgets how far the clocks of others are from ours, which was set.
    pub fn forget_clocks(&self) {
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.clear();
    }

    /// Our clock.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Counts an attempt that another module made.
    pub(super) fn observe(&self, attempt: &Attempt) {
        (self.observe)(attempt);
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
pub(super) fn outcome(error: Option<&Error>) -> &'static str {
    match error {
        None => "OK",
        Some(Error::Refused(refusal)) => refusal.code.as_deref().map_or("Other", label),
        Some(Error::Unreachable(_)) => "Unreachable",
        Some(Error::Timeout) => "Timeout",
        Some(Error::Malformed(_)) => "Malformed",
        Some(Error::Identity(_)) => "Other",
    }
}

/// reqwest's own words name the URL, and V1's URL holds the token.
#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function in map_err"
)]
pub(super) fn transport_error(error: reqwest::Error) -> Error {
    if error.is_timeout() {
        Error::Timeout
    } else if error.is_connect() {
        Error::Unreachable(if is_about_certificates(&error) {
            "its certificate is not accepted (an instance's own CA goes into the store's caBundle)"
        } else {
            "no connection (name or network)"
        })
    } else {
        Error::Unreachable("the connection broke off")
    }
}

/// The foreign text only decides between two of our own.
fn is_about_certificates(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.to_string().contains("certificate") {
            return true;
        }
        source = cause.source();
    }
    false
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

/// When the answer was given, by the clock of the other side.
pub(super) fn date(response: &reqwest::Response) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::parse(&header(response, "date")?).ok()?;
    Some(date.timestamp())
}

pub(super) async fn read_capped(response: &mut reqwest::Response) -> Result<Vec<u8>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        for pem in [
            "",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ] {
            assert!(only_trusting(pem).is_none(), "{pem}");
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
}
