//! What is measured: a control plane, a KMS, a store, and KmsSecrets.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kms_emulator::{Emulator, Kind, Managed, Options};
use kms_secret_operator::api::{KmsSecret, KmsStore};
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Where everything is. It is there in every cluster.
pub(crate) const NAMESPACE: &str = "default";
/// Connections of whoever writes many objects.
pub(crate) const CONNECTIONS: usize = 16;
const KEY: (&str, &str) = ("LTAIbench", "key-secret-of-the-benchmark");
/// Nothing rotates unless a measurement says so.
const ROTATION: Duration = Duration::from_secs(86_400);
/// With names and quotes, a value of that account has 1 KiB.
const ACCOUNT_LENGTH: usize = 950;

/// What KMS and the store are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kms {
    /// What each answer takes.
    pub(crate) latency: Duration,
    /// `Auto` or `Never`.
    pub(crate) batch: &'static str,
}

/// As KMS answers inside its region, and the store reads many secrets at once.
pub(crate) const NEAR: Kms = Kms {
    latency: Duration::from_millis(5),
    batch: "Auto",
};

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) kms: Emulator,
}

impl World {
    /// A world with a store whose limiter is raised so far that it is none.
    pub(crate) async fn new(kms: Kms) -> Result<Self> {
        let cluster = Cluster::start().await?;
        let emulator = Emulator::start(Options::default()).await?;
        emulator.add_access_key(KEY.0, KEY.1);
        emulator.set_latency(kms.latency);
        let world = Self {
            cluster,
            kms: emulator,
        };
        let credentials = json!({
            "metadata": {"name": "kms-credentials", "labels": {"alikms.dev/credentials": "true"}},
            "stringData": {"accessKeyId": KEY.0, "accessKeySecret": KEY.1},
        });
        world.create::<Secret>(credentials).await?;
        let store = json!({
            "metadata": {"name": "kms"},
            "spec": {
                "region": "cn-hangzhou",
                "endpoint": world.kms.origin(),
                "auth": {"accessKey": {"secretRef": {"name": "kms-credentials"}}},
                "batch": kms.batch,
                "requestsPerSecond": 10_000,
            },
        });
        world.create::<KmsStore>(store).await?;
        Ok(world)
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.cluster.client.clone(), NAMESPACE)
    }

    pub(crate) async fn create<K>(&self, manifest: Value) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let object = serde_json::from_value(manifest)?;
        let created = self.api().create(&PostParams::default(), &object).await;
        created.with_context(|| format!("a {} cannot be created", K::kind(&())))
    }

    /// Puts secrets into KMS, which rotate in a day.
    pub(crate) fn put_secrets(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let account = format!("{:x<ACCOUNT_LENGTH$}", object_name(number));
            let managed = Managed::new(Kind::PolarDb, ROTATION).account(&account);
            self.kms.put_managed(&secret_name(number), managed);
        }
    }

    /// Creates a KmsSecret; `secret` is the number of its secret in KMS.
    pub(crate) async fn create_object(&self, number: usize, secret: usize) -> Result<KmsSecret> {
        let manifest = json!({
            "metadata": {"name": object_name(number)},
            "spec": {"storeRef": {"name": "kms"}, "source": {"secretName": secret_name(secret)}},
        });
        self.create(manifest).await
    }

    /// Creates KmsSecrets over so many secrets of KMS, and says how long that took.
    pub(crate) async fn create_objects(&self, count: usize, secrets: usize) -> Result<Duration> {
        let began = Instant::now();
        let creating = (0..count).map(|number| self.create_object(number, number % secrets));
        let created = stream::iter(creating).buffer_unordered(CONNECTIONS);
        created.try_for_each(async |_| Ok(())).await?;
        Ok(began.elapsed())
    }
}

/// The name of a KmsSecret and of its Secret.
pub(crate) fn object_name(number: usize) -> String {
    format!("s{number:05}")
}

/// What KMS calls the secret.
pub(crate) fn secret_name(number: usize) -> String {
    format!("bench/{}", object_name(number))
}
