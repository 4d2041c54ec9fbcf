//! How does straggler start in an axum service that logs already, and what does a leak
//! look like there?
//!
//! ```sh
//! cargo run --example axum_service
//! ```
//!
//! Serves on loopback, asks itself for one export, prints the report and ends. Without
//! `--cfg tokio_unstable` tokio shows no tasks; then it says so and ends at once.
#![allow(clippy::print_stdout)] // The report is what it is for.

use axum::extract::State;
use axum::{Router, routing::post};
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use straggler::{Orphaned, Tasks};
use tokio::sync::oneshot;
use tracing::{Instrument, info, info_span};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

/// Shorter than the default, because we don't wait long.
const GRACE: Duration = Duration::from_secs(1);

/// The exports somebody could still cancel. Nothing is ever taken out: that is the bug.
type Exports = Arc<Mutex<Vec<oneshot::Sender<()>>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // This line and `with(straggler)` are all that a service needs.
    let (straggler, tasks) = straggler::Builder::new().orphan_grace(GRACE).build()?;
    // Each layer has its own filter: a filter in front of them all would blind straggler.
    let log = tracing_subscriber::fmt::layer().with_filter(LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(straggler)
        .with(log)
        .init();
    if let Some(diagnosis) = tasks.diagnose().first() {
        println!("this build can't show it: {diagnosis}");
        return Ok(());
    }

    let router = Router::new()
        .route("/export", post(export))
        .with_state(Exports::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, router).with_graceful_shutdown(async { drop(stopped.await) });
    let served = tokio::spawn(serve.into_future());

    let url = format!("http://{address}/export");
    reqwest::Client::new()
        .post(url)
        .send()
        .await?
        .error_for_status()?;
    wait_for_a_straggler(&tasks).await?;
    println!("\n{}", tasks.snapshot());

    drop(stop);
    served.await??;
    Ok(())
}

/// Starts an export and answers at once. Nobody waits for the task, and nobody ends it.
async fn export(State(exports): State<Exports>) -> &'static str {
    let handle = async {
        let (cancel, cancelled) = oneshot::channel();
        exports.lock().expect("not poisoned").push(cancel);
        tokio::spawn(async move { drop(cancelled.await) });
        info!("export started");
        "accepted"
    };
    handle.instrument(info_span!("export")).await
}

/// Long enough for straggler's own warning, which comes through the log.
async fn wait_for_a_straggler(tasks: &Tasks) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let warned = |orphan: &Orphaned| orphan.elapsed() > Duration::from_millis(2_500);
    while !(tasks.snapshot().orphans()).any(|task| task.orphaned().is_some_and(warned)) {
        if started.elapsed() > Duration::from_secs(30) {
            return Err("the leak was not seen".into());
        }
        look.tick().await;
    }
    Ok(())
}
