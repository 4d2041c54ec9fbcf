//! What is run in a process of its own.

use crate::program;
use crate::recorder::Recorder;
use std::future::pending;
use straggler::testing::watch;
use tokio::runtime::{Builder, Runtime};
use tracing::level_filters::LevelFilter;
use tracing::{Level, info};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::prelude::*;

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn runtime() -> Runtime {
    let mut builder = match setting("FLAVOUR").as_str() {
        "multi-thread" => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.worker_threads(1).build().expect("a runtime")
}

fn install(set_up: &str) -> Recorder {
    let all = Recorder::new("all");
    // tokio's own differ in what happens at the same time.
    let not_tokios = || {
        filter_fn(|metadata| {
            !metadata.target().starts_with("tokio") && !metadata.target().starts_with("runtime")
        })
    };
    let registry = tracing_subscriber::registry();
    let env = |text: &str| EnvFilter::new(text);
    match set_up {
        "unfiltered" => registry.with(all.clone().with_filter(not_tokios())).init(),
        "own-filters" => registry
            .with(all.beside("warn").with_filter(LevelFilter::WARN))
            .with(all.beside("info").with_filter(LevelFilter::INFO))
            .init(),
        "env-filters" => registry
            .with(
                all.beside("named")
                    .with_filter(env("beside[outer]=debug,elsewhere=info")),
            )
            .with(all.beside("debug").with_filter(env("warn,beside=debug")))
            .init(),
        "global-filter" => registry.with(env("beside=info")).with(all.clone()).init(),
        other => panic!("no set-up {other}"),
    }
    all
}

#[test]
#[ignore = "run by another"]
#[allow(clippy::print_stdout, reason = "what was recorded is for who ran it")]
fn a_program() {
    let recorder = install(&setting("SET_UP"));
    let runtime = runtime();
    let before = program::before();
    match setting("WHO").as_str() {
        "beside" => {
            let watch = watch();
            program::run(before, &runtime);
            runtime.block_on(watch.assert_no_stragglers());
            // The body of the program, a task in a task, a request, a blocking one.
            assert!(watch.all().spawned() >= 3, "{:?}", watch.all());
        }
        _ => program::run(before, &runtime),
    }
    drop(runtime);
    info!("at the end");
    for line in recorder.lines() {
        println!("{line}");
    }
}

#[test]
#[ignore = "run by another"]
fn set_later() {
    let watch = watch();
    info!("nobody hears this");
    let recorder = std::thread::spawn(|| install("global-filter"))
        .join()
        .expect("no panic");
    info!("heard");
    let runtime = Builder::new_multi_thread().worker_threads(1).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let task = tokio::spawn(async { info!("heard in a task") });
        task.await.expect("no panic");
        tokio::spawn(pending::<()>());
        assert_eq!(watch.stragglers().await.tasks().len(), 1);
    });
    let lines = recorder.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    drop(watch);
    info!("heard afterwards");
    assert_eq!(recorder.lines().len(), 3);
}

async fn spawn_two() {
    tokio::spawn(async {
        info!("said in a task");
        tokio::spawn(pending::<()>());
    })
    .await
    .expect("no panic");
}

#[test_log::test(tokio::test(flavor = "multi_thread", worker_threads = 2))]
#[ignore = "run by another"]
async fn under_test_log() {
    let watch = watch();
    info!("said in the body");
    log::info!("said by log");
    spawn_two().await;
    let left = watch.stragglers().await;
    assert_eq!(left.tasks().len(), 1, "{left}");
    assert_eq!(watch.all().spawned(), 2);
}

#[tokio::test]
#[tracing_test::traced_test]
#[ignore = "run by another"]
async fn under_traced_test() {
    let watch = watch();
    info!("said in the body");
    tracing::event!(Level::WARN, "said loudly");
    spawn_two().await;
    let left = watch.stragglers().await;
    assert_eq!(left.tasks().len(), 1, "{left}");
    // It looks for lines in the test's own span, which is older than the watch.
    assert!(logs_contain("said in the body"));
    assert!(logs_contain("said loudly"));
    assert!(!logs_contain("said by nobody"));
}
