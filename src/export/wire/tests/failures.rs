//! Receivers that refuse, are busy, break off, hang or are none.

use super::receiver::{Reply, grpc, grpc_on, http, http_on, loopback};
use super::*;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;
use tonic::transport::server::TcpIncoming;

fn reply(status: u16) -> Reply {
    (status, Vec::new(), Vec::new())
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again_and_says_why() {
    let body = format!("bad token tok-3n ({}) s", "x".repeat(500)).into_bytes();
    let plain = || (401, vec![("content-type", "text/plain")], body.clone());
    let (receiver, endpoint) = http([plain(), plain()]).await;
    let otlp = over(Protocol::HttpProtobuf, &endpoint).header("authorization", "Bearer tok-3n");
    for sent in send(&wire(otlp)).await {
        let text = failure(&sent, &endpoint);
        assert!(text.contains("401 Unauthorized: bad token …"), "{text}");
        assert!(!text.contains("tok-3n") && text.len() < 400, "{text}");
    }
    assert_eq!(receiver.take().len(), 2);

    let refused = || Err(Status::unauthenticated("bad token tok-3n"));
    let (receiver, endpoint) = grpc([refused(), refused()]).await;
    let otlp = over(Protocol::Grpc, &endpoint).header("authorization", "Bearer tok-3n");
    for sent in send(&wire(otlp)).await {
        let text = failure(&sent, &endpoint);
        assert!(
            text.contains("Unauthenticated") && !text.contains("tok-3n"),
            "{text}"
        );
    }
    assert_eq!(receiver.take().len(), 2);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, target) = http([]).await;
    let to: &'static str = Box::leak(target.into_boxed_str());
    let moved = || (307, vec![("location", to)], Vec::new());
    let (_, endpoint) = http([moved(), moved()]).await;
    for sent in send(&wire(over(Protocol::HttpProtobuf, &endpoint))).await {
        let text = failure(&sent, &endpoint);
        assert!(
            text.contains("307") && text.contains("redirects are not followed"),
            "{text}"
        );
    }
    assert!(elsewhere.take().is_empty());
}

#[tokio::test]
async fn a_receiver_that_is_busy_is_tried_again() {
    let busy = || [reply(503), reply(502), reply(200)];
    let (receiver, endpoint) = http(busy().into_iter().chain(busy())).await;
    let sent = send(&wire(over(Protocol::HttpProtobuf, &endpoint))).await;
    assert_eq!(sent, [Sent::default(), Sent::default()]);
    let paths: Vec<String> = receiver.take().into_iter().map(|got| got.path).collect();
    let (traces, metrics) = ("/v1/traces", "/v1/metrics");
    assert_eq!(paths, [traces, traces, traces, metrics, metrics, metrics]);

    let busy = || {
        [
            Err(Status::unavailable("")),
            Err(Status::aborted("")),
            Ok(0),
        ]
    };
    let (receiver, endpoint) = grpc(busy().into_iter().chain(busy())).await;
    let sent = send(&wire(over(Protocol::Grpc, &endpoint))).await;
    assert_eq!(sent, [Sent::default(), Sent::default()]);
    assert_eq!(receiver.take().len(), 6);
}

#[tokio::test]
async fn a_receiver_says_when_to_come_back() {
    let throttled = || (429, vec![("retry-after", "1")], Vec::new());
    let (receiver, endpoint) = http([throttled(), throttled()]).await;
    let wire = wire(over(Protocol::HttpProtobuf, &endpoint));
    let began = Instant::now();
    let (spans, metrics) = tokio::join!(wire.send_spans(span()), wire.send_metrics(metric()));
    assert_eq!([spans, metrics], [Sent::default(), Sent::default()]);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(receiver.take().len(), 4);
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, address) = loopback().await;
    drop(listener);
    let endpoint = format!("http://{address}");
    let case = |protocol| (over(protocol, &endpoint), endpoint.clone(), "refused");
    fail(vec![case(Protocol::HttpProtobuf), case(Protocol::Grpc)]).await;
}

/// Answers each connection with `bytes` when it has sent something, and then hangs, or else
/// closes it.
async fn raw(bytes: &'static [u8], hangs: bool) -> String {
    let (listener, address) = loopback().await;
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0; 64];
            let read = stream.read(&mut first).await;
            assert!(read.is_ok_and(|bytes| bytes > 0));
            stream.write_all(bytes).await.unwrap();
            if hangs {
                open.push(stream);
            }
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_the_timeout_and_no_more() {
    let half: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    for (protocol, bytes) in [
        (Protocol::HttpProtobuf, &b""[..]),
        (Protocol::HttpProtobuf, half),
        (Protocol::Grpc, b""),
    ] {
        let endpoint = raw(bytes, true).await;
        let wire = wire(over(protocol, &endpoint).timeout(SHORT));
        for _ in 0..2 {
            let began = Instant::now();
            for sent in send(&wire).await {
                let text = failure(&sent, &endpoint);
                assert!(text.contains("no answer within 90ms"), "{text}");
            }
            assert!(began.elapsed() >= 2 * SHORT);
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_and_garbage_are_failures() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        for bytes in [&b""[..], b"\x00\x01SSH-2.0-OpenSSH\r\n\r\n"] {
            let endpoint = raw(bytes, false).await;
            let wire = wire(over(protocol, &endpoint).timeout(SHORT));
            for sent in send(&wire).await {
                failure(&sent, &endpoint);
            }
        }
    }
}

#[tokio::test]
async fn a_success_is_one_whatever_its_body_and_an_endless_body_is_none() {
    let garbage = || (200, Vec::new(), vec![0xff; 64]);
    let (_, endpoint) = http([garbage(), garbage()]).await;
    let sent = send(&wire(over(Protocol::HttpProtobuf, &endpoint))).await;
    assert_eq!(sent, [Sent::default(), Sent::default()]);

    let large = || (200, Vec::new(), vec![0; 5 << 20]);
    let (receiver, endpoint) = http([large(), large()]).await;
    for sent in send(&wire(over(Protocol::HttpProtobuf, &endpoint))).await {
        let text = failure(&sent, &endpoint);
        assert!(text.contains("over 4 MiB"), "{text}");
    }
    assert_eq!(receiver.take().len(), 2, "it would be as large again");
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        let (listener, address) = loopback().await;
        let wire = wire(over(protocol, &format!("http://{address}")));
        let break_the_first = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            // What was not read makes it a reset.
            drop(stream);
            match protocol {
                Protocol::Grpc => grpc_on(TcpIncoming::from(listener), []).got(),
                Protocol::HttpProtobuf => http_on(listener, []).got(),
            }
        };
        let (sent, got) = tokio::join!(wire.send_metrics(metric()), break_the_first);
        assert_eq!(sent, Sent::default());
        assert_eq!(got.lock().unwrap().len(), 1);
    }
}
