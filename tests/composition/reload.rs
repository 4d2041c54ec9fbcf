//! `tracing_subscriber::reload`: round a neighbour's filter, and round straggler's own layer.

use crate::common::{Flavour, Gate, settle};
use crate::program::{Record, run, runtime, straggler};
use straggler::{Cause, Source, State};
use tracing::dispatcher::{self, Dispatch};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Identity;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry, registry, reload};

#[test]
fn a_neighbours_filter_is_reloaded_while_tasks_live() {
    let told = |straggler: bool| {
        let record = Record::default();
        let (filter, handle) = reload::Layer::new(LevelFilter::WARN);
        let neighbour = record.layer().with_filter(filter);
        let (layer, tasks) = crate::program::straggler().build().unwrap();
        let layer = straggler.then_some(layer);
        let dispatch = Dispatch::new(registry().with(neighbour).with(layer));
        let tasks = straggler.then_some(&tasks);
        run(&dispatch, Flavour::CurrentThread, tasks);
        let at_warn = record.lines().len();
        handle.modify(|level| *level = LevelFilter::INFO).unwrap();
        if let Some(tasks) = tasks {
            assert_eq!(tasks.diagnose(), []);
        }
        let _default = dispatcher::set_default(&dispatch);
        tracing::info_span!("later").in_scope(|| tracing::info!("now"));
        (at_warn, record.lines())
    };
    let (at_warn, without) = told(false);
    assert_eq!((at_warn, without.len()), (0, 5), "{without:#?}");
    assert_eq!(told(true), (at_warn, without));
}

#[test]
fn inside_a_reload_every_source_works() {
    for source in [Source::Spans, Source::Hooks, Source::Both] {
        let (layer, tasks) = straggler().source(source).build().unwrap();
        let (layer, _handle) = reload::Layer::new(layer);
        let dispatch = Dispatch::new(registry().with(layer));
        run(&dispatch, Flavour::CurrentThread, Some(&tasks));
    }
}

#[test]
fn a_wrapped_task_finds_its_layer_inside_a_reload() {
    let (layer, tasks) = straggler().build().unwrap();
    type Any = Box<dyn Layer<Registry> + Send + Sync>;
    let (layer, handle) = reload::Layer::new(Box::new(layer) as Any);
    let dispatch = Dispatch::new(registry().with(layer));
    let _default = dispatcher::set_default(&dispatch);
    runtime(&dispatch, Flavour::CurrentThread, Some(&tasks)).block_on(async {
        let gate = Gate::default();
        let inner = gate.clone();
        let outer =
            straggler::task("outer").spawn(async move { straggler::spawn(inner.passed()).id() });
        let orphan = outer.await.unwrap();
        let snapshot = tasks.snapshot();
        let task = snapshot.task(orphan).expect("it is seen");
        assert_eq!(task.orphaned().unwrap().cause(), Cause::ParentEnded);
        assert_eq!(task.state(), Some(State::Idle), "its wakes are seen too");
        let ended: u64 = snapshot.sites().map(|site| site.completed()).sum();
        assert_eq!(ended, 1, "a wrapped task knows how it ended\n{snapshot}");
        gate.open();
        settle().await;
        // Taken out, it is not found any more, though somebody still asks the table.
        handle.reload(Box::new(Identity::new()) as Any).unwrap();
        let gate = Gate::default();
        let unseen = straggler::spawn(gate.passed());
        assert!(tasks.snapshot().task(unseen.id()).is_none());
    });
}

#[test]
fn a_subscriber_at_the_place_of_another_is_not_taken_for_it() {
    let (layer, tasks) = straggler().build().unwrap();
    let (layer, _handle) = reload::Layer::new(layer);
    drop(Dispatch::new(registry().with(layer)));
    for _ in 0..64 {
        let dispatch = Dispatch::new(registry());
        let _default = dispatcher::set_default(&dispatch);
        runtime(&dispatch, Flavour::CurrentThread, None).block_on(async {
            straggler::spawn(async {}).await.unwrap();
        });
    }
    assert_eq!(tasks.snapshot().sites().len(), 0);
}
