//! How long a loop that spawns or polls is held up at most.

use crate::shared::work::{Plain, Spawn};
use crate::shared::{Failure, pin};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;
use tokio::runtime::Builder;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Loop {
    /// Spawns a task and joins it.
    Spawns,
    /// Is polled again and again.
    Polls,
}

/// How long the turns of the loop took, in nanoseconds. The machine itself holds it up now and
/// then, so this means something beside the same of a quiet time only.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stalls {
    pub(crate) turns: u64,
    /// This and the next are lower bounds, up to a sixteenth too low.
    pub(crate) median: u64,
    pub(crate) p999: u64,
    pub(crate) longest: u64,
}

/// Runs the loop on a thread and a runtime of its own for as long as `work` takes. Both are bound
/// to a core each: what holds the loop up is then not that the two took turns.
pub(crate) fn during(
    turns: Loop,
    hooked: &dyn Fn(&mut Builder),
    work: impl FnOnce(),
) -> Result<Stalls, Failure> {
    let mut builder = Builder::new_current_thread();
    hooked(&mut builder);
    let runtime = builder.build()?;
    let done = Arc::new(AtomicBool::new(false));
    let (running, runs) = mpsc::channel();
    let until = Arc::clone(&done);
    let thread = std::thread::spawn(move || {
        pin::this_thread(1);
        let looping = async move {
            running.send(()).expect("who asked waits for it");
            record(turns, &until).await
        };
        // A spawned task, as `block_on` is none to the hooks.
        let looping = runtime.spawn(looping);
        runtime.block_on(looping).expect("the loop doesn't panic")
    });
    pin::this_thread(0);
    runs.recv()?;
    work();
    done.store(true, Ordering::Relaxed);
    let recorded = thread.join().expect("the loop doesn't panic");
    Ok(recorded.stalls())
}

async fn record(turns: Loop, until: &AtomicBool) -> Recorded {
    let mut recorded = Recorded::new();
    let mut began = Instant::now();
    while !until.load(Ordering::Relaxed) {
        match turns {
            Loop::Spawns => (Plain.spawn(async {}).await).expect("it doesn't panic"),
            Loop::Polls => tokio::task::yield_now().await,
        }
        let now = Instant::now();
        recorded.add((now - began).as_nanos() as u64);
        began = now;
    }
    recorded
}

/// Counts in sixteen buckets for each power of two, so that the time it runs for is no matter.
struct Recorded {
    counts: Vec<u64>,
    longest: u64,
}

impl Recorded {
    fn new() -> Self {
        Self {
            counts: vec![0; 64 * 16],
            longest: 0,
        }
    }

    fn add(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.longest = self.longest.max(nanos);
    }

    fn stalls(&self) -> Stalls {
        let turns = self.counts.iter().sum();
        Stalls {
            turns,
            median: self.quantile(turns, 0.5),
            p999: self.quantile(turns, 0.999),
            longest: self.longest,
        }
    }

    fn quantile(&self, turns: u64, part: f64) -> u64 {
        let rank = (turns as f64 * part) as u64;
        let mut below = 0;
        let reaches = |&count: &u64| {
            below += count;
            below > rank
        };
        (self.counts.iter().position(reaches)).map_or(self.longest, lowest)
    }
}

fn bucket(nanos: u64) -> usize {
    match nanos.checked_ilog2() {
        None | Some(0..=3) => nanos as usize,
        Some(power) => (power as usize - 3) * 16 + ((nanos >> (power - 4)) & 15) as usize,
    }
}

/// The least that falls into a bucket.
fn lowest(bucket: usize) -> u64 {
    match bucket / 16 {
        0 => bucket as u64,
        power => (16 + bucket as u64 % 16) << (power - 1),
    }
}
