//! A receiver of OTLP over HTTP that prints what it gets: what two examples have for a collector.
#![allow(unreachable_pub)]

use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
use prost::Message;
use std::error::Error;
use std::sync::mpsc;
use std::time::Duration;

/// Starts it on a thread of its own that straggler doesn't see, and gives its address.
pub fn start() -> Result<String, Box<dyn Error>> {
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
            Some(Data::Sum(sum)) if is_shown(&metric.name) => {
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

fn is_shown(name: &str) -> bool {
    name.starts_with("tokio.task.orphan") || name.starts_with("shop.")
}
