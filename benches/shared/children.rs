//! The processes that are measured.

use super::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The word after which a child's job comes, as JSON.
pub(crate) const CHILD: &str = "child";

/// A child's command. What the environment says to exporters is not for it.
pub(crate) fn command(program: &Path, job: &impl Serialize) -> Result<Command, Failure> {
    let mut command = Command::new(program);
    command.args([CHILD, &serde_json::to_string(job)?]);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("OTEL_") || text.starts_with("TOKIO_CONSOLE_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs it and takes what it prints for a `T`. Fails if the child does, or takes too long.
pub(crate) fn answer<T: DeserializeOwned>(mut command: Command) -> Result<T, Failure> {
    const LONGEST: Duration = Duration::from_secs(300);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().ok_or("the child has no stdout")?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text).map(|_| text);
        // Who waited may have given up.
        drop(tell.send(read));
    });
    let Ok(text) = told.recv_timeout(LONGEST) else {
        stop(&mut child)?;
        return Err(format!("the child was stopped after {LONGEST:?}").into());
    };
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("the child failed, see above: {status}").into());
    }
    let text = text?;
    serde_json::from_str(&text).map_err(|error| format!("the child said {text:?}: {error}").into())
}

fn stop(child: &mut Child) -> Result<(), Failure> {
    child.kill()?;
    child.wait()?;
    Ok(())
}
