//! What this process knows of an object besides what the API server keeps: its own last writes, which a cache may
//! not show yet, and the attempts that failed. All of it can be lost: a restart plans from the status.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::known::Known;
use crate::api::KmsSecret;
use crate::api::kms_secret::{SourceStatus, TargetStatus};
use crate::sync::absence::Absence;
use crate::sync::backoff::{Backoff, Repair};
use crate::sync::hint::Wishes;
use crate::sync::is_older;
use crate::sync::rollout::Look;

/// For so long after a write the cache of Secrets may not show it.
const LAG: SignedDuration = SignedDuration::from_secs(2);

/// What is remembered of one object.
#[derive(Default)]
pub(super) struct Memory {
    /// The status, with times that were not worth writing.
    pub(super) status: Known,
    /// The status as the API server has it; mostly the same one.
    pub(super) stored: Known,
    /// The resourceVersion that `stored` belongs to.
    pub(super) version: String,
    /// Since when this replica has been looking after it: what was missed before is not made up for all at once.
    pub(super) began: Option<Timestamp>,
    /// When KMS was last read with success, to the fraction.
    pub(super) last_read: Option<Timestamp>,
    /// What we last wrote to the target, and when.
    pub(super) written: Option<Box<(TargetStatus, Timestamp)>>,
    /// Attempts that failed.
    pub(super) backoff: Option<Box<Backoff>>,
    /// Since when the plan has been a refusal.
    pub(super) refused_since: Option<Timestamp>,
    /// The last repairs.
    pub(super) repaired: Option<Box<Repair>>,
    /// The cache was wrong about the target: ask the API server.
    pub(super) look: bool,
    /// An attempt of this process failed, or was refused.
    pub(super) tried: bool,
    /// By source, the last versions that newer ones replaced.
    pub(super) replaced: BTreeMap<String, VecDeque<String>>,
    /// How often in a row the world moved under our hands.
    pub(super) moved: u32,
    /// Until then it is not chased.
    pub(super) moved_until: Option<Timestamp>,
    /// Secrets of former names are there still.
    pub(super) leftover: Option<Leftover>,
    /// How long KMS has said that the secret is not there.
    pub(super) absence: Option<Absence>,
    /// How often in a row the status could not be written.
    pub(super) unwritten: u32,
    /// What forced syncs and hints may still cost.
    pub(super) wishes: Wishes,
    /// The last look at workloads that are to be restarted.
    pub(super) looked: Option<Box<Look>>,
    /// What events told since the last success.
    pub(super) told: Hint,
}

impl Memory {
    /// Takes in the object as the cache shows it, unless the cache lags behind our own last write.
    pub(super) fn refresh(&mut self, object: &Arc<KmsSecret>) {
        let version = object.resource_version().unwrap_or_default();
        if is_older(&version, &self.version) {
            return;
        }
        let shown = Known::Shown(Arc::clone(object));
        let is_new = shown != self.stored;
        if is_new {
            self.last_read = None;
        }
        if is_new || self.status == self.stored {
            self.status = shown.clone();
        }
        self.stored = shown;
        self.version = version;
    }

    /// Takes note of the versions that were read; those before them are replaced.
    pub(super) fn note_versions(&mut self, read: &[SourceStatus]) {
        let names: HashSet<_> = read.iter().map(|source| &source.name).collect();
        self.replaced.retain(|name, _| names.contains(name));
        for new in read {
            let known = &self.status.sources;
            let Some(old) = known.iter().find(|old| old.name == new.name) else {
                continue;
            };
            if old.secret_name != new.secret_name {
                self.replaced.remove(&new.name);
            } else if old.version_id != new.version_id {
                let replaced = self.replaced.entry(new.name.clone()).or_default();
                replaced.retain(|id| *id != new.version_id);
                replaced.push_back(old.version_id.clone());
                // A generic secret has 10 versions at most.
                if replaced.len() > 10 {
                    replaced.pop_front();
                }
            }
        }
    }

    /// What we wrote to the target of this name, while the cache may not show it yet, and until when that is.
    pub(super) fn unseen(
        &self,
        target: &str,
        now: Timestamp,
    ) -> Option<(&TargetStatus, Timestamp)> {
        let (written, at) = self.written.as_deref()?;
        let until = *at + LAG;
        (written.name == target && now < until).then_some((written, until))
    }
}

/// Secrets of former names that are to be removed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leftover {
    /// How often that was tried in vain.
    pub(super) tries: u32,
    /// Not before then.
    pub(super) until: Timestamp,
}

/// KMS told that a secret of the object changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hint {
    /// It told that a rotation failed.
    pub(super) rotation_failed: bool,
}

impl Hint {
    /// Both of them in one.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            rotation_failed: self.rotation_failed || other.rotation_failed,
        }
    }
}

/// Namespace and name of a target.
type TargetKey = (String, String);

/// What is remembered of one object, unless it is in hand; and, even then, the status.
struct Kept {
    status: Known,
    memory: Option<Box<Memory>>,
}

/// The memories of all objects, by uid.
#[derive(Default)]
pub(super) struct Memories {
    by_uid: Mutex<HashMap<String, Kept>>,
    /// By uid: an object waits for one target, whatever it asked for before.
    waiting: Mutex<HashMap<String, (TargetKey, ObjectRef<KmsSecret>)>>,
    /// By uid, and apart from the memories: a hint can come while its object is being reconciled.
    hints: Mutex<HashMap<String, Hint>>,
    /// The uids of objects that a look at the caches found leftovers of.
    leftovers: Mutex<HashSet<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn uid(object: &KmsSecret) -> String {
    object.uid().unwrap_or_default()
}

impl Memories {
    /// Takes the memory of an object, brought up to what the cache shows. An object is never reconciled twice at once, so
    /// nobody misses it until it is put back.
    pub(super) fn take(&self, object: &Arc<KmsSecret>) -> Box<Memory> {
        let mut by_uid = lock(&self.by_uid);
        let kept = by_uid.remove(&uid(object));
        let mut memory = kept.and_then(|kept| kept.memory).unwrap_or_default();
        memory.refresh(object);
        if lock(&self.leftovers).remove(&uid(object)) {
            memory.leftover.get_or_insert_default();
        }
        let status = memory.status.clone();
        let in_hand = Kept {
            status,
            memory: None,
        };
        by_uid.insert(uid(object), in_hand);
        memory
    }

    /// The status of an object with the times that were not worth writing, if it was ever looked at.
    pub(super) fn status(&self, object: &KmsSecret) -> Option<Known> {
        let by_uid = lock(&self.by_uid);
        let kept = by_uid.get(object.metadata.uid.as_deref()?)?;
        Some(kept.status.clone())
    }

    /// The object has leftovers.
    pub(super) fn note_leftover(&self, object: &KmsSecret) {
        lock(&self.leftovers).insert(uid(object));
    }

    /// Drops the memories of objects that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        lock(&self.by_uid).retain(|uid, _| is_there(uid));
        lock(&self.hints).retain(|uid, _| is_there(uid));
        lock(&self.waiting).retain(|uid, _| is_there(uid));
        lock(&self.leftovers).retain(|uid| is_there(uid));
    }

    /// Puts a memory back.
    pub(super) fn keep(&self, object: &KmsSecret, mut memory: Box<Memory>) {
        if memory.status == memory.stored {
            // One of them is enough.
            memory.status = memory.stored.clone();
        }
        let kept = Kept {
            status: memory.status.clone(),
            memory: Some(memory),
        };
        lock(&self.by_uid).insert(uid(object), kept);
    }

    /// The object is gone.
    pub(super) fn forget(&self, object: &KmsSecret) {
        lock(&self.by_uid).remove(&uid(object));
        self.take_hint(object);
        self.stop_waiting(object);
    }

    /// Keeps a hint until it is acted on; answers whether it is the only one.
    pub(super) fn hint(&self, object: &KmsSecret, hint: Hint) -> bool {
        let mut hints = lock(&self.hints);
        let kept = hints.remove(&uid(object));
        hints.insert(uid(object), kept.unwrap_or_default().or(hint));
        kept.is_none()
    }

    /// Whether a hint waits for its object.
    pub(super) fn has_hint(&self, object: &KmsSecret) -> bool {
        lock(&self.hints).contains_key(&uid(object))
    }

    /// Takes the hint that waits for its object. What comes afterwards asks for another read.
    pub(super) fn take_hint(&self, object: &KmsSecret) -> Option<Hint> {
        lock(&self.hints).remove(&uid(object))
    }

    /// The object wants a target that somebody else has.
    pub(super) fn wait_for(&self, object: &KmsSecret, target: &str) {
        let key = (object.namespace().unwrap_or_default(), target.to_owned());
        lock(&self.waiting).insert(uid(object), (key, ObjectRef::from_obj(object)));
    }

    /// The object no longer waits for a target.
    pub(super) fn stop_waiting(&self, object: &KmsSecret) {
        lock(&self.waiting).remove(&uid(object));
    }

    /// The objects that wait for a target.
    pub(super) fn waiting_for(&self, namespace: &str, target: &str) -> Vec<ObjectRef<KmsSecret>> {
        let waiting = lock(&self.waiting);
        waiting
            .values()
            .filter(|((space, name), _)| space == namespace && name == target)
            .map(|(_, object)| object.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, generation: i64) -> Arc<KmsSecret> {
        let object = serde_json::from_value(serde_json::json!({
            "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret",
            "metadata": {"name": "db", "namespace": "shop", "uid": "u", "resourceVersion": version},
            "spec": {"storeRef": {"name": "prod"}, "source": {"secretName": "a"}},
            "status": {"observedGeneration": generation},
        }));
        Arc::new(object.unwrap())
    }

    /// Nothing is held but what the cache holds.
    fn is_shown(memory: &Memory) -> bool {
        matches!((&memory.status, &memory.stored), (Known::Shown(one), Known::Shown(other)) if Arc::ptr_eq(one, other))
    }

    #[test]
    fn a_lagging_cache_does_not_undo_our_own_write() {
        let mut memory = Memory::default();
        memory.refresh(&object("9", 1));
        memory.version = "12".into();
        memory
            .status
            .change(|status| status.observed_generation = Some(2));
        memory.stored = memory.status.clone();
        memory.refresh(&object("9", 1));
        assert_eq!(
            memory.status.observed_generation,
            Some(2),
            "9 is before 12, as numbers"
        );
        memory.refresh(&object("13", 3));
        assert_eq!(
            memory.status.observed_generation,
            Some(3),
            "somebody else wrote"
        );
    }

    #[test]
    fn a_memory_is_taken_and_put_back_and_holds_one_status() {
        let memories = Memories::default();
        let mut memory = memories.take(&object("9", 1));
        assert!(is_shown(&memory));
        memory.moved = 3;
        memories.keep(&object("9", 1), memory);
        let memory = memories.take(&object("10", 1));
        assert_eq!((memory.moved, memory.version.as_str()), (3, "10"));
        assert!(is_shown(&memory));
        assert_eq!(memories.take(&object("10", 1)).moved, 0, "it is in hand");
    }

    #[test]
    fn the_status_is_known_even_while_an_object_is_in_hand() {
        let memories = Memories::default();
        let of = |memories: &Memories| memories.status(&object("9", 1))?.observed_generation;
        assert_eq!(of(&memories), None, "it was never looked at");
        let mut memory = memories.take(&object("9", 1));
        assert_eq!(of(&memories), Some(1));
        memory
            .status
            .change(|status| status.observed_generation = Some(2));
        memories.keep(&object("9", 1), memory);
        assert_eq!(of(&memories), Some(2), "as it was put back");
        let _in_hand = memories.take(&object("9", 1));
        assert_eq!(of(&memories), Some(2));
        memories.forget(&object("9", 1));
        assert_eq!(of(&memories), None);
    }

    #[test]
    fn an_echo_of_our_own_write_keeps_what_we_know_better() {
        let mut memory = Memory::default();
        memory.refresh(&object("9", 1));
        memory.last_read = Some(Timestamp::UNIX_EPOCH);
        memory.refresh(&object("10", 1));
        assert_eq!(memory.last_read, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(memory.version, "10");
    }

    #[test]
    fn hints_wait_as_one_until_they_are_taken_or_the_object_is_gone() {
        let (memories, object) = (Memories::default(), object("1", 1));
        let failed = Hint {
            rotation_failed: true,
        };
        assert!(memories.hint(&object, Hint::default()));
        assert!(!memories.hint(&object, failed));
        assert!(!memories.hint(&object, Hint::default()));
        assert!(memories.has_hint(&object));
        assert_eq!(memories.take_hint(&object), Some(failed));
        assert_eq!(memories.take_hint(&object), None);
        memories.hint(&object, failed);
        memories.forget(&object);
        assert!(!memories.has_hint(&object));
        memories.hint(&object, failed);
        memories.retain(|_| false);
        assert!(!memories.has_hint(&object));
    }

    #[test]
    fn who_waits_for_a_target_is_found_and_forgotten() {
        let memories = Memories::default();
        memories.wait_for(&object("1", 1), "t");
        assert_eq!(memories.waiting_for("shop", "t").len(), 1);
        assert!(memories.waiting_for("other", "t").is_empty());
        memories.forget(&object("1", 1));
        assert!(memories.waiting_for("shop", "t").is_empty());
        memories.wait_for(&object("1", 1), "t");
        memories.retain(|_| false);
        assert!(
            memories.waiting_for("shop", "t").is_empty(),
            "it vanished while nobody watched"
        );
    }

    #[test]
    fn an_object_waits_for_its_last_target_only() {
        let memories = Memories::default();
        for n in 0..1000 {
            memories.wait_for(&object("1", 1), &format!("t{n}"));
        }
        assert_eq!(lock(&memories.waiting).len(), 1);
        assert!(memories.waiting_for("shop", "t0").is_empty());
        assert_eq!(memories.waiting_for("shop", "t999").len(), 1);
    }
}
