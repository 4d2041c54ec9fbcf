//! The corpus: every leak is reported, and nothing else is. `docs/truth.md` says what it shows.
#![allow(unreachable_pub)]

mod clean;
mod harness;
mod kernels;
mod program;

use harness::{FLAVOURS, Flavour, Part, Program, run_all};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Runs those programs of the corpus that `is` is true of, and names all that went wrong.
#[track_caller]
fn all_are_right(flavour: Flavour, is: impl Fn(Part) -> bool) {
    let kernels = kernels::all();
    let kernels = kernels.iter().flat_map(Program::of_kernel);
    let clean = clean::all();
    let clean = clean.iter().map(Program::of_clean);
    let runs: Vec<_> = kernels
        .chain(clean)
        .filter(|program| is(program.part))
        .map(|program| (program, flavour))
        .collect();
    let wrong = Mutex::new(Vec::new());
    run_all(&runs, 4, |program, _, outcome| {
        let leaks_by_chance = program.part == Part::Leaks { flaky: true };
        let is_right = match leaks_by_chance {
            true => outcome.broken.is_none() && outcome.wrong.is_empty(),
            false => outcome.is_right(),
        };
        if !is_right {
            let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
            wrong.push(format!("{program}: {outcome}"));
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(
        wrong.is_empty(),
        "{} of {} programs, {flavour:?}:\n\n{}",
        wrong.len(),
        runs.len(),
        wrong.join("\n\n")
    );
}

/// A test for each part of the corpus, on each flavour.
macro_rules! parts {
    ($($part:ident: $is:pat,)*) => {$(
        mod $part {
            use super::*;

            #[test]
            fn on_a_current_thread_runtime() {
                all_are_right(Flavour::CurrentThread, |part| matches!(part, $is));
            }

            #[test]
            fn on_a_multi_thread_runtime() {
                all_are_right(Flavour::MultiThread, |part| matches!(part, $is));
            }
        }
    )*};
}

parts! {
    leaks_are_reported: Part::Leaks { .. },
    fixes_are_clean: Part::Fixed,
    what_drops_its_peer_is_clean: Part::DropsPeer,
    what_has_no_leak_is_only_alive: Part::Clean(_),
}

#[test]
fn ids_are_unique() {
    let kernels = kernels::all();
    let clean = clean::all();
    let ids = kernels.iter().map(|kernel| kernel.id);
    let ids: Vec<_> = ids.chain(clean.iter().map(|clean| clean.id)).collect();
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    assert_eq!(FLAVOURS.len(), 2);
}
