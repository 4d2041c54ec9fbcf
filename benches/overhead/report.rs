//! `overhead.json` in the target directory. Its shape is described in `docs/performance.md`; who changes it
//! raises [`VERSION`].

use crate::arguments::Options;
use crate::results::{Measured, Results};
use crate::shared::Failure;
use crate::shared::goals::Goal;
use crate::shared::machine::Machine;
use crate::shared::target;
use serde::Serialize;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    bench: &'static str,
    quick: bool,
    rounds: usize,
    machine: Machine,
    samples: &'a [Measured],
    goals: &'a [Goal],
}

pub(crate) fn write(
    options: &Options,
    results: &Results,
    goals: &[Goal],
    target: &Path,
) -> Result<PathBuf, Failure> {
    let report = Report {
        version: VERSION,
        bench: "overhead",
        quick: options.quick,
        rounds: options.rounds,
        machine: Machine::this(),
        samples: &results.0,
        goals,
    };
    target::write(target, report.bench, options.quick, &report)
}
