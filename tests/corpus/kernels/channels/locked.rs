//! Channels that are waited for under a lock which the other end needs.

use crate::program::{Cast, Kept, Kernel};
use std::collections::HashSet;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;
use tokio::sync::{Barrier, Mutex, Notify, RwLock, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// etcd_7492: a token is handed to its keeper under the lock that the keeper takes to expire one.
/// The channel between is full, and each waits for the other; a third task waits for them.
pub fn etcd_7492() -> Kernel {
    Kernel {
        id: "etcd_7492",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(etcd_7492_leaks(cast)),
        fixed: |_| Box::pin(etcd_7492_fixed()),
        ends_by_drop: false,
    }
}

const TICK: Duration = Duration::from_millis(1);
const LOGINS: u32 = 3;

type Stop = oneshot::Sender<()>;

struct Keeper {
    added: mpsc::Receiver<u32>,
    stop: mpsc::Receiver<Stop>,
    tokens: HashSet<u32>,
    lock: Arc<RwLock<()>>,
    order: Option<ExpiryFirst>,
}

/// The keeper says that it is about to expire a token, and goes on when the lock is held by
/// somebody for whom the channel has no place.
struct ExpiryFirst {
    expiring: oneshot::Sender<()>,
    locked: oneshot::Receiver<()>,
}

impl Keeper {
    async fn run(mut self) {
        let mut ticker = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                Some(token) = self.added.recv() => { self.tokens.insert(token); }
                _ = ticker.tick() => self.expire().await,
                Some(stop) = self.stop.recv() => {
                    stop.send(()).ok();
                    return;
                }
            }
        }
    }

    async fn expire(&mut self) {
        for _token in self.tokens.drain() {
            if let Some(order) = self.order.take() {
                order.expiring.send(()).ok();
                order.locked.await.ok();
            }
            let _deleting = self.lock.write().await;
        }
    }
}

async fn assign(
    lock: Arc<RwLock<()>>,
    keeper: mpsc::Sender<u32>,
    token: u32,
    locked: Option<oneshot::Sender<()>>,
) {
    let _assigning = lock.write().await;
    if let Some(locked) = locked {
        locked.send(()).ok();
    }
    keeper.send(token).await.ok();
}

async fn stop(keeper: mpsc::Sender<Stop>) {
    let (stop, stopped) = oneshot::channel();
    keeper.send(stop).await.ok();
    stopped.await.ok();
}

async fn etcd_7492_leaks(cast: Cast) -> Kept {
    let lock = Arc::new(RwLock::new(()));
    let (add, added) = mpsc::channel(1);
    let (stop_keeper, stops) = mpsc::channel(1);
    let (expiring, expires) = oneshot::channel();
    let (locked, is_locked) = oneshot::channel();
    let order = Some(ExpiryFirst {
        expiring,
        locked: is_locked,
    });
    let tokens = HashSet::new();
    cast.stays(
        Keeper {
            added,
            stop: stops,
            tokens,
            lock: lock.clone(),
            order,
        }
        .run(),
    );

    let logins = TaskTracker::new();
    tokio::spawn(logins.track_future(assign(lock.clone(), add.clone(), 0, None)));
    expires.await.expect("the keeper expires the first token");
    // Takes the channel's one place.
    let second = logins.track_future(assign(lock.clone(), add.clone(), 1, None));
    tokio::spawn(second)
        .await
        .expect("the channel has its place");
    cast.stays(logins.track_future(assign(lock, add, 2, Some(locked))));
    logins.close();
    cast.stays(async move {
        logins.wait().await;
        stop(stop_keeper).await;
    });
    Kept::nothing()
}

/// The fix has no channel: who assigns a token writes it under the lock itself.
async fn keep_under_lock(tokens: Arc<RwLock<HashSet<u32>>>, mut stop: mpsc::Receiver<Stop>) {
    let mut ticker = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = ticker.tick() => tokens.write().await.clear(),
            Some(stop) = stop.recv() => {
                stop.send(()).ok();
                return;
            }
        }
    }
}

async fn etcd_7492_fixed() -> Kept {
    let tokens = Arc::new(RwLock::new(HashSet::new()));
    let (stop_keeper, stops) = mpsc::channel(1);
    let keeper = tokio::spawn(keep_under_lock(tokens.clone(), stops));
    let logins = TaskTracker::new();
    for token in 0..LOGINS {
        let tokens = tokens.clone();
        logins.spawn(async move { tokens.write().await.insert(token) });
    }
    logins.close();
    logins.wait().await;
    stop(stop_keeper).await;
    keeper.await.expect("a stopped keeper ends");
    Kept::nothing()
}

/// etcd_7902: a follower waits under the rounds' lock until the leader closes the round, and the
/// leader needs that lock to close it. All they wait for is kept by themselves.
pub fn etcd_7902() -> Kernel {
    Kernel {
        id: "etcd_7902",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(etcd_7902_leaks(cast)),
        fixed: |_| Box::pin(etcd_7902_fixed()),
        ends_by_drop: false,
    }
}

const CLIENTS: usize = 3;
const ROUNDS: usize = 100;

/// Cancelled when the leader closes the round.
type Round = CancellationToken;

struct Client {
    leads: bool,
    current: Arc<StdMutex<Round>>,
    entered: Round,
}

impl Client {
    /// The first one leads.
    fn all() -> impl Iterator<Item = Self> {
        let current = Arc::new(StdMutex::new(Round::new()));
        (0..CLIENTS).map(move |client| Self {
            leads: client == 0,
            current: current.clone(),
            entered: Round::new(),
        })
    }

    fn validate(&mut self) {
        self.entered = self.current.lock().expect("nobody panics").clone();
    }

    async fn release(&self) {
        if self.leads {
            let mut current = self.current.lock().expect("nobody panics");
            std::mem::take(&mut *current).cancel();
        }
        self.entered.cancelled().await;
    }

    /// The leader comes to its release after a follower has come to its own.
    async fn do_rounds(mut self, lock: Arc<Mutex<()>>, follower_waits: Arc<Notify>) {
        for _ in 0..ROUNDS {
            let validating = lock.lock().await;
            self.validate();
            drop(validating);
            if self.leads {
                follower_waits.notified().await;
            }
            let _releasing = lock.lock().await;
            if !self.leads {
                follower_waits.notify_one();
            }
            self.release().await;
        }
    }

    /// Without the lock around the release. All validate before the leader closes the round.
    async fn do_rounds_unlocked(mut self, lock: Arc<Mutex<()>>, validated: Arc<Barrier>) {
        for _ in 0..ROUNDS {
            let validating = lock.lock().await;
            self.validate();
            drop(validating);
            validated.wait().await;
            self.release().await;
        }
    }
}

async fn etcd_7902_leaks(cast: Cast) -> Kept {
    let lock = Arc::new(Mutex::new(()));
    let follower_waits = Arc::new(Notify::new());
    let (start, started) = oneshot::channel();
    let election = cast.clone();
    cast.stays(async move {
        let clients = TaskTracker::new();
        for client in Client::all() {
            let rounds = client.do_rounds(lock.clone(), follower_waits.clone());
            election.stays(clients.track_future(rounds));
        }
        clients.close();
        start.send(()).ok();
        clients.wait().await;
    });
    started.await.expect("an election starts");
    Kept::nothing()
}

async fn etcd_7902_fixed() -> Kept {
    let lock = Arc::new(Mutex::new(()));
    let validated = Arc::new(Barrier::new(CLIENTS));
    let election = tokio::spawn(async move {
        let clients = TaskTracker::new();
        for client in Client::all() {
            clients.spawn(client.do_rounds_unlocked(lock.clone(), validated.clone()));
        }
        clients.close();
        clients.wait().await;
    });
    election.await.expect("an election ends");
    Kept::nothing()
}

/// grpc_1460: the keep-alive of a connection without streams waits under the connection's lock
/// to be woken, and a new stream needs that lock to wake it. Both keep the connection.
pub fn grpc_1460() -> Kernel {
    Kernel {
        id: "grpc_1460",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(grpc_1460_leaks(cast)),
        fixed: |_| Box::pin(grpc_1460_fixed()),
        ends_by_drop: false,
    }
}

struct Connection {
    streams: Mutex<usize>,
    awaken: mpsc::Sender<()>,
}

impl Connection {
    fn new() -> (Arc<Self>, mpsc::Receiver<()>) {
        let (awaken, awakened) = mpsc::channel(1);
        (
            Arc::new(Self {
                streams: Mutex::new(0),
                awaken,
            }),
            awakened,
        )
    }

    /// Says when it has the lock.
    async fn keep_alive(
        self: Arc<Self>,
        mut awakened: mpsc::Receiver<()>,
        locked: oneshot::Sender<()>,
    ) {
        let streams = self.streams.lock().await;
        locked.send(()).ok();
        if *streams == 0 {
            awakened.recv().await;
        }
    }

    async fn new_stream(self: Arc<Self>) {
        let mut streams = self.streams.lock().await;
        *streams += 1;
        if *streams == 1 {
            // Full when nobody sleeps.
            self.awaken.try_send(()).ok();
        }
    }

    /// Makes place in the full channel under the lock, and waits without it.
    async fn keep_alive_unlocked(
        self: Arc<Self>,
        mut awakened: mpsc::Receiver<()>,
        asleep: oneshot::Sender<()>,
    ) {
        let streams = self.streams.lock().await;
        if *streams > 0 {
            return;
        }
        awakened.recv().await;
        drop(streams);
        asleep.send(()).ok();
        awakened.recv().await;
    }

    /// Fills the channel again, for the next time that the keep-alive makes place.
    async fn new_stream_that_refills(self: Arc<Self>) {
        let mut streams = self.streams.lock().await;
        *streams += 1;
        if *streams == 1 && self.awaken.try_send(()).is_ok() {
            self.awaken.send(()).await.ok();
        }
    }
}

async fn grpc_1460_leaks(cast: Cast) -> Kept {
    let (connection, awakened) = Connection::new();
    let (locked, is_locked) = oneshot::channel();
    cast.stays(connection.clone().keep_alive(awakened, locked));
    is_locked.await.expect("the lock is free");
    cast.stays(connection.new_stream());
    Kept::nothing()
}

async fn grpc_1460_fixed() -> Kept {
    let (connection, awakened) = Connection::new();
    connection
        .awaken
        .try_send(())
        .expect("a new channel has its place");
    let (asleep, is_asleep) = oneshot::channel();
    let keep_alive = tokio::spawn(connection.clone().keep_alive_unlocked(awakened, asleep));
    is_asleep.await.expect("the lock is free");
    let stream = tokio::spawn(connection.new_stream_that_refills());
    keep_alive.await.expect("a woken keep-alive ends");
    stream.await.expect("a stream starts");
    Kept::nothing()
}
