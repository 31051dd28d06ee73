//! Which objects are this replica's, as that changes: what goes is forgotten, what comes is looked at.

use std::sync::Arc;

use kube::ResourceExt as _;

use super::Context;
use crate::alibaba::sts;
use crate::api::KmsSecret;

/// Follows the share of this replica, for ever. The whole of each new share is looked at: planning costs nothing where
/// nothing is due, and nobody knows what the replica before has left undone.
pub(super) async fn follow(context: Arc<Context>) {
    let mut shares = context.shares.clone();
    loop {
        let share = shares.changed().await;
        context.note_leftovers();
        context.memories.retain(|uid| share.has(uid));
        if share.is_none() {
            continue;
        }
        context.readers.retune(&share);
        context.sts.retune(share.pace(sts::PER_SECOND));
        context.look_at(&context.caches.all_stores());
        for object in context.caches.all() {
            context.objects.look_at(object);
        }
    }
}

impl Context {
    /// Whether an object is this replica's to work on.
    pub(super) fn is_ours(&self, object: &KmsSecret) -> bool {
        self.shares.has(&object.uid().unwrap_or_default())
    }
}
