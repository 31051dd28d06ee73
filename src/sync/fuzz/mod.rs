//! Property tests of decisions: whatever a status, a clock, an answer or a spec holds.
//!
//! `make fuzz` runs all tests of modules of this name for long, `cargo test` some hundreds of each.

mod asking;
mod deciding;
mod reading;
mod shaping;
mod tenancy;
mod timing;

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::alibaba::fuzz::{date, interval, word};
use crate::api::kms_secret::SourceStatus;
use crate::sync::whole_seconds;

/// The time around which most things here happen.
const NOW: i64 = 1_700_000_000;

/// A time near [`NOW`], far from it, or at an end of time.
fn moment() -> impl Strategy<Value = Timestamp> + Clone {
    let seconds = |seconds| Timestamp::from_second(seconds).unwrap();
    let near = (-20_000..20_000_i64, 0..1_000_000_000_i64)
        .prop_map(move |(by, nanos)| seconds(NOW + by) + SignedDuration::from_nanos(nanos));
    let odd = vec![Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH];
    prop_oneof![
        12 => near,
        2 => (NOW - 100_000_000..NOW + 100_000_000).prop_map(seconds),
        1 => select(odd),
        1 => (-377_705_023_201..=253_402_207_200_i64).prop_map(seconds),
    ]
}

/// How far the clock of KMS can seem to be from ours.
fn offset() -> impl Strategy<Value = SignedDuration> {
    prop_oneof![2 => Just(0), 1 => -900..=900_i64].prop_map(SignedDuration::from_secs)
}

/// What a status can say of a source: all that KMS says, and dates that it never would.
fn source_status() -> impl Strategy<Value = SourceStatus> {
    let types = &["Generic", "Rds", "rds", "RAMCredentials", "ECS", "Redis"];
    // The API server keeps whole seconds, of no year before our era.
    let kept = |time: Timestamp| whole_seconds(time.max(Timestamp::UNIX_EPOCH));
    let time = move || proptest::option::of(moment().prop_map(kept));
    (
        word(&["v1", "v2"]),
        proptest::option::weighted(0.9, word(types)),
        proptest::option::weighted(
            0.7,
            word(&["Enabled", "Enabled", "Enabled", "Disabled", "Invalid"]),
        ),
        proptest::option::of(prop_oneof![
            interval(),
            date(),
            (1..100_000).prop_map(|s| format!("{s}s"))
        ]),
        (time(), time(), time()),
    )
        .prop_map(
            |(version_id, secret_type, automatic_rotation, rotation_interval, dates)| {
                SourceStatus {
                    name: "source".into(),
                    secret_name: "shop/db".into(),
                    version_id,
                    secret_type,
                    automatic_rotation,
                    rotation_interval,
                    last_rotation_date: dates.0,
                    next_rotation_date: dates.1,
                    confirmed_rotation_date: dates.2,
                    ..SourceStatus::default()
                }
            },
        )
}

fn source_statuses() -> impl Strategy<Value = Vec<SourceStatus>> {
    vec(source_status(), 0..4)
}
