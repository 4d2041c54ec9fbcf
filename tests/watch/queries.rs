//! What a test asks of its tasks beside whether they are gone.

use crate::{runtimes, until};
use std::future::pending;
use straggler::testing::watch;
use straggler::{State, task};
use tokio::task::yield_now;

#[test]
fn a_named_task_and_what_became_of_it() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let worker = task("worker").spawn(async {
                yield_now().await;
                yield_now().await;
            });
            worker.await.expect("no panic");
            let seen = watch.named("worker");
            assert_eq!((seen.spawned(), seen.ended(), seen.live()), (1, 1, 0));
            assert_eq!((seen.completed(), seen.polls()), (1, 3));
            assert_eq!(seen.lifetime().count(), 1);
            assert!(seen.lifetime().sum() > std::time::Duration::ZERO);
            assert_eq!(seen.sites(), 1);
        });
    }
}

#[test]
fn how_tasks_ended() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let panics = straggler::spawn(async { panic!("as it should") });
            panics.await.expect_err("it panics");
            let aborted = straggler::spawn(pending::<()>());
            yield_now().await;
            aborted.abort();
            aborted.await.expect_err("it was aborted");
            let all = watch.all();
            assert_eq!((all.spawned(), all.ended()), (2, 2));
            assert_eq!((all.panicked(), all.aborted(), all.completed()), (1, 1, 0));
        });
    }
}

#[test]
fn the_sites_of_a_place_are_added_up() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let first = line!() + 1;
            tokio::spawn(pending::<()>());
            tokio::spawn(pending::<()>());
            tokio::spawn(async {}).await.expect("no panic");
            let file = watch.site("watch/queries.rs");
            assert_eq!((file.sites(), file.live(), file.spawned()), (3, 2, 3));
            assert!(file.oldest().is_some());
            let line = watch.site(&format!("tests/watch/queries.rs:{first}"));
            assert_eq!((line.sites(), line.live(), line.spawned()), (1, 1, 1));
        });
    }
}

#[test]
fn no_site_is_all_zero() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            tokio::spawn(async {}).await.expect("no panic");
            // Part of a name is no match: `ies.rs`.
            for none in [watch.site("ies.rs"), watch.site(""), watch.named("worker")] {
                assert_eq!((none.sites(), none.live(), none.spawned()), (0, 0, 0));
                assert_eq!((none.ended(), none.polls(), none.oldest()), (0, 0, None));
            }
        });
    }
}

#[test]
fn the_live_tasks_themselves() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let watch = watch();
            let id = task("worker").spawn(pending::<()>()).id();
            until(|| watch.named("worker").polls() > 0).await;
            let tasks = watch.tasks();
            let worker = tasks.iter().find(|task| task.id() == id).expect("it lives");
            assert_eq!(worker.name(), Some("worker"));
            until(|| watch.tasks()[0].state() == State::Idle).await;
        });
    }
}
