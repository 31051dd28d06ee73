//! KMS, typed: one function an operation.

use secrecy::ExposeSecret as _;

use super::batch::{batch_operation, read_batch};
use super::client::{Client, Endpoint};
use super::secret_value::{GetSecretValue, SecretValue, operation, read_secret_value};
use super::{AccessKey, Class, Error, SignatureMethod};

/// Reads a secret.
///
/// # Errors
/// The service's refusal, or what else came instead of an answer.
pub async fn get_secret_value(
    client: &Client,
    endpoint: &Endpoint,
    key: &AccessKey,
    method: SignatureMethod,
    request: &GetSecretValue,
) -> Result<SecretValue, Error> {
    let answer = client
        .call(endpoint, key, method, &operation(request))
        .await?;
    read_secret_value(answer.body.expose_secret())
}

/// Asks whether a read would succeed, by `DryRun`: KMS then always refuses, and its code says what it would have done.
///
/// # Errors
/// The refusal that a read would meet, or what else came instead of an answer.
pub async fn check_access(
    client: &Client,
    endpoint: &Endpoint,
    key: &AccessKey,
    method: SignatureMethod,
    request: &GetSecretValue,
) -> Result<(), Error> {
    let request = GetSecretValue {
        dry_run: true,
        ..request.clone()
    };
    match client
        .call(endpoint, key, method, &operation(&request))
        .await
    {
        // A gateway that does not know the parameter answers the value, which is dropped.
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("DryRunOperationError") => Ok(()),
        Err(error) => Err(error),
    }
}

/// How a batch ended.
pub enum Batch {
    /// For each request its result; `None`: it must be read alone.
    Answered(Vec<Option<Result<SecretValue, Error>>>),
    /// This endpoint does not know the action.
    Unknown,
    /// The call as a whole failed in a way that would hit every single read too.
    Failed(Error),
}

/// Reads up to [`super::batch::BATCH_MAX`] secrets in one call.
pub async fn batch_get_secret_value(
    client: &Client,
    endpoint: &Endpoint,
    key: &AccessKey,
    method: SignatureMethod,
    requests: &[GetSecretValue],
) -> Batch {
    let called = client
        .call(endpoint, key, method, &batch_operation(requests))
        .await;
    let read = called.and_then(|answer| read_batch(requests, answer.body.expose_secret()));
    match read {
        Ok(items) => Batch::Answered(items),
        Err(error) if is_unknown_action(&error) => Batch::Unknown,
        Err(error) if is_of_one(&error) => Batch::Answered(requests.iter().map(|_| None).collect()),
        Err(error) => Batch::Failed(error),
    }
}

/// Whether one item may be to blame for the whole call, so that each is asked for alone: its secret is of an indebted
/// account or in a stopped instance, or large values make an answer that is too long to be read.
fn is_of_one(error: &Error) -> bool {
    let is_refused = matches!(
        error.class(),
        Class::NotFound
            | Class::Denied
            | Class::Key
            | Class::Rejected
            | Class::Account
            | Class::Instance
    );
    is_refused || matches!(error, Error::Malformed(_))
}

fn is_unknown_action(error: &Error) -> bool {
    let unknown = ["InvalidAction.NotFound", "UnsupportedOperation"];
    error.code().is_some_and(|code| unknown.contains(&code))
}
