//! Instructions instead of time: they don't depend on what else the machine does.
//!
//! Each case runs under callgrind with N and with 2N operations. The difference is what N
//! operations take, without start-up and warm-up.

use crate::arguments::Options;
use crate::copies::Copies;
use crate::sample::{Amount, Job};
use crate::shared::{Failure, children, target};
use crate::sink;
use crate::variant::Variant;
use crate::workload::Workload;
use std::ffi::OsString;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::{env, fs};

const OPS: u64 = 20_000;

/// Counts, prints the table, and says whether everything could be counted.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let found = Command::new("valgrind").arg("--version").output();
    found.map_err(|error| {
        format!("--instructions counts with valgrind, which can't be started: {error}; install it")
    })?;
    let copies = Copies::build(&options.variants, &target::directory()?)?;
    let sink = sink::start()?;
    let mut complete = true;
    println!("instructions per operation, 1 thread: those of its worker");
    for &workload in &options.workloads {
        if !can_count(workload) {
            continue;
        }
        println!("\n{}, per {}", workload.name(), workload.op());
        let mut bare = None;
        for &variant in &options.variants {
            match per_op(&copies, workload, variant, &sink) {
                Ok(count) => {
                    if variant == Variant::Bare {
                        bare = Some(count);
                    }
                    let over = bare.map_or("-".to_owned(), |bare| format!("{:+.1}", count - bare));
                    println!("{:22} {count:>10.1} {over:>10} over bare", variant.name());
                }
                Err(error) => {
                    complete = false;
                    println!("{:22} NOT COUNTED: {error}", variant.name());
                }
            }
        }
    }
    Ok(complete)
}

/// Whether its operations are all done by one worker.
pub(crate) fn can_count(workload: Workload) -> bool {
    matches!(
        workload,
        Workload::Churn | Workload::Yield | Workload::PingPong | Workload::Spans
    )
}

fn per_op(
    copies: &Copies,
    workload: Workload,
    variant: Variant,
    sink: &str,
) -> Result<f64, Failure> {
    let program = copies.of(variant)?;
    let count = |ops| {
        let job = Job {
            variant,
            workload,
            threads: 1,
            amount: Amount::Ops(ops),
            sink: Some(sink.to_owned()),
        };
        instructions(program, &job)
    };
    let (once, twice) = (count(OPS)?, count(2 * OPS)?);
    Ok((twice as f64 - once as f64) / OPS as f64)
}

/// Those of the thread that has most: the worker. The calibration of clocks and the looks of
/// background threads go by time, and would make each count another.
fn instructions(program: &Path, job: &Job) -> Result<u64, Failure> {
    let child = children::command(program, job)?;
    let directory = env::temp_dir().join(format!("straggler-callgrind-{}", process::id()));
    fs::create_dir_all(&directory)?;
    let mut out = OsString::from("--callgrind-out-file=");
    out.push(directory.join("out"));
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(out)
        .arg(child.get_program())
        .args(child.get_args());
    for (name, value) in child.get_envs() {
        match value {
            Some(value) => valgrind.env(name, value),
            None => valgrind.env_remove(name),
        };
    }
    let output = valgrind.stdin(Stdio::null()).output()?;
    let counted = most(&directory);
    fs::remove_dir_all(&directory)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        return Err(format!("the child failed under valgrind: {}: {last}", output.status).into());
    }
    counted
}

/// callgrind writes a file for each thread.
fn most(directory: &Path) -> Result<u64, Failure> {
    let mut most = None;
    for file in fs::read_dir(directory)? {
        let text = fs::read_to_string(file?.path())?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        if let Some(total) = total {
            most = most.max(Some(total.trim().parse()?));
        }
    }
    most.ok_or_else(|| "callgrind wrote no count".into())
}
