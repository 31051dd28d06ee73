//! The replicas of the operator. Each holds a Lease of its own and watches those of the others; which share of the work is
//! whose follows from the Leases that are alive.
//!
//! A replica that cannot renew its Lease stops working before the others count it as dead. Whether it may still work is
//! asked by the monotonic clock at each step, not only told: a process that was stopped finds out as it wakes up.

mod lease;
mod observe;

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, pin_mut};
use jiff::Timestamp;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};

use crate::alibaba::notice::Notice;
use crate::health::{BOUND, Pulses};
use crate::metrics::{HintResult, Metrics};
use crate::sync::bulletin::Bulletin;
use crate::sync::share::{HELD, RENEW, Share};
use lease::Leases;

pub use lease::{Error, Identity, Pod};

/// A renewal that failed is tried again so soon: three times before the Lease has run out.
const RETRY: Duration = Duration::from_secs(1);
/// Notices that come one after the other are passed on together, as often as this.
const PASS_ON: Duration = Duration::from_secs(1);

/// What of the work belongs to this replica, as it is now.
#[derive(Clone)]
pub struct Shares {
    share: watch::Receiver<Share>,
    held_until: watch::Receiver<Option<Instant>>,
}

impl Shares {
    /// Of a process that shares nothing with anybody.
    #[must_use]
    pub fn whole() -> Self {
        let for_ever = now() + Duration::from_secs(u32::MAX.into());
        Self {
            share: watch::channel(Share::whole()).1,
            held_until: watch::channel(Some(for_ever)).1,
        }
    }

    /// The share, as it was told last; nothing once the Lease has run out.
    #[must_use]
    pub fn now(&self) -> Share {
        if self.is_held() {
            self.share.borrow().clone()
        } else {
            Share::NONE
        }
    }

    /// Whether the object with this uid is this replica's to work on.
    #[must_use]
    pub fn has(&self, uid: &str) -> bool {
        self.is_held() && self.share.borrow().has(uid)
    }

    /// Waits for another share than the last that was seen here. For ever, where there will be none.
    pub async fn changed(&mut self) -> Share {
        if self.share.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.share.borrow_and_update().clone()
    }

    /// Waits until the object with this uid is no longer this replica's.
    ///
    /// The clock is asked whenever this is polled: beside a piece of work, before each of its steps.
    pub async fn lost(&self, uid: &str) {
        let mut share = self.share.clone();
        let told = async {
            if share.wait_for(|share| !share.has(uid)).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        pin_mut!(told);
        std::future::poll_fn(|waker| {
            if self.is_held() {
                told.poll_unpin(waker)
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    fn is_held(&self) -> bool {
        self.held_until.borrow().is_some_and(|until| now() < until)
    }
}

/// This replica among the others.
pub struct Members {
    leases: Arc<Leases>,
    metrics: Arc<Metrics>,
    pulses: Pulses,
    share: watch::Sender<Share>,
    held_until: watch::Sender<Option<Instant>>,
    put_back: watch::Sender<()>,
}

/// A replica that does not hold a Lease yet, and what it may work on: nothing yet. It tells by `put_back` that the API
/// server was put back to a backup.
#[must_use]
pub fn open(
    identity: Identity,
    client: Client,
    metrics: Arc<Metrics>,
    pulses: Pulses,
    clock: fn() -> Timestamp,
    put_back: watch::Sender<()>,
) -> (Members, Shares) {
    let (share, told_share) = watch::channel(Share::NONE);
    let (held_until, told_until) = watch::channel(None);
    let leases = Leases {
        api: Api::namespaced(client, &identity.namespace),
        identity,
        metrics: Arc::clone(&metrics),
        clock,
    };
    let members = Members {
        leases: Arc::new(leases),
        metrics,
        pulses,
        share,
        held_until,
        put_back,
    };
    let shares = Shares {
        share: told_share,
        held_until: told_until,
    };
    (members, shares)
}

impl Members {
    /// Watches the other replicas, joins them once `ready` ends, and leaves them when `stop` does. Passes on what comes
    /// out of `told`, and hands what others pass on to `tell`.
    ///
    /// # Errors
    /// This replica can't have a Lease, or lost it to another process of its name.
    pub async fn run(
        self,
        ready: impl Future<Output = ()>,
        told: mpsc::Receiver<Vec<Notice>>,
        tell: impl Fn(Vec<Notice>),
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let stop = stop.shared();
        let holding = async {
            tokio::select! {
                () = ready => {}
                () = stop.clone() => return Ok(()),
            }
            self.hold(told, stop.clone()).await
        };
        let result = tokio::select! {
            result = holding => result,
            () = self.observe(tell) => Ok(()),
        };
        self.held_until.send_replace(None);
        self.publish(&Share::NONE);
        result
    }

    /// Holds the Lease until `stop` ends, and then gives it up.
    async fn hold(
        &self,
        mut told: mpsc::Receiver<Vec<Notice>>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let mut own = None;
        let mut bulletin = Bulletin::default();
        let mut is_failing = false;
        let heart = self.pulses.begin("the membership".into(), BOUND, now());
        pin_mut!(stop);
        loop {
            let began = now();
            // Whether the last renewal worked or not: that, the Lease tells.
            heart.beat(began);
            let renewing = self.leases.renew(&mut own, bulletin.text(began));
            let renewed = tokio::select! {
                biased;
                () = &mut stop => break,
                renewed = renewing => renewed,
            };
            let mut next = match renewed {
                Ok(was_put_back) => {
                    self.held_until.send_replace(Some(began + HELD));
                    self.metrics.set_lease_renewed((self.leases.clock)());
                    if std::mem::take(&mut is_failing) {
                        tracing::info!("the Lease is renewed again");
                    }
                    if was_put_back {
                        self.put_back.send_replace(());
                    }
                    began + RENEW
                }
                Err(lease::Failed::For(what)) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        let lease = &self.leases.identity.name;
                        tracing::warn!(
                            lease,
                            "the Lease was not renewed: {what}; it is tried again"
                        );
                    }
                    now() + RETRY
                }
                Err(lease::Failed::ForGood(error)) => return Err(error),
            };
            loop {
                tokio::select! {
                    () = &mut stop => return self.give_up(own).await,
                    () = tokio::time::sleep_until(next.into()) => break,
                    Some(notices) = told.recv() => {
                        let lost = bulletin.post(notices, now());
                        self.metrics.count_hints(HintResult::Lost, lost as u64);
                        // Alone, it is written with the next renewal, for whoever joins.
                        if self.share.borrow().members() > 1 && !is_failing {
                            next = next.min((began + PASS_ON).max(now()));
                        }
                    }
                }
            }
        }
        self.give_up(own).await
    }

    /// Lets the others take over at once.
    async fn give_up(&self, own: Option<lease::Own>) -> Result<(), Error> {
        self.held_until.send_replace(None);
        self.leases.give_up(own).await;
        Ok(())
    }

    /// Tells what belongs to this replica now, if that is something else than before.
    fn publish(&self, share: &Share) {
        let is_new = self.share.send_if_modified(|told| {
            let is_new = told != share;
            told.clone_from(share);
            is_new
        });
        if !is_new {
            return;
        }
        self.metrics.set_share(share);
        let members = share.members();
        if let Some(range) = share.bounds() {
            tracing::info!(members, range, "this replica has a share of the work");
        } else {
            tracing::info!("this replica has no share of the work");
        }
    }
}

/// The monotonic clock of the runtime.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Request, Response};
    use kube::client::Body;
    use std::convert::Infallible;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_answers_stops_no_pulse() {
        let never = |_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>();
        let client = Client::new(tower::service_fn(never), "kms");
        let identity = Identity {
            name: "one".into(),
            namespace: "kms".into(),
            group: "cluster".into(),
            holder: "one".into(),
            pod: None,
        };
        let (pulses, metrics) = (Pulses::default(), Arc::default());
        let clock = || Timestamp::UNIX_EPOCH;
        let (put_back, _) = watch::channel(());
        let (members, shares) = open(identity, client, metrics, pulses.clone(), clock, put_back);
        let (_told, told) = mpsc::channel(1);
        let ready = std::future::ready(());
        let running = members.run(ready, told, |_| (), std::future::pending());
        pin_mut!(running);
        for _ in 0..60 {
            let minute = tokio::time::timeout(Duration::from_secs(60), &mut running).await;
            assert!(minute.is_err(), "it goes on trying");
            assert_eq!(pulses.stuck(now()), None);
        }
        assert!(shares.now().is_none());
    }
}
