//! What comes after `--`, and how a child is told its job.

use crate::instructions::can_count;
use crate::load::LoadJob;
use crate::sample::Job;
use crate::shared::children::CHILD;
use crate::shared::{BENCH, Failure};
use crate::variant::Variant;
use crate::workload::Workload;

/// The word after which the job of the load on the service comes.
pub(crate) const LOAD: &str = "load";

#[derive(Debug)]
pub(crate) enum Command {
    Measure(Options),
    /// `cargo test` runs benches too, without [`BENCH`].
    Nothing,
    Child(Job),
    Load(LoadJob),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) instructions: bool,
    pub(crate) rounds: usize,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) variants: Vec<Variant>,
    pub(crate) threads: Vec<usize>,
}

pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Command, Failure> {
    let args: Vec<_> = args.collect();
    let is_ours = args
        .first()
        .is_some_and(|first| matches!(first.as_str(), CHILD | LOAD));
    if !is_ours && !args.iter().any(|arg| arg == BENCH) {
        return Ok(Command::Nothing);
    }
    let mut args = args.into_iter();
    let mut options = Options {
        quick: false,
        instructions: false,
        rounds: 5,
        workloads: Workload::ALL.to_vec(),
        variants: Variant::ALL.to_vec(),
        threads: vec![1, 2],
    };
    let mut rounds = None;
    let mut threads_given = false;
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .ok_or(format!("{arg} needs a value\n{}", usage()))
        };
        match arg.as_str() {
            CHILD => return Ok(Command::Child(serde_json::from_str(&value()?)?)),
            LOAD => return Ok(Command::Load(serde_json::from_str(&value()?)?)),
            BENCH => {}
            "--quick" => options.quick = true,
            "--instructions" => options.instructions = true,
            "--rounds" => rounds = Some(number(&arg, &value()?)?),
            "--only" => options.workloads = list(&value()?, &Workload::ALL, Workload::name)?,
            "--variants" => options.variants = list(&value()?, &Variant::ALL, Variant::name)?,
            "--threads" => {
                threads_given = true;
                options.threads = vec![threads(&value()?)?];
            }
            other => return Err(format!("unknown argument {other:?}\n{}", usage()).into()),
        }
    }
    if options.instructions {
        let given = [
            ("--quick", options.quick),
            ("--rounds", rounds.is_some()),
            ("--threads", threads_given),
        ];
        counts(&options.workloads, given)?;
    }
    options.rounds = rounds.unwrap_or(if options.quick { 1 } else { options.rounds });
    Ok(Command::Measure(options))
}

/// Fails if instructions aren't counted by what was asked for besides, or of any of it.
fn counts(workloads: &[Workload], given: [(&str, bool); 3]) -> Result<(), Failure> {
    if let Some((other, _)) = given.into_iter().find(|(_, given)| *given) {
        let why = "they are counted once, of a fixed number of operations, on 1 thread";
        return Err(format!("{other} can't go with --instructions: {why}; leave it out").into());
    }
    if !workloads.iter().copied().any(can_count) {
        let can = Workload::ALL.into_iter().filter(|&each| can_count(each));
        let can: Vec<_> = can.map(Workload::name).collect();
        let can = can.join(",");
        return Err(format!(
            "--only leaves nothing for --instructions, which counts {can}; name one of these"
        )
        .into());
    }
    Ok(())
}

fn number(name: &str, value: &str) -> Result<usize, Failure> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{name} {value}: not a number above 0\n{}", usage()).into()),
    }
}

fn threads(value: &str) -> Result<usize, Failure> {
    match value {
        "1" => Ok(1),
        "2" => Ok(2),
        _ => Err(format!("--threads {value}: neither 1 nor 2\n{}", usage()).into()),
    }
}

/// What a comma-separated list names, in our own order.
fn list<T: Copy>(value: &str, all: &[T], name: fn(T) -> &'static str) -> Result<Vec<T>, Failure> {
    for part in value.split(',') {
        if !all.iter().any(|&each| name(each) == part) {
            return Err(format!("{part:?} is unknown\n{}", usage()).into());
        }
    }
    let named = |each: &T| value.split(',').any(|part| part == name(*each));
    Ok(all.iter().copied().filter(named).collect())
}

fn usage() -> String {
    format!(
        "arguments after `--`:
  --quick               few operations, one round: does it run, not what does it cost
  --rounds N            how often each figure is taken, 5 by default
  --only WORKLOAD,…     {}
  --variants VARIANT,…  {}
  --threads 1|2         worker threads: 1 and 2 by default
  --instructions        count instructions under valgrind instead of time, on 1 thread",
        Workload::ALL.map(Workload::name).join(","),
        Variant::ALL.map(Variant::name).join(","),
    )
}
