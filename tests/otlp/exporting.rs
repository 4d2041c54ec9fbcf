//! What the tests of the exporter share: worlds that export, orphans in traces, and what must
//! hold of all that was ever received.
#![allow(dead_code, unreachable_pub)]

use super::common::{Gate, World, settle};
use super::received::{Received, Signal};
use super::receiver::Receiver;
use super::view::{Data, Point, Span};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use straggler::otlp::Otlp;
use straggler::{Builder, Snapshot};
use tokio::task::JoinHandle;

/// For what is over in milliseconds unless something is broken.
pub const LONG: Duration = Duration::from_secs(20);

pub fn otlp(receiver: &Receiver) -> Otlp {
    // No export but those that a test asks for.
    super::host::otlp(receiver).interval(Duration::from_secs(60 * 60))
}

pub fn world(otlp: Otlp) -> World {
    World::with(|builder| builder.otlp(otlp))
}

pub fn world_with(otlp: Otlp, options: impl FnOnce(Builder) -> Builder) -> World {
    World::with(|builder| options(builder.otlp(otlp)))
}

/// A span of the program, told from others by `number`.
pub fn context(number: u64, sampled: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from(0x1000_u128 + u128::from(number)),
        SpanId::from(0x2000 + number),
        TraceFlags::default().with_sampled(sampled),
        false,
        TraceState::NONE,
    )
}

pub fn within<T>(context: Option<&SpanContext>, f: impl FnOnce() -> T) -> T {
    let around = match context {
        Some(context) => Context::new().with_remote_span_context(context.clone()),
        None => Context::new(),
    };
    let _current = around.attach();
    f()
}

/// A task whose parent has ended, waiting for `gate`.
pub async fn orphan(
    name: &'static str,
    gate: &Gate,
    context: Option<SpanContext>,
) -> JoinHandle<()> {
    let passed = gate.passed();
    let parent =
        tokio::spawn(
            async move { within(context.as_ref(), || straggler::task(name).spawn(passed)) },
        );
    parent.await.expect("the parent returns")
}

/// Waits, on a current-thread runtime, until a snapshot is as it should be.
pub async fn until(world: &World, done: impl Fn(&Snapshot) -> bool) {
    let deadline = Instant::now() + LONG;
    loop {
        let snapshot = world.snapshot();
        if done(&snapshot) {
            return;
        }
        assert!(Instant::now() < deadline, "it stays so:\n{snapshot}");
        tokio::task::yield_now().await;
    }
}

pub fn flush(world: &World) {
    world.tasks.flush(LONG).expect("in time");
}

#[track_caller]
pub fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let named: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(named.len(), 1, "spans named {name:?} in {spans:#?}");
    named[0]
}

/// The last point of each series.
pub type Series = HashMap<String, Point>;

/// What holds of everything that was received, whatever the program did: each span is itself,
/// no series goes down that must not, starts anew or vanishes, and nothing names a task that
/// must not.
#[track_caller]
pub fn audit(received: &Received) -> Series {
    assert!(received.strays.is_empty(), "{received}");
    let mut ids = HashSet::new();
    for span in received.spans() {
        assert!(ids.insert(span.span_id), "an id twice: {span:#?}");
        assert!(span.start <= span.end, "{span:#?}");
        assert_eq!(span.dropped, [0; 3]);
    }
    let mut series = Series::new();
    for request in received.accepted(Signal::Metrics) {
        let mut seen = HashSet::new();
        for point in request.points() {
            follows(series.get(&point.series()), &point);
            seen.insert(point.series());
            series.insert(point.series(), point);
        }
        let gone = series.keys().find(|key| !seen.contains(*key));
        assert_eq!(gone, None, "it vanished");
    }
    series
}

#[track_caller]
fn follows(before: Option<&Point>, point: &Point) {
    let exemplars = point.exemplars.iter();
    let mut keys = (point.attributes.keys()).chain(exemplars.flat_map(|it| it.attributes.keys()));
    assert!(keys.all(|key| key != "tokio.task.id"), "{point:#?}");
    assert!(point.start <= Some(point.time), "{point:#?}");
    let Some(before) = before else { return };
    assert_eq!(before.start, point.start, "it starts anew: {point:#?}");
    assert!(before.time <= point.time, "{point:#?}");
    assert_eq!(before.unit, point.unit);
    let is_less = match (&before.data, &point.data) {
        (Data::Sum { .. }, Data::Sum { .. }) if point.is_counter() => {
            point.number() < before.number()
        }
        (Data::Histogram { histogram: old, .. }, Data::Histogram { histogram: new, .. }) => {
            let mut buckets = old.counts.iter().zip(&new.counts);
            new.sum < old.sum || buckets.any(|(old, new)| new < old)
        }
        _ => false,
    };
    assert!(!is_less, "it goes down:\n{before:#?}\n{point:#?}");
}

/// Waits for `gate` again and again, until it is aborted.
pub async fn endless(gate: Gate) {
    loop {
        gate.passed().await;
    }
}

/// Makes a task that waits for `gate` look ended: it is polled for no reason that is seen, while
/// another that did end isn't known to have. Polled once more, it comes back. Gives the span
/// that the other's end hangs on.
pub async fn presume_ended(world: &World, gate: &Gate, task: tokio::task::Id) -> tracing::Span {
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let ghost = tokio::spawn(std::future::poll_fn(move |cx| {
        cx.waker().wake_by_ref();
        let span = tracing::Span::current();
        tell.take()
            .expect("polled once")
            .send(span)
            .expect("awaited");
        std::task::Poll::Ready(())
    }));
    let span = told.await.expect("it is polled");
    ghost.await.expect("it ends");
    settle().await;
    tracing::dispatcher::with_default(&tracing::Dispatch::none(), || gate.nudge());
    settle().await;
    until(world, |snapshot| snapshot.task(task).is_none()).await;
    span
}
