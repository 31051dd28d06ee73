//! Work on the objects of a kind: each in a task of its own, as [`Queue`] lets it begin.
//!
//! kube's applier serves too, but it walks over everything that was named while it is under way, at each poll: with ten
//! thousand objects after a start that took nine tenths of the time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::queue::{Again, Queue};
use crate::metrics::Load;

/// The objects of a kind that are to be looked at.
pub(super) struct Work<K: Resource<DynamicType = ()>> {
    queue: Mutex<Queue<K>>,
    named: Notify,
}

impl<K: Resource<DynamicType = ()> + 'static> Work<K> {
    /// So many are looked at at once.
    pub(super) fn new(places: usize) -> Self {
        Self {
            queue: Mutex::new(Queue::new(places)),
            named: Notify::new(),
        }
    }

    /// Has an object looked at; again, if it is under way.
    pub(super) fn look_at(&self, object: ObjectRef<K>) {
        self.lock().name(object);
        self.named.notify_one();
    }

    /// How many wait and are under way.
    pub(super) fn load(&self) -> Load {
        self.lock().load()
    }

    /// Whether somebody waits for a place.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().is_busy()
    }

    /// Looks at objects from `open` on until `stop`, and then until what is under way has ended.
    pub(super) async fn run<L>(
        &self,
        open: impl Future<Output = ()>,
        stop: impl Future<Output = ()>,
        look: impl Fn(ObjectRef<K>) -> L,
    ) where
        L: Future<Output = Again<Duration>> + Send + 'static,
    {
        let mut under_way = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            biased;
            () = &mut stop => return,
            () = open => {}
        }
        loop {
            while let Some(object) = self.begin() {
                let looking = look((*object).clone());
                under_way.spawn(async move { (object, looking.await) });
            }
            let due = self.lock().next_due();
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = under_way.join_next() => match ended {
                    Ok((object, next)) => self.end(object, next),
                    Err(err) => std::panic::resume_unwind(err.into_panic()),
                },
                () = self.named.notified() => {}
                () = until(due) => {}
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    fn begin(&self) -> Option<Arc<ObjectRef<K>>> {
        self.lock().begin(now())
    }

    fn end(&self, object: Arc<ObjectRef<K>>, next: Again<Duration>) {
        let next = match next {
            Again::At(wait) => now().checked_add(wait).map_or(Again::Never, Again::At),
            Again::Later => Again::Later,
            Again::Never => Again::Never,
        };
        self.lock().end(object, next);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<K>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The monotonic clock of the runtime.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::KmsSecret;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::watch;

    const SECOND: Duration = Duration::from_secs(1);

    fn object(name: usize) -> ObjectRef<KmsSecret> {
        ObjectRef::new(&name.to_string()).within("a")
    }

    #[tokio::test(start_paused = true)]
    async fn objects_are_looked_at_when_they_are_named_and_when_they_are_due() {
        let work = Work::new(8);
        let looks = Arc::new(Mutex::new(Vec::new()));
        let began = now();
        let look = |object: ObjectRef<KmsSecret>| {
            let looks = Arc::clone(&looks);
            async move {
                let at = now().duration_since(began).as_secs();
                looks.lock().unwrap().push((object.name.clone(), at));
                match object.name.as_str() {
                    "1" => Again::At(10 * SECOND),
                    _ => Again::Never,
                }
            }
        };
        work.look_at(object(0));
        work.look_at(object(1));
        let named = async {
            tokio::time::sleep(25 * SECOND).await;
            work.look_at(object(0));
            tokio::time::sleep(7 * SECOND).await;
        };
        work.run(tokio::time::sleep(SECOND), named, look).await;
        let looks = looks.lock().unwrap().clone();
        let expected = [
            ("0", 1),
            ("1", 1),
            ("1", 11),
            ("1", 21),
            ("0", 25),
            ("1", 31),
        ];
        assert_eq!(looks, expected.map(|(name, at)| (name.to_owned(), at)));
    }

    #[tokio::test]
    async fn what_is_under_way_ends_and_what_waits_does_not_begin_once_it_stops() {
        let work = Work::new(4);
        let (go, gone) = watch::channel(false);
        let ended = Arc::new(AtomicUsize::new(0));
        let look = |_: ObjectRef<KmsSecret>| {
            let (mut gone, ended) = (gone.clone(), Arc::clone(&ended));
            async move {
                let _ = gone.wait_for(|gone| *gone).await;
                ended.fetch_add(1, Ordering::Relaxed);
                Again::Never
            }
        };
        (0..10).for_each(|n| work.look_at(object(n)));
        let stop = async {
            while work.load().under_way < 3 {
                tokio::task::yield_now().await;
            }
            go.send_replace(true);
        };
        work.run(std::future::ready(()), stop, look).await;
        assert_eq!(ended.load(Ordering::Relaxed), 3);
        assert_eq!(work.load().waiting, 7);
    }
}
