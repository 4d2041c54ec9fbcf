//! What becomes of straggler's cost when there are very many live tasks, and what a snapshot of
//! a million of them takes.
//!
//! ```sh
//! cargo bench --bench scale
//! cargo bench --bench scale -- --source hooks
//! ```
//!
//! Each process parks 10³, 10⁴, 10⁵ and 10⁶ tasks one after the other, and measures a poll
//! and a spawned and joined task beside them. Processes without straggler do the same: where
//! memory grows, tokio itself misses the cache more often.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table and the progress are what it is for"
)]

mod arguments;
mod child;
mod coordinator;
mod goals;
#[path = "../shared/mod.rs"]
mod shared;
mod snapshots;
mod stalls;
mod table;

use arguments::Command;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = arguments::parse(std::env::args().skip(1)).and_then(|command| match command {
        Command::Measure(options) => coordinator::run(&options),
        Command::Nothing => {
            println!("run by `cargo bench`");
            Ok(true)
        }
        Command::Child(job) => child::run(&job).map(|()| true),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}
