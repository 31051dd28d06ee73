//! The stores that are in use: their pace, their queue and their breaker.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};

use super::series::{Named, count};
use crate::alibaba::reader::Glance;

/// The labels of one store's metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    /// `KmsStore` or `ClusterKmsStore`.
    pub kind: &'static str,
    /// Its namespace; empty for a `ClusterKmsStore`.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A gauge of a store.
type Gauge = (Named, fn(&Glance) -> f64);
/// A counter of a store.
type Counter = (Named, fn(&Glance) -> u64);

const GAUGES: [Gauge; 4] = [
    (
        Named(
            "store_rate",
            "Reads a second that the store may make: less than it asks for after KMS throttled it",
            None,
        ),
        |glance| glance.rate,
    ),
    (
        Named("store_reads_waiting", "Secrets that wait to be read", None),
        |glance| count(glance.waiting),
    ),
    (
        Named("store_calls_in_flight", "Calls under way", None),
        |glance| count(glance.in_flight),
    ),
    (
        Named(
            "store_breaker_open",
            "1 while reads are held back since the credentials do not work",
            None,
        ),
        |glance| f64::from(u8::from(glance.is_broken)),
    ),
];

const COUNTERS: [Counter; 2] = [
    (
        Named(
            "store_reads_wished",
            "Reads that KmsSecrets asked for",
            None,
        ),
        |glance| glance.wished,
    ),
    (
        Named(
            "store_reads_sent",
            "Reads that were sent for them, alone or in a batch; identical ones are sent once",
            None,
        ),
        |glance| glance.sent,
    ),
];

pub(super) fn encode(
    stores: &[(StoreLabels, Glance)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    for (named, value) in GAUGES {
        let values = stores.iter();
        named.gauges(
            encoder,
            values.map(|(labels, glance)| (labels.clone(), value(glance))),
        )?;
    }
    for (named, value) in COUNTERS {
        let values = stores.iter();
        named.counters(
            encoder,
            values.map(|(labels, glance)| (labels.clone(), value(glance))),
        )?;
    }
    Ok(())
}
