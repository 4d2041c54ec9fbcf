//! Where cargo puts what it builds.

use std::env;
use std::path::{Path, PathBuf};

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
