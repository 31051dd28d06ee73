//! Holds calls back while an identity does not work: every one of them would only learn the same. Pure: times come in.

use std::time::{Duration, Instant};

use super::{Class, Error};

/// It stays open for so long, at first and at most.
const OPEN_MIN: Duration = Duration::from_secs(30);
const OPEN_MAX: Duration = Duration::from_secs(300);

/// The breaker of one identity.
#[derive(Clone, Debug, Default)]
pub struct Breaker(Option<Opened>);

#[derive(Clone, Debug)]
struct Opened {
    error: Error,
    /// How often in a row.
    times: u32,
    since: Instant,
    until: Instant,
    /// A call goes through although it is open.
    is_probed: bool,
}

/// Failures of the identity, not of a secret: every other call of it would fail too.
#[must_use]
pub fn breaks(class: Class) -> bool {
    matches!(
        class,
        Class::Credential | Class::SecurityToken | Class::Account | Class::Instance
    )
}

impl Breaker {
    /// The error that a call would only meet again. One that somebody asked for by hand may go through, one at a time:
    /// they may have mended what opened it.
    pub fn refuse(&mut self, is_forced: bool, now: Instant) -> Option<Error> {
        let opened = self.0.as_mut().filter(|opened| now < opened.until)?;
        if is_forced && !opened.is_probed {
            opened.is_probed = true;
            return None;
        }
        Some(opened.error.clone())
    }

    /// Whether calls are held back.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|opened| now < opened.until)
    }

    /// Whether it was open and nobody knows yet if calls work again: one at a time finds out.
    #[must_use]
    pub fn is_doubtful(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|opened| now >= opened.until)
    }

    /// The last failure that broke, until a call is answered.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.0.as_ref().map(|opened| &opened.error)
    }

    /// A call that was sent at `sent` failed in a way that breaks.
    pub fn open(&mut self, error: &Error, sent: Instant, now: Instant) {
        let times = match &self.0 {
            // A call that was on its way when it opened tells nothing new.
            Some(opened) if sent < opened.until && now < opened.until => opened.times,
            Some(opened) => opened.times + 1,
            None => 1,
        };
        let open_for = (OPEN_MIN * 2u32.pow((times - 1).min(8))).min(OPEN_MAX);
        self.0 = Some(Opened {
            error: error.clone(),
            times,
            since: now,
            until: now + open_for,
            is_probed: false,
        });
    }

    /// A call that was sent at `sent` was answered: the other side knew who asked.
    pub fn close(&mut self, sent: Instant) {
        if self.0.as_ref().is_some_and(|opened| sent >= opened.since) {
            self.0 = None;
        }
    }

    /// A call ended and told nothing of the identity.
    pub fn learn_nothing(&mut self) {
        if let Some(opened) = &mut self.0 {
            opened.is_probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_for_longer_each_time_and_closes_at_an_answer() {
        let start = Instant::now();
        let (mut breaker, mut now) = (Breaker::default(), start);
        for seconds in [30, 60, 120, 240, 300, 300] {
            breaker.open(&Error::Timeout, now, now);
            now += Duration::from_millis(seconds * 1000 - 1);
            assert!(breaker.is_open(now), "{seconds}");
            now += Duration::from_millis(1);
            assert!(!breaker.is_open(now), "{seconds}");
            assert!(breaker.is_doubtful(now), "{seconds}");
        }
        breaker.close(start);
        breaker.open(&Error::Timeout, now, now);
        assert!(breaker.is_open(now), "an old answer tells nothing");
        breaker.close(now);
        assert!(!breaker.is_open(now) && !breaker.is_doubtful(now));
    }

    #[test]
    fn calls_that_were_on_their_way_do_not_open_it_again() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.open(&Error::Timeout, start, start);
        }
        assert!(!breaker.is_open(start + OPEN_MIN));
    }

    #[test]
    fn one_forced_call_goes_through_at_a_time() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert!(breaker.refuse(false, now).is_none());
        breaker.open(&Error::Timeout, now, now);
        assert!(breaker.refuse(false, now).is_some());
        assert!(breaker.refuse(true, now).is_none());
        assert!(breaker.refuse(true, now).is_some());
        breaker.learn_nothing();
        assert!(breaker.refuse(true, now).is_none());
    }
}
