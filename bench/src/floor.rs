//! What the same result costs whoever only writes it: the floor of all measurements.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kms_secret_operator::api::KmsSecret;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::{CONNECTIONS, World, object_name};

/// A Secret and a status as the operator leaves them.
#[derive(Clone)]
pub(crate) struct Sample {
    secret: Secret,
    status: Value,
}

impl Sample {
    /// Takes them from a world where the operator has worked.
    pub(crate) async fn take(world: &World) -> Result<Self> {
        let mut secret = world.api::<Secret>().get(&object_name(0)).await?;
        secret.metadata.managed_fields = None;
        secret.metadata.resource_version = None;
        secret.metadata.uid = None;
        secret.metadata.creation_timestamp = None;
        let object = world.api::<KmsSecret>().get(&object_name(0)).await?;
        let status = object.status.context("the sample has no status")?;
        Ok(Self {
            secret,
            status: serde_json::to_value(status)?,
        })
    }

    /// The Secret of another object.
    fn secret_of(&self, object: &KmsSecret) -> Secret {
        let mut secret = self.secret.clone();
        secret.metadata.name = Some(object.name_any());
        let owners = secret.metadata.owner_references.iter_mut().flatten();
        for owner in owners {
            owner.name = object.name_any();
            owner.uid = object.uid().unwrap_or_default();
        }
        secret
    }

    /// The status of another object, whose Secret was written.
    fn status_of(&self, secret: &Secret) -> Value {
        let mut status = self.status.clone();
        status["target"]["name"] = secret.name_any().into();
        status["target"]["uid"] = secret.uid().into();
        status["target"]["resourceVersion"] = secret.resource_version().into();
        json!({"status": status})
    }
}

/// POSTs the Secret of each KmsSecret of the world and merge-patches its status, over 16 connections.
pub(crate) async fn write_all(world: &World, sample: &Sample) -> Result<Duration> {
    let objects = world
        .api::<KmsSecret>()
        .list(&ListParams::default())
        .await?;
    let (objects_api, secrets_api) = (world.api::<KmsSecret>(), world.api::<Secret>());
    let began = Instant::now();
    let writing = objects.items.iter().map(async |object| {
        let secret = sample.secret_of(object);
        let written = secrets_api.create(&PostParams::default(), &secret).await?;
        let patch = Patch::Merge(sample.status_of(&written));
        let name = object.name_any();
        objects_api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await?;
        anyhow::Ok(())
    });
    let written = stream::iter(writing).buffer_unordered(CONNECTIONS);
    written.try_for_each(async |()| Ok(())).await?;
    Ok(began.elapsed())
}

/// Merge-patches the data of so many Secrets, over 16 connections.
pub(crate) async fn patch_secrets(
    world: &World,
    count: usize,
    sample: &Sample,
) -> Result<Duration> {
    let api = world.api::<Secret>();
    let bytes = sample.secret.data.iter().flatten().next();
    let (key, bytes) = bytes.context("the sample has no data")?;
    // Another value of the same length.
    let value = "y".repeat(bytes.0.len());
    let patch = Patch::Merge(json!({"stringData": {key: value}}));
    let began = Instant::now();
    let patching = (0..count).map(async |number| {
        let name = object_name(number);
        api.patch(&name, &PatchParams::default(), &patch).await?;
        anyhow::Ok(())
    });
    let patched = stream::iter(patching).buffer_unordered(CONNECTIONS);
    patched.try_for_each(async |()| Ok(())).await?;
    Ok(began.elapsed())
}
