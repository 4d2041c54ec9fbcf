//! Tasks that are asked to stop.

use crate::{assert_clean, message_of, runtimes};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use straggler::testing::watch;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_token_that_is_listened_to() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let token = CancellationToken::new();
            for _ in 0..3 {
                tokio::spawn(token.clone().cancelled_owned());
            }
            watch.assert_stops_within(LONG, &token).await;
            assert_eq!(watch.all().ended(), 3);
            watch.assert_stops_within(LONG, token).await;
        });
    }
}

#[test]
fn a_future_that_stops_them() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let server = tokio::spawn(pending::<()>());
            let stop = async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                server.abort();
                server.await.expect_err("it was aborted");
            };
            watch.assert_stops_within(LONG, stop).await;
            assert_clean(&watch.stragglers().await);
        });
    }
}

#[test]
fn a_task_that_does_not_listen() {
    let message = message_of(async {
        let watch = watch();
        tokio::spawn(pending::<()>());
        tokio::task::yield_now().await;
        watch
            .assert_stops_within(SHORT, CancellationToken::new())
            .await;
    });
    let begins = "straggler: 1 task is still there 20ms after the request to stop\n";
    assert!(message.starts_with(begins), "{message}");
    assert!(
        message.contains("not polled since: nothing woke it\n"),
        "{message}"
    );
}

#[test]
fn a_task_that_wakes_and_goes_on() {
    let message = message_of(async {
        let watch = watch();
        let token = CancellationToken::new();
        let deaf = token.clone();
        tokio::spawn(async move {
            deaf.cancelled().await;
            pending::<()>().await;
        });
        tokio::task::yield_now().await;
        watch.assert_stops_within(SHORT, token).await;
    });
    assert!(message.contains("polled since, and went on\n"), "{message}");
}

#[test]
fn a_task_whose_poll_does_not_return() {
    let [_, runtime] = runtimes();
    let stop = Arc::new(AtomicBool::new(false));
    let _stop = StopAtLast(Arc::clone(&stop));
    let message = message_of(async move {
        let watch = watch();
        let polled = Arc::new(Notify::new());
        let tell = Arc::clone(&polled);
        runtime.spawn(async move {
            tell.notify_one();
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        });
        polled.notified().await;
        // It is dropped elsewhere: here a runtime may not wait for its tasks.
        let _runtime = StopLater(Some(runtime));
        watch
            .assert_stops_within(SHORT, CancellationToken::new())
            .await;
    });
    assert!(
        message.contains("in a poll that has not returned since\n"),
        "{message}"
    );
}

struct StopAtLast(Arc<AtomicBool>);

impl Drop for StopAtLast {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct StopLater(Option<tokio::runtime::Runtime>);

impl Drop for StopLater {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[test]
fn a_request_that_is_never_done() {
    let message = message_of(async {
        let watch = watch();
        tokio::spawn(pending::<()>());
        watch.assert_stops_within(SHORT, pending::<()>()).await;
    });
    let begins = "straggler: 1 task is still there 20ms after the request to stop, which is itself \
                  not done\n";
    assert!(message.starts_with(begins), "{message}");
}

#[test]
fn a_request_that_is_never_done_though_all_have_stopped() {
    let message = message_of(async {
        let watch = watch();
        watch.assert_stops_within(SHORT, pending::<()>()).await;
    });
    assert!(
        message.starts_with("straggler: the request to stop is not done"),
        "{message}"
    );
}

#[test]
fn options_hold_here_too() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().ignore_named("stays");
            straggler::task("stays").spawn(pending::<()>());
            watch
                .assert_stops_within(LONG, CancellationToken::new())
                .await;
        });
    }
}
