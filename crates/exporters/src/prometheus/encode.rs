//! The page.

use std::fmt;
use std::iter;

use magicapi_plugin::{HistogramValue, MetricKind, PointValue};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::accept::Format;
use super::names::Family;

/// Renders the families; `None` only if writing into memory failed.
pub(super) fn page(families: Vec<Family>, format: Format) -> Option<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { families, format }));
    let mut page = String::new();
    text::encode_registry(&mut page, &registry).ok()?;
    if format == Format::OpenMetrics {
        text::encode_eof(&mut page).ok()?;
    }
    Some(page)
}

#[derive(Debug)]
struct Page {
    families: Vec<Family>,
    format: Format,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for family in &self.families {
            let kind = match family.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
                _ => MetricType::Unknown,
            };
            let mut metric =
                encoder.encode_descriptor(&family.name, &family.help, family.unit.as_ref(), kind)?;
            for (labels, value) in &family.series {
                if labels.is_empty() {
                    self.value(&mut metric, family.kind, value)?;
                } else {
                    self.value(&mut metric.encode_family(&labels.as_slice())?, family.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

impl Page {
    fn value(
        &self,
        line: &mut MetricEncoder,
        kind: MetricKind,
        value: &PointValue,
    ) -> Result<(), fmt::Error> {
        match value {
            // In the old format the name has `_total` already, which the library would append once more.
            PointValue::Number(number)
                if kind == MetricKind::Counter && self.format == Format::OpenMetrics =>
            {
                line.encode_counter(number, None::<&Exemplar<NoLabelSet, f64>>)
            }
            PointValue::Number(number) => line.encode_gauge(number),
            PointValue::Histogram(histogram) => {
                let HistogramValue { bounds, counts, sum, .. } = histogram;
                let bounds = bounds.iter().copied().chain(iter::once(f64::INFINITY));
                let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
                line.encode_histogram::<NoLabelSet>(*sum, counts.iter().sum(), &buckets, None)
            }
            _ => Ok(()),
        }
    }
}
