//! Condition variables whose signal never comes.

use super::{tell, telling, unbuffered};
use crate::program::{Cast, Kept, Kernel};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, Notify, RwLock, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub fn all() -> Vec<Kernel> {
    vec![
        Kernel {
            id: "moby_29733",
            codes: "Q/P",
            flaky: false,
            leaks: |cast| Box::pin(plugins_leak(cast)),
            fixed: |_| Box::pin(plugins_fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "moby_27782",
            codes: "Q",
            flaky: false,
            leaks: |cast| Box::pin(logs_leak(cast)),
            fixed: |_| Box::pin(logs_fixed()),
            ends_by_drop: false,
        },
    ]
}

#[derive(Default)]
struct Plugin {
    activated: Mutex<bool>,
    activation: Notify,
}

impl Plugin {
    async fn activate(&self) {
        *self.activated.lock().await = true;
        self.activation.notify_waiters();
    }

    /// Waits for the activation and tells that it was, as a request for the plugin does.
    async fn wait_active(&self, waits: oneshot::Sender<()>, done: mpsc::Sender<()>) {
        tell(waits);
        loop {
            let activation = self.activation.notified();
            if *self.activated.lock().await {
                break;
            }
            activation.await;
        }
        // Where nobody waits for it any more, it is active all the same.
        done.send(()).await.ok();
    }
}

#[derive(Default)]
struct Plugins {
    handlers: RwLock<usize>,
    stored: Mutex<HashMap<u32, Arc<Plugin>>>,
}

impl Plugins {
    async fn with_one() -> (Self, Arc<Plugin>) {
        let (plugins, plugin) = (Self::default(), Arc::new(Plugin::default()));
        plugins.stored.lock().await.insert(0, Arc::clone(&plugin));
        (plugins, plugin)
    }

    /// Adds a handler, for which each plugin counts as new.
    async fn handle(&self) {
        let mut handlers = self.handlers.write().await;
        *handlers += 1;
        for plugin in self.stored.lock().await.values() {
            *plugin.activated.lock().await = false;
        }
    }

    async fn handle_fixed(&self) {
        *self.handlers.write().await += 1;
    }
}

/// moby_29733: a new handler takes a plugin's activation back, and who asks for the plugin then
/// waits for a second one that nobody gives. The plugins are kept; the body is the parent that
/// does not wait for the second request.
async fn plugins_leak(cast: Cast) -> Kept {
    let (plugins, plugin) = Plugins::with_one().await;
    let (waits, waiting) = oneshot::channel();
    let (done, mut is_done) = mpsc::channel(1);
    let of_first = Arc::clone(&plugin);
    let first = tokio::spawn(async move { of_first.wait_active(waits, done).await });
    waiting.await.expect("the first request waits");
    plugin.activate().await;
    is_done.recv().await.expect("the first request is done");
    first.await.expect("the first request ends");

    plugins.handle().await;
    let (waits, waiting) = oneshot::channel();
    let (done, _) = mpsc::channel(1);
    cast.stays(async move { plugin.wait_active(waits, done).await });
    waiting.await.expect("the second request waits");
    Kept::of(plugins)
}

/// A new handler leaves the activation as it is.
async fn plugins_fixed() -> Kept {
    let (plugins, plugin) = Plugins::with_one().await;
    let (waits, waiting) = oneshot::channel();
    let (done, mut is_done) = mpsc::channel(1);
    let first = Arc::clone(&plugin);
    tokio::spawn(async move { first.wait_active(waits, done).await });
    waiting.await.expect("the first request waits");
    plugin.activate().await;
    is_done.recv().await.expect("the first request is done");

    plugins.handle_fixed().await;
    let (waits, waiting) = oneshot::channel();
    let (done, mut is_done) = mpsc::channel(1);
    tokio::spawn(async move { plugin.wait_active(waits, done).await });
    waiting.await.expect("the second request waits");
    is_done.recv().await.expect("the second request is done");
    Kept::of(plugins)
}

/// Whether the file is watched, and who waits until it is not.
struct Watch {
    exists: Mutex<bool>,
    removed: Notify,
}

/// A watched file, as its reader has it. The watcher is closed when this is dropped.
struct FileWatcher {
    watch: Arc<Watch>,
    writes: mpsc::Receiver<()>,
    _done: mpsc::Sender<()>,
}

/// The same, as the task has it that passes on what happens to the file.
struct Events {
    watch: Arc<Watch>,
    writes: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
}

impl Watch {
    fn open() -> (FileWatcher, Events) {
        let watch = Arc::new(Self {
            exists: Mutex::new(true),
            removed: Notify::new(),
        });
        let (sender, receiver) = unbuffered(());
        let (done, is_done) = mpsc::channel(1);
        let file = FileWatcher {
            watch: Arc::clone(&watch),
            writes: receiver,
            _done: done,
        };
        let events = Events {
            watch,
            writes: sender,
            done: is_done,
        };
        (file, events)
    }

    async fn remove(&self) {
        loop {
            let removed = self.removed.notified();
            if !*self.exists.lock().await {
                return;
            }
            removed.await;
        }
    }
}

impl Events {
    /// The file is written to, and then it is not watched any more.
    async fn read(mut self, sends: oneshot::Sender<()>) {
        let (writes, done) = (&self.writes, &mut self.done);
        let passed_on = telling(sends, async {
            tokio::select! {
                sent = writes.send(()) => sent.is_ok(),
                _ = done.recv() => false,
            }
        });
        if passed_on.await {
            *self.watch.exists.lock().await = false;
            self.watch.removed.notify_waiters();
            self.done.recv().await;
        }
    }
}

/// The readers of a log, each by what closes it.
type Readers = Arc<Mutex<Vec<CancellationToken>>>;

async fn add_reader(readers: &Readers) -> CancellationToken {
    let closed = CancellationToken::new();
    readers.lock().await.push(closed.clone());
    closed
}

async fn close_all(readers: &Readers) {
    for closed in readers.lock().await.drain(..) {
        closed.cancel();
    }
}

/// moby_27782: a log that fails to start closes its reader. The reader removes the file from the
/// watcher and waits to be told that it is gone, and receives no more events; the watcher can't
/// send the one before. Here the log is closed before the reader looks. The tasks keep all of it
/// themselves.
async fn logs_leak(cast: Cast) -> Kept {
    let (sends, sending) = oneshot::channel();
    let start = tokio::spawn(async move {
        let readers = Readers::default();
        let of_reader = Arc::clone(&readers);
        let (adds, added) = oneshot::channel();
        let (closes, closing) = oneshot::channel();
        cast.clone().stays(async move {
            let closed = add_reader(&of_reader).await;
            tell(adds);
            closing.await.expect("the log is closed");
            let (mut file, events) = Watch::open();
            cast.stays(events.read(sends));
            tokio::select! {
                biased;
                () = closed.cancelled() => file.watch.remove().await,
                _ = file.writes.recv() => {}
            }
        });
        added.await.expect("a reader comes");
        close_all(&readers).await;
        tell(closes);
    });
    start.await.expect("the log is closed");
    sending.await.expect("the file is written to");
    Kept::nothing()
}

/// A task of its own removes the file, and the reader receives until that is done.
async fn logs_fixed() -> Kept {
    let (sends, sending) = oneshot::channel();
    let start = tokio::spawn(async move {
        let readers = Readers::default();
        let of_reader = Arc::clone(&readers);
        let (adds, added) = oneshot::channel();
        let (closes, closing) = oneshot::channel();
        let reader = tokio::spawn(async move {
            let closed = add_reader(&of_reader).await;
            tell(adds);
            closing.await.expect("the log is closed");
            let (mut file, events) = Watch::open();
            tokio::spawn(events.read(sends));
            let (watch, removed) = (Arc::clone(&file.watch), CancellationToken::new());
            let removes = removed.clone();
            tokio::spawn(async move {
                closed.cancelled().await;
                watch.remove().await;
                removes.cancel();
            });
            loop {
                tokio::select! {
                    () = removed.cancelled() => break,
                    _ = file.writes.recv() => {}
                }
            }
        });
        added.await.expect("a reader comes");
        close_all(&readers).await;
        tell(closes);
        reader.await.expect("the reader ends");
    });
    sending.await.expect("the file is written to");
    start.await.expect("the log is closed");
    Kept::nothing()
}
