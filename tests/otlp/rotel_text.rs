//! Reads what Rotel prints back into spans and points.
//!
//! Not shown, so not here: flags, counts of what was dropped, an unset status, and whether a
//! point's or an exemplar's number is whole by type (`4` stands for both). Rotel puts neither
//! quotes nor escapes around a text: one with a line break leaves unknown lines behind, and one
//! with `, ` or brackets in a list reads wrong.
#![allow(dead_code, unreachable_pub)]

use std::time::SystemTime;

use opentelemetry::trace::{SpanId, TraceId};

use super::view::{
    Attributes, Data, Event, Exemplar, Histogram, Link, Number, Point, Scope, Span, SpanKind,
    StatusCode, Value, start, time,
};

#[derive(Clone, Debug, Default)]
pub struct Printed {
    pub spans: Vec<Span>,
    pub points: Vec<Point>,
    /// Lines that no rule here knows.
    pub unknown: Vec<String>,
}

/// As Rotel would show this span.
pub fn as_shown(mut span: Span) -> Span {
    span.flags = 0;
    span.dropped = [0; 3];
    span.links.iter_mut().for_each(|link| link.flags = 0);
    span
}

/// As Rotel would show this point.
pub fn as_shown_point(mut point: Point) -> Point {
    match &mut point.data {
        Data::Gauge(value) | Data::Sum { value, .. } => {
            *value = number(&value.as_f64().to_string())
        }
        Data::Histogram { .. } => {}
    }
    for exemplar in &mut point.exemplars {
        exemplar.value = number(&exemplar.value.as_f64().to_string());
    }
    point
}

pub fn parse(text: &str) -> Printed {
    let mut reader = Reader::default();
    for line in text.lines() {
        // Its own log has colours, and begins with one.
        if line.starts_with('\u{1b}') || line.is_empty() {
            continue;
        }
        if !reader.line(line).unwrap_or(false) {
            reader.printed.unknown.push(line.to_owned());
        }
    }
    reader.printed
}

/// What the next `-> key: value` belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Place {
    #[default]
    Resource,
    Scope,
    Span,
    Event,
    EventAttributes,
    Link,
    LinkAttributes,
    Metric,
    Point,
    Exemplar,
    ExemplarAttributes,
}

#[derive(Default)]
struct Reader {
    printed: Printed,
    place: Place,
    resource: Attributes,
    scope: Scope,
    metric: Metric,
}

#[derive(Clone, Default)]
struct Metric {
    name: String,
    description: String,
    unit: String,
    data: String,
    monotonic: bool,
    cumulative: bool,
}

impl Reader {
    /// Whether it is understood; `None` where a value is not.
    fn line(&mut self, line: &str) -> Option<bool> {
        let bare = line.trim_start();
        if let Some(item) = bare.strip_prefix("-> ") {
            return self.item(item);
        }
        if let Some(scope) = bare.strip_prefix("InstrumentationScope ") {
            // Its name and version, and no telling them apart but by the last space.
            if scope != "attributes:" {
                let (name, version) = scope.rsplit_once(' ').unwrap_or((scope, ""));
                self.scope.name = name.to_owned();
                self.scope.version = version.to_owned();
            }
            self.place = Place::Scope;
            return Some(true);
        }
        if let Some((header, number)) = bare.split_once(" #")
            && number.starts_with(|it: char| it.is_ascii_digit())
        {
            return self.header(header, number);
        }
        let (key, value) = bare.split_once(':')?;
        self.field(key.trim_end(), value.trim_start())
    }

    fn header(&mut self, header: &str, rest: &str) -> Option<bool> {
        match header {
            "ResourceSpans" | "ResourceMetrics" => {
                self.resource = Attributes::new();
                self.place = Place::Resource;
            }
            "ScopeSpans" | "ScopeMetrics" => {
                self.scope = Scope::default();
                self.place = Place::Scope;
            }
            "Span" => {
                self.printed.spans.push(self.new_span());
                self.place = Place::Span;
            }
            "SpanEvent" => {
                self.span()?.events.push(Event {
                    name: String::new(),
                    time: SystemTime::UNIX_EPOCH,
                    attributes: Attributes::new(),
                });
                self.place = Place::Event;
            }
            "SpanLink" => {
                self.span()?.links.push(Link {
                    trace_id: TraceId::INVALID,
                    span_id: SpanId::INVALID,
                    trace_state: String::new(),
                    flags: 0,
                    attributes: Attributes::new(),
                });
                self.place = Place::Link;
            }
            "Metric" => {
                self.metric = Metric::default();
                self.place = Place::Metric;
            }
            "NumberDataPoints" | "HistogramDataPoints" => {
                self.printed.points.push(self.new_point()?);
                self.place = Place::Point;
            }
            "Exemplar" => {
                self.point()?.exemplars.push(Exemplar {
                    value: Number::Int(0),
                    time: SystemTime::UNIX_EPOCH,
                    span: None,
                    attributes: Attributes::new(),
                });
                self.place = Place::Exemplar;
            }
            "ExplicitBounds" => {
                let bound = rest.split_once(": ")?.1.parse().ok()?;
                self.histogram()?.bounds.push(bound);
            }
            "Buckets" => {
                let count = rest.split_once("Count: ")?.1.parse().ok()?;
                self.histogram()?.counts.push(count);
            }
            _ => return Some(false),
        }
        Some(true)
    }

    fn field(&mut self, key: &str, value: &str) -> Option<bool> {
        match (self.place, key) {
            // Only headlines; where what follows belongs is known.
            (_, "Resource SchemaURL" | "Resource attributes" | "Descriptor" | "Exemplars")
            | (Place::Point, "Data point attributes")
            | (_, "Events" | "Links") => {}
            (_, "Attributes") => self.place = Place::Span,
            (_, "ScopeSpans SchemaURL" | "ScopeMetrics SchemaURL") => {
                self.scope.schema_url = value.to_owned();
            }
            (Place::Span, _) => return self.span_field(key, value),
            (Place::Point, _) => return self.point_field(key, value),
            _ => return Some(false),
        }
        Some(true)
    }

    fn span_field(&mut self, key: &str, value: &str) -> Option<bool> {
        let span = self.span()?;
        match key {
            "Trace ID" => span.trace_id = TraceId::from_hex(value).ok()?,
            "Parent ID" if value.is_empty() => {}
            "Parent ID" => span.parent_span_id = Some(SpanId::from_hex(value).ok()?),
            "ID" => span.span_id = SpanId::from_hex(value).ok()?,
            "Name" => span.name = value.to_owned(),
            "Kind" => span.kind = SpanKind::from_str_name(value)?,
            "TraceState" => span.trace_state = value.to_owned(),
            "Start time" => span.start = time(value.parse().ok()?),
            "End time" => span.end = time(value.parse().ok()?),
            "Status code" => span.status.0 = StatusCode::from_str_name(value)?,
            "Status message" => span.status.1 = value.to_owned(),
            _ => return Some(false),
        }
        Some(true)
    }

    fn point_field(&mut self, key: &str, value: &str) -> Option<bool> {
        let point = self.point()?;
        match key {
            "StartTimestamp" => point.start = start(value.parse().ok()?),
            "Timestamp" => point.time = time(value.parse().ok()?),
            "Value" => match &mut point.data {
                Data::Gauge(it) | Data::Sum { value: it, .. } => *it = number(value),
                Data::Histogram { .. } => return Some(false),
            },
            "Count" => self.histogram()?.count = value.parse().ok()?,
            "Sum" => self.histogram()?.sum = Some(value.parse().ok()?),
            "Min" => self.histogram()?.min = Some(value.parse().ok()?),
            "Max" => self.histogram()?.max = Some(value.parse().ok()?),
            _ => return Some(false),
        }
        Some(true)
    }

    fn item(&mut self, item: &str) -> Option<bool> {
        // Two colons are Rotel's.
        let inner = match (self.place, item.trim_end_matches(':')) {
            (Place::Event, "Attributes") => Some(Place::EventAttributes),
            (Place::Link, "Attributes") => Some(Place::LinkAttributes),
            (Place::Exemplar, "FilteredAttributes") => Some(Place::ExemplarAttributes),
            _ => None,
        };
        if let Some(inner) = inner {
            self.place = inner;
            return Some(true);
        }
        let (key, text) = item.split_once(": ").or_else(|| {
            // Of an empty value the space is gone with the line's end, or not.
            item.strip_suffix(':').map(|key| (key, ""))
        })?;
        let attributes = match self.place {
            Place::Event | Place::Link | Place::Metric | Place::Exemplar => {
                return self.named(key, text);
            }
            Place::Resource => &mut self.resource,
            Place::Scope => &mut self.scope.attributes,
            Place::Span => &mut self.span()?.attributes,
            Place::EventAttributes => &mut self.span()?.events.last_mut()?.attributes,
            Place::LinkAttributes => &mut self.span()?.links.last_mut()?.attributes,
            Place::Point => &mut self.point()?.attributes,
            Place::ExemplarAttributes => &mut self.point()?.exemplars.last_mut()?.attributes,
        };
        attributes.insert(key.to_owned(), value(text)?);
        Some(true)
    }

    /// Items that are no attributes.
    fn named(&mut self, key: &str, text: &str) -> Option<bool> {
        let ids = || (TraceId::from_hex(text), SpanId::from_hex(text));
        match (self.place, key) {
            (Place::Event | Place::Link, "DroppedAttributesCount") => {}
            (Place::Event, "Name") => self.span()?.events.last_mut()?.name = text.to_owned(),
            (Place::Event, "Timestamp") => {
                self.span()?.events.last_mut()?.time = time(text.parse().ok()?);
            }
            (Place::Link, "Trace ID") => self.span()?.links.last_mut()?.trace_id = ids().0.ok()?,
            (Place::Link, "ID") => self.span()?.links.last_mut()?.span_id = ids().1.ok()?,
            (Place::Link, "TraceState") => {
                self.span()?.links.last_mut()?.trace_state = text.to_owned();
            }
            (Place::Metric, "Name") => self.metric.name = text.to_owned(),
            (Place::Metric, "Description") => self.metric.description = text.to_owned(),
            (Place::Metric, "Unit") => self.metric.unit = text.to_owned(),
            (Place::Metric, "DataType") => self.metric.data = text.to_owned(),
            (Place::Metric, "IsMonotonic") => self.metric.monotonic = text.parse().ok()?,
            (Place::Metric, "AggregationTemporality") => {
                self.metric.cumulative = text == "AGGREGATION_TEMPORALITY_CUMULATIVE";
            }
            (Place::Exemplar, "Trace ID" | "Span ID") if text.is_empty() => {}
            (Place::Exemplar, "Trace ID") => {
                let span = &mut self.point()?.exemplars.last_mut()?.span;
                *span = Some((ids().0.ok()?, SpanId::INVALID));
            }
            (Place::Exemplar, "Span ID") => {
                let span = &mut self.point()?.exemplars.last_mut()?.span;
                span.as_mut()?.1 = ids().1.ok()?;
            }
            (Place::Exemplar, "Timestamp") => {
                self.point()?.exemplars.last_mut()?.time = time(text.parse().ok()?);
            }
            (Place::Exemplar, "Value") => {
                self.point()?.exemplars.last_mut()?.value = number(text);
            }
            _ => return Some(false),
        }
        Some(true)
    }

    fn span(&mut self) -> Option<&mut Span> {
        self.printed.spans.last_mut()
    }

    fn point(&mut self) -> Option<&mut Point> {
        self.printed.points.last_mut()
    }

    fn histogram(&mut self) -> Option<&mut Histogram> {
        match &mut self.point()?.data {
            Data::Histogram { histogram, .. } => Some(histogram),
            _ => None,
        }
    }

    fn new_span(&self) -> Span {
        Span {
            trace_id: TraceId::INVALID,
            span_id: SpanId::INVALID,
            parent_span_id: None,
            trace_state: String::new(),
            flags: 0,
            name: String::new(),
            kind: SpanKind::Unspecified,
            start: SystemTime::UNIX_EPOCH,
            end: SystemTime::UNIX_EPOCH,
            attributes: Attributes::new(),
            events: Vec::new(),
            links: Vec::new(),
            status: (StatusCode::Unset, String::new()),
            dropped: [0; 3],
            resource: self.resource.clone(),
            scope: self.scope.clone(),
        }
    }

    fn new_point(&self) -> Option<Point> {
        let Metric {
            name,
            description,
            unit,
            data,
            monotonic,
            cumulative,
        } = self.metric.clone();
        let value = Number::Int(0);
        Some(Point {
            name,
            description,
            unit,
            data: match &*data {
                "Gauge" => Data::Gauge(value),
                "Sum" => Data::Sum {
                    value,
                    monotonic,
                    cumulative,
                },
                "Histogram" => Data::Histogram {
                    cumulative,
                    histogram: Histogram::default(),
                },
                _ => return None,
            },
            attributes: Attributes::new(),
            start: None,
            time: SystemTime::UNIX_EPOCH,
            exemplars: Vec::new(),
            resource: self.resource.clone(),
            scope: self.scope.clone(),
        })
    }
}

fn number(text: &str) -> Number {
    match text.parse() {
        Ok(whole) => Number::Int(whole),
        // What is no number equals none.
        Err(_) => Number::Double(text.parse().unwrap_or(f64::NAN)),
    }
}

fn value(text: &str) -> Option<Value> {
    if text == "Empty" {
        return Some(Value::Empty);
    }
    let (kind, inner) = text.strip_suffix(')')?.split_once('(')?;
    Some(match kind {
        "Str" => Value::Str(inner.to_owned()),
        "Int" => Value::Int(inner.parse().ok()?),
        "Bool" => Value::Bool(inner.parse().ok()?),
        "Double" => Value::Double(inner.parse().ok()?),
        "Bytes" => {
            let bytes = inner.trim_matches(['[', ']']).split(", ");
            let bytes = bytes.filter(|byte| !byte.is_empty());
            Value::Bytes(bytes.map(|byte| byte.parse().ok()).collect::<Option<_>>()?)
        }
        "Slice" => Value::List(parts(inner).map(value).collect::<Option<_>>()?),
        "Map" => {
            let pairs = parts(inner).map(|part| {
                let (key, text) = part.split_once(':')?;
                Some((key.to_owned(), value(text)?))
            });
            Value::Map(pairs.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// Splits at the commas that stand in no brackets.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let parts = text.split(move |it| {
        match it {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        it == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}
