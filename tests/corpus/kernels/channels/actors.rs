//! Actors that nobody answers for any more, or that wait for each other.

use super::unbuffered::{Receiver, Sender, unbuffered};
use crate::program::{Cast, Kept, Kernel};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// etcd_6857: a request for the status is sent to a node that has stopped, and the request doesn't
/// look whether it has. The task itself keeps the node, and so the receiver it waits for.
pub fn etcd_6857() -> Kernel {
    Kernel {
        id: "etcd_6857",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(etcd_6857_leaks(cast)),
        fixed: |_| Box::pin(etcd_6857_fixed()),
        ends_by_drop: false,
    }
}

type Reply = oneshot::Sender<&'static str>;

struct Node {
    status: Sender<Reply>,
    stop: Sender<()>,
    done: CancellationToken,
    inbox: Mutex<Inbox>,
}

struct Inbox {
    status: Receiver<Reply>,
    stop: Receiver<()>,
}

impl Node {
    fn new() -> Arc<Self> {
        let (status, statuses) = unbuffered();
        let (stop, stops) = unbuffered();
        let inbox = Inbox {
            status: statuses,
            stop: stops,
        };
        Arc::new(Self {
            status,
            stop,
            done: CancellationToken::new(),
            inbox: Mutex::new(inbox),
        })
    }

    async fn run(self: Arc<Self>) {
        let mut inbox = self.inbox.lock().await;
        let Inbox { status, stop } = &mut *inbox;
        loop {
            tokio::select! {
                Some(reply) = status.recv() => { reply.send("follower").ok(); }
                Some(()) = stop.recv() => {
                    self.done.cancel();
                    return;
                }
            }
        }
    }

    async fn stop(self: Arc<Self>) {
        tokio::select! {
            _ = self.stop.send(()) => self.done.cancelled().await,
            () = self.done.cancelled() => {}
        }
    }

    async fn status(self: Arc<Self>) -> Option<&'static str> {
        let (reply, status) = oneshot::channel();
        self.status.send(reply).await.ok()?;
        status.await.ok()
    }

    async fn status_unless_done(self: Arc<Self>) -> Option<&'static str> {
        tokio::select! {
            status = self.clone().status() => status,
            () = self.done.cancelled() => None,
        }
    }

    /// Starts the node and stops it: the requests come late.
    async fn stopped() -> Arc<Self> {
        let node = Self::new();
        let run = tokio::spawn(node.clone().run());
        tokio::spawn(node.clone().stop())
            .await
            .expect("a stop ends");
        run.await.expect("a stopped node ends");
        node
    }
}

async fn etcd_6857_leaks(cast: Cast) -> Kept {
    let node = Node::stopped().await;
    cast.stays(node.clone().status());
    Kept::of(node)
}

async fn etcd_6857_fixed() -> Kept {
    let node = Node::stopped().await;
    let status = tokio::spawn(node.clone().status_unless_done());
    assert_eq!(status.await.expect("a request ends"), None);
    Kept::of(node)
}

/// cockroach_2448: the raft loop sends an event while the store, in the callback of the event
/// before it, sends to the raft loop. The stopper is kept, which both would listen to.
pub fn cockroach_2448() -> Kernel {
    Kernel {
        id: "cockroach_2448",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(cockroach_2448_leaks(cast)),
        fixed: |_| Box::pin(cockroach_2448_fixed()),
        ends_by_drop: true,
    }
}

type Entry = u32;
const ENTRIES: Entry = 3;

/// Takes events, and applies each by a callback that the raft loop has to run.
struct Store {
    events: Receiver<Entry>,
    callbacks: Sender<Entry>,
    stopper: CancellationToken,
}

impl Store {
    /// `committed` puts off the first callback until the raft loop is past looking for one.
    async fn process_raft(mut self, mut committed: Option<oneshot::Receiver<()>>) {
        loop {
            let entry = tokio::select! {
                Some(entry) = self.events.recv() => entry,
                () = self.stopper.cancelled() => return,
            };
            if let Some(committed) = committed.take() {
                committed.await.ok();
            }
            tokio::select! {
                _ = self.callbacks.send(entry) => {}
                () = self.stopper.cancelled() => return,
            }
        }
    }
}

struct Raft {
    events: Sender<Entry>,
    callbacks: Receiver<Entry>,
    stopper: CancellationToken,
}

impl Raft {
    async fn run(mut self, committed: oneshot::Sender<()>) {
        let mut committed = Some(committed);
        for entry in 0.. {
            tokio::select! {
                biased;
                () = self.stopper.cancelled() => return,
                Some(_) = self.callbacks.recv() => continue,
                () = std::future::ready(()) => {}
            }
            if entry == 1
                && let Some(committed) = committed.take()
            {
                committed.send(()).ok();
            }
            tokio::select! {
                _ = self.events.send(entry) => {}
                () = self.stopper.cancelled() => return,
            }
        }
    }

    /// An event that can't be sent now waits in a queue, and the loop goes on.
    async fn run_with_queue(mut self, applied: mpsc::Sender<Entry>) {
        let mut queue: VecDeque<Entry> = (0..ENTRIES).collect();
        loop {
            let next = queue.front().copied();
            tokio::select! {
                () = self.stopper.cancelled() => return,
                Some(entry) = self.callbacks.recv() => { applied.send(entry).await.ok(); }
                _ = self.events.send(next.unwrap_or_default()), if next.is_some() => {
                    queue.pop_front();
                }
            }
        }
    }
}

fn store_and_raft() -> (Store, Raft, CancellationToken) {
    let stopper = CancellationToken::new();
    let (send_event, events) = unbuffered();
    let (send_callback, callbacks) = unbuffered();
    let store = Store {
        events,
        callbacks: send_callback,
        stopper: stopper.clone(),
    };
    let raft = Raft {
        events: send_event,
        callbacks,
        stopper: stopper.clone(),
    };
    (store, raft, stopper)
}

async fn cockroach_2448_leaks(cast: Cast) -> Kept {
    let (store, raft, stopper) = store_and_raft();
    let (committed, second) = oneshot::channel();
    cast.stays(store.process_raft(Some(second)));
    cast.stays(raft.run(committed));
    Kept::of(stopper.drop_guard())
}

async fn cockroach_2448_fixed() -> Kept {
    let (store, raft, stopper) = store_and_raft();
    let (applied, mut done) = mpsc::channel(1);
    let store = tokio::spawn(store.process_raft(None));
    let raft = tokio::spawn(raft.run_with_queue(applied));
    for entry in 0..ENTRIES {
        assert_eq!(done.recv().await, Some(entry));
    }
    stopper.cancel();
    store.await.expect("a stopped store ends");
    raft.await.expect("a stopped raft loop ends");
    Kept::nothing()
}
