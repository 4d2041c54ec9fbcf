//! Day one: straggler is added to an axum service that calls another one through a lazily
//! made reqwest client. Nothing leaks, so nothing may be called an orphan, at no moment
//! and without any grace; and the planted leak beside it is counted to the task.
//!
//! Alone in its file: the layer is the process's global subscriber.
#![cfg(all(tokio_unstable, feature = "spans"))]
#![allow(clippy::unwrap_used)] // Also in the helpers, which are tests too.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Router, routing::get};
use reqwest::Client;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use straggler::{Certainty, Snapshot, Tasks};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{Instrument, info_span};
use tracing_subscriber::prelude::*;

const LOADERS: usize = 20;
const REQUESTS: usize = 10;
const LEAKS_HTTP1: usize = 7;
const LEAKS_HTTP2: usize = 5;
/// For each wait. Nothing here takes a second; what takes this long hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// What keeps the leaked tasks alive.
static KEPT: Mutex<Vec<oneshot::Sender<()>>> = Mutex::new(Vec::new());
const LEAK_LINE: u32 = line!() + 4;
async fn leak() {
    let (kept, released) = oneshot::channel::<()>();
    KEPT.lock().unwrap().push(kept);
    tokio::spawn(async move { drop(released.await) });
}

/// A client a protocol. The first request that needs one makes it, and the tasks of its
/// connections outlive that request.
#[derive(Default)]
struct Clients {
    http1: OnceLock<Client>,
    http2: OnceLock<Client>,
}

impl Clients {
    fn http1(&self) -> &Client {
        (self.http1).get_or_init(|| Client::builder().http1_only().build().unwrap())
    }

    fn http2(&self) -> &Client {
        (self.http2).get_or_init(|| Client::builder().http2_prior_knowledge().build().unwrap())
    }
}

#[derive(Clone)]
struct Front {
    upstream: SocketAddr,
    clients: Arc<Clients>,
}

impl Front {
    async fn ask(&self, client: &Client) -> Result<String, StatusCode> {
        let asked = client.get(format!("http://{}/", self.upstream)).send();
        let answer = asked.await.map_err(|_| StatusCode::BAD_GATEWAY)?;
        answer.text().await.map_err(|_| StatusCode::BAD_GATEWAY)
    }
}

/// What a service does: it asks others, and has helpers that it waits for.
async fn work(State(front): State<Front>) -> Result<String, StatusCode> {
    let other = front.clone();
    let helper = tokio::spawn(async move { other.ask(other.clients.http2()).await });
    let mut answer = front.ask(front.clients.http1()).await?;
    answer += &helper.await.map_err(|_| StatusCode::IM_A_TEAPOT)??;
    tokio::task::spawn_blocking(move || answer)
        .await
        .map_err(|_| StatusCode::IM_A_TEAPOT)
}

async fn in_request_span(request: Request, next: Next) -> Response {
    let span = info_span!("request", path = request.uri().path());
    next.run(request).instrument(span).await
}

struct Service {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Service {
    async fn start(router: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serve = axum::serve(listener, router.layer(middleware::from_fn(in_request_span)))
            .with_graceful_shutdown(async move { drop(stopped.await) });
        let served = tokio::spawn(serve.into_future());
        Self {
            address,
            stop,
            served,
        }
    }

    async fn stop(self) {
        drop(self.stop);
        self.served.await.unwrap().unwrap();
    }
}

/// Every loader is a task that ends, as are those that made its connections.
async fn load(address: SocketAddr, clients: &Arc<Clients>) {
    let load = |loader: usize, clients: Arc<Clients>| async move {
        let client = if loader.is_multiple_of(2) {
            clients.http1()
        } else {
            clients.http2()
        };
        for _ in 0..REQUESTS {
            let answer = client.get(format!("http://{address}/work")).send().await;
            let answer = answer.unwrap().error_for_status().unwrap();
            assert_eq!(answer.text().await.unwrap(), "upup");
        }
    };
    let loaders: Vec<_> = (0..LOADERS)
        .map(|loader| tokio::spawn(load(loader, Arc::clone(clients))))
        .collect();
    for loader in loaders {
        loader.await.unwrap();
    }
}

async fn leak_through(client: &Client, address: SocketAddr, times: usize) {
    for _ in 0..times {
        let answer = client.get(format!("http://{address}/leak")).send().await;
        answer.unwrap().error_for_status().unwrap();
    }
}

/// Looks at the service all the while, from a thread of its own.
fn watch(tasks: &Tasks, done: &Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let (tasks, done) = (tasks.clone(), Arc::clone(done));
    std::thread::spawn(move || {
        let mut looks = 0;
        while !done.load(Ordering::Relaxed) {
            let snapshot = tasks.snapshot();
            assert_eq!(snapshot.orphans().count(), 0, "under load:\n{snapshot}");
            looks += 1;
        }
        looks
    })
}

/// Asks until it is so; the report says what was instead.
async fn until(tasks: &Tasks, what: &str, so: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let started = Instant::now();
    loop {
        let snapshot = tasks.snapshot();
        if so(&snapshot) {
            return snapshot;
        }
        assert!(started.elapsed() < DEADLINE, "{what}:\n{snapshot}");
        tokio::task::yield_now().await;
    }
}

fn live_at(snapshot: &Snapshot, file: &str) -> usize {
    let here = |task: &&straggler::Task| task.location().file().starts_with(file);
    snapshot.tasks().filter(here).count()
}

async fn day_one(tasks: &Tasks) {
    let upstream = Service::start(Router::new().route("/", get(|| async { "up" }))).await;
    let front = Front {
        upstream: upstream.address,
        clients: Arc::default(),
    };
    let clients = Arc::clone(&front.clients);
    let router = Router::new()
        .route("/work", get(work))
        .route("/leak", get(leak))
        .with_state(front);
    let front = Service::start(router).await;
    let loaders = Arc::new(Clients::default());

    let done = Arc::new(AtomicBool::new(false));
    let watcher = watch(tasks, &done);
    load(front.address, &loaders).await;
    done.store(true, Ordering::Relaxed);
    let looks = watcher.join().expect("no orphan at any moment");
    assert!(looks > 0);

    let snapshot = until(tasks, "nothing is lost", |snapshot| {
        snapshot.loss().is_empty()
    })
    .await;
    assert_eq!(snapshot.orphans().count(), 0, "after the load:\n{snapshot}");
    // What could have been mistaken is there: the connections outlived who made them.
    let connections = live_at(&snapshot, "hyper-util-");
    assert!(connections >= 4, "{connections} connections:\n{snapshot}");

    leak_through(loaders.http1(), front.address, LEAKS_HTTP1).await;
    leak_through(loaders.http2(), front.address, LEAKS_HTTP2).await;
    let leaked = LEAKS_HTTP1 + LEAKS_HTTP2;
    let snapshot = until(tasks, "every leaked task is an orphan", |snapshot| {
        snapshot.orphans().count() >= leaked
    })
    .await;
    assert_leaked(&snapshot, leaked);

    KEPT.lock().unwrap().clear();
    until(tasks, "the leaked tasks ended", |snapshot| {
        snapshot.orphans().count() == 0
    })
    .await;
    drop((loaders, clients));
    front.stop().await;
    upstream.stop().await;
    until(tasks, "no connection is left", |snapshot| {
        live_at(snapshot, "hyper-util-") == 0 && live_at(snapshot, "axum-") == 0
    })
    .await;
}

fn assert_leaked(snapshot: &Snapshot, leaked: usize) {
    for orphan in snapshot.orphans() {
        let location = orphan.location();
        assert_eq!(
            (location.file(), location.line()),
            ("tests/day_one.rs", LEAK_LINE),
            "{snapshot}"
        );
        let parent = orphan.parent().expect("a handler spawned it");
        assert_eq!(
            parent.outermost_span().map(|span| span.name()),
            Some("request")
        );
    }
    assert_eq!(snapshot.orphans().count(), leaked, "{snapshot}");
    let mut sites = snapshot.sites().filter(|site| site.orphans() > 0);
    let site = sites.next().expect("the leaking site");
    assert!(sites.next().is_none(), "{snapshot}");
    let count = leaked as u64;
    assert_eq!(
        (site.orphans(), site.live(), site.spawned()),
        (count, count, count)
    );
    // hyper gives each HTTP/2 request a task of its own, which the list exempts as a child;
    // as a parent it ended. HTTP/1 requests share their connection's task, which lives on.
    let certain = (snapshot.orphans())
        .filter_map(|orphan| orphan.orphaned())
        .filter(|orphaned| orphaned.certainty() == Certainty::Certain)
        .count();
    assert_eq!(certain, LEAKS_HTTP2, "{snapshot}");
    assert!(snapshot.loss().is_empty(), "{snapshot}");
}

#[test]
fn a_service_shows_no_orphan_until_one_is_planted() {
    let (layer, tasks) = straggler::Builder::new()
        .orphan_grace(Duration::ZERO)
        .build()
        .unwrap();
    tracing_subscriber::registry().with(layer).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bounded = tokio::time::timeout(3 * DEADLINE, day_one(&tasks));
        bounded.await.expect("done within the deadline");
    });
    runtime.shutdown_timeout(DEADLINE);
    let snapshot = tasks.snapshot();
    assert_eq!(
        snapshot.tasks().count(),
        0,
        "after the shutdown:\n{snapshot}"
    );
    let sum = |count: fn(&straggler::Site) -> u64| snapshot.sites().map(count).sum::<u64>();
    assert_eq!(sum(|site| site.spawned()), sum(|site| site.ended()));
}
