//! The leak of a request stands in its trace, while it is alive and when it ends.

use crate::common::{MS, World};
use crate::receiver::{PROTOCOLS, Protocol, Receiver};
use crate::view::Span;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use std::time::Duration;
use straggler::otlp::{self, Otlp};
use tokio::sync::oneshot;

const LONG: Duration = Duration::from_secs(20);

fn otlp(receiver: &Receiver) -> Otlp {
    Otlp::new()
        .endpoint(&receiver.endpoint())
        .protocol(match receiver.protocol() {
            Protocol::Grpc => otlp::Protocol::Grpc,
            Protocol::Http => otlp::Protocol::HttpProtobuf,
        })
}

fn request_span(flags: TraceFlags) -> SpanContext {
    SpanContext::new(
        TraceId::from(0x1234_u128),
        SpanId::from(0x56_u64),
        flags,
        false,
        TraceState::NONE,
    )
}

/// A request that spawns a task, named `leaked`, and returns.
async fn request(context: SpanContext) -> oneshot::Sender<()> {
    let (end, ended) = oneshot::channel();
    let around = Context::new().with_remote_span_context(context);
    let handler = async move {
        let leaked = async move { ended.await.unwrap_or_default() };
        let _current = around.attach();
        straggler::task("leaked").spawn(leaked);
    };
    tokio::spawn(handler).await.expect("the handler returns");
    end
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    let found = named
        .next()
        .unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
    assert!(named.next().is_none(), "more than one {name}: {spans:#?}");
    found
}

#[test]
fn a_marker_while_it_lives_and_a_span_when_it_ends() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let world = World::with(|builder| builder.otlp(otlp(&receiver)));
        world.block_on(async {
            let context = request_span(TraceFlags::SAMPLED);
            let end = request(context.clone()).await;
            world.clock.advance(10 * MS);
            world.tasks.flush(LONG).expect("in time");
            let spans = receiver.spans();
            assert_eq!(spans.len(), 1, "{spans:#?}");
            let marker = one(&spans, "orphan leaked").clone();
            assert_eq!(marker.start, marker.end, "a marker has no length");
            assert_eq!(marker.trace_id, context.trace_id());
            assert_eq!(marker.parent_span_id, Some(context.span_id()));
            assert_eq!(marker.attributes["tokio.task.state"], "idle");
            assert_eq!(marker.attributes["tokio.task.orphan.cause"], "parent_ended");

            world.clock.advance(10 * MS);
            end.send(()).expect("it waits");
            while world.snapshot().orphans().next().is_some() {
                tokio::task::yield_now().await;
            }
            world.tasks.flush(LONG).expect("in time");
            let spans = receiver.spans();
            let whole = one(&spans, "task leaked");
            assert_eq!(whole.duration(), 20 * MS);
            assert_eq!(whole.trace_id, context.trace_id());
            assert_ne!(whole.span_id, marker.span_id);
            assert_eq!(whole.links.len(), 1);
            assert_eq!(whole.links[0].span_id, marker.span_id);
            assert_eq!(whole.attributes["tokio.task.outcome"], "completed");
        });
        assert!(world.snapshot().loss().is_empty(), "{}", world.snapshot());
        world.tasks.shutdown(LONG).expect("in time");
        assert_eq!(receiver.spans().len(), 2, "nothing more");
    }
}

#[cfg(feature = "otlp-tls")]
#[test]
fn over_tls_to_a_receiver_that_is_trusted() {
    use crate::tls::Certificate;
    let certificate = Certificate::for_localhost();
    for protocol in PROTOCOLS {
        for trusted in [true, false] {
            let receiver = Receiver::start_tls(protocol, certificate.server());
            let trusts = match trusted {
                true => certificate.pem.clone(),
                false => Certificate::for_localhost().pem,
            };
            let patience = if trusted { LONG } else { 300 * MS };
            let otlp = otlp(&receiver).ca_certificate(trusts).timeout(patience);
            let world = World::with(|builder| builder.otlp(otlp));
            world.block_on(async {
                let _end = request(request_span(TraceFlags::SAMPLED)).await;
                world.clock.advance(10 * MS);
                world.tasks.flush(LONG).expect("in time");
                assert_eq!(receiver.received().span_count(), usize::from(trusted));
                assert_eq!(receiver.received().point_count() > 0, trusted);
                let loss = *world.snapshot().loss();
                assert_eq!(loss.spans_lost(), u64::from(!trusted));
                assert_eq!(loss.points_lost() > 0, !trusted);
            });
        }
    }
}
