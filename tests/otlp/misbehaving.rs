//! Whatever the receiver does: the host goes on, memory is bounded, what did not arrive is
//! counted, exactly, and all is well by itself once the receiver is.

use std::collections::HashSet;
use std::time::Duration;

use opentelemetry::trace::SpanId;

use super::answer::Answer;
use super::common::MS;
use super::host::{Host, LONG, SIGNALS, named, otlp};
use super::received::{Request, Signal};
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use super::view::Span;

/// Three orphans are told of in vain, and told of anew once the receiver is well.
fn in_vain_and_then_anew(
    ill: impl Fn(&Receiver),
    well: impl Fn(&Receiver),
    why: [&str; 2],
    all_seen: bool,
) {
    for protocol in PROTOCOLS {
        // From the start: on a busy machine much is sent before a host is even built.
        let receiver = Receiver::start(protocol);
        ill(&receiver);
        // Seen once a second, or where a flush asks; made anew after the interval.
        let host = Host::new(receiver, |otlp| otlp.timeout(700 * MS).interval(100 * MS));
        let leaked = host.leak(3);
        host.flush_until(|host| host.failing().len() == 2);
        for (what, failing) in ["spans", "metrics"].iter().zip(sorted(host.failing())) {
            let told = format!("{what} were not taken by {}", host.receiver.endpoint());
            assert!(failing.contains(&told), "{failing}");
            assert!(failing.contains(why[protocol as usize]), "{failing}");
        }
        assert!(
            host.lost().iter().all(|&lost| lost > 0),
            "{:?}",
            host.lost()
        );
        assert!(host.receiver.spans().is_empty());
        assert!(host.receiver.metrics().is_empty());

        well(&host.receiver);
        host.flush_until(|host| {
            let received = host.receiver.received();
            named(&received, "orphan leaked").len() == 3 && !received.metrics().is_empty()
        });
        host.flush_until(|host| host.failing().is_empty());
        host.end(leaked, 3);
        host.flush();
        let received = if all_seen {
            host.balance()
        } else {
            host.receiver.received()
        };
        let markers = ids(&named(&received, "orphan leaked"));
        let wholes = named(&received, "task leaked");
        assert_eq!((markers.len(), wholes.len()), (3, 3), "{received}");
        let linked: HashSet<_> = wholes.iter().map(|whole| whole.links[0].span_id).collect();
        assert_eq!(markers, linked, "to those that arrived");
        let tried = received
            .of(Signal::Traces)
            .filter(|request| !request.accepted());
        let in_vain = ids(&tried.flat_map(Request::spans).collect::<Vec<_>>());
        assert!(in_vain.is_disjoint(&markers), "ids are fresh: {received}");
    }
}

/// Spans first.
fn sorted(mut failing: Vec<String>) -> Vec<String> {
    failing.sort();
    failing.reverse();
    failing
}

fn ids(spans: &[Span]) -> HashSet<SpanId> {
    spans.iter().map(|span| span.span_id).collect()
}

fn answering(answer: Answer, why: [&str; 2]) {
    let ill = |receiver: &Receiver| receiver.answer_all(&answer);
    let well = |receiver: &Receiver| receiver.answer_all(&Answer::Ok);
    // Both signals share a connection over gRPC: where one is reset the other is never read.
    let all_seen = answer != Answer::Reset;
    in_vain_and_then_anew(ill, well, why, all_seen);
}

#[test]
fn one_that_refuses_us() {
    answering(Answer::status(401), ["Unauthenticated", "401 Unauthorized"]);
}

#[test]
fn one_that_is_unavailable() {
    answering(
        Answer::status(503),
        ["Unavailable", "503 Service Unavailable"],
    );
}

#[test]
fn one_that_hangs() {
    answering(Answer::Hang, ["no answer within 700ms"; 2]);
}

#[test]
fn one_that_asks_for_more_patience_than_there_is() {
    let answer = Answer::retry_after(429, Duration::from_secs(20));
    answering(answer, ["ResourceExhausted", "429 Too Many Requests"]);
}

/// Its requests were never seen, so only what arrived can be held against the rest.
fn unseen_and_then_anew(start: fn(Protocol) -> Receiver, ill: impl Fn(&Receiver)) {
    for protocol in PROTOCOLS {
        // Nothing is made anew within the test.
        let host = Host::new(start(protocol), |otlp| {
            otlp.timeout(700 * MS).interval(Duration::from_secs(3_600))
        });
        host.flush();
        ill(&host.receiver);
        let before = host.lost()[0];
        let leaked = host.leak(3);
        host.flush();
        assert_eq!(host.lost()[0], before + 3, "three markers");
        host.end(leaked, 3);
        host.flush();
        assert_eq!(host.lost()[0], before + 6, "and three ends");
        host.receiver.restart();
        let lost = host.lost();
        assert!(lost[1] > 0, "points too");
        let leaked = host.leak(2);
        host.flush_until(|host| host.failing().is_empty());
        host.end(leaked, 2);
        host.flush();
        host.world.tasks.shutdown(LONG).expect("in time");
        assert_eq!(host.lost(), lost, "from here on all arrives");
        let received = host.receiver.received();
        assert_eq!(named(&received, "orphan leaked").len(), 2, "{received}");
        assert_eq!(named(&received, "task leaked").len(), 2, "{received}");
        let told = received.point(
            "straggler.loss",
            &[("straggler.loss.reason", "spans_lost".into())],
        );
        assert_eq!(told.number(), lost[0] as f64, "the metric says it too");
    }
}

#[test]
fn one_that_is_not_there_yet() {
    unseen_and_then_anew(Receiver::start_refusing, |_| {});
}

#[test]
fn one_that_dies_and_comes_back() {
    unseen_and_then_anew(Receiver::start, Receiver::kill);
}

#[test]
fn markers_that_arrived_are_not_made_anew() {
    for protocol in PROTOCOLS {
        let host = Host::new(Receiver::start(protocol), |otlp| {
            otlp.timeout(700 * MS).interval(50 * MS)
        });
        let first = host.leak(3);
        host.flush();
        host.receiver.kill();
        let second = host.leak(2);
        host.flush_until(|host| host.failing().len() == 2);
        host.receiver.restart();
        host.flush_until(|host| named(&host.receiver.received(), "orphan leaked").len() == 5);
        // Rounds enough for one too many.
        host.flush_until(|host| host.receiver.received().of(Signal::Metrics).count() > 20);
        host.end(first, 3);
        host.end(second, 2);
        host.flush();
        let received = host.receiver.received();
        assert_eq!(named(&received, "orphan leaked").len(), 5, "{received}");
        assert_eq!(named(&received, "task leaked").len(), 5, "{received}");
    }
}

/// One orphan is told of, its end too; nothing is lost, in so many requests for each flush.
fn nothing_lost(answer: &Answer, attempts: usize, apart: Duration) {
    for protocol in PROTOCOLS {
        let host = Host::new(Receiver::start(protocol), |otlp| {
            otlp.timeout(LONG).interval(Duration::from_secs(3_600))
        });
        host.receiver.answer_all(answer);
        let leaked = host.leak(1);
        host.flush();
        let received = host.receiver.received();
        for signal in SIGNALS {
            let times: Vec<_> = received.of(signal).map(|it| it.arrival.time).collect();
            assert_eq!(times.len(), attempts, "{signal:?} {received}");
            for pair in times.windows(2) {
                let passed = pair[1].duration_since(pair[0]).expect("time goes on");
                assert!(passed >= apart, "{passed:?} {received}");
            }
        }
        assert_eq!(host.failing(), [""; 0]);
        host.end(leaked, 1);
        host.flush();
        assert!(host.world.snapshot().loss().is_empty());
        let received = host.balance();
        assert_eq!(received.span_count(), 2, "{received}");
    }
}

#[test]
fn one_that_is_slow() {
    nothing_lost(&Answer::Slow(200 * MS), 1, Duration::ZERO);
}

#[test]
fn one_that_asks_for_a_second() {
    let wait = Duration::from_secs(1);
    nothing_lost(&Answer::retry_after(429, wait).times(1), 2, wait);
}

#[test]
fn one_that_is_unavailable_twice() {
    nothing_lost(&Answer::status(503).times(2), 3, Duration::ZERO);
}

#[test]
fn one_that_takes_a_part() {
    for protocol in PROTOCOLS {
        let host = Host::new(Receiver::start(protocol), |otlp| {
            otlp.interval(Duration::from_secs(3_600))
        });
        let partial = |rejected| Answer::PartialSuccess { rejected };
        host.receiver.answer_all(&partial(1));
        let leaked = host.leak(1);
        host.flush();
        assert_eq!(host.lost(), [1, 1]);
        assert_eq!(host.failing(), [""; 0], "it was taken");
        // A warning only.
        host.receiver.answer_all(&partial(0));
        host.end(leaked, 1);
        host.flush();
        assert_eq!(host.lost(), [1, 1]);
        // No more are lost than were sent.
        host.receiver.answer_all(&partial(1_000_000));
        host.leak(3);
        host.flush();
        let points = host.receiver.metrics().len() as u64;
        assert_eq!(host.lost(), [4, 1 + points]);
        host.receiver.answer_all(&Answer::Ok);
        host.balance();
    }
}

#[test]
fn one_that_resets_connections() {
    answering(Answer::Reset, [""; 2]);
    // With one signal each, so that it is known what the connection took with it.
    for (protocol, signal) in PROTOCOLS
        .into_iter()
        .flat_map(|it| SIGNALS.map(|signal| (it, signal)))
    {
        let host = Host::new(Receiver::start(protocol), |otlp| {
            otlp.timeout(LONG)
                .interval(Duration::from_secs(3_600))
                .spans(signal == Signal::Traces)
                .metrics(signal == Signal::Metrics)
        });
        host.receiver.answer(signal, Answer::Reset.times(1));
        let leaked = host.leak(1);
        host.flush();
        host.end(leaked, 1);
        host.flush();
        if protocol == Protocol::Http {
            assert_eq!(host.lost(), [0, 0], "{signal:?}: once is made up for");
        }
        host.balance();
    }
}

#[test]
fn one_that_talks_nonsense() {
    for protocol in PROTOCOLS {
        let host = Host::new(Receiver::start(protocol), |otlp| {
            otlp.interval(Duration::from_secs(3_600))
        });
        host.receiver.answer_all(&Answer::Garbage);
        let leaked = host.leak(1);
        host.flush();
        let taken = host.failing().is_empty();
        // Over HTTP the status has said already that all was taken.
        assert_eq!(taken, protocol == Protocol::Http, "{:?}", host.failing());
        assert_eq!(host.lost() == [0, 0], taken, "{:?}", host.lost());
        host.receiver.answer_all(&Answer::Ok);
        host.end(leaked, 1);
        host.flush();
        assert_eq!(host.failing(), [""; 0]);
        assert_eq!(named(&host.receiver.received(), "task leaked").len(), 1);
        if !taken {
            host.balance();
        }
    }
}

#[test]
fn a_flood_of_ends_while_one_hangs() {
    const MANY: u64 = 10_000;
    const ROOM: usize = 16;
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        receiver.answer_all(&Answer::Hang);
        let host = Host::new(receiver, |otlp| {
            otlp.timeout(LONG).interval(50 * MS).max_queued_spans(ROOM)
        });
        let first = host.leak(1);
        let hangs = |signal| host.receiver.received().of(signal).count() == 1;
        host.go_on_until(|| SIGNALS.into_iter().all(hangs));
        // Each of them is polled, ends and is dropped while both requests hang.
        let many = host.leak(MANY);
        host.end(many, MANY);
        assert!(SIGNALS.into_iter().all(hangs), "nothing waited for them");
        host.receiver.answer_all(&Answer::Ok);
        // What hangs will not be answered any more.
        host.receiver.kill();
        host.receiver.restart();
        host.end(first, 1);
        host.flush_until(|host| host.failing().is_empty());
        host.world.tasks.shutdown(LONG).expect("in time");
        let received = host.receiver.received();
        let all = |name: &str| {
            let spans = received.of(Signal::Traces).flat_map(Request::spans);
            let named: Vec<_> = spans.filter(|span| span.name == name).collect();
            ids(&named).len() as u64
        };
        // One queue holds tasks that ended, the other spans, and a batch is under way.
        let wholes = named(&received, "task leaked").len() as u64;
        assert!(all("task leaked") <= 3 * ROOM as u64 + 1, "{received}");
        // Those that a look met alive beyond what may have spans were told of by none.
        let left_out = host.world.snapshot().loss().orphans_left_out();
        let made = MANY + 1 - left_out + all("orphan leaked");
        let arrived = wholes + named(&received, "orphan leaked").len() as u64;
        // Markers made by a look meanwhile, and sent to a connection that was dead already, are
        // lost too, and the receiver can't bear witness to them.
        let (lost, known) = (host.lost()[0], made - arrived);
        assert!(
            (known..=known + 2 * ROOM as u64).contains(&lost),
            "{lost} {known} {received}"
        );
    }
}

#[test]
fn ends_that_no_span_tells_of_are_no_loss() {
    const MANY: u64 = 50;
    for protocol in PROTOCOLS {
        let host = Host::new(Receiver::start(protocol), |otlp| {
            (otlp.interval(Duration::from_secs(3_600)))
                .max_queued_spans(1)
                .max_marked_orphans(1)
        });
        let leaked = host.leak(MANY);
        host.flush_until(|host| host.world.snapshot().loss().orphans_left_out() == MANY - 1);
        host.end(leaked, MANY);
        host.flush();
        let received = host.balance();
        assert_eq!(received.span_count(), 2, "{received}");

        let receiver = Receiver::start(protocol);
        let otlp = otlp(&receiver).max_queued_spans(1);
        let host = Host::with(receiver, |builder| {
            builder.otlp(otlp).daemon_spawned_at("tests/otlp/host.rs")
        });
        let daemons = host.leak(MANY);
        host.flush();
        host.end(daemons, MANY);
        host.flush();
        let received = host.balance();
        assert_eq!(received.span_count(), 0, "{received}");
    }
}
