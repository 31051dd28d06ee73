//! The other replicas: their Leases are watched, by whose changes they live, and by which they pass on what KMS told.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::store;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::task::JoinSet;

use super::lease::{NOTICES, read};
use super::{Members, now};
use crate::alibaba::notice::Notice;
use crate::sync::bulletin::Bookmarks;
use crate::sync::share::{Roster, Share};

/// A watch that broke is begun anew so soon, and no later however often it breaks: the others would look dead.
const AGAIN: Duration = Duration::from_secs(1);

/// Always as soon.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(AGAIN)
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}

impl Members {
    /// Watches the others, and tells this replica's share whenever it is another; never ends.
    pub(super) async fn observe(&self, tell: impl Fn(Vec<Notice>)) {
        let mut put_back = self.put_back.subscribe();
        loop {
            tokio::select! {
                () = self.watch(&tell) => return,
                // A watch goes on after the last version that it saw, and shows nothing of those before.
                Ok(()) = put_back.changed() => {}
            }
        }
    }

    async fn watch(&self, tell: impl Fn(Vec<Notice>)) {
        let identity = &self.leases.identity;
        self.metrics.expect_watch("leases");
        let config = watcher::Config::default().labels(&identity.selector());
        let (leases, writer) = store::<Lease>();
        let events = watcher(self.leases.api.clone(), config).backoff(Steady);
        let mut events = std::pin::pin!(events.reflect(writer));
        let mut held_until = self.held_until.subscribe();
        let (mut roster, mut marks) = (Roster::default(), Bookmarks::default());
        let mut is_filled = false;
        let mut sweeping = JoinSet::new();
        loop {
            let until = *held_until.borrow_and_update();
            let ends = until.filter(|until| now() < *until);
            let change = roster.next_death(now()).into_iter().chain(ends).min();
            let change = async {
                match change {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone)) => {
                        is_filled = true;
                        let all = leases.state();
                        roster.see(all.iter().map(|lease| (lease.name_any(), read(lease))), now());
                        let others = all.iter().filter(|lease| lease.name_any() != identity.name);
                        let news: Vec<_> = others.flat_map(|lease| news(lease, &mut marks)).collect();
                        marks.retain(|name| all.iter().any(|lease| lease.name_any() == name));
                        if !news.is_empty() {
                            tell(news);
                        }
                    }
                    Some(Ok(Event::Init | Event::InitApply(_))) => {}
                    Some(Err(_)) => {
                        self.metrics.count_watch_error("leases");
                        tracing::warn!(resource = "leases", "a watch broke; it is begun anew");
                    }
                    None => return,
                },
                Ok(()) = held_until.changed() => {}
                () = change => {}
            }
            let is_held = held_until.borrow().is_some_and(|until| now() < until);
            self.publish(&if is_held && is_filled {
                roster.share(&identity.name, now())
            } else {
                Share::NONE
            });
            while sweeping.try_join_next().is_some() {}
            if is_held && sweeping.is_empty() {
                let litter: Vec<_> = roster.litter(now(), (self.leases.clock)()).collect();
                for lease in leases.state() {
                    if litter.contains(&lease.name_any().as_str()) {
                        let leases = Arc::clone(&self.leases);
                        sweeping.spawn(async move { leases.sweep(&lease).await });
                    }
                }
            }
        }
    }
}

/// What another replica passes on that was not read before.
fn news(lease: &Lease, marks: &mut Bookmarks) -> Vec<Notice> {
    let text = lease.annotations().get(NOTICES);
    let holder = read(lease).holder;
    text.map_or_else(Vec::new, |text| {
        marks.news(&lease.name_any(), &holder, text)
    })
}
