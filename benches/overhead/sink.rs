//! Takes everything that is exported and answers 200: a collector for which nothing is too much.

use crate::shared::Failure;
use axum::Router;
use axum::body::Bytes;
use std::sync::mpsc;

/// Starts it on a thread of the coordinator, and gives its address.
pub(crate) fn start() -> Result<String, Failure> {
    let (address, is_at) = mpsc::channel();
    let serve = move || -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
            address.send(listener.local_addr()?)?;
            // An empty message is the answer that says that all was taken.
            let app = Router::new().fallback(|body: Bytes| async { drop(body) });
            Ok(axum::serve(listener, app).await?)
        })
    };
    std::thread::Builder::new()
        .name("sink".into())
        .spawn(move || serve().expect("a sink on loopback"))?;
    Ok(format!("http://{}", is_at.recv()?))
}
