//! The corpus: how many leaks of real programs are reported, and whether anything else is.
//!
//! ```sh
//! cargo run --release --example corpus                # each program ten times on each runtime
//! cargo run --release --example corpus -- --runs 100
//! cargo run --release --example corpus -- --only etcd_7492 --jobs 1
//! ```
//!
//! `docs/truth.md` says what the programs are, and what each number of the last line counts.
#![allow(unreachable_pub, clippy::print_stdout, clippy::print_stderr)] // It is what it is for.

#[path = "../tests/corpus/clean/mod.rs"]
mod clean;
#[path = "../tests/corpus/harness.rs"]
mod harness;
#[path = "../tests/corpus/kernels/mod.rs"]
mod kernels;
#[path = "../tests/corpus/program.rs"]
mod program;
#[path = "../tests/corpus/table.rs"]
mod table;

use harness::{FLAVOURS, Program, run_all};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use table::Table;

const USAGE: &str = "arguments after `--`:
  --runs N   how often each program is run on each runtime: 10 by default
  --only ID  one kernel or clean program alone
  --jobs N   how many run at once: 8 by default";

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(options) => measure(&options),
        Err(wrong) => {
            eprintln!("corpus: {wrong}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn measure(options: &Options) -> ExitCode {
    let (mut kernels, mut clean) = (kernels::all(), clean::all());
    if let Some(only) = &options.only {
        kernels.retain(|kernel| kernel.id == only);
        clean.retain(|clean| clean.id == only);
    }
    let programs: Vec<_> = (kernels.iter().flat_map(Program::of_kernel))
        .chain(clean.iter().map(Program::of_clean))
        .collect();
    // Round by round, so that what runs at once is of every sort.
    let round = programs
        .iter()
        .flat_map(|&program| FLAVOURS.map(|flavour| (program, flavour)));
    let round: Vec<_> = round.collect();
    let runs = round.repeat(options.runs);
    let began = Instant::now();
    let table = Mutex::new(Table::new(&kernels, &clean));
    run_all(&runs, options.jobs, |program, flavour, outcome| {
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.add(program, &outcome) {
            eprintln!("{program}, {flavour:?}: {outcome}\n");
        }
    });
    let table = table.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} runs of {} programs, {} on each runtime, {} at once, in {:.1?}\n",
        runs.len(),
        programs.len(),
        options.runs,
        options.jobs,
        began.elapsed()
    );
    println!("{table}");
    match table.is_right() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

struct Options {
    runs: usize,
    jobs: usize,
    only: Option<String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            runs: 10,
            jobs: 8,
            only: None,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--runs" => options.runs = number(&arg, &value()?)?,
                "--jobs" => options.jobs = number(&arg, &value()?)?,
                "--only" => options.only = Some(known(value()?)?),
                other => return Err(format!("unknown argument {other:?}")),
            }
        }
        Ok(options)
    }
}

fn number(of: &str, value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{of} {value}: not a number above 0")),
    }
}

fn known(id: String) -> Result<String, String> {
    let kernels = kernels::all();
    let clean = clean::all();
    let ids = kernels.iter().map(|kernel| kernel.id);
    let ids: Vec<_> = ids.chain(clean.iter().map(|clean| clean.id)).collect();
    match ids.contains(&id.as_str()) {
        true => Ok(id),
        false => Err(format!("--only {id}: there are {}", ids.join(", "))),
    }
}
