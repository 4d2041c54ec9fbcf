//! The thread's subscriber before, during and after a watch.

use crate::recorder::Recorder;
use std::future::pending;
use straggler::testing::watch;
use tokio::runtime::Runtime;
use tracing::dispatcher;
use tracing::info;
use tracing::subscriber::{NoSubscriber, set_default};
use tracing_subscriber::Registry;
use tracing_subscriber::prelude::*;

fn runtime() -> Runtime {
    (tokio::runtime::Builder::new_current_thread().enable_all())
        .build()
        .expect("a runtime")
}

fn has_none() -> bool {
    dispatcher::get_default(|default| default.is::<NoSubscriber>())
}

fn said(recorder: &Recorder, what: &str) -> bool {
    recorder.lines().iter().any(|line| line.contains(what))
}

#[test]
fn a_thread_is_left_as_it_was_and_can_be_watched_again() {
    for _ in 0..3 {
        assert!(has_none());
        let runtime = runtime();
        let watch = watch();
        assert!(!has_none());
        runtime.block_on(async {
            tokio::spawn(pending::<()>());
            assert_eq!(watch.stragglers().await.tasks().len(), 1);
        });
        drop(watch);
        assert!(has_none());
    }
}

#[test]
fn a_watch_that_is_dropped_elsewhere_leaves_its_thread_later() {
    let first = watch();
    std::thread::spawn(move || drop(first))
        .join()
        .expect("no panic");
    let second = watch();
    drop(second);
    assert!(has_none());
}

#[test]
fn watches_that_are_dropped_in_the_wrong_order_leave_together() {
    let first = watch();
    let second = watch();
    drop(first);
    let runtime = runtime();
    runtime.block_on(async {
        tokio::spawn(pending::<()>());
        assert_eq!(second.stragglers().await.tasks().len(), 1);
    });
    drop(second);
    assert!(has_none());
}

#[test]
fn a_scoped_subscriber_is_told_and_comes_back() {
    let recorder = Recorder::new("scoped");
    let _scoped = set_default(Registry::default().with(recorder.clone()));
    let watch = watch();
    info!("while it is watched");
    drop(watch);
    info!("afterwards");
    assert!(said(&recorder, "while it is watched") && said(&recorder, "afterwards"));
    assert!(dispatcher::get_default(|default| default.is::<Recorder>()));
}

#[test]
fn a_subscriber_that_is_set_inside_has_the_thread_to_itself_but_for_our_tasks() {
    let runtime = runtime();
    let watch = watch();
    let recorder = Recorder::new("inside");
    let inside = set_default(Registry::default().with(recorder.clone()));
    info!("inside");
    drop(inside);
    info!("outside");
    assert!(said(&recorder, "inside") && !said(&recorder, "outside"));
    runtime.block_on(async {
        let _inside = set_default(Registry::default().with(recorder.clone()));
        info!("once more");
    });
    assert!(said(&recorder, "once more"));
    drop(watch);
    assert!(has_none());
}
