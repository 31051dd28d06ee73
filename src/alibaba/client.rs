//! One call: signed and sent, bounded in time and size, retried with a new signature, and its refusal read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio_rustls::rustls::{self as tls, CertificateError};

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
        Error::Unreachable(why_not_connected(&error))
    } else {
        Error::Unreachable("the connection broke off")
    }
}

/// In our own words.
fn why_not_connected(error: &reqwest::Error) -> &'static str {
    match tls_error(error) {
        Some(tls::Error::InvalidCertificate(why)) => refused_certificate(why),
        Some(_) => "no TLS connection (it does not speak TLS, or no version of it that we do)",
        None => "no connection (name or network)",
    }
}

/// What went wrong with TLS, if that is why.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a tls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // The source of this type is not what it wraps, but the source of that.
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    match wrapped {
        Some(inner) => tls_error(inner),
        None => tls_error(error.source()?),
    }
}

fn refused_certificate(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired (whoever runs it renews it)"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet (check the clocks of both sides)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another host"
        }
        _ => {
            "its certificate is not accepted (an instance's own CA goes into the store's caBundle)"
        }
    }
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

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

    /// What a server does once it has answered.
    #[derive(Clone)]
    enum Then {
        Close,
        /// Goes on with the same bytes for ever.
        Repeat(String),
    }

    /// A server that gives everybody this answer; with it, how often it was called.
    async fn server(answer: String, then: Then) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let answer = answer.replace("ORIGIN", &origin);
        let called = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&called);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let (answer, then) = (answer.clone(), then.clone());
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                    match then {
                        // What was not read yet would be lost by a mere close.
                        Then::Close => {
                            let _ = stream.shutdown().await;
                            let _ = stream.read_to_end(&mut Vec::new()).await;
                        }
                        Then::Repeat(more) => {
                            while stream.write_all(more.as_bytes()).await.is_ok() {}
                        }
                    }
                });
            }
        });
        (origin, called)
    }

    async fn call(origin: &str) -> Result<String, Error> {
        let client = Client::new(|| Timestamp::UNIX_EPOCH, |_| ()).unwrap();
        let endpoint = client.endpoint(origin.parse().unwrap(), None).unwrap();
        let operation = Operation {
            action: "GetSecretValue",
            version: "2016-01-20",
            parameters: Vec::new(),
            form: Vec::new(),
        };
        let answer = client.call_unsigned(&endpoint, &operation).await?;
        Ok(String::from_utf8_lossy(answer.body.expose_secret()).into_owned())
    }

    /// A name, what the server says, how the call ends, and how often it was sent.
    type Case = (&'static str, String, Then, &'static str, usize);

    fn broken() -> Vec<Case> {
        let of =
            |name, answer: &str, then| (name, answer.replace('|', "\r\n"), then, "Unreachable", 3);
        let ok = "HTTP/1.1 200 OK|";
        let closes = |name, answer: &str| of(name, answer, Then::Close);
        vec![
            closes("no answer", ""),
            closes("no HTTP", "SSH-2.0-OpenSSH_9.2|"),
            closes("half a head", "HTTP/1.1 200 OK|Content-Le"),
            closes("a head", &format!("{ok}Content-Length: 9||")),
            closes("half a body", &format!("{ok}Content-Length: 9||{{}}")),
            closes(
                "half a chunk",
                &format!("{ok}Transfer-Encoding: chunked||9|{{}}"),
            ),
            closes(
                "two lengths",
                &format!("{ok}Content-Length: 9|Content-Length: 2||{{}}"),
            ),
            closes(
                "no length that is one",
                &format!("{ok}Content-Length: -1||{{}}"),
            ),
            closes(
                "a length beyond all",
                &format!("{ok}Content-Length: 18446744073709551615||{{}}"),
            ),
            of(
                "a head without end",
                ok,
                Then::Repeat("A: b\r\n".repeat(1000)),
            ),
        ]
    }

    fn endless() -> Vec<Case> {
        let chunk = format!("1000\r\n{}\r\n", "a".repeat(0x1000));
        let of = |name, fields: &str, piece| {
            let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            (name, answer, Then::Repeat(piece), "Malformed", 3)
        };
        vec![
            of("a body without end", "", "{\"a\":".repeat(1000)),
            of(
                "chunks without end",
                "Transfer-Encoding: chunked\r\n",
                chunk,
            ),
        ]
    }

    fn redirects() -> Vec<Case> {
        let of = |status: &str| {
            let there = "Location: ORIGIN/there\r\nContent-Length: 0\r\n\r\n";
            (
                "moved",
                format!("HTTP/1.1 {status}\r\n{there}"),
                Then::Close,
                "Other",
                1,
            )
        };
        [
            "302 Found",
            "307 Temporary Redirect",
            "308 Permanent Redirect",
        ]
        .map(of)
        .to_vec()
    }

    fn whole() -> Vec<Case> {
        let of = |name, fields: &str, body: &str| {
            let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
            (name, answer, Then::Close, "OK", 1)
        };
        vec![
            of("more than it says", "Content-Length: 2\r\n", "{}{}{}"),
            of("no length", "", "{}"),
            // Nobody unpacks it: a few bytes can become any number.
            of(
                "packed",
                "Content-Encoding: gzip\r\nContent-Length: 2\r\n",
                "{}",
            ),
        ]
    }

    #[tokio::test]
    async fn a_server_that_breaks_the_rules_is_told_from_one_that_answers() {
        let cases = [broken(), endless(), redirects(), whole()].concat();
        let cases = cases
            .into_iter()
            .map(async |(name, answer, then, expected, calls)| {
                let (origin, called) = server(answer, then).await;
                let result = call(&origin).await;
                assert_eq!(
                    outcome(result.as_ref().err()),
                    expected,
                    "{name}: {result:?}"
                );
                assert_eq!(called.load(Ordering::Relaxed), calls, "{name}");
                assert!(
                    result.as_ref().map_or(true, |body| body == "{}"),
                    "{name}: {result:?}"
                );
            });
        futures::future::join_all(cases).await;
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_certificate_is_told() {
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        for (name, host, from, until, is_trusted, expected) in [
            ("good", "localhost", 2020, 2200, true, "broke off"),
            ("old", "localhost", 2020, 2021, true, "expired"),
            ("early", "localhost", 2199, 2200, true, "not valid yet"),
            ("other", "kms.internal", 2020, 2200, true, "another host"),
            ("foreign", "localhost", 2020, 2200, false, "caBundle"),
        ] {
            let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
            (params.not_before, params.not_after) = (year(from), year(until));
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let key = tls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
            let provider = Arc::new(tls::crypto::aws_lc_rs::default_provider());
            let config = tls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key.into())
                .unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind("localhost:0").await.unwrap();
            let origin = format!(
                "https://localhost:{}",
                listener.local_addr().unwrap().port()
            );
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let _ = acceptor.accept(stream).await;
                }
            });
            let client = Client::new(|| Timestamp::UNIX_EPOCH, |_| ()).unwrap();
            let other = rcgen::generate_simple_self_signed(["x".to_owned()])
                .unwrap()
                .cert
                .pem();
            let bundle = if is_trusted { certificate.pem() } else { other };
            let endpoint = client
                .endpoint(origin.parse().unwrap(), Some(&bundle))
                .unwrap();
            let error = endpoint
                .http
                .get(&origin)
                .send()
                .await
                .map_err(transport_error)
                .unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
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
