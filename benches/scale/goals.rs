//! What a snapshot is meant to take, how long it may hold others up, and how cost may grow.

use crate::arguments::Watched;
use crate::child::{Cost, Level};
use crate::coordinator::Answered;
use crate::shared::goals::{Goal, Limit};
use crate::snapshots::{Beside, Snapshots};

pub(crate) fn all(source: Watched, answers: &[Answered]) -> Vec<Goal> {
    let looked = answers
        .iter()
        .filter_map(|each| each.answer.snapshots.as_ref());
    let looked: Vec<_> = looked.collect();
    let stall = |what: &str, of: fn(&Snapshots) -> &Beside| {
        let longest = |each: &&Snapshots| Some(of(each).snapshots.longest as f64 / 1e6);
        let what = format!("longest stall beside snapshots, {what}");
        Goal::new(what, Limit::AtMost(1.0), "ms").by("wall", looked.iter().map(longest))
    };
    let goals = [
        snapshot(&looked),
        stall("spawn and join", |each| &each.spawner),
        stall("poll", |each| &each.poller),
        growth("poll", source, answers, |level| &level.polls),
        growth("spawned and joined task", source, answers, |level| {
            &level.tasks
        }),
    ];
    let measured = goals.into_iter().filter(Goal::is_measured);
    measured.collect()
}

/// The process's first finds no memory to use again, so it is judged alone.
fn snapshot(looked: &[&Snapshots]) -> Goal {
    let millis = |&nanos: &u64| Some(nanos as f64 / 1e6);
    let live = looked.last().map_or(0, |each| each.live);
    let firsts = looked.iter().flat_map(|each| &each.taken_nanos[..1]);
    let later = looked.iter().flat_map(|each| &each.taken_nanos[1..]);
    let what = format!("a snapshot of {live} tasks");
    Goal::new(what, Limit::AtMost(300.0), "ms")
        .by("first", firsts.map(millis))
        .by("later", later.map(millis))
}

/// What straggler adds to bare at the highest level, in parts of what it adds at the lowest. It is
/// meant to be flat.
fn growth(op: &str, source: Watched, answers: &[Answered], of: fn(&Level) -> &Cost) -> Goal {
    let ours = answers.iter().filter(|each| each.variant == source);
    let rounds = ours.filter_map(|ours| {
        let is_beside =
            |each: &&Answered| each.variant == Watched::Bare && each.round == ours.round;
        let bare = answers.iter().find(is_beside)?;
        let mut extras = (ours.answer.levels.iter().zip(&bare.answer.levels))
            .map(|(ours, bare)| per_op(of(ours)) - per_op(of(bare)));
        let (lowest, highest) = (extras.next()?, extras.next_back()?);
        Some((lowest > 0.0).then(|| highest / lowest))
    });
    let what = format!("extra per {op}, at the highest level / at 1,000");
    Goal::new(what, Limit::AtMost(1.0), "×").by("cpu", rounds)
}

fn per_op(cost: &Cost) -> f64 {
    cost.cpu_nanos as f64 / cost.ops as f64
}
