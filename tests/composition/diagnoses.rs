//! Why tasks are not seen for reasons outside of us, each reason with its clean twin.

use crate::common::{Flavour, Gate};
use crate::program::{Record, runtime, straggler};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use straggler::{Layer, Tasks};
use tracing::callsite::{Callsite, DefaultCallsite};
use tracing::dispatcher::{self, Dispatch};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterFn, LevelFilter, dynamic_filter_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, fmt, registry, reload};

/// Many of these ask before there is a task, which after a moment is a diagnosis too.
fn codes(tasks: &Tasks) -> Vec<&'static str> {
    let found = tasks.diagnose();
    let codes = found.iter().map(|found| found.code());
    codes.filter(|&code| code != "nothing-announced").collect()
}

fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(kept: &mut Option<Tasks>) -> Layer<S> {
    let (layer, tasks) = straggler().build().unwrap();
    *kept = Some(tasks);
    layer
}

/// Whether a task is seen, and its wakes.
fn sees(dispatch: &Dispatch, tasks: &Tasks) -> (bool, bool) {
    let _default = dispatcher::set_default(dispatch);
    runtime(dispatch, Flavour::CurrentThread, None).block_on(async {
        let gate = Gate::default();
        let task = tokio::spawn(gate.passed());
        crate::common::settle().await;
        let snapshot = tasks.snapshot();
        let seen = snapshot.task(task.id());
        (
            seen.is_some(),
            seen.is_some_and(|task| task.wakers() > Some(0)),
        )
    })
}

#[test]
fn a_filter_on_the_whole_subscriber_is_named() {
    type Make = fn(&mut Option<Tasks>) -> Dispatch;
    let cases: [(&str, Make, (bool, bool)); 12] = [
        (
            "an EnvFilter above",
            |kept| Dispatch::new(registry().with(layer(kept)).with(EnvFilter::new("info"))),
            (false, false),
        ),
        (
            "an EnvFilter below",
            |kept| Dispatch::new(registry().with(EnvFilter::new("info")).with(layer(kept))),
            (false, false),
        ),
        (
            "one that is decided at run time",
            |kept| {
                let filter = EnvFilter::new("info,[nothing{of=this}]=trace");
                Dispatch::new(registry().with(layer(kept)).with(filter))
            },
            (false, false),
        ),
        (
            "a level above",
            |kept| Dispatch::new(registry().with(layer(kept)).with(LevelFilter::INFO)),
            (false, false),
        ),
        (
            "a level below",
            |kept| Dispatch::new(registry().with(LevelFilter::INFO).with(layer(kept))),
            (false, false),
        ),
        (
            "a function above",
            |kept| {
                let filter = FilterFn::new(|meta| meta.target() != "tokio::task");
                Dispatch::new(registry().with(layer(kept)).with(filter))
            },
            (false, false),
        ),
        (
            "a function that is asked each time",
            |kept| {
                let filter = dynamic_filter_fn(|meta, _| meta.name() != "runtime.spawn");
                Dispatch::new(registry().with(layer(kept)).with(filter))
            },
            (false, false),
        ),
        (
            "a filter round the layer itself",
            |kept| {
                let layer = layer(kept).with_filter(LevelFilter::INFO);
                let neighbour = Record::default().layer();
                Dispatch::new(registry().with(layer).with(neighbour))
            },
            (false, false),
        ),
        (
            "a filter above that is reloadable",
            |kept| {
                let (filter, _) = reload::Layer::new(EnvFilter::new("info"));
                Dispatch::new(registry().with(layer(kept)).with(filter))
            },
            (false, false),
        ),
        (
            "a layer in an Option, which is told nothing of its subscriber",
            |kept| Dispatch::new(registry().with(Some(layer(kept))).with(LevelFilter::INFO)),
            (false, false),
        ),
        (
            "the wakers alone",
            |kept| {
                let filter = EnvFilter::new("trace,tokio::task::waker=off");
                Dispatch::new(registry().with(layer(kept)).with(filter))
            },
            (true, false),
        ),
        (
            "both in a tree of layers",
            |kept| {
                let tree = LevelFilter::INFO.and_then(layer(kept));
                Dispatch::new(registry().with(tree))
            },
            (false, false),
        ),
    ];
    for (case, make, truth) in cases {
        let mut kept = None;
        let dispatch = make(&mut kept);
        let tasks = kept.unwrap();
        let _default = dispatcher::set_default(&dispatch);
        let found = tasks.diagnose();
        assert_eq!(found.len(), 1, "{case}: {found:?}");
        assert_eq!(found[0].code(), "global-filter", "{case}");
        let text = found[0].to_string();
        assert!(text.contains("with_filter"), "{case}: {text}");
        let wakes_alone = !text.contains("task spans and") && text.contains("waker events");
        assert_eq!(wakes_alone, truth.0, "{case}: {text}");
        assert_eq!(sees(&dispatch, &tasks), truth, "{case}: it is true");
        assert_eq!(codes(&tasks), ["global-filter"], "{case}: and stays so");
    }
}

#[test]
fn filters_on_neighbours_are_none_of_ours() {
    type Make = fn(&mut Option<Tasks>) -> Dispatch;
    let cases: [(&str, Make); 9] = [
        ("alone", |kept| Dispatch::new(registry().with(layer(kept)))),
        ("an EnvFilter on fmt outside", |kept| {
            let fmt = fmt::layer().with_filter(EnvFilter::new("info"));
            Dispatch::new(registry().with(layer(kept)).with(fmt))
        }),
        ("an EnvFilter on fmt inside", |kept| {
            let fmt = fmt::layer().with_filter(EnvFilter::new("info,[span]=debug"));
            Dispatch::new(registry().with(fmt).with(layer(kept)))
        }),
        ("a filter that lets tokio's task spans through", |kept| {
            let filter = EnvFilter::new("info,tokio::task=trace");
            Dispatch::new(registry().with(layer(kept)).with(filter))
        }),
        ("a directive for the span itself", |kept| {
            let filter = EnvFilter::new("info,tokio::task[runtime.spawn]=trace,tokio::task=trace");
            Dispatch::new(registry().with(filter).with(layer(kept)))
        }),
        ("a function that is asked each time", |kept| {
            let filter = dynamic_filter_fn(|_, _| true);
            Dispatch::new(registry().with(layer(kept)).with(filter))
        }),
        ("inside a reload", |kept| {
            let (layer, handle) = reload::Layer::new(layer(kept));
            std::mem::forget(handle);
            Dispatch::new(registry().with(layer))
        }),
        ("in a box, in a list, in a tree", |kept| {
            let boxed: Vec<Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync>> =
                vec![Box::new(layer(kept))];
            let quiet = Record::default().layer().with_filter(LevelFilter::OFF);
            Dispatch::new(registry().with(boxed.and_then(quiet)))
        }),
        ("beside another straggler", |kept| {
            let other = layer(kept);
            Dispatch::new(registry().with(other).with(layer(kept)))
        }),
    ];
    for (case, make) in cases {
        let mut kept = None;
        let dispatch = make(&mut kept);
        let tasks = kept.unwrap();
        assert_eq!(codes(&tasks), [""; 0], "{case}");
        assert_eq!(sees(&dispatch, &tasks), (true, true), "{case}: it is true");
        assert_eq!(codes(&tasks), [""; 0], "{case}: and stays so");
    }
}

#[test]
fn a_reload_of_the_filter_changes_the_answer() {
    let (layer, tasks) = straggler().build().unwrap();
    let (filter, handle) = reload::Layer::new(EnvFilter::new("info"));
    let dispatch = Dispatch::new(registry().with(layer).with(filter));
    assert_eq!(codes(&tasks), ["global-filter"]);
    handle.reload(EnvFilter::new("trace")).unwrap();
    assert_eq!(codes(&tasks), [""; 0]);
    assert_eq!(sees(&dispatch, &tasks), (true, true));
    // A clean answer is believed for a second.
    handle.reload(EnvFilter::new("info")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while codes(&tasks) != ["global-filter"] {
        assert!(Instant::now() < deadline, "it is asked again");
        std::thread::yield_now();
    }
}

#[test]
fn asking_disturbs_nobody() {
    // With another subscriber in the process no callsite is always of interest; and such a
    // one is emitted without the filters being asked again.
    if !crate::program::alone("diagnoses::asking_disturbs_nobody", &[]) {
        return;
    }
    let record = Record::default();
    let (layer, tasks) = straggler::Builder::new().build().unwrap();
    let quiet = record.layer().with_filter(LevelFilter::INFO);
    registry().with(layer).with(quiet).init();
    let seen = || tracing::info_span!("seen").in_scope(|| tracing::info!("seen"));
    let told = |record: &Record| {
        let before = record.lines().len();
        seen();
        record.lines()[before..].to_vec()
    };
    let unasked = told(&record);
    assert_eq!(unasked.len(), 5, "{unasked:?}");
    let before = record.lines().len();
    assert_eq!(codes(&tasks), [""; 0]);
    assert_eq!(record.lines().len(), before, "nothing is emitted");
    assert_eq!(told(&record), unasked);
}

#[test]
fn a_filter_that_waits_for_us_is_not_waited_for() {
    static HELD: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let (layer, tasks) = straggler().build().unwrap();
    let locks = dynamic_filter_fn(|_, _| HELD.lock().is_ok());
    let dispatch = Dispatch::new(registry().with(layer).with(locks));
    let held = HELD.lock().unwrap();
    let asked = Instant::now();
    assert_eq!(codes(&tasks), [""; 0], "it can't be told");
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "nor is it waited for"
    );
    drop(held);
    assert_eq!(sees(&dispatch, &tasks), (true, true));
}

/// Whether the calling thread is the one that asks filters.
fn is_asker() -> bool {
    std::thread::current().name() == Some("straggler-asks")
}

#[test]
fn a_filter_that_never_answers_is_asked_once() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    let (layer, tasks) = straggler().build().unwrap();
    let hangs = dynamic_filter_fn(|_, _| {
        if is_asker() {
            ASKED.fetch_add(1, Ordering::SeqCst);
            while !OVER.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        true
    });
    let _dispatch = Dispatch::new(registry().with(layer).with(hangs));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(codes(&tasks), [""; 0]));
        }
    });
    assert_eq!(ASKED.load(Ordering::SeqCst), 1, "by one at a time");
    // A clean answer is believed for a second.
    std::thread::sleep(Duration::from_millis(1_100));
    tasks.diagnose();
    assert_eq!(ASKED.load(Ordering::SeqCst), 1, "and never again");
    OVER.store(true, Ordering::SeqCst);
}

#[test]
fn where_tasks_arrive_no_filter_is_asked() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let (layer, tasks) = straggler().build().unwrap();
    let counts = dynamic_filter_fn(|_, _| {
        ASKED.fetch_add(usize::from(is_asker()), Ordering::SeqCst);
        true
    });
    let dispatch = Dispatch::new(registry().with(layer).with(counts));
    for _ in 0..3 {
        assert_eq!(sees(&dispatch, &tasks), (true, true));
        assert_eq!(codes(&tasks), [""; 0]);
    }
    assert_eq!(ASKED.load(Ordering::SeqCst), 0);
}

#[test]
fn filters_by_module_path_do_with_us_as_with_tokio() {
    let (layer, tasks) = straggler().build().unwrap();
    let tokios = FilterFn::new(|meta| meta.module_path().is_some_and(|at| at.starts_with("tokio")));
    let dispatch = Dispatch::new(registry().with(layer).with(tokios));
    assert_eq!(codes(&tasks), [""; 0]);
    assert_eq!(sees(&dispatch, &tasks), (true, true), "it is true");
    assert_eq!(codes(&tasks), [""; 0]);
}

/// tracing's level is still that of the subscribers before, until all layers were told.
#[test]
fn while_it_is_installed_nothing_is_hidden() {
    if !crate::program::alone("diagnoses::while_it_is_installed_nothing_is_hidden", &[]) {
        return;
    }
    struct Asks(Tasks, Arc<OnceLock<Vec<&'static str>>>);
    impl<S: Subscriber> tracing_subscriber::Layer<S> for Asks {
        fn on_register_dispatch(&self, _: &Dispatch) {
            self.1.set(codes(&self.0)).unwrap();
        }
    }
    let found = Arc::default();
    let (layer, tasks) = straggler::Builder::new().build().unwrap();
    let asks = Asks(tasks, Arc::clone(&found));
    let quiet = fmt::layer().with_filter(EnvFilter::new("info"));
    registry().with(layer).with(quiet).with(asks).init();
    assert_eq!(found.get().unwrap(), &[""; 0]);
}

#[test]
fn blindness_is_warned_of_through_the_log() {
    let record = Record::default();
    let (layer, _tasks) = straggler().warn_on_orphans(true).build().unwrap();
    let subscriber = registry()
        .with(layer)
        .with(record.layer())
        .with(LevelFilter::INFO);
    let _dispatch = Dispatch::new(subscriber);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !record
        .lines()
        .iter()
        .any(|line| line.contains("[global-filter]"))
    {
        assert!(Instant::now() < deadline, "{:?}", record.lines());
        std::thread::yield_now();
    }
}

/// A callsite as a crate at this place would have it.
fn callsite_in(file: &'static str) {
    struct Place {
        callsite: OnceLock<DefaultCallsite>,
        metadata: OnceLock<Metadata<'static>>,
    }
    let place: &'static Place = Box::leak(Box::new(Place {
        callsite: OnceLock::new(),
        metadata: OnceLock::new(),
    }));
    struct Id(&'static Place);
    impl Callsite for Id {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            self.0.metadata.get().unwrap()
        }
    }
    let id: &'static Id = Box::leak(Box::new(Id(place)));
    let fields = tracing::field::FieldSet::new(&[], tracing::callsite::Identifier(id));
    place.metadata.get_or_init(|| {
        let target = "opentelemetry";
        let kind = tracing::metadata::Kind::EVENT;
        Metadata::new(
            "event",
            target,
            Level::DEBUG,
            Some(file),
            None,
            None,
            fields,
            kind,
        )
    });
    let metadata = place.metadata.get().unwrap();
    let callsite = place
        .callsite
        .get_or_init(|| DefaultCallsite::new(metadata));
    callsite.register();
}

const OTHER: &str = "/cargo/registry/src/index-1/opentelemetry-0.31.0/src/global/trace.rs";
const OURS: &str = "/cargo/registry/src/index-1/opentelemetry-0.33.9/src/global/trace.rs";

#[test]
fn another_opentelemetry_is_named() {
    // Callsites are the process's: each world here would see those of the other tests.
    if !crate::program::alone("diagnoses::another_opentelemetry_is_named", &[]) {
        return;
    }
    let run = |tasks: &Tasks, dispatch: &Dispatch, span: fn() -> tracing::Span| {
        let _default = dispatcher::set_default(dispatch);
        runtime(dispatch, Flavour::CurrentThread, None).block_on(async {
            let task = span().in_scope(|| tokio::spawn(async {}));
            task.await.unwrap();
        });
        codes(tasks)
    };
    let spawn = |tasks: &Tasks, dispatch: &Dispatch| {
        run(tasks, dispatch, || tracing::info_span!("request"))
    };
    let (layer, clean) = straggler().build().unwrap();
    let dispatch = Dispatch::new(registry().with(layer));
    callsite_in(OURS);
    assert_eq!(spawn(&clean, &dispatch), [""; 0], "our own version");
    callsite_in(OTHER);
    let (layer, traceless) = straggler().build().unwrap();
    let without_spans = Dispatch::new(registry().with(layer));
    let found = run(&traceless, &without_spans, tracing::Span::none);
    assert_eq!(found, [""; 0], "there was nothing to have a trace");
    assert_eq!(spawn(&clean, &dispatch), ["other-opentelemetry"]);
    let text = clean.diagnose()[0].to_string();
    assert!(
        text.contains("0.31") && text.contains("trace_context"),
        "{text}"
    );

    let (layer, told) = straggler().trace_context(|| None).build().unwrap();
    let dispatch = Dispatch::new(registry().with(layer));
    assert_eq!(spawn(&told, &dispatch), [""; 0], "the program says how");

    let (layer, traced) = straggler().build().unwrap();
    let dispatch = Dispatch::new(registry().with(layer));
    assert_eq!(spawn(&traced, &dispatch), ["other-opentelemetry"]);
    crate::opentelemetry::in_a_trace(|| {
        assert_eq!(
            spawn(&traced, &dispatch),
            [""; 0],
            "traces of ours are seen"
        );
    });
}
