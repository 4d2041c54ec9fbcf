//! What do runtime hooks see, how are they set, and what do the spans add?
//!
//! ```sh
//! cargo run --example hooks
//! cargo run --example hooks -- --both     # with tokio's spans beside them
//! ```
//!
//! `straggler::runtime()` gives a runtime's builder that has the hooks. A program with hooks of
//! its own calls straggler's from them. Without `--cfg tokio_unstable` tokio has no hooks; then
//! it says so and ends.
#![allow(clippy::print_stdout)] // It is what the example is for.

use std::error::Error;
use straggler::{Builder, Kind, Snapshot, Source, Tasks};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

fn main() -> Result<(), Box<dyn Error>> {
    let started = match std::env::args().any(|arg| arg == "--both") {
        true => Builder::new().source(Source::Both).runtime(),
        false => straggler::runtime(),
    };
    let (mut builder, straggler) = match started {
        Ok(started) => started,
        Err(error) => {
            println!("this build can't show it: {error}");
            return Ok(());
        }
    };
    let tasks = straggler.tasks();
    let runtime = builder.build()?;
    show(&look(&runtime, tasks)?);

    #[cfg(tokio_unstable)]
    beside_hooks_of_its_own(tasks)?;

    // With hooks alone a runtime that was forgotten is named, not silently empty.
    let forgotten = tokio::runtime::Builder::new_current_thread().build()?;
    look(&forgotten, tasks)?;
    for diagnosis in tasks.diagnose() {
        println!("note: {diagnosis}");
    }
    Ok(())
}

/// tokio keeps one hook of each kind, so the program's own call straggler's.
#[cfg(tokio_unstable)]
fn beside_hooks_of_its_own(tasks: &Tasks) -> Result<(), Box<dyn Error>> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    let spawned = Arc::new(AtomicU64::new(0));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.on_task_spawn({
        let (hooks, spawned) = (tasks.hooks(), Arc::clone(&spawned));
        move |meta| {
            hooks.on_task_spawn(meta);
            spawned.fetch_add(1, Ordering::Relaxed);
        }
    });
    builder.on_before_task_poll({
        let hooks = tasks.hooks();
        move |meta| hooks.on_before_task_poll(meta)
    });
    builder.on_after_task_poll({
        let hooks = tasks.hooks();
        move |meta| hooks.on_after_task_poll(meta)
    });
    builder.on_task_terminate({
        let hooks = tasks.hooks();
        move |meta| hooks.on_task_terminate(meta)
    });
    look(&builder.build()?, tasks)?;
    let counted = spawned.load(Ordering::Relaxed);
    println!("a hook of its own counted {counted} spawns, and straggler saw them too\n");
    Ok(())
}

fn show(snapshot: &Snapshot) {
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
            "task {} from {}: {} polls, wakes {}, wakers {}\n",
            task.id(),
            task.location(),
            task.polls(),
            known(task.wakes()),
            known(task.wakers()),
        );
    }
}

/// Looks while a task waits, a closure blocks and `block_on` runs; one task has ended.
fn look(runtime: &Runtime, tasks: &Tasks) -> Result<Snapshot, Box<dyn Error>> {
    runtime.block_on(async {
        let (go, waits) = oneshot::channel::<()>();
        let (unblock, blocks) = oneshot::channel::<()>();
        let waiting = tokio::spawn(waits);
        let blocking = tokio::task::spawn_blocking(|| blocks.blocking_recv());
        let ended = tokio::spawn(async {});
        let id = ended.id();
        ended.await?;
        // On a worker the hook tells of an end just after the handle was woken.
        while tasks.snapshot().task(id).is_some() {
            tokio::task::yield_now().await;
        }
        let snapshot = tasks.snapshot();
        drop((go, unblock));
        // Each ends as the other end of its channel is gone.
        let _ = (waiting.await?, blocking.await?);
        Ok(snapshot)
    })
}
