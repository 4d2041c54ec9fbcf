//! The load on the service: a process of its own, so that its work isn't taken for the
//! service's.

use crate::arguments;
use crate::shared::Failure;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LoadJob {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) warm: Duration,
    pub(crate) lasts: Duration,
}

/// What the load's process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) wall_nanos: u64,
}

/// The load's process, as the service sees it.
#[derive(Debug)]
pub(crate) struct Loader {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Loader {
    /// Starts it, and returns when it has warmed the service up.
    pub(crate) fn start(job: &LoadJob) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([arguments::LOAD, &serde_json::to_string(job)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let says = child.stdout.take().ok_or("the load has no stdout")?;
        let mut says = BufReader::new(says);
        let mut warm = String::new();
        says.read_line(&mut warm)?;
        if warm.trim_end() != WARM {
            return Err(format!("the load said {warm:?} instead of {WARM:?}").into());
        }
        Ok(Self { child, says })
    }

    pub(crate) fn measure(mut self) -> Result<Load, Failure> {
        let mut go = self.child.stdin.take().ok_or("the load has no stdin")?;
        writeln!(go)?;
        let mut answer = String::new();
        self.says.read_line(&mut answer)?;
        let load = serde_json::from_str(&answer)
            .map_err(|error| format!("the load said {answer:?}: {error}"))?;
        self.child.wait()?;
        Ok(load)
    }
}

const WARM: &str = "warm";

/// The load's own process.
pub(crate) fn run(job: &LoadJob) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut connections = runtime.block_on(connect(job))?;
    (connections, _) = runtime.block_on(ask(connections, job.warm))?;
    println!("{WARM}");
    std::io::stdin().read_line(&mut String::new())?;
    let began = Instant::now();
    let (_, requests) = runtime.block_on(ask(connections, job.lasts))?;
    let load = Load {
        requests,
        wall_nanos: began.elapsed().as_nanos() as u64,
    };
    println!("{}", serde_json::to_string(&load)?);
    Ok(())
}

async fn connect(job: &LoadJob) -> Result<Vec<TcpStream>, Failure> {
    let mut connections = Vec::new();
    for _ in 0..job.connections {
        let connection = TcpStream::connect(job.address).await?;
        connection.set_nodelay(true)?;
        connections.push(connection);
    }
    Ok(connections)
}

/// Asks on all of them, one request after the other on each, until the time has passed.
async fn ask(
    connections: Vec<TcpStream>,
    lasts: Duration,
) -> Result<(Vec<TcpStream>, u64), Failure> {
    let until = Instant::now() + lasts;
    let mut asking = JoinSet::new();
    for mut connection in connections {
        asking.spawn(async move {
            let mut requests = 0;
            while Instant::now() < until {
                one(&mut connection).await?;
                requests += 1;
            }
            Ok::<_, Failure>((connection, requests))
        });
    }
    let (mut connections, mut requests) = (Vec::new(), 0);
    while let Some(asked) = asking.join_next().await {
        let (connection, asked) = asked??;
        connections.push(connection);
        requests += asked;
    }
    Ok((connections, requests))
}

/// One request and the whole of its answer.
async fn one(connection: &mut TcpStream) -> Result<(), Failure> {
    const REQUEST: &[u8] = b"GET /orders/4711 HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n";
    connection.write_all(REQUEST).await?;
    let mut answer = [0; 1024];
    let mut filled = 0;
    while !is_whole(&answer[..filled])? {
        let read = connection.read(&mut answer[filled..]).await?;
        if read == 0 {
            let answer = String::from_utf8_lossy(&answer[..filled]);
            return Err(format!("the service hung up after {answer:?}").into());
        }
        filled += read;
    }
    Ok(())
}

/// Whether the answer has arrived to its end. One that isn't a 200 is an error.
fn is_whole(answer: &[u8]) -> Result<bool, Failure> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = answer.windows(END.len()).position(|at| at == END) else {
        return Ok(false);
    };
    let text = std::str::from_utf8(&answer[..head])?;
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(format!("the service answered {text:?}").into());
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let length: usize = length
        .ok_or("an answer without a content-length")?
        .parse()?;
    Ok(answer.len() >= head + END.len() + length)
}
