//! Which workloads are restarted after the content of a Secret changed. Pure: planned from the status, which holds what
//! is still to be done, and from what each workload itself says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::conditions::{Context, ROLLOUT_PENDING, find, remove, set};
use super::{Retry, later, whole_seconds};
use crate::alibaba::sign::hex_sha256;
use crate::api::kms_secret::{
    KmsSecretStatus, PendingRestart, RolloutStatus, SourceStatus, StoreStatus, TargetStatus,
    WorkloadRef,
};
use crate::api::{KmsSecret, RESTART_ANNOTATION};

/// A workload is restarted this often at most, by whichever `KmsSecret`.
const QUIET: SignedDuration = SignedDuration::from_mins(5);
/// Where a person must act, the first look after a start is spread over this.
const SPREAD: SignedDuration = SignedDuration::from_mins(5);

/// 128 bits, in hex.
const TOKEN_LENGTH: usize = 32;

/// What a write left.
pub struct Written<'a> {
    /// The store that was read.
    pub store: &'a StoreStatus,
    /// What KMS said.
    pub sources: &'a [SourceStatus],
    /// The Secret.
    pub target: &'a TargetStatus,
}

/// The restarts that are to be made after a write, by the status `previous` to it.
///
/// The content changed if two things moved since the last write that the status tells of: what it is made of, and the
/// Secret itself. The first alone is a rotation that left these keys as they were; the second alone an edit that was
/// repaired, or a label. Both are in the status, so that a write whose status was lost is not.
///
/// Where nothing was noted yet (the first sync, a new name, a list that was only now added) nothing is restarted: pods
/// that need a Secret wait for it. A list that is added while the version moves counts that move.
#[must_use]
pub fn after_write(
    previous: &KmsSecretStatus,
    object: &KmsSecret,
    written: &Written<'_>,
) -> Option<RolloutStatus> {
    let list = &object.spec.rollout_restart;
    if list.is_empty() {
        return None;
    }
    let rollout = |pending| RolloutStatus {
        token: token(object, written, &written.target.uid),
        pending,
    };
    let target = previous.target.as_ref();
    let Some(old) = target.filter(|old| old.name == written.target.name) else {
        return Some(rollout(Vec::new()));
    };
    let is_made_of_another = match &previous.rollout {
        // Under the uid that it had: a Secret that was deleted and made anew is not another content.
        Some(known) => known.token != token(object, written, &old.uid),
        None => versions(&previous.sources) != versions(written.sources),
    };
    if is_made_of_another && old != written.target {
        let all = list.iter().map(|workload| PendingRestart {
            kind: workload.kind,
            name: workload.name.clone(),
            reason: None,
        });
        return Some(rollout(all.collect()));
    }
    Some(rollout(pending(previous, object)))
}

/// What is still to be restarted and still in the list.
#[must_use]
pub fn pending(status: &KmsSecretStatus, object: &KmsSecret) -> Vec<PendingRestart> {
    let known = status.rollout.iter().flat_map(|rollout| &rollout.pending);
    let list = &object.spec.rollout_restart;
    let is_listed = |pending: &&PendingRestart| {
        let is_it = |listed: &WorkloadRef| is_same(pending, listed);
        list.iter().any(is_it)
    };
    known.filter(is_listed).cloned().collect()
}

fn is_same(pending: &PendingRestart, workload: &WorkloadRef) -> bool {
    pending.kind == workload.kind && pending.name == workload.name
}

fn versions(sources: &[SourceStatus]) -> Vec<(&str, &str, &str, Option<&Time>)> {
    let facts = sources.iter().map(|source| {
        (
            source.name.as_str(),
            source.secret_name.as_str(),
            source.version_id.as_str(),
            source.create_time.as_ref(),
        )
    });
    facts.collect()
}

/// A digest of all that the content was made of, and never of a value.
fn token(object: &KmsSecret, written: &Written<'_>, target_uid: &str) -> String {
    let (spec, store) = (&object.spec, written.store);
    let made_of = json!([
        target_uid,
        [&store.kind, &store.uid],
        store.identity,
        versions(written.sources),
        spec.source,
        spec.sources,
        spec.data,
        spec.extract,
        object.target_type(),
    ]);
    let mut token = hex_sha256(made_of.to_string().as_bytes());
    token.truncate(TOKEN_LENGTH);
    token
}

/// Why a workload was not restarted yet: a closed set, the reasons of the condition `RolloutPending`. In the order of
/// their weight: the condition tells of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hindrance {
    /// The operator may not read or patch it.
    RolloutForbidden,
    /// The API server, or an admission policy, refuses the change.
    RolloutRefused,
    /// It does not consent.
    RolloutNotAllowed,
    /// Its pods do not use the Secret.
    SecretNotUsed,
    /// It does not exist.
    WorkloadNotFound,
    /// The API server did not answer.
    WorkloadUnavailable,
    /// It was restarted less than five minutes ago.
    RestartedRecently,
}

impl Hindrance {
    /// All of them, for documents and tests.
    pub const ALL: [Self; 7] = [
        Self::RolloutForbidden,
        Self::RolloutRefused,
        Self::RolloutNotAllowed,
        Self::SecretNotUsed,
        Self::WorkloadNotFound,
        Self::WorkloadUnavailable,
        Self::RestartedRecently,
    ];

    /// The reason, as conditions and Events spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RolloutForbidden => "RolloutForbidden",
            Self::RolloutRefused => "RolloutRefused",
            Self::RolloutNotAllowed => "RolloutNotAllowed",
            Self::SecretNotUsed => "SecretNotUsed",
            Self::WorkloadNotFound => "WorkloadNotFound",
            Self::WorkloadUnavailable => "WorkloadUnavailable",
            Self::RestartedRecently => "RestartedRecently",
        }
    }

    fn of(pending: &PendingRestart) -> Option<Self> {
        let reason = pending.reason.as_deref()?;
        Self::ALL.into_iter().find(|all| all.as_str() == reason)
    }

    /// Somebody must act.
    #[must_use]
    pub fn is_for_people(self) -> bool {
        !matches!(self, Self::WorkloadUnavailable | Self::RestartedRecently)
    }

    /// What happened, to which workload, and what to do.
    #[must_use]
    pub fn message(self, object: &KmsSecret, workload: &PendingRestart) -> String {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let target = object.target_name();
        let it = format!("{} {:?}", workload.kind.as_str(), workload.name);
        let kind = workload.kind.as_str().to_lowercase();
        match self {
            Self::RolloutForbidden => format!(
                "The operator may not restart {it} of namespace {namespace:?}. Cluster administrator: give it get and patch on {kind}s there, as examples/rbac-rollouts.yaml does."
            ),
            Self::RolloutRefused => format!(
                "The API server refuses to restart {it}. See whether `kubectl rollout restart -n {namespace} {kind} {}` works, and which admission policy or webhook is in the way.",
                workload.name
            ),
            Self::RolloutNotAllowed => format!(
                "{it} does not consent to being restarted. If it may be, run `kubectl annotate {kind} -n {namespace} {} --overwrite {RESTART_ANNOTATION}={name}` (names of several KmsSecrets are separated by commas).",
                workload.name
            ),
            Self::SecretNotUsed => format!(
                "The pods of {it} do not use Secret {target:?}, so it is not restarted. Let its pod template use the Secret, or take it out of spec.rolloutRestart."
            ),
            Self::WorkloadNotFound => format!(
                "There is no {it} in namespace {namespace:?}. Create it, or take it out of spec.rolloutRestart."
            ),
            Self::WorkloadUnavailable => format!(
                "The API server did not answer, or {it} kept changing. No action needed: it is tried again."
            ),
            Self::RestartedRecently => format!(
                "{it} was restarted less than five minutes ago. No action needed: it is restarted again when they are over."
            ),
        }
    }

    /// When to look again, after failing `since` then.
    fn next(self, since: Timestamp, now: Timestamp, hash: u64) -> Timestamp {
        let retry = if self.is_for_people() {
            Retry::Slow
        } else {
            Retry::Soon
        };
        let (least, most) = retry.bounds();
        let failing = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let wait = failing.clamp(least, most);
        let wait = wait + wait * u32::try_from(hash % 200).unwrap_or_default() / 1000;
        later(now, SignedDuration::try_from(wait).unwrap_or(SPREAD))
    }
}

/// What a workload says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its annotation `alikms.dev/restart`.
    pub consent: Option<String>,
    /// Its pod template uses the Secret.
    pub uses: bool,
    /// The annotation `alikms.dev/restarted` of its pod template.
    pub mark: Option<String>,
}

/// What is to be done with a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Restart it: the new value of the annotation of its pod template.
    Restart(String),
    /// Nothing: its pods have the content, or will begin with it.
    Done,
    /// Nothing yet, and until when, where that is known.
    Hindered(Hindrance, Option<Timestamp>),
}

/// The value of our annotation: who restarted the workload for what, and when it last was.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    restarted_at: Time,
    /// By name of the `KmsSecret`.
    tokens: BTreeMap<String, String>,
}

/// Decides about one workload, of which `seen` is what it says, if there is one.
///
/// One that was missing, or whose pods did not use the Secret, and now is there, or now use it, has pods that are
/// younger than the content.
#[must_use]
pub fn judge(
    seen: Option<&Workload>,
    pending: &PendingRestart,
    name: &str,
    token: &str,
    now: Timestamp,
) -> Verdict {
    let last = Hindrance::of(pending);
    let Some(workload) = seen else {
        return Verdict::Hindered(Hindrance::WorkloadNotFound, None);
    };
    if last == Some(Hindrance::WorkloadNotFound) {
        return Verdict::Done;
    }
    if !workload.uses {
        return Verdict::Hindered(Hindrance::SecretNotUsed, None);
    }
    if last == Some(Hindrance::SecretNotUsed) {
        return Verdict::Done;
    }
    let consent = workload.consent.as_deref().unwrap_or_default();
    let consents: Vec<&str> = consent.split(',').map(str::trim).collect();
    if !consents.contains(&name) {
        return Verdict::Hindered(Hindrance::RolloutNotAllowed, None);
    }
    let mark = workload.mark.as_deref();
    let mark = mark.and_then(|mark| serde_json::from_str::<Mark>(mark).ok());
    let mut tokens = BTreeMap::new();
    if let Some(mark) = mark {
        if mark.tokens.get(name).is_some_and(|done| done == token) {
            return Verdict::Done;
        }
        // A date to come is that of a clock which was ahead.
        let (at, until) = (mark.restarted_at.0, later(mark.restarted_at.0, QUIET));
        if at <= now && now < until {
            return Verdict::Hindered(Hindrance::RestartedRecently, Some(until));
        }
        tokens = mark.tokens;
    }
    tokens.retain(|other, _| consents.contains(&other.as_str()));
    tokens.insert(name.to_owned(), token.to_owned());
    let restarted_at = whole_seconds(now);
    let mark = Mark {
        restarted_at,
        tokens,
    };
    Verdict::Restart(serde_json::to_string(&mark).unwrap_or_default())
}

/// A look at what is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What was looked at: the token, the generation of the spec, the sync annotation. Anything else is looked at at once.
    of: (String, Option<i64>, Option<String>),
    /// When the first look at this was.
    since: Timestamp,
    /// When the next one is.
    pub next: Timestamp,
}

impl Look {
    /// When to look at what is pending, after the `last` look of this process, which `started` then.
    #[must_use]
    pub fn due(
        last: Option<&Self>,
        status: &KmsSecretStatus,
        object: &KmsSecret,
        hash: u64,
        (started, now): (Timestamp, Timestamp),
    ) -> Timestamp {
        if let Some(last) = last {
            let is_same = last.of == subject(status, object);
            return if is_same { last.next } else { now };
        }
        let pending = pending(status, object);
        let waits = |pending| Hindrance::of(pending).is_some_and(Hindrance::is_for_people);
        if started <= now && pending.iter().all(waits) {
            // A restart of ours is no burst.
            let parts = i32::try_from(hash % 1000).unwrap_or_default();
            return later(started, SPREAD * parts / 1000);
        }
        now
    }

    /// The look that was made now and found these hindrances.
    #[must_use]
    pub fn after(
        last: Option<&Self>,
        status: &KmsSecretStatus,
        object: &KmsSecret,
        hindered: &[(Hindrance, Option<Timestamp>)],
        hash: u64,
        now: Timestamp,
    ) -> Self {
        let of = subject(status, object);
        let same = last.filter(|last| last.of == of && last.since <= now);
        let since = same.map_or(now, |last| last.since);
        let next = hindered
            .iter()
            .map(|(hindrance, until)| until.unwrap_or(hindrance.next(since, now, hash)))
            .min();
        Self {
            of,
            since,
            next: next.unwrap_or(now),
        }
    }
}

fn subject(status: &KmsSecretStatus, object: &KmsSecret) -> (String, Option<i64>, Option<String>) {
    let token = status.rollout.as_ref().map(|rollout| rollout.token.clone());
    (
        token.unwrap_or_default(),
        object.metadata.generation,
        object.sync_token().map(ToOwned::to_owned),
    )
}

/// The status after a look, with what is `left` to do and why.
#[must_use]
pub fn looked(
    previous: &KmsSecretStatus,
    object: &KmsSecret,
    left: &[(PendingRestart, Hindrance)],
    context: Context<'_>,
) -> KmsSecretStatus {
    let mut status = previous.clone();
    if let Some(rollout) = &mut status.rollout {
        let left = left.iter().map(|(pending, hindrance)| PendingRestart {
            reason: Some(hindrance.as_str().to_owned()),
            ..pending.clone()
        });
        rollout.pending = left.collect();
    }
    let Some((first, hindrance)) = left.iter().min_by_key(|(_, hindrance)| hindrance) else {
        remove(&mut status.conditions, ROLLOUT_PENDING);
        return status;
    };
    let mut message = hindrance.message(object, first);
    if left.len() > 1 {
        let _ = write!(
            message,
            " Of {} others see status.rollout.pending.",
            left.len() - 1
        );
    }
    set(
        &mut status.conditions,
        ROLLOUT_PENDING,
        "True",
        hindrance.as_str(),
        &message,
        context,
    );
    status
}

/// Reason and message of `RolloutPending`, while a person must act.
#[must_use]
pub fn hindrance(status: &KmsSecretStatus) -> Option<(&str, &str)> {
    let pending = find(&status.conditions, ROLLOUT_PENDING)?;
    let mut all = Hindrance::ALL.into_iter();
    let hindrance = all.find(|hindrance| hindrance.as_str() == pending.reason)?;
    hindrance
        .is_for_people()
        .then_some((pending.reason.as_str(), pending.message.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kms_secret::WorkloadKind::{Deployment, StatefulSet};
    use proptest::prelude::*;
    use serde_json::{Value, from_value};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn context() -> Context<'static> {
        Context {
            generation: Some(1),
            sync: None,
            now: at(0),
        }
    }

    /// A `KmsSecret` whose spec has `more`.
    fn object(more: Value) -> KmsSecret {
        let mut object = json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret",
            "metadata": {"name": "db", "namespace": "shop", "generation": 1},
            "spec": {"storeRef": {"name": "prod"}, "source": {"secretName": "shop/db"}},
        });
        let spec = object["spec"].as_object_mut().unwrap();
        if let Value::Object(more) = more {
            spec.extend(more);
        }
        from_value(object).unwrap()
    }

    fn listing(names: &[&str]) -> Value {
        let list = names
            .iter()
            .map(|name| json!({"kind": "Deployment", "name": name}));
        json!({"rolloutRestart": list.collect::<Vec<_>>()})
    }

    /// What was read and written, to be changed by one thing at a time.
    #[derive(Clone)]
    struct World {
        object: KmsSecret,
        store: StoreStatus,
        source: SourceStatus,
        target: TargetStatus,
    }

    impl World {
        fn new() -> Self {
            Self {
                object: object(listing(&["orders", "billing"])),
                store: StoreStatus {
                    kind: "KmsStore".into(),
                    uid: "s".into(),
                    generation: 1,
                    identity: Some("i".into()),
                    credential_resource_version: Some("7".into()),
                },
                source: SourceStatus {
                    name: "source".into(),
                    secret_name: "shop/db".into(),
                    version_id: "v1".into(),
                    create_time: Some(Time(at(-1000))),
                    ..SourceStatus::default()
                },
                target: TargetStatus {
                    name: "db".into(),
                    uid: "t".into(),
                    resource_version: "5".into(),
                    keys: Vec::new(),
                },
            }
        }

        /// The status after this was written, with what it left to restart.
        fn after(&self, previous: &KmsSecretStatus) -> KmsSecretStatus {
            let written = Written {
                store: &self.store,
                sources: std::slice::from_ref(&self.source),
                target: &self.target,
            };
            KmsSecretStatus {
                rollout: after_write(previous, &self.object, &written).map(Box::new),
                sources: vec![self.source.clone()],
                target: Some(self.target.clone()),
                ..KmsSecretStatus::default()
            }
        }

        fn first(&self) -> KmsSecretStatus {
            self.after(&KmsSecretStatus::default())
        }
    }

    fn names(status: &KmsSecretStatus) -> Vec<&str> {
        let rollout = status.rollout.iter();
        let pending = rollout.flat_map(|rollout| &rollout.pending);
        pending.map(|pending| pending.name.as_str()).collect()
    }

    fn moved(world: &mut World) {
        world.target.resource_version = "6".into();
    }

    #[test]
    fn the_first_sync_restarts_nothing_and_takes_note() {
        let status = World::new().first();
        assert!(names(&status).is_empty());
        assert_eq!(status.rollout.unwrap().token.len(), TOKEN_LENGTH);
    }

    #[test]
    fn what_the_content_is_made_of_and_the_secret_must_both_move() {
        type Change = fn(&mut World);
        let changes: [(&str, Change); 8] = [
            ("version", |w| w.source.version_id = "v2".into()),
            ("secret", |w| w.source.secret_name = "shop/other".into()),
            ("made anew", |w| w.source.create_time = Some(Time(at(1)))),
            ("store", |w| w.store.uid = "other".into()),
            ("endpoint", |w| w.store.identity = Some("other".into())),
            ("keys", |w| {
                let mut more = listing(&["orders", "billing"]);
                more["data"] = json!([{"key": "a", "path": "b"}]);
                w.object = object(more);
            }),
            ("fields", |w| {
                let mut more = listing(&["orders", "billing"]);
                more["extract"] = json!([{"prefix": "A_"}]);
                w.object = object(more);
            }),
            ("type", |w| {
                let mut more = listing(&["orders", "billing"]);
                more["target"] = json!({"type": "kubernetes.io/tls"});
                w.object = object(more);
            }),
        ];
        let first = World::new().first();
        for (what, change) in changes {
            let mut world = World::new();
            change(&mut world);
            assert!(names(&world.after(&first)).is_empty(), "{what} alone");
            moved(&mut world);
            assert_eq!(names(&world.after(&first)), ["orders", "billing"], "{what}");
        }
    }

    #[test]
    fn a_repair_a_label_and_a_secret_made_anew_restart_nothing() {
        let first = World::new().first();
        let mut repaired = World::new();
        moved(&mut repaired);
        assert!(names(&repaired.after(&first)).is_empty());

        let mut labelled = repaired.clone();
        let mut more = listing(&["orders", "billing"]);
        more["target"] = json!({"labels": {"a": "b"}});
        labelled.object = object(more);
        assert!(names(&labelled.after(&first)).is_empty());

        let mut anew = repaired;
        anew.target.uid = "another".into();
        let status = anew.after(&first);
        assert!(names(&status).is_empty());
        anew.source.version_id = "v2".into();
        anew.target.resource_version = "7".into();
        assert_eq!(names(&anew.after(&status)), ["orders", "billing"]);
    }

    #[test]
    fn a_credential_that_changes_is_not_another_content() {
        let first = World::new().first();
        let mut world = World::new();
        world.store.credential_resource_version = Some("8".into());
        world.store.generation = 2;
        moved(&mut world);
        assert!(names(&world.after(&first)).is_empty());
    }

    #[test]
    fn a_list_that_is_added_restarts_nothing_unless_the_version_moves_with_it() {
        let mut world = World::new();
        world.object = object(json!({}));
        let first = world.first();
        assert_eq!(first.rollout, None);
        let mut added = World::new();
        moved(&mut added);
        assert!(names(&added.after(&first)).is_empty());
        added.source.version_id = "v2".into();
        assert_eq!(names(&added.after(&first)), ["orders", "billing"]);
    }

    #[test]
    fn a_workload_that_is_added_waits_for_the_next_change_and_one_that_is_removed_is_dropped() {
        let first = World::new().first();
        let mut world = World::new();
        world.source.version_id = "v2".into();
        moved(&mut world);
        let pending = world.after(&first);
        world.object = object(listing(&["orders", "late"]));
        let status = world.after(&pending);
        assert_eq!(names(&status), ["orders"]);
        world.object = object(json!({}));
        assert_eq!(world.after(&status).rollout, None);
    }

    #[test]
    fn another_name_of_the_secret_begins_anew() {
        let mut world = World::new();
        let first = world.first();
        world.source.version_id = "v2".into();
        moved(&mut world);
        let pending = world.after(&first);
        world.target.name = "other".into();
        world.target.uid = "other".into();
        assert!(names(&world.after(&pending)).is_empty());
    }

    #[test]
    fn a_status_that_was_lost_loses_no_restart() {
        let first = World::new().first();
        let mut world = World::new();
        world.source.version_id = "v2".into();
        moved(&mut world);
        let lost = world.after(&first);
        // The next apply moves nothing; the status is still the first one.
        let found = world.after(&first);
        assert_eq!(lost.rollout, found.rollout, "and its token is the same");
    }

    #[test]
    fn what_is_pending_stays_while_only_the_version_moves() {
        let first = World::new().first();
        let mut world = World::new();
        world.source.version_id = "v2".into();
        moved(&mut world);
        let pending = world.after(&first);
        world.source.version_id = "v3".into();
        let status = world.after(&pending);
        assert_eq!(names(&status), ["orders", "billing"]);
        assert_ne!(status.rollout, pending.rollout, "for the newest token");
    }

    const NOW: i64 = 1000;

    fn waiting(reason: Option<Hindrance>) -> PendingRestart {
        PendingRestart {
            kind: Deployment,
            name: "orders".into(),
            reason: reason.map(|reason| reason.as_str().to_owned()),
        }
    }

    fn willing() -> Workload {
        Workload {
            consent: Some("db".into()),
            uses: true,
            mark: None,
        }
    }

    fn verdict(workload: &Workload) -> Verdict {
        judge(Some(workload), &waiting(None), "db", "t2", at(NOW))
    }

    fn marked(seconds: i64, tokens: Value) -> Workload {
        let mut mark = json!({"restartedAt": Time(at(seconds))});
        mark["tokens"] = tokens;
        Workload {
            mark: Some(mark.to_string()),
            ..willing()
        }
    }

    #[test]
    fn a_workload_that_uses_the_secret_and_consents_is_restarted() {
        let Verdict::Restart(mark) = verdict(&willing()) else {
            panic!("it is willing");
        };
        assert_eq!(
            serde_json::from_str::<Value>(&mark).unwrap(),
            json!({"restartedAt": "2023-11-14T22:30:00Z", "tokens": {"db": "t2"}})
        );
        let again = Workload {
            mark: Some(mark),
            ..willing()
        };
        assert_eq!(verdict(&again), Verdict::Done, "once for one content");
    }

    #[test]
    fn consent_names_the_kms_secret_or_several() {
        for (consent, is_given) in [
            (Some("db"), true),
            (Some("tls,db"), true),
            (Some(" tls , db "), true),
            (Some("db2"), false),
            (Some("d"), false),
            (Some("true"), false),
            (Some(""), false),
            (None, false),
        ] {
            let workload = Workload {
                consent: consent.map(ToOwned::to_owned),
                ..willing()
            };
            let refused = Verdict::Hindered(Hindrance::RolloutNotAllowed, None);
            assert_eq!(verdict(&workload) != refused, is_given, "{consent:?}");
        }
    }

    #[test]
    fn a_second_restart_waits_until_five_minutes_are_over_and_a_clock_that_was_ahead_holds_nothing()
    {
        for (ago, waits) in [(0, true), (299, true), (300, false), (-1, false)] {
            let workload = marked(NOW - ago, json!({"db": "t1"}));
            let until = at(NOW - ago + 300);
            let expected = Verdict::Hindered(Hindrance::RestartedRecently, Some(until));
            assert_eq!(verdict(&workload) == expected, waits, "{ago} s ago");
        }
    }

    #[test]
    fn several_kms_secrets_share_one_annotation_and_its_five_minutes() {
        let others = |seconds| Workload {
            consent: Some("db,tls".into()),
            ..marked(seconds, json!({"tls": "x", "gone": "y"}))
        };
        let Verdict::Hindered(Hindrance::RestartedRecently, _) = verdict(&others(NOW - 10)) else {
            panic!("another one has just restarted it");
        };
        let Verdict::Restart(mark) = verdict(&others(NOW - 400)) else {
            panic!("that is long ago");
        };
        let mark: Value = serde_json::from_str(&mark).unwrap();
        assert_eq!(mark["tokens"], json!({"db": "t2", "tls": "x"}));
    }

    #[test]
    fn an_annotation_that_somebody_garbled_is_as_good_as_none() {
        for mark in ["", "yesterday", "{}", r#"{"restartedAt": 5}"#] {
            let workload = Workload {
                mark: Some(mark.into()),
                ..willing()
            };
            assert!(matches!(verdict(&workload), Verdict::Restart(_)), "{mark}");
        }
    }

    #[test]
    fn pods_that_began_after_the_change_are_not_restarted() {
        let judge = |seen, last| judge(seen, &waiting(last), "db", "t2", at(NOW));
        let missing = Verdict::Hindered(Hindrance::WorkloadNotFound, None);
        assert_eq!(judge(None, None), missing);
        assert_eq!(judge(None, Some(Hindrance::RolloutNotAllowed)), missing);
        let there = willing();
        let was_missing = Some(Hindrance::WorkloadNotFound);
        assert_eq!(judge(Some(&there), was_missing), Verdict::Done);

        let unused = Workload {
            uses: false,
            ..willing()
        };
        let not_used = Hindrance::SecretNotUsed;
        assert_eq!(
            judge(Some(&unused), None),
            Verdict::Hindered(not_used, None)
        );
        assert_eq!(judge(Some(&there), Some(not_used)), Verdict::Done);
        for last in [Hindrance::RolloutForbidden, Hindrance::WorkloadUnavailable] {
            let verdict = judge(Some(&there), Some(last));
            assert!(matches!(verdict, Verdict::Restart(_)), "{last:?}");
        }
    }

    /// A status of which that is pending.
    fn pending_status(reasons: &[Option<Hindrance>]) -> KmsSecretStatus {
        let pending = reasons.iter().map(|reason| waiting(*reason)).collect();
        KmsSecretStatus {
            rollout: Some(Box::new(RolloutStatus {
                token: "t2".into(),
                pending,
            })),
            ..KmsSecretStatus::default()
        }
    }

    #[test]
    fn after_a_start_only_what_waits_for_people_is_spread() {
        let object = object(listing(&["orders"]));
        let due = |reason, hash, started| {
            let status = pending_status(&[reason]);
            Look::due(None, &status, &object, hash, (at(started), at(NOW)))
        };
        let slow = Some(Hindrance::RolloutForbidden);
        assert_eq!(due(None, 999, NOW), at(NOW));
        assert_eq!(due(Some(Hindrance::RestartedRecently), 999, NOW), at(NOW));
        assert_eq!(due(slow, 500, NOW), at(NOW + 150));
        assert_eq!(due(slow, 500, NOW + 60), at(NOW), "the clock was ahead");
    }

    #[test]
    fn a_look_holds_until_its_time_or_until_something_else_is_asked_for() {
        let object = object(listing(&["orders"]));
        let status = pending_status(&[None]);
        let slow = [(Hindrance::RolloutNotAllowed, None)];
        let look = Look::after(None, &status, &object, &slow, 0, at(NOW));
        assert_eq!(look.next, at(NOW + 300));
        let due = |status: &KmsSecretStatus, object: &KmsSecret| {
            Look::due(Some(&look), status, object, 0, (at(0), at(NOW + 1)))
        };
        assert_eq!(due(&status, &object), look.next);
        let mut forced = object.clone();
        forced
            .annotations_mut()
            .insert(crate::api::SYNC_ANNOTATION.into(), "x".into());
        assert_eq!(due(&status, &forced), at(NOW + 1));
        let mut edited = object.clone();
        edited.metadata.generation = Some(2);
        assert_eq!(due(&status, &edited), at(NOW + 1));
        let mut changed = status.clone();
        changed.rollout.as_mut().unwrap().token = "t3".into();
        assert_eq!(due(&changed, &object), at(NOW + 1));
    }

    #[test]
    fn the_soonest_of_several_decides_and_failures_are_tried_ever_more_rarely() {
        let object = object(listing(&["orders"]));
        let status = pending_status(&[None]);
        let until = at(NOW + 120);
        let several = [
            (Hindrance::RolloutForbidden, None),
            (Hindrance::RestartedRecently, Some(until)),
        ];
        let look = Look::after(None, &status, &object, &several, 0, at(NOW));
        assert_eq!(look.next, until);

        let soon = [(Hindrance::WorkloadUnavailable, None)];
        let mut look = Look::after(None, &status, &object, &soon, 0, at(NOW));
        let mut waits = Vec::new();
        let mut now = at(NOW);
        for _ in 0..12 {
            waits.push(look.next.duration_since(now).as_secs());
            now = look.next;
            look = Look::after(Some(&look), &status, &object, &soon, 0, now);
        }
        assert_eq!(waits, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn the_condition_tells_of_the_gravest_and_goes_when_nothing_is_left() {
        let object = object(listing(&["orders"]));
        let mut second = waiting(None);
        (second.kind, second.name) = (StatefulSet, "ledger".into());
        let left = [
            (waiting(None), Hindrance::RestartedRecently),
            (second, Hindrance::RolloutNotAllowed),
        ];
        let status = looked(&pending_status(&[None, None]), &object, &left, context());
        let (reason, message) = hindrance(&status).unwrap();
        assert_eq!(reason, "RolloutNotAllowed");
        let command =
            "`kubectl annotate statefulset -n shop ledger --overwrite alikms.dev/restart=db`";
        assert!(message.contains(command), "{message}");
        let reasons = status.rollout.iter().flat_map(|rollout| &rollout.pending);
        let reasons: Vec<_> = reasons.map(|pending| pending.reason.as_deref()).collect();
        assert_eq!(
            reasons,
            [Some("RestartedRecently"), Some("RolloutNotAllowed")]
        );

        let status = looked(&status, &object, &left[..1], context());
        assert_eq!(hindrance(&status), None, "nobody must act");
        assert!(find(&status.conditions, ROLLOUT_PENDING).is_some());
        let status = looked(&status, &object, &[], context());
        assert_eq!(find(&status.conditions, ROLLOUT_PENDING), None);
        assert!(names(&status).is_empty());
    }

    fn hindrances() -> impl Strategy<Value = Hindrance> {
        proptest::sample::select(Hindrance::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn no_history_of_writes_restarts_without_a_change_or_loses_one(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..20),
        ) {
            let mut world = World::new();
            let mut status = world.first();
            let (mut version, mut resource) = (1, 5);
            // What changed since the status that is known, for statuses that were lost.
            let (mut is_other, mut has_moved, mut is_pending) = (false, false, false);
            for (rotates, writes, is_lost) in steps {
                if rotates {
                    version += 1;
                    world.source.version_id = format!("v{version}");
                    is_other = true;
                }
                if writes {
                    resource += 1;
                    world.target.resource_version = resource.to_string();
                    has_moved = true;
                }
                let after = world.after(&status);
                let restarts = is_pending || (is_other && has_moved);
                prop_assert_eq!(!names(&after).is_empty(), restarts);
                if !is_lost {
                    status = after;
                    is_pending = restarts;
                    (is_other, has_moved) = (false, false);
                }
            }
        }

        #[test]
        fn whatever_an_annotation_says_the_verdict_is_sound(
            consent in proptest::option::of("[a-z,. ]{0,12}"),
            mark in proptest::option::of(".{0,60}"),
            uses in any::<bool>(),
            last in proptest::option::of(hindrances()),
            now in -1_000_000_i64..1_000_000_000,
        ) {
            let workload = Workload { consent, uses, mark };
            let now = at(now);
            match judge(Some(&workload), &waiting(last), "db", "t2", now) {
                Verdict::Restart(mark) => {
                    prop_assert!(uses && workload.consent.clone().unwrap().contains("db"));
                    let again = Workload { mark: Some(mark), ..workload };
                    prop_assert_eq!(judge(Some(&again), &waiting(last), "db", "t2", now), Verdict::Done);
                    let other = judge(Some(&again), &waiting(last), "db", "t3", now);
                    let waits = matches!(other, Verdict::Hindered(Hindrance::RestartedRecently, Some(until)) if until > now);
                    prop_assert!(waits);
                }
                Verdict::Hindered(_, until) => prop_assert!(until.is_none_or(|until| until > now)),
                Verdict::Done => {}
            }
        }

        #[test]
        fn the_next_look_is_never_now_and_never_later_than_an_hour(
            found in proptest::collection::vec(hindrances(), 1..5),
            hash in any::<u64>(),
            failing in 0_i64..1_000_000,
        ) {
            let object = object(listing(&["orders"]));
            let status = pending_status(&[None]);
            let found: Vec<_> = found.into_iter().map(|hindrance| (hindrance, None)).collect();
            let first = Look::after(None, &status, &object, &found, hash, at(0));
            let look = Look::after(Some(&first), &status, &object, &found, hash, at(failing));
            prop_assert!(look.next > at(failing) && look.next <= at(failing + 3600));
        }
    }
}
