//! The clock, held against one that nobody sets.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The clocks are compared this often.
const LOOK: Duration = Duration::from_secs(5);
/// By less than this a clock may go wrong between two looks.
const STEP: SignedDuration = SignedDuration::from_secs(5);

/// Waits until `clock` was set, forwards or back, or the machine slept, through which only that clock goes on.
pub(super) async fn step(clock: fn() -> Timestamp) {
    let mut last = (clock(), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = (clock(), Instant::now());
        let passed = SignedDuration::try_from(now.1 - last.1).unwrap_or(SignedDuration::MAX);
        if (now.0.duration_since(last.0) - passed).abs() >= STEP {
            return;
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    /// Seconds by which the clock was set.
    static SET: AtomicI64 = AtomicI64::new(0);
    static BEGAN: OnceLock<Instant> = OnceLock::new();

    fn clock() -> Timestamp {
        let passed = BEGAN.get_or_init(Instant::now).elapsed();
        let passed = SignedDuration::try_from(passed).unwrap();
        Timestamp::UNIX_EPOCH + passed + SignedDuration::from_secs(SET.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_noticed_in_seconds_and_nothing_else_is_one() {
        for by in [-7200, -6, 6, 7200] {
            let stepping = step(clock);
            let mut stepping = std::pin::pin!(stepping);
            for drift in [0, 2, -2] {
                SET.fetch_add(drift, Ordering::Relaxed);
                let hour = tokio::time::timeout(Duration::from_hours(1), &mut stepping).await;
                assert!(hour.is_err(), "no step");
            }
            SET.fetch_add(by, Ordering::Relaxed);
            tokio::time::timeout(2 * LOOK, stepping).await.unwrap();
        }
    }
}
