//! `straggler::init()` in processes of their own, told by OpenTelemetry's variables alone.

use super::exporting::{LONG, audit, orphan};
use super::received::{Received, Signal};
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use super::view::Value;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use straggler::Builder;
use straggler::otlp::Otlp;
use tracing_subscriber::prelude::*;

const CHILD: &str = "environment::in_a_process_of_its_own";
/// What such a process is to do.
const DO: &str = "STRAGGLER_TEST_DO";

/// A process with these variables and no other of OpenTelemetry's, nor a proxy's.
fn start(what: &str, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_uppercase();
        if text.starts_with("OTEL_") || text.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command
        .args(["--exact", "--ignored", "--nocapture", CHILD])
        .env(DO, what)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the same program")
}

/// Lets it go on, waits for its end and gives what it printed.
fn finish(mut child: Child) -> String {
    let mut stdin = child.stdin.take().expect("a pipe");
    // One that has failed already reads nothing.
    let _ = stdin.write_all(b"go on\n");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{wrong}");
    assert!(said.contains("1 passed"), "{said}{wrong}");
    said
}

fn run(what: &str, variables: &[(&str, &str)]) -> String {
    finish(start(what, variables))
}

#[test]
#[ignore = "it needs a process of its own, which the other tests give it"]
fn in_a_process_of_its_own() {
    match std::env::var(DO)
        .expect("another test starts this one")
        .as_str()
    {
        "leak" => leak(straggler::init().expect("good variables")),
        // init() has a grace of seconds.
        "leak at once" => {
            let builder = Builder::new().orphan_grace(std::time::Duration::ZERO);
            leak(builder.init().expect("good variables"));
        }
        "refuse" => refuse(),
        other => panic!("{other}?"),
    }
}

/// Whether a thread of ours runs, and the sender's among them.
fn threads() -> (bool, bool) {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let names: Vec<_> = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .collect();
    let is_there = |ours: &str| names.iter().any(|name| name.trim_end() == ours);
    (is_there("straggler"), is_there("straggler-otlp"))
}

/// Says whether it exports, leaks a task, and shuts down once it is told to.
fn leak(guard: straggler::Guard) {
    say(&format!("exports: {}", threads().1));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let _leaked = orphan("leaked", &super::common::Gate::default(), None).await;
        std::io::stdin()
            .read_to_end(&mut Vec::new())
            .expect("a pipe");
        guard.shutdown(LONG).expect("in time");
    });
}

fn refuse() {
    let error = straggler::init().expect_err("a bad variable");
    assert!(error.is_invalid_config(), "{error}");
    say(&format!("refused: {error}"));
    let deadline = std::time::Instant::now() + LONG;
    while threads() != (false, false) {
        // A thread's entry may outlive its end by a moment.
        assert!(std::time::Instant::now() < deadline, "a thread is left");
        std::thread::yield_now();
    }
    if let Ok(endpoint) = std::env::var("STRAGGLER_TEST_GOOD") {
        // Code wins over what was refused.
        let otlp = Otlp::new().endpoint(&endpoint).timeout(LONG);
        let guard = Builder::new()
            .otlp(otlp)
            .init()
            .expect("nothing is left behind");
        guard.shutdown(LONG).expect("in time");
        return;
    }
    let (layer, tasks) = Builder::new().build().expect("no fault of this one");
    let installed = tracing_subscriber::registry().with(layer).try_init();
    installed.expect("no subscriber is left behind");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let seen = runtime
        .expect("a runtime")
        .block_on(async { tasks.snapshot() });
    assert_eq!(seen.tasks().len(), 1, "{seen}");
}

fn say(what: &str) {
    writeln!(std::io::stdout(), "{what}").expect("a pipe");
}

fn settled(receiver: &Receiver) -> Received {
    let received = receiver.received();
    audit(&received);
    received
}

fn both(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http => "http/protobuf",
    }
}

#[test]
fn an_endpoint_is_all_that_init_needs() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let endpoint = receiver.endpoint();
        let said = run(
            "leak",
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", both(protocol)),
                (
                    "OTEL_EXPORTER_OTLP_HEADERS",
                    "authorization=Basic%20aHVudGVyMg,x-tenant=a",
                ),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_SERVICE_NAME", "shop"),
                (
                    "OTEL_RESOURCE_ATTRIBUTES",
                    "deployment.environment.name=test,a.b=c%2Cd",
                ),
            ],
        );
        assert!(said.contains("exports: true"), "{said}");
        let received = settled(&receiver);
        assert!(received.of(Signal::Metrics).count() > 0, "{received}");
        for request in &received.requests {
            let headers = &request.arrival.headers;
            assert_eq!(headers["authorization"], "Basic aHVudGVyMg", "once");
            assert_eq!(headers["x-tenant"], "a");
            assert!(request.arrival.gzip, "{received}");
        }
        let points = received.metrics();
        assert!(
            points
                .iter()
                .any(|point| point.name == "tokio.task.spawned")
        );
        for point in points {
            let resource = &point.resource;
            assert_eq!(resource["service.name"], "shop");
            assert_eq!(resource["deployment.environment.name"], "test");
            assert_eq!(resource["a.b"], "c,d");
            for name in ["service.instance.id", "host.name"] {
                assert!(
                    matches!(&resource[name], Value::Str(id) if !id.is_empty()),
                    "{name}"
                );
            }
            assert!(matches!(resource["process.pid"], Value::Int(1..)));
        }
    }
}

#[test]
fn two_processes_are_two_instances() {
    let receiver = Receiver::start(Protocol::Http);
    let endpoint = receiver.endpoint();
    for _ in 0..2 {
        run("leak", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    }
    let points = receiver.received().all_metrics();
    let mut instances: Vec<_> = (points.iter())
        .map(|point| format!("{:?}", point.resource["service.instance.id"]))
        .collect();
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), 2);
}

#[test]
fn without_an_endpoint_init_exports_nothing() {
    let receiver = Receiver::start(Protocol::Http);
    let endpoint = receiver.endpoint();
    for variables in [
        &[("OTEL_SERVICE_NAME", "shop")][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_SDK_DISABLED", "TRUE"),
        ],
    ] {
        let said = run("leak", variables);
        assert!(said.contains("exports: false"), "{variables:?}: {said}");
    }
    assert_eq!(receiver.received().connections, 0);
}

#[test]
fn each_signal_by_its_own_variables() {
    let receiver = Receiver::start(Protocol::Http);
    let endpoint = receiver.endpoint();
    let traces = format!("{endpoint}/v1/traces");
    let metrics = format!("{endpoint}/v1/metrics");
    for (variables, sends_metrics, sends_spans) in [
        (
            [
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &*metrics),
                ("OTEL_TRACES_EXPORTER", "none"),
            ],
            true,
            false,
        ),
        (
            [
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*traces),
                ("OTEL_METRICS_EXPORTER", "none"),
            ],
            false,
            true,
        ),
        (
            [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
                ("OTEL_METRICS_EXPORTER", "none"),
            ],
            false,
            true,
        ),
    ] {
        let before = receiver.received();
        let said = run("leak at once", &variables);
        assert!(said.contains("exports: true"), "{said}");
        let after = receiver.received();
        let metrics = after.point_count() > before.point_count();
        // A marker, and the span that closes it off.
        let spans = after.span_count() - before.span_count();
        assert_eq!(metrics, sends_metrics, "{variables:?}");
        assert_eq!(spans, if sends_spans { 2 } else { 0 }, "{variables:?}");
    }
    assert!(receiver.received().strays.is_empty());
}

#[test]
fn metrics_come_at_the_interval() {
    let receiver = Receiver::start(Protocol::Http);
    let child = start(
        "leak",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
        ],
    );
    // A minute apart by default.
    receiver.wait_until(|received| received.of(Signal::Metrics).count() >= 4);
    finish(child);
    settled(&receiver);
}

const SECRET: &str = "hunter2";

#[test]
fn what_cant_be_used_is_refused_by_name_and_leaves_nothing_behind() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense://localhost:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "tcp"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_SDK_DISABLED", "perhaps"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_RESOURCE_ATTRIBUTES", "nothing"),
    ] {
        let said = run("refuse", &[endpoint, (name, value)]);
        let refused = said.lines().find(|line| line.contains("refused: "));
        let refused = refused.expect("it says why");
        assert!(refused.contains(name), "{refused}");
        assert!(refused.contains(value), "{value}: {refused}");
    }
}

#[test]
fn no_error_shows_what_may_be_a_credential() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "authorization=hunter2%zz",
        ),
        (
            "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
            "author ization=hunter2",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://me:hunter2@localhost:1",
        ),
    ] {
        let said = run("refuse", &[endpoint, (name, value)]);
        assert!(said.contains("refused: ") && said.contains(name), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }
}

#[test]
fn after_a_refusal_a_good_init_works() {
    let receiver = Receiver::start(Protocol::Http);
    let endpoint = receiver.endpoint();
    run(
        "refuse",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "never"),
            ("STRAGGLER_TEST_GOOD", &endpoint),
        ],
    );
    let received = settled(&receiver);
    assert!(received.of(Signal::Metrics).count() > 0, "{received}");
}
