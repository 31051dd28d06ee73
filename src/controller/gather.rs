//! What one reconcile looks at: the caches, the memory, and the API server only where those cannot be trusted.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::Context;
use super::memory::Memory;
use super::store::{self, Resolved};
use crate::api::KmsSecret;
use crate::api::kms_secret::{CreationPolicy, TargetStatus};
use crate::cluster::classify;
use crate::sync::hash::fnv1a;
use crate::sync::plan::{Seen, Target};
use crate::sync::{Failure, Reason, is_older, status};

/// What is in hand during one reconcile.
pub(super) struct Round<'a> {
    pub(super) object: &'a KmsSecret,
    pub(super) context: &'a Context,
    pub(super) memory: Box<Memory>,
    pub(super) store: Result<Resolved, Failure>,
    pub(super) target: Target,
    /// The target must be looked at again then.
    pub(super) again: Option<Timestamp>,
    /// KMS told that the secret changed.
    pub(super) hinted: bool,
    pub(super) hash: u64,
    pub(super) now: Timestamp,
}

/// Reads what the plan looks at: from the caches, and from the API server only where they cannot be trusted.
pub(super) async fn gather<'a>(object: &'a Arc<KmsSecret>, context: &'a Context) -> Round<'a> {
    let mut memory = context.memories.take(object);
    let now = (context.clock)();
    memory.began.get_or_insert(now);
    let is_idle = object.spec.suspend == Some(true) || object.metadata.deletion_timestamp.is_some();
    let (store, sight): (_, Result<Sight, _>) = if is_idle {
        let unused = Failure::new(Reason::Suspended, "suspended", "");
        (Err(unused), Ok(Target::Absent.into()))
    } else {
        futures::join!(
            store::resolve(object, context),
            find_target(object, &memory, now, context)
        )
    };
    let (store, sight) = match (store, sight) {
        (store, Ok(sight)) => (store, sight),
        (_, Err(failure)) => (Err(failure), Target::Absent.into()),
    };
    if sight.is_asked {
        memory.look = false;
    }
    if sight.is_shown {
        memory.written = None;
    }
    Round {
        hinted: context.memories.has_hint(object),
        hash: fnv1a(&object.uid().unwrap_or_default()),
        object,
        context,
        memory,
        store,
        target: sight.target,
        again: sight.again,
        now,
    }
}

/// A target, and when to look at it again because the cache may not show our own write yet.
struct Sight {
    target: Target,
    again: Option<Timestamp>,
    /// The API server itself was asked.
    is_asked: bool,
    /// The cache shows what we wrote last, or what came after it.
    is_shown: bool,
}

impl From<Target> for Sight {
    fn from(target: Target) -> Self {
        Self {
            target,
            again: None,
            is_asked: false,
            is_shown: false,
        }
    }
}

/// The Secret of the target's name.
///
/// The cache shows only Secrets with our label, and can lag behind our own write; where it shows none although there
/// should be one, the label may be gone, so the API server is asked.
async fn find_target(
    object: &KmsSecret,
    memory: &Memory,
    now: Timestamp,
    context: &Context,
) -> Result<Sight, Failure> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.target_name());
    let expected = memory
        .status
        .target
        .as_ref()
        .filter(|target| target.name == name);
    if !memory.look {
        let cached = context
            .caches
            .targets
            .get(&ObjectRef::new(name).within(&namespace));
        if let Some(cached) = cached {
            // An older version of what we wrote is a cache that lags, however long.
            let lags = expected.filter(|written| {
                *cached.uid == *written.uid
                    && is_older(&cached.resource_version, &written.resource_version)
            });
            return Ok(match lags {
                Some(written) => as_written(object, written).into(),
                None => Sight {
                    is_shown: true,
                    ..classify(&cached.metadata(), object).into()
                },
            });
        }
        if let Some((written, until)) = memory.unseen(name, now) {
            return Ok(Sight {
                again: Some(until),
                ..as_written(object, written).into()
            });
        }
    }
    let ready = status::ready(&memory.status);
    let worth_asking = memory.look
        || memory.refused_since.is_some()
        || expected.is_some()
        || object.creation_policy() == CreationPolicy::Merge
        || ready.is_some_and(|(_, reason)| reason == Reason::TargetOwnedByOther.as_str());
    if !worth_asking {
        return Ok(Target::Absent.into());
    }
    let found = context.cluster.secret_metadata(&namespace, name).await?;
    let target = found.map_or(Target::Absent, |secret| classify(&secret, object));
    Ok(Sight {
        is_asked: true,
        ..target.into()
    })
}

fn as_written(object: &KmsSecret, written: &TargetStatus) -> Target {
    if object.creation_policy() == CreationPolicy::Merge {
        return Target::Shared {
            uid: written.uid.clone(),
            resource_version: written.resource_version.clone(),
            keys: written.keys.clone(),
            is_marked: true,
        };
    }
    Target::Ours {
        uid: written.uid.clone(),
        resource_version: written.resource_version.clone(),
        is_predecessors: false,
    }
}

impl Round<'_> {
    pub(super) fn seen(&self) -> Seen<'_> {
        let store = self.store.as_ref();
        Seen {
            object: self.object,
            status: &self.memory.status,
            last_read: self.memory.last_read,
            tried: self.memory.tried,
            store: store.map(|store| &store.status),
            target: &self.target,
            backoff: self.memory.backoff.as_deref(),
            repaired: self.memory.repaired.as_deref(),
            moved_until: self.memory.moved_until,
            hinted: self.hinted,
            wishes: self.memory.wishes,
            started: self.memory.began.unwrap_or(self.now),
            restored: self.context.restored,
            offset: store.map_or(SignedDuration::ZERO, |store| {
                self.context.kms.offset(&store.origin)
            }),
            hash: self.hash,
            limits: &self.context.limits,
            now: self.now,
        }
    }
}
