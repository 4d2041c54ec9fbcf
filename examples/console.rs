//! What does tokio-console show of a leak, and what does straggler?
//!
//! ```sh
//! cargo run --example console --features console -- --seconds 60
//! tokio-console                                  # in another terminal
//! ```
//!
//! One call installs both; the console's server is on 127.0.0.1:6669 or at
//! `TOKIO_CONSOLE_BIND`. A console lists the tasks; straggler says which of them have outlived
//! what started them. Ends after `--seconds`, 3 by default. Without `--cfg tokio_unstable` there
//! is nothing to see; then it says so and ends at once.
#![allow(clippy::print_stdout)] // The report is what it is for.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{Instrument, info_span};

/// The sessions somebody could still end. Nothing is ever taken out: that is the bug.
type Sessions = Arc<Mutex<Vec<oneshot::Sender<()>>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = seconds()?;
    let builder = straggler::Builder::new()
        .orphan_grace(Duration::from_secs(1))
        .console(true);
    let straggler = match builder.init() {
        Ok(straggler) => straggler,
        Err(error) => {
            println!("it can't be shown here: {error}");
            return Ok(());
        }
    };
    println!("serving for {seconds} s; run `tokio-console` in another terminal");
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let sessions = Sessions::default();
        let served = serve(&sessions);
        let time = Duration::from_secs(seconds);
        // The time is up, and the sessions are still there.
        let _ = tokio::time::timeout(time, served).await;
        println!("\n{}", straggler.tasks().snapshot());
        drop(sessions);
    });
    Ok(())
}

/// Ten requests a second.
async fn serve(sessions: &Sessions) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let request = log_in(Arc::clone(sessions)).instrument(info_span!("log_in"));
        // A request's task ends; the one it leaves behind doesn't.
        tokio::spawn(request);
    }
}

async fn log_in(sessions: Sessions) {
    let (end, ended) = oneshot::channel();
    sessions.lock().expect("not poisoned").push(end);
    tokio::spawn(async move { drop(ended.await) });
}

fn seconds() -> Result<u64, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (None, _) => Ok(3),
        (Some("--seconds"), Some(seconds)) => Ok(seconds.parse()?),
        _ => Err("usage: console [--seconds N]".into()),
    }
}
