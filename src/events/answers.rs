//! What is answered: first to whom, then how much, then what.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use jiff::Timestamp;

use super::duplicates::Duplicates;
use super::keys::Keys;
use crate::alibaba::notice;
use crate::controller::Hints;
use crate::metrics::{HintResult, Metrics, NoticeOutcome};
use crate::sync::bucket::Bucket;

/// Where notices are posted.
const PATH: &str = "/events";
/// No notice is larger.
const BODY_MAX: usize = 64 * 1024;
/// From the end of the headers to the answer.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Requests of all senders together: 200 at once, then 50 a second.
type Pace = Bucket<200, 20>;

/// What every request is answered from.
pub(super) struct Answers {
    pub(super) keys: Arc<Keys>,
    pub(super) hints: Hints,
    pub(super) metrics: Arc<Metrics>,
    /// The caches are filled and this replica takes part in the work: before that, a notice would find nobody.
    pub(super) ready: Arc<AtomicBool>,
    pub(super) clock: fn() -> Timestamp,
    pub(super) pace: Mutex<Pace>,
    pub(super) duplicates: Mutex<Duplicates>,
}

/// The one path, behind everything that comes before it.
pub(super) fn router(answers: Arc<Answers>) -> Router {
    Router::new()
        .route(PATH, post(receive))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(Arc::clone(&answers), admit))
        .with_state(answers)
}

/// Lets a request in. Who may not send anything learns nothing, not even which paths there are, and costs no more than a
/// digest: the body is not read.
async fn admit(State(answers): State<Arc<Answers>>, request: Request, next: Next) -> Response {
    if !answers.keys.admit(request.headers()) {
        return answers.refuse(StatusCode::UNAUTHORIZED, NoticeOutcome::Unauthorised);
    }
    if !answers.ready.load(Ordering::Relaxed) {
        return answers.refuse(StatusCode::SERVICE_UNAVAILABLE, NoticeOutcome::NotReady);
    }
    let now = (answers.clock)();
    let is_in_pace = lock(&answers.pace).try_take(now);
    if !is_in_pace {
        return answers.refuse(StatusCode::TOO_MANY_REQUESTS, NoticeOutcome::Limited);
    }
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => answers.refuse(StatusCode::REQUEST_TIMEOUT, NoticeOutcome::Unreadable),
    }
}

/// Takes what a body tells to the loops. Nothing of the body is answered or logged but names that look like names.
async fn receive(
    State(answers): State<Arc<Answers>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return answers.refuse(rejection.status(), NoticeOutcome::Unreadable),
    };
    let Ok(read) = notice::read(&body) else {
        return answers.refuse(StatusCode::BAD_REQUEST, NoticeOutcome::Malformed);
    };
    let (found, now) = (read.notices.len(), (answers.clock)());
    let mut accepted = read.notices;
    {
        let mut duplicates = lock(&answers.duplicates);
        accepted.retain(|notice| duplicates.is_new(notice, now));
    }
    for notice in &accepted {
        tracing::debug!(secret = notice.secret_name, kind = ?notice.kind, "KMS told of a secret");
    }
    let counts = [
        (NoticeOutcome::Accepted, accepted.len()),
        (NoticeOutcome::Duplicate, found - accepted.len()),
        (NoticeOutcome::Ignored, read.ignored),
    ];
    if !accepted.is_empty() {
        let lost = answers.hints.tell(accepted);
        answers.metrics.count_hints(HintResult::Lost, lost as u64);
    }
    let told: serde_json::Map<_, _> = counts
        .into_iter()
        .map(|(outcome, count)| {
            answers.metrics.count_notices(outcome, count);
            (outcome.as_str().to_owned(), count.into())
        })
        .collect();
    let json = [(header::CONTENT_TYPE, "application/json")];
    let told = serde_json::Value::Object(told).to_string();
    (StatusCode::ACCEPTED, json, told).into_response()
}

impl Answers {
    /// A refusal says its status and no more, and ends the connection: places are for those who are let in.
    fn refuse(&self, status: StatusCode, outcome: NoticeOutcome) -> Response {
        self.metrics.count_notices(outcome, 1);
        let mut answer = status.into_response();
        let headers = answer.headers_mut();
        let word = HeaderValue::from_static;
        headers.insert(header::CONNECTION, word("close"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, word("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, word("1"));
            }
            _ => {}
        }
        answer
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
