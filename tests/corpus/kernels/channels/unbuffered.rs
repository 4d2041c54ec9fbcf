//! An mpsc channel of one place, used as one without a buffer: a send waits for a receive.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;

pub fn unbuffered<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(1);
    (Sender(sender), Receiver(receiver))
}

/// `None` only takes the one place, so that what is sent after it has to wait.
pub struct Sender<T>(mpsc::Sender<Option<T>>);

impl<T> Sender<T> {
    /// First waits for the value before this one to be taken, then for a receiver of its own.
    pub async fn send(&self, value: T) -> Result<(), SendError<Option<T>>> {
        self.0.send(None).await?;
        self.0.send(Some(value)).await
    }
}

pub struct Receiver<T>(mpsc::Receiver<Option<T>>);

impl<T> Receiver<T> {
    /// In a `select!` only beside what doesn't come once a sender waits: what is dropped halfway
    /// has let that sender go.
    pub async fn recv(&mut self) -> Option<T> {
        loop {
            if let Some(value) = self.0.recv().await? {
                return Some(value);
            }
        }
    }
}
