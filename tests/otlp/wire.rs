//! The receiver's connections: counted, and cut on request.
#![allow(dead_code, unreachable_pub)]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::receiver::Shared;

/// The server's hold on one connection.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Line>);

#[derive(Debug)]
struct Line {
    number: u64,
    cut: AtomicBool,
    reader: AtomicWaker,
}

impl Connection {
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Ends it with an RST, at the next look at it.
    pub fn reset(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        self.0.reader.wake();
    }
}

/// A socket that stops working once its connection is cut.
pub struct Wire {
    tcp: TcpStream,
    connection: Connection,
    shared: Arc<Shared>,
}

impl Wire {
    fn check(&self) -> io::Result<()> {
        if !self.connection.0.cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        // Deprecated for waits other than zero; its successor is younger than our oldest tokio.
        #[allow(deprecated)]
        self.tcp.set_linger(Some(Duration::ZERO))?;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared
            .change(|received| received.open_connections -= 1);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.connection.0.reader.register(cx.waker());
        self.check()?;
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A FIN before the RST would look like an orderly end.
        self.check()?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connections that are ready to be spoken over: a client that is slow to shake hands
/// doesn't hold up the others.
pub struct Door {
    ready: mpsc::UnboundedReceiver<(Box<dyn Duplex>, Connection)>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Door {
    pub fn new(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) -> Self {
        let (tell, ready) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let _ = tcp.set_nodelay(true);
                let connection = Connection(Arc::new(Line {
                    number: shared.change(|received| {
                        received.open_connections += 1;
                        received.connections += 1;
                        received.connections - 1
                    }),
                    cut: AtomicBool::new(false),
                    reader: AtomicWaker::new(),
                }));
                let wire = Wire {
                    tcp,
                    connection: connection.clone(),
                    shared: Arc::clone(&shared),
                };
                greet(wire, connection, tls.clone(), tell.clone());
            }
        });
        Self { ready, accepting }
    }
}

fn greet(
    wire: Wire,
    connection: Connection,
    tls: Option<TlsAcceptor>,
    tell: mpsc::UnboundedSender<(Box<dyn Duplex>, Connection)>,
) {
    // Who stops the receiver no longer waits for connections.
    let Some(tls) = tls else {
        let _ = tell.send((Box::new(wire), connection));
        return;
    };
    tokio::spawn(async move {
        let shared = Arc::clone(&wire.shared);
        match tls.accept(wire).await {
            Ok(stream) => {
                let _ = tell.send((Box::new(stream), connection));
            }
            Err(error) => shared.stray(format!("a TLS handshake: {error}")),
        }
    });
}

impl Drop for Door {
    fn drop(&mut self) {
        // The listening socket is the task's.
        self.accepting.abort();
    }
}

impl Listener for Door {
    type Io = Box<dyn Duplex>;
    type Addr = Connection;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Connected<IncomingStream<'_, Door>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}
