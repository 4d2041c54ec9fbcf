//! A future that has a place in a queue and is not polled any more.

use crate::program::{Cast, Kept, Kernel};
use std::sync::Arc;
use tokio::sync::{Mutex, oneshot};

pub fn all() -> Vec<Kernel> {
    vec![Kernel {
        id: "futurelock",
        codes: "M/Q",
        flaky: false,
        leaks: |cast| Box::pin(leaks(cast)),
        fixed: |_| Box::pin(fixed()),
        ends_by_drop: false,
    }]
}

/// The account that both writes change.
type Account = Arc<Mutex<u64>>;

async fn write(account: Account) {
    *account.lock().await += 1;
}

/// Somebody has the lock until he is told to let go of it.
async fn held(account: &Account) -> oneshot::Sender<()> {
    let holding = Arc::clone(account).lock_owned().await;
    let (release, released) = oneshot::channel();
    tokio::spawn(async move {
        released.await.expect("it is told");
        drop(holding);
    });
    release
}

/// A deadline that has passed by the time somebody looks.
fn passed() -> oneshot::Receiver<()> {
    let (pass, deadline) = oneshot::channel();
    pass.send(()).expect("the other end is here");
    deadline
}

/// `select!` over `&mut first` and a deadline: first is in the lock's queue when the deadline
/// passes, and the branch waits for the same lock. The lock goes to first, which nobody polls.
/// The task keeps all of it itself.
async fn leaks(cast: Cast) -> Kept {
    let account = Account::default();
    let release = held(&account).await;
    cast.stays(async move {
        let first = write(Arc::clone(&account));
        tokio::pin!(first);
        tokio::select! {
            biased;
            () = &mut first => {}
            _ = passed() => {
                release.send(()).expect("the holder waits");
                write(account).await;
            }
        }
    });
    Kept::nothing()
}

/// The first write is a task of its own, so that it goes on whatever this one waits for.
async fn fixed() -> Kept {
    let account = Account::default();
    let release = held(&account).await;
    let writer = tokio::spawn(async move {
        let mut first = tokio::spawn(write(Arc::clone(&account)));
        tokio::select! {
            biased;
            written = &mut first => written.expect("the first write"),
            _ = passed() => {
                release.send(()).expect("the holder waits");
                write(account).await;
                first.await.expect("the first write");
            }
        }
    });
    writer.await.expect("both writes");
    Kept::nothing()
}
