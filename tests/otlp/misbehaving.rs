//! Whatever the receiver does: the host goes on, memory is bounded, what did not arrive is
//! counted, exactly, and all is well by itself once the receiver is.
#![allow(unreachable_pub)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::SpanId;
use straggler::otlp::{self, Otlp};
use tokio::runtime::Runtime;

use super::answer::Answer;
use super::common::{Flavour, Gate, MS, Truth, World};
use super::received::{Received, Request, Signal};
use super::receiver::{PATIENCE, PROTOCOLS, Protocol, Receiver};

pub const LONG: Duration = Duration::from_secs(30);
const SIGNALS: [Signal; 2] = [Signal::Traces, Signal::Metrics];

pub fn otlp(receiver: &Receiver) -> Otlp {
    Otlp::new()
        .endpoint(&receiver.endpoint())
        .protocol(match receiver.protocol() {
            Protocol::Grpc => otlp::Protocol::Grpc,
            Protocol::Http => otlp::Protocol::HttpProtobuf,
        })
}

/// A program that leaks, and what it exports to.
struct Host {
    runtime: Runtime,
    world: World,
    receiver: Receiver,
}

impl Host {
    fn new(receiver: Receiver, options: impl FnOnce(Otlp) -> Otlp) -> Self {
        let world = World::on_real_time(|builder| builder.otlp(options(otlp(&receiver))));
        Self {
            runtime: world.runtime(Flavour::CurrentThread),
            world,
            receiver,
        }
    }

    /// So many orphans, named `leaked`, that end when the gate is opened.
    fn leak(&self, count: u64) -> (Gate, Arc<Truth>) {
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
    fn end(&self, (gate, truth): (Gate, Arc<Truth>), count: u64) {
        gate.open();
        self.go_on_until(|| truth.dropped() == count);
    }

    /// The host polls its tasks meanwhile.
    #[track_caller]
    fn go_on_until(&self, done: impl Fn() -> bool) {
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
    fn flush(&self) {
        self.world.tasks.flush(LONG).expect("no round hangs");
    }

    #[track_caller]
    fn flush_until(&self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{}", self.receiver.received());
            self.flush();
        }
    }

    /// What the diagnosis `export-failing` says.
    fn failing(&self) -> Vec<String> {
        let diagnoses = self.world.tasks.diagnose();
        let failing = diagnoses.iter().filter(|it| it.code() == "export-failing");
        failing.map(ToString::to_string).collect()
    }

    fn lost(&self) -> [u64; 2] {
        let snapshot = self.world.snapshot();
        [snapshot.loss().spans_lost(), snapshot.loss().points_lost()]
    }

    /// Stops, and holds what is said to be lost against all that the receiver ever saw.
    #[track_caller]
    fn balance(self) -> Received {
        self.world.tasks.shutdown(LONG).expect("in time");
        let received = self.receiver.received();
        assert_eq!(self.lost(), missing(&received), "{received}");
        assert!(received.strays.is_empty(), "{received}");
        received
    }
}

fn named(received: &Received, name: &str) -> Vec<super::view::Span> {
    let mut spans = received.spans();
    spans.retain(|span| span.name == name);
    spans
}

/// Spans and points that were seen, and not accepted in any attempt.
fn missing(received: &Received) -> [u64; 2] {
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

/// Three orphans are told of in vain, and told of anew once the receiver is well.
fn in_vain_and_then_anew(
    ill: impl Fn(&Receiver),
    well: impl Fn(&Receiver),
    why: [&str; 2],
    all_seen: bool,
) {
    for protocol in PROTOCOLS {
        // Seen once a second, or where a flush asks; made anew after the interval.
        let host = Host::new(Receiver::start(protocol), |otlp| {
            otlp.timeout(700 * MS).interval(100 * MS)
        });
        ill(&host.receiver);
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

fn ids(spans: &[super::view::Span]) -> HashSet<SpanId> {
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
        let host = Host::new(Receiver::start(protocol), |otlp| {
            otlp.timeout(LONG).interval(50 * MS).max_queued_spans(ROOM)
        });
        host.receiver.answer_all(&Answer::Hang);
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
        let made = MANY + 1 + all("orphan leaked");
        let arrived = wholes + named(&received, "orphan leaked").len() as u64;
        assert_eq!(host.lost()[0], made - arrived, "{received}");
    }
}
