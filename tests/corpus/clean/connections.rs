//! Servers that wait for clients, and connections that wait for requests.

use crate::program::{Cast, Clean, Kept, Remains};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

pub fn all() -> Vec<Clean> {
    vec![
        Clean {
            id: "accept_loop",
            run: |cast| Box::pin(accept_loop(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "keep_alive_connection",
            run: |cast| Box::pin(keep_alive(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "long_poll",
            run: |cast| Box::pin(long_poll(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "web_socket",
            run: |cast| Box::pin(web_socket(cast)),
            remains: Remains::Alive,
        },
        Clean {
            id: "server_of_ended_init",
            run: |cast| Box::pin(server_of_ended_init(cast)),
            remains: Remains::Alive,
        },
    ]
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a port on loopback");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

async fn connect(to: SocketAddr) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(to).await.expect("somebody listens"))
}

/// Reads a head, of a request or an answer. False where the other side has hung up.
async fn head(stream: &mut BufReader<TcpStream>) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        match stream.read_line(&mut line).await {
            Ok(0) | Err(_) => return false,
            Ok(_) if line == "\r\n" => return true,
            Ok(_) => {}
        }
    }
}

/// Answers each request of a connection until the client hangs up.
async fn serve(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    while head(&mut stream).await {
        stream.write_all(ANSWER).await.expect("the client reads");
    }
}

async fn request(stream: &mut BufReader<TcpStream>) {
    let request = stream
        .write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await;
    request.expect("the server reads");
    assert!(head(stream).await, "the server answers");
}

/// One client came and went; the server waits for the next.
async fn accept_loop(cast: Cast) -> Kept {
    let (listener, address) = listen().await;
    cast.stays(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    request(&mut connect(address).await).await;
    Kept::nothing()
}

/// The client has its answer, and keeps the connection for its next request.
async fn keep_alive(cast: Cast) -> Kept {
    let (listener, address) = listen().await;
    cast.clone().stays(async move {
        while let Ok((stream, _)) = listener.accept().await {
            cast.stays(serve(stream));
        }
    });
    let mut client = connect(address).await;
    request(&mut client).await;
    Kept::of(client)
}

/// The client asked for news; it is answered when there are any, or after half a minute.
async fn long_poll(cast: Cast) -> Kept {
    let (listener, address) = listen().await;
    let mut client = connect(address).await;
    let (stream, _) = listener.accept().await.expect("the client connects");
    let news = Arc::new(Notify::new());
    let fresh = Arc::clone(&news);
    cast.stays(async move {
        let mut stream = BufReader::new(stream);
        while head(&mut stream).await {
            let wait = tokio::time::timeout(Duration::from_secs(30), fresh.notified());
            wait.await.unwrap_or_default();
            stream.write_all(ANSWER).await.expect("the client reads");
        }
    });
    let asked = client.write_all(b"GET /news HTTP/1.1\r\n\r\n").await;
    asked.expect("the server reads");
    Kept::of(client).and(news)
}

/// One task reads what the client says, one writes what a room has to say to it. Nobody speaks.
async fn web_socket(cast: Cast) -> Kept {
    let (listener, address) = listen().await;
    let client = connect(address).await;
    let (stream, _) = listener.accept().await.expect("the client connects");
    let (mut reader, mut writer) = stream.into_split();
    let (room, mut said) = mpsc::channel::<Vec<u8>>(16);
    cast.stays(async move {
        let mut frame = [0; 64];
        while matches!(reader.read(&mut frame).await, Ok(length) if length > 0) {}
    });
    cast.stays(async move {
        let mut ping = tokio::time::interval(Duration::from_secs(20));
        loop {
            let frame = tokio::select! {
                message = said.recv() => message,
                _ = ping.tick() => Some(b"ping".to_vec()),
            };
            let Some(frame) = frame else { break };
            writer.write_all(&frame).await.expect("the client reads");
        }
    });
    Kept::of(client).and(room)
}

/// What started the server has done its work and ended; the server goes on.
async fn server_of_ended_init(cast: Cast) -> Kept {
    let init = tokio::spawn(async move {
        let (listener, address) = listen().await;
        cast.stays(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        address
    });
    let address = init.await.expect("the server starts");
    request(&mut connect(address).await).await;
    Kept::nothing()
}
