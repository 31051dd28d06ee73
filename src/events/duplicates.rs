//! Events that came before: senders repeat what they are not sure of, and two of them may tell of one event.

use std::collections::{HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::alibaba::notice::Notice;

/// So many events are remembered...
const EVENTS_MAX: usize = 4096;
/// ...for so long.
const KEPT: SignedDuration = SignedDuration::from_hours(1);

/// Name of a secret and id of an event.
type Key = (String, String);

/// The last events.
#[derive(Default)]
pub(super) struct Duplicates {
    known: HashSet<Key>,
    order: VecDeque<(Timestamp, Key)>,
}

impl Duplicates {
    /// Whether an event comes for the first time, as far as that is remembered; it is remembered from now on. One
    /// without an id is always new: it costs what a hint costs.
    pub(super) fn is_new(&mut self, notice: &Notice, now: Timestamp) -> bool {
        let Some(id) = &notice.event_id else {
            return true;
        };
        let key = (notice.secret_name.clone(), id.clone());
        self.forget(now);
        let is_new = self.known.insert(key.clone());
        if is_new {
            self.order.push_back((now, key));
        }
        is_new
    }

    /// Makes room for one more.
    fn forget(&mut self, now: Timestamp) {
        let is_old = |at: &Timestamp| now.duration_since(*at) > KEPT;
        while self.order.len() >= EVENTS_MAX || self.order.front().is_some_and(|(at, _)| is_old(at))
        {
            let Some((_, key)) = self.order.pop_front() else {
                return;
            };
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::notice::Kind;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn notice(secret_name: &str, id: Option<&str>) -> Notice {
        Notice {
            event_id: id.map(Into::into),
            region: None,
            account: None,
            secret_name: secret_name.into(),
            kind: Kind::Changed,
        }
    }

    #[test]
    fn an_event_is_one_secret_and_one_id() {
        let mut duplicates = Duplicates::default();
        assert!(duplicates.is_new(&notice("a", Some("1")), at(0)));
        assert!(!duplicates.is_new(&notice("a", Some("1")), at(1)));
        assert!(duplicates.is_new(&notice("b", Some("1")), at(1)));
        assert!(duplicates.is_new(&notice("a", Some("2")), at(1)));
        for _ in 0..2 {
            assert!(duplicates.is_new(&notice("a", None), at(1)));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_in_time_and_number() {
        let mut duplicates = Duplicates::default();
        assert!(duplicates.is_new(&notice("a", Some("1")), at(0)));
        assert!(!duplicates.is_new(&notice("a", Some("1")), at(3600)));
        assert!(duplicates.is_new(&notice("a", Some("1")), at(3601)));
        for id in 0..10_000 {
            assert!(duplicates.is_new(&notice("b", Some(&id.to_string())), at(3601)));
        }
        assert_eq!(duplicates.known.len(), EVENTS_MAX);
        assert_eq!(duplicates.order.len(), EVENTS_MAX);
        assert!(!duplicates.is_new(&notice("b", Some("9999")), at(3601)));
    }
}
