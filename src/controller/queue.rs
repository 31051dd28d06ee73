//! What is looked at next: what was named, or whose time has come. Nothing is looked at twice at once, and no namespace
//! takes all the places, however slow its stores are. Pure, and each step costs the same however much waits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, ObjectRefExtra};

use crate::metrics::Load;

/// A namespace gets another place while it holds fewer than so many times those that are free. Alone it takes three
/// quarters of all; of several that want everything each takes less, and a newcomer always finds one.
const SHARE: usize = 3;
/// Of so many looks one is at what was left for later, however much else waits.
const TURNS: u64 = 8;

/// The objects of a kind that are waiting, under way, or due at some time; nothing of any other.
pub(super) struct Queue<K: Resource<DynamicType = ()>> {
    free: usize,
    begun: u64,
    objects: HashMap<Arc<ObjectRef<K>>, State>,
    /// By when they are due; the number tells those of one instant apart.
    times: BTreeMap<Due, Arc<ObjectRef<K>>>,
    numbers: u64,
    /// By namespace; nothing of one that neither holds a place nor waits for one.
    tenants: HashMap<Arc<str>, Tenant<K>>,
    /// The namespaces that wait, in turn.
    order: VecDeque<Arc<str>>,
    /// What was left for later; some of it may have been named since.
    later: VecDeque<Arc<ObjectRef<K>>>,
}

/// When an object is looked at again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again<Time> {
    /// Not before it is named.
    Never,
    /// Then, or after so long.
    At(Time),
    /// When nobody else waits for a place: what is left to do can wait for all the others.
    Later,
}

type Due = (Instant, u64);

#[derive(Clone, Copy)]
enum State {
    /// Until its time comes.
    Idle(Due),
    /// For a place.
    Waiting,
    /// Until nobody waits.
    Later,
    /// And was named meanwhile, or not.
    UnderWay { again: bool },
}

struct Tenant<K: Resource<DynamicType = ()>> {
    held: usize,
    waiting: VecDeque<Arc<ObjectRef<K>>>,
}

impl<K: Resource<DynamicType = ()>> Queue<K> {
    /// With so many places.
    pub(super) fn new(places: usize) -> Self {
        Self {
            free: places,
            begun: 0,
            objects: HashMap::new(),
            times: BTreeMap::new(),
            numbers: 0,
            tenants: HashMap::new(),
            order: VecDeque::new(),
            later: VecDeque::new(),
        }
    }

    /// Has an object looked at as soon as there is a place for it; once more, if it is under way.
    pub(super) fn name(&mut self, object: ObjectRef<K>) {
        match self.objects.get_mut(&object) {
            Some(State::Waiting) => {}
            Some(State::UnderWay { again }) => *again = true,
            Some(State::Idle(due)) => {
                let due = *due;
                let known = self.times.remove(&due);
                self.wait(known.unwrap_or_else(|| object.into()));
            }
            Some(State::Later) | None => self.wait(plain(object).into()),
        }
    }

    /// The next one to begin with, if there is a place for any.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Arc<ObjectRef<K>>> {
        while let Some(due) = self.times.first_entry().filter(|due| due.key().0 <= now) {
            let object = due.remove();
            self.wait(object);
        }
        let object = if (self.begun + 1).is_multiple_of(TURNS) {
            self.take_later().or_else(|| self.take_waiting())
        } else {
            self.take_waiting().or_else(|| self.take_later())
        }?;
        self.free -= 1;
        self.begun += 1;
        let under_way = State::UnderWay { again: false };
        self.objects.insert(Arc::clone(&object), under_way);
        Some(object)
    }

    /// Whether somebody waits for a place.
    pub(super) fn is_busy(&self) -> bool {
        !self.order.is_empty()
    }

    fn take_waiting(&mut self) -> Option<Arc<ObjectRef<K>>> {
        for _ in 0..self.order.len() {
            let namespace = self.order.pop_front()?;
            let tenant = self.tenants.get_mut(&namespace)?;
            if tenant.held >= SHARE * self.free {
                self.order.push_back(namespace);
                continue;
            }
            let object = tenant.waiting.pop_front()?;
            tenant.held += 1;
            if !tenant.waiting.is_empty() {
                self.order.push_back(namespace);
            }
            return Some(object);
        }
        None
    }

    fn take_later(&mut self) -> Option<Arc<ObjectRef<K>>> {
        while let Some(object) = self.later.pop_front() {
            // What was named meanwhile waits elsewhere.
            if !matches!(self.objects.get(&object), Some(State::Later)) {
                continue;
            }
            let free = self.free;
            let tenant = self.tenant(&object);
            if tenant.held >= SHARE * free {
                self.later.push_front(object);
                return None;
            }
            tenant.held += 1;
            return Some(object);
        }
        None
    }

    /// It was looked at.
    pub(super) fn end(&mut self, object: Arc<ObjectRef<K>>, next: Again<Instant>) {
        self.free += 1;
        let namespace = namespace(&object);
        if let Some(tenant) = self.tenants.get_mut(namespace) {
            tenant.held -= 1;
            if tenant.held == 0 && tenant.waiting.is_empty() {
                self.tenants.remove(namespace);
            }
        }
        match (self.objects.remove(&object), next) {
            (Some(State::UnderWay { again: true }), _) => self.wait(object),
            (_, Again::At(at)) => {
                self.numbers += 1;
                let due = (at, self.numbers);
                self.times.insert(due, Arc::clone(&object));
                self.objects.insert(object, State::Idle(due));
            }
            (_, Again::Later) => {
                self.objects.insert(Arc::clone(&object), State::Later);
                self.later.push_back(object);
            }
            (_, Again::Never) => {}
        }
    }

    /// When the next one is due by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.times.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many wait and are under way.
    pub(super) fn load(&self) -> Load {
        let tenants = self.tenants.values();
        Load {
            waiting: self.later.len()
                + tenants
                    .clone()
                    .map(|tenant| tenant.waiting.len())
                    .sum::<usize>(),
            under_way: tenants.map(|tenant| tenant.held).sum(),
            begun: self.begun,
        }
    }

    fn wait(&mut self, object: Arc<ObjectRef<K>>) {
        self.objects.insert(Arc::clone(&object), State::Waiting);
        let namespace = namespace(&object).into();
        let tenant = self.tenant(&object);
        tenant.waiting.push_back(object);
        if tenant.waiting.len() == 1 {
            self.order.push_back(namespace);
        }
    }

    fn tenant(&mut self, object: &ObjectRef<K>) -> &mut Tenant<K> {
        let tenant = self.tenants.entry(namespace(object).into());
        tenant.or_insert_with(|| Tenant {
            held: 0,
            waiting: VecDeque::new(),
        })
    }
}

fn namespace<K: Resource<DynamicType = ()>>(object: &ObjectRef<K>) -> &str {
    object.namespace.as_deref().unwrap_or_default()
}

/// Without the uid and the version that it was named by, which are of no use here.
fn plain<K: Resource<DynamicType = ()>>(mut object: ObjectRef<K>) -> ObjectRef<K> {
    object.extra = ObjectRefExtra::default();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::KmsSecret;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::time::Duration;

    type Objects = Queue<KmsSecret>;

    fn object(namespace: &str, name: &str) -> ObjectRef<KmsSecret> {
        ObjectRef::new(name).within(namespace)
    }

    fn name(queue: &mut Objects, namespace: &str, count: usize) {
        (0..count).for_each(|n| queue.name(object(namespace, &n.to_string())));
    }

    /// Begins with all that can begin.
    fn begin(queue: &mut Objects) -> Vec<Arc<ObjectRef<KmsSecret>>> {
        let now = Instant::now();
        std::iter::from_fn(|| queue.begin(now)).collect()
    }

    fn end(queue: &mut Objects, objects: Vec<Arc<ObjectRef<KmsSecret>>>) {
        for object in objects {
            queue.end(object, Again::Never);
        }
    }

    #[test]
    fn one_namespace_takes_three_quarters_and_the_next_finds_room() {
        let mut queue = Objects::new(1024);
        name(&mut queue, "greedy", 2000);
        let greedy = begin(&mut queue);
        assert_eq!(greedy.len(), 768);
        name(&mut queue, "greedy-too", 2000);
        assert_eq!(begin(&mut queue).len(), 192);
        name(&mut queue, "modest", 10);
        let modest = begin(&mut queue);
        assert_eq!(modest.len(), 10);
        end(&mut queue, greedy);
        assert!(begin(&mut queue).len() > 500);
    }

    #[test]
    fn namespaces_take_turns_at_the_places_that_come_free() {
        let mut queue = Objects::new(4);
        name(&mut queue, "a", 6);
        let first = begin(&mut queue);
        assert_eq!(first.len(), 3);
        name(&mut queue, "b", 2);
        end(&mut queue, first);
        let next: Vec<_> = begin(&mut queue)
            .iter()
            .map(|object| namespace(object).to_owned())
            .collect();
        assert_eq!(next, ["a", "b", "a", "b"]);
    }

    #[test]
    fn what_is_under_way_is_not_begun_again_until_it_has_ended() {
        let mut queue = Objects::new(8);
        name(&mut queue, "a", 1);
        let first = begin(&mut queue);
        name(&mut queue, "a", 1);
        name(&mut queue, "a", 1);
        assert!(begin(&mut queue).is_empty());
        end(&mut queue, first);
        let second = begin(&mut queue);
        assert_eq!(second.len(), 1);
        end(&mut queue, second);
        assert!(
            begin(&mut queue).is_empty(),
            "named twice while under way is once more"
        );
        assert_eq!((queue.objects.len(), queue.tenants.len()), (0, 0));
    }

    #[test]
    fn what_is_due_begins_then_and_what_is_named_begins_before() {
        let mut queue = Objects::new(8);
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, due) in [("soon", 1), ("later", 2), ("named", 3)] {
            queue.name(object("a", name));
            let begun = queue.begin(now).unwrap();
            queue.end(begun, Again::At(at(due)));
        }
        assert_eq!(queue.next_due(), Some(at(1)));
        queue.name(object("a", "named"));
        assert_eq!(queue.begin(now).unwrap().name, "named");
        assert!(queue.begin(now).is_none());
        assert_eq!(queue.begin(at(1)).unwrap().name, "soon");
        assert!(queue.begin(at(1)).is_none());
        assert_eq!(queue.begin(at(9)).unwrap().name, "later");
        assert_eq!(
            queue.next_due(),
            None,
            "its time was for what it waited for"
        );
    }

    #[test]
    fn what_waits_and_is_under_way_is_counted() {
        let mut queue = Objects::new(4);
        name(&mut queue, "a", 4);
        let held = begin(&mut queue);
        let load = |waiting, under_way, begun| Load {
            waiting,
            under_way,
            begun,
        };
        assert_eq!(queue.load(), load(1, 3, 3));
        end(&mut queue, held);
        assert_eq!(queue.load(), load(1, 0, 3));
        let held = begin(&mut queue);
        assert_eq!(queue.load(), load(0, 1, 4));
        end(&mut queue, held);
        assert_eq!(queue.load(), load(0, 0, 4));
    }

    #[test]
    fn what_is_left_for_later_lets_the_others_go_first_but_not_for_ever() {
        let mut queue = Objects::new(2);
        name(&mut queue, "a", 20);
        let mut order = Vec::new();
        while let Some(begun) = queue.begin(Instant::now()) {
            let is_first = !order.contains(&begun.name);
            order.push(begun.name.clone());
            let next = if is_first { Again::Later } else { Again::Never };
            queue.end(begun, next);
        }
        let firsts = |count: usize| order.iter().take(count).collect::<HashSet<_>>().len();
        assert_eq!((order.len(), firsts(7), firsts(22)), (40, 7, 20));
        assert_eq!(order[7], "0", "the eighth is one that was left");
    }

    #[test]
    fn what_was_left_for_later_and_is_named_waits_with_the_others() {
        let mut queue = Objects::new(2);
        name(&mut queue, "a", 1);
        let begun = queue.begin(Instant::now()).unwrap();
        queue.end(begun, Again::Later);
        name(&mut queue, "a", 1);
        assert!(queue.is_busy());
        let begun = begin(&mut queue);
        assert_eq!(begun.len(), 1);
        end(&mut queue, begun);
        assert!(begin(&mut queue).is_empty());
    }

    proptest! {
        #[test]
        fn no_place_is_lost_nothing_is_forgotten_and_nothing_is_kept(
            steps in prop::collection::vec((0..3_usize, 0..5_usize, 0..5_u32), 0..200),
        ) {
            let mut queue = Objects::new(6);
            let mut now = Instant::now();
            let mut under_way: Vec<Arc<ObjectRef<KmsSecret>>> = Vec::new();
            // Named since they last began.
            let mut wanted = HashSet::new();
            for (namespace, name, step) in steps {
                let object = object(&namespace.to_string(), &name.to_string());
                match step {
                    0 => {
                        wanted.insert(object.clone());
                        queue.name(object);
                    }
                    1 => now += Duration::from_secs(1),
                    _ if under_way.is_empty() => {}
                    _ => {
                        let ended = under_way.swap_remove(name % under_way.len());
                        queue.end(ended, match step {
                            2 => Again::At(now + Duration::from_secs(2)),
                            3 => Again::Later,
                            _ => Again::Never,
                        });
                    }
                }
                while let Some(begun) = queue.begin(now) {
                    prop_assert!(!under_way.contains(&begun));
                    wanted.remove(&*begun);
                    under_way.push(begun);
                }
                prop_assert_eq!(queue.free, 6 - under_way.len());
                prop_assert_eq!(queue.load().under_way, under_way.len());
            }
            for _ in 0..1000 {
                under_way.drain(..).for_each(|ended| queue.end(ended, Again::Never));
                now += Duration::from_secs(60);
                while let Some(begun) = queue.begin(now) {
                    wanted.remove(&*begun);
                    under_way.push(begun);
                }
                if under_way.is_empty() {
                    break;
                }
            }
            prop_assert!(wanted.is_empty(), "{wanted:?}");
            prop_assert_eq!((queue.free, queue.objects.len(), queue.times.len()), (6, 0, 0));
            prop_assert_eq!((queue.tenants.len(), queue.order.len(), queue.later.len()), (0, 0, 0));
        }
    }
}
