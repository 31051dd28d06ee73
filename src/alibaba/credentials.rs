//! The credentials of one identity: exchanged once however many wait, renewed ahead, and used as long as they are good.
//!
//! There is one of these for each credential object, never for a key, an ARN or a name: two that look alike share
//! nothing.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::assume_role::Session;
use super::{AccessKey, Class, Error};

/// No two exchanges of one identity are closer than this, unless the first one failed.
const EXCHANGE_MIN: Duration = Duration::from_secs(60);
/// After a failure that passes by itself: doubling, from and to.
const OUTAGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// After one that somebody has to mend.
const REFUSAL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));
/// After one that is seen in the cluster itself: looking again is cheap, and the one who mends it waits.
const WITHDRAWAL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Goes the whole way to a session once.
pub type Exchange = Box<dyn Fn() -> BoxFuture<'static, Result<Session, Error>> + Send + Sync>;

type Renewal = Shared<BoxFuture<'static, Result<Arc<AccessKey>, Error>>>;

/// The credentials of one identity.
pub struct Credentials {
    /// For the log.
    name: String,
    /// None: the key is permanent, or as good as that.
    exchange: Option<Exchange>,
    /// Spreads renewals.
    hash: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    under_way: Option<Renewal>,
    /// No exchange before.
    not_before: Option<Instant>,
    /// Why there is nothing else: the last exchange failed, or KMS refused what it gave.
    error: Option<Error>,
    failures: u32,
}

struct Held {
    key: Arc<AccessKey>,
    /// When to renew it, and when it ends; `None`: never.
    ends: Option<(Instant, Instant)>,
}

impl Credentials {
    /// A key that nothing can renew.
    #[must_use]
    pub fn fixed(key: AccessKey) -> Arc<Self> {
        let held = Held {
            key: Arc::new(key),
            ends: None,
        };
        Arc::new(Self {
            name: String::new(),
            exchange: None,
            hash: 0,
            state: Mutex::new(State {
                held: Some(held),
                ..State::default()
            }),
        })
    }

    /// Credentials that are exchanged at their first use. `name` says in the log whose they are, and `hash` spreads
    /// renewals of many.
    #[must_use]
    pub fn exchanged(name: String, hash: u64, exchange: Exchange) -> Arc<Self> {
        Arc::new(Self {
            name,
            exchange: Some(exchange),
            hash,
            state: Mutex::default(),
        })
    }

    /// Makes a call, with new credentials once more if the service refuses the session of those in hand.
    ///
    /// # Errors
    /// Those of the call, or [`Error::Identity`] when there are no credentials.
    pub async fn call<T, F>(
        self: &Arc<Self>,
        call: impl Fn(Arc<AccessKey>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let key = self.key().await?;
        match call(Arc::clone(&key)).await {
            Err(error) if error.class() == Class::SecurityToken => {
                call(self.renew(&key, error).await?).await
            }
            result => result,
        }
    }

    /// The key to sign with now. Waits only while there is none that is still good.
    async fn key(self: &Arc<Self>) -> Result<Arc<AccessKey>, Error> {
        let renewal = {
            let (mut state, now) = (self.lock(), Instant::now());
            if let Some((key, is_due)) = state.good(now) {
                if is_due {
                    // Not yet, after a failure: the one in hand serves.
                    let _ = self.begin(&mut state, now);
                }
                return Ok(key);
            }
            self.begin(&mut state, now)?
        };
        renewal.await
    }

    /// Another key, after the service refused this one's session with `error`; that error, if it is too early.
    async fn renew(
        self: &Arc<Self>,
        refused: &Arc<AccessKey>,
        error: Error,
    ) -> Result<Arc<AccessKey>, Error> {
        if self.exchange.is_none() {
            return Err(error);
        }
        {
            let mut state = self.lock();
            let is_held = |held: &Held| Arc::ptr_eq(&held.key, refused);
            if state.held.as_ref().is_some_and(is_held) {
                state.held = None;
                state.error = Some(error);
            }
        }
        self.key().await
    }

    /// Begins an exchange, or joins the one under way. It goes on even if nobody waits for it any more.
    fn begin(self: &Arc<Self>, state: &mut State, now: Instant) -> Result<Renewal, Error> {
        // One that ended is here only if it panicked.
        if let Some(renewal) = state.under_way.as_ref().filter(|it| it.peek().is_none()) {
            return Ok(renewal.clone());
        }
        if state.not_before.is_some_and(|at| now < at) {
            let too_short = || Error::Malformed("the session ended within a minute".into());
            return Err(state.error.clone().unwrap_or_else(too_short));
        }
        let me = Arc::clone(self);
        let task = tokio::spawn(async move {
            let result = match &me.exchange {
                Some(exchange) => exchange().await,
                None => Err(Error::Unreachable("there is nothing to exchange")),
            };
            me.settle(result, now)
        });
        let stopping = |_| Err(Error::Unreachable("the operator is stopping"));
        let renewal = task.map(move |joined| joined.unwrap_or_else(stopping));
        let renewal = renewal.boxed().shared();
        state.under_way = Some(renewal.clone());
        Ok(renewal)
    }

    /// Takes in how an exchange ended. A session counts from when the exchange began, since it may have been given right
    /// then.
    fn settle(
        &self,
        result: Result<Session, Error>,
        began: Instant,
    ) -> Result<Arc<AccessKey>, Error> {
        let (mut state, now) = (self.lock(), Instant::now());
        state.under_way = None;
        match result {
            Ok(session) => {
                tracing::info!(store = self.name, identity = session.arn, lifetime = ?session.lifetime, "new credentials");
                let key = Arc::new(session.key);
                let ends = session
                    .lifetime
                    .map(|lifetime| (began + renew_after(lifetime, self.hash), began + lifetime));
                state.held = Some(Held {
                    key: Arc::clone(&key),
                    ends,
                });
                state.not_before = Some(now + EXCHANGE_MIN);
                (state.error, state.failures) = (None, 0);
                Ok(key)
            }
            Err(error) => {
                tracing::warn!(
                    store = self.name,
                    code = error.code(),
                    "no new credentials: {error}"
                );
                let is_withdrawn = matches!(&error, Error::Identity(no) if no.is_withdrawn());
                if is_withdrawn {
                    // It may not be used: that holds for what it gave before, too.
                    state.held = None;
                }
                state.failures += 1;
                let pause = pause(&error, is_withdrawn, state.failures);
                state.not_before = Some(now + pause);
                state.error = Some(error.clone());
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The key in hand, if it is still good, and whether it should be renewed.
    fn good(&self, now: Instant) -> Option<(Arc<AccessKey>, bool)> {
        let held = self.held.as_ref()?;
        let is_due = match held.ends {
            Some((_, end)) if now >= end => return None,
            Some((renew, _)) => now >= renew,
            None => false,
        };
        Some((Arc::clone(&held.key), is_due))
    }
}

/// After about three quarters of its life; not all on the same second.
fn renew_after(lifetime: Duration, hash: u64) -> Duration {
    let part = 700 + u32::try_from(hash % 100).unwrap_or_default();
    lifetime * part / 1000
}

fn pause(error: &Error, is_withdrawn: bool, failures: u32) -> Duration {
    let (least, most) = match error.class() {
        _ if is_withdrawn => WITHDRAWAL,
        Class::Unavailable => OUTAGE,
        _ => REFUSAL,
    };
    let pause = least * 2u32.pow(failures.saturating_sub(1).min(8));
    pause.min(most).max(error.retry_after().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::Refusal;
    use crate::alibaba::identity::{Cause, NoIdentity, NoProof, Step};
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;
    use std::collections::VecDeque;

    /// An STS that takes 100 ms, and answers with a session of an hour unless told otherwise.
    #[derive(Clone, Default)]
    struct Sts {
        count: Arc<Mutex<usize>>,
        answers: Arc<Mutex<VecDeque<Result<Duration, Error>>>>,
    }

    impl Sts {
        fn will(&self, answer: Result<Duration, Error>) {
            self.answers.lock().unwrap().push_back(answer);
        }

        fn count(&self) -> usize {
            *self.count.lock().unwrap()
        }

        fn credentials(&self) -> Arc<Credentials> {
            let sts = self.clone();
            let exchange = move || {
                let sts = sts.clone();
                async move {
                    let answer = sts.answers.lock().unwrap().pop_front();
                    let count = {
                        let mut count = sts.count.lock().unwrap();
                        *count += 1;
                        *count
                    };
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let lifetime = answer.unwrap_or(Ok(HOUR))?;
                    Ok(Session {
                        key: key(&format!("STS.{count}")),
                        lifetime: Some(lifetime),
                        arn: None,
                    })
                }
                .boxed()
            };
            Credentials::exchanged("shop/prod".into(), 0, Box::new(exchange))
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(id: &str) -> AccessKey {
        AccessKey {
            id: id.into(),
            secret: "secret".into(),
            security_token: Some("token".into()),
        }
    }

    fn refused(code: &str) -> Error {
        Error::Refused(Box::new(Refusal::of_code(400, Some(code))))
    }

    fn at_a_hop(error: Error) -> Error {
        Error::Identity(Box::new(NoIdentity {
            step: Step::Hop(0, "acs:ram::1:role/a".into()),
            cause: Cause::Call(error),
        }))
    }

    /// The id of the key that a call is made with.
    async fn used(credentials: &Arc<Credentials>) -> Result<String, String> {
        let used = |key: Arc<AccessKey>| async move { Ok(key.id.expose_secret().to_owned()) };
        credentials
            .call(used)
            .await
            .map_err(|error| error.to_string())
    }

    /// A call that the service refuses the sessions of these keys in.
    async fn called(credentials: &Arc<Credentials>, expired: &[&str]) -> Result<String, String> {
        let call = |key: Arc<AccessKey>| async move {
            let id = key.id.expose_secret().to_owned();
            if expired.contains(&id.as_str()) {
                Err(refused("InvalidSecurityToken.Expired"))
            } else {
                Ok(id)
            }
        };
        credentials
            .call(call)
            .await
            .map_err(|error| error.to_string())
    }

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_wait_there_is_one_exchange() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        let uses = (0..100).map(|_| used(&credentials));
        let keys = futures::future::join_all(uses).await;
        assert!(keys.iter().all(|key| key.as_deref() == Ok("STS.1")));
        assert_eq!(sts.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_renewal() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        used(&credentials).await.unwrap();
        pass(HOUR * 69 / 100).await;
        assert_eq!(used(&credentials).await.unwrap(), "STS.1");
        assert_eq!(sts.count(), 1, "not yet");
        pass(HOUR * 2 / 100).await;
        let asked = Instant::now();
        assert_eq!(used(&credentials).await.unwrap(), "STS.1", "the old one");
        assert_eq!(Instant::now(), asked);
        pass(Duration::from_secs(1)).await;
        assert_eq!(used(&credentials).await.unwrap(), "STS.2");
        assert_eq!(sts.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_is_not_renewed() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        used(&credentials).await.unwrap();
        pass(HOUR * 10).await;
        assert_eq!(sts.count(), 1);
        assert_eq!(used(&credentials).await.unwrap(), "STS.2");
    }

    #[tokio::test(start_paused = true)]
    async fn while_sts_is_down_the_old_ones_serve_to_their_last_second() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        used(&credentials).await.unwrap();
        for _ in 0..1000 {
            sts.will(Err(at_a_hop(Error::Timeout)));
        }
        pass(HOUR * 3 / 4).await;
        while Instant::now() + Duration::from_secs(1)
            < credentials
                .lock()
                .held
                .as_ref()
                .and_then(|held| held.ends)
                .unwrap()
                .1
        {
            assert_eq!(used(&credentials).await.unwrap(), "STS.1");
            pass(Duration::from_secs(1)).await;
        }
        assert!((2..30).contains(&sts.count()), "{} exchanges", sts.count());
        pass(Duration::from_secs(1)).await;
        assert!(used(&credentials).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_the_service_refuses_is_exchanged_once_and_the_call_made_again() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        used(&credentials).await.unwrap();
        pass(EXCHANGE_MIN).await;
        let calls = (0..50).map(|_| called(&credentials, &["STS.1"]));
        let keys = futures::future::join_all(calls).await;
        assert!(keys.iter().all(|key| key.as_deref() == Ok("STS.2")));
        assert_eq!(sts.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_refuses_every_session_costs_an_exchange_a_minute() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        let names: Vec<String> = (0..100).map(|n| format!("STS.{n}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        for _ in 0..300 {
            let said = called(&credentials, &all).await.unwrap_err();
            assert!(said.contains("InvalidSecurityToken.Expired"), "{said}");
            pass(Duration::from_secs(1)).await;
        }
        assert!(
            sts.count() <= 6,
            "{} exchanges in five minutes",
            sts.count()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_too_early_after_a_refusal_hears_it_again() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        for _ in 0..100 {
            sts.will(Err(at_a_hop(refused("NoPermission"))));
        }
        for _ in 0..600 {
            let said = used(&credentials).await.unwrap_err();
            assert!(said.contains("assumeRole[0] acs:ram::1:role/a"), "{said}");
            pass(Duration::from_secs(1)).await;
        }
        assert!(sts.count() <= 4, "{} exchanges in ten minutes", sts.count());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_over_soon_after_it_is_over() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        for _ in 0..3 {
            sts.will(Err(at_a_hop(Error::Timeout)));
        }
        let began = Instant::now();
        while used(&credentials).await.is_err() {
            pass(Duration::from_millis(500)).await;
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_consent_that_is_withdrawn_takes_what_it_gave() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        used(&credentials).await.unwrap();
        sts.will(Err(Error::Identity(Box::new(NoIdentity {
            step: Step::Proof,
            cause: Cause::Proof(NoProof {
                class: Class::Denied,
                what: "no consent".into(),
                action: String::new(),
            }),
        }))));
        pass(HOUR * 3 / 4).await;
        used(&credentials).await.unwrap();
        pass(Duration::from_secs(1)).await;
        assert_eq!(used(&credentials).await.unwrap_err(), "no consent");
        pass(Duration::from_secs(2)).await;
        assert!(used(&credentials).await.is_ok(), "and it is given again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_over_at_once_is_no_reason_to_hurry() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        for _ in 0..100 {
            sts.will(Ok(Duration::from_secs(2)));
        }
        for _ in 0..120 {
            let _ = used(&credentials).await;
            pass(Duration::from_secs(1)).await;
        }
        assert!(sts.count() <= 3, "{} exchanges in two minutes", sts.count());
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_goes_on_when_the_one_who_asked_is_gone() {
        let sts = Sts::default();
        let credentials = sts.credentials();
        let gone = tokio::time::timeout(Duration::from_millis(10), used(&credentials)).await;
        assert!(gone.is_err());
        pass(Duration::from_secs(1)).await;
        assert_eq!(used(&credentials).await.unwrap(), "STS.1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_key_is_refused_as_it_is() {
        let credentials = Credentials::fixed(key("LTAI"));
        assert_eq!(used(&credentials).await.unwrap(), "LTAI");
        let said = called(&credentials, &["LTAI"]).await.unwrap_err();
        assert!(said.contains("InvalidSecurityToken"));
    }

    proptest! {
        #[test]
        fn renewals_are_spread_around_three_quarters(seconds in 60u64..43_200, hash in any::<u64>()) {
            let after = renew_after(Duration::from_secs(seconds), hash).as_secs_f64();
            let whole = Duration::from_secs(seconds).as_secs_f64();
            prop_assert!((0.7..=0.8).contains(&(after / whole)));
        }
    }
}
