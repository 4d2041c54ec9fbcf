//! Runs a program under a watch, and compares what is reported with what stays.

use crate::program::{Cast, Clean, Kept, Kernel, Remains, Run, Stay};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use straggler::testing::Remainder;
use straggler::{Parent, Task};
use tokio::runtime::{Builder, Handle, Runtime};

/// Where tasks end, they end within this, on a loaded machine too. No run waits so long without
/// need: a watch is done as soon as nothing is left.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// A leak that goes by chance is not waited for as long: many runs have none.
const FLAKY_WITHIN: Duration = Duration::from_millis(500);
/// A watch waits this long for tasks that never end.
const SETTLE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    CurrentThread,
    MultiThread,
}

pub const FLAVOURS: [Flavour; 2] = [Flavour::CurrentThread, Flavour::MultiThread];

impl Flavour {
    fn runtime(self) -> Runtime {
        let mut builder = match self {
            Self::CurrentThread => Builder::new_current_thread(),
            Self::MultiThread => Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(2).enable_all().build();
        runtime.expect("a runtime")
    }
}

/// What is run of a kernel, or that it is a program without a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Leaks { flaky: bool },
    Fixed,
    DropsPeer,
    Clean(Remains),
}

/// One program, and what is expected of it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub id: &'static str,
    pub part: Part,
    run: Run,
}

impl Program {
    /// The leak, its fix, and the leak that is over when its peer is dropped.
    pub fn of_kernel(kernel: &Kernel) -> Vec<Self> {
        let program = |part, run| Self {
            id: kernel.id,
            part,
            run,
        };
        let flaky = kernel.flaky;
        let mut programs = vec![
            program(Part::Leaks { flaky }, kernel.leaks),
            program(Part::Fixed, kernel.fixed),
        ];
        if kernel.ends_by_drop {
            programs.push(program(Part::DropsPeer, kernel.leaks));
        }
        programs
    }

    pub fn of_clean(clean: &Clean) -> Self {
        Self {
            id: clean.id,
            part: Part::Clean(clean.remains),
            run: clean.run,
        }
    }

    /// Whether a right report names the tasks that stay. All others name none.
    fn has_some(&self) -> bool {
        matches!(self.part, Part::Leaks { .. } | Part::Clean(Remains::Alive))
    }

    fn settle(&self) -> Duration {
        match self.has_some() {
            true => SETTLE,
            false => ENDS_WITHIN,
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Leaks { .. } => "leaks",
            Part::Fixed => "fixed",
            Part::DropsPeer => "drops the peer",
            Part::Clean(_) => "clean",
        };
        write!(f, "{} ({part})", self.id)
    }
}

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Places of tasks that stay and were not reported.
    pub missed: Vec<String>,
    /// Places of tasks that were reported and don't stay.
    pub wrong: Vec<String>,
    /// Words of harm, said of a program without any, and what was not said of its tasks.
    pub misspoken: Vec<String>,
    /// Why tasks may have been missed.
    pub inconclusive: Option<String>,
    /// Why there is nothing to judge: a panic, or a body that doesn't return.
    pub broken: Option<String>,
    /// The report.
    pub message: String,
}

impl Outcome {
    fn broken(why: String) -> Self {
        Self {
            broken: Some(why),
            ..Self::default()
        }
    }

    /// Every task that stays was reported.
    pub fn is_reported(&self) -> bool {
        self.broken.is_none() && self.missed.is_empty()
    }

    /// Reports that should not have been made.
    pub fn false_reports(&self) -> usize {
        self.wrong.len() + usize::from(!self.misspoken.is_empty())
    }

    /// As it must be, in every point. A leak that goes by chance may not have been there.
    pub fn is_right(&self, program: Program) -> bool {
        let may_miss = program.part == Part::Leaks { flaky: true };
        self.broken.is_none()
            && (may_miss || self.is_reported())
            && self.false_reports() == 0
            && self.inconclusive.is_none()
    }
}

impl fmt::Display for Outcome {
    /// What is wrong with it, and the report.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.broken {
            return write!(f, "could not be judged: {why}");
        }
        for (what, places) in [
            ("not reported", &self.missed),
            ("reported, and doesn't stay", &self.wrong),
            ("said of a program without a leak", &self.misspoken),
        ] {
            if !places.is_empty() {
                write!(f, "{what}: {}; ", places.join(", "))?;
            }
        }
        if let Some(why) = &self.inconclusive {
            write!(f, "inconclusive: {why}; ")?;
        }
        write!(f, "the report:\n{}", self.message)
    }
}

/// Runs a program in a thread and a runtime of its own.
pub fn run(program: Program, flavour: Flavour) -> Outcome {
    let thread = thread::Builder::new().name(program.id.into());
    let running = thread.spawn(move || watched(program, flavour));
    let ended = running.expect("a thread").join();
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Outcome::broken(format!(
            "it panicked: {}",
            text.unwrap_or("not with a text")
        ))
    })
}

/// Runs many, some at once, and hands over what each gave as it comes.
pub fn run_all(
    runs: &[(Program, Flavour)],
    at_once: usize,
    each: impl Fn(Program, Flavour, Outcome) + Sync,
) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..at_once.min(runs.len()) {
            scope.spawn(|| {
                while let Some(&(program, flavour)) = runs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    each(program, flavour, run(program, flavour));
                }
            });
        }
    });
}

fn watched(program: Program, flavour: Flavour) -> Outcome {
    let runtime = flavour.runtime();
    let (outcome, kept) = runtime.block_on(async {
        let watch = straggler::testing::watch().settle(program.settle());
        let cast = Cast::default();
        let body = tokio::time::timeout(ENDS_WITHIN, (program.run)(cast.clone()));
        let Ok(mut kept) = body.await else {
            let why = format!("its body didn't return within {ENDS_WITHIN:?}");
            return (Outcome::broken(why), Kept::nothing());
        };
        if program.has_some() || program.part == Part::DropsPeer {
            only_those_that_stay(&cast, program.part).await;
        }
        if program.part == Part::DropsPeer {
            kept = Kept::nothing();
        }
        let remainder = watch.stragglers().await;
        (judge(program, &cast, &remainder), kept)
    });
    // What is kept may be what its tasks wait for: they are cancelled first, and don't wake.
    drop(runtime);
    drop(kept);
    outcome
}

/// Waits until the runtime itself counts as many tasks as stay, so that the leak is there when it
/// is looked for. Gives up where it doesn't come to that: what is reported will tell.
async fn only_those_that_stay(cast: &Cast, part: Part) {
    /// In a row: a task that is about to spawn another one is counted as well.
    const LOOKS: u32 = 5;
    let patience = match part {
        Part::Leaks { flaky: true } => FLAKY_WITHIN,
        _ => ENDS_WITHIN,
    };
    let began = Instant::now();
    let runtime = Handle::current();
    let mut agreed = 0;
    while agreed < LOOKS && began.elapsed() < patience {
        let alive = runtime.metrics().num_alive_tasks();
        let agrees = alive == cast.all_that_stay().len();
        agreed = if agrees { agreed + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn judge(program: Program, cast: &Cast, remainder: &Remainder) -> Outcome {
    let stays = match program.has_some() {
        true => cast.all_that_stay(),
        false => Vec::new(),
    };
    if program.has_some() && stays.is_empty() {
        return Outcome::broken("it says of no task that it stays".into());
    }
    let (missed, wrong) = compare(&stays, remainder.tasks());
    let completeness = remainder.completeness();
    let inconclusive = (!completeness.is_complete()).then(|| completeness.to_string());
    let message = remainder.to_string();
    let misspoken = match program.part {
        Part::Clean(_) => misspoken(&stays, remainder.tasks(), &message),
        _ => Vec::new(),
    };
    Outcome {
        missed,
        wrong,
        misspoken,
        inconclusive,
        broken: None,
        message,
    }
}

/// The places of what stays and isn't among the tasks, and of tasks that don't stay.
fn compare(stays: &[Stay], tasks: &[Task]) -> (Vec<String>, Vec<String>) {
    let mut missed = stays.to_vec();
    let mut wrong = Vec::new();
    for task in tasks {
        match missed.iter().position(|stays| is_at(task, stays)) {
            Some(found) => drop(missed.swap_remove(found)),
            None => wrong.push(task.location().to_string()),
        }
    }
    let missed = missed.iter().map(|stays| stays.place.to_string());
    (missed.collect(), wrong)
}

fn is_at(task: &Task, stays: &Stay) -> bool {
    let (file, line) = (task.location().file(), task.location().line());
    line == stays.place.line() && stays.place.file().replace('\\', "/").ends_with(file)
}

/// Whether its parent is told. The body of a test may be older than what sees tasks.
fn is_child(task: &Task, stays: &Stay) -> bool {
    let told = task.parent().and_then(Parent::task);
    stays
        .parent
        .is_none_or(|parent| told.is_some_and(|told| told == parent))
}

/// What is wrong with a report on a program without a leak: words of harm, and a task whose state
/// or parent isn't told.
fn misspoken(stays: &[Stay], tasks: &[Task], message: &str) -> Vec<String> {
    let message = message.to_lowercase();
    let words = ["leak", "orphan", "deadlock", "stuck"];
    let said = words.iter().filter(|&&word| message.contains(word));
    let said = said.map(|word| format!("{word:?}"));
    let untold = tasks.iter().filter_map(|task| {
        let has_parent = stays
            .iter()
            .any(|stays| is_at(task, stays) && is_child(task, stays));
        let what = match (task.state(), has_parent) {
            (None, _) => "no state",
            (_, false) => "not the parent",
            _ => return None,
        };
        Some(format!("{what} of the task of {}", task.location()))
    });
    said.chain(untold).collect()
}
