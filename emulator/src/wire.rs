//! A connection that can be broken on purpose.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

const RESET: u8 = 1;
const GARBAGE: u8 = 2;
const GARBAGE_SENT: u8 = 3;

/// Told by whoever answers, obeyed by the connection.
#[derive(Clone, Default)]
pub(crate) struct Sabotage(Arc<AtomicU8>);

impl Sabotage {
    /// When the connection is dropped its peer sees a reset.
    pub(crate) fn reset(&self) {
        self.0.store(RESET, Ordering::Relaxed);
    }

    /// Whatever is written from now on, the peer gets bytes that are no HTTP.
    pub(crate) fn garble(&self) {
        self.0.store(GARBAGE, Ordering::Relaxed);
    }

    fn state(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

pub(crate) struct Wire {
    stream: Stream,
    sabotage: Sabotage,
}

impl Wire {
    pub(crate) fn new(stream: Stream, sabotage: Sabotage) -> Self {
        Self { stream, sabotage }
    }

    fn poll_write_stream(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.sabotage.state() == RESET {
            // The peer may be gone already, which is as good.
            let _ = self.stream.tcp().set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.sabotage.state() {
            GARBAGE => {
                let junk = b"\x16\x03\xff\x00 no HTTP at all \xfe\xed\r\n\r\n";
                let written = self.poll_write_stream(cx, junk);
                if let Poll::Ready(Ok(_)) = written {
                    self.sabotage.0.store(GARBAGE_SENT, Ordering::Relaxed);
                }
                written.map_ok(|_| buf.len())
            }
            GARBAGE_SENT => Poll::Ready(Ok(buf.len())),
            _ => self.poll_write_stream(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sabotage.state() == RESET {
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
