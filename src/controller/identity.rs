//! From what a store says of its identity to credentials.

use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::access_key::{consenting_version, read_access_key};
use super::{Context, Shared};
use crate::alibaba::assume_role::{Hop, Wish};
use crate::alibaba::chain::{Base, Chain, Proof, Prove, prove_by_file};
use crate::alibaba::client::Endpoint;
use crate::alibaba::credentials::Credentials;
use crate::alibaba::environment::{Environment, Source};
use crate::alibaba::identity::NoProof;
use crate::api::auth::{AccessKeySecretRef, AssumeRole, ServiceAccountAuth, SessionSettings};
use crate::api::kms_secret::StoreStatus;
use crate::api::{ClusterKmsStore, KmsStore};
use crate::sync::hash::fnv1a;
use crate::sync::identity::{consented_role, session_name};
use crate::sync::{Failure, Reason};

/// Whose identity a store takes, with every reference complete.
pub(super) struct Identity {
    auth: Auth,
    hops: Vec<Hop>,
    /// Namespace and name of the store, or its name: for the log.
    owner: String,
}

/// Where the identity begins.
enum Auth {
    AccessKey {
        namespace: String,
        secret: AccessKeySecretRef,
    },
    ServiceAccount {
        namespace: String,
        account: ServiceAccountAuth,
        wish: Wish,
    },
    Operator {
        session_name: String,
    },
    EcsRamRole {
        role: Option<String>,
    },
}

/// Where STS is.
pub(super) struct StsEndpoints {
    /// For the operator's own identity.
    pub(super) own: Endpoint,
    /// For everything else.
    pub(super) hops: Endpoint,
}

impl Identity {
    /// That of a `KmsStore`, whose references are to its own namespace.
    pub(super) fn of_store(store: &KmsStore) -> Option<Self> {
        let namespace = store.namespace()?;
        let (auth, name) = (&store.spec.auth, store.name_any());
        let session = session_name(Some(&namespace), &name);
        let begin = if let Some(given) = &auth.access_key {
            Auth::AccessKey {
                namespace: namespace.clone(),
                secret: given.secret_ref.clone(),
            }
        } else {
            let account = auth.service_account.clone()?;
            Auth::ServiceAccount {
                namespace: namespace.clone(),
                wish: wish(&account.session, &session),
                account,
            }
        };
        let hops = store.spec.assume_role.iter().flatten();
        Some(Self {
            auth: begin,
            hops: hops.map(|role| hop(role, &session)).collect(),
            owner: format!("{namespace}/{name}"),
        })
    }

    /// That of a `ClusterKmsStore`, whose references name their namespaces and whose sessions may have other names.
    pub(super) fn of_cluster_store(store: &ClusterKmsStore) -> Option<Self> {
        let (auth, name) = (&store.spec.auth, store.name_any());
        let session = session_name(None, &name);
        let begin = if let Some(given) = &auth.access_key {
            Auth::AccessKey {
                namespace: given.secret_ref.namespace.clone(),
                secret: given.secret_ref.secret.clone(),
            }
        } else if auth.operator.is_some() {
            Auth::Operator {
                session_name: session.clone(),
            }
        } else if let Some(given) = &auth.ecs_ram_role {
            Auth::EcsRamRole {
                role: given.role_name.clone(),
            }
        } else {
            let given = auth.service_account.clone()?;
            let session = given.session_name.as_ref().unwrap_or(&session);
            Auth::ServiceAccount {
                namespace: given.namespace,
                wish: wish(&given.account.session, session),
                account: given.account,
            }
        };
        let hops = store.spec.assume_role.iter().flatten();
        let hops = hops.map(|given| {
            let session = given.session_name.as_ref().unwrap_or(&session);
            hop(&given.role, session)
        });
        Some(Self {
            auth: begin,
            hops: hops.collect(),
            owner: name,
        })
    }

    /// Namespace and name of the Secret that the credentials stand in.
    pub(super) fn secret(&self) -> Option<(&str, &str)> {
        match &self.auth {
            Auth::AccessKey { namespace, secret } => Some((namespace, &secret.name)),
            _ => None,
        }
    }

    /// The resourceVersion of that Secret, which consents to being used; without one the identity begins elsewhere. A
    /// `ServiceAccount` is asked for its consent at each exchange: nothing tells of its changes.
    pub(super) async fn version(&self, context: &Context) -> Result<Option<String>, Failure> {
        match self.secret() {
            Some((namespace, name)) => consenting_version(namespace, name, context).await.map(Some),
            None => Ok(None),
        }
    }

    /// The credentials, of the Secret at that version where there is one. Nothing is exchanged yet.
    pub(super) async fn open(
        &self,
        store: &StoreStatus,
        sts: StsEndpoints,
        context: &Context,
    ) -> Result<Arc<Credentials>, Failure> {
        let base = match &self.auth {
            Auth::AccessKey { namespace, secret } => {
                let version = store
                    .credential_resource_version
                    .as_deref()
                    .unwrap_or_default();
                let key = read_access_key(namespace, secret, version, context).await?;
                Base::Key(key)
            }
            Auth::ServiceAccount {
                namespace,
                account,
                wish,
            } => Base::Federated {
                endpoint: sts.hops.clone(),
                provider_arn: account.oidc_provider_arn.clone(),
                wish: wish.clone(),
                prove: prove(namespace.clone(), account, Arc::clone(&context.shared)),
            },
            Auth::Operator { session_name } => {
                own(&context.environment, session_name, sts.own).ok_or_else(no_own_identity)?
            }
            Auth::EcsRamRole { role } => Base::Instance {
                metadata: Arc::clone(&context.metadata),
                role: role.clone(),
            },
        };
        if let (Base::Key(key), []) = (&base, &*self.hops) {
            return Ok(Credentials::fixed(key.clone()));
        }
        let chain = Arc::new(Chain {
            sts: Arc::clone(&context.sts),
            endpoint: sts.hops,
            base,
            hops: self.hops.clone(),
        });
        let exchange = move || {
            let chain = Arc::clone(&chain);
            async move { chain.exchange().await }.boxed()
        };
        Ok(Credentials::exchanged(
            self.owner.clone(),
            fnv1a(&store.uid),
            Box::new(exchange),
        ))
    }
}

fn wish(settings: &SessionSettings, session_name: &str) -> Wish {
    Wish {
        session_name: session_name.to_owned(),
        duration_seconds: settings
            .duration_seconds
            .and_then(|seconds| u32::try_from(seconds).ok()),
        policy: settings.policy.clone(),
    }
}

fn hop(role: &AssumeRole, session_name: &str) -> Hop {
    Hop {
        role_arn: role.role_arn.clone(),
        external_id: role.external_id.clone(),
        wish: wish(&role.session, session_name),
    }
}

/// The operator's own identity, as its environment gives it.
fn own(environment: &Environment, session_name: &str, endpoint: Endpoint) -> Option<Base> {
    Some(match environment.source.as_ref()? {
        Source::Key(key) => Base::Key(key.clone()),
        Source::Federated {
            role_arn,
            provider_arn,
            token_file,
            session_name: given,
        } => Base::Federated {
            endpoint,
            provider_arn: provider_arn.clone(),
            wish: Wish {
                session_name: given.as_deref().unwrap_or(session_name).to_owned(),
                duration_seconds: None,
                policy: None,
            },
            prove: prove_by_file(role_arn.clone(), token_file.clone()),
        },
    })
}

fn no_own_identity() -> Failure {
    Failure::new(
        Reason::CredentialsNotFound,
        "the operator has no identity of its own for auth.operator",
        "cluster administrator: let ack-pod-identity-webhook inject RRSA into the operator's pod (ALIBABA_CLOUD_ROLE_ARN, \
         ALIBABA_CLOUD_OIDC_PROVIDER_ARN, ALIBABA_CLOUD_OIDC_TOKEN_FILE), or set ALIBABA_CLOUD_ACCESS_KEY_ID and \
         ALIBABA_CLOUD_ACCESS_KEY_SECRET there",
    )
}

/// Brings tokens of a `ServiceAccount`, each time after it was asked for its consent.
fn prove(namespace: String, account: &ServiceAccountAuth, shared: Arc<Shared>) -> Prove {
    let of = Arc::new((namespace, account.name.clone(), account.role_arn.clone()));
    Box::new(move || {
        let (of, shared) = (Arc::clone(&of), Arc::clone(&shared));
        async move {
            let (namespace, name, role) = &*of;
            let proof = token(namespace, name, role.as_deref(), &shared).await;
            proof.map_err(NoProof::from)
        }
        .boxed()
    })
}

async fn token(
    namespace: &str,
    name: &str,
    asked: Option<&str>,
    shared: &Shared,
) -> Result<Proof, Failure> {
    let Some(ObjectMeta {
        annotations, uid, ..
    }) = shared.cluster.service_account(namespace, name).await?
    else {
        return Err(Failure::new(
            Reason::CredentialsNotFound,
            format!("there is no ServiceAccount {name:?} in namespace {namespace:?}"),
            "create it, or mend the store's auth.serviceAccount",
        ));
    };
    let role_arn = consented_role(&annotations.unwrap_or_default(), (namespace, name), asked)?;
    let uid = uid.unwrap_or_default();
    let token = shared.cluster.token(namespace, name, &uid).await?;
    Ok(Proof { token, role_arn })
}
