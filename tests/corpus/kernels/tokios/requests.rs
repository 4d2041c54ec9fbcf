//! A request's handler that starts a task and returns.

use crate::program::{Cast, Kept, Kernel};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{Instrument, Span, info_span};

pub fn all() -> Vec<Kernel> {
    vec![
        Kernel {
            id: "spawn_outlives_request",
            codes: "P",
            flaky: false,
            leaks: |cast| Box::pin(leaks(cast)),
            fixed: |_| Box::pin(fixed()),
            ends_by_drop: true,
        },
        Kernel {
            id: "spawn_outlives_request_in_span",
            codes: "P",
            flaky: false,
            leaks: |cast| Box::pin(leaks_in_span(cast)),
            fixed: |_| Box::pin(fixed_in_span()),
            ends_by_drop: true,
        },
    ]
}

/// Who waits for which answer of the backend, which never gives one.
type Asked = Arc<Mutex<HashMap<u64, oneshot::Sender<String>>>>;

fn ask(asked: &Asked) -> impl Future<Output = ()> + use<> {
    let (answer, answered) = oneshot::channel();
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let number = asked.len() as u64;
    asked.insert(number, answer);
    async move { drop(answered.await) }
}

async fn serve(handler: impl Future<Output = ()> + Send + 'static) {
    let request = tokio::spawn(handler.instrument(info_span!("request")));
    request.await.expect("the handler returns");
}

/// The handler starts a task that waits for the backend, and returns without it. The map of
/// those who asked is kept.
async fn leaks(cast: Cast) -> Kept {
    let asked = Asked::default();
    let answer = ask(&asked);
    serve(async move { drop(cast.stays(answer)) }).await;
    Kept::of(asked)
}

/// The task goes with the request.
async fn fixed() -> Kept {
    let asked = Asked::default();
    let answer = ask(&asked);
    serve(async move {
        let mut tasks = JoinSet::new();
        tasks.spawn(answer);
    })
    .await;
    Kept::of(asked)
}

/// As above, and the task carries the request's span, which therefore never closes either.
async fn leaks_in_span(cast: Cast) -> Kept {
    let asked = Asked::default();
    let answer = ask(&asked);
    serve(async move { drop(cast.stays(answer.instrument(Span::current()))) }).await;
    Kept::of(asked)
}

/// The task goes with the request, and its hold on the span with it.
async fn fixed_in_span() -> Kept {
    let asked = Asked::default();
    let answer = ask(&asked);
    serve(async move {
        let mut tasks = JoinSet::new();
        tasks.spawn(answer.instrument(Span::current()));
    })
    .await;
    Kept::of(asked)
}
