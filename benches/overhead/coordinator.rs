//! Starts a process for each figure, and lets the variants take turns.

use crate::arguments::{self, Options};
use crate::copies::Copies;
use crate::results::{Case, Measured, Outcome, Results};
use crate::sample::{Amount, Job, Sample};
use crate::shared::target;
use crate::variant::Variant;
use crate::workload::Workload;
use crate::{Failure, goals, report, sink, table};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

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
                    "{:>4} s  round {} of {}: {}, {threads} threads",
                    began.elapsed().as_secs(),
                    round + 1,
                    options.rounds,
                    workload.name(),
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
    table::print_goals(&goals);
    let path = report::write(options, &results, &goals, &target)?;
    println!("\nraw: {}", path.display());
    println!("took {} s", began.elapsed().as_secs());
    Ok(!results.any_failed())
}

/// The variants in another order each round, so that none always comes after the same one.
fn in_turn(variants: &[Variant], round: usize) -> impl Iterator<Item = Variant> {
    let first = round % variants.len().max(1);
    let variants = variants.iter().cycle().skip(first).take(variants.len());
    variants.copied()
}

fn job(case: Case, quick: bool, sink: &str) -> Job {
    let amount = match (case.workload, case.workload.parked()) {
        (_, Some(parked)) => Amount::Ops(if quick { parked / 20 } else { parked }),
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
    let answer = answer(&mut child(copies.of(job.variant)?, job)?)?;
    serde_json::from_str(&answer).map_err(|error| format!("{answer:?}: {error}").into())
}

/// A child's command. What the environment says to exporters is not for it.
pub(crate) fn child(program: &Path, job: &Job) -> Result<Command, Failure> {
    let mut command = Command::new(program);
    command.args([arguments::CHILD, &serde_json::to_string(job)?]);
    keep_out_of_env(&mut command);
    Ok(command)
}

fn keep_out_of_env(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("OTEL_") || text.starts_with("TOKIO_CONSOLE_") {
            command.env_remove(name);
        }
    }
}

/// What a child prints on stdout; or that it failed, or took too long.
fn answer(command: &mut Command) -> Result<String, Failure> {
    const LONGEST: Duration = Duration::from_secs(300);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().ok_or("the child has no stdout")?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text).map(|_| text);
        // Who waited may have given up.
        drop(tell.send(read));
    });
    let Ok(text) = told.recv_timeout(LONGEST) else {
        stop(&mut child)?;
        return Err(format!("stopped after {LONGEST:?}").into());
    };
    let status = child.wait()?;
    match status.success() {
        true => Ok(text?),
        false => Err(format!("the child failed, see above: {status}").into()),
    }
}

fn stop(child: &mut Child) -> Result<(), Failure> {
    child.kill()?;
    child.wait()?;
    Ok(())
}
