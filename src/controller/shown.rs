//! What a loop shows of itself: its numbers at a scrape, and its pulse.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::work::Work;
use crate::api::KmsSecret;
use crate::api::kms_secret::KmsSecretStatus;
use crate::health::BOUND;
use crate::metrics::{Load, Sight};
use crate::sync::standing::Standing;

/// Whoever waits for a place gets one within this: each step of a reconcile has a deadline, and the slowest store makes a
/// call in two seconds.
const TURN: Duration = Duration::from_secs(600);

impl Context {
    /// The loop at this moment: what is this replica's, and nothing of the others'.
    pub(super) fn sight(&self) -> Sight {
        let now = (self.clock)();
        let kms_secrets = &self.caches.kms_secrets;
        let objects = kms_secrets.state_filter(|object| self.is_ours(object));
        let stand = |object: Arc<KmsSecret>| {
            let known = self.memories.status(&object);
            let status = known.as_deref().or(object.status.as_ref());
            let standing = Standing::of(status.unwrap_or(&KmsSecretStatus::default()), now);
            (object, standing)
        };
        Sight {
            stores: self.readers.glances(),
            objects: objects.into_iter().map(stand).collect(),
            object_load: self.objects.load(),
            store_load: self.stores.load().and(self.cluster_stores.load()),
        }
    }

    /// Beats as long as the loop that polls this goes on, and as long as whoever waits for a place gets one.
    pub(super) async fn beat(&self, namespace: Option<&str>) {
        let now = tokio::time::Instant::now().into_std();
        let of = namespace.map_or_else(
            || "the loop".to_owned(),
            |namespace| format!("the loop of namespace {namespace:?}"),
        );
        let queue = self
            .pulses
            .begin(format!("the queue of {of}"), TURN, now)
            .keep_beating(turns(&self.objects));
        let going_round = self.pulses.begin(of, BOUND, now).keep_beating(|| true);
        futures::join!(queue, going_round);
    }
}

/// Tells, each time, whether nobody waits, or somebody began since the last time.
fn turns(work: &Work<KmsSecret>) -> impl FnMut() -> bool {
    let mut before = Load::default();
    move || {
        let load = work.load();
        let begun = std::mem::replace(&mut before, load).begun;
        load.waiting == 0 || load.begun != begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::queue::Again;
    use kube::runtime::reflector::ObjectRef;

    #[tokio::test(start_paused = true)]
    async fn a_queue_goes_on_while_nobody_waits_or_somebody_begins() {
        let work = Work::new(4);
        let mut goes_on = turns(&work);
        assert!(goes_on(), "nothing to do");
        let name = |name: &str| work.look_at(ObjectRef::new(name).within("a"));
        ["0", "1", "2"].into_iter().for_each(name);
        let minute = Duration::from_secs(60);
        let slow = |_| async move {
            tokio::time::sleep(minute).await;
            Again::Never
        };
        let working = work.run(std::future::ready(()), std::future::pending(), slow);
        let mut working = std::pin::pin!(working);
        let _ = tokio::time::timeout(minute / 2, &mut working).await;
        assert!(
            goes_on() && goes_on(),
            "nobody waits, however long it takes"
        );
        name("3");
        assert!(!goes_on());
        let _ = tokio::time::timeout(minute, &mut working).await;
        assert!(goes_on());
    }
}
