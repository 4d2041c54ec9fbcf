//! A future of one's own that breaks the contract of `Poll::Pending`.

use crate::program::{Cast, Kept, Kernel};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use tokio::sync::oneshot;

pub fn all() -> Vec<Kernel> {
    vec![Kernel {
        id: "pending_without_waker",
        codes: "Z",
        flaky: false,
        leaks: |cast| Box::pin(leaks(cast)),
        fixed: |_| Box::pin(fixed()),
        ends_by_drop: false,
    }]
}

/// Set once, by somebody who then wakes whoever left a waker.
#[derive(Default)]
struct Flag(Mutex<(bool, Option<Waker>)>);

impl Flag {
    fn set(&self) {
        let mut flag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flag.0 = true;
        if let Some(waker) = flag.1.take() {
            waker.wake();
        }
    }

    /// Whether it is set; `waker` is left behind if it isn't.
    fn look(&self, waker: Option<&Waker>) -> Poll<()> {
        let mut flag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if flag.0 {
            return Poll::Ready(());
        }
        flag.1 = waker.cloned();
        Poll::Pending
    }
}

/// Waits for the flag, and says when it has looked once.
async fn wait(flag: Arc<Flag>, leaves_waker: bool, looked: oneshot::Sender<()>) {
    let mut looked = Some(looked);
    poll_fn(|cx| {
        let found = flag.look(leaves_waker.then(|| cx.waker()));
        if let Some(looked) = looked.take() {
            looked.send(()).expect("the body waits for it");
        }
        found
    })
    .await;
}

/// A hand-written future looks at a flag, returns `Pending` and leaves no waker: the flag is set,
/// and there is nobody to wake.
async fn leaks(cast: Cast) -> Kept {
    let flag = Arc::<Flag>::default();
    let (looked, has_looked) = oneshot::channel();
    cast.stays(wait(Arc::clone(&flag), false, looked));
    has_looked.await.expect("the task looks");
    flag.set();
    Kept::of(flag)
}

/// It leaves its waker.
async fn fixed() -> Kept {
    let flag = Arc::<Flag>::default();
    let (looked, has_looked) = oneshot::channel();
    let waiter = tokio::spawn(wait(Arc::clone(&flag), true, looked));
    has_looked.await.expect("the task looks");
    flag.set();
    waiter.await.expect("the flag is set");
    Kept::of(flag)
}
