//! Cuts the life of an operator at its k-th request to the API server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use kms_emulator::jiff::SignedDuration;
use kms_secret_operator::config::Run;
use tokio::sync::Notify;

use crate::gate::{Asked, Fate, Gate};
use crate::world::World;

/// What happens at the k-th request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// The operator is killed, and another one started.
    Killed { is_sent: bool },
    /// The connection breaks, once.
    Broken { is_sent: bool },
    /// The API server refuses, once.
    Refused(u16),
}

impl Cut {
    /// Every way.
    pub(crate) const ALL: [Self; 8] = [
        Self::Killed { is_sent: false },
        Self::Killed { is_sent: true },
        Self::Broken { is_sent: false },
        Self::Broken { is_sent: true },
        Self::Refused(409),
        Self::Refused(410),
        Self::Refused(429),
        Self::Refused(500),
    ];

    /// Whether that can happen to a request: only writes conflict, and only watches expire.
    fn can_meet(self, asked: &Asked) -> bool {
        match self {
            Self::Refused(409) => asked.method != "GET",
            Self::Refused(410) => asked.is_watch,
            _ => true,
        }
    }

    fn fate(self) -> Fate {
        match self {
            Self::Killed { is_sent } => Fate::Silent { is_sent },
            Self::Broken { is_sent: true } => Fate::Unanswered,
            Self::Broken { is_sent: false } => Fate::Lost,
            Self::Refused(code) => Fate::Refused(code),
        }
    }
}

/// Counts the requests of an operator that can be cut so, and cuts the k-th. Those for Leases go by time, so they have no
/// number.
pub(crate) struct Knife {
    at: usize,
    cut: Cut,
    count: AtomicUsize,
    hit: OnceLock<Asked>,
    is_hit: Notify,
}

impl Drop for Knife {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?} at request {}: {:?}", self.cut, self.at, self.hit);
        }
    }
}

impl Knife {
    pub(crate) fn new(at: usize, cut: Cut) -> Arc<Self> {
        Arc::new(Self {
            at,
            cut,
            count: AtomicUsize::new(0),
            hit: OnceLock::new(),
            is_hit: Notify::new(),
        })
    }

    /// Whether the operator came as far as the k-th request.
    pub(crate) fn was_hit(&self) -> bool {
        self.hit.get().is_some()
    }

    fn gate(self: Arc<Self>) -> Gate {
        Gate::new(move |asked| {
            let counts = !asked.is_of_lease() && self.cut.can_meet(asked);
            if !counts || self.count.fetch_add(1, Ordering::Relaxed) != self.at {
                return Fate::Pass;
            }
            let _ = self.hit.set(asked.clone());
            self.is_hit.notify_one();
            self.cut.fate()
        })
    }

    /// Keeps an operator running in a world, whatever happens to the first one. It believes soon that a secret is gone.
    pub(crate) async fn operate(self: &Arc<Self>, world: &World) {
        let hasty = |run: &mut Run| run.gone_after = SignedDuration::from_secs(1);
        let client = world.cluster.client_behind(&Arc::clone(self).gate()).await;
        let flags = ["--namespace", world.namespace.as_str()];
        let first = world.start(client, &flags, hasty).await;
        self.is_hit.notified().await;
        let _last = if matches!(self.cut, Cut::Killed { .. }) {
            first.kill();
            // It need not wait until the Lease of the first one has ended.
            let elsewhere = ["--lease-namespace", world.namespace.as_str()];
            let client = world.cluster.client().await;
            let flags = [&flags[..], &elsewhere].concat();
            world.operator_by(client, &flags, hasty).await
        } else {
            first
        };
        std::future::pending::<()>().await;
    }
}
