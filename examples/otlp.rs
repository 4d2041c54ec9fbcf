//! The way out: metrics and spans of orphans over OTLP, while the leak is alive.
//!
//! ```sh
//! cargo run --features otlp --example otlp
//! OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run --features otlp --example otlp
//! ```
//!
//! Without an endpoint it starts a receiver of its own and shows what arrives there. With one
//! it sends there what a service would: look for the trace that it prints.
#![allow(clippy::print_stdout)] // It is what the example is for.

mod receiver;

use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use straggler::otlp::Otlp;
use tokio::sync::watch;

const SECONDS: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let mut otlp = Otlp::new();
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_none() {
        otlp = otlp.endpoint(&receiver::start()?);
    }
    let straggler = straggler::Builder::new()
        .orphan_grace(Duration::from_millis(100))
        .otlp(otlp)
        .init()?;
    let tasks = straggler.tasks();

    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(());
        let context = incoming();
        println!("a request comes in, in trace {}", context.trace_id());
        let request = handle_request(stopped).with_context(remote(context));
        tokio::spawn(request).await?;
        println!("it has been answered; its tasks are still there\n");
        tokio::time::sleep(Duration::from_millis(200)).await;

        println!("== while they live");
        tasks.flush(SECONDS)?;

        println!("\n== two of the three end");
        stop.send(())?;
        while tasks.snapshot().orphans().count() > 1 {
            tokio::task::yield_now().await;
        }
        tasks.flush(SECONDS)?;

        println!("\n== the service stops, and one is still there");
        tasks.shutdown(SECONDS)?;
        println!("\nlost: {}", tasks.snapshot().loss());
        Ok(())
    })
}

/// Answers, and leaves three tasks behind.
async fn handle_request(mut stopped: watch::Receiver<()>) {
    for name in ["refresh", "notify"] {
        let mut stopped = stopped.clone();
        straggler::task(name).spawn(async move { stopped.changed().await });
    }
    straggler::task("audit").spawn(async move {
        stopped.changed().await.unwrap_or_default();
        std::future::pending::<()>().await;
    });
    tokio::task::yield_now().await;
}

/// What a `traceparent` header would say: a fresh trace that somebody else began.
fn incoming() -> SpanContext {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    SpanContext::new(
        TraceId::from(now),
        SpanId::from(now as u64),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    )
}

/// `tracing-opentelemetry`, or an instrumented server, makes this current by itself.
fn remote(context: SpanContext) -> Context {
    Context::new().with_remote_span_context(context)
}
