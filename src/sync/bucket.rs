//! A small allowance that fills up again by itself.

use jiff::{SignedDuration, Timestamp};

use super::later;

/// `BURST` at once, then one each `EVERY` milliseconds. Pure: times come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket<const BURST: i32, const EVERY: i64> {
    /// When it will be full again (GCRA's theoretical arrival time).
    full_at: Option<Timestamp>,
}

impl<const BURST: i32, const EVERY: i64> Bucket<BURST, EVERY> {
    const STEP: SignedDuration = SignedDuration::from_millis(EVERY);

    /// From when on something can be taken.
    #[must_use]
    pub fn ready_at(&self, now: Timestamp) -> Timestamp {
        self.full_at(now)
            .map_or(now, |full| later(full, -(Self::STEP * (BURST - 1))))
            .max(now)
    }

    /// Takes one, ready or not: who could not wait still pays.
    pub fn take(&mut self, now: Timestamp) {
        let from = self.full_at(now).map_or(now, |full| full.max(now));
        self.full_at = Some(later(from, Self::STEP).min(Self::empty(now)));
    }

    /// Takes one if it is ready.
    pub fn try_take(&mut self, now: Timestamp) -> bool {
        let is_ready = self.ready_at(now) <= now;
        if is_ready {
            self.take(now);
        }
        is_ready
    }

    /// Further away than with an empty bucket it was told by a clock that was ahead, and then counts for nothing: moved
    /// near, it would move on with each look.
    fn full_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.full_at.filter(|full| *full <= Self::empty(now))
    }

    /// When a bucket that is empty now will be full.
    fn empty(now: Timestamp) -> Timestamp {
        later(now, Self::STEP * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Small = Bucket<2, 10_000>;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn two_at_once_and_then_one_each_ten_seconds() {
        let mut bucket = Small::default();
        assert!(bucket.try_take(at(0)));
        assert!(bucket.try_take(at(0)));
        assert!(!bucket.try_take(at(0)));
        assert_eq!(bucket.ready_at(at(0)), at(10));
        assert!(!bucket.try_take(at(9)));
        assert!(bucket.try_take(at(10)));
        assert_eq!(bucket.ready_at(at(11)), at(20));
        assert!(bucket.try_take(at(100)));
        assert!(bucket.try_take(at(100)), "a quiet time fills it");
        assert!(!bucket.try_take(at(100)), "but no further");
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_stop_everything() {
        let mut bucket = Small::default();
        bucket.take(at(1_000_000));
        assert_eq!(bucket.ready_at(at(0)), at(0));
        bucket.take(at(0));
        bucket.take(at(0));
        assert_eq!(bucket.ready_at(at(0)), at(10), "and counts anew");
        assert!(bucket.try_take(at(10)));
    }

    #[test]
    fn who_takes_without_end_waits_no_longer_for_it() {
        let mut bucket = Small::default();
        for _ in 0..100 {
            bucket.take(at(0));
        }
        assert_eq!(bucket.ready_at(at(0)), at(10));
        assert_eq!(bucket.ready_at(at(9)), at(10));
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_one_each_ten_seconds(steps in prop::collection::vec(0_i64..8, 1..200)) {
            let (mut bucket, mut now, mut taken) = (Small::default(), 0, 0);
            for step in steps {
                now += step;
                taken += i64::from(bucket.try_take(at(now)));
                prop_assert!(taken <= 2 + now / 10, "{taken} in {now} s");
            }
        }
    }
}
