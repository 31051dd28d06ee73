//! The readers of the stores: what each calls KMS by, as long as its identity is the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use tokio::sync::OnceCell;

use super::Context;
use super::caches::SecretMeta;
use super::identity::{Identity, StsEndpoints};
use super::store::Resolved;
use crate::alibaba::client::{Client as KmsClient, Endpoint};
use crate::alibaba::credentials::Credentials;
use crate::alibaba::endpoint::Origin;
use crate::alibaba::kms::{self, Batch};
use crate::alibaba::reader::{self, Glance, Reader};
use crate::alibaba::secret_value::{GetSecretValue, SecretValue};
use crate::alibaba::sts::Sts;
use crate::alibaba::{AccessKey, Error, SignatureMethod};
use crate::api::kms_secret::StoreStatus;
use crate::metrics::StoreLabels;
use crate::sync::share::Share;
use crate::sync::{Failure, Reason};

/// The readers of the stores, by the stores' uids.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashMap<String, Opened>>);

/// A reader, as long as its store's identity and credentials are unchanged. Dropped, it sends nothing more.
struct Opened {
    of: StoreStatus,
    labels: StoreLabels,
    identity: Arc<Identity>,
    /// What the store may have, of all replicas together.
    per_second: f64,
    batch: bool,
    /// Its credentials are read once, however many wait for it; a failure is not kept.
    link: Arc<OnceCell<Arc<Link>>>,
}

/// What a store calls KMS and STS by.
pub(super) struct Link {
    /// Reads, for all who use the store.
    pub(super) reader: Arc<Reader>,
    calls: Arc<Calls>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(link) = self.link.get() {
            link.reader.close();
        }
    }
}

impl Opened {
    fn retune(&self, share: &Share) {
        if let Some(link) = self.link.get() {
            link.reader.retune(share.pace(self.per_second), self.batch);
        }
    }
}

impl Readers {
    fn opening(&self, store: &Resolved, share: &Share) -> Arc<OnceCell<Arc<Link>>> {
        let mut readers = self.lock();
        match readers.get_mut(&store.status.uid) {
            Some(opened) if opened.of.is_same_identity(&store.status) => {
                if opened.of != store.status {
                    opened.of = store.status.clone();
                    (opened.per_second, opened.batch) = (store.per_second, store.batch);
                    if let Some(link) = opened.link.get() {
                        *link.calls.lock_method() = store.method;
                    }
                    opened.retune(share);
                }
                Arc::clone(&opened.link)
            }
            _ => {
                let opened = Opened {
                    of: store.status.clone(),
                    labels: store.labels.clone(),
                    identity: Arc::clone(&store.identity),
                    per_second: store.per_second,
                    batch: store.batch,
                    link: Arc::default(),
                };
                let link = Arc::clone(&opened.link);
                readers.insert(store.status.uid.clone(), opened);
                link
            }
        }
    }

    /// Keeps the pace that is this replica's part of each store's.
    pub(super) fn retune(&self, share: &Share) {
        self.lock().values().for_each(|opened| opened.retune(share));
    }

    /// What the readers do at the moment, for metrics.
    pub(super) fn glances(&self) -> Vec<(StoreLabels, Glance)> {
        let readers = self.lock();
        let opened = readers.values().filter_map(|opened| {
            let link = opened.link.get()?;
            Some((opened.labels.clone(), link.reader.glance()))
        });
        opened.collect()
    }

    /// Drops the readers, and with them the credentials, of stores that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| is_there(uid));
    }

    /// Drops the readers whose credentials came out of this Secret.
    pub(super) fn forget_credentials(&self, secret: &SecretMeta) {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        self.lock()
            .retain(|_, opened| opened.identity.secret() != Some((&namespace, &name)));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a store calls KMS by; makes it, and reads the store's credentials, at the first call after either changed.
pub(super) async fn link(store: &Resolved, context: &Context) -> Result<Arc<Link>, Failure> {
    let opening = context.readers.opening(store, &context.shares.now());
    let link = opening.get_or_try_init(|| async {
        let hops = endpoint(store, &store.sts, context)?;
        let sts = StsEndpoints {
            own: endpoint(store, &store.own_sts, context)?,
            hops: hops.clone(),
        };
        let calls = Arc::new(Calls {
            client: Arc::clone(&context.kms),
            endpoint: endpoint(store, &store.origin, context)?,
            credentials: store.identity.open(&store.status, sts, context).await?,
            sts: (Arc::clone(&context.sts), hops),
            method: Mutex::new(store.method),
        });
        Ok(Arc::new(Link {
            reader: open(store, &calls, &context.shares.now()),
            calls,
        }))
    });
    link.await.map(Arc::clone)
}

/// How a store reaches an origin. Its CA is for its own endpoint: an STS elsewhere has a certificate of a public one.
fn endpoint(store: &Resolved, origin: &Origin, context: &Context) -> Result<Endpoint, Failure> {
    let ca_bundle = store
        .ca_bundle
        .as_deref()
        .filter(|_| *origin == store.origin);
    let endpoint = context.kms.endpoint(origin.clone(), ca_bundle);
    endpoint.map_err(|what| {
        Failure::new(
            Reason::StoreInvalid,
            format!("{} {:?}: {what}", store.status.kind, store.name),
            "mend the store",
        )
    })
}

/// What every call of a store needs.
struct Calls {
    client: Arc<KmsClient>,
    endpoint: Endpoint,
    credentials: Arc<Credentials>,
    sts: (Arc<Sts>, Endpoint),
    /// An edit of the store changes it, and nothing else here.
    method: Mutex<SignatureMethod>,
}

fn open(store: &Resolved, calls: &Arc<Calls>, share: &Share) -> Arc<Reader> {
    let (one, many) = (Arc::clone(calls), Arc::clone(calls));
    Reader::new(reader::Setup {
        per_second: share.pace(store.per_second),
        batch: store.batch,
        is_instance: store.origin.is_instance(),
        read_one: Box::new(move |request| {
            let calls = Arc::clone(&one);
            Box::pin(async move { calls.read_one(&request).await })
        }),
        read_many: Box::new(move |requests| {
            let calls = Arc::clone(&many);
            Box::pin(async move { calls.read_many(&requests).await })
        }),
    })
}

impl Link {
    /// The ARN of whoever the store's credentials belong to: they are exchanged for it, if they have to be.
    pub(super) async fn identify(&self) -> Result<String, Error> {
        let (sts, endpoint) = &self.calls.sts;
        let identify =
            |key: Arc<AccessKey>| async move { sts.get_caller_identity(endpoint, &key).await };
        self.calls.credentials.call(identify).await
    }

    /// Asks KMS whether a read would succeed, without its answer.
    pub(super) async fn check(&self, request: &GetSecretValue) -> Result<(), Error> {
        let calls = &self.calls;
        let check = |key: Arc<AccessKey>| async move {
            let (client, endpoint) = (&calls.client, &calls.endpoint);
            kms::check_access(client, endpoint, &key, calls.method(), request).await
        };
        calls.credentials.call(check).await
    }
}

impl Calls {
    fn method(&self) -> SignatureMethod {
        *self.lock_method()
    }

    fn lock_method(&self) -> MutexGuard<'_, SignatureMethod> {
        self.method.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_one(&self, request: &GetSecretValue) -> Result<SecretValue, Error> {
        let read = |key: Arc<AccessKey>| async move {
            let (client, endpoint) = (&self.client, &self.endpoint);
            kms::get_secret_value(client, endpoint, &key, self.method(), request).await
        };
        self.credentials.call(read).await
    }

    async fn read_many(&self, requests: &[GetSecretValue]) -> Batch {
        let read = |key: Arc<AccessKey>| async move {
            let (client, endpoint) = (&self.client, &self.endpoint);
            let method = self.method();
            match kms::batch_get_secret_value(client, endpoint, &key, method, requests).await {
                Batch::Failed(error) => Err(error),
                batch => Ok(batch),
            }
        };
        self.credentials
            .call(read)
            .await
            .unwrap_or_else(Batch::Failed)
    }
}
