//! What exports, and has no task that a test could see.

use crate::program::{Cast, Clean, Kept, Remains};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use straggler::otlp::Otlp;
use tracing_subscriber::Registry;

pub fn all() -> Vec<Clean> {
    vec![Clean {
        id: "otlp_exporter",
        run: |cast| Box::pin(otlp_exporter(cast)),
        remains: Remains::Unreported,
    }]
}

/// A collector on a plain thread, until it is dropped.
struct Collector {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("it is bound");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                thread::spawn(|| take(stream));
            }
        });
        Self {
            address,
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // It is in `accept`, and one more connection is what gets it out.
        let out = TcpStream::connect(self.address);
        if let (Ok(_), Some(thread)) = (out, self.thread.take()) {
            thread.join().expect("it only accepts");
        }
    }
}

/// Answers each request with success, until the exporter hangs up.
fn take(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while matches!(stream.read_line(&mut line), Ok(read) if read > 0) {
        if line != "\r\n" {
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number of bytes");
            }
            line.clear();
            continue;
        }
        line.clear();
        let mut body = vec![0; length];
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let taken =
            (stream.read_exact(&mut body)).and_then(|()| stream.get_mut().write_all(answer));
        if taken.is_err() {
            break;
        }
    }
}

/// It has exported once, and goes on: its tasks are on a runtime of its own that nobody watches.
async fn otlp_exporter(_cast: Cast) -> Kept {
    let collector = Collector::start();
    let otlp = Otlp::new().endpoint(&format!("http://{}", collector.address));
    let (layer, tasks) = straggler::Builder::new()
        .otlp(otlp)
        .build::<Registry>()
        .expect("a valid configuration");
    let exporting = tasks.clone();
    let flush = move || exporting.flush(Duration::from_secs(10));
    let exported = tokio::task::spawn_blocking(flush).await;
    exported.expect("no panic").expect("the collector takes it");
    Kept::of(layer).and(tasks).and(collector)
}
