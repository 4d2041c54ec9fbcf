//! One process, one figure.

use crate::sample::{Amount, Job, Sample};
use crate::shared::work::{Plain, Spawn};
use crate::shared::{Failure, pin, process};
use crate::variant::{Metered, Variant};
use crate::workload::{self, Workload};
use crate::{memory, service};
use std::time::{Duration, Instant};
use straggler::Tasks;
use tokio::runtime::{Builder, Runtime};

/// Does the job and prints a [`Sample`] as one line of JSON.
pub(crate) fn run(job: Job) -> Result<(), Failure> {
    let tasks = job.variant.install(job.sink.as_deref())?;
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(job.threads).enable_all();
    pin::pin(&mut builder);
    job.variant.hook(tasks.as_ref(), &mut builder);
    let runtime = builder.build()?;
    let mut sample = match job.variant {
        Variant::Metrics => measure(&job, &runtime, Metered(tokio_metrics::TaskMonitor::new())),
        _ => measure(&job, &runtime, Plain),
    }?;
    if let Some(tasks) = &tasks {
        sample.lost = lost(tasks)?;
    }
    println!("{}", serde_json::to_string(&sample)?);
    // To take down a million tasks one by one is no part of the figure.
    std::process::exit(0);
}

fn measure<S: Spawn>(job: &Job, runtime: &Runtime, spawn: S) -> Result<Sample, Failure> {
    match job.workload {
        Workload::Idle200k | Workload::Idle235k | Workload::Idle1m => idle(job, runtime, &spawn),
        Workload::Axum => service::measure(job, runtime, spawn),
        Workload::Churn | Workload::Yield | Workload::PingPong | Workload::Spans => {
            Ok(timed(job, runtime, &spawn))
        }
    }
}

fn timed<S: Spawn>(job: &Job, runtime: &Runtime, spawn: &S) -> Sample {
    /// A warm-up takes so long at least, and tells how long an operation takes.
    const WARM: Duration = Duration::from_millis(50);
    let run = |ops| once(job, runtime, spawn, ops);
    let ops = match job.amount {
        // Under valgrind time says nothing, and the warm-up is the same for every number.
        Amount::Ops(ops) => {
            run(1_000);
            ops
        }
        Amount::Millis(millis) => {
            let mut ops = 200;
            loop {
                let warmed = run(ops);
                let spent = Duration::from_nanos(warmed.wall_nanos);
                if spent >= WARM {
                    let wanted = Duration::from_millis(millis);
                    break (ops as f64 * wanted.as_secs_f64() / spent.as_secs_f64()) as u64;
                }
                ops *= 2;
            }
        }
    };
    run(ops)
}

fn once<S: Spawn>(job: &Job, runtime: &Runtime, spawn: &S, ops: u64) -> Sample {
    let cpu = process::cpu_time();
    let began = Instant::now();
    let driven = workload::drive(job.workload, spawn, job.threads as u64, ops);
    let ops = runtime.block_on(driven);
    let wall = began.elapsed();
    let cpu = process::cpu_time() - cpu;
    Sample {
        ops,
        wall_nanos: wall.as_nanos() as u64,
        cpu_nanos: cpu.as_nanos() as u64,
        ..Sample::default()
    }
}

fn idle<S: Spawn>(job: &Job, runtime: &Runtime, spawn: &S) -> Result<Sample, Failure> {
    let Amount::Ops(parked) = job.amount else {
        return Err("a number of tasks to park was expected, not a time".into());
    };
    // What is there once is no part of a task.
    once(job, runtime, spawn, 100);
    let before = memory::resident()?;
    let sample = once(job, runtime, spawn, parked);
    let after = memory::resident()?;
    Ok(Sample {
        bytes: Some(after - before),
        ..sample
    })
}

/// What straggler missed. A figure for a straggler that is blind would be worse than none.
fn lost(tasks: &Tasks) -> Result<Option<String>, Failure> {
    let snapshot = tasks.snapshot();
    let spawned: u64 = snapshot.sites().map(|site| site.spawned()).sum();
    if spawned < 2 {
        return Err(format!("straggler saw {spawned} tasks: {snapshot}").into());
    }
    let loss = snapshot.loss();
    Ok((!loss.is_empty()).then(|| loss.to_string()))
}
