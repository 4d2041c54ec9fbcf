//! One process: fills up level by level, and looks at the top.

use crate::arguments::{Job, Watched};
use crate::shared::work::{self, Plain};
use crate::shared::{Failure, pin, process};
use crate::snapshots::{self, Snapshots};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use straggler::{Source, Tasks};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const WORKERS: u64 = 2;

/// What a process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) levels: Vec<Level>,
    /// At the last level, with straggler.
    pub(crate) snapshots: Option<Snapshots>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Level {
    pub(crate) live: u64,
    /// Of a hundred tasks for each worker that yield by turns.
    pub(crate) polls: Cost,
    /// Of tasks that are spawned and joined, one after the other on each worker.
    pub(crate) tasks: Cost,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) ops: u64,
    pub(crate) wall_nanos: u64,
    pub(crate) cpu_nanos: u64,
}

#[derive(Clone, Copy)]
enum Work {
    Park,
    Polls,
    Tasks,
}

pub(crate) fn run(job: &Job) -> Result<(), Failure> {
    let tasks = install(job.watched)?;
    let hooked = |builder: &mut Builder| {
        if let Some(tasks) = &tasks {
            tasks.hook(builder);
        }
    };
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS as usize);
    pin::pin(&mut builder);
    hooked(&mut builder);
    let runtime = builder.build()?;

    let mut levels = Vec::new();
    let mut live = 0;
    for &level in &job.levels {
        live += once(&runtime, Work::Park, level - live).ops;
        levels.push(Level {
            live,
            polls: timed(&runtime, Work::Polls, job.millis),
            tasks: timed(&runtime, Work::Tasks, job.millis),
        });
    }
    let snapshots = match &tasks {
        Some(tasks) => Some(snapshots::measure(tasks, live, &hooked)?),
        None => None,
    };
    let answer = Answer { levels, snapshots };
    println!("{}", serde_json::to_string(&answer)?);
    // To take down a million tasks one by one is no part of it.
    std::process::exit(0);
}

fn install(watched: Watched) -> Result<Option<Tasks>, Failure> {
    let source = match watched {
        Watched::Bare => return Ok(None),
        Watched::Spans => Source::Spans,
        Watched::Hooks => Source::Hooks,
    };
    let (layer, tasks) = straggler::Builder::new()
        .source(source)
        // Nothing is to be refused.
        .max_live_tasks(1 << 21)
        // Its looks at a million tasks would fall into some measurements and not into others.
        .warn_on_orphans(false)
        // Whether the parked are orphans is not to depend on how long the last level took.
        .orphan_grace(Duration::ZERO)
        .build::<Registry>()?;
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(Some(tasks))
}

/// As often as it takes so long, after a warm-up.
fn timed(runtime: &Runtime, work: Work, millis: u64) -> Cost {
    let lasts = Duration::from_millis(millis);
    let mut ops = 400;
    loop {
        let spent = Duration::from_nanos(once(runtime, work, ops).wall_nanos);
        if spent >= lasts / 5 {
            let ops = ops as f64 * lasts.as_secs_f64() / spent.as_secs_f64();
            return once(runtime, work, ops as u64);
        }
        ops *= 2;
    }
}

/// One driver for each worker, as spawned tasks.
fn once(runtime: &Runtime, work: Work, ops: u64) -> Cost {
    let cpu = process::cpu_time();
    let began = Instant::now();
    let drivers: Vec<_> = (0..WORKERS)
        .map(|_| {
            runtime.spawn(async move {
                match work {
                    Work::Park => work::park(&Plain, ops / WORKERS).await,
                    Work::Polls => work::yields(&Plain, ops / WORKERS).await,
                    Work::Tasks => work::churn(&Plain, ops / WORKERS).await,
                }
            })
        })
        .collect();
    let join = |driver: JoinHandle<u64>| runtime.block_on(driver).expect("a driver doesn't panic");
    let ops = drivers.into_iter().map(join).sum();
    Cost {
        ops,
        wall_nanos: began.elapsed().as_nanos() as u64,
        cpu_nanos: (process::cpu_time() - cpu).as_nanos() as u64,
    }
}
