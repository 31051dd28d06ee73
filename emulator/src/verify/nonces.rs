//! Nonces that were used, for as long as the gateway remembers them.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use jiff::Timestamp;

use super::WINDOW;

/// Keeps hashes only: at thousands of calls a second the window holds millions.
#[derive(Default)]
pub(crate) struct Nonces {
    hasher: RandomState,
    used: HashSet<u64>,
    order: VecDeque<(Timestamp, u64)>,
}

impl Nonces {
    /// Whether the nonce is new for that key; it is used then.
    pub(crate) fn spend(&mut self, key: &str, nonce: &str, now: Timestamp) -> bool {
        self.forget_old(now);
        let hash = self.hasher.hash_one((key, nonce));
        let is_new = self.used.insert(hash);
        if is_new {
            self.order.push_back((now, hash));
        }
        is_new
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((used, hash)) = self.order.front()
            && now.duration_since(*used) > WINDOW
        {
            self.used.remove(hash);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_nonce_is_refused_to_the_same_key_within_the_window() {
        let mut nonces = Nonces::default();
        let now: Timestamp = "2024-02-21T15:39:26Z".parse().unwrap();
        assert!(nonces.spend("key", "n", now));
        assert!(!nonces.spend("key", "n", now));
        assert!(nonces.spend("other key", "n", now));
        let later = now + SignedDuration::from_mins(16);
        assert!(nonces.spend("key", "n", later));
    }
}
