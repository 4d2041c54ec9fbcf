//! What a figure was measured on.

use serde::Serialize;
use std::fs;
use std::process::Command;
use std::thread;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cores: Option<usize>,
    processor: Option<String>,
    os: &'static str,
    arch: &'static str,
    /// What `rustc --version` says now, which is as a rule what built this.
    rustc: Option<String>,
    straggler: &'static str,
    /// How busy the machine was at the end, by the kernel's account.
    load_average: Option<String>,
}

impl Machine {
    pub(crate) fn this() -> Self {
        Self {
            cores: thread::available_parallelism().ok().map(usize::from),
            processor: processor(),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            rustc: rustc(),
            straggler: env!("CARGO_PKG_VERSION"),
            load_average: read("/proc/loadavg"),
        }
    }
}

fn processor() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn rustc() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
