//! What to do and when, decided without doing anything: no I/O, no clock, no randomness below this module.

pub mod absence;
pub mod backoff;
pub mod bucket;
pub mod bulletin;
mod conditions;
mod failure;
#[cfg(test)]
mod fuzz;
pub mod hash;
pub mod hint;
pub mod identity;
pub mod plan;
mod reason;
mod refusal;
pub mod rollout;
pub mod schedule;
pub mod shape;
pub mod share;
pub mod sources;
pub mod spec;
pub mod standing;
pub mod status;
pub mod store_status;
pub mod tenancy;
pub mod uses;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use failure::Failure;
pub use reason::{Reason, Retry};

/// `at` plus `by`, at most the end of time: what comes from a wire must not overflow.
#[must_use]
pub fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// Whether resourceVersion `a` is before `b`. They count up on one server (comparable since Kubernetes 1.35, and in
/// every version before it that keeps its objects in etcd); what is not a number is taken for newer.
#[must_use]
pub fn is_older(a: &str, b: &str) -> bool {
    matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a < b)
}

/// The API server keeps whole seconds, and a status must equal what comes back.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}
