//! What a collector of other makers shows of a request is what our receiver sees in it.

use super::received::{Received, Signal};
use super::receiver::{PROTOCOLS, Protocol, Receiver};
use super::rotel::Rotel;
use super::rotel_text::{Printed, as_shown, as_shown_point};
use super::sender::Sender;

/// The samples over this protocol, to Rotel and to the receiver.
fn both(protocol: Protocol, gzip: bool) -> Option<(Printed, Received)> {
    let rotel = Rotel::start()?;
    let receiver = Receiver::start(protocol);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for endpoint in [rotel.endpoint(protocol), receiver.endpoint()] {
            let sender = Sender::new(protocol, &endpoint, gzip);
            for signal in [Signal::Traces, Signal::Metrics] {
                assert_eq!(sender.send(signal).await, Ok(0), "{endpoint}");
            }
        }
    });
    let received = receiver.received();
    rotel.wait_until(|printed| {
        printed.spans.len() == received.span_count()
            && printed.points.len() == received.point_count()
    });
    Some((rotel.finish(), received))
}

#[test]
fn the_samples_look_the_same() {
    for protocol in PROTOCOLS {
        for gzip in [false, true] {
            let Some((printed, received)) = both(protocol, gzip) else {
                return;
            };
            let spans = received.spans().into_iter().map(as_shown);
            assert_eq!(printed.spans, spans.collect::<Vec<_>>());
            let points = received.all_metrics().into_iter().map(as_shown_point);
            assert_eq!(printed.points, points.collect::<Vec<_>>());
        }
    }
}

#[test]
fn it_shows_every_one_of_many() {
    let Some(rotel) = Rotel::start() else {
        return;
    };
    let mut request = super::sample::traces();
    let spans = &mut request.resource_spans[0].scope_spans[0].spans;
    *spans = std::iter::repeat_n(spans[0].clone(), 500).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let sender = Sender::new(Protocol::Grpc, &rotel.endpoint(Protocol::Grpc), true);
        for _ in 0..4 {
            assert_eq!(sender.traces(request.clone()).await, Ok(0));
        }
    });
    rotel.wait_until(|printed| printed.spans.len() == 4 * 501);
    assert_eq!(rotel.finish().spans.len(), 4 * 501);
}
