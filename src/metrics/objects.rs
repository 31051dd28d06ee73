//! The `KmsSecrets` of this replica's share: how they stand, counted, and each by itself where that is asked for.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::series::{Named, count};
use crate::api::KmsSecret;
use crate::sync::standing::{Standing, Tally};

/// An object, and how it stands.
pub(crate) type Stands = (Arc<KmsSecret>, Standing);

/// How many stand how, and the extremes of their times.
pub(super) fn encode(objects: &[Stands], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let tally = Tally::of(objects.iter().map(|(_, standing)| standing));
    Named(
        "objects",
        "KmsSecrets of this replica, by value and reason of their condition Ready",
        None,
    )
    .gauges(
        encoder,
        tally.by_ready.iter().map(|((ready, reason), number)| {
            ([("ready", *ready), ("reason", *reason)], count(*number))
        }),
    )?;
    Named(
        "objects_rotation_overdue",
        "KmsSecrets of this replica whose rotation is overdue, by the reason of that condition",
        None,
    )
    .gauges(
        encoder,
        tally
            .overdue
            .iter()
            .map(|(reason, number)| ([("reason", *reason)], count(*number))),
    )?;
    Named(
        "objects_late",
        "KmsSecrets of this replica that should have been synced more than a minute ago",
        None,
    )
    .gauge(encoder, Some(count(tally.late)))?;
    Named(
        "objects_next_sync_timestamp",
        "The soonest next sync of all KmsSecrets of this replica, since 1970",
        Some(Unit::Seconds),
    )
    .gauge(encoder, tally.next_sync.map(seconds))?;
    Named(
        "objects_oldest_sync_timestamp",
        "The oldest last sync of all KmsSecrets of this replica that are synced again by time, since 1970",
        Some(Unit::Seconds),
    )
    .gauge(encoder, tally.oldest_sync.map(seconds))
}

/// A time of an object.
type Time = fn(&Standing) -> Option<Timestamp>;

const TIMES: [(&str, &str, Time); 3] = [
    (
        "object_last_sync_timestamp",
        "When the KmsSecret was last synced, since 1970",
        |standing| standing.last_sync,
    ),
    (
        "object_next_sync_timestamp",
        "When the KmsSecret will be synced next, since 1970",
        |standing| standing.next_sync,
    ),
    (
        "object_next_rotation_timestamp",
        "When KMS means to rotate a secret of the KmsSecret next, since 1970",
        |standing| standing.next_rotation,
    ),
];

/// Gauges of each object: as many series as there are objects, four times.
pub(super) fn encode_each(objects: &[Stands], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    Named("object_ready", "1 while the KmsSecret is ready", None).gauges(
        encoder,
        objects.iter().map(|(object, standing)| {
            let is_ready = standing.ready == "True";
            (labels(object), f64::from(u8::from(is_ready)))
        }),
    )?;
    for (name, help, time) in TIMES {
        let known = objects
            .iter()
            .filter_map(|(object, standing)| Some((labels(object), seconds(time(standing)?))));
        Named(name, help, Some(Unit::Seconds)).gauges(encoder, known)?;
    }
    Ok(())
}

fn labels(object: &KmsSecret) -> [(&'static str, &str); 2] {
    let metadata = &object.metadata;

    [
        (
            "namespace",
            metadata.namespace.as_deref().unwrap_or_default(),
        ),
        ("name", metadata.name.as_deref().unwrap_or_default()),
    ]
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}
