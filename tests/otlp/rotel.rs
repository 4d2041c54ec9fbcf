//! Rotel: a collector of other makers, in another process, that prints what it receives.
#![allow(dead_code, unreachable_pub)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::receiver::{PATIENCE, Protocol};
use super::rotel_text::{Printed, parse};

/// Where the program is; `.ci/rotel.sh` installs it.
const PROGRAM: &str = "STRAGGLER_ROTEL";

pub struct Rotel {
    child: Child,
    tape: Arc<Tape>,
    ports: [u16; 2],
}

/// What it prints, on both ways out.
#[derive(Default)]
struct Tape {
    state: Mutex<Recorded>,
    changed: Condvar,
}

#[derive(Clone, Default)]
struct Recorded {
    bytes: Vec<u8>,
    /// Of the two ways out, those that are at their end.
    ended: usize,
}

impl Recorded {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Tape {
    fn record(self: &Arc<Self>, mut from: impl Read + Send + 'static) {
        let tape = Arc::clone(self);
        std::thread::spawn(move || {
            // As much as there is: who waits reads all again after each piece.
            let mut piece = vec![0; 1 << 16];
            while let Ok(length @ 1..) = from.read(&mut piece) {
                tape.change(|recorded| recorded.bytes.extend_from_slice(&piece[..length]));
            }
            tape.change(|recorded| recorded.ended += 1);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Recorded)) {
        change(&mut self.state.lock().expect("no panic under the lock"));
        self.changed.notify_all();
    }

    fn now(&self) -> Recorded {
        self.state.lock().expect("no panic under the lock").clone()
    }

    #[track_caller]
    fn wait_until(&self, done: impl Fn(&Recorded) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Looked at without the lock, for Rotel goes on printing.
            let seen = self.now();
            if done(&seen) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it never got so far:\n{}", seen.text());
            let state = self.state.lock().expect("no panic under the lock");
            let same =
                |now: &mut Recorded| now.bytes.len() == seen.bytes.len() && now.ended == seen.ended;
            let waited = self.changed.wait_timeout_while(state, left, same);
            drop(waited.expect("no panic under the lock"));
        }
    }
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
        let tape = Arc::<Tape>::default();
        tape.record(child.stdout.take().expect("piped"));
        tape.record(child.stderr.take().expect("piped"));
        let mut rotel = Self { child, tape, ports };
        let deadline = Instant::now() + PATIENCE;
        while !ports.iter().all(|port| is_open(*port)) {
            if rotel.child.try_wait().expect("our child").is_some() {
                return Err(rotel.text());
            }
            assert!(Instant::now() < deadline, "Rotel: {}", rotel.text());
            // Another process listens when it does; nothing tells.
            std::thread::sleep(Duration::from_millis(5));
        }
        // Who else got the port answers too.
        match rotel.child.try_wait().expect("our child") {
            Some(_) => Err(rotel.text()),
            None => Ok(rotel),
        }
    }

    /// Without a path, like the receiver's.
    pub fn endpoint(&self, protocol: Protocol) -> String {
        format!("http://127.0.0.1:{}", self.ports[protocol as usize])
    }

    /// What it has printed so far.
    pub fn text(&self) -> String {
        self.tape.now().text()
    }

    /// Waits for it to have printed so much. The latest may still lack its last lines, for
    /// Rotel says no end: `finish` has them all.
    #[track_caller]
    pub fn wait_until(&self, done: impl Fn(&Printed) -> bool) {
        self.tape
            .wait_until(|recorded| done(&parse(&recorded.text())));
    }

    /// Stops it as a service manager would, and returns all that it printed.
    #[track_caller]
    pub fn finish(self) -> Printed {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg(pid).status();
        assert!(asked.expect("kill").success());
        self.tape.wait_until(|recorded| recorded.ended == 2);
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

/// Rotel can't choose them: it panics over a port 0.
fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    held.map(|listener| listener.local_addr().expect("it is bound").port())
}

fn is_open(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
