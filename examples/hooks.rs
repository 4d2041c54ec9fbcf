//! What do runtime hooks see, and what do the spans add?
//!
//! ```sh
//! cargo run --example hooks
//! ```
//!
//! `Source::Hooks` is the cheapest source and exact about ends; `Source::Both` joins it
//! with the spans. Both need the hooks set on each runtime's builder. Without
//! `--cfg tokio_unstable` tokio has no hooks; then it says so and ends.
#![allow(clippy::print_stdout)] // It is what the example is for.

use std::error::Error;
use straggler::{Kind, Snapshot, Source, Tasks};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tracing_subscriber::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    for source in [Source::Hooks, Source::Both] {
        let (layer, tasks) = match straggler::Builder::new().source(source).build() {
            Ok(built) => built,
            Err(error) => {
                println!("this build can't show it: {error}");
                return Ok(());
            }
        };
        // A program sets one subscriber, for good, with `.init()`.
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || show(&tasks))?;
    }
    Ok(())
}

fn show(tasks: &Tasks) -> Result<(), Box<dyn Error>> {
    let mut builder = Builder::new_current_thread();
    tasks.hook(&mut builder); // Before `build`; hooks of your own replace these.
    let hooked = builder.build()?;
    let snapshot = look(&hooked, tasks)?;

    println!("== Source::{:?}\n", snapshot.source());
    for kind in [Kind::Task, Kind::Blocking, Kind::BlockOn] {
        let of_kind = snapshot.tasks().filter(|task| task.kind() == kind);
        println!("{:<9} {} live", kind.as_str(), of_kind.count());
    }
    let ended: u64 = snapshot.sites().map(|site| site.ended()).sum();
    println!("ended     {ended}");
    if let Some(task) = snapshot.tasks().find(|task| task.kind() == Kind::Task) {
        let known = |count: Option<u64>| count.map_or("unknown".into(), |n| n.to_string());
        println!(
            "task {} from {}: {} polls, wakes {}, wakers {}",
            task.id(),
            task.location(),
            task.polls(),
            known(task.wakes()),
            known(task.wakers()),
        );
    }

    // A runtime that was forgotten is named, not silently empty.
    let forgotten = Builder::new_current_thread().build()?;
    look(&forgotten, tasks)?;
    for diagnosis in tasks.diagnose() {
        println!("note: {diagnosis}");
    }
    println!();
    Ok(())
}

/// Looks while a task waits, a closure blocks and `block_on` runs; one task has ended.
fn look(runtime: &Runtime, tasks: &Tasks) -> Result<Snapshot, Box<dyn Error>> {
    runtime.block_on(async {
        let (go, waits) = oneshot::channel::<()>();
        let (unblock, blocks) = oneshot::channel::<()>();
        let waiting = tokio::spawn(waits);
        let blocking = tokio::task::spawn_blocking(|| blocks.blocking_recv());
        tokio::spawn(async {}).await?;
        let snapshot = tasks.snapshot();
        drop((go, unblock));
        // Each ends as the other end of its channel is gone.
        let _ = (waiting.await?, blocking.await?);
        Ok(snapshot)
    })
}
