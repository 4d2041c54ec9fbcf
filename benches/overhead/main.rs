//! What straggler costs, beside nothing, beside a filtered layer and hooks that do nothing, and
//! beside its peers.
//!
//! ```sh
//! cargo bench --bench overhead
//! cargo bench --bench overhead -- --only churn,yield --rounds 9
//! ```
//!
//! Each figure comes from a process of its own, which this program starts again and again: a
//! global subscriber is set once, and memory that was resident stays so. The variants take
//! turns, since a shared machine is never as fast as a minute ago. `docs/performance.md` says
//! what each variant and each workload is.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table and the progress are what it is for"
)]

mod arguments;
mod child;
mod coordinator;
mod copies;
mod floor;
mod goals;
mod instructions;
mod load;
mod memory;
mod report;
mod results;
mod sample;
mod service;
#[path = "../shared/mod.rs"]
mod shared;
mod sink;
mod table;
mod variant;
mod workload;

use arguments::Command;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = arguments::parse(std::env::args().skip(1)).and_then(|command| match command {
        Command::Measure(options) if options.instructions => instructions::run(&options),
        Command::Measure(options) => coordinator::run(&options),
        Command::Nothing => {
            println!("run by `cargo bench`");
            Ok(true)
        }
        Command::Child(job) => child::run(job).map(|()| true),
        Command::Load(job) => load::run(&job).map(|()| true),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::FAILURE
        }
    }
}
