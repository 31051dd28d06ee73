//! From a notice to the objects that it concerns: each of them becomes due, and no more than that.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc};

use super::memory::Hint;
use super::{Context, store};
use crate::alibaba::notice::{Kind, Notice};
use crate::alibaba::secret_name::plain_name;
use crate::api::KmsSecret;
use crate::metrics::HintResult;
use crate::sync::bulletin::Bulletin;
use crate::sync::hint::concerns;
use crate::sync::share::Share;

/// Deliveries that a loop may be behind by. What it misses beyond that is found by its schedule.
const BACKLOG: usize = 1024;

/// The way from whoever hears of changes to every loop of every replica. A loop finds its own objects and passes over the
/// others.
#[derive(Clone)]
pub struct Hints {
    loops: broadcast::Sender<Arc<[Notice]>>,
    replicas: mpsc::Sender<Vec<Notice>>,
}

impl Hints {
    /// The way to the loops of this process, and what is to be passed on to the other replicas.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Vec<Notice>>) {
        let (replicas, passed_on) = mpsc::channel(BACKLOG);
        let loops = broadcast::Sender::new(BACKLOG);
        (Self { loops, replicas }, passed_on)
    }

    /// Tells every loop, here and elsewhere; answers how many notices do not get elsewhere, since too many wait for it.
    #[must_use]
    pub fn tell(&self, notices: Vec<Notice>) -> usize {
        let kept = self.replicas.try_send(notices.clone());
        self.pass(notices);
        match kept {
            Err(TrySendError::Full(lost)) => lost.len(),
            // Nobody listens any more: we are stopping.
            Ok(()) | Err(TrySendError::Closed(_)) => 0,
        }
    }

    /// Tells the loops of this process.
    pub fn pass(&self, notices: Vec<Notice>) {
        // Without a loop there is nobody to tell: we are stopping.
        let _ = self.loops.send(notices.into());
    }

    /// What is told from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Arc<[Notice]>> {
        self.loops.subscribe()
    }
}

/// Wakes the objects of one loop that notices concern, until nobody tells any more. An object that becomes this replica's
/// has missed nothing: what came a moment ago may have come to a replica that was dead already.
pub(super) async fn follow(context: Arc<Context>, mut told: broadcast::Receiver<Arc<[Notice]>>) {
    let wake = |object| context.objects.look_at(object);
    let mut shares = context.shares.clone();
    let (mut had, mut bulletin) = (Share::NONE, Bulletin::default());
    loop {
        let told = tokio::select! {
            told = told.recv() => told,
            has = shares.changed() => {
                let before = std::mem::replace(&mut had, has);
                let missed = bulletin.notices(now());
                let is_new = |uid: &str| !before.has(uid);
                hinted(&context, &missed, is_new).into_iter().for_each(wake);
                continue;
            }
        };
        match told {
            Ok(notices) => {
                bulletin.post(notices.iter().cloned(), now());
                hinted(&context, &notices, |_| true)
                    .into_iter()
                    .for_each(wake);
            }
            Err(RecvError::Lagged(missed)) => {
                context.metrics.count_hints(HintResult::Lost, missed);
                tracing::warn!(
                    missed,
                    "notices came faster than they can be looked at; the schedule finds what they told of"
                );
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The monotonic clock of the runtime.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The objects of this replica that are due now by these notices and were not before. Only those count whose store lets
/// them read the secret; the reconcile checks that again, as always.
fn hinted(
    context: &Context,
    notices: &[Notice],
    is_meant: impl Fn(&str) -> bool,
) -> Vec<ObjectRef<KmsSecret>> {
    let told: HashSet<&str> = notices
        .iter()
        .map(|notice| notice.secret_name.as_str())
        .collect();
    let is_named = |object: &KmsSecret| {
        let mut names = object.secret_names();
        names.any(|name| told.contains(plain_name(name)))
            && context.is_ours(object)
            && is_meant(object.metadata.uid.as_deref().unwrap_or_default())
    };
    let named = context.caches.kms_secrets.state_filter(is_named);
    let is_new = |object: &Arc<KmsSecret>| {
        let result = hint(context, object, notices)?;
        context.metrics.count_hints(result, 1);
        (result == HintResult::Due).then(|| ObjectRef::from_obj(&**object))
    };
    named.iter().filter_map(is_new).collect()
}

/// Leaves a hint for one object, if any of the notices is about its secret in its store's region.
fn hint(context: &Context, object: &KmsSecret, notices: &[Notice]) -> Option<HintResult> {
    let Ok(region) = store::region(object, context) else {
        return Some(HintResult::NotAllowed);
    };
    let hint = notices
        .iter()
        .filter(|notice| concerns(notice, object, &region))
        .map(|notice| Hint {
            rotation_failed: notice.kind == Kind::RotationFailed,
        })
        .reduce(Hint::or)?;
    Some(if context.memories.hint(object, hint) {
        HintResult::Due
    } else {
        HintResult::Merged
    })
}
