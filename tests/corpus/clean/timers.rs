//! Tasks that wait for a time.

use crate::program::{Cast, Clean, Kept, Remains};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::time::{interval, sleep};

pub fn all() -> Vec<Clean> {
    vec![
        Clean {
            id: "interval_flusher",
            run: |cast| Box::pin(interval_flusher(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "pool_reaper",
            run: |_| Box::pin(pool_reaper()),
            remains: Remains::Unreported,
        },
        Clean {
            id: "hour_of_back_off",
            run: |cast| Box::pin(hour_of_back_off(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "detached_and_short",
            run: |_| Box::pin(detached_and_short()),
            remains: Remains::Gone,
        },
    ]
}

/// What is written at each tick, or lent again.
type Shelf = Arc<Mutex<Vec<u64>>>;

fn clear(shelf: &Mutex<Vec<u64>>) {
    shelf.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

async fn interval_flusher(cast: Cast) -> Kept {
    let buffer = Shelf::default();
    let flushed = Arc::clone(&buffer);
    cast.stays(async move {
        let mut tick = interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            clear(&flushed);
        }
    });
    Kept::of(buffer)
}

/// The first request makes the pool, and the pool declares its reaper a daemon.
async fn pool_reaper() -> Kept {
    let pool = Shelf::default();
    let reaped = Arc::downgrade(&pool);
    let request = tokio::spawn(async move {
        straggler::daemon(|| tokio::spawn(reap(reaped)));
    });
    request.await.expect("it is served");
    Kept::of(pool)
}

/// For as long as there is a pool.
async fn reap(pool: Weak<Mutex<Vec<u64>>>) {
    let mut tick = interval(Duration::from_secs(10));
    while let Some(pool) = pool.upgrade() {
        clear(&pool);
        drop(pool);
        tick.tick().await;
    }
}

/// A client whose server is gone tries again in an hour.
async fn hour_of_back_off(cast: Cast) -> Kept {
    cast.stays(sleep(Duration::from_secs(3600)));
    Kept::nothing()
}

/// Nobody waits for it, and it ends soon after.
async fn detached_and_short() -> Kept {
    let request = tokio::spawn(async {
        tokio::spawn(sleep(Duration::from_millis(20)));
    });
    request.await.expect("it is served");
    Kept::nothing()
}
