//! The message, word for word.

use crate::{SHORT, message_of, own_layer};
use std::future::pending;
use std::time::Duration;
use straggler::task;
use straggler::testing::watch;
use tracing::{Instrument, dispatcher, info_span};

/// Without the lines, which move with this file, and without how long it waited.
fn still(message: &str) -> String {
    let lines = message.lines().map(|line| {
        let words = line.split("tests/watch/message.rs:");
        let words = words.enumerate().map(|(at, words)| match at {
            0 => words.to_owned(),
            _ => {
                let rest = words.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
                format!("message.rs{rest}")
            }
        });
        words.collect::<String>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn tasks_by_their_sites() {
    let (_, dispatch, clock) = own_layer(|builder| builder);
    let _guard = dispatcher::set_default(&dispatch);
    let message = message_of(async move {
        let watch = watch().settle(Duration::ZERO).ignore_named("reaper");
        let request = async {
            for _ in 0..3 {
                tokio::spawn(async {
                    tokio::task::yield_now().await;
                    pending::<()>().await;
                });
            }
            let refresh = async { drop(task("refresh").spawn(pending::<()>())) };
            tokio::spawn(refresh).await.expect("no panic");
        };
        tokio::spawn(request.instrument(info_span!(target: "shop", "handle_request")))
            .await
            .expect("no panic");
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(90));
        task("late").spawn(pending::<()>());
        watch.assert_no_stragglers().await;
    });
    assert_eq!(still(&message), EXPECTED, "\n{message}");
}

const EXPECTED: &str = r#"straggler: 5 tasks are still there
in the watch opened at message.rs

    3 × message.rs
        3 idle; the oldest 1m30s old, polled 2 times, last 1m30s ago
        spawned by message.rs < the test
        in span handle_request (shop)
    1 × "late" message.rs
        scheduled; 0s old, never polled
        spawned by the test
    1 × "refresh" message.rs
        idle; 1m30s old, polled once, last 1m30s ago
        spawned by message.rs < message.rs < the test

Await them (keep their JoinHandles, or a JoinSet), or cancel them (abort, cancel their token, drop
the other end of what they wait for) before the test ends.
If they are meant to stay, say so: `straggler::daemon(|| tokio::spawn(…))` where they are spawned, or
`.ignore_spawned_at("message.rs")` or `.ignore_named(…)` on the watch.

warning: ignore_named("reaper") applied to no task

(asserted at message.rs)"#;

#[test]
fn long_lists_are_cut() {
    let (_, dispatch, _) = own_layer(|builder| builder);
    let _guard = dispatcher::set_default(&dispatch);
    let message = message_of(async {
        let watch = watch().settle(SHORT);
        for group in 0..13 {
            for _ in 0..20 - group {
                task(format!("worker {group:02}")).spawn(pending::<()>());
            }
        }
        watch.assert_no_stragglers().await;
    });
    assert!(
        message.starts_with("straggler: 182 tasks are still there"),
        "{message}"
    );
    assert!(
        message.contains("\n   20 × \"worker 00\" tests/watch/message.rs:"),
        "{message}"
    );
    assert!(!message.contains("\"worker 10\""), "{message}");
    assert!(
        message.contains("\n  and 3 groups more, of 27 tasks\n"),
        "{message}"
    );
}

#[test]
fn not_a_word_of_what_is_not_known() {
    let message = message_of(async {
        let watch = watch().settle(SHORT);
        tokio::spawn(pending::<()>());
        watch.assert_no_stragglers().await;
    });
    for word in ["leak", "orphan", "stuck", "deadlock"] {
        assert!(!message.to_lowercase().contains(word), "{message}");
    }
}
