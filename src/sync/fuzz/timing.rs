//! When to read next: never in the past, never later than promised, at any date and on any clock.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::api::kms_secret::RefreshPolicy;
use crate::sync::later;
use crate::sync::schedule::{Overdue, Schedule, announced, note_rotation, overdue};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const SPREAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Everything of a schedule but when KMS was last read.
#[derive(Clone, Debug)]
struct Timetable {
    policy: RefreshPolicy,
    interval: Option<SignedDuration>,
    pinned: bool,
    sources: Vec<SourceStatus>,
    offset: SignedDuration,
    hash: u64,
}

impl Timetable {
    fn after(&self, last_read: Timestamp) -> Schedule<'_> {
        Schedule {
            policy: self.policy,
            interval: self.interval,
            pinned: self.pinned,
            sources: &self.sources,
            last_read,
            offset: self.offset,
            hash: self.hash,
        }
    }
}

/// As long as a spec can ask for, and as a spec from before the schema could.
fn ceiling() -> impl Strategy<Value = SignedDuration> {
    let seconds = prop_oneof![
        6 => 1..100_000_i64,
        1 => Just(3_666_059_939),
        1 => select(vec![i64::MAX, i64::MAX / 1000]),
    ];
    seconds.prop_map(SignedDuration::from_secs)
}

fn timetables() -> impl Strategy<Value = Timetable> {
    let policies = vec![
        RefreshPolicy::Rotation,
        RefreshPolicy::Rotation,
        RefreshPolicy::Interval,
        RefreshPolicy::OnChange,
        RefreshPolicy::Once,
    ];
    let interval = proptest::option::of(ceiling());
    let all = (
        select(policies),
        interval,
        any::<bool>(),
        source_statuses(),
        offset(),
        any::<u64>(),
    );
    all.prop_map(
        |(policy, interval, pinned, sources, offset, hash)| Timetable {
            policy,
            interval,
            pinned,
            sources,
            offset,
            hash,
        },
    )
}

fn is_by_time(policy: RefreshPolicy) -> bool {
    matches!(policy, RefreshPolicy::Rotation | RefreshPolicy::Interval)
}

proptest! {
    #[test]
    fn the_next_read_is_after_the_last_and_not_beyond_the_ceiling_and_its_spread(
        timetable in timetables(), last_read in moment(), start in moment()
    ) {
        let schedule = timetable.after(last_read);
        let next = schedule.next();
        prop_assert_eq!(next.is_some(), is_by_time(timetable.policy));
        let ceiling = schedule.ceiling();
        prop_assert!(ceiling >= SECOND);
        let spread = (ceiling / 10).min(SPREAD_MAX);
        if let Some(due) = next {
            prop_assert!(due.at > last_read || last_read == Timestamp::MAX, "{:?}", due);
            prop_assert!(due.at <= later(last_read, ceiling.saturating_add(spread)), "{:?}", due);
            prop_assert!(!due.rotation || timetable.policy == RefreshPolicy::Rotation);
            prop_assert!(due.rotation || due.at >= later(last_read, ceiling), "{:?}", due);
        }
        let missed = schedule.after_start(start);
        prop_assert!(start <= missed && missed <= later(start, SPREAD_MAX.min(ceiling)));
        prop_assert_eq!(timetable.after(last_read).next(), next);
    }

    #[test]
    fn an_announced_date_is_met_within_a_second_and_then_asked_for_at_growing_steps(timetable in timetables(), last_read in moment()) {
        let timetable = Timetable { policy: RefreshPolicy::Rotation, ..timetable };
        let schedule = timetable.after(last_read);
        let date = timetable.sources.iter().filter_map(announced).min();
        let date = date.map(|date| later(date, -timetable.offset));
        let due = schedule.next().unwrap();
        match date {
            Some(date) if date > last_read && later(date, SECOND) <= later(last_read, schedule.ceiling()) => {
                prop_assert!(due.rotation && due.at >= date && due.at <= later(date, SECOND), "{:?}", due);
            }
            // Late: an eighth of it later, within a second and the ceiling.
            Some(date) if date <= last_read && last_read < Timestamp::MAX => {
                let step = (last_read.duration_since(date) / 8).max(SignedDuration::from_secs(5));
                prop_assert!(due.at >= later(last_read, SECOND) && due.at <= later(last_read, step), "{:?}", due);
            }
            None => prop_assert!(!due.rotation),
            _ => {}
        }
    }

    #[test]
    fn who_read_later_reads_again_later(timetable in timetables(), one in moment(), other in moment()) {
        let (early, late) = (one.min(other), one.max(other));
        let next = |last_read| timetable.after(last_read).next().map(|due| due.at);
        prop_assert!(next(early) <= next(late), "{:?} {:?}", next(early), next(late));
    }

    #[test]
    fn a_rotation_that_is_overdue_stays_so_until_kms_says_something_else(
        sources in source_statuses(), one in moment(), other in moment()
    ) {
        let (early, late) = (overdue(&sources, one.min(other)), overdue(&sources, one.max(other)));
        prop_assert!(early.is_none() || late == early, "{early:?} {late:?}");
        let is_invalid = sources.iter().any(|source| {
            source.automatic_rotation.as_deref().is_some_and(|word| word.eq_ignore_ascii_case("Invalid"))
        });
        prop_assert_eq!(late == Some(Overdue::Invalid), is_invalid);
    }

    #[test]
    fn only_a_date_that_has_passed_and_stands_is_confirmed(
        old in source_status(), new in source_status(), is_same_date in any::<bool>(), kms_now in moment()
    ) {
        let mut read = new;
        if is_same_date {
            (read.next_rotation_date, read.rotation_interval) = (old.next_rotation_date.clone(), old.rotation_interval.clone());
        }
        note_rotation(&old, &mut read, kms_now);
        let confirmed = read.confirmed_rotation_date.as_ref();
        if confirmed != old.confirmed_rotation_date.as_ref() {
            prop_assert!(confirmed.is_some_and(|date| date.0 <= kms_now && announced(&old) == Some(date.0)));
            prop_assert_eq!(announced(&read), None);
        }
    }
}
