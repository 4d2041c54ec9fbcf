//! What a process does while it is measured.

use crate::shared::work::{Spawn, churn, park, yields};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::info_span;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Workload {
    #[serde(rename = "churn")]
    Churn,
    #[serde(rename = "yield")]
    Yield,
    #[serde(rename = "pingpong")]
    PingPong,
    #[serde(rename = "spans")]
    Spans,
    #[serde(rename = "idle-200k")]
    Idle200k,
    #[serde(rename = "idle-235k")]
    Idle235k,
    #[serde(rename = "idle-1m")]
    Idle1m,
    #[serde(rename = "axum")]
    Axum,
}

impl Workload {
    pub(crate) const ALL: [Self; 8] = [
        Self::Churn,
        Self::Yield,
        Self::PingPong,
        Self::Spans,
        Self::Idle200k,
        Self::Idle235k,
        Self::Idle1m,
        Self::Axum,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Churn => "churn",
            Self::Yield => "yield",
            Self::PingPong => "pingpong",
            Self::Spans => "spans",
            Self::Idle200k => "idle-200k",
            Self::Idle235k => "idle-235k",
            Self::Idle1m => "idle-1m",
            Self::Axum => "axum",
        }
    }

    /// What one operation is.
    pub(crate) fn op(self) -> &'static str {
        match self {
            Self::Churn | Self::Idle200k | Self::Idle235k | Self::Idle1m => "task",
            Self::Yield => "poll",
            Self::PingPong => "round",
            Self::Spans => "nest of five",
            Self::Axum => "request",
        }
    }

    /// How many tasks are parked, where that is the workload. 235,000 lies just past the growth
    /// of a hash table, which happens at 7/8 of a power of two.
    pub(crate) fn parked(self) -> Option<u64> {
        match self {
            Self::Idle200k => Some(200_000),
            Self::Idle235k => Some(235_000),
            Self::Idle1m => Some(1_000_000),
            Self::Churn | Self::Yield | Self::PingPong | Self::Spans | Self::Axum => None,
        }
    }
}

/// Does some `ops` operations, by one driver for each worker, and says how many exactly.
pub(crate) async fn drive<S: Spawn>(workload: Workload, spawn: &S, workers: u64, ops: u64) -> u64 {
    let each = (ops / workers).max(1);
    let drivers: Vec<_> = (0..workers)
        .map(|_| {
            let mine = spawn.clone();
            spawn.spawn(async move {
                match workload {
                    Workload::Churn => churn(&mine, each).await,
                    Workload::Yield => yields(&mine, each).await,
                    Workload::PingPong => ping_pong(&mine, each).await,
                    Workload::Spans => spans(each),
                    Workload::Idle200k | Workload::Idle235k | Workload::Idle1m => {
                        park(&mine, each).await
                    }
                    Workload::Axum => unreachable!("the load comes from another process"),
                }
            })
        })
        .collect();
    let mut done = 0;
    for driver in drivers {
        done += driver.await.expect("a driver doesn't panic");
    }
    done
}

async fn ping_pong<S: Spawn>(spawn: &S, rounds: u64) -> u64 {
    let (ping, mut pinged) = mpsc::channel(1);
    let (pong, mut ponged) = mpsc::channel(1);
    let player = spawn.spawn(async move {
        while let Some(ball) = pinged.recv().await {
            pong.send(ball).await.expect("the other one waits for it");
        }
    });
    let serves = spawn.spawn(async move {
        for round in 0..rounds {
            ping.send(round).await.expect("the other one waits for it");
            ponged.recv().await.expect("it sends back what it gets");
        }
    });
    serves.await.expect("a player doesn't panic");
    player.await.expect("a player doesn't panic");
    rounds
}

fn spans(nests: u64) -> u64 {
    for _ in 0..nests {
        let _one = info_span!("one").entered();
        let _two = info_span!("two").entered();
        let _three = info_span!("three").entered();
        let _four = info_span!("four").entered();
        let _five = info_span!("five").entered();
    }
    nests
}
