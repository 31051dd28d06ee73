//! How fast one identity may call one endpoint: additive increase, multiplicative decrease.
//!
//! The quota (450 reads a second) is the whole account's, so the right rate is found and not known. Pure: times come in.

use std::time::{Duration, Instant};

/// Calls that may go at once after a quiet time; a batch costs as many.
const BURST: f64 = 20.0;
/// A throttled service gets at least this much of a rest.
const REST_MIN: Duration = Duration::from_millis(200);
/// Never slower than a call in two seconds, or nothing would ever tell that the service recovered.
const RATE_MIN: f64 = 0.5;
/// The full rate is reached again after so many seconds without a refusal.
const RECOVERY_SECONDS: f64 = 60.0;

/// The pace of calls.
#[derive(Clone, Debug)]
pub struct Limiter {
    most: f64,
    rate: f64,
    /// When all calls made so far would have been made at the even pace (GCRA's theoretical arrival time).
    paid_until: Instant,
    resting_until: Instant,
    lowered_at: Instant,
    raised_at: Instant,
}

impl Limiter {
    /// At most `per_second` calls a second.
    #[must_use]
    pub fn new(per_second: f64, now: Instant) -> Self {
        Self {
            most: per_second,
            rate: per_second,
            paid_until: now,
            resting_until: now,
            lowered_at: now,
            raised_at: now,
        }
    }

    /// At most `per_second` calls a second from now on. What was learnt of the service stays.
    pub fn retune(&mut self, per_second: f64) {
        let was_full = self.rate >= self.most;
        self.most = per_second;
        self.rate = if was_full {
            per_second
        } else {
            self.rate.min(per_second)
        };
    }

    /// Calls a second, at the moment.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// How long to wait before the next call; `None`: it may go now.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let earliest = self.paid_until.checked_sub(self.allowance()).unwrap_or(now);
        let earliest = earliest.max(self.resting_until);
        let wait = earliest.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// What may go ahead of the even pace.
    fn allowance(&self) -> Duration {
        Duration::from_secs_f64((BURST - 1.0).min(self.rate) / self.rate)
    }

    /// Takes note of calls that are sent now. More than one may go beyond the pace; the next ones wait for it.
    pub fn take(&mut self, calls: usize, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has 20 at most")]
        let cost = Duration::from_secs_f64(calls as f64 / self.rate);
        self.paid_until = self.paid_until.max(now) + cost;
    }

    /// A call was not refused.
    pub fn passed(&mut self, now: Instant) {
        let quiet = now.saturating_duration_since(self.raised_at).as_secs_f64();
        self.rate = (self.rate + self.most / RECOVERY_SECONDS * quiet).min(self.most);
        self.raised_at = now;
    }

    /// A call that was sent at `sent` was refused. Refusals of calls that were on their way when the pace was lowered
    /// lower it no further.
    pub fn throttled(&mut self, sent: Instant, retry_after: Option<Duration>, now: Instant) {
        if sent >= self.lowered_at {
            self.rate = (self.rate / 2.0).max(RATE_MIN);
            self.lowered_at = now;
        }
        // What is refused costs the service too: no refusal lets the next call go sooner than the pace.
        let pace = Duration::from_secs_f64(1.0 / self.rate);
        let rest = retry_after.unwrap_or_default().max(REST_MIN).max(pace);
        self.resting_until = self.resting_until.max(now + rest);
        self.raised_at = self.resting_until;
        // No burst after a rest: the calls that waited go at the even pace.
        self.paid_until = self.resting_until + self.allowance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A service that takes `rate` calls a second with a burst of as many; answers in 5 ms.
    fn run(asked: f64, rate: f64, calls: usize) -> (usize, Duration) {
        let start = Instant::now();
        let mut now = start;
        let mut limiter = Limiter::new(asked, now);
        let (mut tokens, mut refilled, mut refused, mut done) = (rate, now, 0, 0);
        while done < calls {
            now += limiter.wait(now).unwrap_or_default();
            limiter.take(1, now);
            let sent = now;
            tokens = (tokens + now.duration_since(refilled).as_secs_f64() * rate).min(rate);
            refilled = now;
            let answered = now + Duration::from_millis(5);
            if tokens >= 1.0 {
                tokens -= 1.0;
                done += 1;
                limiter.passed(answered);
            } else {
                refused += 1;
                limiter.throttled(sent, None, answered);
            }
        }
        (refused, now.duration_since(start))
    }

    #[test]
    fn the_pace_is_even_after_a_burst() {
        let start = Instant::now();
        let mut limiter = Limiter::new(100.0, start);
        let mut now = start;
        for _ in 0..220 {
            now += limiter.wait(now).unwrap_or_default();
            limiter.take(1, now);
        }
        let took = now.duration_since(start).as_secs_f64();
        assert!((1.9..2.1).contains(&took), "{took}");
    }

    #[test]
    fn a_batch_costs_its_items() {
        let now = Instant::now();
        let mut limiter = Limiter::new(100.0, now);
        limiter.take(20, now);
        assert_eq!(limiter.wait(now), Some(Duration::from_millis(10)));
    }

    #[test]
    fn a_service_that_is_slower_than_asked_refuses_few_and_is_used_well() {
        let (refused, took) = run(100.0, 20.0, 1000);
        assert!(refused < 50, "{refused} of 1000 were refused");
        assert!(took < Duration::from_secs(100), "{took:?} at 20 a second");
    }

    #[test]
    fn refusals_of_what_was_on_its_way_count_once() {
        let start = Instant::now();
        let mut limiter = Limiter::new(100.0, start);
        let later = start + Duration::from_millis(5);
        for _ in 0..50 {
            limiter.throttled(start, None, later);
        }
        assert!((limiter.rate() - 50.0).abs() < 0.01);
    }

    #[test]
    fn who_is_refused_again_and_again_calls_no_faster_than_the_pace() {
        let start = Instant::now();
        let (mut limiter, mut now, mut calls) = (Limiter::new(100.0, start), start, 0);
        while now < start + Duration::from_secs(60) {
            now += limiter.wait(now).unwrap_or_default();
            limiter.take(1, now);
            calls += 1;
            limiter.throttled(now, None, now + Duration::from_millis(5));
            now += Duration::from_millis(5);
        }
        assert!(calls <= 40, "{calls} calls in a minute");
    }

    #[test]
    fn the_service_says_how_long_to_rest() {
        let now = Instant::now();
        let mut limiter = Limiter::new(100.0, now);
        limiter.throttled(now, Some(Duration::from_secs(3)), now);
        assert_eq!(limiter.wait(now), Some(Duration::from_secs(3)));
    }

    #[test]
    fn the_pace_recovers() {
        let now = Instant::now();
        let mut limiter = Limiter::new(100.0, now);
        for n in 0..20 {
            limiter.throttled(
                now + Duration::from_millis(n),
                None,
                now + Duration::from_millis(n),
            );
        }
        assert!(limiter.rate() < 1.0);
        for second in 1..=70 {
            limiter.passed(now + Duration::from_secs(second));
        }
        assert!((limiter.rate() - 100.0).abs() < 0.01, "{}", limiter.rate());
    }

    #[test]
    fn another_pace_keeps_what_was_learnt() {
        let now = Instant::now();
        let mut limiter = Limiter::new(100.0, now);
        limiter.retune(200.0);
        assert!((limiter.rate() - 200.0).abs() < 0.01);
        limiter.throttled(now, None, now);
        limiter.retune(400.0);
        assert!((limiter.rate() - 100.0).abs() < 0.01, "still held back");
        limiter.retune(10.0);
        assert!((limiter.rate() - 10.0).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn it_never_waits_for_ever(asked in 1.0f64..1000.0, rate in 1.0f64..100.0) {
            let (_, took) = run(asked, rate, 50);
            prop_assert!(took < Duration::from_secs(300), "{took:?}");
        }
    }
}
