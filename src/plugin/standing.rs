//! How a KmsSecret stands, told from its status alone. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use serde::Serialize;

use crate::api::KmsSecret;
use crate::api::kms_secret::{KmsSecretStatus, RefreshPolicy};
use crate::sync::schedule::{Overdue, overdue};
use crate::sync::status::renewed_by;
use crate::sync::{Reason, later, plan};

/// Clocks differ, and a read takes its time: what is behind by less is not late.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(30);

/// How an object stands, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// `Ready` is false: the Secret is missing, or may be old.
    Failing,
    /// KMS announced a rotation that has not happened, or that it cannot do.
    Overdue,
    /// The read that was planned has not happened.
    Late,
    /// Nobody has looked at this spec.
    Pending,
    /// The Secret holds what KMS holds.
    Fine,
    /// `spec.suspend`: nothing is asked for.
    Suspended,
}

impl Standing {
    /// Every standing, the worst first.
    pub const ALL: [Self; 6] = [
        Self::Failing,
        Self::Overdue,
        Self::Late,
        Self::Pending,
        Self::Fine,
        Self::Suspended,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Overdue => "overdue",
            Self::Late => "late",
            Self::Pending => "pending",
            Self::Fine => "fine",
            Self::Suspended => "suspended",
        }
    }

    /// Whether somebody should look.
    #[must_use]
    pub fn is_problem(self) -> bool {
        !matches!(self, Self::Fine | Self::Suspended)
    }
}

/// What is told of one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub standing: Standing,
    /// Value of the condition `Ready`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Its reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What somebody should know; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The Secret.
    pub secret: String,
    /// The store.
    pub store: String,
    /// The version that was read, of the first source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When KMS was last read with success, as far as the status tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// When it is read next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_sync_time: Option<Time>,
    /// The soonest rotation that KMS announces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_rotation_date: Option<Time>,
}

impl Row {
    /// Tells of an object.
    #[must_use]
    pub fn of(object: &KmsSecret, now: Timestamp) -> Self {
        let unseen = KmsSecretStatus::default();
        let status = object.status.as_ref().unwrap_or(&unseen);
        let standing = classify(object, status, now);
        let ready = condition(status, "Ready");
        let rotations = status.sources.iter();
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            standing,
            ready: ready.map(|ready| ready.status.clone()),
            reason: ready.map(|ready| ready.reason.clone()),
            message: message(status, standing).map(ToOwned::to_owned),
            secret: object.target_name().to_owned(),
            store: object.spec.store_ref.name.clone(),
            version: status
                .sources
                .first()
                .map(|source| source.version_id.clone()),
            last_sync_time: status.last_sync_time.clone(),
            next_sync_time: status.next_sync_time.clone(),
            next_rotation_date: rotations
                .filter_map(|source| source.next_rotation_date.clone())
                .min_by_key(|date| date.0),
        }
    }
}

/// Sorts the worst first, and what is alike by when it is due.
pub fn sort(rows: &mut [Row]) {
    rows.sort_by(|a, b| {
        let key = |row: &Row| {
            let next = row.next_sync_time.as_ref().map(|time| time.0);
            (row.standing, next.unwrap_or(Timestamp::MAX))
        };
        let name = |row: &Row| (row.namespace.clone(), row.name.clone());
        key(a).cmp(&key(b)).then_with(|| name(a).cmp(&name(b)))
    });
}

fn classify(object: &KmsSecret, status: &KmsSecretStatus, now: Timestamp) -> Standing {
    let Some(ready) = condition(status, "Ready") else {
        return Standing::Pending;
    };
    if status.observed_generation != object.metadata.generation {
        return Standing::Pending;
    }
    if ready.reason == Reason::Suspended.as_str() {
        return Standing::Suspended;
    }
    match ready.status.as_str() {
        "True" if condition(status, "RotationOverdue").is_some() => Standing::Overdue,
        "True" if is_late(object, status, now) => Standing::Late,
        "True" => Standing::Fine,
        _ => Standing::Failing,
    }
}

/// Whether the status would tell of a newer read if all went well. It is not written after each one.
fn is_late(object: &KmsSecret, status: &KmsSecretStatus, now: Timestamp) -> bool {
    let (Some(last), Some(next)) = (&status.last_sync_time, &status.next_sync_time) else {
        return false;
    };
    let ceiling = plan::ceiling(object, status, last.0);
    if now.duration_since(renewed_by(last.0, next.0, ceiling)) > TOLERANCE {
        return true;
    }
    // What KMS is long late with is told too, by the next read: after an eighth of the time that it has been late.
    let step = now.duration_since(last.0) / 8;
    let read = later(now, -(step + TOLERANCE));
    object.refresh_policy() == RefreshPolicy::Rotation
        && overdue(&status.sources, read) == Some(Overdue::Late)
}

fn message(status: &KmsSecretStatus, standing: Standing) -> Option<&str> {
    let of = |type_| condition(status, type_).map(|condition| condition.message.as_str());
    match standing {
        Standing::Failing | Standing::Suspended => of("Ready"),
        Standing::Overdue => of("RotationOverdue"),
        Standing::Late => Some(
            "The read that was planned did not happen: does the operator run, and does KMS answer?",
        ),
        Standing::Pending => Some("The operator has not looked at this spec."),
        Standing::Fine => of("RolloutPending"),
    }
}

/// A condition that is there and tells something: of those besides `Ready`, only what is true.
fn condition<'a>(status: &'a KmsSecretStatus, type_: &str) -> Option<&'a Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|is| is.type_ == type_ && (type_ == "Ready" || is.status == "True"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    /// An object at generation 2; `status` over a status that is well at the second 0 and due at 3,600.
    fn object(refresh: &Value, status: &Value) -> KmsSecret {
        let mut all = json!({
            "observedGeneration": 2,
            "conditions": [condition("Ready", "True", "Synced")],
            "lastSyncTime": at(0), "nextSyncTime": at(3600),
        });
        for (field, value) in status.as_object().unwrap() {
            all[field] = value.clone();
        }
        serde_json::from_value(json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret",
            "metadata": {"name": "db", "namespace": "shop", "generation": 2},
            "spec": {"storeRef": {"name": "kms"}, "source": {"secretName": "shop/db"}, "refresh": refresh},
            "status": all,
        }))
        .unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        let message = format!("{type_} is {status}");
        json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(0)})
    }

    fn standing(refresh: &Value, status: &Value, now: i64) -> Standing {
        Row::of(&object(refresh, status), at(now)).standing
    }

    #[test]
    fn the_worst_that_a_status_tells_counts() {
        let of = |conditions: Value| standing(&json!({}), &json!({ "conditions": conditions }), 60);
        let ready = condition("Ready", "True", "Synced");
        let failing = condition("Ready", "False", "AccessDenied");
        let overdue = condition("RotationOverdue", "True", "Late");
        assert_eq!(of(json!([ready])), Standing::Fine);
        assert_eq!(of(json!([ready, overdue])), Standing::Overdue);
        assert_eq!(of(json!([failing, overdue])), Standing::Failing);
        assert_eq!(of(json!([])), Standing::Pending);
        for value in ["True", "False", "Unknown"] {
            let suspended = condition("Ready", value, "Suspended");
            assert_eq!(of(json!([suspended])), Standing::Suspended);
        }
    }

    #[test]
    fn a_status_of_an_older_spec_tells_nothing_of_this_one() {
        let failing = json!([condition("Ready", "False", "AccessDenied")]);
        let old = json!({"observedGeneration": 1, "conditions": failing});
        assert_eq!(standing(&json!({}), &old, 60), Standing::Pending);
        let new = json!({"observedGeneration": -1, "conditions": []});
        let row = Row::of(&object(&json!({}), &new), at(60));
        assert_eq!(row.standing, Standing::Pending);
        assert_eq!((row.ready, row.reason), (None, None));
        assert!(row.message.unwrap().contains("not looked"));
    }

    #[test]
    fn a_read_is_late_once_the_status_would_tell_of_it() {
        let hour = || json!({"interval": "1h"});
        assert_eq!(standing(&hour(), &json!({}), 3630), Standing::Fine);
        assert_eq!(standing(&hour(), &json!({}), 3631), Standing::Late);
        // Read each minute, told each ten: the plan in the status is old most of the time.
        let minute = || json!({"interval": "1m"});
        let next = json!({"nextSyncTime": at(60)});
        assert_eq!(standing(&minute(), &next, 600), Standing::Fine);
        assert_eq!(standing(&minute(), &next, 730), Standing::Late);
        // Read at a date that KMS did not keep: told at the ceiling, or as soon as it rotates.
        let date = json!({"nextSyncTime": at(60)});
        assert_eq!(standing(&hour(), &date, 3600), Standing::Fine);
        assert_eq!(standing(&hour(), &date, 7600), Standing::Late);
    }

    #[test]
    fn a_rotation_that_nobody_looked_at_is_late() {
        let source = json!({
            "name": "source", "versionId": "v1", "secretType": "Rds", "automaticRotation": "Enabled",
            "rotationInterval": "20s", "nextRotationDate": at(60),
        });
        let status = json!({"nextSyncTime": at(60), "sources": [source]});
        let of = |refresh: &Value, now| standing(refresh, &status, now);
        assert_eq!(of(&json!({}), 120), Standing::Fine);
        assert_eq!(of(&json!({}), 200), Standing::Late);
        let by_interval = json!({"policy": "Interval"});
        assert_eq!(of(&by_interval, 200), Standing::Fine, "no date decides");
    }

    #[test]
    fn what_no_time_decides_is_never_late() {
        let never = json!({"nextSyncTime": null});
        assert_eq!(
            standing(&json!({"policy": "OnChange"}), &never, 1_000_000),
            Standing::Fine
        );
    }

    #[test]
    fn what_is_well_has_no_message_unless_a_workload_waits() {
        let ready = condition("Ready", "True", "Synced");
        let waiting = condition("RolloutPending", "True", "RestartedRecently");
        let told = |conditions: Value| {
            let object = object(&json!({}), &json!({ "conditions": conditions }));
            Row::of(&object, at(60)).message
        };
        assert_eq!(told(json!([ready])), None);
        assert_eq!(
            told(json!([ready, waiting])).as_deref(),
            Some("RolloutPending is True")
        );
    }

    #[test]
    fn the_worst_comes_first_and_then_what_is_due() {
        let row = |name: &str, standing, next: Option<i64>| Row {
            name: name.to_owned(),
            standing,
            next_sync_time: next.map(|next| Time(at(next))),
            ..Row::of(&object(&json!({}), &json!({})), at(0))
        };
        let mut rows = [
            row("never", Standing::Fine, None),
            row("b", Standing::Fine, Some(20)),
            row("a", Standing::Fine, Some(20)),
            row("soon", Standing::Fine, Some(10)),
            row("late", Standing::Late, Some(5)),
            row("overdue", Standing::Overdue, Some(30)),
            row("failing", Standing::Failing, None),
        ];
        sort(&mut rows);
        let names = rows.map(|row| row.name);
        assert_eq!(
            names,
            ["failing", "overdue", "late", "soon", "a", "b", "never"]
        );
    }

    #[test]
    fn the_words_are_those_of_the_json() {
        for standing in Standing::ALL {
            assert_eq!(
                serde_json::to_value(standing).unwrap(),
                standing.as_str(),
                "{standing:?}"
            );
        }
        assert!(Standing::ALL.is_sorted());
    }
}
