//! KMS, typed: one function an operation.

use secrecy::ExposeSecret as _;

use super::client::Client;
use super::endpoint::Origin;
use super::secret_value::{GetSecretValue, SecretValue, operation, read_secret_value};
use super::{AccessKey, Error, SignatureMethod};

/// Reads a secret.
///
/// # Errors
/// The service's refusal, or what else came instead of an answer.
pub async fn get_secret_value(
    client: &Client,
    origin: &Origin,
    key: &AccessKey,
    method: SignatureMethod,
    request: &GetSecretValue,
) -> Result<SecretValue, Error> {
    let answer = client
        .call(origin, key, method, &operation(request))
        .await?;
    read_secret_value(answer.body.expose_secret())
}
