//! The receiver itself: what the other tests take its word for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing_subscriber::prelude::*;

use super::answer::Answer;
use super::received::Signal;
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use super::sample;
use super::sender::{Refusal, Sender, http_client};
#[cfg(feature = "otlp-tls")]
use super::view::{Number, SpanKind, StatusCode, Value, time};
use opentelemetry::trace::{SpanId, TraceId};

const SIGNALS: [Signal; 2] = [Signal::Traces, Signal::Metrics];

fn run<F: Future>(f: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(f)
}

/// One receiver and one sender for each protocol.
fn each_protocol<F: Future>(scenario: impl Fn(Arc<Receiver>, Sender) -> F) {
    for protocol in PROTOCOLS {
        run(async {
            let receiver = Arc::new(Receiver::start(protocol));
            let sender = Sender::new(protocol, &receiver.endpoint(), false);
            scenario(receiver, sender).await;
        });
    }
}

fn refusal(protocol: Protocol, http: u16, wait: Option<Duration>) -> Refusal {
    match protocol {
        Protocol::Grpc => Refusal::Grpc(super::answer::grpc_code(http), wait),
        Protocol::Http => Refusal::Http(http, wait),
    }
}

#[test]
fn both_protocols_with_and_without_gzip_receive_the_same() {
    let mut seen = Vec::new();
    for protocol in PROTOCOLS {
        for gzip in [false, true] {
            let receiver = Receiver::start(protocol);
            run(async {
                let sender = Sender::new(protocol, &receiver.endpoint(), gzip);
                for signal in SIGNALS {
                    assert_eq!(sender.send(signal).await, Ok(0), "{protocol:?} {gzip}");
                }
            });
            let received = receiver.received();
            assert_eq!(received.requests.len(), 2, "{received}");
            assert!(received.strays.is_empty(), "{received}");
            for request in &received.requests {
                assert_eq!(request.arrival.gzip, gzip, "{received}");
                assert_eq!(request.arrival.headers["x-test"], "yes");
            }
            seen.push((received.spans(), received.metrics()));
        }
    }
    assert!(seen.iter().all(|each| *each == seen[0]));
}

#[test]
fn a_span_is_seen_whole() {
    let receiver = Receiver::start(Protocol::Grpc);
    run(async {
        let sender = Sender::new(Protocol::Grpc, &receiver.endpoint(), false);
        sender.send(Signal::Traces).await.unwrap();
    });
    let received = receiver.received();
    assert_eq!(received.span_count(), 2);
    assert_eq!(received.span("root").parent_span_id, None);
    let span = received.span("orphan");
    assert_eq!(span.trace_id, TraceId::from_bytes(sample::TRACE));
    assert_eq!(span.span_id, SpanId::from_bytes(sample::SPAN));
    assert_eq!(
        span.parent_span_id,
        Some(SpanId::from_bytes(sample::PARENT))
    );
    assert_eq!(span.kind, SpanKind::Internal);
    assert_eq!(span.start, time(sample::SPAWN_NANOS));
    assert_eq!(span.duration(), Duration::from_nanos(1_500_000_001));
    assert_eq!(span.attributes["code.file.path"], "src/main.rs");
    assert_eq!(span.attributes["code.line.number"], 7);
    assert_eq!(span.attributes["tokio.task.busy_time"], 2.0);
    assert_eq!(span.events[0].name, "orphaned");
    assert_eq!(span.links[0].attributes["why"], "marker");
    assert_eq!(span.status, (StatusCode::Error, "it was dropped".into()));
    assert_eq!(span.dropped, [1, 0, 0]);
    assert_eq!(span.resource["service.name"], "sample");
    assert_eq!(span.resource["bytes"], Value::Bytes(vec![0, 255]));
    assert_eq!(span.scope.name, "straggler");
}

#[test]
fn points_are_seen_whole() {
    let receiver = Receiver::start(Protocol::Http);
    run(async {
        let sender = Sender::new(Protocol::Http, &receiver.endpoint(), false);
        sender.send(Signal::Metrics).await.unwrap();
        sender.send(Signal::Metrics).await.unwrap();
    });
    let received = receiver.received();
    assert_eq!((received.metrics().len(), received.point_count()), (7, 14));
    assert_eq!(received.points("tokio.task.spawned").len(), 2);
    let spawned = received.point("tokio.task.spawned", &[("code.file.path", "a.rs".into())]);
    assert!(spawned.is_counter() && spawned.number() == 5.0);
    assert_eq!(spawned.unit, "{task}");
    assert_eq!(spawned.description, "What tokio.task.spawned is.");
    assert_eq!(spawned.start, Some(time(sample::SPAWN_NANOS)));
    assert_eq!(spawned.time, time(sample::END_NANOS));
    assert!(received.point("tokio.task.count", &[]).is_up_down_counter());
    assert!(received.point("tokio.task.oldest", &[]).is_gauge());
    let lifetime = received.point("tokio.task.lifetime", &[("code.file.path", "a.rs".into())]);
    assert!(lifetime.is_histogram());
    assert_eq!(lifetime.histogram().counts, [1, 0, 2]);
    assert_eq!(lifetime.histogram().bounds, [0.0001, 0.5]);
    let exemplar = &lifetime.exemplars[0];
    assert_eq!(exemplar.value, Number::Double(0.75));
    let span = exemplar.span.expect("it has one");
    assert_eq!(span.1, SpanId::from_bytes(sample::SPAN));
}

#[test]
fn a_status_is_given_so_often_and_then_success() {
    let wait = Some(Duration::from_secs(3));
    for (http, wait) in [(401, None), (429, wait), (503, wait), (503, None)] {
        each_protocol(async |receiver, sender| {
            let refused = Err(refusal(receiver.protocol(), http, wait));
            let answer = Answer::Status(http, wait).times(2);
            receiver.answer(Signal::Metrics, answer);
            assert_eq!(sender.send(Signal::Metrics).await, refused);
            // The other signal has its own answer.
            assert_eq!(sender.send(Signal::Traces).await, Ok(0));
            assert_eq!(sender.send(Signal::Metrics).await, refused);
            assert!(receiver.metrics().is_empty(), "refused, so not delivered");
            assert_eq!(sender.send(Signal::Metrics).await, Ok(0));
            let received = receiver.received();
            assert_eq!(received.of(Signal::Metrics).count(), 3, "{received}");
            assert_eq!(received.point_count(), 7, "{received}");
        });
    }
}

#[test]
fn a_part_is_rejected() {
    each_protocol(async |receiver, sender| {
        receiver.answer_all(&Answer::PartialSuccess { rejected: 2 });
        for signal in SIGNALS {
            assert_eq!(sender.send(signal).await, Ok(2));
        }
        assert_eq!(receiver.received().span_count(), 2);
    });
}

#[test]
fn a_request_that_hangs_is_on_record_and_never_answered() {
    each_protocol(async |receiver, sender| {
        receiver.answer(Signal::Traces, Answer::Hang);
        let asked = tokio::spawn(async move { sender.send(Signal::Traces).await });
        let receiver_here = Arc::clone(&receiver);
        let waited = tokio::task::spawn_blocking(move || {
            receiver_here.wait_until(|it| it.of(Signal::Traces).count() == 1)
        });
        waited.await.unwrap();
        assert!(receiver.spans().is_empty(), "not delivered");
        assert!(!asked.is_finished());
        receiver.kill();
        let told = asked.await.unwrap();
        assert!(matches!(told, Err(Refusal::Broken(_))), "{told:?}");
    });
}

#[test]
fn a_connection_is_reset_once_the_request_is_read() {
    each_protocol(async |receiver, sender| {
        receiver.answer_all(&Answer::Reset.times(1));
        let told = sender.send(Signal::Traces).await;
        let Err(Refusal::Broken(why)) = &told else {
            panic!("{told:?}");
        };
        assert!(why.to_lowercase().contains("reset"), "{why}");
        assert_eq!(sender.send(Signal::Traces).await, Ok(0));
        let received = receiver.received();
        assert_eq!(received.of(Signal::Traces).count(), 2, "{received}");
        assert_eq!(received.connections, 2, "{received}");
    });
}

#[test]
fn a_slow_answer_is_late_and_good() {
    let wait = Duration::from_millis(50);
    each_protocol(async |receiver, sender| {
        receiver.answer_all(&Answer::Slow(wait));
        let began = Instant::now();
        assert_eq!(sender.send(Signal::Metrics).await, Ok(0));
        assert!(began.elapsed() >= wait);
    });
}

#[test]
fn garbage_is_not_understood() {
    each_protocol(async |receiver, sender| {
        receiver.answer_all(&Answer::Garbage);
        for signal in SIGNALS {
            let told = sender.send(signal).await;
            // To a client of gRPC what it can't read is an error of the server's.
            let understood = match (receiver.protocol(), &told) {
                (Protocol::Grpc, Err(Refusal::Grpc(code, _))) => *code == tonic::Code::Ok,
                (Protocol::Http, Err(Refusal::Broken(_))) => false,
                _ => true,
            };
            assert!(!understood, "{told:?}");
        }
    });
}

#[test]
fn nobody_listens_then_somebody_does_then_nobody_then_again() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start_refusing(protocol);
        let send = || {
            run(async {
                let sender = Sender::new(protocol, &receiver.endpoint(), false);
                sender.send(Signal::Traces).await
            })
        };
        let refused = |told| matches!(told, Err(Refusal::Broken(why)) if why.contains("refused"));
        assert!(refused(send()));
        receiver.restart();
        assert_eq!(send(), Ok(0));
        receiver.stop();
        assert!(refused(send()));
        receiver.restart();
        assert_eq!(send(), Ok(0));
        receiver.kill();
        assert!(refused(send()));
        receiver.restart();
        assert_eq!(send(), Ok(0));
        let received = receiver.wait_until(|it| it.open_connections == 0);
        assert_eq!(
            received.span_count(),
            6,
            "kept through restarts: {received}"
        );
        assert_eq!(received.connections, 3);
    }
}

#[test]
fn a_graceful_stop_answers_what_is_under_way() {
    each_protocol(async |receiver, sender| {
        receiver.answer_all(&Answer::Slow(Duration::from_millis(100)));
        let asked = tokio::spawn(async move { sender.send(Signal::Traces).await });
        let stopped = tokio::task::spawn_blocking(move || {
            receiver.wait_until(|it| !it.requests.is_empty());
            receiver.stop();
        });
        assert_eq!(asked.await.unwrap(), Ok(0));
        stopped.await.unwrap();
    });
}

#[test]
fn what_is_no_otlp_is_a_stray() {
    let receiver = Receiver::start(Protocol::Http);
    let status = |path: &str, media: &str, body: &'static str| {
        let url = format!("{}{path}", receiver.endpoint());
        let media = media.to_owned();
        run(async move {
            let request = http_client().post(url).header("content-type", media);
            request.body(body).send().await.unwrap().status().as_u16()
        })
    };
    let media = "application/x-protobuf";
    assert_eq!(status("/v1/logs", media, ""), 404);
    assert_eq!(status("/v1/traces", "application/json", "{}"), 415);
    assert_eq!(status("/v1/traces", media, "what is this"), 400);
    let received = receiver.received();
    assert_eq!(received.strays.len(), 3, "{received}");
    assert!(received.requests.is_empty(), "{received}");
}

#[test]
fn what_never_comes_fails_with_what_came() {
    let receiver = Receiver::start(Protocol::Http);
    run(async {
        let sender = Sender::new(Protocol::Http, &receiver.endpoint(), false);
        sender.send(Signal::Traces).await.unwrap();
    });
    let text = receiver.received().to_string();
    assert!(text.contains("\"orphan\" \"root\""), "{text}");
    assert!(text.contains("answered Ok"), "{text}");
}

#[test]
fn its_tasks_are_in_no_table() {
    let test = std::env::current_exe().expect("this test");
    let child = std::process::Command::new(test)
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("receiver_is_right::under_the_subscriber_of_the_process")
        .output();
    let output = child.expect("the same program");
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{wrong}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "it needs a process of its own, which another test gives it"]
fn under_the_subscriber_of_the_process() {
    let (layer, tasks) = straggler::Builder::new()
        .warn_on_orphans(false)
        .build()
        .expect("a valid configuration");
    tracing_subscriber::registry().with(layer).init();
    let receiver = Receiver::start(Protocol::Grpc);
    receiver.answer(Signal::Traces, Answer::Hang);
    run(async {
        let sender = Sender::new(Protocol::Grpc, &receiver.endpoint(), false);
        // The client's tasks are this process's own, and prove that something is seen.
        let asked = tokio::spawn(async move { sender.send(Signal::Traces).await });
        while receiver.received().requests.is_empty() {
            assert!(!asked.is_finished(), "{}", receiver.received());
            tokio::task::yield_now().await;
        }
        let snapshot = tasks.snapshot();
        let of = |part: &str| {
            let files = snapshot.tasks().map(|task| task.location().file());
            files.filter(|file| file.contains(part)).count()
        };
        assert!(of("receiver_is_right") > 0, "{snapshot}");
        assert_eq!(of("axum") + of("otlp/wire"), 0, "{snapshot}");
    });
}
