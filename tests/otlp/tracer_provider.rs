//! Spans through the program's own provider, and by no other way.

use super::common::{Gate, MS, settle};
use super::exporting::{LONG, audit, context, flush, orphan, otlp, world};
use super::received::Signal;
use super::receiver::{Protocol, Receiver};
use super::view::Point;
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor, TracerProviderBuilder,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Keeps the spans that the program's provider is handed, and may have a bug.
#[derive(Clone, Debug, Default)]
struct Theirs {
    spans: Arc<Mutex<Vec<SpanData>>>,
    panics_at_start: Arc<AtomicBool>,
    panics_at_end: Arc<AtomicBool>,
}

impl Theirs {
    fn provider(&self) -> TracerProviderBuilder {
        SdkTracerProvider::builder().with_span_processor(self.clone())
    }

    fn names(&self) -> Vec<String> {
        let spans = self.spans.lock().unwrap();
        spans.iter().map(|span| span.name.to_string()).collect()
    }
}

fn may_panic(does: &AtomicBool) {
    if does.load(Ordering::SeqCst) {
        // Without the panic hook and its output.
        std::panic::resume_unwind(Box::new("a processor's bug"));
    }
}

impl SpanProcessor for Theirs {
    fn on_start(&self, _: &mut Span, _: &Context) {
        may_panic(&self.panics_at_start);
    }

    fn on_end(&self, span: SpanData) {
        may_panic(&self.panics_at_end);
        self.spans.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn spans_arrive_at_the_programs_provider_and_nowhere_else() {
    let (receiver, theirs) = (Receiver::start(Protocol::Http), Theirs::default());
    let provider = theirs.provider().build();
    let world = world(otlp(&receiver).tracer_provider(provider.clone()));
    world.block_on(async {
        let (gate, request) = (Gate::default(), context(1, true));
        let leaked = orphan("leaked", &gate, Some(request.clone())).await;
        let lonely = orphan("lonely", &gate, None).await;
        world.clock.advance(10 * MS);
        flush(&world);
        assert_eq!(theirs.names(), ["orphan leaked", "orphan lonely"]);
        gate.open();
        leaked.await.unwrap();
        lonely.await.unwrap();
        settle().await;
        flush(&world);
        let spans = theirs.spans.lock().unwrap().clone();
        assert_eq!(spans.len(), 4, "{spans:#?}");
        let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        let (marker, whole) = (of("orphan leaked"), of("task leaked"));
        for span in [marker, whole] {
            assert_eq!(span.span_context.trace_id(), request.trace_id());
            assert_eq!(span.parent_span_id, request.span_id());
            assert_eq!(span.instrumentation_scope.name(), "straggler");
        }
        assert_eq!(marker.start_time, marker.end_time);
        assert_eq!(
            whole.end_time.duration_since(whole.start_time).unwrap(),
            10 * MS
        );
        assert_eq!(whole.links.links[0].span_context, marker.span_context);
        assert_eq!(whole.events.events[0].name, "orphaned");
        assert_ne!(
            of("orphan lonely").span_context.trace_id(),
            request.trace_id()
        );
    });
    world.tasks.shutdown(LONG).unwrap();
    let received = receiver.received();
    assert_eq!(received.of(Signal::Traces).count(), 0, "{received}");
    assert!(received.of(Signal::Metrics).count() > 0, "those go our way");
    assert!(world.snapshot().loss().is_empty(), "{}", world.snapshot());
    audit(&received);
    provider.shutdown().unwrap();
}

#[test]
fn the_programs_sampler_decides() {
    for (sampler, wanted) in [
        (Sampler::AlwaysOff, vec![]),
        (
            Sampler::ParentBased(Box::new(Sampler::AlwaysOff)),
            vec!["orphan sampled"],
        ),
        (
            Sampler::AlwaysOn,
            vec!["orphan sampled", "orphan unsampled", "orphan lonely"],
        ),
    ] {
        let (receiver, theirs) = (Receiver::start(Protocol::Http), Theirs::default());
        let provider = theirs.provider().with_sampler(sampler).build();
        let otlp = otlp(&receiver)
            .tracer_provider(provider)
            .unsampled_parents(true);
        let world = world(otlp);
        world.block_on(async {
            let gate = Gate::default();
            orphan("sampled", &gate, Some(context(1, true))).await;
            orphan("unsampled", &gate, Some(context(2, false))).await;
            orphan("lonely", &gate, None).await;
            flush(&world);
            assert_eq!(theirs.names(), wanted);
            gate.open();
            settle().await;
            flush(&world);
            // Who has no marker has no other span either.
            assert_eq!(theirs.names().len(), 2 * wanted.len());
            let orphaned = receiver.received().points("tokio.task.orphaned");
            assert_eq!(orphaned.iter().map(Point::number).sum::<f64>(), 3.0);
        });
        assert!(world.snapshot().loss().is_empty(), "{}", world.snapshot());
    }
}

#[test]
fn a_bug_in_the_programs_processor_is_survived_and_counted() {
    let (receiver, theirs) = (Receiver::start(Protocol::Http), Theirs::default());
    let world = world(otlp(&receiver).tracer_provider(theirs.provider().build()));
    world.block_on(async {
        let gate = Gate::default();
        for (lost, bug) in [(1, &theirs.panics_at_start), (2, &theirs.panics_at_end)] {
            bug.store(true, Ordering::SeqCst);
            orphan("lost", &gate, Some(context(1, true))).await;
            flush(&world);
            let snapshot = world.snapshot();
            assert_eq!(snapshot.loss().spans_lost(), lost, "{snapshot}");
            bug.store(false, Ordering::SeqCst);
        }
        // A span whose start fails half-way is the SDK's to drop or to send.
        theirs.spans.lock().unwrap().clear();
        orphan("heard", &gate, Some(context(1, true))).await;
        flush(&world);
        assert_eq!(theirs.names(), ["orphan heard"]);
    });
    world.tasks.shutdown(LONG).unwrap();
    // Those whose markers were lost are closed off all the same.
    let mut names = theirs.names();
    names.sort_unstable();
    assert_eq!(
        names,
        ["orphan heard", "task heard", "task lost", "task lost"]
    );
}
