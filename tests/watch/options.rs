//! What a test lets stay.

use crate::{SHORT, assert_clean, left, message_of, runtimes};
use std::future::pending;
use straggler::testing::watch;
use straggler::{Kind, task};

#[test]
fn tasks_of_a_name() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT).ignore_named("reaper");
            task("reaper").spawn(pending::<()>());
            assert_clean(&watch.stragglers().await);
            task("worker").spawn(pending::<()>());
            let left = left(&watch).await;
            assert_eq!(left.tasks()[0].name(), Some("worker"));
        });
    }
}

#[test]
fn tasks_of_a_place() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT).ignore_spawned_at("src/**");
            tokio::spawn(pending::<()>());
            assert_eq!(left(&watch).await.tasks().len(), 1);
            let watch = watch.ignore_spawned_at("tests/*/options.rs");
            assert_clean(&watch.stragglers().await);
        });
    }
}

#[test]
fn tasks_of_a_line() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let line = line!() + 1;
            let stays = || tokio::spawn(pending::<()>());
            let watch = watch()
                .settle(SHORT)
                .ignore_spawned_at(&format!("tests/watch/options.rs:{line}"));
            stays();
            assert_clean(&watch.stragglers().await);
            tokio::spawn(pending::<()>());
            assert_eq!(left(&watch).await.tasks().len(), 1);
        });
    }
}

#[test]
fn tasks_that_are_there_now() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT);
            let older = tokio::spawn(pending::<()>()).id();
            let watch = watch.ignore_current();
            assert_clean(&watch.stragglers().await);
            let newer = tokio::spawn(pending::<()>()).id();
            let found = left(&watch).await;
            assert_eq!(found.tasks()[0].id(), newer);
            let watch = watch.ignore_current();
            assert_clean(&watch.stragglers().await);
            assert!(watch.tasks().iter().any(|task| task.id() == older));
        });
    }
}

#[test]
fn tasks_that_a_function_tells() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let (end, waits) = std::sync::mpsc::channel::<()>();
            let watch = watch()
                .settle(SHORT)
                .ignore(|task| task.kind() == Kind::Blocking);
            tokio::task::spawn_blocking(move || waits.recv());
            assert_clean(&watch.stragglers().await);
            tokio::spawn(pending::<()>());
            assert_eq!(left(&watch).await.tasks()[0].kind(), Kind::Task);
            drop(end);
        });
    }
}

#[test]
fn so_many_tasks() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch().settle(SHORT).expect_at_most(2);
            tokio::spawn(pending::<()>());
            tokio::spawn(pending::<()>());
            let found = watch.stragglers().await;
            assert_eq!(found.tasks().len(), 2);
            assert_clean(&found);
            watch.assert_no_stragglers().await;
            tokio::spawn(pending::<()>());
            let found = watch.stragglers().await;
            assert!(!found.passes());
            assert!(
                found.to_string().contains("where at most 2 may be"),
                "{found}"
            );
        });
    }
}

#[test]
fn options_of_a_future_that_is_checked() {
    for runtime in runtimes() {
        let leaves = async {
            task("reaper").spawn(pending::<()>());
            7
        };
        let checked = async { watch().ignore_named("reaper").check(leaves).await };
        assert_eq!(runtime.block_on(checked), 7);
    }
}

#[test]
fn all_of_them_at_once() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch()
                .settle(SHORT)
                .ignore_named("reaper")
                .ignore_spawned_at("src/**")
                .ignore(|task| task.polls() > 1_000)
                .expect_at_most(1);
            tokio::spawn(pending::<()>());
            let watch = watch.ignore_current();
            task("reaper").spawn(pending::<()>());
            tokio::spawn(pending::<()>());
            assert_clean(&watch.stragglers().await);
        });
    }
}

#[test]
fn one_that_applies_to_nothing_is_told() {
    let message = message_of(async {
        let watch = watch()
            .settle(SHORT)
            .ignore_named("repaer")
            .ignore_named("reaper")
            .ignore_spawned_at("src/nowhere.rs");
        task("reaper").spawn(pending::<()>());
        tokio::spawn(pending::<()>());
        watch.assert_no_stragglers().await;
    });
    for warning in [
        "warning: ignore_named(\"repaer\") applied to no task\n",
        "warning: ignore_spawned_at(\"src/nowhere.rs\") applied to no task\n",
    ] {
        assert!(message.contains(warning), "{message}");
    }
    assert!(!message.contains("\"reaper\""), "{message}");
}

#[test]
fn what_is_no_glob() {
    let message = message_of(async {
        drop(watch().ignore_spawned_at("src/a**"));
    });
    assert!(
        message.contains("ignore_spawned_at(\"src/a**\") is not a glob"),
        "{message}"
    );
}
