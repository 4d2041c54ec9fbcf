//! Tasks that somebody owns: a static, a supervisor, a parent.

use crate::program::{Cast, Clean, Kept, Remains};
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub fn all() -> Vec<Clean> {
    vec![
        Clean {
            id: "singleton_of_request",
            run: |cast| Box::pin(singleton_of_request(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "supervisor",
            run: |cast| Box::pin(supervisor(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "join_set_of_living_parent",
            run: |cast| Box::pin(join_set_of_living_parent(cast)),
            remains: Remains::Alive,
        },
    ]
}

/// The first request starts what all later ones use. A `static` is one for each process; this is
/// one for each run.
async fn singleton_of_request(cast: Cast) -> Kept {
    let singleton: &'static OnceCell<mpsc::Sender<u32>> = Box::leak(Box::default());
    for number in [1, 2] {
        let cast = cast.clone();
        let request = tokio::spawn(async move {
            let start = async move {
                let (queue, mut asked) = mpsc::channel(16);
                cast.stays(async move { while asked.recv().await.is_some() {} });
                queue
            };
            let queue = singleton.get_or_init(|| start).await;
            queue.send(number).await.expect("it listens");
        });
        request.await.expect("it is served");
    }
    Kept::nothing()
}

/// Restarts a worker that ends, until it is told to stop.
async fn supervisor(cast: Cast) -> Kept {
    let stop = CancellationToken::new();
    let (jobs, mut queue) = mpsc::channel::<u32>(1);
    let stopped = stop.clone();
    cast.clone().stays(async move {
        let mut workers = JoinSet::new();
        workers.spawn(cast.noted(async move { while queue.recv().await.is_some() {} }));
        tokio::select! {
            () = stopped.cancelled() => workers.shutdown().await,
            Some(ended) = workers.join_next() => ended.expect("a worker doesn't panic"),
        }
    });
    Kept::of(stop.drop_guard()).and(jobs)
}

/// The parent waits for its children, and they for an answer from elsewhere.
async fn join_set_of_living_parent(cast: Cast) -> Kept {
    let (first, second) = (oneshot::channel::<()>(), oneshot::channel::<()>());
    let answers = (first.0, second.0);
    cast.clone().stays(async move {
        let mut children = JoinSet::new();
        for answered in [first.1, second.1] {
            children.spawn(cast.noted(answered));
        }
        while children.join_next().await.is_some() {}
    });
    Kept::of(answers)
}
