//! A program that leaks, exported to a receiver of the tests, and the account of what arrived.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use straggler::Builder;
use straggler::otlp::{self, Otlp};
use tokio::runtime::Runtime;

use super::common::{Flavour, Gate, Truth, World};
use super::received::{Received, Request, Signal};
use super::receiver::{PATIENCE, Protocol, Receiver};
use super::view::Span;

pub const LONG: Duration = Duration::from_secs(30);
pub const SIGNALS: [Signal; 2] = [Signal::Traces, Signal::Metrics];

pub fn otlp(receiver: &Receiver) -> Otlp {
    Otlp::new()
        .endpoint(&receiver.endpoint())
        .protocol(match receiver.protocol() {
            Protocol::Grpc => otlp::Protocol::Grpc,
            Protocol::Http => otlp::Protocol::HttpProtobuf,
        })
}

/// A program that leaks, and what it exports to.
pub struct Host {
    pub runtime: Runtime,
    pub world: World,
    pub receiver: Receiver,
}

impl Host {
    pub fn new(receiver: Receiver, options: impl FnOnce(Otlp) -> Otlp) -> Self {
        let otlp = options(otlp(&receiver));
        Self::with(receiver, |builder| builder.otlp(otlp))
    }

    pub fn with(receiver: Receiver, options: impl FnOnce(Builder) -> Builder) -> Self {
        let world = World::on_real_time(options);
        Self {
            runtime: world.runtime(Flavour::CurrentThread),
            world,
            receiver,
        }
    }

    /// So many orphans, named `leaked`, that end when the gate is opened.
    pub fn leak(&self, count: u64) -> (Gate, Arc<Truth>) {
        let (gate, truth) = (Gate::default(), Arc::new(Truth::default()));
        self.runtime.block_on(async {
            let (gate, truth) = (gate.clone(), Arc::clone(&truth));
            let request = async move {
                for _ in 0..count {
                    straggler::task("leaked").spawn(truth.count(gate.passed()));
                }
            };
            tokio::spawn(request).await.expect("the request returns");
        });
        self.go_on_until(|| truth.polls() == count);
        (gate, truth)
    }

    /// Opens the gate, and comes back when all have ended.
    pub fn end(&self, (gate, truth): (Gate, Arc<Truth>), count: u64) {
        gate.open();
        self.go_on_until(|| truth.dropped() == count);
    }

    /// The host polls its tasks meanwhile.
    #[track_caller]
    pub fn go_on_until(&self, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            while !done() {
                assert!(Instant::now() < deadline, "{}", self.receiver.received());
                tokio::task::yield_now().await;
            }
        });
    }

    /// A round of the export has been made, whatever came of it.
    #[track_caller]
    pub fn flush(&self) {
        self.world.tasks.flush(LONG).expect("no round hangs");
    }

    #[track_caller]
    pub fn flush_until(&self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{}", self.receiver.received());
            self.flush();
        }
    }

    /// What the diagnosis `export-failing` says.
    pub fn failing(&self) -> Vec<String> {
        let diagnoses = self.world.tasks.diagnose();
        let failing = diagnoses.iter().filter(|it| it.code() == "export-failing");
        failing.map(ToString::to_string).collect()
    }

    pub fn lost(&self) -> [u64; 2] {
        let snapshot = self.world.snapshot();
        [snapshot.loss().spans_lost(), snapshot.loss().points_lost()]
    }

    /// Stops, and holds what is said to be lost against all that the receiver ever saw.
    #[track_caller]
    pub fn balance(self) -> Received {
        self.world.tasks.shutdown(LONG).expect("in time");
        let received = self.receiver.received();
        assert_eq!(self.lost(), missing(&received), "{received}");
        assert!(received.strays.is_empty(), "{received}");
        received
    }
}

pub fn named(received: &Received, name: &str) -> Vec<Span> {
    let mut spans = received.spans();
    spans.retain(|span| span.name == name);
    spans
}

/// Spans and points that were seen, and not accepted in any attempt.
pub fn missing(received: &Received) -> [u64; 2] {
    let rejected = |request: &Request, of: u64| {
        let rejected = request.arrival.answer.rejected();
        rejected.map_or(0, |(rejected, _)| of.min(rejected as u64))
    };
    let (mut lost_spans, mut lost_points) = (0, 0);
    let mut spans = BTreeMap::<[u8; 8], bool>::new();
    let mut collections = BTreeMap::<SystemTime, (u64, bool)>::new();
    for request in &received.requests {
        let (of_spans, points) = (request.spans(), request.points());
        lost_spans += rejected(request, of_spans.len() as u64);
        lost_points += rejected(request, points.len() as u64);
        for span in of_spans {
            let accepted = spans.entry(span.span_id.to_bytes()).or_default();
            assert!(!*accepted, "{} came twice: {received}", span.name);
            *accepted = request.accepted();
        }
        if let Some(point) = points.first() {
            let new = (points.len() as u64, false);
            let (_, accepted) = collections.entry(point.time).or_insert(new);
            assert!(!*accepted, "points came twice: {received}");
            *accepted = request.accepted();
        }
    }
    lost_spans += spans.values().filter(|accepted| !**accepted).count() as u64;
    let refused = collections.values().filter(|(_, accepted)| !accepted);
    lost_points += refused.map(|(count, _)| count).sum::<u64>();
    [lost_spans, lost_points]
}
