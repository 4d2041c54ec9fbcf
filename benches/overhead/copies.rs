//! The copies of this program that its children are: itself, and one with every feature for the
//! variants that need some. straggler is measured in its default build otherwise.

use crate::shared::Failure;
use crate::variant::Variant;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug)]
pub(crate) struct Copies {
    itself: PathBuf,
    /// Or why there is none.
    with_features: Result<PathBuf, String>,
}

impl Copies {
    /// Builds what the variants need beyond this program.
    pub(crate) fn build(variants: &[Variant], target: &Path) -> Result<Self, Failure> {
        let with_features = if variants.iter().any(|variant| variant.needs_features()) {
            eprintln!("building a copy with all features");
            build(target).map_err(|error| error.to_string())
        } else {
            Err("no variant was to need it".into())
        };
        Ok(Self {
            itself: std::env::current_exe()?,
            with_features,
        })
    }

    pub(crate) fn of(&self, variant: Variant) -> Result<&Path, String> {
        match (variant.needs_features(), &self.with_features) {
            (false, _) => Ok(&self.itself),
            (true, Ok(copy)) => Ok(copy),
            (true, Err(why)) => Err(format!("no copy with all features: {why}")),
        }
    }
}

/// What cargo says of each thing it has built, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// cargo holds no lock while it runs a bench, so that it can be called from one.
fn build(target: &Path) -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(&cargo);
    // What cargo told us of our own package would make it build ring and what needs it anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(["bench", "--bench", env!("CARGO_CRATE_NAME")])
        .args(["--all-features", "--no-run", "--message-format", "json"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", cargo.display()))?;
    if !output.status.success() {
        return Err(format!("cargo could not build it, see above: {}", output.status).into());
    }
    let messages = String::from_utf8(output.stdout)?;
    let is_ours = |target: &Target| {
        target.name == env!("CARGO_CRATE_NAME") && target.kind.iter().any(|kind| kind == "bench")
    };
    messages
        .lines()
        // Among them are messages of other shapes.
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.target.as_ref().is_some_and(is_ours))
        .find_map(|message| message.executable)
        .ok_or_else(|| "cargo built it and didn't say where".into())
}
