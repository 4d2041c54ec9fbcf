//! Requests built by hand, with something in every place that we use.
#![allow(dead_code, unreachable_pub)]

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::metrics::v1 as m;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as t;

pub const TRACE: [u8; 16] = [0xa1; 16];
pub const SPAN: [u8; 8] = [0xb2; 8];
pub const PARENT: [u8; 8] = [0xc3; 8];
/// 2023-11-14, and nanoseconds that no float keeps.
pub const SPAWN_NANOS: u64 = 1_700_000_000_123_456_789;
pub const END_NANOS: u64 = SPAWN_NANOS + 1_500_000_001;

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn resource() -> Resource {
    let list = ["a", "b"].map(|it| any(Value::StringValue(it.to_owned())));
    Resource {
        attributes: vec![
            text("service.name", "sample"),
            pair("answer", Value::IntValue(-42)),
            pair("yes", Value::BoolValue(true)),
            pair("half", Value::DoubleValue(0.5)),
            pair("bytes", Value::BytesValue(vec![0, 255])),
            pair(
                "list",
                Value::ArrayValue(ArrayValue {
                    values: list.to_vec(),
                }),
            ),
            pair(
                "map",
                Value::KvlistValue(KeyValueList {
                    values: vec![text("inner", "it")],
                }),
            ),
        ],
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "straggler".to_owned(),
        version: "0.1.0".to_owned(),
        attributes: vec![text("made", "by hand")],
        ..InstrumentationScope::default()
    }
}

/// An orphan with all there is, and a root span with nothing.
pub fn traces() -> ExportTraceServiceRequest {
    let orphan = t::Span {
        trace_id: TRACE.to_vec(),
        span_id: SPAN.to_vec(),
        parent_span_id: PARENT.to_vec(),
        trace_state: "vendor=1".to_owned(),
        flags: 0x301,
        name: "orphan".to_owned(),
        kind: t::span::SpanKind::Internal as i32,
        start_time_unix_nano: SPAWN_NANOS,
        end_time_unix_nano: END_NANOS,
        attributes: vec![
            text("code.file.path", "src/main.rs"),
            pair("code.line.number", Value::IntValue(7)),
            pair("tokio.task.busy_time", Value::DoubleValue(2.0)),
        ],
        dropped_attributes_count: 1,
        events: vec![
            t::span::Event {
                time_unix_nano: SPAWN_NANOS + 1,
                name: "orphaned".to_owned(),
                attributes: vec![text("tokio.task.orphan.cause", "parent ended")],
                dropped_attributes_count: 0,
            },
            t::span::Event {
                time_unix_nano: SPAWN_NANOS + 2,
                name: "bare".to_owned(),
                ..t::span::Event::default()
            },
        ],
        links: vec![
            t::span::Link {
                trace_id: TRACE.to_vec(),
                span_id: [0xd4; 8].to_vec(),
                trace_state: "vendor=2".to_owned(),
                attributes: vec![text("why", "marker")],
                flags: 0x101,
                ..t::span::Link::default()
            },
            t::span::Link {
                trace_id: TRACE.to_vec(),
                span_id: [0xd5; 8].to_vec(),
                ..t::span::Link::default()
            },
        ],
        status: Some(t::Status {
            message: "it was dropped".to_owned(),
            code: t::status::StatusCode::Error as i32,
        }),
        ..t::Span::default()
    };
    let root = t::Span {
        trace_id: TRACE.to_vec(),
        span_id: PARENT.to_vec(),
        name: "root".to_owned(),
        kind: t::span::SpanKind::Server as i32,
        start_time_unix_nano: SPAWN_NANOS,
        end_time_unix_nano: SPAWN_NANOS + 1,
        ..t::Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![t::ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![
                t::ScopeSpans {
                    scope: Some(scope()),
                    spans: vec![orphan],
                    schema_url: "https://opentelemetry.io/schemas/1.37.0".to_owned(),
                },
                t::ScopeSpans {
                    spans: vec![root],
                    ..t::ScopeSpans::default()
                },
            ],
            ..t::ResourceSpans::default()
        }],
    }
}

fn exemplar(value: m::exemplar::Value) -> m::Exemplar {
    m::Exemplar {
        filtered_attributes: vec![pair("tokio.task.id", Value::IntValue(9))],
        time_unix_nano: END_NANOS,
        span_id: SPAN.to_vec(),
        trace_id: TRACE.to_vec(),
        value: Some(value),
    }
}

fn number(value: m::number_data_point::Value, site: &str) -> m::NumberDataPoint {
    m::NumberDataPoint {
        attributes: vec![text("code.file.path", site)],
        start_time_unix_nano: SPAWN_NANOS,
        time_unix_nano: END_NANOS,
        value: Some(value),
        ..m::NumberDataPoint::default()
    }
}

fn metric(name: &str, unit: &str, data: m::metric::Data) -> m::Metric {
    m::Metric {
        name: name.to_owned(),
        description: format!("What {name} is."),
        unit: unit.to_owned(),
        data: Some(data),
        ..m::Metric::default()
    }
}

fn sum(monotonic: bool, data_points: Vec<m::NumberDataPoint>) -> m::metric::Data {
    m::metric::Data::Sum(m::Sum {
        data_points,
        aggregation_temporality: m::AggregationTemporality::Cumulative as i32,
        is_monotonic: monotonic,
    })
}

/// A counter of two sites, an up-down counter, a gauge, and a histogram, with exemplars.
pub fn metrics() -> ExportMetricsServiceRequest {
    use m::number_data_point::Value::{AsDouble, AsInt};
    let mut counted = number(AsInt(5), "a.rs");
    counted.exemplars = vec![exemplar(m::exemplar::Value::AsInt(1))];
    let histogram = m::HistogramDataPoint {
        attributes: vec![text("code.file.path", "a.rs")],
        start_time_unix_nano: SPAWN_NANOS,
        time_unix_nano: END_NANOS,
        count: 3,
        sum: Some(1.25),
        bucket_counts: vec![1, 0, 2],
        explicit_bounds: vec![0.0001, 0.5],
        exemplars: vec![exemplar(m::exemplar::Value::AsDouble(0.75))],
        min: Some(0.000_05),
        max: Some(1.0),
        ..m::HistogramDataPoint::default()
    };
    // Without an observation, nor what a sender may leave out.
    let empty = m::HistogramDataPoint {
        time_unix_nano: END_NANOS,
        ..m::HistogramDataPoint::default()
    };
    let metrics = vec![
        metric(
            "tokio.task.spawned",
            "{task}",
            sum(true, vec![counted, number(AsInt(6), "b.rs")]),
        ),
        metric(
            "tokio.task.time",
            "s",
            sum(true, vec![number(AsDouble(2.5), "a.rs")]),
        ),
        metric(
            "tokio.task.count",
            "{task}",
            sum(false, vec![number(AsInt(-1), "a.rs")]),
        ),
        metric(
            "tokio.task.oldest",
            "s",
            m::metric::Data::Gauge(m::Gauge {
                data_points: vec![number(AsDouble(3.0), "a.rs")],
            }),
        ),
        metric(
            "tokio.task.lifetime",
            "s",
            m::metric::Data::Histogram(m::Histogram {
                data_points: vec![histogram, empty],
                aggregation_temporality: m::AggregationTemporality::Cumulative as i32,
            }),
        ),
    ];
    ExportMetricsServiceRequest {
        resource_metrics: vec![m::ResourceMetrics {
            resource: Some(resource()),
            scope_metrics: vec![m::ScopeMetrics {
                scope: Some(scope()),
                metrics,
                ..m::ScopeMetrics::default()
            }],
            ..m::ResourceMetrics::default()
        }],
    }
}
