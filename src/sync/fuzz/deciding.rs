//! What to do now, for any object, any status and any memory.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::api::kms_secret::{
    ErrorStatus, KmsSecretSpec, KmsSecretStatus, Refresh, RefreshPolicy, Source, StoreRef,
    StoreStatus, TargetStatus,
};
use crate::api::{KmsSecret, SYNC_ANNOTATION, parse_duration};
use crate::sync::backoff::{Attempted, Backoff, Repair};
use crate::sync::hint::Wishes;
use crate::sync::plan::{Plan, Seen, Target, plan};
use crate::sync::spec::Limits;
use crate::sync::{Failure, Reason, later};

/// All that a decision is made of. Mostly all is well, so that any one thing that is not shows.
#[derive(Clone, Debug)]
struct World {
    object: KmsSecret,
    status: KmsSecretStatus,
    last_read: Option<Timestamp>,
    store: Result<StoreStatus, Failure>,
    target: Target,
    backoff: Option<Backoff>,
    repaired: Option<Repair>,
    moved_until: Option<Timestamp>,
    is_tried: bool,
    is_hinted: bool,
    wishes: Wishes,
    started: Timestamp,
    restored: Option<Timestamp>,
    offset: SignedDuration,
    hash: u64,
    now: Timestamp,
}

impl World {
    fn plan(&self) -> Plan {
        let limits = Limits {
            interval_min: SignedDuration::from_secs(60),
            target_types: vec!["Opaque".into()],
            denied_metadata: Vec::new(),
            gone_after: SignedDuration::from_hours(1),
        };
        plan(&Seen {
            object: &self.object,
            status: &self.status,
            last_read: self.last_read,
            tried: self.is_tried,
            store: self.store.as_ref(),
            target: &self.target,
            backoff: self.backoff.as_ref(),
            repaired: self.repaired.as_ref(),
            moved_until: self.moved_until,
            hinted: self.is_hinted,
            wishes: self.wishes,
            started: self.started,
            restored: self.restored,
            offset: self.offset,
            hash: self.hash,
            limits: &limits,
            now: self.now,
        })
    }
}

impl World {
    /// Who waits as long as they are told to, and perhaps once or twice more, is told something else then.
    fn comes_to_something(&self) -> bool {
        let mut world = self.clone();
        for _ in 0..4 {
            match world.plan() {
                Plan::Wait(Some(at)) if at < Timestamp::MAX => world.now = at,
                _ => return true,
            }
        }
        false
    }
}

fn rarely<T: std::fmt::Debug + Clone + 'static>(
    one: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.06, one)
}

fn store() -> StoreStatus {
    StoreStatus {
        kind: "KmsStore".into(),
        uid: "s".into(),
        generation: 1,
        identity: None,
        credential_resource_version: None,
    }
}

fn objects() -> impl Strategy<Value = KmsSecret> {
    let intervals = [
        "1h",
        "60s",
        "10m30s",
        "1s",
        "0s",
        "soon",
        "999999h999999m999999s",
        "9223372036854775807s",
    ];
    let policies = vec![
        RefreshPolicy::Rotation,
        RefreshPolicy::Interval,
        RefreshPolicy::OnChange,
        RefreshPolicy::Once,
    ];
    (
        proptest::option::of(select(policies)),
        rarely(select(intervals.to_vec())),
        (
            rarely(Just(true)),
            rarely(moment().prop_map(Time)),
            rarely(Just("v1".to_owned())),
        ),
        rarely(select(vec!["t1", "t2"])),
        prop_oneof![9 => Just(1), 1 => Just(2)],
    )
        .prop_map(
            |(policy, interval, (suspend, deleted, version_id), token, generation)| {
                let spec = KmsSecretSpec {
                    store_ref: StoreRef {
                        name: "prod".into(),
                        kind: None,
                    },
                    source: Some(Source {
                        secret_name: "shop/db".into(),
                        version_stage: None,
                        version_id,
                        fetch_extended_config: None,
                    }),
                    sources: Vec::new(),
                    data: Vec::new(),
                    extract: Vec::new(),
                    target: None,
                    refresh: Some(Refresh {
                        policy,
                        interval: interval.map(Into::into),
                    }),
                    rollout_restart: Vec::new(),
                    suspend,
                };
                let mut object = KmsSecret::new("db", spec);
                object.metadata.generation = Some(generation);
                object.metadata.deletion_timestamp = deleted;
                object.metadata.annotations =
                    token.map(|token| [(SYNC_ANNOTATION.to_owned(), token.to_owned())].into());
                object
            },
        )
}

fn statuses() -> impl Strategy<Value = KmsSecretStatus> {
    (
        proptest::option::weighted(0.95, moment()),
        source_statuses(),
        rarely(Just("t1".to_owned())),
        prop_oneof![9 => Just("5"), 1 => Just("4")],
        rarely(Just("x".to_owned())),
        proptest::option::weighted(0.95, Just(1)),
    )
        .prop_map(
            |(synced, sources, token, version, error, generation)| KmsSecretStatus {
                observed_generation: generation,
                last_sync_time: synced.map(Time),
                last_handled_sync: token,
                store: Some(store()),
                sources,
                target: Some(TargetStatus {
                    name: "db".into(),
                    uid: "t".into(),
                    resource_version: version.into(),
                    keys: Vec::new(),
                }),
                error: error.map(|action| ErrorStatus { code: None, action }.into()),
                ..KmsSecretStatus::default()
            },
        )
}

fn targets() -> impl Strategy<Value = Target> {
    let ours = |version: &str| Target::Ours {
        uid: "t".into(),
        resource_version: version.into(),
        is_predecessors: false,
    };
    prop_oneof![
        16 => Just(ours("5")),
        1 => Just(ours("6")),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(is_marked, has_keys)| Target::Shared {
            uid: "t".into(),
            resource_version: "9".into(),
            keys: has_keys.then(|| "a".to_owned()).into_iter().collect(),
            is_marked,
        }),
        1 => Just(Target::Absent),
        1 => Just(Target::Foreign { owner: "x".into(), action: "y".into() }),
    ]
}

/// What is remembered, of an attempt like the one that would be made now or of another.
fn memories() -> impl Strategy<Value = (Option<Backoff>, Option<Repair>, Option<Timestamp>, Wishes)>
{
    let wait = rarely((0..600_000_u64).prop_map(Duration::from_millis));
    let backoff = (
        moment(),
        moment(),
        select(Reason::ALL.to_vec()),
        wait,
        any::<bool>(),
    );
    let backoff = backoff.prop_map(|(since, last, reason, retry_after, is_other)| Backoff {
        attempt: Attempted {
            generation: Some(if is_other { 9 } else { 1 }),
            sync: None,
            store: Some(store()),
            target: Some("t".into()),
        },
        since,
        last,
        reason,
        retry_after,
    });
    let repair = (moment(), 0..100_u32).prop_map(|(at, count)| Repair { at, count });
    let wishes = vec(moment(), 0..4).prop_map(|taken| {
        let mut wishes = Wishes::default();
        for at in taken {
            wishes.take(at);
        }
        wishes
    });
    (rarely(backoff), rarely(repair), rarely(moment()), wishes)
}

fn worlds() -> impl Strategy<Value = World> {
    let store = prop_oneof![
        16 => Just(Ok(store())),
        1 => Just(Ok(StoreStatus { uid: "other".into(), ..store() })),
        1 => Just(Err(Failure::new(Reason::StoreNotFound, "x", "y"))),
    ];
    // How long ago, or when; nothing where only the status tells.
    let last_read = prop_oneof![
        3 => (0..5000_i64).prop_map(|ago| Some(Ok(SignedDuration::from_secs(ago)))),
        1 => moment().prop_map(|at| Some(Err(at))),
        1 => Just(None),
    ];
    let restored = proptest::option::weighted(0.2, moment());
    let clock = (
        moment(),
        moment(),
        restored,
        last_read,
        offset(),
        any::<u64>(),
    );
    let flags = (any::<bool>(), proptest::bool::weighted(0.1));
    (
        objects(),
        statuses(),
        store,
        targets(),
        memories(),
        flags,
        clock,
    )
        .prop_map(
            |(
                object,
                status,
                store,
                target,
                (backoff, repaired, moved_until, wishes),
                (is_tried, is_hinted),
                clock,
            )| {
                let (now, started, restored, last_read, offset, hash) = clock;
                World {
                    object,
                    status,
                    last_read: last_read
                        .map(|read| read.map_or_else(|at| at, |ago| later(now, -ago))),
                    store,
                    target,
                    backoff,
                    repaired,
                    moved_until,
                    is_tried,
                    is_hinted,
                    wishes,
                    started,
                    restored,
                    offset,
                    hash,
                    now,
                }
            },
        )
}

proptest! {
    #[test]
    fn whatever_is_seen_is_decided_the_same_twice_and_never_waits_for_the_past_or_for_ever(world in worlds()) {
        let decided = world.plan();
        prop_assert_eq!(&world.plan(), &decided);
        let is_deleted = world.object.metadata.deletion_timestamp.is_some();
        let policy = world.object.refresh_policy();
        match decided {
            Plan::Wait(Some(at)) => {
                prop_assert!(at > world.now || world.now == Timestamp::MAX, "{at} is not after {}", world.now);
                let interval = world.object.refresh_interval().and_then(parse_duration);
                let ceiling = interval.unwrap_or(SignedDuration::from_hours(24));
                // From a last read that a clock told which was ahead by as much: the ceiling and its spread; or the
                // longest backoff and its spread.
                let longest = ceiling.saturating_add(ceiling).saturating_add(SignedDuration::from_mins(36));
                prop_assert!(at <= later(world.now, longest), "{at} is too long after {}", world.now);
                prop_assert!(world.comes_to_something(), "it waits and waits");
            }
            Plan::Wait(None) => {
                prop_assert!(is_deleted || policy == RefreshPolicy::OnChange || policy == RefreshPolicy::Once);
            }
            Plan::Fetch(_) => {
                prop_assert!(!is_deleted && world.object.spec.suspend.is_none() && world.store.is_ok());
                let is_foreign = matches!(world.target, Target::Foreign { .. });
                prop_assert!(!is_foreign);
            }
            Plan::Suspend => prop_assert_eq!(world.object.spec.suspend, Some(true)),
            Plan::Done => prop_assert_eq!(policy, RefreshPolicy::Once),
            Plan::Refuse(failure) => prop_assert!(!failure.what.is_empty() && !failure.action.is_empty()),
        }
    }
}

#[test]
fn every_kind_of_decision_is_met() {
    let share = |is: fn(&Plan) -> bool| {
        let decided = worlds().prop_map(|world| world.plan()).boxed();
        crate::alibaba::fuzz::share(&decided, is)
    };
    for (found, least) in [
        (share(|plan| matches!(plan, Plan::Wait(Some(_)))), 60),
        (share(|plan| matches!(plan, Plan::Wait(None))), 10),
        (share(|plan| matches!(plan, Plan::Fetch(_))), 150),
        (share(|plan| matches!(plan, Plan::Refuse(_))), 60),
        (share(|plan| matches!(plan, Plan::Suspend)), 20),
        (share(|plan| matches!(plan, Plan::Done)), 50),
    ] {
        assert!(
            found >= least,
            "{found} of 1000, where {least} were expected"
        );
    }
}
