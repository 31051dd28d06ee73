//! From a notice to the objects that it concerns: each of them becomes due, and no more than that.

use std::collections::HashSet;
use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::memory::Hint;
use super::{Context, store};
use crate::alibaba::notice::{Kind, Notice};
use crate::alibaba::secret_name::plain_name;
use crate::api::KmsSecret;
use crate::metrics::HintResult;
use crate::sync::hint::concerns;

/// Deliveries that a loop may be behind by. What it misses beyond that is found by its schedule.
const BACKLOG: usize = 1024;

/// The way from whoever hears of changes to every loop. A loop finds its own objects and passes over the others.
#[derive(Clone)]
pub struct Hints(broadcast::Sender<Arc<[Notice]>>);

impl Default for Hints {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Hints {
    /// Tells every loop.
    pub fn tell(&self, notices: Vec<Notice>) {
        // Without a loop there is nobody to tell: we are stopping.
        let _ = self.0.send(notices.into());
    }

    /// What is told from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Arc<[Notice]>> {
        self.0.subscribe()
    }
}

/// Wakes the objects of one loop that notices concern, until nobody tells any more.
pub(super) async fn follow(
    context: Arc<Context>,
    mut told: broadcast::Receiver<Arc<[Notice]>>,
    wake: impl Fn(ObjectRef<KmsSecret>),
) {
    loop {
        match told.recv().await {
            Ok(notices) => hinted(&context, &notices).into_iter().for_each(&wake),
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

/// The objects that are due now by these notices and were not before. Only those count whose store lets them read the
/// secret; the reconcile checks that again, as always.
fn hinted(context: &Context, notices: &[Notice]) -> Vec<ObjectRef<KmsSecret>> {
    let told: HashSet<&str> = notices
        .iter()
        .map(|notice| notice.secret_name.as_str())
        .collect();
    let is_named = |object: &KmsSecret| {
        object
            .secret_names()
            .any(|name| told.contains(plain_name(name)))
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
