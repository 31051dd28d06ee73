//! What is measured, each in a file of its own; and in which order.

pub(crate) mod at_rest;
pub(crate) mod cold_sync;
pub(crate) mod floor;
pub(crate) mod new_object;
pub(crate) mod replicas;
pub(crate) mod restart;
pub(crate) mod rotation;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::results::Row;
use cold_sync::Way;
use replicas::End;

/// What can be left out. The cold sync by an operator that is started, and the floor, are always measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// The other ways to a cold sync.
    ColdSync,
    /// Nothing happens.
    AtRest,
    /// The operator is stopped and started.
    Restart,
    /// One secret rotates, and all do.
    Rotation,
    /// One KmsSecret is new among many.
    New,
    /// Replicas come and go.
    Replicas,
}

/// How everything is measured.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The operator's binary.
    pub(crate) operator: PathBuf,
    /// How long the operator is left alone after its work, before its memory is looked at.
    pub(crate) rest: Duration,
    /// How long nothing happens.
    pub(crate) span: Duration,
    /// How many secrets rotate one at a time.
    pub(crate) rotations: usize,
    /// How many KmsSecrets are new, one at a time.
    pub(crate) new_objects: usize,
    /// The number of KmsSecrets for what is measured with one number only.
    pub(crate) middle: usize,
    /// What is measured.
    pub(crate) only: Vec<Scenario>,
    /// Ways to a cold sync, besides that by an operator that is started.
    pub(crate) ways: Vec<Way>,
    /// Ways of a replica to go.
    pub(crate) ends: Vec<End>,
    /// How many replicas do the same work.
    pub(crate) replicas: Vec<usize>,
}

impl Settings {
    fn wants(&self, scenario: Scenario) -> bool {
        self.only.is_empty() || self.only.contains(&scenario)
    }
}

/// Measures everything with so many KmsSecrets; `tell` is called with each measurement as soon as it is made.
pub(crate) async fn measure(
    objects: usize,
    settings: &Settings,
    mut tell: impl FnMut(Row),
) -> Result<()> {
    let is_middle = objects == settings.middle;
    let mut synced = cold_sync::measure(cold_sync::STARTED, objects, settings).await?;
    tell(synced.row.clone());
    let sample = synced.sample().await?;
    if settings.wants(Scenario::AtRest) && is_middle {
        tell(at_rest::measure(&synced, objects, settings.span).await?);
    }
    if settings.wants(Scenario::Restart) {
        let (restarted, row) = restart::measure(synced, objects, settings).await?;
        synced = restarted;
        tell(row);
    }
    if settings.wants(Scenario::New) {
        tell(new_object::measure(&synced, objects, settings.new_objects).await?);
    }
    if settings.wants(Scenario::Rotation) {
        let rotations = settings.rotations.min(objects);
        tell(rotation::measure_one(&synced, objects, rotations).await?);
        // To announce all dates is to read everything and to write all statuses once more.
        let notice = synced.took.mul_f64(1.5);
        tell(rotation::measure_all(&synced, objects, notice).await?);
    }
    if settings.wants(Scenario::Replicas) && is_middle {
        for &end in &settings.ends {
            tell(replicas::measure_end(&synced, end, objects, settings).await?);
        }
    }
    drop(synced);
    tell(floor::measure(objects, &sample).await?);
    if settings.wants(Scenario::ColdSync) {
        for &way in &settings.ways {
            tell(cold_sync::measure(way, objects, settings).await?.row);
        }
    }
    if settings.wants(Scenario::Replicas) && is_middle {
        for &count in &settings.replicas {
            tell(replicas::measure_number(objects, count, settings).await?);
        }
    }
    Ok(())
}
