//! What is set beside it, in code and in the environment.

use super::{names, total};
use crate::common::Gate;
use crate::exporting::{LONG, context, orphan, world};
use crate::receiver::{Protocol, Receiver};
use std::process::Command;
use std::time::Duration;
use straggler::Builder;
use straggler::otlp::{Compression, InMemory, Otlp};
use tracing_subscriber::Registry;

#[track_caller]
fn refusal(otlp: Otlp) -> String {
    let built = Builder::new().otlp(otlp).build::<Registry>();
    let error = built.expect_err("it can't be used");
    assert!(error.is_invalid_config(), "{error}");
    error.to_string()
}

#[test]
fn how_to_send_cant_be_said_where_nothing_is_sent() {
    let kept = || Otlp::new().in_memory(&InMemory::new());
    for (otlp, named) in [
        (
            kept().endpoint("http://me:hunter2@h:1"),
            "endpoint = http://…@h:1",
        ),
        (
            kept().protocol(straggler::otlp::Protocol::Grpc),
            "protocol = Grpc",
        ),
        (kept().timeout(LONG), "timeout = 20s"),
        (kept().compression(Compression::Gzip), "compression = Gzip"),
        (kept().header("authorization", "hunter2"), "header"),
        (kept().ca_certificate("hunter2"), "ca_certificate"),
        (kept().client_identity("a", "hunter2"), "client_identity"),
    ] {
        let refused = refusal(otlp);
        assert!(refused.contains(named), "{named}: {refused}");
        assert!(refused.contains("in_memory"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn one_is_for_one_build() {
    let exported = InMemory::new();
    let otlp = Otlp::new().in_memory(&exported);
    // What fails before it takes nothing.
    refusal(otlp.clone().max_batch(0));
    let world = world(otlp.clone());
    assert!(refusal(otlp.clone()).contains("InMemory::new()"));
    drop(world);
    assert!(refusal(otlp).contains("InMemory::new()"));
}

const CHILD: &str = "in_memory::settings::in_a_process_of_its_own";

#[test]
#[ignore = "it needs a process of its own, which another test gives it"]
fn in_a_process_of_its_own() {
    let exported = InMemory::new();
    let guard = Builder::new()
        .orphan_grace(Duration::ZERO)
        .otlp(Otlp::new().in_memory(&exported))
        .init()
        .expect("no variable counts");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        orphan("leaked", &Gate::default(), Some(context(1, true))).await;
        guard.tasks().flush(LONG).expect("in time");
    });
    assert_eq!(names(&exported), ["orphan leaked"]);
    assert_eq!(
        total(&exported, "tokio.task.orphan.count", "leaked"),
        Some(1.0)
    );
    guard.shutdown(LONG).expect("in time");
}

#[test]
fn the_environment_changes_nothing_and_nothing_leaves() {
    let receiver = Receiver::start(Protocol::Http);
    let endpoint = receiver.endpoint();
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "never"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
    ] {
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "--ignored", CHILD])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env(name, value)
            .output()
            .expect("the same program");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}={value}: {said}");
        assert!(said.contains("1 passed"), "{said}");
    }
    assert_eq!(receiver.received().connections, 0);
}
