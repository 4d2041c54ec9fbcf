//! What neighbours see is what they saw without us, inside and outside of us.

use crate::common::{FLAVOURS, Flavour};
use crate::program::{Record, alone, run, straggler};
use std::io;
use std::sync::{Arc, Mutex};
use straggler::Source;
use tracing::dispatcher::Dispatch;
use tracing_error::{ErrorLayer, SpanTrace};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

const SOURCES: [Source; 3] = [Source::Spans, Source::Hooks, Source::Both];

/// What `fmt` wrote.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Text {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A fmt layer with a filter of its own, which writes all but times.
macro_rules! fmt {
    ($text:expr, $filter:expr) => {{
        let text = $text.clone();
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .without_time()
            .with_span_events(FmtSpan::FULL)
            .with_writer(move || text.clone())
            .with_filter(EnvFilter::new($filter))
    }};
}

#[test]
fn an_unfiltered_layer_sees_the_same_calls_in_the_same_order() {
    let without = Record::default();
    let dispatch = Dispatch::new(registry().with(without.layer()));
    run(&dispatch, Flavour::CurrentThread, None);
    let without = without.lines();
    let tokio = |line: &String| line.contains("tokio::task runtime.spawn");
    assert_eq!(
        without.iter().filter(|line| tokio(line)).count(),
        4,
        "{without:#?}"
    );
    for source in SOURCES {
        let (inside, outside) = (Record::default(), Record::default());
        let (layer, tasks) = straggler().source(source).build().unwrap();
        let subscriber = registry()
            .with(inside.layer())
            .with(layer)
            .with(outside.layer());
        run(
            &Dispatch::new(subscriber),
            Flavour::CurrentThread,
            Some(&tasks),
        );
        for record in [inside, outside] {
            assert_eq!(record.lines(), without, "{source:?}");
        }
    }
}

#[test]
fn a_filtered_layer_sees_nothing_of_tokio_and_all_of_its_own() {
    for flavour in FLAVOURS {
        let without = Record::default();
        let filtered = without.layer().with_filter(LevelFilter::INFO);
        run(&Dispatch::new(registry().with(filtered)), flavour, None);
        assert!(without.lines().iter().any(|line| line.contains("helped")));
        for source in SOURCES {
            let (inside, outside) = (Record::default(), Record::default());
            let (layer, tasks) = straggler().source(source).build().unwrap();
            let subscriber = registry()
                .with(inside.layer().with_filter(LevelFilter::INFO))
                .with(layer)
                .with(outside.layer().with_filter(LevelFilter::INFO));
            run(&Dispatch::new(subscriber), flavour, Some(&tasks));
            for record in [inside, outside] {
                if flavour == Flavour::CurrentThread {
                    assert_eq!(record.lines(), without.lines(), "{source:?}");
                }
                assert_eq!(record.sorted(), without.sorted(), "{source:?} {flavour:?}");
            }
        }
    }
}

#[test]
fn fmt_behind_an_env_filter_writes_the_same_text() {
    // By target, and by a span: the second is decided at run time.
    for filter in ["info", "warn,composition=info", "warn,[request]=debug"] {
        let without = Text::default();
        let dispatch = Dispatch::new(registry().with(fmt!(without, filter)));
        run(&dispatch, Flavour::CurrentThread, None);
        assert!(
            without.text().contains("helped"),
            "{filter}: {}",
            without.text()
        );
        for source in SOURCES {
            let (inside, outside) = (Text::default(), Text::default());
            let (layer, tasks) = straggler().source(source).build().unwrap();
            let subscriber = registry()
                .with(fmt!(inside, filter))
                .with(layer)
                .with(fmt!(outside, filter));
            run(
                &Dispatch::new(subscriber),
                Flavour::CurrentThread,
                Some(&tasks),
            );
            assert_eq!(
                inside.text(),
                without.text(),
                "inside, {filter}, {source:?}"
            );
            assert_eq!(
                outside.text(),
                without.text(),
                "outside, {filter}, {source:?}"
            );
        }
    }
}

#[test]
fn a_span_trace_has_the_same_spans() {
    fn trace(dispatch: &Dispatch) -> String {
        tracing::dispatcher::with_default(dispatch, || {
            let runtime = crate::program::runtime(dispatch, Flavour::CurrentThread, None);
            runtime.block_on(async {
                use tracing::Instrument;
                let task = async {
                    tracing::info_span!("inner", answer = 42).in_scope(SpanTrace::capture)
                };
                let task = tokio::spawn(task.instrument(tracing::info_span!("outer")));
                // Of where it was captured too: both are of this file.
                format!("{}", task.await.unwrap())
            })
        })
    }
    let info = LevelFilter::INFO;
    let without = trace(&Dispatch::new(
        registry().with(ErrorLayer::default().with_filter(info)),
    ));
    assert!(
        without.contains("inner") && without.contains("answer=42"),
        "{without}"
    );
    assert!(without.contains("outer"), "{without}");
    let (layer, _tasks) = straggler().build().unwrap();
    let inside = registry()
        .with(ErrorLayer::default().with_filter(info))
        .with(layer);
    assert_eq!(trace(&Dispatch::new(inside)), without);
    let (layer, _tasks) = straggler().build().unwrap();
    let outside = registry()
        .with(layer)
        .with(ErrorLayer::default().with_filter(info));
    assert_eq!(trace(&Dispatch::new(outside)), without);
    // Unfiltered, it shows tokio's spans, with us as without.
    let without = trace(&Dispatch::new(registry().with(ErrorLayer::default())));
    assert!(without.contains("runtime.spawn"), "{without}");
    let (layer, _tasks) = straggler().build().unwrap();
    let with = registry().with(ErrorLayer::default()).with(layer);
    assert_eq!(
        trace(&Dispatch::new(with)).matches("::").count(),
        without.matches("::").count()
    );
}

#[test]
fn as_the_process_subscriber_it_is_the_same() {
    if !alone("neighbours::as_the_process_subscriber_it_is_the_same", &[]) {
        return;
    }
    let text = Text::default();
    let (layer, tasks) = straggler().build().unwrap();
    registry().with(layer).with(fmt!(text, "info")).init();
    let global = tracing::dispatcher::get_default(Dispatch::clone);
    run(&global, Flavour::CurrentThread, Some(&tasks));
    let without = Text::default();
    let alone = Dispatch::new(registry().with(fmt!(without, "info")));
    run(&alone, Flavour::CurrentThread, None);
    assert_eq!(text.text(), without.text());
}

#[test]
fn another_subscriber_on_one_thread_keeps_its_own() {
    let without = Record::default();
    let dispatch = Dispatch::new(registry().with(without.layer()));
    run(&dispatch, Flavour::CurrentThread, None);
    let (layer, tasks) = straggler().build().unwrap();
    let ours = Dispatch::new(registry().with(layer));
    let _ours = tracing::dispatcher::set_default(&ours);
    let with = Record::default();
    let dispatch = Dispatch::new(registry().with(with.layer()));
    run(&dispatch, Flavour::CurrentThread, None);
    assert_eq!(with.lines(), without.lines());
    let snapshot = tasks.snapshot();
    assert_eq!(snapshot.tasks().count(), 0, "it went elsewhere\n{snapshot}");
    run(&ours, Flavour::CurrentThread, Some(&tasks));
}
