//! Assertions for every task: what a test started and left behind fails it.
//!
//! ```
//! # async fn handle_request() { tokio::spawn(async {}); }
//! # #[cfg(tokio_unstable)]
//! # #[tokio::main(flavor = "current_thread")] // in a test: #[tokio::test]
//! async fn main() {
//!     let watch = straggler::testing::watch();
//!     handle_request().await;
//!     watch.assert_no_stragglers().await;
//! }
//! # #[cfg(not(tokio_unstable))]
//! # fn main() {}
//! ```
//!
//! # What belongs to a watch
//!
//! Every task that is spawned after [`watch()`] by the task that called it, or by what that task
//! spawned, in libraries too, on any thread, by any kind of spawn. Outside of a task, as in a
//! `#[test]` that makes its own runtime, it is what the *thread* spawns. Tests that run beside it
//! in the same process have watches of their own, and see nothing of each other.
//!
//! Not of it are the children of a task that is older than the watch, and what can't be told whose
//! it is: a spawn by a plain thread through a `Handle`, and the background task of a static client that
//! another test happened to start. A live one on the test's own runtime is named in the message.
//!
//! A watch that is dropped without an assertion does nothing.
//!
//! # What it needs
//!
//! `--cfg tokio_unstable`, as straggler does. No set-up: the first watch of a process makes the
//! layer, and each is shown to straggler by a subscriber that it sets on *its own thread*, for as
//! long as it lives. That passes everything on to the subscriber that was there, so
//! `fmt().try_init()`, `test-log` and `tracing-test` print and capture what they did without it. A
//! straggler layer in the current subscriber is found, and used instead. What looks into the
//! subscriber of a span (`SpanTrace`, `OpenTelemetrySpanExt`) needs that: see `docs/testing.md`.
//!
//! # When nothing is proved
//!
//! A test in which tasks could not be seen doesn't pass: [`Completeness`] says why, and the
//! assertion panics with a message of its own kind.

mod ignore;
mod look;
mod message;
mod pace;
mod remainder;
mod runtimes;
mod site_view;
mod stop;
mod watch;

pub use remainder::{Completeness, Reason, Remainder};
pub use site_view::SiteView;
pub use stop::{ByFuture, ByToken, Stop};
pub use watch::{Watch, check, try_watch, watch};
