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

use axum::body::Bytes;
use axum::routing::post;
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
use prost::Message;
use std::error::Error;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use straggler::otlp::Otlp;
use tokio::sync::watch;

const SECONDS: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let mut otlp = Otlp::new();
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_none() {
        otlp = otlp.endpoint(&receiver()?);
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

/// A receiver that prints what it gets, on a thread of its own that straggler doesn't see.
fn receiver() -> Result<String, Box<dyn Error>> {
    let (address, is_at) = mpsc::channel();
    let serve = move || -> Result<(), Box<dyn Error>> {
        let unseen = tracing::subscriber::NoSubscriber::default();
        let _unseen = tracing::subscriber::set_default(unseen);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
            address.send(listener.local_addr()?)?;
            let app = axum::Router::new()
                .route("/v1/traces", post(traces))
                .route("/v1/metrics", post(metrics));
            Ok(axum::serve(listener, app).await?)
        })
    };
    std::thread::spawn(move || serve().expect("a receiver on loopback"));
    Ok(format!("http://{}", is_at.recv()?))
}

async fn traces(body: Bytes) {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return println!("   no traces");
    };
    let spans = (request.resource_spans.iter())
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans);
    for span in spans {
        let trace: String = span
            .trace_id
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let length = span.end_time_unix_nano - span.start_time_unix_nano;
        let length = Duration::from_nanos(length);
        let links = span.links.len();
        println!(
            "   span   {:<16} {length:>9.3?}  links {links}  trace {trace}",
            span.name
        );
    }
}

async fn metrics(body: Bytes) {
    let Ok(request) = ExportMetricsServiceRequest::decode(body) else {
        return println!("   no metrics");
    };
    let metrics = (request.resource_metrics.iter())
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics);
    for metric in metrics {
        match &metric.data {
            Some(Data::Sum(sum)) if metric.name.starts_with("tokio.task.orphan") => {
                let values = sum
                    .data_points
                    .iter()
                    .filter_map(|point| match point.value {
                        Some(Value::AsInt(value)) => Some(value),
                        _ => None,
                    });
                println!("   metric {:<34} {}", metric.name, values.sum::<i64>());
            }
            Some(Data::Histogram(histogram)) => {
                let count: u64 = histogram.data_points.iter().map(|point| point.count).sum();
                println!("   metric {:<34} {count} values", metric.name);
            }
            _ => {}
        }
    }
}
