//! One new KmsSecret while many are in sync.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cold_sync::Synced;
use crate::results::Row;
use crate::statistics::quantile;
use crate::world::object_name;

pub(crate) const NEW: &str = "new KmsSecret";

/// Between two of them everything comes to rest.
const PAUSE: Duration = Duration::from_millis(100);

/// Creates so many KmsSecrets one after the other, each when the one before is written.
pub(crate) async fn measure(synced: &Synced, objects: usize, count: usize) -> Result<Row> {
    let Synced { world, watch, .. } = synced;
    let numbers = objects..objects + count;
    world.put_secrets(numbers.clone());
    let (mut since_sent, mut since_answered) = (Vec::new(), Vec::new());
    for number in numbers {
        watch.forget();
        let sent = Instant::now();
        world.create_object(number, number).await?;
        let answered = Instant::now();
        let name = object_name(number);
        let is_done = |seen: &crate::watch::Seen| seen.ready.contains_key(&name);
        let seen = watch.until(is_done).await?;
        let written = seen.secrets.get(&name).context("ready without a Secret")?;
        since_sent.push(written.duration_since(sent));
        since_answered.push(written.saturating_duration_since(answered));
        tokio::time::sleep(PAUSE).await;
    }
    let milliseconds = |times: &[Duration], part| {
        let time = quantile(times, part).unwrap_or_default();
        time.as_secs_f64() * 1000.0
    };
    Ok(Row::new(NEW, objects)
        .with("p50_ms", milliseconds(&since_sent, 0.5))
        .with("p99_ms", milliseconds(&since_sent, 0.99))
        .with("max_ms", milliseconds(&since_sent, 1.0))
        .with("p50_after_answer_ms", milliseconds(&since_answered, 0.5))
        .with("p99_after_answer_ms", milliseconds(&since_answered, 0.99)))
}
