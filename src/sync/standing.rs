//! How an object stands, by its status: what is counted of it, and shown of it where each object is shown.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::schedule::{Overdue, announced};
use super::status::{ready, rotation_overdue};
use super::{Reason, later};
use crate::api::kms_secret::KmsSecretStatus;

/// A sync that is due takes its turn; it is late once it has waited for longer than this.
const LATE: SignedDuration = SignedDuration::from_mins(1);

/// In place of a reason that is none of ours, or not there yet.
const UNKNOWN: &str = "Unknown";

/// How one object stands. Words are from closed sets, whatever somebody wrote into the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// `True`, `False` or `Unknown`.
    pub ready: &'static str,
    /// A reason, or `Unknown`.
    pub reason: &'static str,
    /// Why a rotation is overdue.
    pub overdue: Option<&'static str>,
    /// When KMS was last read with success.
    pub last_sync: Option<Timestamp>,
    /// When it is read next, where time decides that.
    pub next_sync: Option<Timestamp>,
    /// The soonest date at which KMS means to rotate one of its secrets, by the clock of KMS.
    pub next_rotation: Option<Timestamp>,
    /// It should have been read long ago.
    pub is_late: bool,
}

impl Standing {
    /// How an object with this status stands.
    #[must_use]
    pub fn of(status: &KmsSecretStatus, now: Timestamp) -> Self {
        let (ready, reason) = ready(status).unwrap_or((UNKNOWN, UNKNOWN));
        let next_sync = status.next_sync_time.as_ref().map(|time| time.0);
        Self {
            ready: one_of(ready, ["True", "False"]),
            reason: one_of(reason, Reason::ALL.map(Reason::as_str)),
            overdue: rotation_overdue(status).map(|reason| {
                one_of(
                    reason,
                    [Overdue::Late, Overdue::Invalid].map(Overdue::as_str),
                )
            }),
            last_sync: status.last_sync_time.as_ref().map(|time| time.0),
            next_sync,
            next_rotation: status.sources.iter().filter_map(announced).min(),
            is_late: next_sync.is_some_and(|next| later(next, LATE) < now),
        }
    }
}

/// The word, if it is one of these.
fn one_of<const N: usize>(word: &str, words: [&'static str; N]) -> &'static str {
    words
        .into_iter()
        .find(|known| *known == word)
        .unwrap_or(UNKNOWN)
}

/// How many stand how, and the extremes of their times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By value and reason of the condition `Ready`.
    pub by_ready: BTreeMap<(&'static str, &'static str), usize>,
    /// Those whose rotation is overdue, by the reason of that.
    pub overdue: BTreeMap<&'static str, usize>,
    /// Those that should have been read long ago.
    pub late: usize,
    /// The oldest last sync of those that are read again by time: an old one of another is as it should be.
    pub oldest_sync: Option<Timestamp>,
    /// The soonest next sync.
    pub next_sync: Option<Timestamp>,
}

impl Tally {
    /// Counts.
    #[must_use]
    pub fn of<'a>(standings: impl Iterator<Item = &'a Standing>) -> Self {
        let mut tally = Self::default();
        for standing in standings {
            let state = (standing.ready, standing.reason);
            *tally.by_ready.entry(state).or_default() += 1;
            if let Some(reason) = standing.overdue {
                *tally.overdue.entry(reason).or_default() += 1;
            }
            tally.late += usize::from(standing.is_late);
            let last = standing.last_sync.filter(|_| standing.next_sync.is_some());
            tally.oldest_sync = tally.oldest_sync.into_iter().chain(last).min();
            tally.next_sync = tally.next_sync.into_iter().chain(standing.next_sync).min();
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn status(more: &Value) -> KmsSecretStatus {
        let mut status = json!({"observedGeneration": 1});
        let fields = status.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        serde_json::from_value(status).unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    const NOW: &str = "2026-01-01T12:00:00Z";

    fn standing(more: &Value) -> Standing {
        Standing::of(&status(more), at(NOW))
    }

    #[test]
    fn what_was_never_looked_at_is_unknown_and_not_late() {
        let new = standing(&json!({}));
        assert_eq!(
            (new.ready, new.reason, new.is_late),
            ("Unknown", "Unknown", false)
        );
        assert_eq!(
            (new.last_sync, new.next_sync, new.next_rotation),
            (None, None, None)
        );
    }

    #[test]
    fn only_our_own_words_become_labels() {
        let of = |ready: &str, reason: &str| {
            let standing = standing(&json!({"conditions": [condition("Ready", ready, reason)]}));
            (standing.ready, standing.reason)
        };
        for reason in Reason::ALL.map(Reason::as_str) {
            assert_eq!(of("False", reason), ("False", reason));
        }
        assert_eq!(of("True", "Synced"), ("True", "Synced"));
        assert_eq!(of("Maybe", "Hunter2"), ("Unknown", "Unknown"));
        let overdue = |reason| {
            let overdue = condition("RotationOverdue", "True", reason);
            standing(&json!({"conditions": [overdue]})).overdue
        };
        assert_eq!(overdue("Late"), Some("Late"));
        assert_eq!(overdue("Invalid"), Some("Invalid"));
        assert_eq!(overdue("Hunter2"), Some("Unknown"));
    }

    #[test]
    fn it_is_late_a_minute_after_its_time() {
        let late = |next: &str| standing(&json!({"nextSyncTime": next})).is_late;
        assert!(!late("2026-01-01T12:00:01Z"));
        assert!(!late("2026-01-01T11:59:00Z"));
        assert!(late("2026-01-01T11:58:59Z"));
    }

    #[test]
    fn the_next_rotation_is_the_soonest_that_is_announced() {
        let source = |name: &str, next: &str| json!({"name": name, "versionId": "v", "automaticRotation": "Enabled", "nextRotationDate": next});
        let mut disabled = source("c", "2026-01-01T00:00:00Z");
        disabled["automaticRotation"] = "Disabled".into();
        let sources = [
            source("a", "2026-01-03T00:00:00Z"),
            source("b", "2026-01-02T00:00:00Z"),
            disabled,
        ];
        assert_eq!(
            standing(&json!({"sources": sources})).next_rotation,
            Some(at("2026-01-02T00:00:00Z"))
        );
    }

    #[test]
    fn a_tally_counts_and_keeps_the_extremes() {
        let object = |ready: &str, reason: &str, last: &str, next: Option<&str>| {
            let conditions = [condition("Ready", ready, reason)];
            standing(&json!({"conditions": conditions, "lastSyncTime": last, "nextSyncTime": next}))
        };
        let standings = [
            object(
                "True",
                "Synced",
                "2026-01-01T11:00:00Z",
                Some("2026-01-01T13:00:00Z"),
            ),
            object(
                "True",
                "Synced",
                "2026-01-01T10:00:00Z",
                Some("2026-01-01T11:00:00Z"),
            ),
            // Once: it is never read again, so its sync is not too old.
            object("True", "Synced", "2025-01-01T10:00:00Z", None),
            object(
                "False",
                "AccessDenied",
                "2026-01-01T11:30:00Z",
                Some("2026-01-01T12:30:00Z"),
            ),
            Standing {
                overdue: Some("Late"),
                ..standing(&json!({}))
            },
        ];
        let tally = Tally::of(standings.iter());
        let expected = [
            (("False", "AccessDenied"), 1),
            (("True", "Synced"), 3),
            (("Unknown", "Unknown"), 1),
        ];
        assert_eq!(tally.by_ready, expected.into());
        assert_eq!(tally.overdue, [("Late", 1)].into());
        assert_eq!(tally.late, 1);
        assert_eq!(tally.oldest_sync, Some(at("2026-01-01T10:00:00Z")));
        assert_eq!(tally.next_sync, Some(at("2026-01-01T11:00:00Z")));
        assert_eq!(Tally::of(std::iter::empty()), Tally::default());
    }
}
