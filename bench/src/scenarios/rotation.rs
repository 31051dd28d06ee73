//! Rotations that KMS announces: one at a time, and all at the same instant.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kms_secret_operator::api::{KmsSecret, SYNC_ANNOTATION};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::cold_sync::Synced;
use crate::results::Row;
use crate::statistics::quantile;
use crate::watch::Seen;
use crate::world::{CONNECTIONS, World, object_name, secret_name};

pub(crate) const ONE: &str = "one rotates";
pub(crate) const ALL: &str = "all rotate";

/// Between two rotations that come one at a time.
const APART: SignedDuration = SignedDuration::from_secs(1);
/// What the operator needs to hear of a few dates.
const NOTICE: SignedDuration = SignedDuration::from_secs(5);

/// Lets so many secrets rotate, one a second, among the others.
pub(crate) async fn measure_one(synced: &Synced, objects: usize, count: usize) -> Result<Row> {
    let Synced { world, watch, .. } = synced;
    let first = announce(synced, count, NOTICE, APART).await?;
    watch.forget();
    sleep_until(world, first).await;
    let seen = watch.until(|seen| seen.secrets.len() >= count).await?;
    let delays: Result<Vec<Duration>> = (0..count)
        .map(|number| {
            let written = seen.secrets.get(&object_name(number));
            let written = written.context("another Secret was written")?;
            Ok(written.saturating_duration_since(readable(world, number)?))
        })
        .collect();
    let delays = delays?;
    let seconds = |part| quantile(&delays, part).unwrap_or_default();
    Ok(Row::new(ONE, objects)
        .with_time("p50_seconds", seconds(0.5))
        .with_time("p99_seconds", seconds(0.99))
        .with_time("max_seconds", seconds(1.0)))
}

/// Lets all secrets rotate at the same instant, so much later that the operator has heard of it.
pub(crate) async fn measure_all(synced: &Synced, objects: usize, notice: Duration) -> Result<Row> {
    let Synced { world, watch, .. } = synced;
    let notice = NOTICE + SignedDuration::try_from(notice)?;
    let date = announce(synced, objects, notice, SignedDuration::ZERO).await?;
    watch.forget();
    world.kms.reset_calls();
    sleep_until(world, date).await;
    let seen = watch.until_synced(objects).await?;
    let began = readable(world, 0)?;
    let since = |instant: Option<Instant>| {
        let instant = instant.context("nothing was written")?;
        anyhow::Ok(instant.saturating_duration_since(began))
    };
    Ok(Row::new(ALL, objects)
        .with_time(
            "first_secret_seconds",
            since(seen.secrets.values().min().copied())?,
        )
        .with_time("last_secret_seconds", since(Seen::last(&seen.secrets))?)
        .with_time("last_status_seconds", since(Seen::last(&seen.ready))?)
        .with_count("kms_calls", super::cold_sync::kms_calls(world)))
}

/// KMS announces dates for the first secrets, so far ahead that the operator hears of all of them before the first
/// comes, which is answered.
async fn announce(
    synced: &Synced,
    count: usize,
    mut notice: SignedDuration,
    apart: SignedDuration,
) -> Result<Timestamp> {
    let kms = &synced.world.kms;
    loop {
        let first = whole_second(kms.now() + notice);
        for number in 0..count {
            let date = first + apart * i32::try_from(number)?;
            let announced = kms.set_next_rotation(&secret_name(number), date);
            announced.ok().context("KMS does not know the secret")?;
        }
        read_again(synced, count).await?;
        if kms.now() < first {
            return Ok(first);
        }
        notice *= 2;
    }
}

/// Forces a sync of the first KmsSecrets, and waits for its end.
async fn read_again(synced: &Synced, count: usize) -> Result<()> {
    let Synced { world, watch, .. } = synced;
    let api = world.api::<KmsSecret>();
    let token = world.kms.now().to_string();
    let patch = Patch::Merge(json!({"metadata": {"annotations": {SYNC_ANNOTATION: token}}}));
    let forcing = (0..count).map(async |number| {
        let name = object_name(number);
        api.patch_metadata(&name, &PatchParams::default(), &patch)
            .await?;
        anyhow::Ok(())
    });
    let forced = stream::iter(forcing).buffer_unordered(CONNECTIONS);
    forced.try_for_each(async |()| Ok(())).await?;
    let is_handled = |seen: &Seen| {
        let mut names = (0..count).map(object_name);
        names.all(|name| seen.handled.get(&name) == Some(&token))
    };
    watch.until(is_handled).await?;
    Ok(())
}

async fn sleep_until(world: &World, date: Timestamp) {
    let left = date.duration_since(world.kms.now());
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
}

/// When KMS first answered the value that a secret has now.
fn readable(world: &World, number: usize) -> Result<Instant> {
    let history = world.kms.history(&secret_name(number));
    let [.., _before, now] = &history[..] else {
        bail!("the secret {} did not rotate", secret_name(number));
    };
    Ok(now.at)
}

/// KMS announces whole seconds.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
