//! The one `Beside` of the process, and the tasks that it sees.

use super::Beside;
use super::thread::{self, Joined};
use crate::capture::{CaptureFilter, behind};
use crate::config::Source;
use crate::table::Table;
use crate::{Builder, Error, Tasks};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing_core::Dispatch;
use tracing_core::dispatcher;
use tracing_core::subscriber::NoSubscriber;
use tracing_subscriber::Registry;

/// One table for all threads that joined, as long as the process runs.
pub(crate) struct Process {
    tasks: Tasks,
    dispatch: Dispatch,
    /// While a process has one subscriber at most, tracing asks the *calling thread's* whether a
    /// callsite is of interest, for all threads; one without any then switches tokio's spans off
    /// for the process. Two that see nothing, kept, prevent that.
    _more_than_one: [Dispatch; 2],
}

impl Process {
    fn new() -> Result<Self, Error> {
        let more_than_one = [(); 2].map(|()| Dispatch::new(NoSubscriber::default()));
        let (layer, tasks) = Builder::new()
            .source(Source::Spans)
            .orphan_grace(Duration::ZERO)
            .warn_on_orphans(false)
            .may_miss_wakes()
            .build::<Registry>()?;
        let filter = CaptureFilter {
            source: Source::Spans,
            rules: Arc::clone(&tasks.shared.rules),
        };
        Ok(Self {
            tasks,
            dispatch: Dispatch::new(Beside::new(layer, filter)),
            _more_than_one: more_than_one,
        })
    }

    /// What every thread that joined is seen by.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

/// Made when it is asked for first.
///
/// # Errors
///
/// Those of [`Builder::build`].
pub(crate) fn process() -> Result<&'static Process, Error> {
    static PROCESS: OnceLock<Process> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    if let Some(process) = PROCESS.get() {
        return Ok(process);
    }
    let _making = MAKING.lock();
    if let Some(process) = PROCESS.get() {
        return Ok(process);
    }
    let made = Process::new()?;
    Ok(PROCESS.get_or_init(|| made))
}

/// Lets straggler see what the calling thread spawns, until the result is dropped on whatever
/// thread. Where its subscriber has a straggler layer, that one goes on seeing it.
///
/// # Errors
///
/// Those of [`process`].
pub(crate) fn join() -> Result<Joined, Error> {
    let seen_by_others = dispatcher::get_default(|dispatch| {
        !dispatch.is::<Beside>() && behind::find(dispatch).is_some()
    });
    match seen_by_others {
        true => Ok(Joined::nothing()),
        false => Ok(thread::join(&process()?.dispatch)),
    }
}

/// Joins, and gives the tasks that the calling thread's subscriber sees now.
///
/// # Errors
///
/// Those of [`process`].
pub(crate) fn watched() -> Result<(Tasks, Joined), Error> {
    let joined = join()?;
    let tasks = match dispatcher::get_default(behind::tasks) {
        Some(tasks) => tasks,
        // Within a callback of tracing's own, where the thread has no subscriber.
        None => process()?.tasks().clone(),
    };
    Ok((tasks, joined))
}

/// Whether the calling thread's subscriber tells this table.
pub(crate) fn sees_here(table: &Table) -> bool {
    dispatcher::get_default(|dispatch| behind::is_in(dispatch, table))
}
