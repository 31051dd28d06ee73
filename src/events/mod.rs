//! The receiver of notices: KMS tells of a change, and the objects that read the secret become due.
//!
//! A notice is a hint and no more: it can't make happen what would not happen without it, only sooner. Nothing of it is
//! believed; KMS is asked.

mod answers;
mod connections;
mod duplicates;
mod keys;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::config::Events;
use crate::controller::Hints;
use crate::metrics::Metrics;
use answers::Answers;
use keys::Keys;

pub use keys::Error;

/// Tokens and certificates are read again this often.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// A receiver that knows whom to let in.
pub struct Receiver {
    keys: Arc<Keys>,
    answers: Arc<Answers>,
}

impl Receiver {
    /// Reads the tokens and certificates that the flags name.
    ///
    /// # Errors
    /// One of them can't be used.
    pub fn new(
        flags: &Events,
        hints: Hints,
        metrics: Arc<Metrics>,
        ready: Arc<AtomicBool>,
        clock: fn() -> Timestamp,
    ) -> Result<Self, Error> {
        let keys = Arc::new(Keys::read(flags)?);
        let answers = Arc::new(Answers {
            keys: Arc::clone(&keys),
            hints,
            metrics,
            ready,
            clock,
            pace: Mutex::default(),
            duplicates: Mutex::default(),
        });
        Ok(Self { keys, answers })
    }

    /// Receives until `stop` ends, and then answers what is under way.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        let is_secure = self.keys.acceptor().is_some();
        tracing::info!(address = ?listener.local_addr().ok(), tls = is_secure, "notices of KMS are received");
        let metrics = Arc::clone(&self.answers.metrics);
        let router = answers::router(self.answers);
        let serving = connections::serve(listener, router, Arc::clone(&self.keys), metrics, stop);
        tokio::select! {
            () = serving => {}
            () = read_again(self.keys) => {}
        }
    }
}

/// Reads tokens and certificates again, for ever.
async fn read_again(keys: Arc<Keys>) {
    loop {
        tokio::time::sleep(READ_AGAIN).await;
        let keys = Arc::clone(&keys);
        // Files block.
        let _ = tokio::task::spawn_blocking(move || keys.read_again()).await;
    }
}
