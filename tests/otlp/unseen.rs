//! The export is seen by nobody: no task in the table, no span and no event in any layer, and
//! nothing switched off. In processes with one subscriber, as programs have; the receiver is in
//! the process of the test, for its own dispatcher would change what is looked at.

#![allow(unreachable_pub)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use straggler::otlp::{self, Otlp};
use straggler::{Builder, Source, Tasks};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

use super::answer::Answer;
use super::received::Signal;
use super::receiver::{PATIENCE, PROTOCOLS, Protocol, Receiver};
use super::sender::Sender;

const LONG: Duration = Duration::from_secs(60);
/// What a child is to do: `protocol source endpoint`.
const TOLD: &str = "STRAGGLER_TEST_UNSEEN";

/// Runs a test that is ignored in a process of its own, and returns what it printed.
pub fn child(test: &str, told: &str) -> String {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--ignored", "--nocapture", test])
        .env(TOLD, told)
        .output()
        .expect("the same program");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}: {said}{wrong}");
    assert!(said.contains("1 passed"), "{said}");
    said
}

pub fn told() -> (Protocol, String, String) {
    let told = std::env::var(TOLD).expect("another test starts this one");
    let words: Vec<&str> = told.split(' ').collect();
    let protocol = match words[0] {
        "Grpc" => Protocol::Grpc,
        _ => Protocol::Http,
    };
    (protocol, words[1].to_owned(), words[2].to_owned())
}

pub fn otlp(protocol: Protocol, endpoint: &str) -> Otlp {
    Otlp::new().endpoint(endpoint).protocol(match protocol {
        Protocol::Grpc => otlp::Protocol::Grpc,
        Protocol::Http => otlp::Protocol::HttpProtobuf,
    })
}

/// Keeps everything that passes by, at every level.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

#[derive(Clone, Debug)]
struct Seen {
    callsite: String,
    thread: ThreadId,
    thread_name: String,
}

impl Recorder {
    fn note(&self, metadata: &Metadata<'_>) {
        let thread = std::thread::current();
        let seen = Seen {
            callsite: format!(
                "{} {:?} {} {}",
                metadata.target(),
                metadata.name(),
                metadata.level(),
                metadata.line().unwrap_or(0),
            ),
            thread: thread.id(),
            thread_name: thread.name().unwrap_or("").to_owned(),
        };
        self.0.lock().expect("no panic under the lock").push(seen);
    }

    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().expect("no panic under the lock"))
    }
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.note(attributes.metadata());
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.note(event.metadata());
    }
}

fn print(phase: &str, seen: &[Seen]) {
    let lines: BTreeSet<&str> = seen.iter().map(|seen| &*seen.callsite).collect();
    let mut text = String::new();
    for line in lines {
        // On a line of its own, whatever the harness has begun.
        writeln!(text, "\nSEEN {phase} {line}").expect("a String takes all");
    }
    use std::io::Write as _;
    std::io::stdout()
        .write_all(text.as_bytes())
        .expect("stdout");
}

fn printed(phase: &str, said: &str) -> BTreeSet<String> {
    let prefix = format!("SEEN {phase} ");
    said.lines()
        .filter_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
        .collect()
}

fn source(name: &str) -> Source {
    match name {
        "Hooks" => Source::Hooks,
        "Both" => Source::Both,
        _ => Source::Spans,
    }
}

#[test]
fn nobody_sees_an_export_over_grpc() {
    nobody_sees_an_export(Protocol::Grpc);
}

#[test]
fn nobody_sees_an_export_over_http() {
    nobody_sees_an_export(Protocol::Http);
}

fn nobody_sees_an_export(protocol: Protocol) {
    let receiver = Receiver::start(protocol);
    // By name, so that it is looked up.
    let endpoint = receiver.endpoint().replace("127.0.0.1", "localhost");
    let run = |source: &str, mode: &str| {
        let test = format!("unseen::a_host_{mode}_export");
        child(&test, &format!("{protocol:?} {source} {endpoint}"))
    };
    for source in ["Spans", "Hooks", "Both"] {
        let plain = [(); 2].map(|()| run(source, "without"));
        receiver.answer(Signal::Traces, Answer::Hang.times(1));
        let exporting = run(source, "with");
        assert_eq!(
            printed("own", &exporting),
            printed("own", &plain[0]),
            "{protocol:?} {source}"
        );
        // What the host does on the network differs a little from run to run.
        let always: BTreeSet<String> = printed("network", &plain[0])
            .intersection(&printed("network", &plain[1]))
            .cloned()
            .collect();
        let library = match protocol {
            Protocol::Grpc => "h2::",
            Protocol::Http => "hyper_util::",
        };
        assert!(always.iter().any(|line| line.starts_with(library)));
        let now = printed("network", &exporting);
        // How a task is woken goes by who comes first; those callsites are compared above.
        let by_chance = |line: &&String| line.starts_with("tokio::task::waker");
        let missing: Vec<_> = (always.difference(&now))
            .filter(|line| !by_chance(line))
            .collect();
        assert!(missing.is_empty(), "{protocol:?} {source}: {missing:#?}");
    }
}

#[test]
#[ignore = "it needs a process of its own, which another test gives it"]
fn a_host_with_export() {
    let (protocol, _, endpoint) = told();
    // The one that hangs is given up after this.
    host(Some(
        otlp(protocol, &endpoint).timeout(Duration::from_secs(2)),
    ));
}

#[test]
#[ignore = "it needs a process of its own, which another test gives it"]
fn a_host_without_export() {
    host(None);
}

fn host(otlp: Option<Otlp>) {
    let exports = otlp.is_some();
    let (protocol, source_name, endpoint) = told();
    let mut builder = Builder::new()
        .source(source(&source_name))
        .orphan_grace(Duration::ZERO)
        .warn_on_orphans(false);
    if let Some(otlp) = otlp {
        builder = builder.otlp(otlp);
    }
    let (layer, tasks) = builder.build().expect("a valid configuration");
    let recorder = Recorder::default();
    tracing_subscriber::registry()
        .with(layer)
        .with(recorder.clone())
        .init();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all();
    tasks.hook(&mut builder);
    let runtime = builder.build().expect("a runtime");
    runtime.block_on(async {
        let end = leak().await;
        let under_way = tasks.flush(Duration::from_millis(500));
        assert_eq!(under_way.is_err(), exports, "it hangs");
        only_own_tasks(&tasks, 1);
        tasks.flush(LONG).expect("it was given up");
        drop(end);
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        tasks.flush(LONG).expect("in time");
        only_own_tasks(&tasks, 0);
    });
    let own = recorder.take();
    only_own_threads(&own);
    print("own", &own);
    runtime.block_on(async {
        let sender = Sender::new(protocol, &endpoint, false);
        for signal in [Signal::Traces, Signal::Metrics, Signal::Traces] {
            assert_eq!(sender.send(signal).await, Ok(0));
        }
    });
    let network = recorder.take();
    tasks.shutdown(LONG).expect("in time");
    drop(runtime);
    for seen in network.iter().chain(&recorder.take()) {
        // The host's own look-up has a thread too.
        assert!(!seen.thread_name.starts_with("straggler"), "{seen:?}");
    }
    print("network", &network);
    let snapshot = tasks.snapshot();
    let loss = snapshot.loss();
    assert_eq!((loss.unseen_tasks(), loss.out_of_order()), (0, 0), "{loss}");
    assert_eq!(snapshot.diagnoses(), [], "{snapshot}");
}

/// An orphan that ends when the sender is dropped.
async fn leak() -> tokio::sync::oneshot::Sender<()> {
    let (end, ended) = tokio::sync::oneshot::channel();
    let request = async move {
        tokio::spawn(async move { ended.await.unwrap_or_default() });
    };
    tokio::spawn(request).await.expect("the request returns");
    tokio::task::yield_now().await;
    end
}

#[track_caller]
fn only_own_tasks(tasks: &Tasks, orphans: usize) {
    let snapshot = tasks.snapshot();
    let foreign: Vec<_> = (snapshot.tasks())
        .filter(|task| !task.location().file().ends_with("tests/otlp/unseen.rs"))
        .map(|task| task.location().to_string())
        .collect();
    assert!(foreign.is_empty(), "{foreign:?} in\n{snapshot}");
    let foreign_sites: Vec<_> = (snapshot.sites())
        .filter(|site| !site.location().file().ends_with("tests/otlp/unseen.rs"))
        .collect();
    assert!(foreign_sites.is_empty(), "{foreign_sites:?}");
    assert_eq!(snapshot.orphans().count(), orphans, "{snapshot}");
}

#[track_caller]
fn only_own_threads(seen: &[Seen]) {
    let here = std::thread::current().id();
    let foreign: Vec<_> = seen.iter().filter(|seen| seen.thread != here).collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
}

/// Spawns a task while tracing is busy with an event of this thread.
struct Nested;

impl<S: Subscriber> Layer<S> for Nested {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "nest" {
            spawn_nested();
        }
    }
}

fn spawn_nested() {
    tokio::task::Builder::new()
        .name("nested")
        .spawn(std::future::pending::<()>())
        .expect("a runtime");
}

#[test]
fn tracing_is_as_quick_as_ever_while_the_export_waits() {
    for protocol in PROTOCOLS {
        // It takes connections, and does nothing with them.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let hanging = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("it connects");
            let mut all = Vec::new();
            // Until the child has gone.
            connection.read_to_end(&mut all).map(|_| all.len())
        });
        child(
            "unseen::a_layer_that_spawns_within_an_event",
            &format!("{protocol:?} Spans http://{address}"),
        );
        let sent = hanging.join().expect("no panic");
        assert!(sent.is_ok_and(|sent| sent > 0), "it was under way");
    }
}

#[test]
#[ignore = "it needs a process of its own, which another test gives it"]
fn a_layer_that_spawns_within_an_event() {
    let (protocol, _, endpoint) = told();
    let (layer, tasks) = Builder::new()
        .warn_on_orphans(false)
        .otlp(otlp(protocol, &endpoint).timeout(LONG))
        .build()
        .expect("a valid configuration");
    tracing_subscriber::registry()
        .with(layer)
        .with(Nested)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    tasks
        .flush(Duration::from_millis(300))
        .expect_err("it hangs");
    let deadline = Instant::now() + PATIENCE;
    // Where a thread has a dispatcher of its own, tracing shuts itself off within an event.
    while !tasks
        .snapshot()
        .tasks()
        .any(|task| task.name() == Some("nested"))
    {
        assert!(Instant::now() < deadline, "{}", tasks.snapshot());
        tracing::info!(target: "nest", "now");
    }
}
