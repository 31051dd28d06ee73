//! Alibaba Cloud's RPC gateway: what a call needs, and what a refusal means.
//!
//! Nothing below this module knows Kubernetes or the custom resources: it could be lifted out as a crate.

pub mod answer;
pub mod assume_role;
pub mod batch;
pub mod breaker;
pub mod chain;
pub mod client;
pub mod credentials;
pub mod endpoint;
pub mod environment;
mod error;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod identity;
pub mod kms;
pub mod limiter;
pub mod metadata;
pub mod notice;
mod queue;
pub mod reader;
pub mod secret_name;
pub mod secret_value;
pub mod sign;
pub mod sts;
pub mod turns;

use secrecy::SecretString;

pub use error::{Class, Denial, Error, Refusal, label};

/// An access key, permanent or of a session.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The `AccessKey` id; not secret, but never shown either.
    pub id: SecretString,
    /// The `AccessKey` secret.
    pub secret: SecretString,
    /// The token of an STS session.
    pub security_token: Option<SecretString>,
}

/// The signature methods of the gateway (protocol of 2015, still accepted, and the current one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureMethod {
    /// `ACS3-HMAC-SHA256`: everything in headers.
    V3,
    /// HMAC-SHA1 over the parameters: everything in the query.
    V1,
}

/// One operation with its parameters, not yet signed.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Name of the operation, as `GetSecretValue`.
    pub action: &'static str,
    /// Version of the API, as `2016-01-20`.
    pub version: &'static str,
    /// The operation's own parameters.
    pub parameters: Vec<(&'static str, String)>,
    /// Parameters that go into the body, as a form: no URL may hold them.
    pub form: Vec<(&'static str, SecretString)>,
}
