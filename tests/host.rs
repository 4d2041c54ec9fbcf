//! The host comes first: beside layers that hold locks, spawn and panic, straggler neither
//! blocks nor dies. One scenario, for the subscriber is the process's.
#![cfg(tokio_unstable)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

static WARNED: AtomicU64 = AtomicU64::new(0);

/// Ships an event by a task that it spawns while it holds the span's extensions.
struct Shipper;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Shipper {
    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        if event.metadata().target() != "ship" {
            return;
        }
        let span = ctx.event_span(event).expect("the request");
        span.extensions_mut().replace(5_u8);
        let mut extensions = span.extensions_mut();
        tokio::spawn(std::future::pending::<()>());
        extensions.replace(6_u8);
    }
}

/// A formatter with a bug: it panics on straggler's own warning.
struct Broken;

impl<S: Subscriber> Layer<S> for Broken {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "straggler" {
            WARNED.fetch_add(1, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("a formatter's bug"));
        }
    }
}

#[test]
fn a_layer_may_spawn_under_its_locks_and_another_may_panic() {
    let (layer, tasks) = straggler::Builder::new()
        .orphan_grace(Duration::ZERO)
        .build()
        .unwrap();
    tracing_subscriber::registry()
        .with(layer)
        .with(Shipper)
        .with(Broken)
        .init();
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let handler = async {
                let _request = tracing::info_span!("request").entered();
                tracing::info!(target: "ship", "done");
            };
            tokio::spawn(handler).await.unwrap();
        });
        done.send(runtime).unwrap();
    });
    let runtime = finished.recv_timeout(Duration::from_secs(20));
    let runtime = runtime.expect("no lock is waited for");
    let snapshot = tasks.snapshot();
    let orphan = snapshot.orphans().next().expect("what was shipped");
    let span = orphan.parent().unwrap().outermost_span().unwrap();
    assert_eq!(span.name(), "request");

    let deadline = Instant::now() + Duration::from_secs(20);
    while tasks.snapshot().loss().warnings_failed() == 0 {
        assert!(Instant::now() < deadline, "the monitor lives, and counts");
        std::thread::yield_now();
    }
    assert_eq!(WARNED.load(Ordering::SeqCst), 1);
    drop(runtime);
}
