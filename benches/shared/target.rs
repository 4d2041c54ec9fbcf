//! Where cargo puts what it builds.

use super::Failure;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// The target directory that this program was built in, wherever `CARGO_TARGET_DIR` or an argument
/// has put it: cargo says where benches may leave files, which is a directory in it. Its tag can't
/// be gone by, as cargo tags only a target directory that it has made itself.
pub(crate) fn directory() -> Result<PathBuf, String> {
    const FILES: &str = env!("CARGO_TARGET_TMPDIR");
    let directory = Path::new(FILES).parent();
    directory
        .filter(|directory| directory.is_dir())
        .map(Path::to_owned)
        .ok_or_else(|| format!("{FILES} is in no directory: run this by `cargo bench`"))
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
