//! What can a snapshot be asked? Who is oldest, which spawn site grows, where one task
//! comes from, and how much of it all is certain.
//!
//! ```sh
//! cargo run --example query
//! ```
//!
//! Without `--cfg tokio_unstable` tokio shows no tasks: the answers are empty, and the
//! last one says why.
#![allow(clippy::print_stdout)] // It is what the example is for.

use std::future::pending;
use straggler::{Site, Snapshot};
use tokio::task::JoinSet;
use tracing::{Instrument, info_span};

#[tokio::main]
async fn main() -> Result<(), straggler::Error> {
    let straggler = straggler::init()?;
    let tasks = straggler.tasks();

    let _cache = tokio::spawn(pending::<()>());
    let mut sessions = JoinSet::new();
    open_sessions(&mut sessions, 3).await;
    let before = tasks.snapshot();
    open_sessions(&mut sessions, 40).await;
    let now = tasks.snapshot();

    oldest(&now);
    growth(&before, &now);
    lineage(&now);
    certainty(&now);
    Ok(())
}

/// A session is a task, and has another that sends its heartbeats.
async fn open_sessions(sessions: &mut JoinSet<()>, count: usize) {
    let (opened, mut all_open) = tokio::sync::mpsc::channel::<()>(1);
    for _ in 0..count {
        let opened = opened.clone();
        let session = async move {
            tokio::spawn(pending::<()>());
            drop(opened);
            pending().await
        };
        sessions.spawn(session.instrument(info_span!("session")));
    }
    drop(opened);
    all_open.recv().await;
}

fn oldest(snapshot: &Snapshot) {
    let tasks = snapshot.tasks().filter(|task| !task.is_daemon());
    if let Some(task) = tasks.max_by_key(|task| task.age()) {
        let (id, place, age) = (task.id(), task.location(), task.age());
        let state = task.state().map_or("unknown", |state| state.as_str());
        let polls = task.polls();
        println!("oldest: task {id} from {place}, {age:?} old, {state}, polled {polls} times");
    }
}

fn growth(before: &Snapshot, now: &Snapshot) {
    for site in now.sites() {
        let is_same = |other: &&Site| {
            (other.location(), other.kind(), other.name())
                == (site.location(), site.kind(), site.name())
        };
        let earlier = before.sites().find(is_same).map_or(0, Site::live);
        let (live, place) = (site.live(), site.location());
        if live > earlier {
            println!("grows:  {place} from {earlier} to {live} live");
        }
    }
}

fn lineage(snapshot: &Snapshot) {
    let Some(task) = snapshot.tasks().last() else {
        return;
    };
    println!("task {} was spawned at", task.id());
    for site in snapshot.lineage(task) {
        println!("        {}", site.location());
    }
    if let Some(span) = task.parent().and_then(|parent| parent.span()) {
        println!("        in span {} ({})", span.name(), span.target());
    }
}

fn certainty(snapshot: &Snapshot) {
    println!("lost:   {}", snapshot.loss());
    for diagnosis in snapshot.diagnoses() {
        println!("unseen: {diagnosis}");
    }
}
