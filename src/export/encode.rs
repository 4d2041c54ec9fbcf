//! Metrics as OTLP's messages.

use super::catalog::{Instrument, InstrumentKind};
use super::series::{
    Buckets, Collection, Metric, Point, TracedAmount, TracedValue, Value, seconds,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    self as proto, AggregationTemporality, ResourceMetrics, ScopeMetrics, exemplar, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which of the metrics go out this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// The others go through the program's own meter provider.
    Histograms,
}

impl Which {
    pub(crate) fn has(self, instrument: &Instrument) -> bool {
        self == Self::All || instrument.kind == InstrumentKind::Histogram
    }
}

/// A request with the metrics of one collection.
pub(crate) fn request(
    collection: &Collection,
    which: Which,
    resource: Resource,
    schema_url: &str,
) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scope_metrics(collection, which)],
            schema_url: schema_url.to_owned(),
        }],
    }
}

/// The metrics of one collection under straggler's own scope.
pub(crate) fn scope_metrics(collection: &Collection, which: Which) -> ScopeMetrics {
    let metrics = (collection.metrics.iter())
        .filter(|metric| which.has(metric.instrument))
        .map(|metric| encode(metric, nanos(collection.at)))
        .collect();
    let scope = super::scope();
    ScopeMetrics {
        scope: Some(InstrumentationScope {
            name: scope.name().to_owned(),
            version: scope.version().unwrap_or_default().to_owned(),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
        }),
        metrics,
        schema_url: String::new(),
    }
}

/// How many points a request has.
pub(crate) fn points(request: &ExportMetricsServiceRequest) -> u64 {
    let metrics = (request.resource_metrics.iter())
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics);
    let points = |metric: &proto::Metric| match &metric.data {
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(metric::Data::Sum(sum)) => sum.data_points.len(),
        Some(metric::Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(metric::Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(metric::Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    };
    metrics.map(|metric| points(metric) as u64).sum()
}

fn encode(metric: &Metric, at: u64) -> proto::Metric {
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers = || {
        (metric.points.iter())
            .map(|point| number(point, at))
            .collect()
    };
    let sum = |is_monotonic| {
        metric::Data::Sum(proto::Sum {
            data_points: numbers(),
            aggregation_temporality: cumulative,
            is_monotonic,
        })
    };
    let data = match metric.instrument.kind {
        InstrumentKind::Counter => sum(true),
        InstrumentKind::UpDownCounter => sum(false),
        InstrumentKind::Gauge => metric::Data::Gauge(proto::Gauge {
            data_points: numbers(),
        }),
        InstrumentKind::Histogram => metric::Data::Histogram(proto::Histogram {
            data_points: (metric.points.iter())
                .filter_map(|point| histogram(point, at))
                .collect(),
            aggregation_temporality: cumulative,
        }),
    };
    proto::Metric {
        name: metric.instrument.name.to_owned(),
        description: metric.instrument.description.to_owned(),
        unit: metric.instrument.unit.to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

fn number(point: &Point, at: u64) -> proto::NumberDataPoint {
    let value = match &point.value {
        Value::Count(count) => {
            number_data_point::Value::AsInt(i64::try_from(*count).unwrap_or(i64::MAX))
        }
        Value::Seconds(seconds) => number_data_point::Value::AsDouble(*seconds),
        Value::Histogram(buckets) => number_data_point::Value::AsDouble(seconds(buckets.sum)),
    };
    proto::NumberDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: nanos(point.start),
        time_unix_nano: at,
        exemplars: point.exemplars.iter().map(exemplar).collect(),
        flags: 0,
        value: Some(value),
    }
}

fn histogram(point: &Point, at: u64) -> Option<proto::HistogramDataPoint> {
    let Value::Histogram(Buckets {
        bounds,
        counts,
        sum,
    }) = &point.value
    else {
        return None;
    };
    Some(proto::HistogramDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: nanos(point.start),
        time_unix_nano: at,
        count: counts.iter().sum(),
        sum: Some(seconds(*sum)),
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.iter().map(|&bound| seconds(bound)).collect(),
        exemplars: point.exemplars.iter().map(exemplar).collect(),
        flags: 0,
        min: None,
        max: None,
    })
}

fn exemplar(traced: &TracedValue) -> proto::Exemplar {
    let value = match traced.value {
        TracedAmount::One => exemplar::Value::AsInt(1),
        TracedAmount::Seconds(seconds) => exemplar::Value::AsDouble(seconds),
    };
    proto::Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: nanos(traced.at),
        span_id: traced.span_id.to_vec(),
        trace_id: traced.trace_id.to_vec(),
        value: Some(value),
    }
}

fn attributes(point: &Point) -> Vec<KeyValue> {
    point.attributes.iter().map(Into::into).collect()
}

/// Nanoseconds since 1970; zero before it, and the most there is after the year 2554.
fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    crate::clock::nanos(since)
}
