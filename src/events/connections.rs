//! Connections: few at once, each for a short time only, whoever is at the other end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::keys::Keys;
use crate::metrics::{Metrics, NoticeOutcome};

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// A TLS handshake takes no longer.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// The headers of a request are there by then; a connection without a request is closed.
const HEADERS_MAX: Duration = Duration::from_secs(5);
/// A connection that serves many requests is closed after the one that it then serves.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// Waited after a connection that could not be accepted: the process has no file left for it.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` ends, and then until the requests under way are answered.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    keys: Arc<Keys>,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let stop = stop.shared();
    let mut connections = JoinSet::new();
    loop {
        let (tcp, place) = tokio::select! {
            () = stop.clone() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (router, keys, metrics) = (router.clone(), Arc::clone(&keys), Arc::clone(&metrics));
        let stop = stop.clone();
        connections.spawn(async move {
            match secure(tcp, &keys).await {
                Ok(Stream::Plain(tcp)) => converse(tcp, router, stop).await,
                Ok(Stream::Tls(tls)) => converse(*tls, router, stop).await,
                // Who only looks whether the port is open shows nothing, and is nobody.
                Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(_) => metrics.count_notices(NoticeOutcome::Unauthorised, 1),
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        if let Ok(place) = Arc::clone(places).acquire_owned().await
            && let Ok((tcp, _)) = listener.accept().await
        {
            return (tcp, place);
        }
        sleep(PAUSE).await;
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// The TLS handshake, where the receiver speaks TLS; with it, the sender's certificate.
async fn secure(tcp: TcpStream, keys: &Keys) -> io::Result<Stream> {
    // Answers are small and written at once.
    let _ = tcp.set_nodelay(true);
    let Some(acceptor) = keys.acceptor() else {
        return Ok(Stream::Plain(tcp));
    };
    let tls = timeout(HANDSHAKE_MAX, acceptor.accept(tcp)).await??;
    Ok(Stream::Tls(Box::new(tls)))
}

async fn converse<S>(stream: S, router: Router, stop: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        // How a connection ends is the sender's business.
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION_MAX) => {}
        () = stop => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(HEADERS_MAX * 2, connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Events;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A server that answers everything, and how to stop it.
    async fn server() -> (SocketAddr, impl FnOnce(), tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = serve(
            listener,
            Router::new().route("/", get(|| async { "here" })),
            Arc::new(Keys::read(&Events::default()).unwrap()),
            Arc::new(Metrics::default()),
            async move {
                let _ = stopped.await;
            },
        );
        let stop = move || {
            let _ = stop.send(());
        };
        (address, stop, tokio::spawn(serving))
    }

    /// Everything that comes after these words.
    async fn say(address: SocketAddr, words: &str) -> String {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(words.as_bytes()).await.unwrap();
        let mut heard = String::new();
        let _ = tcp.read_to_string(&mut heard).await;
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_half_a_request_is_not_waited_for() {
        let (address, _stop, _serving) = server().await;
        for words in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\n"] {
            assert!(!say(address, words).await.contains("200"), "{words:?}");
        }
        let heard = say(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(heard.contains("200") && heard.ends_with("here"), "{heard}");
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_take_no_place_for_long() {
        let (address, _stop, _serving) = server().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX * 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(say(address, request).await.contains("200"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_connections_that_wait() {
        let (address, stop, serving) = server().await;
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut some = [0; 15];
        tcp.read_exact(&mut some).await.unwrap();
        stop();
        serving.await.unwrap();
    }
}
