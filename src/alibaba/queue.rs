//! The reads that wait, and which of them go out together. Pure: times come in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::secret_name::plain_name;
use super::secret_value::GetSecretValue;
use super::turns::Turns;

/// Wishes that come together are sent together: when none has come for so long...
pub(super) const QUIET: Duration = Duration::from_millis(1);
/// ...or when the oldest has waited for so long.
const BURST_MAX: Duration = Duration::from_millis(250);
/// While calls are under way, a batch that is not full waits for so long: more wishes cost it nothing.
const FILL_MAX: Duration = Duration::from_millis(25);
/// And for so long while more wishes are known to come.
const CROWD_MAX: Duration = Duration::from_millis(100);
/// So many reads that must go alone are remembered.
const ALONE_MAX: usize = 1000;

/// Which of the waiting reads goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Somebody asked for it by hand, who may have mended what opened the breaker.
    Forced,
    /// New, changed, or rotated: somebody waits for it.
    Urgent,
    /// Periodic.
    Later,
}

/// What somebody wants to be read.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The read.
    pub request: GetSecretValue,
    /// How soon.
    pub rank: Rank,
    /// Whose turn it takes: a namespace.
    pub tenant: Arc<str>,
    /// Others stand in line behind it, who will wish as soon as somebody makes room.
    pub has_followers: bool,
}

/// Reads that go out together, each with those who wait for it.
pub(super) type Group<A> = Vec<(GetSecretValue, Vec<A>)>;

/// The reads that wait, each with those who wait for it.
pub(super) struct Queue<A> {
    urgent: Turns<GetSecretValue>,
    later: Turns<GetSecretValue>,
    waiting: HashMap<GetSecretValue, Vec<A>>,
    /// What failed last time goes alone: it must not spoil a batch.
    alone: HashSet<GetSecretValue>,
    /// Those of them that wait; they and batches take turns.
    waiting_alone: VecDeque<GetSecretValue>,
    was_alone: bool,
    /// When the last wish came, and the oldest of those that wait.
    wished: (Instant, Instant),
    /// The last wish had followers.
    has_followers: bool,
}

impl<A> Queue<A> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            urgent: Turns::default(),
            later: Turns::default(),
            waiting: HashMap::new(),
            alone: HashSet::new(),
            waiting_alone: VecDeque::new(),
            was_alone: false,
            wished: (now, now),
            has_followers: false,
        }
    }

    /// How many reads wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Somebody wishes a read; who wishes the same joins it.
    pub(super) fn push(&mut self, wish: Wish, asker: A, now: Instant) {
        let oldest = if self.is_empty() { now } else { self.wished.1 };
        self.wished = (now, oldest);
        self.has_followers = wish.has_followers;
        let askers = self.waiting.entry(wish.request.clone()).or_default();
        askers.push(asker);
        // Who joins a periodic read with an urgent wish is queued again, and the first place counts.
        match wish.rank {
            Rank::Forced | Rank::Urgent => self.urgent.push(&wish.tenant, wish.request),
            Rank::Later => self.later.push(&wish.tenant, wish.request),
        }
    }

    /// A read that went out is to be made once more.
    pub(super) fn push_again(&mut self, request: GetSecretValue, askers: Vec<A>) {
        let waiting = self.waiting.entry(request.clone()).or_default();
        waiting.extend(askers);
        self.urgent.push(&Arc::from(""), request);
    }

    /// How long to wait for more wishes, where `most` go out together.
    pub(super) fn linger(&self, most: usize, is_idle: bool, now: Instant) -> Option<Duration> {
        let (last, oldest) = self.wished;
        let mut until = (last + QUIET).min(oldest + BURST_MAX);
        if most > 1 && self.waiting.len() < most {
            let fill = match (self.has_followers, is_idle) {
                (true, _) => CROWD_MAX,
                (false, false) => FILL_MAX,
                (false, true) => Duration::ZERO,
            };
            until = until.max(oldest + fill);
        }
        let wait = until.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// The next reads to go out, `most` of them or fewer; one that must go alone, every other time.
    pub(super) fn pop(&mut self, most: usize) -> Group<A> {
        self.was_alone = !self.was_alone;
        if self.was_alone
            && let Some(alone) = self.pop_alone()
        {
            return vec![alone];
        }
        let (mut group, mut names, mut again) = (Group::new(), HashSet::new(), Vec::new());
        while group.len() < most {
            let Some(request) = self.urgent.pop().or_else(|| self.later.pop()) else {
                break;
            };
            if self.alone.contains(&request) {
                self.waiting_alone.push_back(request);
                continue;
            }
            // The answers of a batch are told apart by their plain names.
            if names.contains(plain_name(&request.secret_name)) {
                again.push(request);
                continue;
            }
            // Nobody waits for it: somebody else's place in the queue, and it went out already.
            if let Some(askers) = self.waiting.remove(&request) {
                names.insert(plain_name(&request.secret_name).to_owned());
                group.push((request, askers));
            }
        }
        for request in again {
            self.urgent.push(&Arc::from(""), request);
        }
        if group.is_empty() {
            group.extend(self.pop_alone());
        }
        group
    }

    fn pop_alone(&mut self) -> Option<(GetSecretValue, Vec<A>)> {
        loop {
            let request = self.waiting_alone.pop_front()?;
            if let Some(askers) = self.waiting.remove(&request) {
                return Some((request, askers));
            }
        }
    }

    /// From now on this read goes alone.
    pub(super) fn keep_apart(&mut self, request: GetSecretValue) {
        if self.alone.len() >= ALONE_MAX {
            self.alone.clear();
        }
        self.alone.insert(request);
    }

    /// This read may go with others again.
    pub(super) fn let_join(&mut self, request: &GetSecretValue) {
        self.alone.remove(request);
    }

    /// Everybody who waits; their reads do not go out.
    pub(super) fn take_askers(&mut self) -> Vec<A> {
        (self.urgent, self.later) = (Turns::default(), Turns::default());
        self.waiting_alone.clear();
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 20;

    fn request(name: &str) -> GetSecretValue {
        GetSecretValue {
            secret_name: name.into(),
            ..GetSecretValue::default()
        }
    }

    fn wish(rank: Rank, name: &str) -> Wish {
        Wish {
            request: request(name),
            rank,
            tenant: Arc::from("t"),
            has_followers: false,
        }
    }

    /// Pushes reads of one tenant, and answers when.
    fn push(queue: &mut Queue<()>, names: &[(Rank, &str)]) {
        let now = queue.wished.0;
        for (rank, name) in names {
            queue.push(wish(*rank, name), (), now);
        }
    }

    fn pop(queue: &mut Queue<()>, most: usize) -> Vec<String> {
        let group = queue.pop(most).into_iter();
        group.map(|(request, _)| request.secret_name).collect()
    }

    #[test]
    fn urgent_reads_go_first_and_no_two_of_one_name_together() {
        let arn = "acs:kms:cn-hangzhou:1:secret/a";
        let mut queue = Queue::new(Instant::now());
        push(
            &mut queue,
            &[(Rank::Later, "b"), (Rank::Urgent, "a"), (Rank::Urgent, arn)],
        );
        assert_eq!(pop(&mut queue, MOST), ["a", "b"]);
        assert_eq!(pop(&mut queue, MOST), [arn]);
        assert!(queue.is_empty());
    }

    #[test]
    fn who_wishes_the_same_read_joins_it() {
        let mut queue = Queue::new(Instant::now());
        push(&mut queue, &[(Rank::Later, "a"), (Rank::Urgent, "a")]);
        assert_eq!(queue.len(), 1);
        let group = queue.pop(MOST);
        assert_eq!(group, [(request("a"), vec![(), ()])]);
        assert!(queue.pop(MOST).is_empty(), "the other place is nobody's");
    }

    #[test]
    fn a_read_that_must_go_alone_takes_turns_with_the_others() {
        let mut queue = Queue::new(Instant::now());
        queue.keep_apart(request("bad"));
        let all = ["bad", "a", "b", "c", "d", "e"].map(|name| (Rank::Urgent, name));
        push(&mut queue, &all);
        for expected in [&["a", "b"][..], &["c", "d"], &["bad"], &["e"]] {
            assert_eq!(pop(&mut queue, 2), expected);
        }
        queue.let_join(&request("bad"));
        push(&mut queue, &all[..2]);
        assert_eq!(pop(&mut queue, 2), ["bad", "a"]);
    }

    #[test]
    fn what_is_remembered_of_failures_is_bounded() {
        let mut queue = Queue::<()>::new(Instant::now());
        for n in 0..2 * ALONE_MAX {
            queue.keep_apart(request(&format!("s{n}")));
        }
        assert!(queue.alone.len() <= ALONE_MAX);
    }

    #[test]
    fn a_batch_that_could_be_fuller_waits_while_calls_are_under_way_or_more_is_coming() {
        let now = Instant::now();
        let mut queue = Queue::new(now);
        push(&mut queue, &[(Rank::Urgent, "a")]);
        let (quiet, full) = (now + QUIET, now + FILL_MAX);
        assert_eq!(queue.linger(MOST, true, now), Some(QUIET));
        assert_eq!(queue.linger(MOST, true, quiet), None);
        assert_eq!(
            queue.linger(MOST, false, quiet),
            Some(full.duration_since(quiet))
        );
        assert_eq!(queue.linger(MOST, false, full), None);
        assert_eq!(queue.linger(1, false, quiet), None, "one is all there is");
        let followed = Wish {
            has_followers: true,
            ..wish(Rank::Urgent, "b")
        };
        queue.push(followed, (), now);
        let crowd = now + CROWD_MAX;
        let wait = crowd.duration_since(quiet);
        assert_eq!(
            queue.linger(MOST, true, quiet),
            Some(wait),
            "more are coming"
        );
        assert_eq!(queue.linger(MOST, true, crowd), None);
        assert_eq!(queue.linger(2, true, quiet), None, "it is full");
    }

    #[test]
    fn whoever_is_sent_away_is_told_and_nothing_is_left() {
        let mut queue = Queue::new(Instant::now());
        queue.keep_apart(request("b"));
        push(
            &mut queue,
            &[(Rank::Later, "a"), (Rank::Urgent, "b"), (Rank::Urgent, "b")],
        );
        assert_eq!(queue.take_askers().len(), 3);
        assert!(queue.is_empty() && queue.pop(MOST).is_empty());
    }
}
