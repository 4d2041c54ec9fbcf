//! What comes after `--`, and what a child is told.

use crate::shared::children::CHILD;
use crate::shared::{BENCH, Failure};
use serde::{Deserialize, Serialize};

#[derive(Debug)]
pub(crate) enum Command {
    Measure(Options),
    /// `cargo test` runs benches too, without [`BENCH`].
    Nothing,
    Child(Job),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) source: Watched,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) watched: Watched,
    /// How many tasks are live, one level after the other.
    pub(crate) levels: Vec<u64>,
    /// How long each cost is measured for, in milliseconds.
    pub(crate) millis: u64,
}

/// Whether straggler is there, and what it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Watched {
    Bare,
    Spans,
    Hooks,
}

impl Watched {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Spans => "spans",
            Self::Hooks => "hooks",
        }
    }
}

const USAGE: &str = "arguments after `--`:
  --quick               10³ and 10⁴ tasks, one round: does it run, not what does it cost
  --rounds N            how many processes each, 3 by default
  --source spans|hooks  what straggler goes by: spans by default";

pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Command, Failure> {
    let args: Vec<_> = args.collect();
    let is_ours = args
        .first()
        .is_some_and(|first| matches!(first.as_str(), CHILD));
    if !is_ours && !args.iter().any(|arg| arg == BENCH) {
        return Ok(Command::Nothing);
    }
    let mut args = args.into_iter();
    let mut options = Options {
        quick: false,
        rounds: 3,
        source: Watched::Spans,
    };
    let mut rounds = None;
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            CHILD => return Ok(Command::Child(serde_json::from_str(&value()?)?)),
            BENCH => {}
            "--quick" => options.quick = true,
            "--rounds" => rounds = Some(number(&value()?)?),
            "--source" => options.source = source(&value()?)?,
            other => return Err(format!("unknown argument {other:?}\n{USAGE}").into()),
        }
    }
    options.rounds = rounds.unwrap_or(if options.quick { 1 } else { options.rounds });
    Ok(Command::Measure(options))
}

fn number(value: &str) -> Result<usize, Failure> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("--rounds {value}: not a number above 0\n{USAGE}").into()),
    }
}

fn source(value: &str) -> Result<Watched, Failure> {
    match value {
        "spans" => Ok(Watched::Spans),
        "hooks" => Ok(Watched::Hooks),
        _ => Err(format!("--source {value}: neither spans nor hooks\n{USAGE}").into()),
    }
}
