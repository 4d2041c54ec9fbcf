//! `straggler::runtime()` as a program calls it. Each scenario has a process of its own, for the
//! subscriber is the process's.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use straggler::{Builder, Source};

/// Runs this test again in a process of its own, where it gives true.
#[must_use]
fn alone(test: &str) -> bool {
    const ALONE: &str = "STRAGGLER_TEST_ALONE";
    if std::env::var(ALONE).is_ok_and(|alone| alone == test) {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "a test of that name: {text}");
    false
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    if !alone("what_is_refused_leaves_nothing_behind") {
        return;
    }
    let refused = Builder::new().max_live_tasks(0).runtime().unwrap_err();
    assert!(refused.is_invalid_config(), "{refused}");
    let _straggler = straggler::init().expect("no subscriber is set");
    let late = Builder::new().source(Source::Spans).runtime().unwrap_err();
    assert!(late.is_subscriber_already_set(), "{late}");
}

#[cfg(not(tokio_unstable))]
#[test]
fn without_hooks_it_is_an_error_that_says_what_to_do() {
    if !alone("without_hooks_it_is_an_error_that_says_what_to_do") {
        return;
    }
    for refused in [
        straggler::runtime(),
        Builder::new().source(Source::Both).runtime(),
    ] {
        let error = refused.unwrap_err();
        assert!(error.is_invalid_config(), "{error}");
        assert!(
            error.to_string().contains("--cfg tokio_unstable"),
            "{error}"
        );
    }
    let (mut runtime, straggler) = Builder::new().source(Source::Spans).runtime().unwrap();
    runtime.build().unwrap().block_on(async {
        let task = straggler::spawn(std::future::pending::<()>());
        assert!(straggler.tasks().snapshot().task(task.id()).is_some());
    });
}

#[cfg(tokio_unstable)]
mod hooked {
    use super::alone;
    use std::time::{Duration, Instant};
    #[cfg(feature = "spans")]
    use straggler::Builder;
    use straggler::{ParentStatus, Snapshot, Source, Tasks};
    use tokio::runtime::{Handle, RuntimeFlavor};
    use tokio::task::Id;
    use tracing::{Instrument, Span, info_span};

    /// A handler that is over, and a task that it left behind, which holds its task's span.
    async fn leaves_one_behind(tasks: &Tasks) -> (Snapshot, Id) {
        let handler = async {
            let left = std::future::pending::<()>().instrument(Span::current());
            let left = info_span!("request").in_scope(|| tokio::spawn(left));
            tokio::task::yield_now().await;
            left.id()
        };
        let handler = tokio::spawn(handler);
        let id = handler.id();
        let left = handler.await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let snapshot = tasks.snapshot();
            if snapshot.task(id).is_none() {
                return (snapshot, left);
            }
            assert!(Instant::now() < deadline, "the handler is over\n{snapshot}");
            tokio::task::yield_now().await;
        }
    }

    #[track_caller]
    fn assert_knows_who_left_it(snapshot: &Snapshot, left: Id) {
        let parent = snapshot.task(left).expect("it waits").parent().unwrap();
        assert_eq!(parent.status(), ParentStatus::Ended, "{snapshot}");
        assert_eq!(parent.outermost_span().unwrap().name(), "request");
        assert!(snapshot.loss().is_empty(), "{snapshot}");
        assert_eq!(snapshot.diagnoses(), [], "{snapshot}");
    }

    #[test]
    fn one_call_gives_a_runtime_that_hooks_watch() {
        if !alone("hooked::one_call_gives_a_runtime_that_hooks_watch") {
            return;
        }
        let (mut runtime, straggler) = straggler::runtime().unwrap();
        let tasks = straggler.tasks();
        assert_eq!(tasks.diagnose(), []);
        let runtime = runtime.worker_threads(2).build().unwrap();
        runtime.block_on(async {
            assert_eq!(
                Handle::current().runtime_flavor(),
                RuntimeFlavor::MultiThread
            );
            // Both panic where they aren't enabled.
            tokio::time::sleep(Duration::ZERO).await;
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();

            let (snapshot, left) = leaves_one_behind(tasks).await;
            assert_eq!(snapshot.source(), Source::Hooks);
            assert_knows_who_left_it(&snapshot, left);
            let here = snapshot
                .sites()
                .filter(|site| site.location().file() == file!());
            let (ended, polls) = here.fold((0, 0), |(ended, polls), site| {
                (ended + site.ended(), polls + site.poll().count())
            });
            assert_eq!(ended, 1, "{snapshot}");
            assert!(polls >= 2, "the handler was polled twice\n{snapshot}");
            assert_eq!(snapshot.task(left).unwrap().wakes(), None, "{snapshot}");
        });
        let again = straggler::runtime().unwrap_err();
        assert!(again.is_subscriber_already_set(), "{again}");
    }

    #[cfg(feature = "spans")]
    #[test]
    fn both_is_kept_and_hooked() {
        if !alone("hooked::both_is_kept_and_hooked") {
            return;
        }
        let (mut runtime, straggler) = Builder::new().source(Source::Both).runtime().unwrap();
        let runtime = runtime.worker_threads(2).build().unwrap();
        let (snapshot, left) = runtime.block_on(leaves_one_behind(straggler.tasks()));
        assert_eq!(snapshot.source(), Source::Both);
        // Without hooks the handler, whose span is held, would be unconfirmed at first.
        assert_knows_who_left_it(&snapshot, left);
        let left = snapshot.task(left).unwrap();
        assert_eq!(left.wakes(), Some(0), "{snapshot}");
        assert_eq!(straggler.tasks().diagnose(), []);
    }

    #[cfg(feature = "spans")]
    #[test]
    fn spans_are_kept_and_hook_nothing() {
        if !alone("hooked::spans_are_kept_and_hook_nothing") {
            return;
        }
        let (mut runtime, straggler) = Builder::new().source(Source::Spans).runtime().unwrap();
        let told = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let tell = std::sync::Arc::clone(&told);
        runtime.on_task_spawn(move |_| tell.store(true, std::sync::atomic::Ordering::SeqCst));
        let runtime = runtime.worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let waits = tokio::spawn(std::future::pending::<()>());
            let snapshot = straggler.tasks().snapshot();
            assert_eq!(snapshot.source(), Source::Spans);
            let task = snapshot.task(waits.id()).expect("its span tells of it");
            assert!(task.wakes().is_some(), "{snapshot}");
            assert_eq!(snapshot.diagnoses(), [], "{snapshot}");
        });
        assert!(told.load(std::sync::atomic::Ordering::SeqCst));
    }
}
