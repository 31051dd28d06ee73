//! When to read next: a ceiling, and the dates that KMS announces.
//!
//! Dates are in the time of KMS, everything else in ours; `offset` is their clock minus ours.

use jiff::{SignedDuration, Timestamp};

use super::later;
use crate::alibaba::secret_value::read_interval;
use crate::api::kms_secret::{RefreshPolicy, SourceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Waited after an announced date before reading: dates count whole seconds, and a rotation takes a moment.
const GRACE: SignedDuration = SignedDuration::from_millis(250);
/// Reads of one date are spread over this.
const JITTER: SignedDuration = SignedDuration::from_millis(500);
/// The most by which reads at the ceiling are spread.
const SPREAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Everything that decides when to read next.
#[derive(Clone, Debug)]
pub struct Schedule<'a> {
    /// The policy in force.
    pub policy: RefreshPolicy,
    /// `spec.refresh.interval`.
    pub interval: Option<SignedDuration>,
    /// The source names a version id.
    pub pinned: bool,
    /// What KMS said at the last read.
    pub sources: &'a [SourceStatus],
    /// When KMS was last read with success.
    pub last_read: Timestamp,
    /// The clock of KMS minus ours.
    pub offset: SignedDuration,
    /// Hash of the object's uid.
    pub hash: u64,
}

/// A time at which to read, and whether an announced date is the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When, in our time.
    pub at: Timestamp,
    /// A rotation was announced: this read must not wait behind periodic ones.
    pub rotation: bool,
}

impl Schedule<'_> {
    /// The longest time between two reads: the interval that was asked for, else by type: 10 minutes where a rotation by
    /// hand can kill the old value at once, a day for a version that cannot change, else an hour.
    #[must_use]
    pub fn ceiling(&self) -> SignedDuration {
        let quick = ["Rds", "ECS", "RAMCredentials"];
        let by_type = |source: &SourceStatus| {
            let is_quick = quick.iter().any(|quick| is_type(source, quick));
            SignedDuration::from_mins(if is_quick { 10 } else { 60 })
        };
        self.interval.unwrap_or_else(|| {
            if self.pinned {
                SignedDuration::from_hours(24)
            } else {
                let shortest = self.sources.iter().map(by_type).min();
                shortest.unwrap_or(SignedDuration::from_hours(1))
            }
        })
    }

    /// When to read next, or `None` where time decides nothing.
    #[must_use]
    pub fn next(&self) -> Option<Due> {
        let by_ceiling = Due {
            at: later(self.last_read, self.ceiling().saturating_add(self.spread())),
            rotation: false,
        };
        match self.policy {
            RefreshPolicy::Once | RefreshPolicy::OnChange => None,
            RefreshPolicy::Interval => Some(by_ceiling),
            RefreshPolicy::Rotation => Some(match self.by_date() {
                Some(by_date) if by_date.at <= by_ceiling.at => by_date,
                _ => by_ceiling,
            }),
        }
    }

    /// The read that an announced date asks for: just after it, and then at growing steps until KMS shows the rotation.
    /// The step is an eighth of the lateness at the last read: no state, and few reads however late KMS is.
    fn by_date(&self) -> Option<Due> {
        let (date, source) = soonest(self.sources)?;
        let date = later(date, -self.offset);
        let at = if self.last_read < date {
            later(date, GRACE + fraction(self.hash, JITTER))
        } else {
            let lateness = self.last_read.duration_since(date);
            later(
                self.last_read,
                (lateness / 8)
                    .max(smallest_step(source))
                    .min(self.ceiling()),
            )
        };
        Some(Due { at, rotation: true })
    }

    fn spread(&self) -> SignedDuration {
        fraction(self.hash, spread_most(self.ceiling()))
    }

    /// The read at the ceiling that was missed while nobody looked: spread from `start` on, so that a restart is no burst.
    #[must_use]
    pub fn after_start(&self, start: Timestamp) -> Timestamp {
        later(start, fraction(self.hash, self.ceiling().min(SPREAD_MAX)))
    }
}

/// The longest wait for a read at the ceiling, its spread included.
#[must_use]
pub fn longest_wait(ceiling: SignedDuration) -> SignedDuration {
    ceiling.saturating_add(spread_most(ceiling))
}

fn spread_most(ceiling: SignedDuration) -> SignedDuration {
    (ceiling / 10).min(SPREAD_MAX)
}

/// The share of `most` that belongs to a hash.
fn fraction(hash: u64, most: SignedDuration) -> SignedDuration {
    let parts = i32::try_from(hash % 1000).unwrap_or_default();
    most * parts / 1000
}

/// Between 1 s and 5 s: a twentieth of the interval.
fn smallest_step(source: &SourceStatus) -> SignedDuration {
    let longest = SignedDuration::from_secs(5);
    interval(source).map_or(longest, |interval| {
        (interval / 20).clamp(SignedDuration::from_secs(1), longest)
    })
}

fn interval(source: &SourceStatus) -> Option<SignedDuration> {
    source.rotation_interval.as_deref().and_then(read_interval)
}

/// Whether a source is of this type, as KMS may spell it.
#[must_use]
pub fn is_type(source: &SourceStatus, name: &str) -> bool {
    let secret_type = source.secret_type.as_deref();
    secret_type.is_some_and(|secret_type| secret_type.eq_ignore_ascii_case(name))
}

/// The date, in the time of KMS, at which KMS announces to rotate `source`.
///
/// Only while automatic rotation is enabled, or not mentioned, and until the rotation was seen.
#[must_use]
pub fn announced(source: &SourceStatus) -> Option<Timestamp> {
    let enabled = source
        .automatic_rotation
        .as_deref()
        .is_none_or(|word| word.eq_ignore_ascii_case("Enabled"));
    if !enabled {
        return None;
    }
    let date = match &source.next_rotation_date {
        Some(next) => next.0,
        None => later(source.last_rotation_date.as_ref()?.0, interval(source)?),
    };
    let confirmed = source
        .confirmed_rotation_date
        .as_ref()
        .map(|confirmed| confirmed.0);
    (confirmed != Some(date)).then_some(date)
}

fn soonest(sources: &[SourceStatus]) -> Option<(Timestamp, &SourceStatus)> {
    sources
        .iter()
        .filter_map(|source| Some((announced(source)?, source)))
        .min_by_key(|(date, _)| *date)
}

/// Ends the confirming of a date that has passed and that KMS still announces although the version or the last rotation
/// has moved. A rotation by hand before the date does not cancel it.
///
/// `old` is what was known before the read that gave `new`; `kms_now` is the time of KMS.
pub fn note_rotation(old: &SourceStatus, new: &mut SourceStatus, kms_now: Timestamp) {
    new.confirmed_rotation_date
        .clone_from(&old.confirmed_rotation_date);
    let moved =
        old.version_id != new.version_id || old.last_rotation_date != new.last_rotation_date;
    let date = announced(new).filter(|date| *date <= kms_now);
    if moved && date.is_some() && date == announced(old) {
        new.confirmed_rotation_date = date.map(Time);
    }
}

/// How KMS fails to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The announced date passed long ago.
    Late,
    /// KMS says that it can't rotate the secret.
    Invalid,
}

impl Overdue {
    /// The reason of the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "Late",
            Self::Invalid => "Invalid",
        }
    }
}

/// KMS says that it can't rotate the secret.
#[must_use]
pub fn is_invalid(source: &SourceStatus) -> bool {
    let word = source.automatic_rotation.as_deref();
    word.is_some_and(|word| word.eq_ignore_ascii_case("Invalid"))
}

/// Whether a rotation is overdue, in the time of KMS.
#[must_use]
pub fn overdue(sources: &[SourceStatus], kms_now: Timestamp) -> Option<Overdue> {
    let late = |source: &SourceStatus| {
        announced(source).is_some_and(|date| kms_now.duration_since(date) > patience(source))
    };
    if sources.iter().any(is_invalid) {
        Some(Overdue::Invalid)
    } else if sources.iter().any(late) {
        Some(Overdue::Late)
    } else {
        None
    }
}

/// A quarter of the interval, between 30 s and an hour; `RAMCredentials` take about two days to rotate.
fn patience(source: &SourceStatus) -> SignedDuration {
    if is_type(source, "RAMCredentials") {
        return SignedDuration::from_hours(72);
    }
    let longest = SignedDuration::from_hours(1);
    interval(source).map_or(longest, |interval| {
        (interval / 4).clamp(SignedDuration::from_secs(30), longest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn seconds(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    fn rds(next: i64, interval: &str) -> SourceStatus {
        SourceStatus {
            version_id: "v1".into(),
            secret_type: Some("Rds".into()),
            automatic_rotation: Some("Enabled".into()),
            rotation_interval: Some(interval.into()),
            next_rotation_date: Some(Time(at(next))),
            ..SourceStatus::default()
        }
    }

    fn schedule(sources: &[SourceStatus]) -> Schedule<'_> {
        Schedule {
            policy: RefreshPolicy::Rotation,
            interval: None,
            pinned: false,
            sources,
            last_read: at(0),
            offset: SignedDuration::ZERO,
            hash: 0,
        }
    }

    fn periodic(seconds: i64) -> Due {
        Due {
            at: at(seconds),
            rotation: false,
        }
    }

    fn rotation(seconds: i64) -> Due {
        Due {
            at: at(seconds) + GRACE,
            rotation: true,
        }
    }

    #[test]
    fn a_generic_secret_is_read_at_the_ceiling() {
        let source = SourceStatus {
            secret_type: Some("Generic".into()),
            ..SourceStatus::default()
        };
        let sources = [source];
        let mut schedule = schedule(&sources);
        assert_eq!(schedule.next(), Some(periodic(3600)));
        schedule.pinned = true;
        assert_eq!(schedule.next(), Some(periodic(86_400)));
        schedule.interval = Some(seconds(60));
        assert_eq!(schedule.next(), Some(periodic(60)));
    }

    #[test]
    fn the_ceiling_depends_on_the_type() {
        for (secret_type, minutes) in [
            ("Rds", 10),
            ("RDS", 10),
            ("ECS", 10),
            ("RamCredentials", 10),
            ("Redis", 60),
            ("PolarDB", 60),
            ("Quantum", 60),
        ] {
            let mut source = rds(1_000_000, "604800s");
            source.secret_type = Some(secret_type.into());
            assert_eq!(
                schedule(&[source]).ceiling(),
                SignedDuration::from_mins(minutes),
                "{secret_type}"
            );
        }
    }

    #[test]
    fn an_announced_rotation_is_read_just_after_its_date() {
        let sources = [rds(100, "604800s"), rds(50, "604800s")];
        assert_eq!(schedule(&sources).next(), Some(rotation(50)));
    }

    #[test]
    fn a_far_rotation_waits_behind_the_ceiling() {
        assert_eq!(
            schedule(&[rds(10_000, "604800s")]).next(),
            Some(periodic(600))
        );
    }

    #[test]
    fn dates_are_in_the_time_of_kms() {
        let sources = [rds(100, "604800s")];
        let mut schedule = schedule(&sources);
        schedule.offset = seconds(40);
        assert_eq!(schedule.next(), Some(rotation(60)));
    }

    #[test]
    fn a_missing_date_is_reckoned_from_the_last_one() {
        let mut source = rds(0, "300s");
        source.next_rotation_date = None;
        source.last_rotation_date = Some(Time(at(-100)));
        assert_eq!(schedule(&[source]).next(), Some(rotation(200)));
    }

    #[test]
    fn only_enabled_rotation_gives_dates_force() {
        for (word, forceful) in [
            (Some("Enabled"), true),
            (None, true),
            (Some("Disabled"), false),
            (Some("Invalid"), false),
            (Some("Paused"), false),
        ] {
            let mut source = rds(100, "604800s");
            source.automatic_rotation = word.map(Into::into);
            assert_eq!(
                schedule(&[source]).next().unwrap().rotation,
                forceful,
                "{word:?}"
            );
        }
    }

    #[test]
    fn policies_that_do_not_look_at_dates_do_not() {
        let sources = [rds(100, "604800s")];
        let mut schedule = schedule(&sources);
        schedule.policy = RefreshPolicy::Interval;
        assert_eq!(schedule.next(), Some(periodic(600)));
        for policy in [RefreshPolicy::Once, RefreshPolicy::OnChange] {
            schedule.policy = policy;
            assert_eq!(schedule.next(), None);
        }
    }

    #[test]
    fn a_late_rotation_is_confirmed_at_growing_steps_and_in_few_reads() {
        let sources = [rds(-1, "604800s")];
        let mut schedule = schedule(&sources);
        schedule.interval = Some(seconds(3600));
        let mut reads = 0;
        while schedule.last_read < at(2 * 3600) {
            let next = schedule.next().unwrap().at;
            let step = next.duration_since(schedule.last_read);
            assert!(step >= seconds(5) && step <= seconds(3600), "{step:?}");
            schedule.last_read = next;
            reads += 1;
        }
        assert!((10..80).contains(&reads), "{reads}");
    }

    #[test]
    fn a_short_interval_is_confirmed_by_the_second() {
        let sources = [rds(0, "20s")];
        let mut schedule = schedule(&sources);
        schedule.last_read = at(1);
        assert_eq!(schedule.next().unwrap().at, at(2));
    }

    #[test]
    fn confirming_ends_when_anything_moves() {
        let old = rds(0, "20s");
        let mut same = old.clone();
        note_rotation(&old, &mut same, at(1));
        assert_eq!(announced(&same), Some(at(0)));

        let mut other_version = old.clone();
        other_version.version_id = "v2".into();
        note_rotation(&old, &mut other_version, at(1));
        assert_eq!(
            announced(&other_version),
            None,
            "the date that KMS left behind is spent"
        );

        let mut later = other_version.clone();
        later.confirmed_rotation_date = None;
        note_rotation(&other_version, &mut later, at(1));
        assert_eq!(announced(&later), None, "and stays spent");

        later.next_rotation_date = Some(Time(at(20)));
        assert_eq!(
            announced(&later),
            Some(at(20)),
            "until KMS announces another"
        );

        let mut early = old.clone();
        early.version_id = "v2".into();
        note_rotation(&old, &mut early, at(-1));
        assert_eq!(announced(&early), Some(at(0)), "by hand, before the date");

        let mut rotated = old.clone();
        rotated.last_rotation_date = Some(Time(at(1)));
        note_rotation(&old, &mut rotated, at(1));
        assert_eq!(announced(&rotated), None);
    }

    #[test]
    fn an_interval_without_end_is_as_long_as_time() {
        let mut schedule = schedule(&[]);
        schedule.interval = crate::api::parse_duration("9223372036854775807s");
        schedule.hash = 999;
        assert_eq!(schedule.next().unwrap().at, Timestamp::MAX);
    }

    #[test]
    fn overdue_is_by_interval_and_type() {
        let late =
            |source: &SourceStatus, seconds| overdue(std::slice::from_ref(source), at(seconds));
        assert_eq!(late(&rds(0, "20s"), 30), None);
        assert_eq!(late(&rds(0, "20s"), 31), Some(Overdue::Late));
        assert_eq!(late(&rds(0, "400s"), 101), Some(Overdue::Late));
        assert_eq!(late(&rds(0, "604800s"), 3600), None);
        assert_eq!(late(&rds(0, "604800s"), 3601), Some(Overdue::Late));
        let mut ram = rds(0, "604800s");
        ram.secret_type = Some("RAMCredentials".into());
        assert_eq!(late(&ram, 72 * 3600), None);
        let mut invalid = rds(1000, "604800s");
        invalid.automatic_rotation = Some("Invalid".into());
        assert_eq!(late(&invalid, 0), Some(Overdue::Invalid));
    }
}
