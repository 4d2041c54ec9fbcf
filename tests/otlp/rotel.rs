//! Rotel: a collector of other makers, in another process, that prints what it receives.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::receiver::{PATIENCE, Protocol};
use super::rotel_text::{Printed, parse};

/// Where the program is; `.ci/rotel.sh` installs it.
const PROGRAM: &str = "STRAGGLER_ROTEL";

pub struct Rotel {
    child: Child,
    printed: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    ports: [u16; 2],
}

impl Rotel {
    /// `None`, said aloud, where it isn't installed.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let program = std::env::var_os(PROGRAM).filter(|program| !program.is_empty());
        let Some(program) = program else {
            let at = std::panic::Location::caller();
            // Past the capture of what a test prints.
            let _ = writeln!(
                std::io::stderr(),
                "\n==> SKIPPED, NOTHING COMPARED: {at}: {PROGRAM} doesn't say where Rotel is \
                 (`{PROGRAM}=$(.ci/rotel.sh)`)"
            );
            return None;
        };
        // Another process may take a port between our look and Rotel's.
        let mut failed = String::new();
        for _ in 0..3 {
            match Self::try_start(&program) {
                Ok(rotel) => return Some(rotel),
                Err(printed) => failed = printed,
            }
        }
        panic!("Rotel doesn't start: {failed}");
    }

    fn try_start(program: &std::ffi::OsStr) -> Result<Self, String> {
        let ports = free_ports();
        let mut child = Command::new(program)
            .args(["start", "--exporter", "blackhole"])
            .args(["--debug-log", "traces", "--debug-log", "metrics"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", ports[0])])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", ports[1])])
            // What the tests say to the exporter is not for Rotel.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{PROGRAM}, {}: {error}", program.display()));
        let printed = Arc::default();
        let readers = vec![
            read(child.stdout.take().expect("piped"), &printed),
            read(child.stderr.take().expect("piped"), &printed),
        ];
        let mut rotel = Self {
            child,
            printed,
            readers,
            ports,
        };
        let deadline = Instant::now() + PATIENCE;
        while !ports.iter().all(|port| is_open(*port)) {
            if rotel.child.try_wait().expect("our child").is_some() {
                return Err(rotel.text());
            }
            assert!(Instant::now() < deadline, "Rotel: {}", rotel.text());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(rotel)
    }

    /// Without a path, like the receiver's.
    pub fn endpoint(&self, protocol: Protocol) -> String {
        format!("http://127.0.0.1:{}", self.ports[protocol as usize])
    }

    /// What it has printed so far.
    pub fn text(&self) -> String {
        self.printed
            .lock()
            .expect("no panic under the lock")
            .clone()
    }

    /// Waits for it to have printed so much. The latest may still lack its last lines, for
    /// Rotel says no end: `finish` has them all.
    #[track_caller]
    pub fn wait_until(&self, done: impl Fn(&Printed) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if done(&parse(&text)) {
                return;
            }
            assert!(Instant::now() < deadline, "Rotel never prints it:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it as a service manager would, and returns all that it printed.
    pub fn finish(mut self) -> Printed {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg(pid).status();
        assert!(asked.expect("a shell's tools").success());
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("our child").is_none() {
            assert!(Instant::now() < deadline, "Rotel stays: {}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
        for reader in self.readers.drain(..) {
            reader.join().expect("it reads to the end");
        }
        let text = self.text();
        let printed = parse(&text);
        assert!(
            printed.unknown.is_empty(),
            "{:?} in\n{text}",
            printed.unknown
        );
        printed
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(from: impl std::io::Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut text = into.lock().expect("no panic under the lock");
            text.push_str(&line);
            text.push('\n');
        }
    })
}

/// Rotel can't choose them: it panics over a port 0.
fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    held.map(|listener| listener.local_addr().expect("it is bound").port())
}

fn is_open(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
