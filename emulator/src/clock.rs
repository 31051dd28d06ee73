//! The emulator's clock: real time plus what a test moved it by.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Locks, also after a panic of another holder: a failing test must not hide its cause behind a poisoned lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a time as KMS does: whole seconds, UTC.
pub(crate) fn spell(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Cuts a time to whole seconds, so that what is announced is exactly what happens.
pub(crate) fn floor(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Adds without leaving the range of times.
pub(crate) fn plus(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

pub(crate) struct Clock {
    start: Instant,
    moved: Mutex<Moved>,
}

#[derive(Clone, Copy)]
struct Moved {
    offset: SignedDuration,
    skew: SignedDuration,
    last_jump: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let start = Instant::now();
        let moved = Moved {
            offset: SignedDuration::ZERO,
            skew: SignedDuration::ZERO,
            last_jump: start,
        };
        Self {
            start,
            moved: Mutex::new(moved),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        shift(real(), lock(&self.moved).offset)
    }

    /// What the `Date` header says and timestamps are compared with.
    pub(crate) fn shown(&self) -> Timestamp {
        let moved = *lock(&self.moved);
        shift(shift(real(), moved.offset), moved.skew)
    }

    pub(crate) fn advance(&self, by: SignedDuration) {
        let mut moved = lock(&self.moved);
        moved.offset = moved.offset.saturating_add(by);
        moved.last_jump = Instant::now();
    }

    pub(crate) fn set(&self, now: Timestamp) {
        let mut moved = lock(&self.moved);
        moved.offset = now.duration_since(real());
        moved.last_jump = Instant::now();
    }

    pub(crate) fn set_skew(&self, skew: SignedDuration) {
        lock(&self.moved).skew = skew;
    }

    pub(crate) fn since_start(&self) -> Duration {
        self.start.elapsed()
    }

    /// The real instant at which this clock showed `time`; what a jump skipped happened at the jump.
    pub(crate) fn instant_of(&self, time: Timestamp) -> Instant {
        let ago = self.now().duration_since(time);
        let last_jump = lock(&self.moved).last_jump;
        let now = Instant::now();
        Duration::try_from(ago)
            .ok()
            .and_then(|ago| now.checked_sub(ago))
            .unwrap_or(if ago.is_negative() { now } else { last_jump })
            .max(last_jump)
    }
}

fn shift(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(time)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn real() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_in_whole_seconds() {
        let time: Timestamp = "2024-02-21T15:39:26.789Z".parse().unwrap();
        assert_eq!(spell(time), "2024-02-21T15:39:26Z");
        assert_eq!(spell(floor(time)), "2024-02-21T15:39:26Z");
    }

    #[test]
    fn advancing_moves_now_and_skew_moves_only_what_is_shown() {
        let clock = Clock::new();
        let before = clock.now();
        clock.advance(SignedDuration::from_hours(5));
        assert!(clock.now().duration_since(before) >= SignedDuration::from_hours(5));
        clock.set_skew(SignedDuration::from_mins(-20));
        let behind = clock.now().duration_since(clock.shown());
        assert!(behind > SignedDuration::from_mins(19));
    }

    #[test]
    fn what_a_jump_skipped_happened_at_the_jump() {
        let clock = Clock::new();
        let skipped = plus(clock.now(), Duration::from_secs(100));
        clock.advance(SignedDuration::from_secs(200));
        assert!(clock.instant_of(skipped) >= clock.start);
        assert!(clock.instant_of(skipped) <= Instant::now());
    }
}
