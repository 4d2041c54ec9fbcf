//! Tasks that wait for somebody who is there.

use crate::program::{Cast, Clean, Kept, Remains};
use std::sync::{Arc, mpsc as plain};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};

pub fn all() -> Vec<Clean> {
    vec![
        Clean {
            id: "idle_worker",
            run: |cast| Box::pin(idle_worker(cast)),
            remains: Remains::Alive,
        },
        #[cfg(unix)]
        Clean {
            id: "signal_listener",
            run: |cast| Box::pin(signal_listener(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "config_watcher",
            run: |cast| Box::pin(config_watcher(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "behind_slow_holder",
            run: |cast| Box::pin(behind_slow_holder(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "notified_by_plain_thread",
            run: |cast| Box::pin(notified_by_plain_thread(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "woken_under_load",
            run: |_| Box::pin(woken_under_load()),
            remains: Remains::Gone,
        },
    ]
}

/// It has done one job, and waits for the next. Who has jobs is alive.
async fn idle_worker(cast: Cast) -> Kept {
    let (jobs, mut queue) = mpsc::channel::<oneshot::Sender<()>>(16);
    cast.stays(async move {
        while let Some(done) = queue.recv().await {
            done.send(()).expect("somebody waits for it");
        }
    });
    let (done, is_done) = oneshot::channel();
    jobs.send(done).await.expect("the worker takes it");
    is_done.await.expect("the worker does it");
    Kept::of(jobs)
}

/// Of a signal that nobody sends in a test.
#[cfg(unix)]
async fn signal_listener(cast: Cast) -> Kept {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::user_defined2());
    let mut signals = signals.expect("a handler can be set");
    cast.stays(async move { while signals.recv().await.is_some() {} });
    Kept::nothing()
}

/// It has seen one change of the configuration, and waits for the next.
async fn config_watcher(cast: Cast) -> Kept {
    let (config, mut changes) = watch::channel(1);
    let (seen, is_seen) = oneshot::channel();
    cast.stays(async move {
        let mut seen = Some(seen);
        while changes.changed().await.is_ok() {
            if let Some(seen) = seen.take() {
                seen.send(()).expect("the body waits for it");
            }
        }
    });
    config.send_replace(2);
    is_seen.await.expect("the watcher sees it");
    Kept::of(config)
}

/// The lock will come: who has it writes to a slow disk.
async fn behind_slow_holder(cast: Cast) -> Kept {
    let disk = Arc::new(Mutex::new(()));
    let writing = Arc::clone(&disk).lock_owned().await;
    cast.stays(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(writing);
    });
    cast.stays(async move { drop(disk.lock().await) });
    Kept::nothing()
}

/// A thread of no runtime, which does what it is there for when it is let go.
struct Plain {
    go: Option<plain::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Plain {
    fn drop(&mut self) {
        drop(self.go.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it only notifies");
        }
    }
}

/// Nothing of tokio's can wake it, and a thread can.
async fn notified_by_plain_thread(cast: Cast) -> Kept {
    let (done, go) = (Arc::new(Notify::new()), plain::channel());
    let waiter = Arc::clone(&done);
    cast.stays(async move { waiter.notified().await });
    let (go, told) = go;
    let thread = thread::spawn(move || {
        // An error is the word: the other end is dropped.
        while told.recv().is_ok() {}
        done.notify_one();
    });
    Kept::of(Plain {
        go: Some(go),
        thread: Some(thread),
    })
}

/// The result is sent as the test ends, and its task's turn comes after that of many others.
async fn woken_under_load() -> Kept {
    for _busy in 0..100 {
        tokio::spawn(async {
            for _step in 0..100 {
                tokio::task::yield_now().await;
            }
        });
    }
    let (result, waits) = oneshot::channel();
    tokio::spawn(async move { waits.await.unwrap_or_default() });
    tokio::task::yield_now().await;
    result.send(()).expect("the task waits");
    Kept::nothing()
}
