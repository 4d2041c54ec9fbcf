//! What straggler is meant to cost at most. Each value is formed of the processes of one round,
//! which ran one after the other.

use crate::results::{Case, Figure, Results};
use crate::shared::goals::{Goal, Limit};
use crate::variant::Variant;
use crate::workload::Workload;

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
        .filter(|goal| goal.is_measured())
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
            let ratios = |figure| {
                results.each_round(|round| {
                    let extra = |variant| {
                        let case = Case {
                            workload,
                            threads,
                            variant,
                        };
                        results.over_in(round, case, Variant::Bare, figure)
                    };
                    Some(share(extra(ours)?, extra(other)?))
                })
            };
            let what = format!(
                "{}: extra per {} / that of {}, {}",
                ours.name(),
                workload.op(),
                other.name(),
                on(threads),
            );
            Goal::new(what, Limit::AtMost(limit), "×")
                .by(Figure::Cpu.name(), ratios(Figure::Cpu))
                .by(Figure::Wall.name(), ratios(Figure::Wall))
        })
}

/// What straggler adds on two threads, per core, in parts of what it adds on one.
fn cores(results: &Results) -> impl Iterator<Item = Goal> {
    let workloads = [Workload::Churn, Workload::Yield];
    let cases = workloads
        .into_iter()
        .flat_map(|workload| [Variant::Spans, Variant::Hooks].map(|variant| (workload, variant)));
    cases.map(|(workload, variant)| {
        let ratios = |figure| {
            results.each_round(|round| {
                let extra = |threads| {
                    let case = Case {
                        workload,
                        threads,
                        variant,
                    };
                    results.over_in(round, case, Variant::Bare, figure)
                };
                Some(share(extra(2)?, extra(1)?))
            })
        };
        let what = format!(
            "{}: extra per {}, on two threads / on one",
            variant.name(),
            workload.op()
        );
        Goal::new(what, Limit::AtMost(1.0), "×")
            .by(Figure::Cpu.name(), ratios(Figure::Cpu))
            .by(Figure::Wall.name(), ratios(Figure::Wall))
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
        let bytes = results.each_round(|round| {
            let over = results.over_in(round, case, floor, Figure::Bytes)?;
            Some(Some(over))
        });
        Goal::new(what, Limit::AtMost(200.0), "B").by(Figure::Bytes.name(), bytes)
    })
}

fn requests(results: &Results, threads: usize) -> impl Iterator<Item = Goal> {
    let goals = [(Variant::Spans, 0.97), (Variant::Hooks, 0.99)];
    goals.into_iter().map(move |(ours, limit)| {
        let case = |variant| Case {
            workload: Workload::Axum,
            threads,
            variant,
        };
        let ratios = |above, below, figure| {
            results.each_round(|round| {
                let of = |variant| results.in_round(round, case(variant), figure);
                Some(share(of(above)?, of(below)?))
            })
        };
        let bare = Variant::Bare;
        let what = format!("{}: requests / those of bare, {}", ours.name(), on(threads));
        Goal::new(what, Limit::AtLeast(limit), "×")
            // How many requests the same processor time is enough for.
            .by(Figure::Cpu.name(), ratios(bare, ours, Figure::Cpu))
            .by(
                Figure::Requests.name(),
                ratios(ours, bare, Figure::Requests),
            )
    })
}

/// One in parts of another, unless that one was lost in the noise.
fn share(one: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| one / of)
}

/// So many threads, in words.
pub(crate) fn on(threads: usize) -> String {
    match threads {
        1 => "1 thread".into(),
        more => format!("{more} threads"),
    }
}
