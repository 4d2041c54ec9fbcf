//! Metrics as an assertion reads them, taken from OTLP's messages.

pub use super::catalog::InstrumentKind;

use super::catalog::Instrument;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{self as common, any_value};
use opentelemetry_proto::tonic::metrics::v1::{self as proto, exemplar, metric, number_data_point};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One metric of an export, with its points. All are cumulative.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    name: String,
    description: String,
    unit: String,
    scope: String,
    kind: InstrumentKind,
    points: Vec<Point>,
}

impl Metric {
    pub(super) fn without_points(instrument: &Instrument) -> Self {
        Self {
            name: instrument.name.to_owned(),
            description: instrument.description.to_owned(),
            unit: instrument.unit.to_owned(),
            scope: super::scope().name().to_owned(),
            kind: instrument.kind,
            points: Vec::new(),
        }
    }

    /// Its name, as `tokio.task.count`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says of itself.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Its unit, as `s` or `{task}`.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// The name of the instrumentation scope: `straggler`, or the program's for a metric of its
    /// own.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// What kind of instrument its points are of.
    pub fn kind(&self) -> InstrumentKind {
        self.kind
    }

    /// One for each set of attributes.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The same with those points only that have this attribute.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        (self.points).retain(|point| point.attribute(key) == Some(&value));
        self
    }

    /// The values of all points added up, zero where there is none. `None` for a histogram.
    pub fn total(&self) -> Option<f64> {
        // `sum` begins with -0.0.
        let add = |sum, value| Some(sum + value);
        match self.kind {
            InstrumentKind::Histogram => None,
            _ => (self.points.iter().filter_map(Point::value)).try_fold(0.0, add),
        }
    }
}

/// One point of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    attributes: Vec<KeyValue>,
    start: Option<SystemTime>,
    time: SystemTime,
    data: Data,
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, Debug, PartialEq)]
enum Data {
    Number(Option<f64>),
    Histogram(Histogram),
}

impl Point {
    /// What tells it from the metric's other points.
    pub fn attributes(&self) -> &[KeyValue] {
        &self.attributes
    }

    /// One of them.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        let mut all = self.attributes.iter();
        let found = all.find(|attribute| attribute.key.as_str() == key)?;
        Some(&found.value)
    }

    /// Its value, be it whole or not. `None` for a histogram's.
    pub fn value(&self) -> Option<f64> {
        match self.data {
            Data::Number(value) => value,
            Data::Histogram(_) => None,
        }
    }

    /// Its values in buckets, if it is a histogram's.
    pub fn histogram(&self) -> Option<&Histogram> {
        match &self.data {
            Data::Histogram(histogram) => Some(histogram),
            Data::Number(_) => None,
        }
    }

    /// Since when it is counted.
    pub fn start(&self) -> Option<SystemTime> {
        self.start
    }

    /// When it was collected.
    pub fn time(&self) -> SystemTime {
        self.time
    }

    /// Single values that it counts, with their spans.
    pub fn exemplars(&self) -> &[Exemplar] {
        &self.exemplars
    }
}

/// The values of a histogram's point.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    count: u64,
    sum: Option<f64>,
    bounds: Vec<f64>,
    counts: Vec<u64>,
}

impl Histogram {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All values added up. straggler's histograms always say it.
    pub fn sum(&self) -> Option<f64> {
        self.sum
    }

    /// The inclusive upper bounds of the buckets but the last, which has none. Empty for an
    /// exponential histogram of the program's own.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// How many values lie in each bucket: one more than there are bounds. Empty for an
    /// exponential histogram of the program's own.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

/// One value of many, and the span it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    value: Option<f64>,
    time: SystemTime,
    trace_id: TraceId,
    span_id: SpanId,
}

impl Exemplar {
    /// The value.
    pub fn value(&self) -> Option<f64> {
        self.value
    }

    /// When it was counted.
    pub fn time(&self) -> SystemTime {
        self.time
    }

    /// The trace it belongs to; `INVALID` where none is said.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The span it belongs to; `INVALID` where none is said.
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }
}

pub(super) fn metrics(request: &ExportMetricsServiceRequest) -> Vec<Metric> {
    let scopes = (request.resource_metrics.iter()).flat_map(|resource| &resource.scope_metrics);
    let metrics = scopes.flat_map(|of_scope| {
        let scope = of_scope.scope.as_ref();
        let scope = scope.map_or("", |scope| &scope.name);
        (of_scope.metrics.iter()).filter_map(move |metric| one_metric(metric, scope))
    });
    metrics.collect()
}

/// `None` for a kind that no SDK makes any more.
fn one_metric(metric: &proto::Metric, scope: &str) -> Option<Metric> {
    use InstrumentKind::{Counter, Gauge, Histogram, UpDownCounter};
    let (kind, points) = match metric.data.as_ref()? {
        metric::Data::Gauge(gauge) => (Gauge, gauge.data_points.iter().map(number).collect()),
        metric::Data::Sum(sum) => {
            let points = sum.data_points.iter().map(number).collect();
            match sum.is_monotonic {
                true => (Counter, points),
                false => (UpDownCounter, points),
            }
        }
        metric::Data::Histogram(all) => (Histogram, all.data_points.iter().map(explicit).collect()),
        metric::Data::ExponentialHistogram(all) => {
            (Histogram, all.data_points.iter().map(exponential).collect())
        }
        metric::Data::Summary(_) => return None,
    };
    Some(Metric {
        name: metric.name.clone(),
        description: metric.description.clone(),
        unit: metric.unit.clone(),
        scope: scope.to_owned(),
        kind,
        points,
    })
}

fn number(point: &proto::NumberDataPoint) -> Point {
    let value = point.value.map(|value| match value {
        number_data_point::Value::AsInt(value) => value as f64,
        number_data_point::Value::AsDouble(value) => value,
    });
    Point {
        attributes: attributes(&point.attributes),
        start: start(point.start_time_unix_nano),
        time: time(point.time_unix_nano),
        data: Data::Number(value),
        exemplars: point.exemplars.iter().map(one_exemplar).collect(),
    }
}

fn explicit(point: &proto::HistogramDataPoint) -> Point {
    Point {
        attributes: attributes(&point.attributes),
        start: start(point.start_time_unix_nano),
        time: time(point.time_unix_nano),
        data: Data::Histogram(Histogram {
            count: point.count,
            sum: point.sum,
            bounds: point.explicit_bounds.clone(),
            counts: point.bucket_counts.clone(),
        }),
        exemplars: point.exemplars.iter().map(one_exemplar).collect(),
    }
}

fn exponential(point: &proto::ExponentialHistogramDataPoint) -> Point {
    Point {
        attributes: attributes(&point.attributes),
        start: start(point.start_time_unix_nano),
        time: time(point.time_unix_nano),
        data: Data::Histogram(Histogram {
            count: point.count,
            sum: point.sum,
            bounds: Vec::new(),
            counts: Vec::new(),
        }),
        exemplars: point.exemplars.iter().map(one_exemplar).collect(),
    }
}

fn one_exemplar(exemplar: &proto::Exemplar) -> Exemplar {
    let value = exemplar.value.map(|value| match value {
        exemplar::Value::AsInt(value) => value as f64,
        exemplar::Value::AsDouble(value) => value,
    });
    let trace_id = exemplar.trace_id.as_slice().try_into();
    let span_id = exemplar.span_id.as_slice().try_into();
    Exemplar {
        value,
        time: time(exemplar.time_unix_nano),
        trace_id: trace_id.map_or(TraceId::INVALID, TraceId::from_bytes),
        span_id: span_id.map_or(SpanId::INVALID, SpanId::from_bytes),
    }
}

fn attributes(pairs: &[common::KeyValue]) -> Vec<KeyValue> {
    let known = |pair: &common::KeyValue| {
        let value = value(pair.value.as_ref()?)?;
        Some(KeyValue::new(pair.key.clone(), value))
    };
    pairs.iter().filter_map(known).collect()
}

/// Back to what it was made of. `None` for what OpenTelemetry's API can't say.
fn value(value: &common::AnyValue) -> Option<Value> {
    Some(match value.value.as_ref()? {
        any_value::Value::StringValue(text) => Value::String(text.clone().into()),
        any_value::Value::BoolValue(value) => Value::Bool(*value),
        any_value::Value::IntValue(value) => Value::I64(*value),
        any_value::Value::DoubleValue(value) => Value::F64(*value),
        any_value::Value::ArrayValue(list) => Value::Array(array(&list.values)?),
        _ => return None,
    })
}

/// A list of one type; which, the first value says.
fn array(values: &[common::AnyValue]) -> Option<Array> {
    let values: Vec<Value> = values.iter().map(value).collect::<Option<_>>()?;
    macro_rules! all {
        ($kind:ident) => {{
            let one = |value| match value {
                Value::$kind(value) => Some(value),
                _ => None,
            };
            values.into_iter().map(one).collect::<Option<_>>()?
        }};
    }
    Some(match values.first() {
        Some(Value::Bool(_)) => Array::Bool(all!(Bool)),
        Some(Value::I64(_)) => Array::I64(all!(I64)),
        Some(Value::F64(_)) => Array::F64(all!(F64)),
        _ => Array::String(all!(String)),
    })
}

fn time(unix_nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nanos)
}

/// Zero is OTLP's "unknown".
fn start(unix_nanos: u64) -> Option<SystemTime> {
    (unix_nanos != 0).then(|| time(unix_nanos))
}
