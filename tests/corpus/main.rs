//! The corpus: every leak is reported, and nothing else is. `docs/truth.md` says what it shows.
#![cfg(tokio_unstable)]
#![allow(unreachable_pub)]

mod clean;
mod harness;
mod kernels;
mod program;

use harness::{FLAVOURS, Part, Program, run_all};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// As many programs at once as make a test of seconds, and a scope's life hard.
const AT_ONCE: usize = 8;

/// Runs those programs of the corpus that `is` is true of, on both flavours, and names all that
/// went wrong.
#[track_caller]
fn all_are_right(is: impl Fn(Part) -> bool) {
    let kernels = kernels::all();
    let kernels = kernels.iter().flat_map(Program::of_kernel);
    let clean = clean::all();
    let programs = kernels.chain(clean.iter().map(Program::of_clean));
    let runs: Vec<_> = programs
        .filter(|program| is(program.part))
        .flat_map(|program| FLAVOURS.map(|flavour| (program, flavour)))
        .collect();
    let wrong = Mutex::new(Vec::new());
    run_all(&runs, AT_ONCE, |program, flavour, outcome| {
        if !outcome.is_right(program) {
            let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
            wrong.push(format!("{program}, {flavour:?}: {outcome}"));
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (some, all) = (wrong.len(), runs.len());
    assert!(
        wrong.is_empty(),
        "{some} of {all} runs:\n\n{}",
        wrong.join("\n\n")
    );
}

#[test]
fn leaks_are_reported() {
    all_are_right(|part| matches!(part, Part::Leaks { .. }));
}

#[test]
fn fixes_are_clean() {
    all_are_right(|part| part == Part::Fixed);
}

#[test]
fn what_drops_its_peer_is_clean() {
    all_are_right(|part| part == Part::DropsPeer);
}

#[test]
fn what_has_no_leak_is_only_said_to_be_alive() {
    all_are_right(|part| matches!(part, Part::Clean(_)));
}

/// As `--only` and the table go by them.
#[test]
fn ids_are_unique_and_codes_are_known() {
    let mut ids = BTreeSet::new();
    for kernel in kernels::all() {
        assert!(ids.insert(kernel.id), "{} is there twice", kernel.id);
        let codes = kernel.codes.split(['+', '/']);
        let unknown: Vec<_> = codes.filter(|code| !"ZMDQPCG".contains(code)).collect();
        assert_eq!(unknown, [""; 0], "codes of {}", kernel.id);
    }
    for clean in clean::all() {
        assert!(ids.insert(clean.id), "{} is there twice", clean.id);
    }
}
