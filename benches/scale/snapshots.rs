//! What a snapshot takes: of who asks for it, and of who spawns and polls meanwhile.

use crate::shared::Failure;
use crate::stalls::{Loop, Stalls, during};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::{Duration, Instant};
use straggler::{Snapshot, Tasks};
use tokio::runtime::Builder;

/// How many are taken one after the other. The first one finds no memory to use again.
const TAKEN: usize = 7;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshots {
    pub(crate) live: u64,
    pub(crate) orphans: usize,
    /// What straggler couldn't see, if anything.
    pub(crate) lost: Option<String>,
    pub(crate) taken_nanos: Vec<u64>,
    pub(crate) dropped_nanos: Vec<u64>,
    /// Each query by name, in nanoseconds.
    pub(crate) queries: Vec<Query>,
    pub(crate) spawner: Beside,
    pub(crate) poller: Beside,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) nanos: f64,
}

/// The same loop for the same time: beside a thread that is as busy without a snapshot, and beside
/// one that takes snapshots.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Beside {
    pub(crate) quiet: Stalls,
    pub(crate) snapshots: Stalls,
}

/// With so many tasks live. The loops that may stall run on a runtime of their own.
pub(crate) fn measure(
    tasks: &Tasks,
    live: u64,
    hooked: &dyn Fn(&mut Builder),
) -> Result<Snapshots, Failure> {
    let (mut taken_nanos, mut dropped_nanos) = (Vec::new(), Vec::new());
    for _ in 0..TAKEN {
        let (snapshot, taken) = timed(|| tasks.snapshot());
        let ((), dropped) = timed(|| drop(snapshot));
        taken_nanos.push(taken.as_nanos() as u64);
        dropped_nanos.push(dropped.as_nanos() as u64);
    }
    let snapshot = tasks.snapshot();
    let loss = snapshot.loss();
    let lost = (!loss.is_empty()).then(|| loss.to_string());
    let seen = snapshot.tasks().len() as u64;
    if seen < live {
        return Err(format!("straggler sees {seen} of {live} tasks; lost: {loss}").into());
    }
    Ok(Snapshots {
        live: seen,
        orphans: snapshot.orphans().count(),
        lost,
        taken_nanos,
        dropped_nanos,
        queries: queries(&snapshot),
        spawner: beside(tasks, Loop::Spawns, hooked)?,
        poller: beside(tasks, Loop::Polls, hooked)?,
    })
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}

fn queries(snapshot: &Snapshot) -> Vec<Query> {
    /// Those that are asked for a single task are too fast to be timed once.
    const ASKED: usize = 1_000;
    let step = (snapshot.tasks().len() / ASKED).max(1);
    let some: Vec<_> = snapshot.tasks().step_by(step).collect();
    let mut queries = Vec::new();
    let mut add = |name: &str, asked: usize, work: &dyn Fn()| {
        let ((), time) = timed(work);
        queries.push(Query {
            name: name.to_owned(),
            nanos: time.as_nanos() as f64 / asked as f64,
        });
    };
    add("tasks(), all", 1, &|| {
        black_box(snapshot.tasks().map(|task| task.polls()).sum::<u64>());
    });
    add("orphans(), all", 1, &|| {
        black_box(snapshot.orphans().count());
    });
    add("sites(), all", 1, &|| {
        black_box(snapshot.sites().map(|site| site.spawned()).sum::<u64>());
    });
    add("task(id)", some.len(), &|| {
        for task in &some {
            black_box(snapshot.task(task.id()));
        }
    });
    add("site_of(task)", some.len(), &|| {
        for task in &some {
            black_box(snapshot.site_of(task));
        }
    });
    add("lineage(task), all", some.len(), &|| {
        for task in &some {
            black_box(snapshot.lineage(task).count());
        }
    });
    add("Display", 1, &|| {
        black_box(snapshot.to_string());
    });
    queries
}

fn beside(tasks: &Tasks, work: Loop, hooked: &dyn Fn(&mut Builder)) -> Result<Beside, Failure> {
    let mut lasted = Duration::ZERO;
    let snapshots = during(work, hooked, || {
        let began = Instant::now();
        for _ in 0..TAKEN {
            drop(tasks.snapshot());
        }
        lasted = began.elapsed();
    })?;
    // As busy as with snapshots: a core that sleeps beside the loop's would be another machine.
    let quiet = during(work, hooked, || {
        let began = Instant::now();
        while began.elapsed() < lasted {
            std::hint::spin_loop();
        }
    })?;
    Ok(Beside { quiet, snapshots })
}
