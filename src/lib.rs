//! See every tokio task while it is still alive: who spawned it, what it outlived, and
//! where the leak is.
//!
//! A *straggler* is a task still out there after what started it has gone home. Tools that
//! report what has ended never show one. This crate keeps the live state of every task of
//! every runtime in the process, with the task, the span and the trace it was spawned from,
//! and answers in the process.
//!
//! # Start
//!
//! ```
//! let straggler = straggler::init()?;              // first line of main
//! // … run the service …
//! println!("{}", straggler.tasks().snapshot());    // whenever something looks wrong
//! # Ok::<(), straggler::Error>(())
//! ```
//!
//! tokio shows its tasks only with `--cfg tokio_unstable`; put this into
//! `.cargo/config.toml` of the program:
//!
//! ```toml
//! [build]
//! rustflags = ["--cfg", "tokio_unstable"]
//! ```
//!
//! Beside other layers, add straggler's to them. It changes nothing of what they see:
//!
//! ```
//! use tracing_subscriber::prelude::*;
//!
//! let (layer, tasks) = straggler::Builder::new().build()?;
//! tracing_subscriber::registry()
//!     .with(layer)
//!     .with(tracing_subscriber::fmt::layer().with_filter(tracing_subscriber::filter::LevelFilter::INFO))
//!     .init();
//!
//! for orphan in tasks.snapshot().orphans() {
//!     println!("task {} spawned at {}, {:?} old", orphan.id(), orphan.location(), orphan.age());
//! }
//! # Ok::<(), straggler::Error>(())
//! ```
//!
//! In a test, [`testing`] says what was left behind:
//!
//! ```
//! # async fn handle_request() {}
//! #[tokio::test]
//! async fn handler_leaves_nothing_behind() {
//!     let watch = straggler::testing::watch();
//!     handle_request().await;
//!     watch.assert_no_stragglers().await;
//! }
//! ```
//!
//! # How to think of it
//!
//! - A **task** lives from its spawn until its future is dropped. Its **parent** is the task
//!   that was being polled where it was spawned, with the user spans around it.
//! - A **spawn site** is a place in the text, with the kind and name of the tasks spawned
//!   there. Lifetimes, polls and scheduling delays are kept per site, without loss, and
//!   nothing else is kept of a task that ended.
//! - An **orphan** is alive past the [grace](Builder::orphan_grace) after what started it ended.
//!   That is a fact. Whether it harms is for you to say: [`daemon`] tasks are meant to.
//! - A [`Snapshot`] is a consistent copy. What could not be seen is in its [`Loss`], and why in
//!   its [`Diagnosis`]es: a leak is never made of lost data, nor is health.
//!
//! # Sources
//!
//! | | [`Source::Spans`] | [`Source::Hooks`] | [`spawn`] |
//! |---|---|---|---|
//! | needs | `tokio_unstable` | `tokio_unstable`, and [`runtime()`] or [`Tasks::hook`] for each runtime | your own spawns |
//! | sees | every task, `block_on`, blocking, `LocalSet` | spawned tasks of that runtime | that task |
//! | wakes, wakers, idle or scheduled | yes | no | no |
//! | exact polls | yes | but for the turn in which a task is aborted | yes |
//! | exact end | but for a task whose span is held | yes | yes |
//!
//! # Features
//!
//! - `spans` (default): switches on tokio's feature `tracing`.
//! - `opentelemetry` (default): the OpenTelemetry `SpanContext` current at each spawn.
//! - `testing` (default): [`testing`], assertions for every task.
//! - `otlp`: export of metrics and of orphans' spans, gRPC and HTTP. `otlp-tls`: also to
//!   `https://` endpoints.
//! - `console`: `Builder::console`, tokio-console's layer beside ours by one call.
//!
//! One method is `unsafe`: `tracing-subscriber`'s, passed on.

// The host's process is not ours to take down.
#![warn(clippy::unwrap_used)]
// The models need a part of the crate only.
#![cfg_attr(straggler_loom, allow(dead_code, unused_imports))]

#[cfg(not(straggler_loom))]
mod builder;
#[cfg(not(straggler_loom))]
mod capture;
mod clock;
mod config;
#[cfg(all(feature = "console", not(straggler_loom)))]
mod console;
mod daemons;
#[cfg(not(straggler_loom))]
mod diagnose;
mod error;
#[cfg(all(feature = "otlp", not(straggler_loom)))]
mod export;
mod histogram;
mod loss;
#[cfg(not(straggler_loom))]
mod monitor;
#[cfg(not(straggler_loom))]
mod orphan;
#[cfg(not(straggler_loom))]
mod query;
mod sync;
mod table;
mod task;
#[cfg(not(straggler_loom))]
mod tasks;
#[cfg(all(feature = "testing", not(straggler_loom)))]
pub mod testing;
mod text;
#[cfg(not(straggler_loom))]
mod worker;

#[cfg(not(straggler_loom))]
pub use builder::{Builder, init, runtime};
#[cfg(all(tokio_unstable, not(straggler_loom)))]
pub use capture::Hooks;
#[cfg(not(straggler_loom))]
pub use capture::{Layer, TaskBuilder, daemon, spawn, spawn_local, task};
pub use clock::ManualClock;
pub use config::Source;
pub use daemons::DEFAULT_DAEMONS;
#[cfg(not(straggler_loom))]
pub use diagnose::Diagnosis;
pub use error::Error;
pub use histogram::Histogram;
pub use loss::Loss;
#[cfg(not(straggler_loom))]
pub use query::{Site, Snapshot};
pub use task::{
    Cause, Certainty, Kind, Location, Orphaned, Parent, ParentSpan, ParentStatus, State, Task,
    TaskId,
};
#[cfg(not(straggler_loom))]
pub use tasks::{Guard, Tasks};

/// Where to send what straggler knows, and how: OpenTelemetry's protocol, OTLP.
///
/// [`Otlp`](otlp::Otlp) holds the settings. All of them are in the environment too, under
/// OpenTelemetry's names; what is set in code wins.
///
/// ```
/// use straggler::otlp::{Compression, Otlp, Protocol};
///
/// let otlp = Otlp::new()
///     .endpoint("http://collector:4317")
///     .protocol(Protocol::Grpc)
///     .compression(Compression::Gzip);
/// # drop(otlp);
/// ```
#[cfg(all(feature = "otlp", not(straggler_loom)))]
pub mod otlp {
    pub use crate::export::{Compression, InMemory, MetricExporter, Otlp, Protocol};

    /// Metrics as an [`InMemory`] has them: what was exported, to be asserted on.
    pub mod exported {
        pub use crate::export::exported::{Exemplar, Histogram, InstrumentKind, Metric, Point};
    }
}

#[cfg(all(doctest, not(straggler_loom)))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(all(doctest, feature = "testing", feature = "otlp", not(straggler_loom)))]
#[doc = include_str!("../docs/testing.md")]
mod testing_guide {}

#[cfg(all(doctest, feature = "opentelemetry", not(straggler_loom)))]
#[doc = include_str!("../docs/composition.md")]
mod composition {}
