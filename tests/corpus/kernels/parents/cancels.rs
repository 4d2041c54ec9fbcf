//! Work that no cancel reaches once its parent has returned.

use crate::program::{Cast, Kept, Kernel};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// kubernetes_70277: a wait returns when its condition holds, and the poller that it started goes
/// on until the caller's own stop. That stop is kept. The poller has no timeout, as in an infinite
/// poll.
pub fn kubernetes_70277() -> Kernel {
    Kernel {
        id: "kubernetes_70277",
        codes: "P+G",
        flaky: false,
        leaks: |cast| Box::pin(kubernetes_70277_leaks(cast)),
        fixed: |_| Box::pin(kubernetes_70277_fixed()),
        ends_by_drop: true,
    }
}

const INTERVAL: Duration = Duration::from_millis(1);

async fn poll(turns: mpsc::Sender<()>, done: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            // A turn that nobody waits for is left out.
            _ = interval.tick() => { turns.try_send(()).ok(); }
            () = done.cancelled() => return,
        }
    }
}

async fn wait_for(
    wait: impl FnOnce(CancellationToken) -> mpsc::Receiver<()>,
    condition: impl Fn() -> bool,
    done: CancellationToken,
) {
    let mut turns = wait(done);
    while turns.recv().await.is_some() && !condition() {}
}

async fn kubernetes_70277_leaks(cast: Cast) -> Kept {
    let stop = CancellationToken::new();
    let poller = |done| {
        let (turns, receiver) = mpsc::channel(1);
        cast.stays(poll(turns, done));
        receiver
    };
    wait_for(poller, || true, stop.clone()).await;
    Kept::of(stop.drop_guard())
}

/// The wait stops its poller by a token of its own.
async fn kubernetes_70277_fixed() -> Kept {
    let stop = CancellationToken::new();
    let poller = |done| {
        let (turns, receiver) = mpsc::channel(1);
        tokio::spawn(poll(turns, done));
        receiver
    };
    let done = stop.child_token();
    let _returned = done.clone().drop_guard();
    wait_for(poller, || true, done).await;
    Kept::of(stop.drop_guard())
}

/// grpc_862: a dial that is cancelled returns without closing the connection it began, which goes
/// on connecting. The task that connects keeps the connection itself, with the token for its end.
pub fn grpc_862() -> Kernel {
    Kernel {
        id: "grpc_862",
        codes: "P+Q",
        flaky: false,
        leaks: |cast| Box::pin(grpc_862_leaks(cast)),
        fixed: |_| Box::pin(grpc_862_fixed()),
        ends_by_drop: false,
    }
}

const BACK_OFF: Duration = Duration::from_millis(2);

#[derive(Default)]
struct ClientConn {
    token: CancellationToken,
}

impl ClientConn {
    /// No address answers.
    async fn reset_addr_conn(self: Arc<Self>) {
        let addr_conn = self.token.child_token();
        for retries in 1.. {
            tokio::select! {
                () = tokio::time::sleep(BACK_OFF * retries) => {}
                () = addr_conn.cancelled() => return,
            }
        }
    }

    fn close(&self) {
        self.token.cancel();
    }
}

/// Dials in a task of its own, which another one cancels.
async fn dial<D: Future<Output = ()> + Send + 'static>(dial: impl FnOnce(CancellationToken) -> D) {
    let context = CancellationToken::new();
    let dialling = tokio::spawn(dial(context.clone()));
    tokio::spawn(async move { context.cancel() });
    dialling.await.expect("a cancelled dial ends");
}

async fn grpc_862_leaks(cast: Cast) -> Kept {
    dial(|context| async move {
        let conn = Arc::new(ClientConn::default());
        cast.stays(conn.clone().reset_addr_conn());
        context.cancelled().await;
    })
    .await;
    Kept::nothing()
}

async fn grpc_862_fixed() -> Kept {
    dial(|context| async move {
        let conn = Arc::new(ClientConn::default());
        tokio::spawn(conn.clone().reset_addr_conn());
        context.cancelled().await;
        conn.close();
    })
    .await;
    Kept::nothing()
}

/// cockroach_18101: the cancel of a restore ends the task that takes spans from a channel, but not
/// the task that sends them. The restore's receiver is kept.
pub fn cockroach_18101() -> Kernel {
    Kernel {
        id: "cockroach_18101",
        codes: "C+P",
        flaky: false,
        leaks: |cast| Box::pin(cockroach_18101_leaks(cast)),
        fixed: |_| Box::pin(cockroach_18101_fixed()),
        ends_by_drop: true,
    }
}

const PLACES: usize = 6;

struct Restore {
    ready: mpsc::Receiver<bool>,
}

impl Restore {
    /// Takes the first span, and is cancelled before the next.
    async fn run(
        split: impl FnOnce(mpsc::Sender<bool>, CancellationToken),
        context: CancellationToken,
    ) -> Self {
        let (ready, receiver) = mpsc::channel(PLACES);
        let mut restore = Self { ready: receiver };
        split(ready, context.clone());
        if restore.ready.recv().await.is_some() {
            context.cancelled().await;
        }
        restore
    }
}

async fn split_and_scatter(ready: mpsc::Sender<bool>) {
    for span in 0..PLACES + 2 {
        if ready.send(span > 0).await.is_err() {
            return;
        }
    }
}

async fn split_until_cancelled(ready: mpsc::Sender<bool>, context: CancellationToken) {
    tokio::select! {
        () = split_and_scatter(ready) => {}
        () = context.cancelled() => {}
    }
}

async fn cockroach_18101_leaks(cast: Cast) -> Kept {
    let context = CancellationToken::new();
    let split = move |ready, _| {
        cast.stays(split_and_scatter(ready));
    };
    let restore = tokio::spawn(Restore::run(split, context.clone()));
    tokio::spawn(async move { context.cancel() });
    Kept::of(restore.await.expect("a cancelled restore ends"))
}

async fn cockroach_18101_fixed() -> Kept {
    let context = CancellationToken::new();
    let split = |ready, context| {
        tokio::spawn(split_until_cancelled(ready, context));
    };
    let restore = tokio::spawn(Restore::run(split, context.clone()));
    tokio::spawn(async move { context.cancel() });
    Kept::of(restore.await.expect("a cancelled restore ends"))
}
