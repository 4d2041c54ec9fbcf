//! In a program that has OpenTelemetry providers of its own: orphans' spans go through its
//! tracer provider, and straggler's metrics with its own, in one request.
//!
//! ```sh
//! cargo run --features otlp --example own_pipeline
//! ```
#![allow(clippy::print_stdout)] // It is what the example is for.

mod receiver;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{FutureExt, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::error::Error;
use std::time::Duration;
use straggler::otlp::{MetricExporter, Otlp};

fn main() -> Result<(), Box<dyn Error>> {
    // What the program has already. Its spans are printed here; yours go wherever they go.
    let traces = SdkTracerProvider::builder()
        .with_simple_exporter(Printed)
        .build();

    // straggler sends its metrics by OTLP, and hands its spans over.
    let otlp = Otlp::new()
        .endpoint(&receiver::start()?)
        .tracer_provider(traces.clone());
    let straggler = straggler::Builder::new()
        .orphan_grace(Duration::from_millis(100))
        .otlp(otlp)
        .init()?;
    let tasks = straggler.tasks();

    // In the place of an `opentelemetry_otlp::MetricExporter`.
    let exporter = MetricExporter::new(tasks)?;
    let metrics = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter).build())
        .build();
    let orders = metrics.meter("shop").u64_counter("shop.orders").build();

    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let request = traces.tracer("shop").start("GET /orders");
        let around = opentelemetry::Context::current_with_span(request);
        let handler = async {
            straggler::task("refresh").spawn(std::future::pending::<()>());
        };
        tokio::spawn(handler.with_context(around)).await?;
        orders.add(1, &[]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        println!("== the request has been answered, and its task is still there");
        tasks.flush(Duration::from_secs(10))?;
        println!("== the program's own reader sends");
        metrics.force_flush()?;
        println!("== the service stops");
        // The provider first: what straggler doesn't send any more is an error for it.
        metrics.shutdown()?;
        tasks.shutdown(Duration::from_secs(10))?;
        traces.shutdown()?;
        Ok(())
    })
}

/// Stands for the exporter that a program has.
#[derive(Debug)]
struct Printed;

impl SpanExporter for Printed {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        for span in batch {
            let trace = span.span_context.trace_id();
            println!("   span   {:<34} in trace {trace}", span.name);
        }
        Ok(())
    }
}
