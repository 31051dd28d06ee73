//! Metrics that are made at a scrape, and not kept between two of them.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Name, help and, where it has one, the unit of a metric.
pub(super) struct Named(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) Option<Unit>,
);

impl Named {
    /// A gauge, if there is a value for it.
    pub(super) fn gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        value: Option<f64>,
    ) -> fmt::Result {
        let encoder = self.describe(encoder, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| ConstGauge::new(value).encode(encoder))
    }

    /// A counter, if there is a value for it.
    pub(super) fn counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        value: Option<f64>,
    ) -> fmt::Result {
        let encoder = self.describe(encoder, MetricType::Counter)?;
        value.map_or(Ok(()), |value| ConstCounter::new(value).encode(encoder))
    }

    /// A gauge for each of some labels.
    pub(super) fn gauges<L: EncodeLabelSet>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.describe(encoder, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(labels, value)| {
            ConstGauge::new(value).encode(encoder.encode_family(&labels)?)
        })
    }

    /// A counter for each of some labels.
    pub(super) fn counters<L: EncodeLabelSet>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.describe(encoder, MetricType::Counter)?;
        values.into_iter().try_for_each(|(labels, value)| {
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)
        })
    }

    fn describe<'a>(
        &'a self,
        encoder: &'a mut DescriptorEncoder<'_>,
        type_: MetricType,
    ) -> Result<MetricEncoder<'a>, fmt::Error> {
        let Self(name, help, unit) = self;
        // As those are ended that are kept.
        encoder.encode_descriptor(name, &format!("{help}."), unit.as_ref(), type_)
    }
}

/// How many, as metrics have it.
pub(super) fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
