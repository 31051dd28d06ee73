//! Flow control: a token bucket for each account.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::errors::{ApiError, error};

/// The limit of an account, and how a call over it is refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Throttle {
    /// Calls a second.
    pub rate: f64,
    /// Calls at once.
    pub burst: f64,
    /// `Rejected.Throttling` or one of the gateway's `Throttling` codes.
    #[serde(default = "rejected")]
    pub code: String,
    /// The `x-acs-retry-after` in milliseconds; otherwise the time until the next token.
    #[serde(default)]
    pub retry_after_ms: Option<i64>,
    /// Whether there is an `x-acs-retry-after` at all.
    #[serde(default = "yes")]
    pub hint: bool,
}

fn rejected() -> String {
    "Rejected.Throttling".to_owned()
}

fn yes() -> bool {
    true
}

impl Throttle {
    /// A limit refused with `Rejected.Throttling` and a hint.
    #[must_use]
    pub fn new(rate: f64, burst: f64) -> Self {
        Self {
            rate,
            burst,
            code: rejected(),
            retry_after_ms: None,
            hint: true,
        }
    }

    /// Refused with that code.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        code.clone_into(&mut self.code);
        self
    }

    /// Refused without `x-acs-retry-after`.
    #[must_use]
    pub fn without_hint(mut self) -> Self {
        self.hint = false;
        self
    }
}

#[derive(Default)]
pub(crate) struct Throttling {
    limit: Option<Throttle>,
    own: HashMap<String, Option<Throttle>>,
    buckets: HashMap<String, Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Throttling {
    pub(crate) fn set(&mut self, limit: Option<Throttle>) {
        self.limit = limit;
        self.own.clear();
        self.buckets.clear();
    }

    pub(crate) fn set_for(&mut self, account: &str, limit: Option<Throttle>) {
        self.own.insert(account.to_owned(), limit);
        self.buckets.remove(account);
    }

    /// Takes the tokens of a call from the bucket of its account. What costs more than the bucket holds passes when
    /// it is full, and leaves a debt.
    pub(crate) fn take(&mut self, account: &str, cost: f64, now: Instant) -> Result<(), ApiError> {
        let own = self.own.get(account).unwrap_or(&self.limit);
        let Some(limit) = own else {
            return Ok(());
        };
        if !self.buckets.contains_key(account) {
            let full = Bucket {
                tokens: limit.burst,
                filled: now,
            };
            self.buckets.insert(account.to_owned(), full);
        }
        let Some(bucket) = self.buckets.get_mut(account) else {
            return Ok(());
        };
        let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * limit.rate).min(limit.burst);
        bucket.filled = now;
        let needed = cost.min(limit.burst);
        if bucket.tokens >= needed {
            bucket.tokens -= cost;
            return Ok(());
        }
        Err(refuse(limit, needed - bucket.tokens))
    }
}

fn refuse(limit: &Throttle, missing: f64) -> ApiError {
    let refusal = error(&limit.code);
    if !limit.hint {
        return refusal;
    }
    let wait = Duration::try_from_secs_f64(missing / limit.rate).unwrap_or(Duration::from_secs(1));
    let millis = limit
        .retry_after_ms
        .unwrap_or_else(|| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1));
    refusal.header("x-acs-retry-after", millis.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_time_and_each_account_has_its_own() {
        let mut throttling = Throttling::default();
        throttling.set(Some(Throttle::new(10.0, 2.0)));
        let now = Instant::now();
        assert!(throttling.take("a", 1.0, now).is_ok());
        assert!(throttling.take("a", 1.0, now).is_ok());
        let refusal = throttling.take("a", 1.0, now).unwrap_err();
        assert_eq!(refusal.status, 429);
        assert_eq!(refusal.headers[0].1, "100");
        assert!(throttling.take("b", 1.0, now).is_ok());
        let later = now + Duration::from_millis(101);
        assert!(throttling.take("a", 1.0, later).is_ok());
    }
    #[test]
    fn what_costs_more_than_the_bucket_holds_leaves_a_debt() {
        let mut throttling = Throttling::default();
        throttling.set(Some(Throttle::new(10.0, 5.0)));
        let now = Instant::now();
        assert!(throttling.take("a", 20.0, now).is_ok());
        let after = |seconds| now + Duration::from_secs_f64(seconds);
        assert!(throttling.take("a", 1.0, after(1.5)).is_err());
        assert!(throttling.take("a", 1.0, after(1.61)).is_ok());
    }

    #[test]
    fn an_account_can_have_a_limit_of_its_own() {
        let mut throttling = Throttling::default();
        throttling.set_for("a", Some(Throttle::new(0.001, 1.0)));
        let now = Instant::now();
        assert!(throttling.take("a", 1.0, now).is_ok());
        assert!(throttling.take("a", 1.0, now).is_err());
        assert!((0..9).all(|_| throttling.take("b", 1.0, now).is_ok()));
    }
}
