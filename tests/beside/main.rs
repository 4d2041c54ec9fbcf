//! A watch's subscriber beside others: what those see, and that tasks are seen all the same.
//!
//! What is set for a whole process is set in a process of its own: those tests run this
//! program once more, with one of the ignored tests below as all it does.
#![cfg(tokio_unstable)]
#![allow(unreachable_pub)]

mod children;
mod program;
mod recorder;
mod threads;

use std::process::Command;

/// Runs one of the tests in `children` in a process of its own, and gives what it wrote.
#[track_caller]
fn child(name: &str, setting: &[(&str, &str)]) -> String {
    let this = std::env::current_exe().expect("a test is a file");
    let output = Command::new(this)
        .args([
            &format!("children::{name}"),
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .args(["--test-threads", "1"])
        .envs(setting.iter().copied())
        .env("RUST_LOG", "info")
        .output()
        .expect("it can be run once more");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name} {setting:?}:\n{out}\n{err}");
    assert!(out.contains("1 passed"), "{name} was not run:\n{out}");
    out + &err
}

/// The lines of a recorder.
fn recorded(output: &str) -> Vec<&str> {
    (output.lines().filter(|line| line.starts_with("| "))).collect()
}

#[test]
fn a_neighbour_sees_what_it_sees_alone() {
    for set_up in ["unfiltered", "own-filters", "env-filters", "global-filter"] {
        for flavour in ["current-thread", "multi-thread"] {
            let run = |who| {
                let set_up = [("SET_UP", set_up), ("FLAVOUR", flavour), ("WHO", who)];
                child("a_program", &set_up)
            };
            let (alone, beside) = (run("alone"), run("beside"));
            let (mut alone, mut beside) = (recorded(&alone), recorded(&beside));
            if set_up == "env-filters" {
                // A filter that goes by spans leaves it to its level to keep tokio's spans out, and
                // no subscriber tells another its level: a blocking task's then holds its parent.
                alone.retain(|line| !line.contains("close blocks"));
                beside.retain(|line| !line.contains("close blocks"));
            }
            assert!(alone.len() > 20, "{set_up} {flavour}: {alone:#?}");
            let first = (alone.iter().zip(&beside)).position(|(one, other)| one != other);
            assert_eq!(
                alone, beside,
                "{set_up}, {flavour}: they differ at {first:?}"
            );
        }
    }
}

#[test]
fn a_subscriber_that_is_set_later_is_told() {
    child("set_later", &[]);
}

#[test]
fn under_test_log_both_see() {
    let text = child("under_test_log", &[]);
    for said in ["said in the body", "said in a task", "said by log"] {
        assert_eq!(text.matches(said).count(), 1, "{said}: {text}");
    }
}

#[test]
fn under_traced_test_both_see() {
    child("under_traced_test", &[]);
}
