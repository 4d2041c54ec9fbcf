//! Waits for an end, a permit or a change that nobody brings about.

use crate::program::{Cast, Kept, Kernel};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

pub fn all() -> Vec<Kernel> {
    vec![
        Kernel {
            id: "tracker_never_closed",
            codes: "Q",
            flaky: false,
            leaks: |cast| Box::pin(tracker::leaks(cast)),
            fixed: |_| Box::pin(tracker::fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "handles_await_each_other",
            codes: "Q",
            flaky: false,
            leaks: |cast| Box::pin(handles::leaks(cast)),
            fixed: |_| Box::pin(handles::fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "parked_permit",
            codes: "Q",
            flaky: false,
            leaks: |cast| Box::pin(permit::leaks(cast)),
            fixed: |_| Box::pin(permit::fixed()),
            ends_by_drop: true,
        },
        Kernel {
            id: "watch_idle_sender",
            codes: "Q",
            flaky: false,
            leaks: |cast| Box::pin(change::leaks(cast)),
            fixed: |_| Box::pin(change::fixed()),
            ends_by_drop: true,
        },
    ]
}

mod tracker {
    use super::*;

    async fn stop(tracker: TaskTracker) {
        tracker.wait().await;
    }

    /// The service's stop waits for a tracker whose tasks have all ended, and which nobody closed:
    /// `wait` needs both. The tracker is the service's.
    pub(super) async fn leaks(cast: Cast) -> Kept {
        let tracker = TaskTracker::new();
        cast.stays(stop(tracker.clone()));
        let request = tracker.spawn(async {});
        request.await.expect("the request is served");
        Kept::of(tracker)
    }

    /// It is closed first.
    pub(super) async fn fixed() -> Kept {
        let tracker = TaskTracker::new();
        let stop = tokio::spawn(stop(tracker.clone()));
        tracker.spawn(async {});
        tracker.close();
        stop.await.expect("all are served");
        Kept::of(tracker)
    }
}

mod handles {
    use super::*;

    type Other = oneshot::Receiver<JoinHandle<()>>;

    async fn after(other: Other) {
        let other = other.await.expect("the other one's handle");
        other.await.expect("the other one's end");
    }

    /// Reader and writer each wait for the other one's end before their own. They keep each other.
    pub(super) async fn leaks(cast: Cast) -> Kept {
        let (to_reader, others) = oneshot::channel();
        let reader = cast.stays(after(others));
        let (to_writer, others) = oneshot::channel();
        let writer = cast.stays(after(others));
        to_reader.send(writer).expect("the reader waits");
        to_writer.send(reader).expect("the writer waits");
        Kept::nothing()
    }

    /// The writer waits for nobody.
    pub(super) async fn fixed() -> Kept {
        let (to_reader, others) = oneshot::channel();
        let reader = tokio::spawn(after(others));
        let writer = tokio::spawn(async {});
        to_reader.send(writer).expect("the reader waits");
        reader.await.expect("both end");
        Kept::nothing()
    }
}

mod permit {
    use super::*;

    /// What a service remembers of each client, for as long as it likes.
    type Sessions = Arc<Mutex<HashMap<u32, OwnedSemaphorePermit>>>;

    async fn admit(limit: Arc<Semaphore>) -> OwnedSemaphorePermit {
        limit.acquire_owned().await.expect("it is never closed")
    }

    fn remember(sessions: &Sessions, client: u32, permit: OwnedSemaphorePermit) {
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(client, permit);
    }

    /// The first request's permit is stored with its session instead of being given back; the
    /// second waits for it. The sessions are kept.
    pub(super) async fn leaks(cast: Cast) -> Kept {
        let (limit, sessions) = (Arc::new(Semaphore::new(1)), Sessions::default());
        let first = admit(Arc::clone(&limit)).await;
        remember(&sessions, 1, first);
        cast.stays(async move {
            let second = admit(limit).await;
            drop(second);
        });
        Kept::of(sessions)
    }

    /// A permit ends with its request.
    pub(super) async fn fixed() -> Kept {
        let (limit, sessions) = (Arc::new(Semaphore::new(1)), Sessions::default());
        for _client in [1, 2] {
            let limit = Arc::clone(&limit);
            let request = tokio::spawn(async move { drop(admit(limit).await) });
            request.await.expect("it is served");
        }
        Kept::of(sessions)
    }
}

mod change {
    use super::*;

    /// Becomes ready, and then a task starts to wait for a *change*: the readiness counts as seen,
    /// and there is no second. The Sender is kept by whoever would say that it is over.
    pub(super) async fn leaks(cast: Cast) -> Kept {
        let (ready, _) = watch::channel(false);
        ready.send_replace(true);
        let mut is_ready = ready.subscribe();
        cast.stays(async move { is_ready.changed().await.unwrap_or_default() });
        Kept::of(ready)
    }

    /// It waits for the value.
    pub(super) async fn fixed() -> Kept {
        let (ready, _) = watch::channel(false);
        ready.send_replace(true);
        let mut is_ready = ready.subscribe();
        let waiter = tokio::spawn(async move { is_ready.wait_for(|ready| *ready).await.is_ok() });
        assert!(waiter.await.expect("no panic"), "it is ready");
        Kept::of(ready)
    }
}
