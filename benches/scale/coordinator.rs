//! Starts the processes, with straggler and without by turns.

use crate::arguments::{Job, Options, Watched};
use crate::child::Answer;
use crate::shared::goals::Goal;
use crate::shared::machine::Machine;
use crate::shared::{Failure, children, target};
use crate::{goals, shared, table};
use serde::Serialize;
use std::time::Instant;

/// Of the file's shape, which `docs/performance.md` describes.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    bench: &'static str,
    quick: bool,
    rounds: usize,
    machine: Machine,
    answers: &'a [Answered],
    goals: &'a [Goal],
}

#[derive(Debug, Serialize)]
pub(crate) struct Answered {
    pub(crate) variant: Watched,
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// Measures, prints the tables, and says whether everything could be measured.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let began = Instant::now();
    let target = target::directory()?;
    let (levels, millis) = match options.quick {
        true => (vec![1_000, 10_000], 30),
        false => (vec![1_000, 10_000, 100_000, 1_000_000], 200),
    };
    let mut answers = Vec::new();
    let mut complete = true;
    for round in 0..options.rounds {
        let mut variants = [Watched::Bare, options.source];
        variants.rotate_left(round % 2);
        for variant in variants {
            eprintln!(
                "{:>4} s  round {} of {}: {}",
                began.elapsed().as_secs(),
                round + 1,
                options.rounds,
                variant.name()
            );
            let job = Job {
                watched: variant,
                levels: levels.clone(),
                millis,
            };
            let command = children::command(&std::env::current_exe()?, &job)?;
            match children::answer(command) {
                Ok(answer) => answers.push(Answered {
                    variant,
                    round,
                    answer,
                }),
                Err(error) => {
                    complete = false;
                    println!(
                        "NOT MEASURED: {}, round {}: {error}",
                        variant.name(),
                        round + 1
                    );
                }
            }
        }
    }
    if options.quick {
        println!("\n--quick: this shows that it runs; the figures mean nothing");
    }
    table::print(&levels, options.source, &answers);
    let goals = goals::all(options.source, &answers);
    shared::goals::print(&goals);
    let report = Report {
        version: VERSION,
        bench: "scale",
        quick: options.quick,
        rounds: options.rounds,
        machine: Machine::this(),
        answers: &answers,
        goals: &goals,
    };
    let path = target::write(&target, report.bench, options.quick, &report)?;
    println!("\nraw: {}", path.display());
    println!("took {} s", began.elapsed().as_secs());
    Ok(complete)
}
