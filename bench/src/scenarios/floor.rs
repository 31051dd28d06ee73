//! The floor: a naive writer of the same Secrets and statuses.

use anyhow::Result;

use crate::floor::{Sample, patch_secrets, write_all};
use crate::results::Row;
use crate::watch::Watch;
use crate::world::{NEAR, World};

pub(crate) const FLOOR: &str = "floor";

/// Writes Secrets and statuses, and then other values into the same Secrets.
pub(crate) async fn measure(objects: usize, sample: &Sample) -> Result<Row> {
    let world = World::new(NEAR).await?;
    let created = world.create_objects(objects, objects).await?;
    // The watches of the other measurements cost the API server something, so they are here too.
    let _watch = Watch::open(&world).await?;
    let written = write_all(&world, sample).await?;
    let patched = patch_secrets(&world, objects, sample).await?;
    Ok(Row::new(FLOOR, objects)
        .with_time("seconds", written)
        .with_time("creating_seconds", created)
        .with_time("patching_seconds", patched))
}
