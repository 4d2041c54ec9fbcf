//! Where the program's own reader hands in requests of metrics, and waits for them to be sent.

use super::encode::Which;
use super::wire::Sent;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Where requests of metrics are handed in, and where it is said which metrics are ours to send.
#[derive(Debug)]
pub(crate) struct Desk {
    own: Mutex<Own>,
    requests: Mutex<Requests>,
    pub(super) changed: Notify,
}

/// Which metrics are ours to send, and who sends them.
#[derive(Clone, Copy, Debug)]
struct Own {
    /// `None` where metrics are switched off.
    which: Option<Which>,
    /// A reader of the program's does.
    is_taken: bool,
}

#[derive(Debug, Default)]
struct Requests {
    waiting: VecDeque<Request>,
    /// Nobody comes for more.
    closed: bool,
}

/// Metrics that somebody waits to see sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) metrics: ExportMetricsServiceRequest,
    pub(super) reply: Reply,
}

/// What became of a request. tokio's channels tell subscribers of all they do, and who waits
/// here is on a thread of the program.
#[derive(Debug, Default)]
struct Slip {
    /// `None` inside where nothing was tried.
    sent: Mutex<Option<Option<Sent>>>,
    written: Notify,
}

#[derive(Debug)]
pub(super) struct Reply(Arc<Slip>);

impl Reply {
    pub(super) fn write(&self, sent: Option<Sent>) {
        self.0.sent.lock().get_or_insert(sent);
        self.0.written.notify_one();
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.write(None);
    }
}

/// Where a reply is waited for.
#[derive(Debug)]
pub(crate) struct Replied(Arc<Slip>);

impl Replied {
    /// `None` where the sender has stopped.
    pub(crate) async fn wait(self) -> Option<Sent> {
        loop {
            if let Some(sent) = self.0.sent.lock().take() {
                return sent;
            }
            self.0.written.notified().await;
        }
    }
}

/// A reader hands in one request at a time.
const MOST_REQUESTS: usize = 16;

impl Desk {
    pub(crate) fn new(own: Option<Which>) -> Arc<Self> {
        Arc::new(Self {
            own: Mutex::new(Own {
                which: own,
                is_taken: false,
            }),
            requests: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Which metrics the sender collects by itself.
    pub(super) fn own(&self) -> Option<Which> {
        let own = *self.own.lock();
        own.which.filter(|_| !own.is_taken)
    }

    /// Leaves them to a reader of the program's. `None` where there are none, or another
    /// has them.
    pub(super) fn take(&self) -> Option<Which> {
        let mut own = self.own.lock();
        let which = own.which.filter(|_| !own.is_taken)?;
        own.is_taken = true;
        Some(which)
    }

    /// The reader has gone.
    pub(super) fn give_back(&self) {
        self.own.lock().is_taken = false;
    }

    /// Hands a request in, where there is room and somebody to send it.
    pub(crate) fn hand_in(&self, metrics: ExportMetricsServiceRequest) -> Option<Replied> {
        let slip = Arc::<Slip>::default();
        let reply = Reply(Arc::clone(&slip));
        let mut requests = self.requests.lock();
        if requests.closed || requests.waiting.len() >= MOST_REQUESTS {
            return None;
        }
        requests.waiting.push_back(Request { metrics, reply });
        drop(requests);
        self.changed.notify_one();
        Some(Replied(slip))
    }

    /// Nothing handed in is sent any more.
    pub(super) fn close(&self) {
        let mut requests = self.requests.lock();
        requests.closed = true;
        let rest = std::mem::take(&mut requests.waiting);
        drop(requests);
        drop(rest);
    }

    pub(super) fn next(&self) -> Option<Request> {
        self.requests.lock().waiting.pop_front()
    }
}
