//! Starts a process for each figure, and lets the variants take turns.

use crate::arguments::Options;
use crate::copies::Copies;
use crate::results::{Case, Measured, Outcome, Results};
use crate::sample::{Amount, Job, Sample};
use crate::shared::{Failure, children, target};
use crate::variant::Variant;
use crate::workload::Workload;
use crate::{goals, report, shared, sink, table};
use std::time::Instant;

/// Memory varies little from process to process, and a million tasks take their time.
const MOST_IDLE_ROUNDS: usize = 3;

/// Measures, prints the table, and says whether everything could be measured.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let began = Instant::now();
    let target = target::directory()?;
    let copies = Copies::build(&options.variants, &target)?;
    let sink = sink::start()?;
    let mut results = Results::default();
    for round in 0..options.rounds {
        for &workload in &options.workloads {
            if workload.parked().is_some() && round >= MOST_IDLE_ROUNDS {
                continue;
            }
            for &threads in &options.threads {
                eprintln!(
                    "{:>4} s  round {} of {}: {}, {}",
                    began.elapsed().as_secs(),
                    round + 1,
                    options.rounds,
                    workload.name(),
                    goals::on(threads),
                );
                for variant in in_turn(&options.variants, round) {
                    let case = Case {
                        workload,
                        threads,
                        variant,
                    };
                    let job = job(case, options.quick, &sink);
                    let measured = measure(&copies, &job);
                    let outcome = match measured {
                        Ok(sample) => Outcome::Sample(sample),
                        Err(error) => Outcome::Failed(error.to_string()),
                    };
                    results.0.push(Measured {
                        case,
                        round,
                        outcome,
                    });
                }
            }
        }
    }
    table::print(options, &results);
    let goals = goals::all(&results);
    shared::goals::print(&goals);
    let path = report::write(options, &results, &goals, &target)?;
    println!("\nraw: {}", path.display());
    println!("took {} s", began.elapsed().as_secs());
    Ok(!results.any_failed())
}

/// The variants in another order each round: each begins with another one, and every second round
/// goes backwards, since in one direction each would always come after the same one.
fn in_turn(variants: &[Variant], round: usize) -> Vec<Variant> {
    let mut turn = variants.to_vec();
    turn.rotate_left(round % variants.len().max(1));
    if round % 2 == 1 {
        turn.reverse();
    }
    turn
}

fn job(case: Case, quick: bool, sink: &str) -> Job {
    let amount = match (case.workload, case.workload.parked()) {
        (_, Some(parked)) => {
            let most = case.variant.most_parked().unwrap_or(parked);
            Amount::Ops(if quick { parked / 20 } else { parked }.min(most))
        }
        (_, None) if quick => Amount::Millis(30),
        // Two processes that share the machine need longer to be steady.
        (Workload::Axum, None) => Amount::Millis(1_000),
        (_, None) => Amount::Millis(300),
    };
    Job {
        variant: case.variant,
        workload: case.workload,
        threads: case.threads,
        amount,
        sink: Some(sink.to_owned()),
    }
}

fn measure(copies: &Copies, job: &Job) -> Result<Sample, Failure> {
    children::answer(children::command(copies.of(job.variant)?, job)?)
}
