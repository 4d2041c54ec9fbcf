//! Bad input is an error that names the value and the fix; limits are exact, counted, and
//! leave what is tracked true.
// Helpers are tests too: who unwraps says what it expects.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Gate, Truth, World, settle, site_at};
use std::sync::Arc;
use std::time::{Duration, Instant};
use straggler::{Builder, Error, Source};
use tracing_subscriber::Registry;

#[track_caller]
fn expect_refused(builder: Builder, words: &[&str]) {
    let error = builder.build::<Registry>().map(drop).unwrap_err();
    assert!(
        error.is_invalid_config() && !error.is_timeout(),
        "{error:?}"
    );
    assert!(!error.is_subscriber_already_set());
    expect_words(&error, words);
}

#[track_caller]
fn expect_words(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn limits_out_of_range_are_named_with_the_range() {
    expect_refused(
        Builder::new().max_live_tasks(0),
        &["max_live_tasks = 0", "from 1 to"],
    );
    expect_refused(
        Builder::new().max_spawn_sites(0),
        &["max_spawn_sites = 0", "from 1 to"],
    );
    expect_refused(
        Builder::new().max_name_len(0),
        &["max_name_len = 0", "from 1 to 4096"],
    );
    expect_refused(Builder::new().max_name_len(4_097), &["max_name_len = 4097"]);
    expect_refused(
        Builder::new().max_live_tasks((1 << 31) + 1),
        &["max_live_tasks = 2147483649"],
    );
    expect_refused(
        Builder::new().max_live_tasks(usize::MAX),
        &["max_live_tasks"],
    );
    expect_refused(
        Builder::new().max_spawn_sites((1 << 20) + 1),
        &["max_spawn_sites = 1048577"],
    );
}

#[test]
fn limits_that_contradict_name_both_and_the_fix() {
    let builder = Builder::new().max_live_tasks(10).max_spawn_sites(2_000);
    expect_refused(
        builder,
        &[
            "max_spawn_sites = 2000",
            "max_live_tasks = 10",
            "raise",
            "lower",
        ],
    );
}

#[test]
fn the_least_and_a_grace_of_zero_are_legal() {
    let builder = Builder::new()
        .max_live_tasks(1)
        .max_spawn_sites(1)
        .max_name_len(1);
    let builder = builder.orphan_grace(Duration::ZERO).warn_on_orphans(false);
    assert!(builder.build::<Registry>().is_ok());
    let forever = Builder::new()
        .orphan_grace(Duration::MAX)
        .warn_on_orphans(false);
    assert!(forever.build::<Registry>().is_ok());
}

#[test]
fn a_bad_glob_is_named_and_has_a_source() {
    let builder = || {
        Builder::new()
            .daemon_spawned_at("src/*.rs")
            .daemon_spawned_at("a/[")
    };
    expect_refused(builder(), &["\"a/[\"", "daemon_spawned_at", "**"]);
    let error = builder().build::<Registry>().map(drop).unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
}

#[cfg(not(tokio_unstable))]
#[test]
fn hooks_without_the_cfg_are_refused_with_the_line_to_write() {
    for source in [Source::Hooks, Source::Both] {
        expect_refused(
            Builder::new().source(source),
            &["--cfg", "tokio_unstable", ".cargo/config.toml"],
        );
    }
}

#[test]
fn after_a_refusal_a_correct_set_up_works() {
    expect_refused(Builder::new().max_live_tasks(0), &[]);
    let world = World::new();
    world.block_on(async {
        let task = straggler::spawn(std::future::pending::<()>());
        settle().await;
        assert_eq!(world.expect_task(task.id()).polls(), 1);
    });
}

#[test]
fn max_live_tasks_is_exact_and_what_is_tracked_stays_true() {
    const MOST: usize = 20;
    let world = World::with(|builder| builder.max_live_tasks(MOST));
    let truth = Arc::new(Truth::default());
    world.block_on(async {
        // With the cfg, the block_on is a task too.
        let room = MOST - world.snapshot().tasks().len();
        let gate = Gate::default();
        let line = line!() + 1;
        let spawn = || straggler::spawn(truth.count(gate.passed()));
        let tracked: Vec<_> = (0..room).map(|_| spawn()).collect();
        assert_eq!(world.snapshot().loss().refused(), 0, "exactly full");
        let refused: Vec<_> = (0..7).map(|_| spawn()).collect();
        settle().await;
        gate.nudge();
        settle().await;
        let snapshot = world.snapshot();
        assert_eq!(
            (snapshot.tasks().len(), snapshot.loss().refused()),
            (MOST, 7),
            "{snapshot}"
        );
        assert!(
            tracked
                .iter()
                .all(|task| snapshot.task(task.id()).unwrap().polls() == 2)
        );
        assert!(
            refused
                .iter()
                .all(|task| snapshot.task(task.id()).is_none())
        );
        let site = common::expect_site(&snapshot, line);
        assert_eq!(
            (site.spawned(), site.poll().count()),
            (room as u64, 2 * room as u64)
        );
        // One ends, one more fits.
        tracked[0].abort();
        settle().await;
        let fits = spawn();
        assert!(world.snapshot().task(fits.id()).is_some());
        gate.open();
        settle().await;
        let snapshot = world.snapshot();
        let site = common::expect_site(&snapshot, line);
        assert_eq!(
            (site.spawned(), site.ended(), site.live()),
            (room as u64 + 1, room as u64 + 1, 0)
        );
        assert_eq!(site.spawned() + snapshot.loss().refused(), truth.dropped());
        assert_eq!(site.lifetime().count(), site.ended());
    });
}

#[test]
fn beyond_max_spawn_sites_tasks_share_the_overflow_site_and_keep_their_place() {
    let world = World::with(|builder| builder.max_spawn_sites(3));
    world.block_on(async {
        let known = world.snapshot().sites().len();
        let named =
            |name: &str| straggler::task(name.to_owned()).spawn(std::future::pending::<()>());
        for name in ["a", "b", "c"].iter().take(3 - known) {
            named(name);
        }
        let over = [named("d"), named("e")];
        let snapshot = world.snapshot();
        assert_eq!(snapshot.sites().len(), 4, "{snapshot}");
        let overflow = snapshot.sites().find(|site| site.is_overflow()).unwrap();
        assert_eq!((overflow.spawned(), overflow.live()), (2, 2));
        assert_eq!(snapshot.loss().site_overflow(), 2);
        for (task, name) in over.iter().zip(["d", "e"]) {
            let task = snapshot.task(task.id()).unwrap();
            assert_eq!(task.name(), Some(name));
            assert_eq!(task.location().file(), "tests/limits.rs");
            assert!(snapshot.site_of(task).unwrap().is_overflow());
        }
    });
}

#[test]
fn names_are_cut_between_characters_and_counted() {
    #[cfg(tokio_unstable)]
    let sources = [Source::Spans, Source::Hooks, Source::Both];
    #[cfg(not(tokio_unstable))]
    let sources = [Source::Spans];
    for source in sources {
        let world = World::with(|builder| builder.source(source).max_name_len(4));
        world.block_on(async {
            let long = straggler::task("abcßx").spawn(std::future::pending::<()>());
            let fits = straggler::task("abcd").spawn(std::future::pending::<()>());
            assert_eq!(
                world.expect_task(long.id()).name(),
                Some("abc"),
                "{source:?}"
            );
            assert_eq!(
                world.expect_task(fits.id()).name(),
                Some("abcd"),
                "{source:?}"
            );
            assert_eq!(world.snapshot().loss().names_cut(), 1, "{source:?}");
        });
    }
}

#[test]
fn a_chain_that_respawns_itself_has_a_bounded_lineage() {
    fn link(left: u32, done: tokio::sync::oneshot::Sender<tokio::task::Id>) {
        let next = async move {
            match left {
                0 => {
                    done.send(tokio::task::id()).unwrap();
                    std::future::pending::<()>().await;
                }
                _ => link(left - 1, done),
            }
        };
        straggler::spawn(next);
    }
    let world = World::with(|builder| builder.max_live_tasks(100).max_spawn_sites(10));
    world.block_on(async {
        let (done, told) = tokio::sync::oneshot::channel();
        link(10_000, done);
        let last = told.await.unwrap();
        settle().await;
        let snapshot = world.snapshot();
        let task = snapshot.task(last).expect("the last link");
        assert!(snapshot.lineage(task).count() <= 2, "{snapshot}");
        assert_eq!(snapshot.loss().lineages_cut(), 0);
        let site = snapshot.site_of(task).unwrap();
        assert_eq!(
            (site.spawned(), site.ended(), site.live()),
            (10_001, 10_000, 1)
        );
        assert!(snapshot.loss().is_empty(), "{snapshot}");
    });
}

/// What can be set once a process; the tests beside it install nothing global.
#[test]
fn a_second_init_is_refused_and_the_first_goes_on() {
    let first = straggler::init().expect("nothing is set");
    let error = straggler::init().unwrap_err();
    assert!(error.is_subscriber_already_set() && !error.is_invalid_config());
    expect_words(
        &error,
        &["already", "Builder::new().build()", ".with(layer)"],
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let line = line!() + 1;
        let task = straggler::spawn(std::future::pending::<()>());
        let snapshot = first.tasks().snapshot();
        assert!(snapshot.task(task.id()).is_some(), "{snapshot}");
        assert_eq!(site_at(&snapshot, line).unwrap().live(), 1);
        // From a thread of the runtime, and in time.
        let began = Instant::now();
        first
            .shutdown(Duration::from_secs(10))
            .expect("the monitor is idle");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    });
}
