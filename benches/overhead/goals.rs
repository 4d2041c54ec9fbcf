//! What straggler is meant to cost at most, set against what was measured.

use crate::results::{Case, Figure, Results};
use crate::variant::Variant;
use crate::workload::Workload;
use serde::Serialize;

/// One goal. It fails no run: a bench is no test.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) limit: Limit,
    pub(crate) unit: &'static str,
    /// By each figure that says something of it. Empty where what it needs wasn't measured.
    pub(crate) values: Vec<Value>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Value {
    pub(crate) by: Figure,
    pub(crate) value: f64,
    pub(crate) met: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn is_kept_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl Goal {
    fn new(what: String, limit: Limit, unit: &'static str) -> Self {
        Self {
            what,
            limit,
            unit,
            values: Vec::new(),
        }
    }

    fn by(mut self, by: Figure, value: Option<f64>) -> Self {
        self.values.extend(value.map(|value| Value {
            by,
            value,
            met: self.limit.is_kept_by(value),
        }));
        self
    }
}

/// Those of which anything was measured.
pub(crate) fn all(results: &Results) -> Vec<Goal> {
    let threads = [1, 2];
    let extras = threads.into_iter().flat_map(|each| extras(results, each));
    let memory = threads.into_iter().flat_map(|each| memory(results, each));
    let requests = threads.into_iter().flat_map(|each| requests(results, each));
    extras
        .chain(cores(results))
        .chain(memory)
        .chain(requests)
        .filter(|goal| !goal.values.is_empty())
        .collect()
}

/// What a variant adds to bare, in parts of what another one adds.
fn extras(results: &Results, threads: usize) -> impl Iterator<Item = Goal> {
    use Variant::{Hooks, LayerFloor, Metrics, Spans};
    let goals = [
        (Workload::Yield, Spans, LayerFloor, 1.6),
        (Workload::Churn, Spans, LayerFloor, 2.0),
        (Workload::Yield, Hooks, Metrics, 1.0 / 3.0),
        (Workload::Churn, Hooks, Metrics, 1.0),
    ];
    goals
        .into_iter()
        .map(move |(workload, ours, other, limit)| {
            let ratio = |figure| {
                let extra = |variant| {
                    let case = Case {
                        workload,
                        threads,
                        variant,
                    };
                    results.over(case, Variant::Bare, figure)
                };
                share(extra(ours)?, extra(other)?)
            };
            let what = format!(
                "{}: extra per {} / that of {}, {}",
                ours.name(),
                workload.op(),
                other.name(),
                on(threads),
            );
            Goal::new(what, Limit::AtMost(limit), "×")
                .by(Figure::Cpu, ratio(Figure::Cpu))
                .by(Figure::Wall, ratio(Figure::Wall))
        })
}

/// What straggler adds on two threads, per core, in parts of what it adds on one.
fn cores(results: &Results) -> impl Iterator<Item = Goal> {
    let workloads = [Workload::Churn, Workload::Yield];
    let cases = workloads
        .into_iter()
        .flat_map(|workload| [Variant::Spans, Variant::Hooks].map(|variant| (workload, variant)));
    cases.map(|(workload, variant)| {
        let ratio = |figure| {
            let extra = |threads| {
                let case = Case {
                    workload,
                    threads,
                    variant,
                };
                results.over(case, Variant::Bare, figure)
            };
            share(extra(2)?, extra(1)?)
        };
        let what = format!(
            "{}: extra per {}, on two threads / on one",
            variant.name(),
            workload.op()
        );
        Goal::new(what, Limit::AtMost(1.0), "×")
            .by(Figure::Cpu, ratio(Figure::Cpu))
            .by(Figure::Wall, ratio(Figure::Wall))
    })
}

fn memory(results: &Results, threads: usize) -> impl Iterator<Item = Goal> {
    let parked = Workload::ALL
        .into_iter()
        .filter(|workload| workload.parked().is_some());
    let cases = parked.flat_map(|workload| {
        [
            (workload, Variant::Spans, Variant::LayerFloor),
            (workload, Variant::Hooks, Variant::HookFloor),
        ]
    });
    cases.map(move |(workload, variant, floor)| {
        let case = Case {
            workload,
            threads,
            variant,
        };
        let what = format!(
            "{}: bytes per live task over {}, {}, {}",
            variant.name(),
            floor.name(),
            workload.name(),
            on(threads),
        );
        Goal::new(what, Limit::AtMost(200.0), "B")
            .by(Figure::Bytes, results.over(case, floor, Figure::Bytes))
    })
}

fn requests(results: &Results, threads: usize) -> impl Iterator<Item = Goal> {
    let goals = [(Variant::Spans, 0.97), (Variant::Hooks, 0.99)];
    goals.into_iter().map(move |(ours, limit)| {
        let of = |variant, figure| {
            let case = Case {
                workload: Workload::Axum,
                threads,
                variant,
            };
            results.median(case, figure)
        };
        let requests = || {
            let figure = Figure::Requests;
            Some(of(ours, figure)? / of(Variant::Bare, figure)?)
        };
        // How many requests the same processor time is enough for.
        let cpu = || Some(of(Variant::Bare, Figure::Cpu)? / of(ours, Figure::Cpu)?);
        let what = format!("{}: requests / those of bare, {}", ours.name(), on(threads));
        Goal::new(what, Limit::AtLeast(limit), "×")
            .by(Figure::Cpu, cpu())
            .by(Figure::Requests, requests())
    })
}

/// One extra in parts of another, unless that one was lost in the noise.
fn share(extra: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| extra / of)
}

/// So many threads, in words.
pub(crate) fn on(threads: usize) -> String {
    match threads {
        1 => "1 thread".into(),
        more => format!("{more} threads"),
    }
}
