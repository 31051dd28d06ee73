//! At rest: nothing changes, and nothing should be done.

use std::time::Duration;

use anyhow::Result;

use super::cold_sync::{Synced, kms_calls};
use crate::results::Row;

pub(crate) const AT_REST: &str = "at rest";

/// Leaves the operator alone.
pub(crate) async fn measure(synced: &Synced, objects: usize, span: Duration) -> Result<Row> {
    let before = synced.world.cluster.requests().await?;
    let used = synced.operator.usage()?;
    synced.world.kms.reset_calls();
    tokio::time::sleep(span).await;
    let usage = synced.operator.usage()?;
    let came = synced.world.cluster.requests().await?.since(&before);
    Ok(Row::new(AT_REST, objects)
        .with_time("span_seconds", span)
        .with_count("kms_calls", kms_calls(&synced.world))
        .with_count("writes", came.writes())
        .with("cpu_seconds", usage.cpu - used.cpu)
        .with("resident_mib", usage.resident))
}
