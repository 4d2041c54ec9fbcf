//! What straggler is meant to cost at most, set against what was measured.

use crate::results::{Case, Figure, Results};
use crate::variant::Variant;
use crate::workload::Workload;
use serde::Serialize;

/// One goal. It fails no run: a bench is no test.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    /// `None` where something that it needs was not measured.
    pub(crate) value: Option<f64>,
    /// The same by processor time, beside a goal that is judged by the wall clock.
    pub(crate) by_cpu: Option<f64>,
    pub(crate) limit: Limit,
    pub(crate) unit: &'static str,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(crate) fn is_met(&self) -> Option<bool> {
        Some(match (self.value?, self.limit) {
            (value, Limit::AtMost(limit)) => value <= limit,
            (value, Limit::AtLeast(limit)) => value >= limit,
        })
    }
}

/// Those of which anything was measured.
pub(crate) fn all(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for threads in [1, 2] {
        extras(results, threads, &mut goals);
    }
    for threads in [1, 2] {
        memory(results, threads, &mut goals);
    }
    for threads in [1, 2] {
        requests(results, threads, &mut goals);
    }
    cores(results, &mut goals);
    goals.retain(|goal| goal.value.is_some());
    goals
}

/// What a variant adds to bare, in parts of what another one adds.
fn extras(results: &Results, threads: usize, goals: &mut Vec<Goal>) {
    use Variant::{Hooks, LayerFloor, Metrics, Spans};
    for (workload, variant, beside, limit) in [
        (Workload::Yield, Spans, LayerFloor, 1.6),
        (Workload::Churn, Spans, LayerFloor, 2.0),
        (Workload::Yield, Hooks, Metrics, 1.0 / 3.0),
        (Workload::Churn, Hooks, Metrics, 1.0),
    ] {
        let ratio = |figure| {
            let extra = |variant| {
                let case = Case {
                    workload,
                    threads,
                    variant,
                };
                results.over(case, Variant::Bare, figure)
            };
            Some(extra(variant)? / extra(beside)?)
        };
        goals.push(Goal {
            what: format!(
                "{}, extra per {} in extras of {}, {} threads",
                variant.name(),
                workload.op(),
                beside.name(),
                threads,
            ),
            value: ratio(Figure::Wall),
            by_cpu: ratio(Figure::Cpu),
            limit: Limit::AtMost(limit),
            unit: "×",
        });
    }
}

fn memory(results: &Results, threads: usize, goals: &mut Vec<Goal>) {
    for workload in Workload::ALL {
        if workload.parked().is_none() {
            continue;
        }
        for (variant, floor) in [
            (Variant::Spans, Variant::LayerFloor),
            (Variant::Hooks, Variant::HookFloor),
        ] {
            let case = Case {
                workload,
                threads,
                variant,
            };
            goals.push(Goal {
                what: format!(
                    "{}, bytes per live task over {}, {}, {threads} threads",
                    variant.name(),
                    floor.name(),
                    workload.name(),
                ),
                value: results.over(case, floor, Figure::Bytes),
                by_cpu: None,
                limit: Limit::AtMost(200.0),
                unit: "B",
            });
        }
    }
}

fn requests(results: &Results, threads: usize, goals: &mut Vec<Goal>) {
    for (variant, limit) in [(Variant::Spans, 0.97), (Variant::Hooks, 0.99)] {
        let of = |variant, figure| {
            let case = Case {
                workload: Workload::Axum,
                threads,
                variant,
            };
            results.median(case, figure)
        };
        let ratio = |figure| Some(of(variant, figure)? / of(Variant::Bare, figure)?);
        goals.push(Goal {
            what: format!(
                "{}, requests in parts of bare's, {threads} threads",
                variant.name()
            ),
            value: ratio(Figure::Requests),
            // What bare does in the processor time of one request of this.
            by_cpu: ratio(Figure::Cpu).map(|ratio| 1.0 / ratio),
            limit: Limit::AtLeast(limit),
            unit: "×",
        });
    }
}

/// What straggler adds on two threads, per core, in parts of what it adds on one.
fn cores(results: &Results, goals: &mut Vec<Goal>) {
    for workload in [Workload::Churn, Workload::Yield] {
        for variant in [Variant::Spans, Variant::Hooks] {
            let ratio = |figure| {
                let extra = |threads| {
                    let case = Case {
                        workload,
                        threads,
                        variant,
                    };
                    results.over(case, Variant::Bare, figure)
                };
                Some(extra(2)? / extra(1)?)
            };
            goals.push(Goal {
                what: format!(
                    "{}, extra per {} on two threads in extras on one",
                    variant.name(),
                    workload.op()
                ),
                value: ratio(Figure::Wall),
                by_cpu: ratio(Figure::Cpu),
                limit: Limit::AtMost(1.0),
                unit: "×",
            });
        }
    }
}
