//! An axum service, and the processor time that each request takes of it.

use crate::load::{LoadJob, Loader};
use crate::sample::{Amount, Job, Sample};
use crate::shared::work::Spawn;
use crate::shared::{Failure, process};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tracing::{Instrument, info_span};

const CONNECTIONS: usize = 32;

pub(crate) fn measure<S: Spawn>(job: &Job, runtime: &Runtime, spawn: S) -> Result<Sample, Failure> {
    let Amount::Millis(millis) = job.amount else {
        return Err("a time to serve for was expected, not a number of requests".into());
    };
    let router = Router::new()
        .route("/orders/{order}", get(order::<S>))
        .layer(middleware::from_fn(in_span))
        .with_state(spawn);
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    runtime.spawn(async move { axum::serve(listener, router).await });

    let loader = Loader::start(&LoadJob {
        address,
        connections: CONNECTIONS,
        warm: Duration::from_millis(millis / 3),
        lasts: Duration::from_millis(millis),
    })?;
    let cpu = process::cpu_time();
    let load = loader.measure()?;
    let cpu = process::cpu_time() - cpu;
    Ok(Sample {
        ops: load.requests,
        wall_nanos: load.wall_nanos,
        cpu_nanos: cpu.as_nanos() as u64,
        ..Sample::default()
    })
}

/// The span that a service has round each request.
async fn in_span(request: Request, next: Next) -> Response {
    let span = info_span!("request", method = %request.method(), path = request.uri().path());
    next.run(request).instrument(span).await
}

/// Spawns a task and waits for it, as handlers do for what they don't do themselves.
async fn order<S: Spawn>(State(spawn): State<S>, Path(order): Path<u64>) -> String {
    let looks_up = async move { format!("{{\"order\":{order},\"state\":\"shipped\"}}") };
    (spawn.spawn(looks_up).await).expect("a look-up doesn't panic")
}
