//! From what proves who asks to the credentials that are asked for: a base, and roles assumed one after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use secrecy::SecretString;

use super::assume_role::{Hop, Session, Wish};
use super::client::Endpoint;
use super::identity::{Cause, NoIdentity, NoProof, Step};
use super::metadata::Metadata;
use super::sts::Sts;
use super::{AccessKey, Class, Error};

/// A file of a pod is local.
const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// A token, and the role that it is for.
pub struct Proof {
    /// The token of the OIDC provider.
    pub token: SecretString,
    /// ARN of the role.
    pub role_arn: String,
}

/// Brings a new token each time.
pub type Prove = Box<dyn Fn() -> BoxFuture<'static, Result<Proof, NoProof>> + Send + Sync>;

/// Brings the token in a file, which somebody else renews.
#[must_use]
pub fn prove_by_file(role_arn: String, path: PathBuf) -> Prove {
    let of = Arc::new((role_arn, path));
    Box::new(move || {
        let of = Arc::clone(&of);
        async move {
            let (role_arn, path) = &*of;
            let read = tokio::time::timeout(FILE_DEADLINE, tokio::fs::read_to_string(path));
            let why = match read.await {
                Ok(Ok(token)) => {
                    return Ok(Proof {
                        token: token.trim().into(),
                        role_arn: role_arn.clone(),
                    });
                }
                Ok(Err(err)) => err.kind().to_string(),
                Err(_) => "no answer".to_owned(),
            };
            Err(NoProof {
                class: Class::NotFound,
                what: format!(
                    "the operator's token in {} cannot be read ({why})",
                    path.display()
                ),
                action: "cluster administrator: see whether ack-pod-identity-webhook mounts it into the operator's pod"
                    .to_owned(),
            })
        }
        .boxed()
    })
}

/// Where the chain begins.
pub enum Base {
    /// An access key in hand.
    Key(AccessKey),
    /// A token of an OIDC provider, and STS, which takes it.
    Federated {
        /// Where STS is.
        endpoint: Endpoint,
        /// ARN of the OIDC provider.
        provider_arn: String,
        /// The session.
        wish: Wish,
        /// Brings the token.
        prove: Prove,
    },
    /// The role of the instance that this process runs on.
    Instance {
        /// Its metadata service.
        metadata: Arc<Metadata>,
        /// Name of the role; the service names it when left out.
        role: Option<String>,
    },
}

/// The way to credentials.
pub struct Chain {
    /// STS.
    pub sts: Arc<Sts>,
    /// Where it is, for the hops.
    pub endpoint: Endpoint,
    /// Where the chain begins.
    pub base: Base,
    /// The roles that are assumed after it, in order.
    pub hops: Vec<Hop>,
}

impl Chain {
    /// Goes the whole way once.
    ///
    /// # Errors
    /// [`Error::Identity`], naming the step that failed.
    pub async fn exchange(&self) -> Result<Session, Error> {
        let mut session = self.begin().await?;
        for (place, hop) in self.hops.iter().enumerate() {
            session = self
                .sts
                .assume_role(&self.endpoint, &session.key, hop)
                .await
                .map_err(|error| failed(Step::Hop(place, hop.role_arn.clone()), error))?;
        }
        Ok(session)
    }

    async fn begin(&self) -> Result<Session, Error> {
        match &self.base {
            Base::Key(key) => Ok(Session {
                key: key.clone(),
                lifetime: None,
                arn: None,
            }),
            Base::Federated {
                endpoint,
                provider_arn,
                wish,
                prove,
            } => {
                let exchanged = self
                    .federate(endpoint, provider_arn, wish, prove().await)
                    .await;
                match exchanged {
                    // It expired on its way, or our clock and that of STS differ by more than its life: once more.
                    Err(error) if error.code() == Some("AuthenticationFail.OIDCToken.Expired") => {
                        self.federate(endpoint, provider_arn, wish, prove().await)
                            .await
                    }
                    exchanged => exchanged,
                }
            }
            Base::Instance { metadata, role } => {
                let session = metadata.session(role.as_deref()).await;
                session.map_err(|error| failed(Step::Instance, error))
            }
        }
    }

    async fn federate(
        &self,
        endpoint: &Endpoint,
        provider_arn: &str,
        wish: &Wish,
        proof: Result<Proof, NoProof>,
    ) -> Result<Session, Error> {
        let proof = proof.map_err(|no| {
            Error::Identity(Box::new(NoIdentity {
                step: Step::Proof,
                cause: Cause::Proof(no),
            }))
        })?;
        let Proof { token, role_arn } = proof;
        self.sts
            .assume_role_with_oidc(endpoint, provider_arn, &role_arn, &token, wish)
            .await
            .map_err(|error| failed(Step::Federated(role_arn), error))
    }
}

fn failed(step: Step, error: Error) -> Error {
    Error::Identity(Box::new(NoIdentity {
        step,
        cause: Cause::Call(error),
    }))
}
