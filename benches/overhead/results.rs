//! What was measured, and the figures that follow from it.

use crate::sample::Sample;
use crate::shared::spread::Spread;
use crate::variant::Variant;
use crate::workload::Workload;
use serde::Serialize;

/// What a sample is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Nanoseconds of one core for each operation.
    Wall,
    /// Nanoseconds of processor time for each operation.
    Cpu,
    /// Resident bytes for each parked task.
    Bytes,
    /// Requests in a second.
    Requests,
    /// Which part of its threads' time the process was given, in percent.
    Busy,
}

impl Figure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
            Self::Bytes => "bytes",
            Self::Requests => "requests",
            Self::Busy => "busy",
        }
    }
}

/// One variant under one workload on so many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) workload: Workload,
    pub(crate) threads: usize,
    pub(crate) variant: Variant,
}

/// One process's.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    #[serde(flatten)]
    pub(crate) case: Case,
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Sample(Sample),
    Failed(String),
}

#[derive(Debug, Default)]
pub(crate) struct Results(pub(crate) Vec<Measured>);

impl Results {
    pub(crate) fn samples(&self, case: Case) -> impl Iterator<Item = &Sample> {
        let of_case = self.0.iter().filter(move |each| each.case == case);
        of_case.filter_map(|each| match &each.outcome {
            Outcome::Sample(sample) => Some(sample),
            Outcome::Failed(_) => None,
        })
    }

    pub(crate) fn failure(&self, case: Case) -> Option<&str> {
        let mut of_case = self.0.iter().filter(|each| each.case == case);
        of_case.find_map(|each| match &each.outcome {
            Outcome::Sample(_) => None,
            Outcome::Failed(why) => Some(why.as_str()),
        })
    }

    pub(crate) fn any_failed(&self) -> bool {
        (self.0.iter()).any(|each| matches!(each.outcome, Outcome::Failed(_)))
    }

    pub(crate) fn spread(&self, case: Case, figure: Figure) -> Option<Spread> {
        let of = self.samples(case).map(|sample| value(sample, case, figure));
        Spread::of(of)
    }

    pub(crate) fn median(&self, case: Case, figure: Figure) -> Option<f64> {
        self.spread(case, figure).map(|spread| spread.median)
    }

    /// By how much a case's median lies above that of another variant.
    pub(crate) fn over(&self, case: Case, other: Variant, figure: Figure) -> Option<f64> {
        let variant = other;
        let other = self.median(Case { variant, ..case }, figure)?;
        Some(self.median(case, figure)? - other)
    }

    /// What there is of each round, in their order.
    pub(crate) fn each_round<T>(&self, of: impl Fn(usize) -> Option<T>) -> Vec<T> {
        let rounds = self.0.iter().map(|each| each.round + 1).max().unwrap_or(0);
        (0..rounds).filter_map(of).collect()
    }

    pub(crate) fn in_round(&self, round: usize, case: Case, figure: Figure) -> Option<f64> {
        let mut measured = self.0.iter();
        let found = measured.find(|each| each.case == case && each.round == round)?;
        match &found.outcome {
            Outcome::Sample(sample) => Some(value(sample, case, figure)),
            Outcome::Failed(_) => None,
        }
    }

    /// By how much a case lies above another variant in one round.
    pub(crate) fn over_in(
        &self,
        round: usize,
        case: Case,
        other: Variant,
        figure: Figure,
    ) -> Option<f64> {
        let variant = other;
        let other = self.in_round(round, Case { variant, ..case }, figure)?;
        Some(self.in_round(round, case, figure)? - other)
    }
}

fn value(sample: &Sample, case: Case, figure: Figure) -> f64 {
    let ops = sample.ops as f64;
    match figure {
        Figure::Wall => sample.wall_nanos as f64 * case.threads as f64 / ops,
        Figure::Cpu => sample.cpu_nanos as f64 / ops,
        Figure::Bytes => sample.bytes.unwrap_or_default() as f64 / ops,
        Figure::Busy => {
            100.0 * sample.cpu_nanos as f64 / (sample.wall_nanos as f64 * case.threads as f64)
        }
        Figure::Requests => ops / (sample.wall_nanos as f64 / 1e9),
    }
}
