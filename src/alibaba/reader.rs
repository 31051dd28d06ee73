//! The reads of one identity at one endpoint: joined, batched, paced, in turns, and not at all while they cannot work.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batch::BATCH_MAX;
use super::breaker::{Breaker, breaks};
use super::kms::Batch;
use super::limiter::Limiter;
use super::queue::{Group, Queue};
use super::secret_value::{GetSecretValue, SecretValue};
use super::{Class, Error};

pub use super::queue::{Rank, Wish};

/// A read that is refused for the pace is kept no longer than this: its asker has other things to do.
const REST_MAX: Duration = Duration::from_secs(2);
/// Calls under way at once; more only queue up on the way.
const IN_FLIGHT_MAX: usize = 64;
/// A read that is refused for the pace is tried again this often before its asker is told.
const THROTTLED_MAX: u8 = 4;
/// An endpoint that does not know batches is asked again after this.
const BATCH_RETRY: Duration = Duration::from_secs(86_400);

/// What a reader is made of.
pub struct Setup {
    /// The most calls a second.
    pub per_second: f64,
    /// Read many at once where the endpoint can.
    pub batch: bool,
    /// All secrets are in one KMS instance, whose own the endpoint is.
    pub is_instance: bool,
    /// Reads one.
    pub read_one: ReadOne,
    /// Reads many.
    pub read_many: ReadMany,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Reads one secret.
pub type ReadOne = Box<dyn Fn(GetSecretValue) -> Boxed<Result<SecretValue, Error>> + Send + Sync>;
/// Reads many secrets in one call.
pub type ReadMany = Box<dyn Fn(Vec<GetSecretValue>) -> Boxed<Batch> + Send + Sync>;

type Answer = Result<Arc<SecretValue>, Error>;
type Asker = oneshot::Sender<Answer>;

/// Reads for all who share one identity.
pub struct Reader {
    setup: Setup,
    state: Mutex<State>,
    me: Weak<Reader>,
}

struct State {
    limiter: Limiter,
    queue: Queue<Asker>,
    /// How often in a row a read was refused for the pace.
    throttled: HashMap<GetSecretValue, u8>,
    in_flight: usize,
    /// When it looks again by itself.
    wakes_at: Option<Instant>,
    /// From when on reads go in batches; `None`: never.
    batches_from: Option<Instant>,
    breaker: Breaker,
    /// The identity is not to be used any more.
    is_closed: bool,
    wishes: u64,
    sent: u64,
    answered: u64,
}

/// A reader at one moment, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Glance {
    /// Reads a second that it may make.
    pub rate: f64,
    /// Secrets that somebody waits for and that were not asked for yet.
    pub waiting: usize,
    /// Calls under way.
    pub in_flight: usize,
    /// Reads are held back, since the identity does not work.
    pub is_broken: bool,
    /// Reads that somebody wished for, since it was made.
    pub wished: u64,
    /// Reads that were sent for them, alone or in a batch.
    pub sent: u64,
    /// Reads that brought a value.
    pub answered: u64,
}

impl Reader {
    /// Makes a reader; it needs a tokio runtime when it reads.
    #[must_use]
    pub fn new(setup: Setup) -> Arc<Self> {
        let state = State {
            limiter: Limiter::new(setup.per_second, now()),
            queue: Queue::new(now()),
            throttled: HashMap::new(),
            in_flight: 0,
            wakes_at: None,
            batches_from: setup.batch.then(now),
            breaker: Breaker::default(),
            is_closed: false,
            wishes: 0,
            sent: 0,
            answered: 0,
        };
        Arc::new_cyclic(|me| Self {
            setup,
            state: Mutex::new(state),
            me: me.clone(),
        })
    }

    /// Reads a secret, together with everybody who waits for the same one: a read is joined until it is sent, and not
    /// after, or it could be older than the wish for it.
    ///
    /// # Errors
    /// The refusal, or at once the one that opened the breaker.
    pub async fn read(&self, wish: Wish) -> Answer {
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            state.wishes += 1;
            if state.is_closed {
                return Err(CLOSED);
            }
            let is_forced = wish.rank == Rank::Forced;
            if let Some(error) = state.breaker.refuse(is_forced, now()) {
                return Err(error);
            }
            state.queue.push(wish, sender, now());
        }
        self.pump();
        answer
            .await
            .unwrap_or(Err(Error::Unreachable("the operator is stopping")))
    }

    /// Another pace from now on, and batches or none.
    pub fn retune(&self, per_second: f64, batch: bool) {
        let mut state = self.lock();
        state.limiter.retune(per_second);
        state.batches_from = batch.then(|| state.batches_from.unwrap_or_else(now));
    }

    /// Sends nothing more: the store or its credentials changed, or were taken away. Those who wait are told so.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let waiting = state.take_askers();
        drop(state);
        tell(waiting, &Err(CLOSED));
    }

    /// What it does at the moment.
    #[must_use]
    pub fn glance(&self) -> Glance {
        let state = self.lock();
        Glance {
            rate: state.limiter.rate(),
            waiting: state.queue.len(),
            in_flight: state.in_flight,
            is_broken: state.breaker.is_open(now()),
            wished: state.wishes,
            sent: state.sent,
            answered: state.answered,
        }
    }

    /// Why reads were last held back, until one is answered.
    #[must_use]
    pub fn broken(&self) -> Option<Error> {
        self.lock().breaker.error().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what may be sent now, and comes back when more may.
    fn pump(&self) {
        let mut state = self.lock();
        loop {
            if state.in_flight >= IN_FLIGHT_MAX {
                return;
            }
            if state.queue.is_empty() {
                return;
            }
            // Those that wait are sent, or told, when that one has found out.
            if state.in_flight > 0 && state.breaker.is_doubtful(now()) {
                return;
            }
            let (most, is_idle) = (state.group_max(), state.in_flight == 0);
            let linger = state.queue.linger(most, is_idle, now());
            if let Some(wait) = state.limiter.wait(now()).max(linger) {
                let at = now() + wait;
                if state.wakes_at.is_none_or(|before| at < before) {
                    state.wakes_at = Some(at);
                    self.spawn(|me| async move {
                        tokio::time::sleep_until(at.into()).await;
                        // Unless it looks sooner by now.
                        me.lock().wakes_at.take_if(|wakes| *wakes == at);
                        me.pump();
                    });
                }
                return;
            }
            let group = state.queue.pop(most);
            if group.is_empty() {
                return;
            }
            state.limiter.take(group.len(), now());
            state.in_flight += 1;
            state.sent += group.len() as u64;
            self.spawn(|me| async move {
                let under_way = UnderWay(Arc::clone(&me));
                me.send(group).await;
                drop(under_way);
            });
        }
    }

    /// Every other read would fail as that of this secret did. A gateway reaches secrets in many instances, and one that
    /// is named by its ARN may be of another account: what is wrong with those is not wrong with the identity.
    fn concerns_all(&self, request: &GetSecretValue, class: Class) -> bool {
        breaks(class)
            && match class {
                Class::Instance => self.setup.is_instance,
                Class::Account => !request.secret_name.starts_with("acs:"),
                _ => true,
            }
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Arc<Self>) -> F) {
        if let Some(me) = self.me.upgrade() {
            tokio::spawn(work(me));
        }
    }

    async fn send(&self, group: Group<Asker>) {
        let sent = now();
        if group.len() == 1 {
            for (request, askers) in group {
                let result = (self.setup.read_one)(request.clone()).await;
                self.settle(request, askers, result, sent);
            }
            return;
        }
        let requests = group.iter().map(|(request, _)| request.clone()).collect();
        match (self.setup.read_many)(requests).await {
            Batch::Answered(items) => {
                for ((request, askers), item) in group.into_iter().zip(items) {
                    match item {
                        Some(result) => self.settle(request, askers, result, sent),
                        None => self.ask_alone(request, askers),
                    }
                }
            }
            Batch::Unknown => {
                if let Some(from) = &mut self.lock().batches_from {
                    *from = now() + BATCH_RETRY;
                }
                for (request, askers) in group {
                    self.ask_again(request, askers);
                }
            }
            Batch::Failed(error) => {
                for (request, askers) in group {
                    self.settle(request, askers, Err(error.clone()), sent);
                }
            }
        }
    }

    fn ask_alone(&self, request: GetSecretValue, askers: Vec<Asker>) {
        self.lock().queue.keep_apart(request.clone());
        self.ask_again(request, askers);
    }

    fn ask_again(&self, request: GetSecretValue, askers: Vec<Asker>) {
        let mut state = self.lock();
        if state.is_closed {
            drop(state);
            return tell(askers, &Err(CLOSED));
        }
        state.queue.push_again(request, askers);
    }

    /// Tells the askers of one read how it ended, and learns from it.
    fn settle(
        &self,
        request: GetSecretValue,
        askers: Vec<Asker>,
        result: Result<SecretValue, Error>,
        sent: Instant,
    ) {
        let answer = result.map(Arc::new);
        let mut state = self.lock();
        if let Err(error) = &answer
            && error.class() == Class::Throttled
        {
            state.limiter.throttled(sent, error.retry_after(), now());
            let count = state.throttled.entry(request.clone()).or_default();
            *count += 1;
            let (count, rest) = (*count, state.limiter.wait(now()).unwrap_or_default());
            if count < THROTTLED_MAX && rest <= REST_MAX {
                drop(state);
                self.ask_again(request, askers);
                return;
            }
        }
        state.throttled.remove(&request);
        let told = match &answer {
            Ok(_) => {
                state.succeeded(&request, sent);
                Vec::new()
            }
            Err(error) if self.concerns_all(&request, error.class()) => {
                state.open_breaker(error, sent)
            }
            Err(error) => {
                state.failed(request, error.class(), sent);
                Vec::new()
            }
        };
        drop(state);
        tell(askers.into_iter().chain(told), &answer);
    }
}

/// Whoever gets this looks again, and finds another reader or none.
const CLOSED: Error = Error::Unreachable("the store changed");

fn tell(askers: impl IntoIterator<Item = Asker>, answer: &Answer) {
    for asker in askers {
        // An error: nobody waits any more, the object moved on.
        let _ = asker.send(answer.clone());
    }
}

/// A call under way: when it ends, in whatever way, another one may go.
struct UnderWay(Arc<Reader>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
        self.0.pump();
    }
}

impl State {
    /// How many reads may go out together.
    fn group_max(&self) -> usize {
        let has_batches = self.batches_from.is_some_and(|from| now() >= from);
        if has_batches { BATCH_MAX } else { 1 }
    }

    fn succeeded(&mut self, request: &GetSecretValue, sent: Instant) {
        self.answered += 1;
        self.limiter.passed(now());
        self.breaker.close(sent);
        self.queue.let_join(request);
    }

    /// A secret was refused, or the service is out of order: neither is the identity's fault.
    fn failed(&mut self, request: GetSecretValue, class: Class, sent: Instant) {
        if matches!(
            class,
            Class::NotFound
                | Class::Denied
                | Class::Key
                | Class::Rejected
                | Class::Account
                | Class::Instance
        ) {
            // KMS knew who asked.
            self.breaker.close(sent);
            self.queue.keep_apart(request);
        } else {
            self.breaker.learn_nothing();
        }
    }

    /// Opens the breaker, and answers those who wait: they would only learn the same.
    fn open_breaker(&mut self, error: &Error, sent: Instant) -> Vec<Asker> {
        self.breaker.open(error, sent, now());
        self.take_askers()
    }

    /// Everybody who waits for a read that was not sent.
    fn take_askers(&mut self) -> Vec<Asker> {
        self.throttled.clear();
        self.queue.take_askers()
    }
}

/// The monotonic clock of the runtime, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::super::queue::QUIET;
    use super::*;
    use crate::alibaba::Refusal;
    use crate::alibaba::secret_name::plain_name;
    use crate::alibaba::secret_value::Facts;
    use std::collections::HashSet;

    /// What a reader did: each call with the names that it was for.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<Vec<String>>>>);

    impl Log {
        fn note(&self, requests: &[GetSecretValue]) {
            let names = requests
                .iter()
                .map(|request| request.secret_name.clone())
                .collect();
            self.0.lock().unwrap().push(names);
        }

        fn calls(&self) -> Vec<Vec<String>> {
            self.0.lock().unwrap().clone()
        }
    }

    fn value(name: &str) -> SecretValue {
        SecretValue {
            secret_name: name.into(),
            facts: Facts::default(),
            data: name.into(),
            extended_config: None,
        }
    }

    fn refusal(code: &str) -> Error {
        Error::Refused(Box::new(Refusal::of_code(400, Some(code))))
    }

    /// A KMS that answers in 5 ms; a name that is an error code is refused with it.
    fn answer(name: &str) -> Result<SecretValue, Error> {
        let name = plain_name(name);
        if name.contains('.') {
            Err(refusal(name))
        } else {
            Ok(value(name))
        }
    }

    fn reader(batch: bool, log: &Log) -> Arc<Reader> {
        Reader::new(setup(batch, log))
    }

    fn setup(batch: bool, log: &Log) -> Setup {
        let (one, many) = (log.clone(), log.clone());
        Setup {
            per_second: 10_000.0,
            batch,
            is_instance: false,
            read_one: Box::new(move |request| {
                one.note(std::slice::from_ref(&request));
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    answer(&request.secret_name)
                })
            }),
            read_many: Box::new(move |requests| {
                many.note(&requests);
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Batch::Answered(
                        requests
                            .iter()
                            .map(|request| Some(answer(&request.secret_name)))
                            .collect(),
                    )
                })
            }),
        }
    }

    async fn read(
        reader: &Arc<Reader>,
        name: &str,
        rank: Rank,
        tenant: &str,
    ) -> Result<(), String> {
        let request = GetSecretValue {
            secret_name: name.into(),
            ..GetSecretValue::default()
        };
        let wish = Wish {
            request,
            rank,
            tenant: Arc::from(tenant),
            has_followers: false,
        };
        let answer = reader.read(wish).await;
        answer.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn read_all(reader: &Arc<Reader>, names: &[String]) -> Vec<Result<(), String>> {
        let reads = names
            .iter()
            .map(|name| read(reader, name, Rank::Urgent, "t"));
        futures::future::join_all(reads).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_wishes_for_two_hundred_secrets_are_ten_calls() {
        let log = Log::default();
        let reader = reader(true, &log);
        let names: Vec<String> = (0..1000).map(|n| format!("s{}", n % 200)).collect();
        assert!(read_all(&reader, &names).await.iter().all(Result::is_ok));
        let calls = log.calls();
        assert_eq!(calls.iter().map(Vec::len).sum::<usize>(), 200);
        assert_eq!(calls.len(), 10);
        assert!(calls.iter().all(|call| call.len() <= BATCH_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_joined_until_it_is_sent_and_not_after() {
        let log = Log::default();
        let reader = reader(false, &log);
        let first = tokio::spawn({
            let reader = Arc::clone(&reader);
            async move { read(&reader, "a", Rank::Urgent, "t").await }
        });
        tokio::time::sleep(QUIET * 2).await;
        read(&reader, "a", Rank::Urgent, "t").await.unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(
            log.calls().len(),
            2,
            "the second wish is younger than the first call"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_followers_does_not_wait_for_those_of_another() {
        let log = Log::default();
        let (reader, began) = (reader(true, &log), now());
        let followed = reader.read(Wish {
            request: GetSecretValue {
                secret_name: "a".into(),
                ..GetSecretValue::default()
            },
            rank: Rank::Urgent,
            tenant: Arc::from("t"),
            has_followers: true,
        });
        let last = async {
            tokio::time::sleep(QUIET * 5).await;
            read(&reader, "b", Rank::Urgent, "t").await
        };
        let (first, last) = futures::join!(followed, last);
        assert!(first.is_ok() && last.is_ok());
        assert_eq!(log.calls(), [["a", "b"]]);
        assert!(now().duration_since(began) < Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_holds_one_item_of_a_name() {
        let log = Log::default();
        let reader = reader(true, &log);
        let request = |name: &str, stage: &str| GetSecretValue {
            secret_name: name.into(),
            version_stage: Some(stage.into()),
            ..GetSecretValue::default()
        };
        let tenant: Arc<str> = Arc::from("t");
        let wishes = [
            request("first", "x"),
            request("a", "ACSCurrent"),
            request("a", "ACSPrevious"),
            request("acs:kms:cn-hangzhou:1:secret/a", "ACSCurrent"),
            request("b", "ACSCurrent"),
        ];
        let reads = wishes.into_iter().map(|request| {
            reader.read(Wish {
                request,
                rank: Rank::Urgent,
                tenant: Arc::clone(&tenant),
                has_followers: false,
            })
        });
        assert!(
            futures::future::join_all(reads)
                .await
                .iter()
                .all(Result::is_ok)
        );
        for call in log.calls() {
            let plain: HashSet<_> = call.iter().map(|name| plain_name(name)).collect();
            assert_eq!(plain.len(), call.len(), "{call:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns_and_what_is_urgent_goes_first() {
        let log = Log::default();
        let reader = reader(false, &log);
        reader.lock().in_flight = IN_FLIGHT_MAX;
        let mut wishes = Vec::new();
        for (name, rank, tenant) in [
            ("a1", Rank::Later, "a"),
            ("a2", Rank::Later, "a"),
            ("a3", Rank::Later, "a"),
            ("b1", Rank::Later, "b"),
            ("c1", Rank::Urgent, "c"),
        ] {
            wishes.push(read(&reader, name, rank, tenant));
        }
        let opened = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            reader.lock().in_flight = 0;
            reader.pump();
        };
        futures::join!(futures::future::join_all(wishes), opened);
        let order: Vec<String> = log.calls().concat();
        assert_eq!(order, ["c1", "a1", "b1", "a2", "a3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn bad_credentials_cost_a_handful_of_calls_whoever_asks() {
        let log = Log::default();
        let reader = reader(false, &log);
        let names: Vec<String> = (0..500)
            .map(|_| "InvalidAccessKeyId.NotFound".to_owned())
            .collect();
        for _ in 0..60 {
            let answers = read_all(&reader, &names).await;
            assert!(answers.iter().all(|answer| {
                answer
                    .as_ref()
                    .is_err_and(|said| said.contains("InvalidAccessKeyId"))
            }));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(
            log.calls().len() <= 5,
            "{} calls in a minute",
            log.calls().len()
        );
        let forced = read(&reader, "good", Rank::Forced, "t").await;
        assert_eq!(forced, Ok(()), "who mended it by hand does not wait");
        assert_eq!(
            read(&reader, "good", Rank::Later, "t").await,
            Ok(()),
            "and the breaker is closed for all"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_denied_secret_does_not_stall_the_others() {
        let log = Log::default();
        let reader = reader(true, &log);
        let mut names: Vec<String> = (0..30).map(|n| format!("s{n}")).collect();
        names.push("Forbidden.NoPermission".into());
        for _ in 0..3 {
            let answers = read_all(&reader, &names).await;
            assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
        }
        let together = log
            .calls()
            .into_iter()
            .skip(3)
            .filter(|call| call.len() > 1);
        let spoiled = together
            .filter(|call| call.iter().any(|name| name.contains('.')))
            .count();
        assert!(spoiled <= 1, "what failed last time goes alone");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_without_batches_is_read_singly_for_a_day() {
        let log = Log::default();
        let (one, many) = (log.clone(), log.clone());
        let reader = Reader::new(Setup {
            per_second: 10_000.0,
            batch: true,
            is_instance: false,
            read_one: Box::new(move |request| {
                one.note(std::slice::from_ref(&request));
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Ok(value(&request.secret_name))
                })
            }),
            read_many: Box::new(move |requests| {
                many.note(&requests);
                Box::pin(async { Batch::Unknown })
            }),
        });
        let names: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
        for _ in 0..2 {
            assert!(read_all(&reader, &names).await.iter().all(Result::is_ok));
        }
        let batches = log.calls().iter().filter(|call| call.len() > 1).count();
        assert!(
            batches <= 5,
            "{batches}: those that were on their way when the first was refused"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_delays_nobody_else() {
        let reader = Reader::new(Setup {
            per_second: 10_000.0,
            batch: true,
            is_instance: false,
            read_one: Box::new(|request| {
                Box::pin(async move {
                    let takes = if request.secret_name == "slow" {
                        30_000
                    } else {
                        5
                    };
                    tokio::time::sleep(Duration::from_millis(takes)).await;
                    Ok(value(&request.secret_name))
                })
            }),
            read_many: Box::new(|_| Box::pin(async { Batch::Unknown })),
        });
        let slow = tokio::spawn({
            let reader = Arc::clone(&reader);
            async move { read(&reader, "slow", Rank::Later, "a").await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        let began = now();
        read(&reader, "quick", Rank::Urgent, "b").await.unwrap();
        assert!(now().duration_since(began) < Duration::from_millis(100));
        slow.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_denied_secret_does_not_spoil_the_batches_of_others() {
        let log = Log::default();
        let reader = reader(true, &log);
        assert!(
            read(&reader, "Forbidden.NoPermission", Rank::Later, "t")
                .await
                .is_err()
        );
        let mut names: Vec<String> = (0..400).map(|n| format!("s{n}")).collect();
        names.insert(200, "Forbidden.NoPermission".into());
        let reads = names
            .iter()
            .map(|name| read(&reader, name, Rank::Urgent, "t"));
        let answers = futures::future::join_all(reads).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
        assert!(log.calls().len() <= 25, "{} calls", log.calls().len());
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_reads_are_batched_again() {
        let log = Log::default();
        let is_down = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (many, down) = (log.clone(), Arc::clone(&is_down));
        let reader = Reader::new(Setup {
            per_second: 10_000.0,
            batch: true,
            is_instance: false,
            read_one: Box::new(|request| Box::pin(async move { answer(&request.secret_name) })),
            read_many: Box::new(move |requests| {
                many.note(&requests);
                let down = down.load(std::sync::atomic::Ordering::Relaxed);
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    if down {
                        return Batch::Failed(Error::Timeout);
                    }
                    Batch::Answered(
                        requests
                            .iter()
                            .map(|request| Some(answer(&request.secret_name)))
                            .collect(),
                    )
                })
            }),
        });
        let names: Vec<String> = (0..400).map(|n| format!("s{n}")).collect();
        assert!(read_all(&reader, &names).await.iter().any(Result::is_err));
        is_down.store(false, std::sync::atomic::Ordering::Relaxed);
        let before = log.calls().len();
        assert!(read_all(&reader, &names).await.iter().all(Result::is_ok));
        assert!(log.calls().len() - before >= 19, "they went in batches");
    }

    #[tokio::test(start_paused = true)]
    async fn what_concerns_another_instance_or_account_holds_up_nobody_else() {
        let state = "Forbidden.DKMSInstanceStateInvalid";
        let arn = "acs:kms:cn-hangzhou:2:secret/Forbidden.InDebt";
        for (name, is_instance, is_held_up) in [
            (state, false, false),
            (state, true, true),
            (arn, false, false),
            ("Forbidden.InDebt", false, true),
        ] {
            let mut setup = setup(true, &Log::default());
            setup.is_instance = is_instance;
            let reader = Reader::new(setup);
            assert!(read(&reader, name, Rank::Urgent, "t").await.is_err());
            let next = read(&reader, "good", Rank::Urgent, "u").await;
            assert_eq!(next.is_err(), is_held_up, "{name} {is_instance}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_refused_for_its_secret_closes_the_breaker() {
        let log = Log::default();
        let reader = reader(false, &log);
        assert!(
            read(&reader, "InvalidAccessKeyId.NotFound", Rank::Urgent, "t")
                .await
                .is_err()
        );
        let probe = read(&reader, "Forbidden.ResourceNotFound", Rank::Forced, "t").await;
        assert!(probe.unwrap_err().contains("ResourceNotFound"));
        assert_eq!(read(&reader, "good", Rank::Later, "t").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_failures_is_bounded() {
        let log = Log::default();
        let reader = reader(false, &log);
        let names: Vec<String> = (0..2000).map(|n| format!("Unknown.{n}")).collect();
        read_all(&reader, &names).await;
        let state = reader.lock();
        assert!(state.throttled.is_empty() && state.in_flight == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_reader_sends_nothing_more() {
        let log = Log::default();
        let reader = reader(false, &log);
        reader.lock().in_flight = IN_FLIGHT_MAX;
        let closed = async {
            tokio::time::sleep(QUIET).await;
            reader.close();
            reader.lock().in_flight = 0;
            reader.pump();
        };
        let (waiting, ()) = futures::join!(read(&reader, "a", Rank::Urgent, "t"), closed);
        let late = read(&reader, "b", Rank::Forced, "t").await;
        assert!(waiting.is_err() && late.is_err());
        assert!(log.calls().is_empty());
    }

    /// A service that answers as it is told to, a moment after it was asked.
    fn service(
        log: &Log,
        per_second: f64,
        refuse: impl Fn() -> Option<Error> + Send + Sync + 'static,
    ) -> Arc<Reader> {
        let (log, refuse) = (log.clone(), Arc::new(refuse));
        Reader::new(Setup {
            per_second,
            batch: false,
            is_instance: false,
            read_one: Box::new(move |request| {
                log.note(std::slice::from_ref(&request));
                let refuse = Arc::clone(&refuse);
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    refuse().map_or_else(|| Ok(value(&request.secret_name)), Err)
                })
            }),
            read_many: Box::new(|_| Box::pin(async { Batch::Unknown })),
        })
    }

    fn refused(status: u16, code: &str, retry_after: Option<Duration>) -> Error {
        let refusal = Refusal {
            retry_after,
            ..Refusal::of_code(status, Some(code))
        };
        Error::Refused(Box::new(refusal))
    }

    /// Each of a hundred objects asks until it has its value, as often as objects ask.
    async fn until_all_read(reader: &Arc<Reader>) {
        let asking = (0..100).map(async |n| {
            let name = format!("s{n}");
            while read(reader, &name, Rank::Later, "t").await.is_err() {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
        });
        futures::future::join_all(asking).await;
    }

    #[tokio::test(start_paused = true)]
    async fn minutes_of_throttling_cost_few_calls_and_pass_by_themselves() {
        for hint in [
            None,
            Some(Duration::from_millis(500)),
            Some(Duration::from_secs(20)),
        ] {
            let (log, until) = (Log::default(), now() + Duration::from_secs(300));
            let reader = service(&log, 100.0, move || {
                (now() < until).then(|| refused(429, "Throttling.User", hint))
            });
            until_all_read(&reader).await;
            let calls = log.calls().len() - 100;
            assert!(
                calls <= 200,
                "{calls} calls were refused in five minutes, with {hint:?}"
            );
            let late = now().duration_since(until);
            assert!(
                late < Duration::from_secs(240),
                "{late:?} after it was over, with {hint:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_that_somebody_else_eats_is_shared_without_a_fight() {
        // 50 calls a second for the account, of which others take 48, for ever.
        let (log, begin) = (Log::default(), now());
        let taken = Mutex::new(0.0_f64);
        let reader = service(&log, 100.0, move || {
            let mut taken = taken.lock().unwrap();
            let left = now().duration_since(begin).as_secs_f64() * 2.0 + 2.0 - *taken;
            if left < 1.0 {
                return Some(refused(429, "Throttling.User", None));
            }
            *taken += 1.0;
            None
        });
        until_all_read(&reader).await;
        let calls = log.calls().len();
        assert!(calls <= 250, "{calls} calls for 100 values");
        let took = now().duration_since(begin);
        assert!(
            took < Duration::from_secs(300),
            "{took:?}, where 50 s is the least"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_revoked_and_is_restored_works_again_by_itself() {
        for code in [
            "InvalidAccessKeyId.Inactive",
            "InvalidSecurityToken.Expired",
        ] {
            let (log, until) = (Log::default(), now() + Duration::from_secs(600));
            let reader = service(&log, 100.0, move || {
                (now() < until).then(|| refused(403, code, None))
            });
            until_all_read(&reader).await;
            let calls = log.calls().len() - 100;
            // The first burst, which nobody could know of, and then one whenever it may have been mended.
            assert!(calls <= 28, "{calls} calls with a key that is revoked");
            let late = now().duration_since(until);
            assert!(
                late < Duration::from_secs(360),
                "{late:?} after it was restored"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_reads_are_tried_again_and_then_told() {
        let log = Log::default();
        let reader = reader(false, &log);
        let said = read(&reader, "Throttling.User", Rank::Urgent, "t")
            .await
            .unwrap_err();
        assert!(said.contains("Throttling.User"));
        assert_eq!(log.calls().len(), usize::from(THROTTLED_MAX));
        assert!(reader.glance().rate < 10_000.0);
    }
}
