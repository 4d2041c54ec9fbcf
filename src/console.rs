//! tokio-console's layer and server, with errors where its own set-up panics.
//!
//! console-subscriber's `spawn` panics on a variable it can't read, and its thread dies
//! unheard when the port is taken. So the variables are read before it does, the port is
//! bound here, and its server runs on a thread of ours.

use crate::Error;
use crate::capture::Sight;
use console_subscriber::{ConsoleLayer, Server, ServerParts};
use std::env::{self, VarError};
use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tonic::transport::server::TcpIncoming;
use tracing_core::dispatcher;
use tracing_core::subscriber::NoSubscriber;
use tracing_core::{Dispatch, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, Filtered};
use tracing_subscriber::registry::LookupSpan;

/// The layer behind the filter that console-subscriber's own `spawn` gives it.
pub(crate) type Filter = FilterFn<fn(&Metadata<'_>) -> bool>;

/// A server that has its port and waits for the layer to be installed. Dropped, it goes.
pub(crate) struct Ready {
    go: mpsc::SyncSender<()>,
}

impl Ready {
    pub(crate) fn serve(self) {
        // Its thread waits for nothing else.
        let _ = self.go.send(());
    }
}

/// Makes the layer, and a thread that serves it once told to. `sight` hears of its end.
pub(crate) fn prepare<S>(
    sight: &Arc<Sight>,
) -> Result<(Filtered<ConsoleLayer, Filter, S>, Ready), Error>
where
    S: tracing_core::Subscriber + for<'a> LookupSpan<'a>,
{
    if !cfg!(tokio_unstable) {
        return Err(Error::limit(
            "console",
            true,
            "tokio-console shows what tokio emits with `--cfg tokio_unstable` only; put \
             `rustflags = [\"--cfg\", \"tokio_unstable\"]` under [build] in .cargo/config.toml",
        ));
    }
    let address = check_variables()?;
    let listener = bind(address).map_err(|error| Error::console(address, error))?;
    check_recording()?;
    // What is left to panic on are its own bugs.
    let built = panic::catch_unwind(|| ConsoleLayer::builder().with_default_env().build());
    let (layer, server) = built.map_err(|_| {
        let panicked = io::Error::other("console-subscriber panicked while it was set up");
        Error::console(address, panicked)
    })?;
    let (tell, told) = mpsc::sync_channel(1);
    let (go, may_go) = mpsc::sync_channel(1);
    let sight = Arc::clone(sight);
    let thread = thread::Builder::new().name("console_subscriber".into());
    let spawned = thread.spawn(move || {
        let served = Serving { listener, server };
        if let Some(end) = served.run(&tell, &may_go) {
            sight.console_stopped(end);
        }
    });
    spawned.map_err(|error| Error::console(address, error))?;
    match told.recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Error::console(address, error)),
        Err(mpsc::RecvError) => {
            let gone = io::Error::other("the server's thread ended while it was set up");
            return Err(Error::console(address, gone));
        }
    }
    let filter = FilterFn::new(wants as fn(&Metadata<'_>) -> bool);
    Ok((layer.with_filter(filter), Ready { go }))
}

/// As console-subscriber's own filter has it.
fn wants(metadata: &Metadata<'_>) -> bool {
    if metadata.is_event() {
        return metadata.target().starts_with("runtime") || metadata.target().starts_with("tokio");
    }
    metadata.name().starts_with("runtime.") || metadata.target().starts_with("tokio")
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Reads each variable as console-subscriber will, where that would panic. Gives the address.
fn check_variables() -> Result<SocketAddr, Error> {
    for (name, may_be_zero) in [
        ("TOKIO_CONSOLE_RETENTION", true),
        ("TOKIO_CONSOLE_PUBLISH_INTERVAL", false),
    ] {
        let Some(value) = read(name)? else { continue };
        match value.parse::<humantime::Duration>() {
            Ok(duration) if may_be_zero || *duration > Duration::ZERO => {}
            _ => {
                let expected = "write a duration, such as 1s or 500ms";
                return Err(Error::limit(name, value, expected));
            }
        }
    }
    const CAPACITY: &str = "TOKIO_CONSOLE_BUFFER_CAPACITY";
    let is_capacity = |value: &str| {
        let capacity = value.parse().ok();
        capacity.is_some_and(|capacity| (1..=Semaphore::MAX_PERMITS).contains(&capacity))
    };
    if let Some(value) = read(CAPACITY)?.filter(|value| !is_capacity(value)) {
        let most = Semaphore::MAX_PERMITS;
        let expected = format!("write how many events are kept, from 1 to {most}");
        return Err(Error::limit(CAPACITY, value, expected));
    }
    let Some(value) = read("TOKIO_CONSOLE_BIND")? else {
        return Ok(SocketAddr::new(Server::DEFAULT_IP, Server::DEFAULT_PORT));
    };
    let address = value.to_socket_addrs().ok().and_then(|mut all| all.next());
    let expected = "write HOST:PORT, such as 127.0.0.1:6669";
    address.ok_or_else(|| Error::limit("TOKIO_CONSOLE_BIND", value, expected))
}

/// Sees that a recording can be written, and leaves one of before as it is.
fn check_recording() -> Result<(), Error> {
    const PATH: &str = "TOKIO_CONSOLE_RECORD_PATH";
    let Some(path) = read(PATH)? else {
        return Ok(());
    };
    match OpenOptions::new().append(true).create(true).open(&path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let expected = format!("the recording can't be written there: {error}");
            Err(Error::limit(PATH, path, expected))
        }
    }
}

/// console-subscriber passes over what is no text, as if it were not set.
fn read(name: &'static str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(value)) => {
            let value = value.to_string_lossy().into_owned();
            Err(Error::limit(name, value, "write it in UTF-8"))
        }
    }
}

struct Serving {
    listener: TcpListener,
    server: Server,
}

impl Serving {
    /// Gives why it ended, if it ever served.
    fn run(
        self,
        tell: &mpsc::SyncSender<io::Result<()>>,
        may_go: &mpsc::Receiver<()>,
    ) -> Option<String> {
        // The server's own tasks would be shown by it, and each event of theirs would wake it.
        // Not `Dispatch::none()`, of which tracing doesn't know: with the program's subscriber as
        // the only one it would ask this thread's about tokio's callsites, and switch them off.
        let nobody = Dispatch::new(NoSubscriber::default());
        let _nobody = dispatcher::set_default(&nobody);
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                // Who waits for this is there.
                let _ = tell.send(Err(error));
                return None;
            }
        };
        let _ = tell.send(Ok(()));
        if may_go.recv().is_err() {
            return None;
        }
        let ServerParts {
            instrument_server,
            aggregator,
            ..
        } = self.server.into_parts();
        let listener = self.listener;
        let end = runtime.block_on(async move {
            let incoming = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => TcpIncoming::from(listener),
                Err(error) => return error.to_string(),
            };
            let router = tonic::transport::Server::builder().add_service(instrument_server);
            let serve = tokio::spawn(router.serve_with_incoming(incoming));
            let aggregate = tokio::spawn(aggregator.run());
            // One is of no use without the other.
            let ended = tokio::select! {
                served = serve => served.map(|served| served.err().map(|error| error.to_string())),
                aggregated = aggregate => aggregated.map(|()| None),
            };
            match ended {
                Ok(Some(error)) => error,
                Ok(None) => "it ended".to_owned(),
                Err(error) => error.to_string(),
            }
        });
        Some(end)
    }
}
