//! How long a watch waits, and for what.

use crate::{SHORT, assert_clean, left, runtimes};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use straggler::Kind;
use straggler::testing::watch;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep};

/// So long that a test which waits for it is stopped.
const FOR_EVER: Duration = Duration::from_secs(3_600);

#[test]
fn at_once_when_nothing_is_left() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(FOR_EVER);
            tokio::spawn(async {}).await.expect("no panic");
            assert_clean(&watch.stragglers().await);
        });
    }
}

#[test]
fn a_chain_that_is_just_ending() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(FOR_EVER);
            let (tell, mut told) = oneshot::channel::<()>();
            for _ in 0..100 {
                let (next, waits) = oneshot::channel();
                let last = std::mem::replace(&mut told, waits);
                tokio::spawn(async move {
                    last.await.expect("it is sent");
                    next.send(()).expect("the next one waits");
                });
            }
            tokio::spawn(told);
            tell.send(()).expect("the first one waits");
            assert_clean(&watch.stragglers().await);
            assert_eq!(watch.all().ended(), 101);
        });
    }
}

#[test]
fn a_task_that_another_thread_lets_go() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(FOR_EVER);
            let (go, goes) = oneshot::channel();
            tokio::spawn(async { goes.await.expect("it is sent") });
            let thread = std::thread::spawn(|| {
                std::thread::yield_now();
                go.send(()).expect("it waits");
            });
            assert_clean(&watch.stragglers().await);
            thread.join().expect("no panic");
        });
    }
}

#[test]
fn a_task_that_waits_for_a_timer() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(FOR_EVER);
            tokio::spawn(sleep(Duration::from_millis(5)));
            assert_clean(&watch.stragglers().await);
        });
    }
}

#[test]
fn without_timers_and_sockets() {
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let runtime = builder.build().expect("a runtime");
        runtime.block_on(async {
            let watch = watch().settle(SHORT);
            tokio::spawn(pending::<()>());
            assert_eq!(left(&watch).await.tasks().len(), 1);
        });
    }
}

#[test]
fn a_paused_clock_stands_still() {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let watch = watch().settle(SHORT);
        let sleeper = tokio::spawn(sleep(FOR_EVER));
        let asks = async {
            let began = Instant::now();
            assert_eq!(left(&watch).await.tasks().len(), 1);
            assert_eq!(began.elapsed(), Duration::ZERO);
        };
        asks.await;
        let in_a_task = tokio::spawn(async move {
            let began = Instant::now();
            assert_eq!(left(&watch).await.tasks().len(), 1);
            assert_eq!(began.elapsed(), Duration::ZERO);
            watch
        });
        let watch = in_a_task.await.expect("no panic").settle(FOR_EVER);
        sleeper
            .await
            .expect("the clock is moved when nothing else is to be done");
        assert_clean(&watch.stragglers().await);
    });
}

/// Where no runtime is, there is nobody to yield to but threads.
#[test]
fn outside_of_a_runtime() {
    let watch = watch().settle(FOR_EVER);
    let [runtime, _] = runtimes();
    runtime.block_on(async { drop(tokio::spawn(pending::<()>())) });
    let found = futures_util::FutureExt::now_or_never(watch.stragglers());
    assert!(found.is_none(), "it waits for the one that is left");
    let watch = watch.settle(SHORT);
    assert_eq!(block_on(watch.stragglers()).tasks().len(), 1);
}

/// Polls until it is done, on no runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// A thread without straggler's subscriber, as a runtime's I/O driver may be on one, wakes a task
/// and tells nobody. A poll without a wake looks like the drop of the future.
#[test]
fn a_task_that_was_woken_unseen() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let (end, blocks) = std::sync::mpsc::channel::<()>();
            let watch = watch()
                .settle(SHORT)
                .ignore(|task| task.kind() == Kind::Blocking);
            let wakes = Arc::new(Notify::new());
            let (woken, mut was_woken) = mpsc::unbounded_channel();
            let waits = Arc::clone(&wakes);
            tokio::spawn(async move {
                loop {
                    waits.notified().await;
                    woken.send(()).expect("the test waits");
                }
            });
            // One is missing by the runtime's count, and its span is held by a blocking task.
            let ends = async { drop(tokio::task::spawn_blocking(move || blocks.recv())) };
            tokio::spawn(ends).await.expect("no panic");
            for _ in 0..3 {
                let wakes = Arc::clone(&wakes);
                let thread = std::thread::spawn(move || wakes.notify_one());
                thread.join().expect("no panic");
                was_woken.recv().await.expect("it lives");
            }
            let found = left(&watch).await;
            assert_eq!(found.tasks().len(), 1, "{found}");
            assert_eq!(watch.tasks().len(), 2, "with the one that holds the span");
            drop(end);
        });
    }
}
