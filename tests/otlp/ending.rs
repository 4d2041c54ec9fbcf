//! However the export is ended: in time, with all that lives told of, and no thread left.

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use straggler::otlp::MetricExporter;
use straggler::{Builder, Tasks};
use tokio::runtime::Runtime;
use tracing::dispatcher::{self, Dispatch};
use tracing_subscriber::prelude::*;

use super::answer::Answer;
use super::common::{Flavour, MS, World};
use super::host::{LONG, otlp};
use super::receiver::{PATIENCE, PROTOCOLS, Receiver};
use super::unseen;

/// What a call that is bounded by 300 ms may take on a machine with other things to do.
const BOUND: Duration = Duration::from_secs(5);

/// Where from somebody ends it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Main,
    Task,
    Blocking,
    Thread,
    AfterTheRuntime,
}

const PLACES: [Place; 5] = [
    Place::Main,
    Place::Task,
    Place::Blocking,
    Place::Thread,
    Place::AfterTheRuntime,
];

/// Runs `end` there, in a program with one orphan.
fn at<R: Send + 'static>(
    place: Place,
    world: &World,
    runtime: Runtime,
    end: impl FnOnce(&Tasks) -> R + Send + 'static,
) -> R {
    let tasks = world.tasks.clone();
    let end = move || end(&tasks);
    runtime.block_on(leak());
    match place {
        Place::Main => runtime.block_on(async { end() }),
        Place::Task => {
            let task = async { tokio::spawn(async { end() }).await };
            runtime.block_on(task).expect("no panic")
        }
        Place::Blocking => {
            let task = async { tokio::task::spawn_blocking(end).await };
            runtime.block_on(task).expect("no panic")
        }
        Place::Thread => std::thread::spawn(end).join().expect("no panic"),
        Place::AfterTheRuntime => {
            drop(runtime);
            end()
        }
    }
}

/// One orphan for ever.
async fn leak() {
    let request = async {
        straggler::task("leaked").spawn(std::future::pending::<()>());
    };
    tokio::spawn(request).await.expect("the request returns");
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

fn everywhere(mut test: impl FnMut(Place, Flavour, Receiver)) {
    for protocol in PROTOCOLS {
        for place in PLACES {
            for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
                test(place, flavour, Receiver::start(protocol));
            }
        }
    }
}

#[test]
fn what_lives_is_closed_off() {
    everywhere(|place, flavour, receiver| {
        let world = World::with(|builder| builder.otlp(otlp(&receiver)));
        let runtime = world.runtime(flavour);
        let clock = world.clock.clone();
        at(place, &world, runtime, move |tasks| {
            clock.advance(10 * MS);
            tasks.flush(LONG).expect("in time");
            clock.advance(10 * MS);
            tasks.shutdown(LONG).expect("in time");
            tasks.shutdown(Duration::ZERO).expect("it has stopped");
            tasks.flush(LONG).expect_err("nobody is there to send");
        });
        let received = receiver.received();
        let of = format!("{place:?} {flavour:?} {received}");
        let whole = received.span("task leaked");
        assert_eq!(received.span_count(), whole.links.len() + 1, "{of}");
        if place == Place::AfterTheRuntime {
            // Ended with its runtime, which says no more than that.
            assert!(!whole.attributes.contains_key("tokio.task.live"), "{of}");
        } else {
            let marker = received.span("orphan leaked");
            assert_eq!(whole.links[0].span_id, marker.span_id, "{of}");
            assert_eq!(whole.links[0].trace_id, marker.trace_id, "{of}");
            assert_eq!(whole.attributes["tokio.task.live"], true, "{of}");
            assert_eq!(whole.attributes["tokio.task.state"], "idle", "{of}");
            assert_eq!(whole.duration(), 20 * MS, "{of}");
        }
        let orphaned = received.points("tokio.task.orphaned");
        assert_eq!(orphaned.len(), 1, "{of}");
        assert_eq!(orphaned[0].number(), 1.0, "{of}");
        assert!(world.snapshot().loss().is_empty(), "{of}");
    });
}

#[test]
fn one_first_seen_at_the_shutdown_is_told_of() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let world = World::with(|builder| builder.otlp(otlp(&receiver).max_queued_spans(1)));
        let runtime = world.runtime(Flavour::CurrentThread);
        runtime.block_on(async {
            leak().await;
            leak().await;
            leak().await;
        });
        world.tasks.shutdown(LONG).expect("in time");
        let received = receiver.received();
        let orphaned = received.points("tokio.task.orphaned");
        let counted: f64 = orphaned.iter().map(|point| point.number()).sum();
        assert_eq!(counted, 3.0, "{received}");
        // There may have been no room for a marker; for the span of the end there is.
        let spans = received.spans();
        let wholes = spans.iter().filter(|span| span.name == "task leaked");
        assert_eq!(wholes.count(), 3, "{received}");
        let loss = *world.snapshot().loss();
        assert!(loss.is_empty(), "{loss} {received}");
    }
}

#[test]
fn nothing_is_gathered_after_the_shutdown() {
    let receiver = Receiver::start(PROTOCOLS[0]);
    let world = World::with(|builder| builder.otlp(otlp(&receiver).max_queued_spans(1)));
    world.tasks.shutdown(LONG).expect("in time");
    let runtime = world.runtime(Flavour::CurrentThread);
    for _ in 0..3 {
        runtime.block_on(leak());
    }
    drop(runtime);
    assert!(world.snapshot().loss().is_empty(), "{}", world.snapshot());
}

#[test]
fn a_reader_of_the_program_is_not_kept_waiting() {
    let receiver = Receiver::start(PROTOCOLS[0]);
    let world = World::with(|builder| builder.otlp(otlp(&receiver)));
    let exporter = MetricExporter::new(&world.tasks).expect("metrics are exported");
    let reader = PeriodicReader::builder(exporter).with_interval(LONG * 100);
    let provider = SdkMeterProvider::builder()
        .with_reader(reader.build())
        .build();
    provider.meter("own").u64_counter("own").build().add(1, &[]);
    provider.force_flush().expect("it is sent");
    world.tasks.shutdown(LONG).expect("in time");
    // The reader's thread may wait for ever, and then so does this one.
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(provider.force_flush().is_err()));
    assert_eq!(
        told.recv_timeout(BOUND),
        Ok(true),
        "nobody is there to send"
    );
    let received = receiver.received();
    assert_eq!(received.points("own").len(), 1, "{received}");
}

/// Whether it was an error, in time.
#[track_caller]
fn bounded(tasks: &Tasks, call: impl FnOnce() -> Result<(), straggler::Error>) {
    let began = Instant::now();
    let Err(error) = call() else {
        panic!("it hangs:\n{}", tasks.snapshot());
    };
    assert!(error.is_timeout(), "{error}");
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
}

#[test]
fn nobody_waits_longer_for_one_that_hangs_than_asked() {
    everywhere(|place, flavour, receiver| {
        receiver.answer_all(&Answer::Hang);
        let world = World::with(|builder| {
            builder.otlp(otlp(&receiver).timeout(Duration::from_secs(3_600)))
        });
        let runtime = world.runtime(flavour);
        at(place, &world, runtime, |tasks| {
            bounded(tasks, || tasks.flush(100 * MS));
            bounded(tasks, || tasks.shutdown(300 * MS));
            // It ends by itself, though what hangs had an hour.
            let deadline = Instant::now() + PATIENCE;
            while tasks.shutdown(10 * MS).is_err() {
                assert!(Instant::now() < deadline, "it goes on");
            }
        });
        let snapshot = world.snapshot();
        let loss = snapshot.loss();
        assert!(loss.points_lost() > 0, "{loss}");
        assert!(loss.spans_lost() > 0, "{loss}");
        assert_eq!(receiver.received().span_count(), 0);
    });
}

#[test]
fn a_shutdown_without_any_time_loses_nothing_uncounted() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        receiver.answer_all(&Answer::Hang);
        let world = World::with(|builder| builder.otlp(otlp(&receiver)));
        let runtime = world.runtime(Flavour::CurrentThread);
        runtime.block_on(leak());
        world.tasks.flush(100 * MS).expect_err("it hangs");
        let ended = world.tasks.shutdown(Duration::ZERO);
        let deadline = Instant::now() + PATIENCE;
        let mut stopped = ended;
        while stopped.is_err() {
            assert!(Instant::now() < deadline, "it goes on");
            stopped = world.tasks.shutdown(10 * MS);
        }
        // The marker and the span that closes it off, whichever thread was first.
        assert_eq!(world.snapshot().loss().spans_lost(), 2);
    }
}

#[test]
fn a_guard_ends_it() {
    for protocol in PROTOCOLS {
        for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
            let receiver = Receiver::start(protocol);
            let world = World::with(|builder| builder.otlp(otlp(&receiver)));
            let runtime = world.runtime(flavour);
            runtime.block_on(async {
                let guard = world.tasks.guard();
                leak().await;
                drop(guard);
            });
            let received = receiver.received();
            let whole = received.span("task leaked");
            assert_eq!(whole.attributes["tokio.task.live"], true, "{received}");
            world
                .tasks
                .shutdown(Duration::ZERO)
                .expect("it has stopped");
        }
    }
}

#[test]
fn a_guard_doesnt_wait_for_ever() {
    let guards: Vec<_> = PROTOCOLS
        .map(|protocol| {
            std::thread::spawn(move || {
                let receiver = Receiver::start(protocol);
                receiver.answer_all(&Answer::Hang);
                let world = World::with(|builder| {
                    builder.otlp(otlp(&receiver).timeout(Duration::from_secs(3_600)))
                });
                let runtime = world.runtime(Flavour::CurrentThread);
                let guard = world.tasks.guard();
                runtime.block_on(leak());
                let began = Instant::now();
                drop(guard);
                began.elapsed()
            })
        })
        .into_iter()
        .collect();
    for guard in guards {
        let took = guard.join().expect("no panic");
        assert!(took < 2 * BOUND + BOUND, "{took:?}");
    }
}

#[test]
fn no_thread_is_left() {
    for protocol in PROTOCOLS {
        // It takes connections, and does nothing with them.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let endpoint = format!("http://localhost:{port}");
        let told = format!("{protocol:?} Spans {endpoint}");
        unseen::child("ending::dropped_and_gone", &told);
    }
}

#[test]
#[ignore = "it needs a process of its own, which another test gives it"]
fn dropped_and_gone() {
    let (protocol, _, endpoint) = unseen::told();
    for is_shut_down in [false, true] {
        let (layer, tasks) = Builder::new()
            .otlp(unseen::otlp(protocol, &endpoint).timeout(Duration::from_secs(3_600)))
            .orphan_grace(Duration::ZERO)
            .build()
            .expect("a valid configuration");
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
        dispatcher::with_default(&dispatch, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime");
            runtime.block_on(leak());
            tasks.flush(300 * MS).expect_err("it hangs");
            assert!(threads().len() >= 2, "{:?}", threads());
            if is_shut_down {
                tasks.shutdown(300 * MS).expect_err("it hangs");
            }
        });
        // By whoever is last, such as a thread.
        let (gone, all_gone) = mpsc::channel();
        std::thread::spawn(move || {
            drop((dispatch, tasks));
            gone.send(()).expect("the test waits");
        });
        all_gone.recv_timeout(BOUND).expect("nothing is waited for");
        let deadline = Instant::now() + 2 * PATIENCE;
        while !threads().is_empty() {
            assert!(Instant::now() < deadline, "{:?}", threads());
            std::thread::yield_now();
        }
    }
}

/// The names of our threads, where there is a way to know.
fn threads() -> Vec<String> {
    let mut names = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten() {
        let thread = thread.expect("a thread").path().join("comm");
        // It may have ended meanwhile.
        let name = std::fs::read_to_string(thread).unwrap_or_default();
        if name.starts_with("straggler") {
            names.push(name.trim().to_owned());
        }
    }
    names
}
