//! Whether what must go on for ever still does.
//!
//! What beats does so for going round, not for work that is done: there may be none, and neither the API server nor KMS
//! has to answer for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Whoever beats by a timer beats this often.
const BEAT: Duration = Duration::from_secs(5);
/// Whoever goes round has not stood still before it has been silent for so long: every step has a deadline that is much
/// shorter, and a machine may be busy.
pub const BOUND: Duration = Duration::from_secs(60);

/// The pulses of all that must go on.
#[derive(Clone, Default)]
pub struct Pulses(Arc<Mutex<Vec<Weak<Pulse>>>>);

struct Pulse {
    of: String,
    bound: Duration,
    last: Mutex<Instant>,
}

/// Beats for one of them; dropped, it has ended and needs no pulse any more.
pub struct Heart(Arc<Pulse>);

impl Pulses {
    /// From `now` on, what is called `of` has to beat at least once in `bound`.
    #[must_use]
    pub fn begin(&self, of: String, bound: Duration, now: Instant) -> Heart {
        let last = Mutex::new(now);
        let pulse = Arc::new(Pulse { of, bound, last });
        lock(&self.0).push(Arc::downgrade(&pulse));
        Heart(pulse)
    }

    /// Says what stands still, if anything does.
    #[must_use]
    pub fn stuck(&self, now: Instant) -> Option<String> {
        let mut pulses = lock(&self.0);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        let silent = pulses.iter().filter_map(|pulse| {
            let pulse = pulse.upgrade()?;
            let silence = now.saturating_duration_since(*lock(&pulse.last));
            let (of, seconds) = (&pulse.of, silence.as_secs());
            (silence > pulse.bound).then(|| format!("{of} has stood still for {seconds} s"))
        });
        let silent: Vec<_> = silent.collect();
        (!silent.is_empty()).then(|| silent.join("; "))
    }
}

impl Heart {
    /// It goes on.
    pub fn beat(&self, now: Instant) {
        *lock(&self.0.last) = now;
    }

    /// Beats for ever whenever `goes_on` says so, as long as somebody polls this: the same task as what it beats for.
    pub async fn keep_beating(self, mut goes_on: impl FnMut() -> bool) {
        loop {
            if goes_on() {
                self.beat(tokio::time::Instant::now().into_std());
            }
            tokio::time::sleep(BEAT).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn who_is_silent_for_longer_than_its_bound_is_named() {
        let (pulses, began) = (Pulses::default(), Instant::now());
        assert_eq!(pulses.stuck(began), None);
        let quick = pulses.begin("the quick one".into(), seconds(60), began);
        let slow = pulses.begin("the slow one".into(), seconds(600), began);
        assert_eq!(pulses.stuck(began + seconds(60)), None);
        let stuck = pulses.stuck(began + seconds(61));
        assert_eq!(stuck.unwrap(), "the quick one has stood still for 61 s");
        quick.beat(began + seconds(61));
        assert_eq!(pulses.stuck(began + seconds(121)), None);
        let both = pulses.stuck(began + seconds(700)).unwrap();
        assert_eq!(
            both,
            "the quick one has stood still for 639 s; the slow one has stood still for 700 s"
        );
        drop(quick);
        slow.beat(began + seconds(700));
        assert_eq!(
            pulses.stuck(began + seconds(700)),
            None,
            "what ended needs no pulse"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_beats_while_it_is_polled_and_the_work_goes_on() {
        let now = || tokio::time::Instant::now().into_std();
        let pulses = Pulses::default();
        let goes_on = std::cell::Cell::new(true);
        let beating = pulses
            .begin("it".into(), BOUND, now())
            .keep_beating(|| goes_on.get());
        let mut beating = std::pin::pin!(beating);
        let _ = tokio::time::timeout(seconds(3600), beating.as_mut()).await;
        assert_eq!(pulses.stuck(now()), None);
        goes_on.set(false);
        let _ = tokio::time::timeout(seconds(70), beating.as_mut()).await;
        assert!(pulses.stuck(now()).is_some());
        goes_on.set(true);
        let _ = tokio::time::timeout(seconds(10), beating.as_mut()).await;
        assert_eq!(pulses.stuck(now()), None);
        tokio::time::sleep(seconds(70)).await;
        assert!(pulses.stuck(now()).is_some(), "nobody polls it");
    }
}
