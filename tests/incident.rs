//! The incident example keeps what it promises, to the task: the leak, the fix, the fix
//! alone, and words for bad input.
#![cfg(all(tokio_unstable, feature = "spans"))]
#![allow(clippy::unwrap_used)] // Also in the helpers, which are tests too.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

const SOURCE: &str = include_str!("../examples/incident.rs");
const TASKS: &str = "5000";
/// For a run, which takes a second.
const DEADLINE: Duration = Duration::from_secs(60);

/// `cargo test` builds the examples beside the tests, `cargo test --test incident` only
/// the test. So the example is asked for as this test was built: fresh, it costs a look.
static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().unwrap();
    let profile_dir = test.parent().and_then(Path::parent).unwrap();
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let features = if cfg!(feature = "opentelemetry") {
        "spans,opentelemetry"
    } else {
        "spans"
    };
    let built = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--example", "incident"])
        .args(["--profile", profile, "--no-default-features"])
        .args(["--features", features, "--target-dir"])
        .arg(profile_dir.parent().unwrap())
        .status()
        .unwrap();
    assert!(built.success(), "the example builds");
    let name = format!("incident{}", std::env::consts::EXE_SUFFIX);
    profile_dir.join("examples").join(name)
});

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the example to its end; one that waits for what never comes is stopped.
fn incident(args: &[&str]) -> Run {
    let mut child = (Command::new(&*EXAMPLE).args(args))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = read(child.stdout.take().unwrap());
    let stderr = read(child.stderr.take().unwrap());
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let status = status.unwrap_or_else(|| panic!("{args:?} hangs:\n{stdout}{stderr}"));
    let code = status.code();
    Run {
        code,
        stdout,
        stderr,
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

/// `examples/incident.rs:LINE` of the spawn that leaks.
fn leaking_site() -> String {
    let spawn = "tokio::spawn(async move { results.send(message).await })";
    let lines = (1..).zip(SOURCE.lines());
    let leaks: Vec<(u32, _)> = lines.filter(|(_, text)| text.contains(spawn)).collect();
    let [(line, _)] = leaks[..] else {
        panic!("one spawn leaks: {leaks:?}");
    };
    format!("examples/incident.rs:{line}")
}

#[test]
fn the_leak_is_counted_and_placed_and_the_fix_is_clean() {
    let Run { code, stdout, .. } = incident(&["--tasks", TASKS]);
    assert_eq!(code, Some(0), "{stdout}");
    let site = leaking_site();
    let last = format!("incident: leaked=5000 site={site} after_fix=512");
    assert_eq!(stdout.lines().last(), Some(last.as_str()), "{stdout}");

    let (leak, fix) = stdout.split_once("== the fix").expect("two parts");
    // One group of orphans, and that is all of them.
    let orphans = leak.split_once("\nORPHANS").expect("a report").1;
    let orphans = orphans.split_once("\n\n").expect("its end").0;
    let groups: Vec<_> = orphans
        .lines()
        .filter(|line| line.contains("  oldest "))
        .collect();
    let [group] = groups[..] else {
        panic!("one group of orphans: {groups:?}\n{stdout}");
    };
    let words: Vec<_> = group.split_whitespace().take(2).collect();
    assert_eq!(words, ["5,000", site.as_str()], "{stdout}");
    assert!(orphans.contains("in span handle_request"), "{stdout}");
    // And one row of the table: live, orphans, spawned, ended.
    let rows: Vec<_> = leak.lines().filter(|line| line.ends_with(&site)).collect();
    let [row] = rows[..] else {
        panic!("one row for the site: {rows:?}\n{stdout}");
    };
    let numbers: Vec<_> = row.split_whitespace().take(4).collect();
    assert_eq!(numbers, ["5,000", "5,000", "5,000", "0"], "{stdout}");
    assert_nothing_is_lost(leak);
    assert_fixed(fix);
}

#[test]
fn the_fix_alone_shows_no_leak() {
    let Run { code, stdout, .. } = incident(&["--tasks", TASKS, "--fixed"]);
    assert_eq!(code, Some(0), "{stdout}");
    let last = "incident: leaked=0 site=- after_fix=512";
    assert_eq!(stdout.lines().last(), Some(last), "{stdout}");
    assert!(!stdout.contains(&leaking_site()), "{stdout}");
    assert_fixed(&stdout);
}

#[test]
fn bad_input_is_named_with_the_usage() {
    for (args, wrong) in [
        (&["--tasks", "0"][..], "--tasks 0 is not a number above 0"),
        (&["--tasks", "many"], "--tasks many is not a number above 0"),
        (&["--tasks"], "--tasks needs a number"),
        (&["--nope"], "unknown option --nope"),
    ] {
        let run = incident(args);
        assert_eq!(run.code, Some(2), "{args:?}");
        assert_eq!(run.stdout, "", "{args:?}");
        let said = format!("incident: {wrong}; usage: incident [--tasks N] [--fixed]\n");
        assert_eq!(run.stderr, said, "{args:?}");
    }
}

fn assert_fixed(report: &str) {
    assert!(!report.contains("ORPHANS"), "{report}");
    assert!(report.contains("no orphans"), "{report}");
    assert_nothing_is_lost(report);
}

fn assert_nothing_is_lost(report: &str) {
    let lost: Vec<_> = report
        .lines()
        .filter(|line| line.starts_with("lost:"))
        .collect();
    assert_eq!(lost, ["lost: nothing"], "{report}");
    assert!(!report.contains("note:"), "{report}");
}
