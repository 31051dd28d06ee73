//! A cold sync: KmsSecrets without Secrets become Secrets.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Settings;
use crate::floor::Sample;
use crate::operator::Operator;
use crate::results::Row;
use crate::watch::{Seen, Watch};
use crate::world::{Kms, NEAR, World};

/// One way to a cold sync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) scenario: &'static str,
    /// Whether the operator runs before the KmsSecrets are created.
    pub(crate) is_running: bool,
    batch: &'static str,
    /// So many KmsSecrets read the same secret of KMS.
    sharing: usize,
}

/// The operator is started over KmsSecrets that exist.
pub(crate) const STARTED: Way = Way {
    scenario: "started, batch",
    is_running: false,
    batch: "Auto",
    sharing: 1,
};

pub(crate) const STARTED_SINGLY: Way = Way {
    scenario: "started, single reads",
    batch: "Never",
    ..STARTED
};

/// Five KmsSecrets read the same secret.
pub(crate) const STARTED_SHARING: Way = Way {
    scenario: "started, shared secrets",
    sharing: 5,
    ..STARTED
};

/// KmsSecrets are created while the operator runs.
pub(crate) const CREATED: Way = Way {
    scenario: "created, batch",
    is_running: true,
    ..STARTED
};

pub(crate) const CREATED_SINGLY: Way = Way {
    scenario: "created, single reads",
    batch: "Never",
    ..CREATED
};

/// A world in sync, with its operator, which ends first.
pub(crate) struct Synced {
    pub(crate) operator: Operator,
    pub(crate) watch: Watch,
    pub(crate) world: World,
    /// Until the last status was written.
    pub(crate) took: Duration,
    pub(crate) row: Row,
}

impl Synced {
    pub(crate) async fn sample(&self) -> Result<Sample> {
        Sample::take(&self.world).await
    }
}

/// Syncs a fresh world.
pub(crate) async fn measure(way: Way, objects: usize, settings: &Settings) -> Result<Synced> {
    let world = World::new(Kms {
        batch: way.batch,
        ..NEAR
    })
    .await?;
    let secrets = objects.div_ceil(way.sharing);
    world.put_secrets(0..secrets);
    let start = || Operator::start(&settings.operator, &world, "bench-0");
    let mut running = None;
    if way.is_running {
        running.insert(start()?).until_ready().await?;
    } else {
        world.create_objects(objects, secrets).await?;
    }
    let watch = Watch::open(&world).await?;
    let before = world.cluster.requests().await?;
    world.kms.reset_calls();

    let began = Instant::now();
    let operator = match running {
        None => start()?,
        Some(operator) => {
            world.create_objects(objects, secrets).await?;
            operator
        }
    };
    let seen = watch.until_synced(objects).await?;

    tokio::time::sleep(settings.rest).await;
    let usage = operator.usage()?;
    let came = world.cluster.requests().await?.since(&before);
    let since = |instant: Option<Instant>| {
        let instant = instant.context("nothing was written")?;
        anyhow::Ok(instant.duration_since(began))
    };
    let took = since(Seen::last(&seen.ready))?;
    let row = Row::new(way.scenario, objects)
        .with_time("seconds", took)
        .with_time("secrets_seconds", since(Seen::last(&seen.secrets))?)
        .with_count("kms_calls", kms_calls(&world))
        .with_count("kms_failures", kms_failures(&world))
        .with_count("secret_writes", came.writes_of("secrets"))
        .with_count("status_writes", came.writes_of("kmssecrets/status"))
        .with_count("event_writes", came.writes_of("events"))
        .with_count("gets", came.gets())
        .with_count("lists", came.lists())
        .with("cpu_seconds", usage.cpu)
        .with("resident_mib", usage.resident)
        .with("anonymous_mib", usage.anonymous)
        .with("peak_mib", usage.peak);
    Ok(Synced {
        operator,
        watch,
        world,
        took,
        row,
    })
}

/// Calls that read values, by the count of KMS. What a store asks STS for its identity is no read.
pub(crate) fn kms_calls(world: &World) -> u64 {
    let counts = world.kms.counts();
    let reads = counts
        .iter()
        .filter(|count| count.action.ends_with("GetSecretValue"));
    reads.map(|count| count.calls).sum()
}

fn kms_failures(world: &World) -> u64 {
    let counts = world.kms.counts();
    let failed = counts.iter().filter(|count| count.outcome != "OK");
    failed.map(|count| count.calls).sum()
}
