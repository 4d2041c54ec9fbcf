//! Results that nobody takes any more.

use crate::kernels::channels::unbuffered::{Receiver, Sender, unbuffered};
use crate::program::{Cast, Kept, Kernel};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// grpc_660: a benchmark's loop returns at the stop and leaves the call that runs behind, whose
/// end it would have received. The client is kept, and with it the receiver of the last call.
pub fn grpc_660() -> Kernel {
    Kernel {
        id: "grpc_660",
        codes: "P+Q",
        flaky: false,
        leaks: |cast| Box::pin(grpc_660_leaks(cast)),
        fixed: |_| Box::pin(grpc_660_fixed()),
        ends_by_drop: true,
    }
}

struct BenchmarkClient {
    stop: CancellationToken,
    done: Receiver<bool>,
}

impl BenchmarkClient {
    /// One whose stop a task of its own has asked for.
    async fn stopped() -> Self {
        let stop = CancellationToken::new();
        let helper = stop.clone();
        let stopping = tokio::spawn(async move { helper.cancel() });
        stopping.await.expect("a stop ends");
        let (_, done) = unbuffered();
        Self { stop, done }
    }

    async fn unary_loop(mut self, call: impl Fn(Sender<bool>, CancellationToken)) -> Self {
        loop {
            let (done, call_done) = unbuffered();
            self.done = call_done;
            call(done, self.stop.clone());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self,
                _ = self.done.recv() => {}
            }
        }
    }
}

async fn grpc_660_leaks(cast: Cast) -> Kept {
    let client = BenchmarkClient::stopped().await;
    let calls = client.unary_loop(move |done, _| {
        cast.stays(async move { done.send(true).await });
    });
    Kept::of(tokio::spawn(calls).await.expect("a stopped loop ends"))
}

async fn grpc_660_fixed() -> Kept {
    let client = BenchmarkClient::stopped().await;
    let calls = client.unary_loop(|done, stop| {
        tokio::spawn(async move {
            tokio::select! {
                _ = done.send(true) => {}
                () = stop.cancelled() => {}
            }
        });
    });
    Kept::of(tokio::spawn(calls).await.expect("a stopped loop ends"))
}

/// moby_4395: a helper starts a function and returns the channel of its result, which has no place
/// for one. The receiver is kept in a map, and nobody takes from it.
pub fn moby_4395() -> Kernel {
    Kernel {
        id: "moby_4395",
        codes: "P+Q",
        flaky: false,
        leaks: |cast| Box::pin(moby_4395_leaks(cast)),
        fixed: |_| Box::pin(moby_4395_fixed()),
        ends_by_drop: true,
    }
}

async fn attach() -> Result<(), &'static str> {
    Err("no such container")
}

async fn moby_4395_leaks(cast: Cast) -> Kept {
    let (result, receiver) = unbuffered();
    cast.stays(async move { result.send(attach().await).await });
    Kept::of(HashMap::from([("attach", receiver)]))
}

async fn moby_4395_fixed() -> Kept {
    let (result, receiver) = mpsc::channel(1);
    let run = tokio::spawn(async move { result.send(attach().await).await });
    run.await
        .expect("a run ends")
        .expect("the receiver is kept");
    Kept::of(HashMap::from([("attach", receiver)]))
}

/// moby_33781: a health monitor is stopped while a probe runs, and returns without the probe's
/// result. The monitor is kept, and with it the receiver of that result.
pub fn moby_33781() -> Kernel {
    Kernel {
        id: "moby_33781",
        codes: "P",
        flaky: false,
        leaks: |cast| Box::pin(moby_33781_leaks(cast)),
        fixed: |_| Box::pin(moby_33781_fixed()),
        ends_by_drop: true,
    }
}

const PROBE_INTERVAL: Duration = Duration::from_millis(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

struct Monitor {
    stop: Receiver<()>,
    results: Receiver<bool>,
    drains: bool,
}

impl Monitor {
    fn new(stop: Receiver<()>, drains: bool) -> Self {
        let (_, results) = unbuffered();
        Self {
            stop,
            results,
            drains,
        }
    }

    async fn run(mut self, probe: impl Fn(Sender<bool>)) -> Self {
        loop {
            tokio::select! {
                _ = self.stop.recv() => return self,
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
            let (result, results) = unbuffered();
            self.results = results;
            probe(result);
            tokio::select! {
                _ = self.stop.recv() => {
                    if self.drains {
                        self.results.recv().await;
                    }
                    return self;
                }
                _ = self.results.recv() => {}
                () = tokio::time::sleep(PROBE_TIMEOUT) => { self.results.recv().await; }
            }
        }
    }
}

/// A container whose probe runs until it is told to answer.
#[derive(Clone, Default)]
struct Container {
    probing: Arc<Notify>,
    answer: Arc<Notify>,
}

impl Container {
    async fn probe(self, result: Sender<bool>) {
        self.probing.notify_one();
        self.answer.notified().await;
        result.send(true).await.ok();
    }

    async fn stop_while_probing(self, stop: Sender<()>) {
        self.probing.notified().await;
        stop.send(()).await.ok();
    }
}

async fn moby_33781_leaks(cast: Cast) -> Kept {
    let container = Container::default();
    let (stop, stops) = unbuffered();
    let probed = container.clone();
    let monitor = tokio::spawn(Monitor::new(stops, false).run(move |result| {
        cast.stays(probed.clone().probe(result));
    }));
    let stopping = tokio::spawn(container.clone().stop_while_probing(stop));
    stopping.await.expect("a stop ends");
    let monitor = monitor.await.expect("a stopped monitor ends");
    container.answer.notify_one();
    Kept::of(monitor)
}

async fn moby_33781_fixed() -> Kept {
    let container = Container::default();
    let (stop, stops) = unbuffered();
    let probed = container.clone();
    let monitor = tokio::spawn(Monitor::new(stops, true).run(move |result| {
        tokio::spawn(probed.clone().probe(result));
    }));
    let stopping = tokio::spawn(container.clone().stop_while_probing(stop));
    stopping.await.expect("a stop ends");
    container.answer.notify_one();
    Kept::of(monitor.await.expect("a stopped monitor ends"))
}
