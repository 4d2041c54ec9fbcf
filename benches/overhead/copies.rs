//! The copies of this program that its children are: itself, and one with the features that
//! some variants need. straggler is measured in its default build otherwise.

use crate::Failure;
use crate::variant::Variant;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where each variant's program is, or why there is none.
#[derive(Debug)]
pub(crate) struct Copies {
    itself: PathBuf,
    built: BTreeMap<&'static str, Result<PathBuf, String>>,
}

impl Copies {
    /// Builds what the variants need beyond this program.
    pub(crate) fn build(variants: &[Variant], target: &Path) -> Result<Self, Failure> {
        let mut built = BTreeMap::new();
        for features in variants.iter().filter_map(|variant| variant.features()) {
            eprintln!("building a copy with the feature `{features}`");
            let copy = build(features, target).map_err(|error| error.to_string());
            built.insert(features, copy);
        }
        Ok(Self {
            itself: std::env::current_exe()?,
            built,
        })
    }

    pub(crate) fn of(&self, variant: Variant) -> Result<&Path, String> {
        let Some(features) = variant.features() else {
            return Ok(&self.itself);
        };
        match self.built.get(features) {
            Some(Ok(path)) => Ok(path),
            Some(Err(error)) => Err(error.clone()),
            None => Err(format!("no copy with `{features}` was built")),
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
fn build(features: &str, target: &Path) -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let output = Command::new(&cargo)
        .args(["bench", "--bench", env!("CARGO_CRATE_NAME")])
        .args(["--no-run", "--message-format", "json"])
        .args(["--features", features])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", cargo.display()))?;
    if !output.status.success() {
        return Err(format!(
            "cargo could not build a copy with `--features {features}`, see above: {}",
            output.status
        )
        .into());
    }
    let messages = String::from_utf8(output.stdout)?;
    let is_ours = |target: &Target| {
        target.name == env!("CARGO_CRATE_NAME") && target.kind.iter().any(|kind| kind == "bench")
    };
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.target.as_ref().is_some_and(is_ours))
        .find_map(|message| message.executable)
        .ok_or_else(|| "cargo built a copy and didn't say where".into())
}
