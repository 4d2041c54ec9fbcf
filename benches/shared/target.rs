//! Where cargo puts what it builds.

use super::Failure;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The target directory that this program lies in, wherever `CARGO_TARGET_DIR` or an argument has
/// put it: cargo leaves a tag there.
pub(crate) fn directory() -> Result<PathBuf, String> {
    let program = env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let tagged = |directory: &&Path| directory.join("CACHEDIR.TAG").is_file();
    let found = program.ancestors().skip(1).find(tagged);
    found.map(Path::to_owned).ok_or_else(|| {
        let program = program.display();
        format!("{program} is in no target directory: run it by `cargo bench`")
    })
}

/// Writes what a bench has measured, and says where. A quick run's is beside a real one's and not
/// in its place.
pub(crate) fn write(
    target: &Path,
    bench: &str,
    quick: bool,
    report: &impl Serialize,
) -> Result<PathBuf, Failure> {
    let path = target.join(match quick {
        true => format!("{bench}-quick.json"),
        false => format!("{bench}.json"),
    });
    fs::write(&path, serde_json::to_string_pretty(report)?)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
