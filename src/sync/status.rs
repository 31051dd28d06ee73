//! The status that belongs to an outcome, and the smallest patch that gets there.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::conditions::{READY, ROLLOUT_PENDING, find, remove, set};
use super::schedule::{Overdue, is_invalid, is_type, longest_wait};
use super::{Failure, Reason, later, whole_seconds};
use crate::api::kms_secret::{
    ErrorStatus, KmsSecretStatus, RolloutStatus, SourceStatus, StoreStatus, TargetStatus,
};

pub use super::conditions::Context;

/// A last good value stays good for its interval and this, while KMS is out of order: an outage must not write
/// the status of every object.
const OUTAGE_GRACE: SignedDuration = SignedDuration::from_mins(5);
/// Times alone are written this often at most, or at the interval if that is longer.
const HEARTBEAT_MIN: SignedDuration = SignedDuration::from_mins(10);

const STALLED: &str = "Stalled";
const ROTATION_OVERDUE: &str = "RotationOverdue";

/// A success.
#[derive(Clone, Debug)]
pub struct Synced {
    /// When KMS was read.
    pub read_at: Timestamp,
    /// The store.
    pub store: StoreStatus,
    /// What KMS said.
    pub sources: Vec<SourceStatus>,
    /// The Secret.
    pub target: TargetStatus,
    /// Whether a rotation is overdue.
    pub overdue: Option<Overdue>,
    /// The workloads that are to be restarted.
    pub rollout: Option<RolloutStatus>,
}

/// The status after a success.
#[must_use]
pub fn synced(previous: &KmsSecretStatus, context: Context<'_>, synced: Synced) -> KmsSecretStatus {
    let mut status = KmsSecretStatus {
        observed_generation: context.generation,
        conditions: previous.conditions.clone(),
        last_sync_time: Some(whole_seconds(synced.read_at)),
        next_sync_time: None,
        last_handled_sync: context.sync.map(ToOwned::to_owned),
        store: Some(synced.store),
        sources: synced.sources,
        target: Some(synced.target),
        error: None,
        rollout: synced.rollout.map(Box::new),
    };
    // Who still waits is told of once it was looked at.
    if status
        .rollout
        .as_ref()
        .is_none_or(|rollout| rollout.pending.is_empty())
    {
        remove(&mut status.conditions, ROLLOUT_PENDING);
    }
    let target = status.target.as_ref().map_or("", |target| &target.name);
    let message = format!("Secret {target:?} holds what KMS holds.");
    set(
        &mut status.conditions,
        READY,
        "True",
        Reason::Synced.as_str(),
        &message,
        context,
    );
    remove(&mut status.conditions, STALLED);
    match synced.overdue {
        None => remove(&mut status.conditions, ROTATION_OVERDUE),
        Some(overdue) => {
            let message = match overdue {
                Overdue::Late => {
                    "KMS announced a rotation that has not happened. The Secret holds the value that KMS still holds. KMS administrator: see the secret's rotation."
                }
                Overdue::Invalid => {
                    "KMS says that it cannot rotate the secret. The Secret holds the value that KMS still holds. KMS administrator: mend the secret's rotation."
                }
            };
            set(
                &mut status.conditions,
                ROTATION_OVERDUE,
                "True",
                overdue.as_str(),
                message,
                context,
            );
        }
    }
    status
}

/// Whether a rotation failed of which KMS itself says nothing: an event told of it, now (`is_told`) or before the
/// `previous` status was written. It stands until the version, the date of the last rotation or KMS's own word moves.
///
/// No field remembers it: while KMS does not say `Invalid`, only an event can have given the condition that reason.
#[must_use]
pub fn told_failure(
    previous: &KmsSecretStatus,
    sources: &[SourceStatus],
    is_told: bool,
) -> Option<Overdue> {
    let is_by_event = rotation_overdue(previous) == Some(Overdue::Invalid.as_str())
        && !previous.sources.iter().any(is_invalid);
    let same = |old: &SourceStatus, new: &SourceStatus| {
        old.secret_name == new.secret_name
            && old.version_id == new.version_id
            && old.last_rotation_date == new.last_rotation_date
            && old.automatic_rotation == new.automatic_rotation
    };
    let has_moved = previous.sources.len() != sources.len()
        || previous
            .sources
            .iter()
            .zip(sources)
            .any(|(old, new)| !same(old, new));
    // KMS rotates managed secrets only.
    let can_rotate = sources
        .iter()
        .any(|source| source.secret_type.is_some() && !is_type(source, "Generic"));
    ((is_told || is_by_event) && !has_moved && can_rotate).then_some(Overdue::Invalid)
}

/// The status after a failure: what was written stays told, `Ready` says that it may be old.
///
/// `ceiling` is the longest time between two reads: while the last good value is younger than that and five minutes, and
/// the target is as we left it, a failure that passes by itself changes nothing.
#[must_use]
pub fn failed(
    previous: &KmsSecretStatus,
    context: Context<'_>,
    failure: &Failure,
    ceiling: SignedDuration,
    is_intact: bool,
) -> KmsSecretStatus {
    let mut status = previous.clone();
    let good_for = ceiling.saturating_add(OUTAGE_GRACE);
    let is_young = previous
        .last_sync_time
        .as_ref()
        .is_some_and(|last| context.now.duration_since(last.0) < good_for);
    let same_spec = previous.observed_generation == context.generation;
    if failure.reason.is_transient()
        && failure.reason != Reason::TargetContested
        && is_young
        && is_intact
        && same_spec
        && is_ready(previous)
    {
        return status;
    }
    status.observed_generation = context.generation;
    status.last_handled_sync = context.sync.map(ToOwned::to_owned);
    status.next_sync_time = None;
    let error = ErrorStatus {
        code: failure.code.clone(),
        action: failure.action.clone(),
    };
    status.error = Some(error.into());
    let reason = failure.reason.as_str();
    let message = failure.message();
    set(
        &mut status.conditions,
        READY,
        "False",
        reason,
        &message,
        context,
    );
    if failure.reason.is_transient() {
        remove(&mut status.conditions, STALLED);
    } else {
        set(
            &mut status.conditions,
            STALLED,
            "True",
            reason,
            &message,
            context,
        );
    }
    status
}

/// The status of a suspended object: `Ready` keeps its value and says why nothing happens.
#[must_use]
pub fn suspended(previous: &KmsSecretStatus, context: Context<'_>) -> KmsSecretStatus {
    let mut status = previous.clone();
    status.observed_generation = context.generation;
    status.next_sync_time = None;
    let value = find(&status.conditions, READY)
        .map_or("Unknown", |ready| &ready.status)
        .to_owned();
    let message = "spec.suspend is true: no call to KMS, no write, no repair.";
    set(
        &mut status.conditions,
        READY,
        &value,
        Reason::Suspended.as_str(),
        message,
        context,
    );
    remove(&mut status.conditions, STALLED);
    status
}

/// The status of an object that has nothing to do: it tells of the spec that is there now.
#[must_use]
pub fn waiting(previous: &KmsSecretStatus, context: Context<'_>) -> KmsSecretStatus {
    let mut status = previous.clone();
    status.observed_generation = context.generation;
    status
}

/// The status of an object that was synced once and for all: whatever was refused since does not matter to it.
#[must_use]
pub fn done(previous: &KmsSecretStatus, context: Context<'_>) -> KmsSecretStatus {
    let mut status = waiting(previous, context);
    status.error = None;
    status.next_sync_time = None;
    let message =
        "The Secret holds what KMS held at the first sync, as spec.refresh.policy Once asks.";
    set(
        &mut status.conditions,
        READY,
        "True",
        Reason::Synced.as_str(),
        message,
        context,
    );
    remove(&mut status.conditions, STALLED);
    status
}

/// Shows when the next read is planned.
pub fn show_next(status: &mut KmsSecretStatus, next: Option<Timestamp>) {
    status.next_sync_time = next.map(whole_seconds);
}

/// `Ready` is true.
#[must_use]
pub fn is_ready(status: &KmsSecretStatus) -> bool {
    find(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
}

/// Value and reason of `Ready`.
#[must_use]
pub fn ready(status: &KmsSecretStatus) -> Option<(&str, &str)> {
    find(&status.conditions, READY).map(|ready| (ready.status.as_str(), ready.reason.as_str()))
}

/// Message of `Ready`.
#[must_use]
pub fn ready_message(status: &KmsSecretStatus) -> &str {
    find(&status.conditions, READY).map_or("", |ready| ready.message.as_str())
}

/// Reason of `RotationOverdue`, while it is true.
#[must_use]
pub fn rotation_overdue(status: &KmsSecretStatus) -> Option<&str> {
    find(&status.conditions, ROTATION_OVERDUE).map(|overdue| overdue.reason.as_str())
}

/// Whether `new` is worth writing over `stored`: anything but a time differs, or the times are long out of date.
#[must_use]
pub fn worth_writing(
    stored: &KmsSecretStatus,
    new: &KmsSecretStatus,
    ceiling: SignedDuration,
) -> bool {
    let same_but_for_times = KmsSecretStatus {
        last_sync_time: stored.last_sync_time.clone(),
        next_sync_time: stored.next_sync_time.clone(),
        ..new.clone()
    };
    if same_but_for_times != *stored {
        return true;
    }
    match (&stored.last_sync_time, &new.last_sync_time) {
        (Some(stored), Some(new)) => new.0.duration_since(stored.0) >= ceiling.max(HEARTBEAT_MIN),
        (stored, new) => stored != new,
    }
}

/// When a status that shows these times is renewed at the latest, while all goes well. Where it was not worth writing at the
/// `next` read, it is at the first one after the heartbeat.
#[must_use]
pub fn renewed_by(last: Timestamp, next: Timestamp, ceiling: SignedDuration) -> Timestamp {
    let heartbeat = ceiling.max(HEARTBEAT_MIN);
    if next.duration_since(last) >= heartbeat {
        return next;
    }
    // The read before the heartbeat, and then the longest wait.
    later(later(last, heartbeat), longest_wait(ceiling))
}

/// The RFC 7386 merge patch that makes `old` into `new`, both as their JSON.
#[must_use]
pub fn merge_patch(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return new.clone();
    };
    let removed = old.keys().filter(|key| !new.contains_key(*key));
    let mut patch: Map<String, Value> = removed.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => {
                patch.insert(key.clone(), merge_patch(before, value));
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn context(seconds: i64) -> Context<'static> {
        Context {
            generation: Some(1),
            sync: None,
            now: at(seconds),
        }
    }

    fn success(read_at: i64) -> Synced {
        Synced {
            read_at: at(read_at),
            store: StoreStatus {
                kind: "KmsStore".into(),
                uid: "s".into(),
                generation: 1,
                identity: None,
                credential_resource_version: None,
            },
            sources: vec![],
            target: TargetStatus {
                name: "db".into(),
                uid: "t".into(),
                resource_version: "5".into(),
                keys: Vec::new(),
            },
            overdue: None,
            rollout: None,
        }
    }

    fn good() -> KmsSecretStatus {
        synced(&KmsSecretStatus::default(), context(0), success(0))
    }

    fn outage() -> Failure {
        Failure::new(Reason::KmsUnavailable, "kms is down", "nothing")
    }

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    #[test]
    fn a_failure_that_only_an_event_told_stands_until_something_moves() {
        let source = SourceStatus {
            secret_name: "db".into(),
            version_id: "v1".into(),
            secret_type: Some("Rds".into()),
            automatic_rotation: Some("Enabled".into()),
            ..SourceStatus::default()
        };
        let sync = |previous: &KmsSecretStatus, source: &SourceStatus, is_told: bool| {
            let sources = vec![source.clone()];
            let by_kms = is_invalid(source).then_some(Overdue::Invalid);
            let overdue = by_kms.or(told_failure(previous, &sources, is_told));
            let success = Synced {
                sources,
                overdue,
                ..success(0)
            };
            synced(previous, context(0), success)
        };
        let is_overdue = |status: &KmsSecretStatus| rotation_overdue(status) == Some("Invalid");

        let quiet = sync(&KmsSecretStatus::default(), &source, false);
        let quiet = sync(&quiet, &source, false);
        assert!(!is_overdue(&quiet));
        let told = sync(&quiet, &source, true);
        assert!(is_overdue(&told));
        assert!(
            is_overdue(&sync(&told, &source, false)),
            "a read alone ends nothing"
        );

        let changes: [fn(&mut SourceStatus); 3] = [
            |s| s.version_id = "v2".into(),
            |s| s.last_rotation_date = Some(Time(at(1))),
            |s| s.automatic_rotation = Some("Disabled".into()),
        ];
        for change in changes {
            let mut moved = source.clone();
            change(&mut moved);
            assert!(!is_overdue(&sync(&told, &moved, false)));
            assert!(
                !is_overdue(&sync(&quiet, &moved, true)),
                "it rotated after all"
            );
        }

        let mut invalid = source.clone();
        invalid.automatic_rotation = Some("Invalid".into());
        let by_kms = sync(&told, &invalid, false);
        assert!(is_overdue(&by_kms));
        assert!(
            !is_overdue(&sync(&by_kms, &source, false)),
            "KMS said so and took it back"
        );

        let mut generic = source.clone();
        generic.secret_type = Some("Generic".into());
        let quiet = sync(&KmsSecretStatus::default(), &generic, false);
        assert!(
            !is_overdue(&sync(&quiet, &generic, true)),
            "nothing rotates it"
        );
    }

    #[test]
    fn an_outage_changes_nothing_while_the_value_is_young() {
        let status = failed(&good(), context(3600), &outage(), HOUR, true);
        assert_eq!(status, good());
        let old = failed(&good(), context(3600 + 300), &outage(), HOUR, true);
        assert_eq!(ready(&old), Some(("False", "KmsUnavailable")));
        assert_eq!(find(&old.conditions, STALLED), None, "it passes by itself");
    }

    #[test]
    fn an_outage_while_the_target_is_missing_is_told() {
        let status = failed(&good(), context(1), &outage(), HOUR, false);
        assert_eq!(ready(&status), Some(("False", "KmsUnavailable")));
    }

    #[test]
    fn a_forced_sync_that_failed_in_silence_is_not_handled() {
        let mut context = context(1);
        context.sync = Some("now");
        assert_eq!(
            failed(&good(), context, &outage(), HOUR, true).last_handled_sync,
            None
        );
        assert_eq!(
            failed(&good(), context, &outage(), HOUR, false)
                .last_handled_sync
                .as_deref(),
            Some("now")
        );
    }

    #[test]
    fn an_outage_right_after_a_new_spec_is_told() {
        let mut context = context(1);
        context.generation = Some(2);
        let status = failed(&good(), context, &outage(), HOUR, true);
        assert_eq!(ready(&status), Some(("False", "KmsUnavailable")));
    }

    #[test]
    fn what_only_a_human_can_mend_is_told_at_once_and_keeps_what_was_written() {
        let denied = Failure::new(Reason::AccessDenied, "denied", "grant it");
        let status = failed(&good(), context(1), &denied, HOUR, true);
        assert_eq!(ready(&status), Some(("False", "AccessDenied")));
        assert_eq!(
            find(&status.conditions, STALLED).unwrap().reason,
            "AccessDenied"
        );
        assert_eq!(status.target, good().target);
        assert_eq!(status.last_sync_time, good().last_sync_time);
        assert_eq!(status.error.as_ref().unwrap().action, "grant it");

        let again = failed(&status, context(100), &denied, HOUR, true);
        assert_eq!(again, status, "the same failure again is no change");

        let healed = synced(&again, context(200), success(200));
        assert!(is_ready(&healed) && healed.error.is_none());
        assert_eq!(find(&healed.conditions, STALLED), None);
    }

    #[test]
    fn suspension_keeps_the_value_of_ready() {
        let status = suspended(&good(), context(1));
        assert_eq!(ready(&status), Some(("True", "Suspended")));
        assert_eq!(
            ready(&suspended(&KmsSecretStatus::default(), context(1))),
            Some(("Unknown", "Suspended"))
        );
        let denied = Failure::new(Reason::AccessDenied, "denied", "grant it");
        let failing = failed(&good(), context(1), &denied, HOUR, true);
        assert_eq!(
            ready(&suspended(&failing, context(2))),
            Some(("False", "Suspended"))
        );
        assert_eq!(ready(&done(&failing, context(2))), Some(("True", "Synced")));
    }

    #[test]
    fn transitions_are_dated_by_the_change_of_status_only() {
        let again = synced(&good(), context(100), success(100));
        assert_eq!(
            find(&again.conditions, READY).unwrap().last_transition_time,
            Time(at(0))
        );
    }

    #[test]
    fn a_rotation_that_is_overdue_is_a_condition_until_it_is_not() {
        let late = Synced {
            overdue: Some(Overdue::Late),
            ..success(1)
        };
        let status = synced(&good(), context(1), late);
        assert_eq!(rotation_overdue(&status), Some("Late"));
        assert!(is_ready(&status));
        assert_eq!(
            rotation_overdue(&synced(&status, context(2), success(2))),
            None
        );
    }

    #[test]
    fn an_interval_without_end_keeps_a_good_value_good() {
        let kept = failed(&good(), context(60), &outage(), SignedDuration::MAX, true);
        assert_eq!(kept, good());
    }

    #[test]
    fn times_alone_are_written_rarely() {
        let minute = SignedDuration::from_mins(1);
        let later = |seconds| synced(&good(), context(seconds), success(seconds));
        assert!(!worth_writing(&good(), &later(599), minute));
        assert!(worth_writing(&good(), &later(600), minute));
        assert!(!worth_writing(&good(), &later(3599), HOUR));
        assert!(worth_writing(&good(), &later(3600), HOUR));
        assert!(worth_writing(&KmsSecretStatus::default(), &good(), HOUR));
        let mut rotated = good();
        rotated.sources = vec![SourceStatus::default()];
        assert!(worth_writing(&good(), &rotated, HOUR));
    }

    fn apply(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let fields = target.as_object_mut().unwrap();
        for (key, value) in patch {
            if value.is_null() {
                fields.remove(key);
            } else {
                apply(fields.entry(key).or_insert(Value::Null), value);
            }
        }
    }

    fn object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<u8>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        let tree = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-c]", tree, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_status_is_renewed_by_then(ceiling in 1_i64..7200, shares in prop::collection::vec(0..=1000_i32, 1..40)) {
            let ceiling = SignedDuration::from_secs(ceiling);
            let mut reads = shares.iter().scan(at(0), |read, share| {
                let wait = longest_wait(ceiling) * *share / 1000;
                *read = later(*read, wait.max(SignedDuration::from_secs(1)));
                Some(*read)
            });
            let first = reads.clone().next().unwrap();
            let is_told = |read: &Timestamp| {
                let status = synced(&good(), Context { now: *read, ..context(0) }, Synced { read_at: *read, ..success(0) });
                worth_writing(&good(), &status, ceiling)
            };
            if let Some(told) = reads.find(is_told) {
                prop_assert!(told <= renewed_by(at(0), first, ceiling), "{told}");
            }
        }

        #[test]
        fn a_patch_leads_from_old_to_new(old in object(), new in object()) {
            let mut patched = old.clone();
            apply(&mut patched, &merge_patch(&old, &new));
            prop_assert_eq!(patched, new);
        }
    }
}
