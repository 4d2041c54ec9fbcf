//! The incident: 127,843 tasks, and who spawned them.
//!
//! A request handler spawns one task a message, and each sends its result to a channel
//! whose receiver somebody keeps and nobody reads. The handler returns; the tasks stay.
//! Then the fix: the receiver is dropped with the request, and 512 workers do the work.
//!
//! ```sh
//! cargo run --release --example incident              # the leak, then the fix
//! cargo run --release --example incident -- --tasks 5000
//! cargo run --release --example incident -- --fixed   # only the fix
//! ```
//!
//! With `--features otlp` and `OTEL_EXPORTER_OTLP_ENDPOINT` the leak stands in the trace of the
//! request that started it, while it is alive.
#![allow(clippy::print_stdout, clippy::print_stderr)] // It is what the example is for.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use straggler::{Site, Snapshot, Tasks};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, info_span};

const WORKERS: u64 = 512;

/// What somebody keeps of every request: the bug is the receiver in here.
type Kept = Arc<Mutex<Vec<mpsc::Receiver<usize>>>>;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("incident: {wrong}; usage: incident [--tasks N] [--fixed]");
            return ExitCode::from(2);
        }
    };
    let straggler = straggler::Builder::new()
        .orphan_grace(Duration::ZERO)
        .init()
        .expect("nothing else has set a subscriber");
    let tasks = straggler.tasks().clone();
    let runtime = tokio::runtime::Runtime::new().expect("a tokio runtime");
    let (leaked, site) = if options.fixed {
        (0, "-".into())
    } else {
        runtime.block_on(leak(&tasks, options.tasks))
    };
    let after_fix = runtime.block_on(fixed(&tasks, options.tasks));
    println!("incident: leaked={leaked} site={site} after_fix={after_fix}");
    ExitCode::SUCCESS
}

async fn leak(tasks: &Tasks, messages: usize) -> (usize, String) {
    println!("== the leak: a handler that spawns a task a message, and returns\n");
    let kept = Kept::default();
    let request = handle_request(messages, Arc::clone(&kept));
    let request = in_a_trace(request).instrument(info_span!("handle_request"));
    let request = tokio::spawn(request);
    request.await.expect("the handler returns");
    let snapshot = watch(tasks, |snapshot| snapshot.orphans().count() >= messages).await;
    println!("\n{snapshot}");
    let leaked = snapshot.orphans().count();
    let site = (snapshot.sites()).max_by_key(|site| site.orphans());
    let site = site.expect("the leaking site");
    println!("how old they are:\n{}\n", snapshot.ages(site));
    #[cfg(feature = "otlp")]
    if let Err(late) = tasks.flush(Duration::from_secs(10)) {
        eprintln!("incident: {late}");
    }
    let place = site.location().to_string();
    // The fix for a leak like this: let go of the other end.
    kept.lock().expect("not poisoned").clear();
    watch(tasks, |snapshot| snapshot.orphans().count() == 0).await;
    (leaked, place)
}

/// As if the request came with a `traceparent`: a trace that its caller began.
#[cfg(feature = "otlp")]
fn in_a_trace<F: Future>(request: F) -> impl Future<Output = F::Output> {
    use opentelemetry::trace::{FutureExt, SpanContext, SpanId, TraceContextExt};
    use opentelemetry::trace::{TraceFlags, TraceId, TraceState};
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let now = now.unwrap_or_default().as_nanos();
    let (trace, span) = (TraceId::from(now), SpanId::from(now as u64));
    let caller = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
    println!("the request is part of trace {trace}\n");
    request.with_context(opentelemetry::Context::new().with_remote_span_context(caller))
}

#[cfg(not(feature = "otlp"))]
fn in_a_trace<F>(request: F) -> F {
    request
}

async fn handle_request(messages: usize, kept: Kept) {
    let (results, receiver) = mpsc::channel(1);
    results.send(0).await.expect("there is room for one");
    kept.lock().expect("not poisoned").push(receiver);
    for message in 0..messages {
        let results = results.clone();
        tokio::spawn(async move { results.send(message).await });
    }
}

async fn fixed(tasks: &Tasks, messages: usize) -> u64 {
    println!("== the fix: {WORKERS} workers, and results go with the request\n");
    let queue: Arc<Mutex<VecDeque<usize>>> = Arc::new(Mutex::new((0..messages).collect()));
    let mut stops = Vec::new();
    for _ in 0..WORKERS {
        let (stop, stopped) = oneshot::channel::<()>();
        stops.push(stop);
        tokio::spawn(work(Arc::clone(&queue), stopped));
    }
    let busy = |snapshot: &Snapshot| workers(snapshot).is_some_and(|site| site.live() == WORKERS);
    let done = || queue.lock().is_ok_and(|queue| queue.is_empty());
    let snapshot = watch(tasks, |snapshot| busy(snapshot) && done()).await;
    println!("\n{snapshot}");
    let live = workers(&snapshot).map_or(0, Site::live);
    drop(stops);
    let gone = |snapshot: &Snapshot| workers(snapshot).is_some_and(|site| site.live() == 0);
    let snapshot = watch(tasks, gone).await;
    if let Some(site) = workers(&snapshot) {
        println!("how long the workers lived:\n{}\n", site.lifetime());
    }
    live
}

fn workers(snapshot: &Snapshot) -> Option<&Site> {
    snapshot.sites().find(|site| site.spawned() == WORKERS)
}

async fn work(queue: Arc<Mutex<VecDeque<usize>>>, stopped: oneshot::Receiver<()>) {
    loop {
        let message = queue.lock().expect("not poisoned").pop_front();
        match message {
            Some(_) => tokio::task::yield_now().await,
            None => break,
        }
    }
    if stopped.await.is_ok() {
        unreachable!("the other end is only ever dropped");
    }
}

/// A line a second, until what the snapshot shows is what we wait for.
async fn watch(tasks: &Tasks, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let mut line = tokio::time::interval(Duration::from_secs(1));
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            biased; // The first tick is at once: even a fast machine shows a line.
            _ = line.tick() => {
                let snapshot = tasks.snapshot();
                println!(
                    "live={} orphans={} spawned={} ended={}",
                    snapshot.tasks().count(),
                    snapshot.orphans().count(),
                    snapshot.sites().map(Site::spawned).sum::<u64>(),
                    snapshot.sites().map(Site::ended).sum::<u64>(),
                );
            }
            _ = look.tick() => {
                let snapshot = tasks.snapshot();
                if done(&snapshot) {
                    return snapshot;
                }
            }
        }
    }
}

struct Options {
    tasks: usize,
    fixed: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            tasks: 127_843,
            fixed: false,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--fixed" => options.fixed = true,
                "--tasks" => {
                    let number = args.next().ok_or("--tasks needs a number")?;
                    let parsed = number.replace(['_', ','], "").parse();
                    options.tasks = (parsed.ok().filter(|&n| n > 0))
                        .ok_or(format!("--tasks {number} is not a number above 0"))?;
                }
                other => return Err(format!("unknown option {other}")),
            }
        }
        Ok(options)
    }
}
