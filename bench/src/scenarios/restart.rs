//! A restart while everything is in sync: it should cost nothing but looking.

use std::time::Instant;

use anyhow::Result;

use super::Settings;
use super::cold_sync::{Synced, kms_calls};
use crate::operator::Operator;
use crate::results::Row;

pub(crate) const RESTART: &str = "restart";

/// Stops the operator and starts another, which takes its place.
pub(crate) async fn measure(
    synced: Synced,
    objects: usize,
    settings: &Settings,
) -> Result<(Synced, Row)> {
    let before = synced.world.cluster.requests().await?;
    synced.world.kms.reset_calls();
    synced.operator.stop().await?;
    let began = Instant::now();
    let mut operator = Operator::start(&settings.operator, &synced.world, "bench-1")?;
    operator.until_ready().await?;
    let ready = began.elapsed();
    // Whatever a start may cause has come by then.
    tokio::time::sleep(settings.rest * 2).await;
    let usage = operator.usage()?;
    let came = synced.world.cluster.requests().await?.since(&before);
    let row = Row::new(RESTART, objects)
        .with_time("ready_seconds", ready)
        .with_count("kms_calls", kms_calls(&synced.world))
        .with_count("writes", came.writes())
        .with_count("gets", came.gets())
        .with("cpu_seconds", usage.cpu)
        .with("resident_mib", usage.resident)
        .with("anonymous_mib", usage.anonymous)
        .with("peak_mib", usage.peak);
    Ok((Synced { operator, ..synced }, row))
}
