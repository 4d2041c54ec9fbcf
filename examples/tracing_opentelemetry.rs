//! Which request does a leaked task belong to, by the trace that the request is stored under?
//!
//! ```sh
//! cargo run --example tracing_opentelemetry
//! ```
//!
//! tracing-opentelemetry makes a trace of each request, and straggler keeps the trace that was
//! current when a task was spawned. Nothing is sent anywhere: a program would give the provider
//! an exporter. Without `--cfg tokio_unstable` it is seen through `straggler::spawn` alone.
#![allow(clippy::print_stdout)] // It is what the example is for.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::error::Error;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{Instrument, Metadata, info_span};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

/// Without this filter the layer would make a trace of each task, as tokio's spans are spans.
fn not_tokios(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("tokio") && !metadata.target().starts_with("runtime")
}

fn main() -> Result<(), Box<dyn Error>> {
    let provider = SdkTracerProvider::builder().build();
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("example"))
        .with_filter(filter_fn(not_tokios));
    let (straggler, tasks) = straggler::Builder::new()
        .orphan_grace(Duration::ZERO)
        .build()?;
    // In either order.
    tracing_subscriber::registry()
        .with(straggler)
        .with(traces)
        .init();

    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (kept, released) = oneshot::channel::<()>();
        let request = async {
            // Nobody waits for this one, and somebody keeps the other end.
            straggler::spawn(async move { drop(released.await) });
        };
        let request = request.instrument(info_span!("GET /report"));
        straggler::spawn(request).await?;

        for orphan in tasks.snapshot().orphans() {
            let parent = orphan.parent();
            let span = parent.and_then(|parent| parent.outermost_span());
            let trace = parent.and_then(|parent| parent.span_context());
            println!(
                "orphan spawned at {} in {}, trace {}",
                orphan.location(),
                span.map_or("no span", |span| span.name()),
                trace.map_or("unknown".into(), |trace| trace.trace_id().to_string()),
            );
        }
        println!("lost: {}", tasks.snapshot().loss());
        drop(kept);
        Ok::<(), Box<dyn Error>>(())
    })
}
