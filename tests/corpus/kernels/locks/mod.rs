//! Locks, guards and condition variables: what the waiters wait for is held by one of them.

mod conditions;
mod crossed;
mod full;
mod guards;
mod own;
mod page;
mod readers;
mod timer;

use crate::program::Kernel;
use tokio::sync::{mpsc, oneshot};

pub fn all() -> Vec<Kernel> {
    [
        own::all(),
        page::all(),
        guards::all(),
        crossed::all(),
        readers::all(),
        conditions::all(),
        timer::all(),
        full::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Go's unbuffered channel: a send ends when somebody receives. The only place is taken, so each
/// receive lets one send end.
fn unbuffered<T>(filler: T) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel(1);
    assert!(sender.try_send(filler).is_ok(), "a new channel has a place");
    (sender, receiver)
}

/// Waits, and tells when the wait has begun: the task is then in the queue of what it waits for.
async fn telling<F: Future>(waits: oneshot::Sender<()>, wait: F) -> F::Output {
    let (output, ()) = tokio::join!(wait, async { tell(waits) });
    output
}

fn tell(told: oneshot::Sender<()>) {
    told.send(()).expect("somebody wants to know");
}
