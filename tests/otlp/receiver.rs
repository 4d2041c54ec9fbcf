//! An OTLP receiver on a thread, a runtime and a dispatcher of its own: no table of ours sees
//! its tasks. The messages and gRPC's servers are `opentelemetry-proto`'s, HTTP is axum's, and
//! the limits of size are the OpenTelemetry Collector's.
#![allow(dead_code, unreachable_pub)]

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;

use super::answer::Answer;
use super::common;
use super::received::{Body, Received, Request, Signal};
use super::service::{Arrived, router};
use super::view::{Point, Span};
use super::wire::{Connection, Door};

/// How long a test waits for what should come.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

pub const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

/// Keeps its port, and what it received, through stops and restarts.
pub struct Receiver {
    protocol: Protocol,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    state: Mutex<Option<Running>>,
}

enum Running {
    /// Bound, so that nobody else gets the port, but not listening.
    Refusing(TcpSocket),
    Listening {
        stop: oneshot::Sender<Stop>,
        thread: JoinHandle<()>,
    },
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Graceful,
    Abrupt,
}

pub struct Shared {
    received: Mutex<Received>,
    changed: Condvar,
    answers: Mutex<[Answer; 2]>,
}

impl Shared {
    /// Changes what was received, and wakes who waits for it.
    pub fn change<R>(&self, change: impl FnOnce(&mut Received) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    pub fn stray(&self, what: String) {
        self.change(|received| received.strays.push(what));
    }

    pub fn take_answer(&self, signal: Signal) -> Answer {
        self.answers.lock().expect("no panic under the lock")[signal as usize].take()
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().expect("no panic under the lock")
    }

    pub fn record(&self, arrived: Arrived, body: Body) {
        arrived.decoded.store(true, Ordering::SeqCst);
        let request = Arc::new(Request {
            arrival: arrived.arrival,
            body,
        });
        self.change(|received| received.requests.push(request));
    }
}

impl Receiver {
    pub fn start(protocol: Protocol) -> Self {
        let receiver = Self::start_refusing(protocol);
        receiver.restart();
        receiver
    }

    /// To `https://` only.
    pub fn start_tls(protocol: Protocol, mut tls: tokio_rustls::rustls::ServerConfig) -> Self {
        tls.alpn_protocols = match protocol {
            Protocol::Grpc => vec![b"h2".to_vec()],
            Protocol::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let mut receiver = Self::start_refusing(protocol);
        receiver.tls = Some(TlsAcceptor::from(Arc::new(tls)));
        receiver.restart();
        receiver
    }

    /// A port where nobody listens, until `restart`.
    pub fn start_refusing(protocol: Protocol) -> Self {
        LazyLock::force(&common::MORE_THAN_ONE);
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into());
        Self {
            protocol,
            address: socket.local_addr().expect("it is bound"),
            tls: None,
            shared: Arc::new(Shared {
                received: Mutex::default(),
                changed: Condvar::new(),
                answers: Mutex::new([Answer::Ok, Answer::Ok]),
            }),
            state: Mutex::new(Some(Running::Refusing(socket))),
        }
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Without a path: the base that OTLP's `/v1/traces` is appended to. It says `localhost`
    /// over TLS, as certificates do.
    pub fn endpoint(&self) -> String {
        match self.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// From the next request on.
    pub fn answer(&self, signal: Signal, answer: Answer) {
        self.shared.answers.lock().expect("no panic under the lock")[signal as usize] = answer;
    }

    pub fn answer_all(&self, answer: &Answer) {
        self.answer(Signal::Traces, answer.clone());
        self.answer(Signal::Metrics, answer.clone());
    }

    pub fn received(&self) -> Received {
        self.shared.lock().clone()
    }

    pub fn spans(&self) -> Vec<Span> {
        self.received().spans()
    }

    pub fn metrics(&self) -> Vec<Point> {
        self.received().metrics()
    }

    /// What was received once it is as it should be.
    #[track_caller]
    pub fn wait_until(&self, done: impl Fn(&Received) -> bool) -> Received {
        let deadline = Instant::now() + PATIENCE;
        let mut received = self.shared.lock();
        loop {
            let now = received.clone();
            // Without the lock: a panic in `done` is the test's alone.
            drop(received);
            if done(&now) {
                return now;
            }
            received = self.shared.lock();
            while received.requests.len() == now.requests.len()
                && received.strays.len() == now.strays.len()
                && received.connections == now.connections
                && received.open_connections == now.open_connections
            {
                let left = deadline.saturating_duration_since(Instant::now());
                assert!(!left.is_zero(), "it never came in {PATIENCE:?}:\n{now}");
                received = self
                    .shared
                    .changed
                    .wait_timeout(received, left)
                    .expect("no panic under the lock")
                    .0;
            }
        }
    }

    /// Answers what is under way, as far as it is answered at all, and refuses what comes.
    pub fn stop(&self) {
        self.end(Stop::Graceful);
    }

    /// As if the process had died: all connections end, new ones are refused.
    pub fn kill(&self) {
        self.end(Stop::Abrupt);
    }

    /// Listens again, on the same port. Nothing if it does.
    pub fn restart(&self) {
        let mut state = self.state.lock().expect("no panic under the lock");
        *state = state.take().map(|running| match running {
            Running::Refusing(socket) => self.listen(socket),
            listening @ Running::Listening { .. } => listening,
        });
    }

    fn end(&self, how: Stop) {
        let mut state = self.state.lock().expect("no panic under the lock");
        *state = state.take().map(|running| match running {
            Running::Listening { stop, thread } => {
                // A thread that is gone has panicked, which `join` says.
                let _ = stop.send(how);
                thread.join().expect("the receiver's thread");
                Running::Refusing(bind(self.address))
            }
            refusing @ Running::Refusing(_) => refusing,
        });
    }

    fn listen(&self, socket: TcpSocket) -> Running {
        let (stop, stopped) = oneshot::channel();
        let (tell, listening) = std::sync::mpsc::channel();
        let (shared, tls, protocol) = (Arc::clone(&self.shared), self.tls.clone(), self.protocol);
        let serve = async move {
            let listener = socket.listen(1024).expect("the port is ours");
            let door = Door::new(listener, tls, Arc::clone(&shared));
            tell.send(()).expect("the test waits");
            serve(door, router(protocol, shared), stopped).await;
        };
        let thread = std::thread::Builder::new()
            .name("otlp-receiver".to_owned())
            .spawn(move || {
                let unseen = Dispatch::new(NoSubscriber::default());
                dispatcher::with_default(&unseen, || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    // What is left of connections goes with the runtime.
                    runtime.block_on(serve);
                });
            })
            .expect("a thread");
        listening.recv().expect("the receiver listens");
        Running::Listening { stop, thread }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Ok(state) = self.state.get_mut()
            && let Some(Running::Listening { stop, thread }) = state.take()
        {
            let _ = stop.send(Stop::Abrupt);
            // Never a second panic on the way out of a test that failed.
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        match socket.bind(address) {
            Ok(()) => return socket,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        std::thread::yield_now();
    }
}

async fn serve(door: Door, router: Router, stopped: oneshot::Receiver<Stop>) {
    let (finish, finished) = oneshot::channel::<()>();
    let service = router.into_make_service_with_connect_info::<Connection>();
    let server = axum::serve(door, service).with_graceful_shutdown(async move {
        let _ = finished.await;
    });
    let mut server = pin!(server.into_future());
    let how = tokio::select! {
        how = stopped => how.unwrap_or(Stop::Abrupt),
        _ = &mut server => unreachable!("nobody has told it to stop"),
    };
    if how == Stop::Graceful {
        drop(finish);
        // What hangs is never answered, nor waited for.
        let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
    }
}
