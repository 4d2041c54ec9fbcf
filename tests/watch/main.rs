//! `straggler::testing`: what belongs to a watch, when it is done, and what it says.
#![cfg(tokio_unstable)]

mod completeness;
mod corners;
mod law;
mod message;
mod options;
mod queries;
mod scope;
mod settle;
mod stops;

use std::future::Future;
use std::time::{Duration, Instant};
use straggler::testing::{Remainder, Watch};
use straggler::{Builder, ManualClock, Tasks};
use tokio::runtime::{self, Runtime};
use tracing::Dispatch;
use tracing_subscriber::prelude::*;

/// For a watch that is to find something: it waits no longer than this.
const SHORT: Duration = Duration::from_millis(20);

/// Both flavours of runtime, with everything enabled.
fn runtimes() -> [Runtime; 2] {
    let mut multi = runtime::Builder::new_multi_thread();
    [runtime::Builder::new_current_thread(), {
        multi.worker_threads(2);
        multi
    }]
    .map(|mut builder| builder.enable_all().build().expect("a runtime"))
}

/// The remainder, where something is expected to be left.
async fn left(watch: &Watch) -> Remainder {
    let left = watch.stragglers().await;
    assert!(left.completeness().is_complete(), "{left}");
    left
}

/// The lines of this crate's tests at which the tasks that are left were spawned.
fn lines(left: &Remainder) -> Vec<u32> {
    let lines = left.tasks().iter().map(|task| task.location().line());
    lines.collect()
}

/// A straggler layer in a subscriber of the test's own, as a program may have one.
fn own_layer(options: impl FnOnce(Builder) -> Builder) -> (Tasks, Dispatch, ManualClock) {
    let clock = ManualClock::new();
    let builder = Builder::new().clock(clock.clone()).warn_on_orphans(false);
    let (layer, tasks) = options(builder).build().expect("a valid configuration");
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
    (tasks, dispatch, clock)
}

/// Lets others go on until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "it stays as it is");
        tokio::task::yield_now().await;
    }
}

/// Whether nothing is left, and that is known.
#[track_caller]
fn assert_clean(left: &Remainder) {
    assert!(left.passes(), "{left}");
}

/// The message of the panic that a future ends in.
fn message_of(future: impl Future<Output = ()>) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future);
    }));
    let panic = caught.expect_err("it passes");
    let message = panic.downcast_ref::<String>().cloned();
    message
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .expect("a text")
}
