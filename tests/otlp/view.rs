//! Spans and points as an assertion reads them, taken from decoded protobuf. What OTLP
//! forbids (an id of the wrong length, a key twice, counts that don't fit the bounds) is a
//! panic here, so every test that looks at anything checks it.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as trace;

pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
pub use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

pub type Attributes = BTreeMap<String, Value>;

/// Compares with a plain `&str`, `i64`, `f64` or `bool`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Empty,
    Str(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Attributes),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    pub name: String,
    pub version: String,
    pub attributes: Attributes,
    pub schema_url: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    pub trace_state: String,
    pub flags: u32,
    pub name: String,
    pub kind: SpanKind,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Attributes,
    pub events: Vec<Event>,
    pub links: Vec<Link>,
    pub status: (StatusCode, String),
    /// Attributes, events and links that the sender says it left out.
    pub dropped: [u32; 3],
    pub resource: Attributes,
    pub scope: Scope,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub time: SystemTime,
    pub attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub trace_state: String,
    pub flags: u32,
    pub attributes: Attributes,
}

/// One point of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub name: String,
    pub description: String,
    pub unit: String,
    pub data: Data,
    pub attributes: Attributes,
    pub start: Option<SystemTime>,
    pub time: SystemTime,
    pub exemplars: Vec<Exemplar>,
    pub resource: Attributes,
    pub scope: Scope,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Gauge(Number),
    Sum {
        value: Number,
        monotonic: bool,
        cumulative: bool,
    },
    Histogram {
        cumulative: bool,
        histogram: Histogram,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i64),
    Double(f64),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// Upper bounds, inclusive; one fewer than `counts`.
    pub bounds: Vec<f64>,
    pub counts: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    pub value: Number,
    pub time: SystemTime,
    pub span: Option<(TraceId, SpanId)>,
    pub attributes: Attributes,
}

macro_rules! compares_with {
    ($plain:ty, $kind:ident) => {
        impl PartialEq<$plain> for Value {
            fn eq(&self, other: &$plain) -> bool {
                matches!(self, Value::$kind(value) if value == other)
            }
        }
        impl From<$plain> for Value {
            fn from(value: $plain) -> Self {
                Value::$kind(value.into())
            }
        }
    };
}
compares_with!(&str, Str);
compares_with!(String, Str);
compares_with!(bool, Bool);
compares_with!(i64, Int);
compares_with!(f64, Double);

impl Number {
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Double(value) => value,
        }
    }
}

impl Span {
    pub fn duration(&self) -> Duration {
        self.end
            .duration_since(self.start)
            .unwrap_or_else(|_| panic!("it ends before it starts: {self:?}"))
    }
}

impl Point {
    /// What tells it from all others of its request.
    pub fn series(&self) -> String {
        let (resource, scope) = (&self.resource, &self.scope.name);
        format!("{} {:?} {scope} {resource:?}", self.name, self.attributes)
    }

    /// A gauge's or a sum's.
    #[track_caller]
    pub fn number(&self) -> f64 {
        match &self.data {
            Data::Gauge(value) | Data::Sum { value, .. } => value.as_f64(),
            Data::Histogram { .. } => panic!("a histogram has no one value: {self:?}"),
        }
    }

    #[track_caller]
    pub fn histogram(&self) -> &Histogram {
        match &self.data {
            Data::Histogram { histogram, .. } => histogram,
            _ => panic!("no histogram: {self:?}"),
        }
    }

    /// As a counter must be for Prometheus.
    pub fn is_counter(&self) -> bool {
        matches!(
            self.data,
            Data::Sum {
                monotonic: true,
                cumulative: true,
                ..
            }
        )
    }

    pub fn is_up_down_counter(&self) -> bool {
        matches!(
            self.data,
            Data::Sum {
                monotonic: false,
                cumulative: true,
                ..
            }
        )
    }

    pub fn is_gauge(&self) -> bool {
        matches!(self.data, Data::Gauge(_))
    }

    pub fn is_histogram(&self) -> bool {
        matches!(
            self.data,
            Data::Histogram {
                cumulative: true,
                ..
            }
        )
    }

    /// Whether it has these attributes among its own.
    pub fn has(&self, wanted: &[(&str, Value)]) -> bool {
        let own = &self.attributes;
        wanted
            .iter()
            .all(|(key, value)| own.get(*key) == Some(value))
    }
}

pub fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in &request.resource_spans {
        let resource = resource(of_resource.resource.as_ref());
        for of_scope in &of_resource.scope_spans {
            let scope = scope(of_scope.scope.as_ref(), &of_scope.schema_url);
            for span in &of_scope.spans {
                spans.push(one_span(span, &resource, &scope));
            }
        }
    }
    spans
}

fn one_span(span: &trace::Span, resource: &Attributes, scope: &Scope) -> Span {
    let status = span
        .status
        .as_ref()
        .map_or_else(Default::default, |it| (it.code(), it.message.clone()));
    Span {
        trace_id: trace_id(&span.trace_id),
        span_id: span_id(&span.span_id),
        parent_span_id: (!span.parent_span_id.is_empty()).then(|| span_id(&span.parent_span_id)),
        trace_state: span.trace_state.clone(),
        flags: span.flags,
        name: span.name.clone(),
        kind: span.kind(),
        start: time(span.start_time_unix_nano),
        end: time(span.end_time_unix_nano),
        attributes: attributes(&span.attributes),
        events: span.events.iter().map(event).collect(),
        links: span.links.iter().map(link).collect(),
        status,
        dropped: [
            span.dropped_attributes_count,
            span.dropped_events_count,
            span.dropped_links_count,
        ],
        resource: resource.clone(),
        scope: scope.clone(),
    }
}

fn event(event: &trace::span::Event) -> Event {
    Event {
        name: event.name.clone(),
        time: time(event.time_unix_nano),
        attributes: attributes(&event.attributes),
    }
}

fn link(link: &trace::span::Link) -> Link {
    Link {
        trace_id: trace_id(&link.trace_id),
        span_id: span_id(&link.span_id),
        trace_state: link.trace_state.clone(),
        flags: link.flags,
        attributes: attributes(&link.attributes),
    }
}

pub fn points(request: &ExportMetricsServiceRequest) -> Vec<Point> {
    let mut points = Vec::new();
    for of_resource in &request.resource_metrics {
        let resource = resource(of_resource.resource.as_ref());
        for of_scope in &of_resource.scope_metrics {
            let scope = scope(of_scope.scope.as_ref(), &of_scope.schema_url);
            for metric in &of_scope.metrics {
                let frame = Frame {
                    metric,
                    resource: &resource,
                    scope: &scope,
                };
                frame.points(&mut points);
            }
        }
    }
    points
}

/// What all points of a metric share.
struct Frame<'a> {
    metric: &'a metrics::Metric,
    resource: &'a Attributes,
    scope: &'a Scope,
}

impl Frame<'_> {
    fn points(&self, into: &mut Vec<Point>) {
        match self.metric.data.as_ref().expect("a metric has data") {
            metrics::metric::Data::Gauge(gauge) => {
                let points = &gauge.data_points;
                into.extend(points.iter().map(|it| self.number(it, Data::Gauge)));
            }
            metrics::metric::Data::Sum(sum) => {
                let cumulative = is_cumulative(sum.aggregation_temporality());
                let data = |value| Data::Sum {
                    value,
                    monotonic: sum.is_monotonic,
                    cumulative,
                };
                into.extend(sum.data_points.iter().map(|it| self.number(it, data)));
            }
            metrics::metric::Data::Histogram(histogram) => {
                let cumulative = is_cumulative(histogram.aggregation_temporality());
                let points = &histogram.data_points;
                into.extend(points.iter().map(|it| self.histogram(it, cumulative)));
            }
            other => panic!("no test expects a metric of this type yet: {other:?}"),
        }
    }

    fn number(&self, point: &metrics::NumberDataPoint, data: impl Fn(Number) -> Data) -> Point {
        use metrics::number_data_point::Value;
        let value = match point.value.as_ref().expect("a point has a value") {
            Value::AsInt(value) => Number::Int(*value),
            Value::AsDouble(value) => Number::Double(*value),
        };
        Point {
            attributes: attributes(&point.attributes),
            start: start(point.start_time_unix_nano),
            time: time(point.time_unix_nano),
            exemplars: point.exemplars.iter().map(exemplar).collect(),
            ..self.point(data(value))
        }
    }

    fn histogram(&self, point: &metrics::HistogramDataPoint, cumulative: bool) -> Point {
        let histogram = Histogram {
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
            bounds: point.explicit_bounds.clone(),
            counts: point.bucket_counts.clone(),
        };
        histogram.check();
        Point {
            attributes: attributes(&point.attributes),
            start: start(point.start_time_unix_nano),
            time: time(point.time_unix_nano),
            exemplars: point.exemplars.iter().map(exemplar).collect(),
            ..self.point(Data::Histogram {
                cumulative,
                histogram,
            })
        }
    }

    fn point(&self, data: Data) -> Point {
        Point {
            name: self.metric.name.clone(),
            description: self.metric.description.clone(),
            unit: self.metric.unit.clone(),
            data,
            attributes: Attributes::new(),
            start: None,
            time: SystemTime::UNIX_EPOCH,
            exemplars: Vec::new(),
            resource: self.resource.clone(),
            scope: self.scope.clone(),
        }
    }
}

impl Histogram {
    fn check(&self) {
        let buckets = if self.bounds.is_empty() && self.counts.is_empty() {
            0
        } else {
            self.bounds.len() + 1
        };
        assert_eq!(self.counts.len(), buckets, "a bucket too many: {self:?}");
        assert!(self.bounds.is_sorted_by(|a, b| a < b), "order: {self:?}");
        let counted: u64 = self.counts.iter().sum();
        assert!(
            buckets == 0 || counted == self.count,
            "the buckets count {counted}: {self:?}"
        );
    }
}

fn exemplar(exemplar: &metrics::Exemplar) -> Exemplar {
    use metrics::exemplar::Value;
    Exemplar {
        value: match exemplar.value.as_ref().expect("an exemplar has a value") {
            Value::AsInt(value) => Number::Int(*value),
            Value::AsDouble(value) => Number::Double(*value),
        },
        time: time(exemplar.time_unix_nano),
        span: (!exemplar.span_id.is_empty())
            .then(|| (trace_id(&exemplar.trace_id), span_id(&exemplar.span_id))),
        attributes: attributes(&exemplar.filtered_attributes),
    }
}

fn is_cumulative(temporality: metrics::AggregationTemporality) -> bool {
    match temporality {
        metrics::AggregationTemporality::Cumulative => true,
        metrics::AggregationTemporality::Delta => false,
        metrics::AggregationTemporality::Unspecified => panic!("the temporality must be said"),
    }
}

fn resource(resource: Option<&Resource>) -> Attributes {
    resource.map_or_else(Attributes::new, |it| attributes(&it.attributes))
}

fn scope(scope: Option<&InstrumentationScope>, schema_url: &str) -> Scope {
    let of_none = InstrumentationScope::default();
    let scope = scope.unwrap_or(&of_none);
    Scope {
        name: scope.name.clone(),
        version: scope.version.clone(),
        attributes: attributes(&scope.attributes),
        schema_url: schema_url.to_owned(),
    }
}

fn attributes(pairs: &[KeyValue]) -> Attributes {
    let mut attributes = Attributes::new();
    for pair in pairs {
        assert!(
            !pair.key.is_empty(),
            "an attribute without a key: {pairs:?}"
        );
        let known = pair.value.as_ref().and_then(|it| it.value.as_ref());
        let before = attributes.insert(pair.key.clone(), value(known));
        assert!(before.is_none(), "{:?} twice in {pairs:?}", pair.key);
    }
    attributes
}

fn value(value: Option<&any_value::Value>) -> Value {
    match value {
        None | Some(any_value::Value::StringValueStrindex(_)) => Value::Empty,
        Some(any_value::Value::StringValue(it)) => Value::Str(it.clone()),
        Some(any_value::Value::BoolValue(it)) => Value::Bool(*it),
        Some(any_value::Value::IntValue(it)) => Value::Int(*it),
        Some(any_value::Value::DoubleValue(it)) => Value::Double(*it),
        Some(any_value::Value::BytesValue(it)) => Value::Bytes(it.clone()),
        Some(any_value::Value::ArrayValue(list)) => {
            let values = list.values.iter();
            Value::List(values.map(|it| self::value(it.value.as_ref())).collect())
        }
        Some(any_value::Value::KvlistValue(map)) => Value::Map(attributes(&map.values)),
    }
}

fn trace_id(bytes: &[u8]) -> TraceId {
    let id = TraceId::from_bytes(bytes.try_into().expect("a trace id has 16 bytes"));
    assert_ne!(id, TraceId::INVALID);
    id
}

fn span_id(bytes: &[u8]) -> SpanId {
    let id = SpanId::from_bytes(bytes.try_into().expect("a span id has 8 bytes"));
    assert_ne!(id, SpanId::INVALID);
    id
}

pub fn time(unix_nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_nanos)
}

/// Zero is OTLP's "unknown".
pub fn start(unix_nanos: u64) -> Option<SystemTime> {
    (unix_nanos != 0).then(|| time(unix_nanos))
}
