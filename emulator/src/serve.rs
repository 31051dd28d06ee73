//! Listeners and connections.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::admin::{PREFIX, administer};
use crate::answer::Body;
use crate::controls::Controls;
use crate::envelope::answer_admin;
use crate::gateway::answer;
use crate::metadata::{self, answer_metadata};
use crate::request::ApiRequest;
use crate::wire::{Sabotage, Stream, Wire};

/// KMS takes 30 KiB a secret; whatever is larger is no call.
const LARGEST_BODY: usize = 1024 * 1024;

/// Serves until told to stop; every connection ends then.
pub(crate) async fn serve(
    controls: Arc<Controls>,
    plain: StdListener,
    tls: (StdListener, TlsAcceptor),
    stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    let plain = TcpListener::from_std(plain)?;
    let (secure, acceptor) = (TcpListener::from_std(tls.0)?, tls.1);
    tokio::select! {
        never = accept(&plain, None, &controls) => match never {},
        never = accept(&secure, Some(acceptor), &controls) => match never {},
        _ = stop => Ok(()),
    }
}

async fn accept(
    listener: &TcpListener,
    tls: Option<TlsAcceptor>,
    controls: &Arc<Controls>,
) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    connections.spawn(connect(tcp, tls.clone(), Arc::clone(controls)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(tcp: TcpStream, tls: Option<TlsAcceptor>, controls: Arc<Controls>) {
    // Answers are small and written at once.
    let _ = tcp.set_nodelay(true);
    let stream = match tls {
        None => Stream::Plain(tcp),
        Some(acceptor) => match acceptor.accept(tcp).await {
            Ok(tls) => Stream::Tls(Box::new(tls)),
            Err(_) => return,
        },
    };
    let sabotage = Sabotage::default();
    let wire = Wire::new(stream, sabotage.clone());
    let service = service_fn(|request| handle(&controls, &sabotage, request));
    // How a connection ends is the client's business, or was asked for.
    let _ = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(wire), service)
        .await;
}

async fn handle(
    controls: &Arc<Controls>,
    sabotage: &Sabotage,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body: Bytes = Limited::new(body, LARGEST_BODY)
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let request = ApiRequest::new(head.method, target, head.headers, body);
    if request.path.starts_with(PREFIX) {
        return Ok(answer_admin(administer(controls, &request)));
    }
    if request.path.starts_with(metadata::PREFIX) {
        return answer_metadata(controls, &request, sabotage).await;
    }
    answer(controls, &request, sabotage).await
}
