//! What was once wrong on the way out, and must not come back.

use super::answer::Answer;
use super::common::{Gate, MS, World};
use super::exporting::{LONG, context, flush, orphan, otlp, world};
use super::host::Host;
use super::received::Signal;
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use std::time::{Duration, Instant};
use straggler::otlp::{MetricExporter, Otlp};

/// A host that went away without a word never closes its connections.
#[test]
fn a_connection_that_fell_silent_is_left() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        receiver.answer(Signal::Metrics, Answer::Hang.times(1));
        let options =
            |otlp: Otlp| (otlp.spans(false).timeout(300 * MS)).interval(Duration::from_secs(3_600));
        let host = Host::new(receiver, options);
        host.leak(1);
        host.flush();
        assert_eq!(host.failing().len(), 1);
        host.flush();
        assert!(host.failing().is_empty());
        let received = host.receiver.received();
        let over: Vec<_> = received
            .of(Signal::Metrics)
            .map(|request| request.arrival.connection)
            .collect();
        assert_eq!(over.len(), 2, "{received}");
        assert_ne!(over[0], over[1], "{received}");
    }
}

/// Metrics count all, whatever has become of the spans.
#[test]
fn orphans_are_counted_while_their_spans_find_no_room() {
    let receiver = Receiver::start(Protocol::Http);
    receiver.answer(Signal::Traces, Answer::Hang);
    let world = world(otlp(&receiver).max_queued_spans(1).timeout(LONG));
    world.block_on(async {
        let gate = Gate::default();
        let mut all = Vec::new();
        for _ in 0..20 {
            all.push(orphan("leaked", &gate, Some(context(1, true))).await);
        }
        let orphaned = || {
            let received = receiver.received();
            let points = received.points("tokio.task.orphaned");
            points.iter().map(|point| point.number()).sum::<f64>()
        };
        let deadline = Instant::now() + LONG;
        while orphaned() < 20.0 {
            assert!(Instant::now() < deadline, "{}", receiver.received());
            // The spans hang, and the flush with them.
            world
                .tasks
                .flush(20 * MS)
                .expect_err("the receiver of spans hangs");
        }
    });
    receiver.kill();
}

#[test]
fn a_shutdown_by_the_guard_takes_no_longer_than_asked() {
    let receiver = Receiver::start(Protocol::Http);
    receiver.answer_all(&Answer::Hang);
    let world = World::with(|builder| builder.otlp(otlp(&receiver)));
    let guard = world.tasks.guard();
    let began = Instant::now();
    let late = guard.shutdown(100 * MS).expect_err("it hangs");
    assert!(late.is_timeout(), "{late}");
    // A guard that is dropped afterwards would take five seconds more.
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn one_reader_has_the_metrics_and_gives_them_back() {
    let receiver = Receiver::start(Protocol::Http);
    let world = world(otlp(&receiver));
    let first = MetricExporter::new(&world.tasks).expect("nobody else has them");
    let second = MetricExporter::new(&world.tasks).expect_err("the first has them");
    assert!(second.to_string().contains("twice"), "{second}");
    flush(&world);
    assert_eq!(receiver.received().point_count(), 0, "the reader sends");
    drop(first);
    flush(&world);
    assert!(receiver.received().point_count() > 0, "we do again");
}
