//! Who may write next: no more at once than the API server can use, Secrets before statuses. Pods wait for Secrets, and
//! only people for statuses.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Writes under way at once; more only queue up in the API server.
const MOST: usize = 32;
/// A status leaves so many places free, so that a Secret never finds none.
const RESERVED: usize = 16;
/// Of so many writes one is a status, however many Secrets wait. A status costs the API server twice what a Secret does.
const TURNS: u64 = 64;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A Secret; or anything else that is not one of many.
    Secret,
    /// The status of a `KmsSecret`.
    Status,
}

/// The places of writes, and who waits for one.
#[derive(Clone, Default)]
pub(super) struct Writes(Arc<Mutex<Line<oneshot::Sender<Place>>>>);

/// A place; another write may have it afterwards.
pub(super) struct Place(Option<Writes>);

impl Writes {
    /// Waits for a place.
    pub(super) async fn wait(&self, kind: Kind) -> Place {
        let (sender, place) = oneshot::channel();
        self.lock().push(kind, sender);
        self.give();
        // A line that is gone has no writes left: it can't be, while somebody waits in it.
        place.await.unwrap_or(Place(None))
    }

    fn give(&self) {
        loop {
            let Some(sender) = self.lock().pop() else {
                return;
            };
            if let Err(mut place) = sender.send(Place(Some(self.clone()))) {
                // Nobody waits for it any more. It is not dropped as a place: that would come back here.
                place.0 = None;
                self.lock().free += 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line<oneshot::Sender<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(writes) = self.0.take() {
            writes.lock().free += 1;
            writes.give();
        }
    }
}

/// Who waits, and how many may go. Pure.
struct Line<T> {
    free: usize,
    given: u64,
    secrets: VecDeque<T>,
    statuses: VecDeque<T>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            free: MOST,
            given: 0,
            secrets: VecDeque::new(),
            statuses: VecDeque::new(),
        }
    }
}

impl<T> Line<T> {
    fn push(&mut self, kind: Kind, who: T) {
        match kind {
            Kind::Secret => self.secrets.push_back(who),
            Kind::Status => self.statuses.push_back(who),
        }
    }

    /// Gives a place to whose turn it is.
    fn pop(&mut self) -> Option<T> {
        if self.free == 0 {
            return None;
        }
        let is_turn = (self.given + 1).is_multiple_of(TURNS);
        let status = if is_turn || self.secrets.is_empty() && self.free > RESERVED {
            self.statuses.pop_front()
        } else {
            None
        };
        let next = status.or_else(|| self.secrets.pop_front())?;
        self.free -= 1;
        self.given += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who gets the places that are free, in order.
    fn pop_all(line: &mut Line<Kind>) -> Vec<Kind> {
        std::iter::from_fn(|| line.pop()).collect()
    }

    fn line(secrets: usize, statuses: usize) -> Line<Kind> {
        let mut line = Line::default();
        (0..statuses).for_each(|_| line.push(Kind::Status, Kind::Status));
        (0..secrets).for_each(|_| line.push(Kind::Secret, Kind::Secret));
        line
    }

    fn count(of: &[Kind], kind: Kind) -> usize {
        of.iter().filter(|it| **it == kind).count()
    }

    #[test]
    fn secrets_go_first_and_now_and_then_a_status() {
        let mut line = line(200, 200);
        let mut got = Vec::new();
        for _ in 0..4 {
            line.free = MOST;
            got.extend(pop_all(&mut line));
        }
        assert_eq!(count(&got, Kind::Secret), 126);
        assert_eq!((got[63], got[127]), (Kind::Status, Kind::Status));
    }

    #[test]
    fn statuses_alone_leave_room_for_a_secret() {
        let mut line = line(0, 100);
        let before = pop_all(&mut line).len();
        assert!((MOST - RESERVED..MOST).contains(&before), "{before}");
        line.push(Kind::Secret, Kind::Secret);
        assert!(pop_all(&mut line).contains(&Kind::Secret));
    }

    #[test]
    fn secrets_alone_take_all_places() {
        assert_eq!(pop_all(&mut line(100, 0)).len(), MOST);
    }

    #[tokio::test]
    async fn a_place_that_is_left_and_one_that_nobody_waits_for_are_given_on() {
        let writes = Writes::default();
        let held: Vec<_> =
            futures::future::join_all((0..MOST).map(|_| writes.wait(Kind::Secret))).await;
        let impatient = writes.wait(Kind::Secret);
        assert!(futures::poll!(Box::pin(impatient)).is_pending());
        let mut patient = Box::pin(writes.wait(Kind::Status));
        assert!(futures::poll!(&mut patient).is_pending());
        drop(held);
        drop(patient.await);
        assert_eq!(writes.lock().free, MOST);
    }
}
