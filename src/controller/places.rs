//! Places for work that is under way, shared so that no namespace takes them all, however slow its stores are.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::{Sender, channel};

use crate::metrics::Load;

/// A namespace gets another place while it holds fewer than so many times those that are free. Alone it takes three
/// quarters of all; of several that want everything each takes less, and a newcomer always finds one.
const SHARE: usize = 3;

/// The places.
pub(super) struct Places(Mutex<State>);

/// A place that is taken, until this is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    namespace: Arc<str>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    free: usize,
    /// Places that were given, ever.
    given: u64,
    /// By namespace; nothing of one that neither holds a place nor waits for one.
    tenants: HashMap<Arc<str>, Tenant>,
    /// The namespaces that wait, in turn.
    order: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct Tenant {
    held: usize,
    waiting: VecDeque<Sender<Place>>,
}

impl Places {
    /// So many places.
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            free: count,
            ..State::default()
        })))
    }

    /// Takes a place, as soon as it is this namespace's turn; what waits costs little more than its name. `None`: there
    /// are none any more.
    pub(super) async fn take(self: &Arc<Self>, namespace: &str) -> Option<Place> {
        let (sender, place) = channel();
        {
            let mut state = self.lock();
            if state.is_closed {
                return None;
            }
            let namespace: Arc<str> = namespace.into();
            let tenant = state.tenants.entry(Arc::clone(&namespace)).or_default();
            tenant.waiting.push_back(sender);
            if tenant.waiting.len() == 1 {
                state.order.push_back(namespace);
            }
        }
        self.give();
        place.await.ok()
    }

    /// How many are taken and waited for.
    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        let waits = |sender: &&Sender<Place>| !sender.is_closed();
        let tenants = state.tenants.values();
        Load {
            waiting: tenants
                .clone()
                .map(|tenant| tenant.waiting.iter().filter(waits).count())
                .sum(),
            under_way: tenants.map(|tenant| tenant.held).sum(),
            begun: state.given,
        }
    }

    /// Gives no more places: we are stopping, and what waits has not begun.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.order.clear();
        state.tenants.retain(|_, tenant| {
            tenant.waiting.clear();
            tenant.held > 0
        });
    }

    /// Gives the places that are free to those whose turn it is.
    fn give(self: &Arc<Self>) {
        loop {
            let next = self.lock().next();
            let Some((waiting, namespace)) = next else {
                return;
            };
            let place = Place {
                places: Arc::clone(self),
                namespace,
            };
            // Who does not wait any more leaves it free again.
            let _ = waiting.send(place);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who gets the next place, which is counted as taken.
    fn next(&mut self) -> Option<(Sender<Place>, Arc<str>)> {
        for _ in 0..self.order.len() {
            let namespace = self.order.pop_front()?;
            let tenant = self.tenants.get_mut(&namespace)?;
            // Who was cancelled does not wait any more.
            while tenant.waiting.front().is_some_and(Sender::is_closed) {
                tenant.waiting.pop_front();
            }
            if tenant.held >= SHARE * self.free && !tenant.waiting.is_empty() {
                self.order.push_back(namespace);
                continue;
            }
            let Some(waiting) = tenant.waiting.pop_front() else {
                self.forget(&namespace);
                continue;
            };
            tenant.held += 1;
            self.free -= 1;
            self.given += 1;
            if !tenant.waiting.is_empty() {
                self.order.push_back(Arc::clone(&namespace));
            }
            return Some((waiting, namespace));
        }
        None
    }

    /// Forgets a namespace that holds nothing and waits for nothing.
    fn forget(&mut self, namespace: &Arc<str>) {
        let is_idle = |tenant: &Tenant| tenant.held == 0 && tenant.waiting.is_empty();
        if self.tenants.get(namespace).is_some_and(is_idle) {
            self.tenants.remove(namespace);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut state = self.places.lock();
            state.free += 1;
            if let Some(tenant) = state.tenants.get_mut(&self.namespace) {
                tenant.held -= 1;
            }
            state.forget(&self.namespace);
        }
        self.places.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use proptest::prelude::*;
    use std::pin::pin;

    /// Takes as many as it gets without waiting, of so many wishes.
    fn take(places: &Arc<Places>, namespace: &str, wishes: usize) -> Vec<Place> {
        let taken = (0..wishes).map(|_| places.take(namespace).now_or_never());
        taken.filter_map(Option::flatten).collect()
    }

    #[test]
    fn one_namespace_takes_three_quarters_and_the_next_finds_room() {
        let places = Places::new(1024);
        let greedy = take(&places, "greedy", 2000);
        assert_eq!(greedy.len(), 768);
        let greedy_too = take(&places, "greedy-too", 2000);
        assert_eq!(greedy_too.len(), 192);
        assert_eq!(take(&places, "modest", 10).len(), 10);
        drop(greedy);
        drop(greedy_too);
        assert_eq!(take(&places, "greedy", 2000).len(), 768);
    }

    #[test]
    fn what_is_taken_and_waited_for_is_counted() {
        let places = Places::new(4);
        let held = take(&places, "a", 4);
        let mut waiting = pin!(places.take("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        let load = |waiting, under_way, begun| Load {
            waiting,
            under_way,
            begun,
        };
        // One of four wishes was given up, and does not wait.
        assert_eq!(places.load(), load(1, 3, 3));
        drop(held);
        let got = waiting.now_or_never();
        assert_eq!(places.load(), load(0, 1, 4));
        drop(got);
        assert_eq!(places.load(), load(0, 0, 4));
    }

    #[tokio::test]
    async fn namespaces_take_turns_at_the_places_that_come_free() {
        let places = Places::new(4);
        let first: Vec<_> = take(&places, "a", 4);
        assert_eq!(first.len(), 3);
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = ["a", "a", "a", "b", "b"].map(|namespace| {
            let (places, order) = (Arc::clone(&places), Arc::clone(&order));
            async move {
                let place = places.take(namespace).await;
                order.lock().unwrap().push(namespace);
                tokio::task::yield_now().await;
                drop(place);
            }
        });
        let freed = async { drop(first) };
        futures::join!(futures::future::join_all(waiting), freed);
        let order = order.lock().unwrap().clone();
        let last_b = order.iter().rposition(|name| *name == "b").unwrap();
        assert_eq!(order.len(), 5);
        assert!(last_b < 4, "{order:?}");
    }

    #[test]
    fn who_waits_no_more_takes_no_place() {
        let places = Places::new(1);
        let held = take(&places, "a", 1);
        assert!(places.take("a").now_or_never().is_none());
        assert!(places.take("b").now_or_never().is_none());
        drop(held);
        assert_eq!(take(&places, "c", 1).len(), 1);
    }

    #[test]
    fn who_waits_when_places_are_closed_is_told_so() {
        let places = Places::new(1);
        let held = take(&places, "a", 1);
        let mut waiting = pin!(places.take("b"));
        assert!(waiting.as_mut().now_or_never().is_none());
        places.close();
        assert!(waiting.now_or_never().unwrap().is_none());
        assert!(places.take("c").now_or_never().unwrap().is_none());
        drop(held);
        assert!(places.lock().tenants.is_empty());
    }

    proptest! {
        #[test]
        fn no_place_is_lost_or_given_twice_and_nothing_is_kept(steps in prop::collection::vec((0..4_usize, any::<bool>()), 0..200)) {
            let places = Places::new(8);
            let mut held: Vec<Vec<Place>> = (0..4).map(|_| Vec::new()).collect();
            for (namespace, takes) in steps {
                if takes {
                    held[namespace].extend(take(&places, &namespace.to_string(), 1));
                } else {
                    held[namespace].pop();
                }
                let taken: usize = held.iter().map(Vec::len).sum();
                prop_assert_eq!(places.lock().free, 8 - taken);
            }
            drop(held);
            let state = places.lock();
            prop_assert_eq!((state.free, state.tenants.len(), state.order.len()), (8, 0, 0));
        }
    }
}
