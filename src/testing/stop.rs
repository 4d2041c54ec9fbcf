//! How tasks are asked to stop.

use std::future::Future;
use tokio_util::sync::CancellationToken;

/// What [`assert_stops_within`](super::Watch::assert_stops_within) takes: a
/// [`CancellationToken`], which it cancels, or a future that does what is needed, such as
/// `async { server.shutdown().await }`.
///
/// `By` tells the two apart for the compiler; you never write it.
pub trait Stop<By> {
    /// Asks the tasks to stop.
    fn request(self) -> impl Future<Output = ()>;
}

/// A stop that a future does.
#[derive(Debug)]
pub enum ByFuture {}

/// A stop that a token does.
#[derive(Debug)]
pub enum ByToken {}

impl<F: Future> Stop<ByFuture> for F {
    async fn request(self) {
        self.await;
    }
}

impl Stop<ByToken> for CancellationToken {
    async fn request(self) {
        self.cancel();
    }
}

impl Stop<ByToken> for &CancellationToken {
    async fn request(self) {
        self.cancel();
    }
}
