//! Between an operator and the API server: a test decides what becomes of each request.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use kube::client::{Body, DynBody};
use serde_json::{Value, json};
use tower::{BoxError, Layer, Service};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is answered.
    Pass,
    /// The connection breaks before the API server has it.
    Lost,
    /// The API server does as it is asked, and the connection breaks before the answer is there.
    Unanswered,
    /// Nothing comes back, ever; the API server may have it or not.
    Silent { is_sent: bool },
    /// The API server refuses it with that status.
    Refused(u16),
    /// A watch is told at once that what it would go on from is not known any more.
    Expired,
    /// It is answered, and each piece of the answer comes so much later.
    Late(Duration),
}

/// What a test decides by.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) is_watch: bool,
}

impl Asked {
    /// It is about the membership of the replicas, which goes by time.
    pub(crate) fn is_of_lease(&self) -> bool {
        self.path.contains("/leases")
    }
}

/// A layer of a client of the API server.
#[derive(Clone)]
pub(crate) struct Gate {
    decide: Arc<dyn Fn(&Asked) -> Fate + Send + Sync>,
}

impl Gate {
    pub(crate) fn new(decide: impl Fn(&Asked) -> Fate + Send + Sync + 'static) -> Self {
        Self {
            decide: Arc::new(decide),
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            gate: self.clone(),
            inner,
        }
    }
}

/// A client's service behind a gate.
pub(crate) struct Gated<S> {
    gate: Gate,
    inner: S,
}

type Answer = Response<Box<DynBody>>;

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked = Asked {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            is_watch: request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch=")),
        };
        match (self.gate.decide)(&asked) {
            Fate::Pass => Box::pin(self.inner.call(request)),
            Fate::Lost => Box::pin(async { Err(broken()) }),
            Fate::Unanswered => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let body = answer.await?.into_body();
                    // Whole, so that the API server has done everything by then; a watch has no end.
                    if !asked.is_watch {
                        let _ = body.collect().await;
                    }
                    Err(broken())
                })
            }
            Fate::Silent { is_sent: false } => Box::pin(std::future::pending()),
            Fate::Silent { is_sent: true } => {
                // In a task of its own: whoever asked may be killed meanwhile.
                tokio::spawn(self.inner.call(request));
                Box::pin(std::future::pending())
            }
            Fate::Refused(code) => Box::pin(async move { Ok(refusal(code)) }),
            Fate::Expired => Box::pin(async { Ok(expiry()) }),
            Fate::Late(by) => {
                let answer = self.inner.call(request);
                Box::pin(async move { Ok(answer.await?.map(|body| delayed(body, by))) })
            }
        }
    }
}

fn broken() -> BoxError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

fn delayed(body: Box<DynBody>, by: Duration) -> Box<DynBody> {
    let pieces = body.into_data_stream().map(move |piece| async move {
        tokio::time::sleep(by).await;
        piece
    });
    // As many as come meanwhile are on their way.
    let pieces = pieces.buffered(100_000);
    Box::new(axum::body::Body::from_stream(pieces).map_err(Into::into))
}

fn refusal(code: u16) -> Answer {
    let mut answer = answer(&status(code));
    *answer.status_mut() = code.try_into().unwrap();
    answer
}

/// As API servers say it: in the first event of a watch.
fn expiry() -> Answer {
    answer(&json!({"type": "ERROR", "object": status(410)}))
}

fn status(code: u16) -> Value {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": "refused by the test",
    })
}

fn answer(json: &Value) -> Answer {
    let body = Full::from(format!("{json}\n")).map_err(|never| match never {});
    Response::new(Box::new(body))
}
