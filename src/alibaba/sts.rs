//! STS, typed: one function an operation, all at one pace.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};

use super::assume_role::{
    self, Hop, Session, Wish, assume_role_with_oidc, get_caller_identity, read_caller, read_session,
};
use super::client::{Answer, Client, Endpoint};
use super::limiter::Limiter;
use super::{AccessKey, Class, Error, Operation, SignatureMethod};

/// Exchanges a second, of all stores together.
pub const PER_SECOND: f64 = 20.0;

/// STS, as everything in this process shares it.
pub struct Sts {
    client: Arc<Client>,
    limiter: Mutex<Limiter>,
}

impl Sts {
    /// STS, by way of `client`.
    #[must_use]
    pub fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            limiter: Mutex::new(Limiter::new(PER_SECOND, now())),
        }
    }

    /// At most `per_second` exchanges a second from now on: others share the pace.
    pub fn retune(&self, per_second: f64) {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.retune(per_second);
    }

    /// Assumes a role by the credentials in hand. Signed by V1, as the official SDKs do.
    ///
    /// # Errors
    /// The refusal, or what else came instead of an answer.
    pub async fn assume_role(
        &self,
        endpoint: &Endpoint,
        key: &AccessKey,
        hop: &Hop,
    ) -> Result<Session, Error> {
        let answer = self
            .call(endpoint, Some(key), &assume_role::assume_role(hop))
            .await?;
        read_session(answer.body.expose_secret(), answer.given)
    }

    /// Assumes a role by a token of an OIDC provider.
    ///
    /// # Errors
    /// The refusal, or what else came instead of an answer.
    pub async fn assume_role_with_oidc(
        &self,
        endpoint: &Endpoint,
        provider_arn: &str,
        role_arn: &str,
        token: &SecretString,
        wish: &Wish,
    ) -> Result<Session, Error> {
        let operation = assume_role_with_oidc(provider_arn, role_arn, token, wish);
        let answer = self.call(endpoint, None, &operation).await?;
        read_session(answer.body.expose_secret(), answer.given)
    }

    /// The ARN of whoever the credentials in hand belong to.
    ///
    /// # Errors
    /// The refusal, or what else came instead of an answer.
    pub async fn get_caller_identity(
        &self,
        endpoint: &Endpoint,
        key: &AccessKey,
    ) -> Result<String, Error> {
        let answer = self
            .call(endpoint, Some(key), &get_caller_identity())
            .await?;
        read_caller(answer.body.expose_secret())
    }

    async fn call(
        &self,
        endpoint: &Endpoint,
        key: Option<&AccessKey>,
        operation: &Operation,
    ) -> Result<Answer, Error> {
        while let Some(wait) = self.take_turn() {
            tokio::time::sleep(wait).await;
        }
        let sent = now();
        let client = &self.client;
        let result = match key {
            Some(key) => {
                let method = SignatureMethod::V1;
                client.call(endpoint, key, method, operation).await
            }
            None => client.call_unsigned(endpoint, operation).await,
        };
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Err(error) if error.class() == Class::Throttled => {
                limiter.throttled(sent, error.retry_after(), now());
            }
            Ok(_) => limiter.passed(now()),
            Err(_) => {}
        }
        drop(limiter);
        result
    }

    /// Takes a call's place; `Some`: there is none before so long.
    fn take_turn(&self) -> Option<Duration> {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = limiter.wait(now());
        if wait.is_none() {
            limiter.take(1, now());
        }
        wait
    }
}

/// The monotonic clock of the runtime, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_stores_together_keep_one_pace() {
        let client = Client::new(|| jiff::Timestamp::UNIX_EPOCH, |_| ()).unwrap();
        let sts = Sts::new(Arc::new(client));
        let began = now();
        for _ in 0..120 {
            while let Some(wait) = sts.take_turn() {
                tokio::time::sleep(wait).await;
            }
        }
        let took = now().duration_since(began).as_secs_f64();
        assert!(
            (4.5..5.5).contains(&took),
            "{took} s for 120 after a burst of 20"
        );
    }
}
