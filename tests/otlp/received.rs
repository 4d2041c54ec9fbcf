//! All that a receiver was sent, in the order of arrival.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use super::answer::Answer;
use super::view::{self, Point, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Metrics,
}

/// What is known of a request before it is decoded.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub signal: Signal,
    pub answer: Answer,
    /// When the last byte had come.
    pub time: SystemTime,
    /// Which connection it came over, from 0.
    pub connection: u64,
    /// By lower-case name; gRPC's metadata too.
    pub headers: BTreeMap<String, String>,
    pub bytes_on_wire: usize,
    /// Whether the bytes were compressed, whatever the headers promise.
    pub gzip: bool,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub arrival: Arrival,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Decoded, whatever they were answered.
    pub requests: Vec<Arc<Request>>,
    /// What nobody asked for or could be decoded. No test expects any.
    pub strays: Vec<String>,
    /// So far.
    pub connections: u64,
    /// Now.
    pub open_connections: u64,
}

impl Request {
    pub fn signal(&self) -> Signal {
        self.arrival.signal
    }

    pub fn accepted(&self) -> bool {
        self.arrival.answer.accepts()
    }

    /// None of a request for metrics.
    pub fn spans(&self) -> Vec<Span> {
        match &self.body {
            Body::Traces(request) => view::spans(request),
            Body::Metrics(_) => Vec::new(),
        }
    }

    /// None of a request for traces.
    pub fn points(&self) -> Vec<Point> {
        match &self.body {
            Body::Traces(_) => Vec::new(),
            Body::Metrics(request) => {
                let points = view::points(request);
                each_series_once(&points);
                points
            }
        }
    }
}

/// Two points of one series in one request are an error in every backend.
fn each_series_once(points: &[Point]) {
    let mut seen = HashSet::new();
    for point in points {
        assert!(seen.insert(point.series()), "twice: {point:#?}");
    }
}

impl Received {
    pub fn of(&self, signal: Signal) -> impl DoubleEndedIterator<Item = &Request> {
        let requests = self.requests.iter().map(|request| &**request);
        requests.filter(move |request| request.signal() == signal)
    }

    /// Those that the sender may take for delivered.
    pub fn accepted(&self, signal: Signal) -> impl DoubleEndedIterator<Item = &Request> {
        self.of(signal).filter(|request| request.accepted())
    }

    /// Of all accepted requests.
    pub fn spans(&self) -> Vec<Span> {
        self.accepted(Signal::Traces)
            .flat_map(Request::spans)
            .collect()
    }

    pub fn span_count(&self) -> usize {
        self.spans().len()
    }

    #[track_caller]
    pub fn span(&self, name: &str) -> Span {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        assert_eq!(spans.len(), 1, "spans named {name:?} in\n{self}");
        spans.remove(0)
    }

    /// Of the latest accepted request.
    pub fn metrics(&self) -> Vec<Point> {
        let latest = self.accepted(Signal::Metrics).next_back();
        latest.map_or_else(Vec::new, Request::points)
    }

    /// Of all accepted requests.
    pub fn all_metrics(&self) -> Vec<Point> {
        self.accepted(Signal::Metrics)
            .flat_map(Request::points)
            .collect()
    }

    pub fn point_count(&self) -> usize {
        self.all_metrics().len()
    }

    /// The latest of this metric.
    pub fn points(&self, name: &str) -> Vec<Point> {
        let mut points = self.metrics();
        points.retain(|point| point.name == name);
        points
    }

    /// The latest one of this metric with these attributes.
    #[track_caller]
    pub fn point(&self, name: &str, attributes: &[(&str, view::Value)]) -> Point {
        let mut points = self.points(name);
        points.retain(|point| point.has(attributes));
        assert_eq!(
            points.len(),
            1,
            "points of {name:?} with {attributes:?} in\n{self}"
        );
        points.remove(0)
    }
}

/// Short enough to be read where a test fails.
impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} requests over {} connections, {} open",
            self.requests.len(),
            self.connections,
            self.open_connections
        )?;
        for (number, request) in self.requests.iter().enumerate() {
            let of = &request.arrival;
            let gzip = if of.gzip { ", gzip" } else { "" };
            write!(
                f,
                "#{number} {:?}, {} bytes{gzip}, connection {}, answered {:?}:",
                of.signal, of.bytes_on_wire, of.connection, of.answer
            )?;
            let mut names = BTreeMap::<String, usize>::new();
            let spans = request.spans().into_iter().map(|span| span.name);
            let points = request.points().into_iter().map(|point| point.name);
            for name in spans.chain(points) {
                *names.entry(name).or_default() += 1;
            }
            for (name, count) in names {
                write!(f, " {name:?}")?;
                if count > 1 {
                    write!(f, " ×{count}")?;
                }
            }
            writeln!(f)?;
        }
        self.strays
            .iter()
            .try_for_each(|stray| writeln!(f, "STRAY {stray}"))
    }
}
