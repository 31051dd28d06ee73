//! Whether to fetch, wait or refuse: one pure decision over everything that was gathered.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::backoff::{Attempted, Backoff, Repair};
use super::hint::Wishes;
use super::schedule::Schedule;
use super::spec::{self, Limits};
use super::{Failure, Reason, Retry, later};
use crate::api::kms_secret::{
    CreationPolicy, KmsSecretStatus, RefreshPolicy, StoreStatus, TargetStatus,
};
use crate::api::{ALLOW_ANNOTATION, KmsSecret, parse_duration};

/// Nobody waits longer than this for a target that changes faster than it is written, unless the clock was ahead.
const CHASED_MAX: SignedDuration = SignedDuration::from_mins(1);

/// Everything that the decision looks at.
pub struct Seen<'a> {
    /// The object, as the cache has it.
    pub object: &'a KmsSecret,
    /// Its status, at least as new as our own last write.
    pub status: &'a KmsSecretStatus,
    /// When KMS was last read with success, where this is known better than the status tells.
    pub last_read: Option<Timestamp>,
    /// The failure that the status tells of was met by this process: it need not be spread like one of before.
    pub tried: bool,
    /// The store, or why it can't be used.
    pub store: Result<&'a StoreStatus, &'a Failure>,
    /// The target.
    pub target: &'a Target,
    /// The attempts that failed since the last success.
    pub backoff: Option<&'a Backoff>,
    /// When the target was last repaired.
    pub repaired: Option<&'a Repair>,
    /// Until when a target that changes faster than it is written is not chased.
    pub moved_until: Option<Timestamp>,
    /// KMS told that the secret changed.
    pub hinted: bool,
    /// What forced syncs and hints may still cost.
    pub wishes: Wishes,
    /// When this process took the object over.
    pub started: Timestamp,
    /// When the API server was put back to a backup, if this process saw that.
    pub restored: Option<Timestamp>,
    /// The clock of KMS minus ours.
    pub offset: SignedDuration,
    /// Hash of the object's uid.
    pub hash: u64,
    /// What the operator was told to allow.
    pub limits: &'a Limits,
    /// Now.
    pub now: Timestamp,
}

impl Seen<'_> {
    /// The target as our last write left it, if that was to one of this name.
    #[must_use]
    pub fn written(&self) -> Option<&TargetStatus> {
        let written = self.status.target.as_ref();
        written.filter(|written| written.name == self.object.target_name())
    }

    /// The target is there, under the name that it was last written to.
    fn is_written(&self) -> bool {
        self.written().is_some_and(|written| match self.target {
            Target::Ours { .. } => true,
            // Ours are the keys, and they went with a Secret that was made anew.
            Target::Shared { uid, .. } => *uid == written.uid,
            _ => false,
        })
    }

    /// The target was there, and is no more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        *self.target == Target::Absent && self.written().is_some()
    }

    /// The target is as our last write left it; of one that we share, our keys are.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        let Some(written) = &self.status.target else {
            return false;
        };
        match self.target {
            Target::Ours {
                uid,
                resource_version,
                ..
            } => *uid == written.uid && *resource_version == written.resource_version,
            Target::Shared {
                uid,
                keys,
                is_marked,
                ..
            } => *uid == written.uid && *is_marked && *keys == written.keys,
            _ => false,
        }
    }

    /// Uid of the target, if there is one that is ours.
    #[must_use]
    pub fn target_uid(&self) -> Option<&str> {
        match self.target {
            Target::Ours { uid, .. } | Target::Shared { uid, .. } => Some(uid),
            _ => None,
        }
    }
}

/// The Secret of the target's name, as the cache or the API server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// There is none, or none that we know of.
    Absent,
    /// It is ours.
    Ours {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
        /// Its owner is an object of our name that is gone.
        is_predecessors: bool,
    },
    /// It has no owner, consents to being taken over, and the spec asks for it.
    Adoptable {
        /// Its uid.
        uid: String,
        /// Its resourceVersion, at which it consented.
        resource_version: String,
    },
    /// It is somebody else's, and lets us keep keys in it.
    Shared {
        /// Its uid.
        uid: String,
        /// Its resourceVersion, at which it consented.
        resource_version: String,
        /// The keys that are as we wrote them, in order: those that our field manager owns.
        keys: Vec<String>,
        /// Our marks are on it, by which we find it again.
        is_marked: bool,
    },
    /// It is somebody else's.
    Foreign {
        /// Who, in words.
        owner: String,
        /// What to do.
        action: String,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Read KMS and write the target.
    Fetch(Why),
    /// It was done once and for all, and is as it was left.
    Done,
    /// Do nothing until then, or until something changes.
    Wait(Option<Timestamp>),
    /// Do nothing and say why.
    Refuse(Failure),
    /// Do nothing: `spec.suspend`.
    Suspend,
}

/// Why KMS is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It never was.
    New,
    /// The target is missing.
    Missing,
    /// The spec changed.
    Changed,
    /// The sync annotation changed.
    Forced,
    /// KMS told that the secret changed.
    Hinted,
    /// Somebody edited the target.
    Drift,
    /// The last attempt failed.
    Retry,
    /// The store or its credentials changed.
    Store,
    /// The ceiling was reached.
    Due,
    /// A rotation was announced.
    Rotation,
}

impl Why {
    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Forced => "forced",
            Self::Hinted => "hinted",
            Self::Drift => "drift",
            Self::Retry => "retry",
            Self::Store => "store",
            Self::Due => "due",
            Self::Rotation => "rotation",
        }
    }
}

/// The schedule that belongs to what was seen, once KMS has been read.
#[must_use]
pub fn schedule<'a>(seen: &Seen<'a>) -> Option<Schedule<'a>> {
    let last_sync = seen.status.last_sync_time.as_ref().map(|time| time.0);
    let mut schedule = Schedule {
        offset: seen.offset,
        hash: seen.hash,
        ..by_policy(seen.object, seen.status, seen.last_read.or(last_sync)?)
    };
    // A clock that was ahead must not stop all reads: then it was read when it was due as we started. That stays where
    // it is; now would move on with each look.
    if schedule.last_read > later(seen.now, schedule.ceiling()) {
        schedule.last_read = later(start(seen)?, -schedule.ceiling());
    }
    Some(schedule)
}

/// The longest time between two reads of an object, by what KMS said at the last one.
#[must_use]
pub fn ceiling(
    object: &KmsSecret,
    status: &KmsSecretStatus,
    last_read: Timestamp,
) -> SignedDuration {
    by_policy(object, status, last_read).ceiling()
}

/// The schedule of an object, on the clock of KMS and for the uid's hash 0.
fn by_policy<'a>(
    object: &KmsSecret,
    status: &'a KmsSecretStatus,
    last_read: Timestamp,
) -> Schedule<'a> {
    Schedule {
        policy: object.refresh_policy(),
        interval: object.refresh_interval().and_then(parse_duration),
        pinned: is_pinned(object),
        sources: &status.sources,
        last_read,
        offset: SignedDuration::ZERO,
        hash: 0,
    }
}

/// When this process took the object over; `None` where the clock was ahead then.
fn start(seen: &Seen<'_>) -> Option<Timestamp> {
    (seen.started <= seen.now).then_some(seen.started)
}

/// Every source names its version: nothing moves by itself.
fn is_pinned(object: &KmsSecret) -> bool {
    let sources = object.spec.all_sources();
    sources
        .iter()
        .all(|named| named.source.version_id.is_some())
}

/// Decides. The order of the checks is the order of what matters.
#[must_use]
pub fn plan(seen: &Seen<'_>) -> Plan {
    if seen.object.metadata.deletion_timestamp.is_some() {
        return Plan::Wait(None);
    }
    if seen.object.spec.suspend == Some(true) {
        return Plan::Suspend;
    }
    if let Err(failure) = spec::check(seen.object, seen.limits) {
        return Plan::Refuse(failure);
    }
    if is_done(seen) {
        return Plan::Done;
    }
    let store = match seen.store {
        Ok(store) => store,
        Err(failure) => return Plan::Refuse(failure.clone()),
    };
    if let Target::Foreign { owner, action } = seen.target {
        return Plan::Refuse(owned_by_other(seen.object.target_name(), owner, action));
    }
    if *seen.target == Target::Absent && seen.object.creation_policy() == CreationPolicy::Merge {
        return Plan::Refuse(nothing_to_merge_into(seen.object));
    }
    match reason_to_fetch(seen, store) {
        Reading::Now(why) => gate(seen, store, why),
        Reading::At(at) => Plan::Wait(at),
    }
}

/// The refusal of a target that others have to make first.
fn nothing_to_merge_into(object: &KmsSecret) -> Failure {
    let (namespace, target) = (
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.target_name(),
    );
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Failure::new(
        Reason::TargetNotFound,
        format!("there is no Secret {target:?} to put keys into"),
        format!(
            "let whoever keeps it create it, and then run `kubectl annotate secret -n {namespace} {target} {ALLOW_ANNOTATION}={name}`"
        ),
    )
}

/// The refusal of a target that is somebody else's.
#[must_use]
pub fn owned_by_other(target: &str, owner: &str, action: &str) -> Failure {
    Failure::new(
        Reason::TargetOwnedByOther,
        format!("Secret {target:?} exists and is not ours: {owner}"),
        action,
    )
}

enum Reading {
    Now(Why),
    At(Option<Timestamp>),
}

impl Reading {
    fn once(at: Timestamp, why: Why, now: Timestamp) -> Self {
        if at <= now {
            Self::Now(why)
        } else {
            Self::At(Some(at))
        }
    }
}

fn reason_to_fetch(seen: &Seen<'_>, store: &StoreStatus) -> Reading {
    let (object, status) = (seen.object, seen.status);
    let Some(schedule) = schedule(seen) else {
        return Reading::Now(Why::New);
    };
    if !seen.is_written() {
        return Reading::Now(Why::Missing);
    }
    if status.observed_generation != object.metadata.generation {
        return Reading::Now(Why::Changed);
    }
    let Some((wish, at)) = wish(seen) else {
        return by_itself(seen, store, &schedule);
    };
    if at <= seen.now {
        return Reading::Now(wish);
    }
    match by_itself(seen, store, &schedule) {
        // Any of these reads is what the wish asks for; the others can wait with it.
        now @ Reading::Now(Why::Store | Why::Due | Why::Rotation) => now,
        Reading::At(Some(other)) => Reading::At(Some(other.min(at))),
        Reading::Now(_) | Reading::At(None) => Reading::At(Some(at)),
    }
}

/// A read that somebody wishes, and when it may be: beyond a small allowance it waits.
///
/// A hint only brings forward what would be read anyway, so that `OnChange` does not take it. A force that was already
/// attempted is held back by its failure alone.
fn wish(seen: &Seen<'_>) -> Option<(Why, Timestamp)> {
    let ready = seen.wishes.ready_at(seen.now);
    if is_forced(seen) {
        let at = if is_attempted(seen) { seen.now } else { ready };
        return Some((Why::Forced, at));
    }
    let is_hinted = seen.hinted && seen.object.refresh_policy() != RefreshPolicy::OnChange;
    is_hinted.then_some((Why::Hinted, ready))
}

fn is_forced(seen: &Seen<'_>) -> bool {
    let token = seen.object.sync_token();
    token.is_some() && token != seen.status.last_handled_sync.as_deref()
}

fn is_attempted(seen: &Seen<'_>) -> bool {
    let attempted = seen.backoff.map(|backoff| backoff.attempt.sync.as_deref());
    attempted == Some(seen.object.sync_token())
}

/// Whether a read costs a wish.
#[must_use]
pub fn is_wish(seen: &Seen<'_>, why: Why) -> bool {
    match why {
        Why::Forced => !is_attempted(seen),
        Why::Hinted => true,
        _ => false,
    }
}

/// What there is to read without anybody's wish.
fn by_itself(seen: &Seen<'_>, store: &StoreStatus, schedule: &Schedule<'_>) -> Reading {
    let (object, status) = (seen.object, seen.status);
    if !seen.is_intact() {
        return Reading::Now(Why::Drift);
    }
    if seen.backoff.is_some() {
        return Reading::Now(Why::Retry);
    }
    if status.error.is_some() {
        let at = if seen.tried || is_rotation_due(schedule, seen) {
            seen.now
        } else {
            // What had failed when we started is tried again with the rest of what was missed.
            start(seen).map_or(seen.now, |start| schedule.after_start(start))
        };
        return Reading::once(at, Why::Retry, seen.now);
    }
    let is_same = |known: &StoreStatus| known.is_same_identity(store);
    let is_other = !status.store.as_ref().is_some_and(is_same);
    if is_other && object.refresh_policy() != RefreshPolicy::OnChange {
        return Reading::Now(Why::Store);
    }
    match schedule.next() {
        None => Reading::At(None),
        Some(due) if due.rotation && due.at <= seen.now => Reading::Now(Why::Rotation),
        Some(due) => {
            // Missed while nobody looked: a restart is no burst. What comes due later is on time.
            let at = match start(seen) {
                Some(start) if due.at < start => schedule.after_start(start),
                _ => due.at,
            };
            // What was written after a backup went with it: what was read before is read again, spread like that.
            let again = seen
                .restored
                .filter(|restored| schedule.last_read < *restored)
                .map(|restored| schedule.after_start(restored));
            let at = again.map_or(at, |again| again.min(at));
            Reading::once(at, Why::Due, seen.now)
        }
    }
}

fn is_rotation_due(schedule: &Schedule<'_>, seen: &Seen<'_>) -> bool {
    schedule
        .next()
        .is_some_and(|due| due.rotation && due.at <= seen.now)
}

/// Policy `Once`, and it was: only a missing target brings it back.
fn is_done(seen: &Seen<'_>) -> bool {
    seen.object.refresh_policy() == RefreshPolicy::Once
        && seen.status.last_sync_time.is_some()
        && seen.is_written()
}

/// Holds back what was tried a moment ago, and what somebody else keeps undoing.
fn gate(seen: &Seen<'_>, store: &StoreStatus, why: Why) -> Plan {
    let attempt = Attempted::of(seen.object, Some(store), seen.target_uid());
    let same = seen
        .backoff
        .filter(|backoff| backoff.attempt == attempt && backoff.last <= seen.now);
    let held = same.map(|backoff| (backoff.retry_at(seen.hash), backoff.reason.retry()));
    if let Some((at, retry)) = held.filter(|(at, _)| *at > seen.now) {
        // What KMS told of may be what somebody had to mend.
        if !seen.hinted || retry != Retry::Slow {
            return Plan::Wait(Some(at));
        }
        let ready = seen.wishes.ready_at(seen.now);
        return if ready <= seen.now {
            Plan::Fetch(Why::Hinted)
        } else {
            Plan::Wait(Some(at.min(ready)))
        };
    }
    // An edit is repaired at once, and then ever more rarely; a deletion three times at once. What time asks for is not
    // held back by either.
    let free = match why {
        Why::Drift => 1,
        Why::Missing => 3,
        _ => return Plan::Fetch(why),
    };
    let chased = later(seen.now, CHASED_MAX);
    let moved_until = seen.moved_until.filter(|until| *until <= chased);
    if let Some(until) = moved_until.filter(|until| *until > seen.now) {
        return Plan::Wait(Some(until));
    }
    let held = seen
        .repaired
        .filter(|repair| repair.at <= seen.now)
        .map(|repair| repair.next_at(free));
    let Some(at) = held.filter(|at| *at > seen.now) else {
        return Plan::Fetch(why);
    };
    let due = schedule(seen)
        .and_then(|schedule| schedule.next())
        .filter(|due| due.at <= seen.now);
    match due {
        Some(due) => Plan::Fetch(if due.rotation {
            Why::Rotation
        } else {
            Why::Due
        }),
        None => Plan::Refuse(contested(
            seen.object.target_name(),
            at.duration_since(seen.now),
        )),
    }
}

/// The refusal to repair a target yet again.
#[must_use]
pub fn contested(target: &str, wait: SignedDuration) -> Failure {
    Failure {
        retry_after: Duration::try_from(wait).ok(),
        ..Failure::new(
            Reason::TargetContested,
            format!("somebody keeps changing Secret {target:?} after it was repaired"),
            "find out who (kubectl get secret -o yaml --show-managed-fields) and stop one of the two",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SYNC_ANNOTATION;
    use crate::api::kms_secret::{
        ErrorStatus, KmsSecretSpec, Refresh, Source, SourceStatus, StoreRef, TargetStatus,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn store() -> StoreStatus {
        StoreStatus {
            kind: "KmsStore".into(),
            uid: "s".into(),
            generation: 1,
            identity: Some("i".into()),
            credential_resource_version: Some("7".into()),
        }
    }

    /// A world that can be changed by one thing at a time. Synced at 0, seen at 10, started at -100.
    struct World {
        object: KmsSecret,
        status: KmsSecretStatus,
        store: Result<StoreStatus, Failure>,
        target: Target,
        backoff: Option<Backoff>,
        repaired: Option<Repair>,
        moved_until: Option<Timestamp>,
        started: Timestamp,
        restored: Option<Timestamp>,
        now: Timestamp,
        hash: u64,
        tried: bool,
        hinted: bool,
        wishes: Wishes,
        limits: Limits,
    }

    impl World {
        fn in_sync() -> Self {
            let mut object = KmsSecret::new(
                "db",
                KmsSecretSpec {
                    store_ref: StoreRef {
                        name: "prod".into(),
                        kind: None,
                    },
                    source: Some(Source {
                        secret_name: "shop/db".into(),
                        version_stage: None,
                        version_id: None,
                        fetch_extended_config: None,
                    }),
                    sources: vec![],
                    data: vec![],
                    extract: vec![],
                    target: None,
                    refresh: None,
                    rollout_restart: vec![],
                    suspend: None,
                },
            );
            object.metadata.generation = Some(1);
            Self {
                object,
                status: KmsSecretStatus {
                    observed_generation: Some(1),
                    last_sync_time: Some(Time(at(0))),
                    store: Some(store()),
                    sources: vec![SourceStatus::default()],
                    target: Some(TargetStatus {
                        name: "db".into(),
                        uid: "t".into(),
                        resource_version: "5".into(),
                        keys: Vec::new(),
                    }),
                    ..KmsSecretStatus::default()
                },
                store: Ok(store()),
                target: ours("t", "5"),
                backoff: None,
                repaired: None,
                moved_until: None,
                started: at(-100),
                restored: None,
                now: at(10),
                hash: 0,
                tried: false,
                hinted: false,
                wishes: Wishes::default(),
                limits: Limits {
                    interval_min: SignedDuration::from_secs(60),
                    target_types: vec!["Opaque".into()],
                    denied_metadata: vec!["example.com".into()],
                    gone_after: SignedDuration::from_hours(1),
                },
            }
        }

        fn plan(&self) -> Plan {
            plan(&self.seen())
        }

        fn seen(&self) -> Seen<'_> {
            Seen {
                object: &self.object,
                status: &self.status,
                last_read: None,
                tried: self.tried,
                store: self.store.as_ref(),
                target: &self.target,
                backoff: self.backoff.as_ref(),
                repaired: self.repaired.as_ref(),
                moved_until: self.moved_until,
                started: self.started,
                restored: self.restored,
                offset: SignedDuration::ZERO,
                hash: self.hash,
                hinted: self.hinted,
                wishes: self.wishes,
                limits: &self.limits,
                now: self.now,
            }
        }

        /// Takes all that wishes may cost now.
        fn empty_bucket(&mut self) {
            while self.wishes.try_take(self.now) {}
        }

        fn policy(&mut self, policy: RefreshPolicy) {
            self.object.spec.refresh = Some(Refresh {
                policy: Some(policy),
                interval: None,
            });
        }

        fn failed_at(&mut self, since: i64, last: i64, reason: Reason) {
            self.backoff = Some(Backoff {
                attempt: Attempted::of(&self.object, self.store.as_ref().ok(), Some("t")),
                since: at(since),
                last: at(last),
                reason,
                retry_after: None,
            });
        }

        fn force(&mut self, token: &str) {
            let annotations = [(SYNC_ANNOTATION.to_owned(), token.to_owned())];
            self.object.metadata.annotations = Some(annotations.into());
        }
    }

    fn ours(uid: &str, version: &str) -> Target {
        Target::Ours {
            uid: uid.into(),
            resource_version: version.into(),
            is_predecessors: false,
        }
    }

    fn unexplained() -> ErrorStatus {
        ErrorStatus {
            code: None,
            action: String::new(),
        }
    }

    #[test]
    fn in_sync_waits_for_the_ceiling() {
        let mut world = World::in_sync();
        assert_eq!(world.plan(), Plan::Wait(Some(at(3600))));
        world.now = at(3600);
        assert_eq!(world.plan(), Plan::Fetch(Why::Due));
    }

    #[test]
    fn each_cause_fetches_for_its_own_reason() {
        type Change = fn(&mut World);
        let change: [(Why, Change); 9] = [
            (Why::New, |w| w.status = KmsSecretStatus::default()),
            (Why::Missing, |w| w.target = Target::Absent),
            (Why::Missing, |w| {
                w.status.target.as_mut().unwrap().name = "old".into();
            }),
            (Why::Changed, |w| w.object.metadata.generation = Some(2)),
            (Why::Forced, |w| w.force("now")),
            (Why::Hinted, |w| w.hinted = true),
            (Why::Drift, |w| w.target = ours("t", "6")),
            (Why::Drift, |w| w.target = ours("u", "5")),
            (Why::Store, |w| {
                w.store.as_mut().unwrap().credential_resource_version = None;
            }),
        ];
        for (why, change) in change {
            let mut world = World::in_sync();
            change(&mut world);
            assert_eq!(world.plan(), Plan::Fetch(why));
        }
    }

    #[test]
    fn an_edit_of_a_store_that_leaves_its_identity_alone_reads_nothing() {
        let mut world = World::in_sync();
        world.store.as_mut().unwrap().generation = 2;
        assert_eq!(world.plan(), Plan::Wait(Some(at(3600))));
        world.store.as_mut().unwrap().identity = Some("other".into());
        assert_eq!(world.plan(), Plan::Fetch(Why::Store));
    }

    #[test]
    fn a_force_that_was_handled_is_not_handled_again() {
        let mut world = World::in_sync();
        world.force("now");
        world.status.last_handled_sync = Some("now".into());
        assert_eq!(world.plan(), Plan::Wait(Some(at(3600))));
    }

    #[test]
    fn wishes_beyond_the_allowance_wait_for_their_turn() {
        type Wish = fn(&mut World);
        let wishes: [(Why, Wish); 2] = [
            (Why::Forced, |w| w.force("now")),
            (Why::Hinted, |w| w.hinted = true),
        ];
        for (why, wish) in wishes {
            let mut world = World::in_sync();
            wish(&mut world);
            world.empty_bucket();
            assert_eq!(world.plan(), Plan::Wait(Some(at(20))));
            world.target = ours("t", "6");
            assert_eq!(world.plan(), Plan::Wait(Some(at(20))), "a repair with it");
            world.target = ours("t", "5");
            world.now = at(20);
            assert_eq!(world.plan(), Plan::Fetch(why));
            assert!(is_wish(&world.seen(), why));
            world.empty_bucket();
            world.status.sources[0].next_rotation_date = Some(Time(at(15)));
            assert_eq!(
                world.plan(),
                Plan::Fetch(Why::Rotation),
                "what is due anyway does not wait"
            );
        }
    }

    #[test]
    fn a_force_that_failed_is_held_back_by_its_failure_alone() {
        let mut world = World::in_sync();
        world.force("now");
        world.failed_at(10, 10, Reason::KmsUnavailable);
        world.empty_bucket();
        assert_eq!(world.plan(), Plan::Wait(Some(at(11))));
        world.now = at(11);
        assert_eq!(world.plan(), Plan::Fetch(Why::Forced));
        assert!(!is_wish(&world.seen(), Why::Forced));
        world.force("again");
        assert_eq!(
            world.plan(),
            Plan::Wait(Some(at(20))),
            "another one is a wish"
        );
    }

    #[test]
    fn a_hint_moves_nothing_that_time_would_not_move() {
        for policy in [RefreshPolicy::Once, RefreshPolicy::OnChange] {
            let mut world = World::in_sync();
            world.policy(policy);
            world.hinted = true;
            assert!(!matches!(world.plan(), Plan::Fetch(_)), "{policy:?}");
        }
        let mut world = World::in_sync();
        world.hinted = true;
        world.object.spec.suspend = Some(true);
        assert_eq!(world.plan(), Plan::Suspend);
        world.object.spec.suspend = None;
        world.store = Err(Failure::new(Reason::NotAllowed, "", ""));
        assert!(matches!(world.plan(), Plan::Refuse(f) if f.reason == Reason::NotAllowed));
    }

    /// In sync, with the keys `a` and `b` in somebody's Secret.
    fn merged() -> World {
        let mut world = World::in_sync();
        world.object.spec.target =
            serde_json::from_value(serde_json::json!({"creationPolicy": "Merge"})).unwrap();
        let written = world.status.target.as_mut().unwrap();
        written.keys = vec!["a".into(), "b".into()];
        world.target = shared(&["a", "b"]);
        world
    }

    fn shared(keys: &[&str]) -> Target {
        Target::Shared {
            uid: "t".into(),
            resource_version: "77".into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            is_marked: true,
        }
    }

    #[test]
    fn of_a_shared_target_only_our_own_keys_are_looked_at() {
        let mut world = merged();
        assert!(
            matches!(world.plan(), Plan::Wait(Some(_))),
            "whatever its version is by now"
        );
        for keys in [&["a"][..], &["a", "c"], &["a", "b", "c"], &[]] {
            world.target = shared(keys);
            assert_eq!(world.plan(), Plan::Fetch(Why::Drift), "{keys:?}");
        }
        let mut unmarked = merged();
        if let Target::Shared { is_marked, .. } = &mut unmarked.target {
            *is_marked = false;
        }
        assert_eq!(unmarked.plan(), Plan::Fetch(Why::Drift));
        let mut anew = merged();
        if let Target::Shared { uid, .. } = &mut anew.target {
            *uid = "another".into();
        }
        assert_eq!(anew.plan(), Plan::Fetch(Why::Missing));
    }

    #[test]
    fn nothing_is_read_for_a_target_that_others_have_to_make() {
        let mut world = merged();
        world.target = Target::Absent;
        let Plan::Refuse(failure) = world.plan() else {
            panic!("there is nothing to merge into");
        };
        assert_eq!(failure.reason, Reason::TargetNotFound);
    }

    #[test]
    fn a_hint_tries_again_what_somebody_had_to_mend_and_nothing_else() {
        for (reason, plan) in [
            (Reason::SecretNotFound, Plan::Fetch(Why::Hinted)),
            (Reason::CredentialsInvalid, Plan::Wait(Some(at(70)))),
            (Reason::Throttled, Plan::Wait(Some(at(15)))),
            (Reason::KmsUnavailable, Plan::Wait(Some(at(11)))),
        ] {
            let mut world = World::in_sync();
            world.failed_at(10, 10, reason);
            world.hinted = true;
            assert_eq!(world.plan(), plan, "{reason:?}");
        }
        let mut world = World::in_sync();
        world.status = KmsSecretStatus::default();
        world.failed_at(10, 10, Reason::SecretNotFound);
        assert_eq!(world.plan(), Plan::Wait(Some(at(310))));
        world.hinted = true;
        assert_eq!(
            world.plan(),
            Plan::Fetch(Why::Hinted),
            "it never was synced"
        );
        world.empty_bucket();
        assert_eq!(world.plan(), Plan::Wait(Some(at(20))));
    }

    #[test]
    fn nothing_moves_what_is_deleted_or_suspended() {
        let mut world = World::in_sync();
        world.target = Target::Absent;
        world.object.spec.suspend = Some(true);
        assert_eq!(world.plan(), Plan::Suspend);
        world.object.metadata.deletion_timestamp = Some(Time(at(0)));
        assert_eq!(world.plan(), Plan::Wait(None));
    }

    #[test]
    fn refusals_come_before_any_call() {
        let mut world = World::in_sync();
        world.status = KmsSecretStatus::default();
        world.target = Target::Foreign {
            owner: "it has no owner".into(),
            action: "rename".into(),
        };
        assert!(matches!(world.plan(), Plan::Refuse(f) if f.reason == Reason::TargetOwnedByOther));
        world.store = Err(Failure::new(Reason::StoreNotFound, "", ""));
        assert!(matches!(world.plan(), Plan::Refuse(f) if f.reason == Reason::StoreNotFound));
        for interval in ["59s", "0s"] {
            world.object.spec.refresh = Some(Refresh {
                policy: None,
                interval: Some(interval.into()),
            });
            assert!(matches!(world.plan(), Plan::Refuse(f) if f.reason == Reason::SpecInvalid));
        }
    }

    #[test]
    fn labels_that_move_other_controllers_are_refused() {
        for (key, refused) in [
            ("team", false),
            ("acme.io/team", false),
            ("notkubernetes.io/x", false),
            ("kubernetes.io/x", true),
            ("app.kubernetes.io/name", true),
            ("k8s.io/x", true),
            ("alikms.dev/managed", true),
            ("example.com/copy", true),
            ("deep.example.com/copy", true),
        ] {
            for is_label in [true, false] {
                let mut world = World::in_sync();
                let mut target = crate::api::kms_secret::Target::default();
                let map = if is_label {
                    &mut target.labels
                } else {
                    &mut target.annotations
                };
                map.insert(key.into(), "x".into());
                world.object.spec.target = Some(target.into());
                let is_refused =
                    matches!(world.plan(), Plan::Refuse(f) if f.reason == Reason::SpecInvalid);
                assert_eq!(is_refused, refused, "{key}");
            }
        }
    }

    #[test]
    fn once_is_once_unless_the_target_is_missing() {
        let mut world = World::in_sync();
        world.policy(RefreshPolicy::Once);
        world.object.metadata.generation = Some(2);
        world.target = ours("t", "6");
        world.force("now");
        world.now = at(1_000_000);
        assert_eq!(world.plan(), Plan::Done);
        world.store = Err(Failure::new(Reason::StoreNotFound, "", ""));
        assert_eq!(world.plan(), Plan::Done, "the store is not needed any more");
        world.store = Ok(store());
        world.target = Target::Absent;
        assert_eq!(world.plan(), Plan::Fetch(Why::Missing));
    }

    #[test]
    fn on_change_never_looks_at_the_time() {
        let mut world = World::in_sync();
        world.policy(RefreshPolicy::OnChange);
        world.now = at(1_000_000);
        world.store.as_mut().unwrap().generation = 2;
        assert_eq!(world.plan(), Plan::Wait(None));
        world.target = ours("t", "6");
        assert_eq!(world.plan(), Plan::Fetch(Why::Drift));
    }

    #[test]
    fn a_failure_waits_as_long_again_within_its_class() {
        for (since, last, reason, wait) in [
            (10, 10, Reason::KmsUnavailable, 1),
            (0, 10, Reason::KmsUnavailable, 10),
            (-10_000, 10, Reason::KmsUnavailable, 300),
            (10, 10, Reason::Throttled, 5),
            (10, 10, Reason::CredentialsInvalid, 60),
            (10, 10, Reason::AccessDenied, 300),
            (-10_000, 10, Reason::AccessDenied, 1800),
        ] {
            let mut world = World::in_sync();
            world.failed_at(since, last, reason);
            assert_eq!(world.plan(), Plan::Wait(Some(at(10 + wait))), "{reason:?}");
            world.now = at(10 + wait);
            assert_eq!(world.plan(), Plan::Fetch(Why::Retry));
        }
    }

    #[test]
    fn a_service_that_says_how_long_to_wait_is_believed() {
        let mut world = World::in_sync();
        world.failed_at(10, 10, Reason::Throttled);
        world.backoff.as_mut().unwrap().retry_after = Some(Duration::from_secs(20));
        assert_eq!(world.plan(), Plan::Wait(Some(at(30))));
    }

    #[test]
    fn what_changed_does_not_wait_for_the_backoff_of_what_was() {
        let change: [fn(&mut World); 3] = [
            |w| w.object.metadata.generation = Some(2),
            |w| w.force("now"),
            |w| w.store.as_mut().unwrap().credential_resource_version = Some("8".into()),
        ];
        for change in change {
            let mut world = World::in_sync();
            world.failed_at(10, 10, Reason::AccessDenied);
            change(&mut world);
            assert!(matches!(world.plan(), Plan::Fetch(_)));
        }
    }

    #[test]
    fn a_restart_is_no_burst() {
        let mut world = World::in_sync();
        world.hash = 500;
        (world.started, world.now) = (at(100_000), at(100_001));
        assert_eq!(
            world.plan(),
            Plan::Wait(Some(at(100_150))),
            "half of five minutes"
        );
        world.status.error = Some(unexplained().into());
        assert_eq!(world.plan(), Plan::Wait(Some(at(100_150))));
        world.now = at(100_150);
        assert_eq!(world.plan(), Plan::Fetch(Why::Retry));
    }

    #[test]
    fn a_rotation_that_was_missed_does_not_wait_after_a_restart() {
        let mut world = World::in_sync();
        world.hash = 500;
        world.status.sources[0].next_rotation_date = Some(Time(at(50)));
        (world.started, world.now) = (at(100), at(101));
        assert_eq!(world.plan(), Plan::Fetch(Why::Rotation));
    }

    #[test]
    fn a_contested_target_is_repaired_ever_more_rarely() {
        let mut world = World::in_sync();
        world.target = ours("t", "6");
        assert_eq!(world.plan(), Plan::Fetch(Why::Drift));
        world.repaired = Some(Repair::after(None, at(0)));
        assert!(matches!(world.plan(), Plan::Refuse(f) if f.reason == Reason::TargetContested));
        world.now = at(30);
        assert_eq!(world.plan(), Plan::Fetch(Why::Drift));
        world.repaired = Some(Repair::after(world.repaired.as_ref(), at(30)));
        world.now = at(89);
        assert!(matches!(world.plan(), Plan::Refuse(_)));
        world.status.sources[0].next_rotation_date = Some(Time(at(50)));
        assert_eq!(
            world.plan(),
            Plan::Fetch(Why::Rotation),
            "a rotation is not held back"
        );
        assert_eq!(
            Repair::after(world.repaired.as_ref(), at(100_000)).count,
            1,
            "a quiet time forgives"
        );
    }

    #[test]
    fn a_deleted_target_is_made_again_three_times_at_once() {
        let mut world = World::in_sync();
        world.target = Target::Absent;
        for _ in 0..3 {
            assert_eq!(world.plan(), Plan::Fetch(Why::Missing));
            world.repaired = Some(Repair::after(world.repaired.as_ref(), world.now));
        }
        assert!(matches!(world.plan(), Plan::Refuse(f) if f.reason == Reason::TargetContested));
    }

    #[test]
    fn a_target_that_refused_is_not_held_against_another() {
        let mut world = World::in_sync();
        world.failed_at(10, 10, Reason::TargetImmutable);
        assert!(matches!(world.plan(), Plan::Wait(Some(_))));
        world.target = Target::Absent;
        assert_eq!(world.plan(), Plan::Fetch(Why::Missing));
    }

    #[test]
    fn what_a_backup_may_have_taken_with_it_is_read_again_once_and_spread() {
        let mut world = World::in_sync();
        world.hash = 500;
        world.restored = Some(at(10));
        assert_eq!(
            world.plan(),
            Plan::Wait(Some(at(160))),
            "half of five minutes"
        );
        world.now = at(160);
        assert_eq!(world.plan(), Plan::Fetch(Why::Due));
        world.status.last_sync_time = Some(Time(at(160)));
        assert_eq!(world.plan(), Plan::Wait(Some(at(160 + 3600 + 150))));
        // What is due before that does not wait for it.
        world.status.last_sync_time = Some(Time(at(0)));
        world.now = at(11);
        world.status.sources[0].next_rotation_date = Some(Time(at(20)));
        let Plan::Wait(Some(due)) = world.plan() else {
            panic!("it is not due yet");
        };
        assert!(at(20) < due && due < at(22), "{due}");
    }

    #[test]
    fn a_clock_that_was_set_by_hours_loses_no_rotation_for_long_and_makes_no_burst() {
        for hours in [-48, -1, 1, 48] {
            let mut world = World::in_sync();
            world.status.sources[0].secret_type = Some("Rds".into());
            world.status.sources[0].next_rotation_date = Some(Time(at(300)));
            // All else is dropped then, and this is its start.
            world.now = at(100 + hours * 3600);
            world.started = world.now;
            let soon = later(world.now, SignedDuration::from_mins(5));
            match world.plan() {
                Plan::Fetch(_) => {}
                Plan::Wait(Some(due)) => assert!(due <= soon, "{hours} h: {due}"),
                other => panic!("{hours} h: {other:?}"),
            }
            world.now = soon;
            assert!(matches!(world.plan(), Plan::Fetch(_)), "{hours} h");
            world.status.last_sync_time = Some(Time(world.now));
            let Plan::Wait(Some(due)) = world.plan() else {
                panic!("{hours} h: it was read a moment ago");
            };
            let wait = due.duration_since(world.now);
            assert!(
                wait >= SignedDuration::from_secs(1) && wait <= SignedDuration::from_mins(11),
                "{hours} h: {wait}"
            );
        }
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_stop_all_reads() {
        let mut world = World::in_sync();
        world.status.last_sync_time = Some(Time(at(1000)));
        assert_eq!(world.plan(), Plan::Wait(Some(at(1000 + 3600))));
        world.status.last_sync_time = Some(Time(at(1_000_000)));
        world.hash = 500;
        assert_eq!(
            world.plan(),
            Plan::Wait(Some(at(50))),
            "half of five minutes after the start"
        );
        world.now = at(50);
        assert_eq!(world.plan(), Plan::Fetch(Why::Due));
        world.failed_at(1_000_000, 1_000_000, Reason::AccessDenied);
        assert_eq!(world.plan(), Plan::Fetch(Why::Retry));
    }

    #[test]
    fn a_clock_that_was_ahead_at_the_start_does_not_stop_all_reads() {
        let mut world = World::in_sync();
        world.started = at(1_000_000);
        assert_eq!(world.plan(), Plan::Wait(Some(at(3600))));
        world.status.sources[0].next_rotation_date = Some(Time(at(5)));
        assert_eq!(world.plan(), Plan::Fetch(Why::Rotation));
        world.status.sources[0].next_rotation_date = None;
        world.status.last_sync_time = Some(Time(at(999_999)));
        assert_eq!(world.plan(), Plan::Fetch(Why::New));
        world.status.last_sync_time = Some(Time(at(0)));
        world.status.error = Some(unexplained().into());
        assert_eq!(world.plan(), Plan::Fetch(Why::Retry));
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_stop_repairs() {
        let mut world = World::in_sync();
        world.target = Target::Absent;
        world.moved_until = Some(at(42));
        assert_eq!(world.plan(), Plan::Wait(Some(at(42))));
        world.moved_until = Some(at(1_000_000));
        assert_eq!(world.plan(), Plan::Fetch(Why::Missing));
    }

    #[test]
    fn a_rotation_that_is_due_does_not_wait_for_the_retry_of_what_failed_before_a_restart() {
        let mut world = World::in_sync();
        world.hash = 500;
        world.status.error = Some(unexplained().into());
        (world.started, world.now) = (at(100), at(101));
        assert!(matches!(world.plan(), Plan::Wait(Some(_))));
        world.status.sources[0].next_rotation_date = Some(Time(at(50)));
        assert_eq!(world.plan(), Plan::Fetch(Why::Retry));
    }
}
