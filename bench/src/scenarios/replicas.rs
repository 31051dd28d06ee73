//! Replicas: one of two goes away; and how many do the same work in what time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::Settings;
use super::cold_sync::Synced;
use crate::operator::Operator;
use crate::results::Row;
use crate::watch::{Seen, Watch};
use crate::world::{CONNECTIONS, Kms, World, secret_name};

/// How a replica goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    Stopped,
}

pub(crate) const KILLED: &str = "replica killed";
pub(crate) const STOPPED: &str = "replica stopped";
/// By how many replicas did the work.
pub(crate) const NUMBERS: [&str; 4] = ["", "1 replica", "2 replicas", "3 replicas"];

/// So many new KmsSecrets show whose share is served: with 40, one chance in 10^12 that none is of the share.
const PROBES: usize = 40;
/// A KMS far away.
const FAR: Kms = Kms {
    latency: Duration::from_millis(200),
    batch: "Never",
};

/// Lets a second replica come, and go.
pub(crate) async fn measure_end(
    synced: &Synced,
    end: End,
    objects: usize,
    settings: &Settings,
) -> Result<Row> {
    let (scenario, offset) = match end {
        End::Killed => (KILLED, 0),
        End::Stopped => (STOPPED, PROBES),
    };
    let mut second = Operator::start(&settings.operator, &synced.world, "bench-second")?;
    second.until_ready().await?;
    // They have heard of each other by then.
    tokio::time::sleep(settings.rest).await;
    // Beyond what was new before.
    let first = objects + settings.new_objects + offset;
    let probes = first..first + PROBES;
    synced.world.put_secrets(probes.clone());
    synced.world.kms.reset_calls();
    synced.watch.forget();
    let began = Instant::now();
    let served = match end {
        End::Killed => {
            second.kill();
            probe(synced, probes.clone()).await?
        }
        End::Stopped => {
            second.ask_to_stop()?;
            let served = probe(synced, probes.clone()).await?;
            second.stop().await?;
            served
        }
    };
    tokio::time::sleep(settings.rest).await;
    Ok(Row::new(scenario, objects)
        .with_time("seconds", served.duration_since(began))
        .with_count("reads_in_vain", reads_besides(&synced.world, probes)))
}

/// Creates KmsSecrets, and says when the last of their Secrets was written.
async fn probe(synced: &Synced, probes: std::ops::Range<usize>) -> Result<Instant> {
    let Synced { world, watch, .. } = synced;
    let creating = probes.map(|number| world.create_object(number, number));
    let created = stream::iter(creating).buffer_unordered(CONNECTIONS);
    created.try_for_each(async |_| Ok(())).await?;
    let seen = watch.until_synced(PROBES).await?;
    Seen::last(&seen.secrets).context("nothing was written")
}

/// Reads of other secrets than those.
fn reads_besides(world: &World, probes: std::ops::Range<usize>) -> u64 {
    let probes: Vec<_> = probes.map(secret_name).collect();
    let is_other = |secret: &String| !probes.contains(secret);
    let counts = world.kms.read_counts();
    let others = counts
        .iter()
        .filter(|count| count.secret.as_ref().is_none_or(is_other));
    others.map(|count| count.calls).sum()
}

/// A cold sync by so many replicas, where KMS takes long and is asked for one secret at a time.
pub(crate) async fn measure_number(
    objects: usize,
    count: usize,
    settings: &Settings,
) -> Result<Row> {
    let world = World::new(FAR).await?;
    world.put_secrets(0..objects);
    let mut replicas = Vec::new();
    for number in 0..count {
        let name = format!("bench-{number}");
        let mut replica = Operator::start(&settings.operator, &world, &name)?;
        replica.until_ready().await?;
        replicas.push(replica);
    }
    tokio::time::sleep(settings.rest).await;
    let watch = Watch::open(&world).await?;
    let began = Instant::now();
    world.create_objects(objects, objects).await?;
    let seen = watch.until_synced(objects).await?;
    let last = Seen::last(&seen.ready).context("nothing was written")?;
    let scenario = NUMBERS.get(count).copied().unwrap_or("many replicas");
    Ok(Row::new(scenario, objects).with_time("seconds", last.duration_since(began)))
}
