//! tracing-opentelemetry beside us, inside and outside: the same spans are exported, and
//! tasks know the trace they were spawned in.

use crate::common::{FLAVOURS, Flavour, Gate, settle};
use crate::program::{run, runtime, straggler};
use opentelemetry::trace::{Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use straggler::Source;
use tracing::dispatcher::{self, Dispatch};
use tracing::{Instrument, Metadata, info_span};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry;

#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Exported {
    fn provider(&self) -> SdkTracerProvider {
        let builder = SdkTracerProvider::builder();
        builder.with_simple_exporter(self.clone()).build()
    }

    fn named(&self, name: &str) -> SpanData {
        let spans = self.0.lock().unwrap();
        let found = spans.iter().find(|span| span.name == name);
        found
            .unwrap_or_else(|| panic!("{name} in {spans:#?}"))
            .clone()
    }

    /// All that is the same in each run.
    fn lines(&self) -> Vec<String> {
        let spans = self.0.lock().unwrap();
        let names: HashMap<_, _> = (spans.iter())
            .map(|span| (span.span_context.span_id(), span.name.to_string()))
            .collect();
        let times = [
            "busy_ns",
            "idle_ns",
            "thread.id",
            "thread.name",
            "target.id",
            "task.id",
        ];
        let mut lines: Vec<_> = (spans.iter())
            .map(|span| {
                let attributes: Vec<_> = (span.attributes.iter())
                    .filter(|attribute| !times.contains(&attribute.key.as_str()))
                    .map(|attribute| format!("{}={}", attribute.key, attribute.value))
                    .collect();
                let events: Vec<_> = span.events.iter().map(|event| event.name.clone()).collect();
                let parent = names.get(&span.parent_span_id);
                let links = span.links.len();
                format!(
                    "{} in {parent:?} {attributes:?} {events:?} {links}",
                    span.name
                )
            })
            .collect();
        lines.sort();
        lines
    }
}

/// The filter that docs/composition.md gives.
fn documented() -> FilterFn {
    fn mine(metadata: &Metadata<'_>) -> bool {
        !metadata.target().starts_with("tokio") && !metadata.target().starts_with("runtime")
    }
    filter_fn(mine)
}

macro_rules! otel {
    ($provider:expr) => {
        OpenTelemetryLayer::new($provider.tracer("test")).with_filter(documented())
    };
}

/// Runs `f` while a span of our version of `opentelemetry` is current.
pub(crate) fn in_a_trace(f: impl FnOnce()) {
    let provider = Exported::default().provider();
    let span = provider.tracer("test").start("request");
    assert!(span.span_context().is_valid());
    let _attached = opentelemetry::Context::current_with_span(span).attach();
    f();
}

#[test]
fn the_same_spans_are_exported() {
    for flavour in FLAVOURS {
        let without = Exported::default();
        let provider = without.provider();
        run(
            &Dispatch::new(registry().with(otel!(provider))),
            flavour,
            None,
        );
        drop(provider);
        let names: Vec<_> = without.lines();
        assert_eq!(names.len(), 2, "request and work: {names:#?}");
        for source in [Source::Spans, Source::Hooks, Source::Both] {
            let (inside, outside) = (Exported::default(), Exported::default());
            let (layer, tasks) = straggler().source(source).build().unwrap();
            let (first, second) = (inside.provider(), outside.provider());
            let dispatch = Dispatch::new(registry().with(otel!(first)).with(layer));
            run(&dispatch, flavour, Some(&tasks));
            let (layer, tasks) = straggler().source(source).build().unwrap();
            let dispatch = Dispatch::new(registry().with(layer).with(otel!(second)));
            run(&dispatch, flavour, Some(&tasks));
            assert_eq!(
                inside.lines(),
                without.lines(),
                "inside {source:?} {flavour:?}"
            );
            assert_eq!(
                outside.lines(),
                without.lines(),
                "outside {source:?} {flavour:?}"
            );
        }
    }
}

#[test]
fn a_task_knows_its_trace_in_both_orders() {
    for source in [Source::Spans, Source::Hooks, Source::Both] {
        for inside in [true, false] {
            let exported = Exported::default();
            let provider = exported.provider();
            let (dispatch, tasks) = if inside {
                let (layer, tasks) = straggler().source(source).build().unwrap();
                (
                    Dispatch::new(registry().with(otel!(provider)).with(layer)),
                    tasks,
                )
            } else {
                let (layer, tasks) = straggler().source(source).build().unwrap();
                (
                    Dispatch::new(registry().with(layer).with(otel!(provider))),
                    tasks,
                )
            };
            let _default = dispatcher::set_default(&dispatch);
            runtime(&dispatch, Flavour::CurrentThread, Some(&tasks)).block_on(async {
                let gate = Gate::default();
                let inner = gate.clone();
                let handler = async move {
                    let leaked = tokio::spawn(inner.passed());
                    let wrapped = straggler::spawn(inner.passed());
                    let deeper = info_span!("deeper");
                    (
                        leaked.id(),
                        wrapped.id(),
                        deeper.in_scope(|| tokio::spawn(inner.passed())),
                    )
                };
                let request = info_span!("request");
                let (leaked, wrapped, deeper) =
                    tokio::spawn(handler.instrument(request)).await.unwrap();
                let outside = tokio::spawn(gate.passed());
                let deeper = deeper.id();
                let snapshot = tasks.snapshot();
                let context = |id: tokio::task::Id| {
                    let task = snapshot.task(id).unwrap();
                    let parent = task.parent()?;
                    parent
                        .span_context()
                        .map(|cx| (cx.trace_id(), cx.span_id()))
                };
                let request = exported.named("request").span_context;
                let request = Some((request.trace_id(), request.span_id()));
                assert_eq!(context(leaked), request, "{source:?} {inside}\n{snapshot}");
                assert_eq!(context(wrapped), request, "{source:?} {inside}");
                assert_eq!(context(outside.id()), None, "{source:?} {inside}");
                let inner = exported.named("deeper").span_context;
                let inner = Some((inner.trace_id(), inner.span_id()));
                assert_eq!(context(deeper), inner, "{source:?} {inside}");
                assert_eq!(inner.map(|cx| cx.0), request.map(|cx| cx.0));
                gate.open();
                settle().await;
            });
        }
    }
}

/// Why docs/composition.md asks for the filter.
#[test]
fn without_the_filter_it_exports_every_task_with_us_and_without() {
    let exports = |with: bool| {
        let exported = Exported::default();
        let provider = exported.provider();
        let (layer, tasks) = straggler().build().unwrap();
        let otel = OpenTelemetryLayer::new(provider.tracer("test"));
        let dispatch = Dispatch::new(registry().with(otel).with(with.then_some(layer)));
        run(&dispatch, Flavour::CurrentThread, with.then_some(&tasks));
        let lines = exported.lines();
        lines
            .iter()
            .filter(|line| line.starts_with("runtime.spawn"))
            .count()
    };
    assert_eq!(exports(false), 4);
    assert_eq!(exports(true), 4);
}
