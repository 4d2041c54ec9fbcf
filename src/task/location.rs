//! Where a task was spawned, in a form that is the same on every machine.

use std::fmt;

/// A place in a program's text.
///
/// The path of a dependency begins with its package (`hyper-1.12.0/src/…`), wherever
/// cargo keeps it, so that sites match between machines; Windows' separators become `/`.
/// `Display` gives `file:line`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    file: Box<str>,
    line: u32,
    column: u32,
}

impl Location {
    pub(crate) fn new(file: &str, line: u32, column: u32) -> Self {
        Self {
            file: normalise(file).into(),
            line,
            column,
        }
    }

    /// The normalised path.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The column, from 1.
    pub fn column(&self) -> u32 {
        self.column
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Takes away what differs from machine to machine.
///
/// Cargo unpacks registry packages to `…/registry/src/<index>/<package>-<version>/`
/// and git ones to `…/git/checkouts/<name>-<hash>/<revision>/`; the standard library's
/// own paths are `/rustc/<hash>/library/…`.
fn normalise(file: &str) -> String {
    let file = file.replace('\\', "/");
    let inside = after(&file, "/registry/src/")
        .and_then(|rest| rest.split_once('/'))
        .map(|(_index, rest)| rest)
        .or_else(|| after(&file, "/git/checkouts/"))
        .or_else(|| {
            let (_hash, rest) = file.strip_prefix("/rustc/")?.split_once('/')?;
            Some(rest)
        });
    inside.unwrap_or(&file).to_owned()
}

fn after<'a>(path: &'a str, marker: &str) -> Option<&'a str> {
    let at = path.rfind(marker)?;
    Some(&path[at + marker.len()..])
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_reads_the_same_on_every_machine() {
        let index = "index.crates-1949cf8c6b5b557f";
        let unix = format!("/root/.cargo/registry/src/{index}/hyper-1.12.0/src/rt/mod.rs");
        let windows =
            format!(r"C:\Users\me\.cargo\registry\src\{index}\hyper-1.12.0\src\rt\mod.rs");
        assert_eq!(normalise(&unix), "hyper-1.12.0/src/rt/mod.rs");
        assert_eq!(normalise(&windows), "hyper-1.12.0/src/rt/mod.rs");
    }

    #[test]
    fn other_paths_keep_their_meaning() {
        assert_eq!(
            normalise("/home/x/.cargo/git/checkouts/tower-1f/ab12/tower/src/lib.rs"),
            "tower-1f/ab12/tower/src/lib.rs"
        );
        assert_eq!(
            normalise("/rustc/deadbeef/library/core/src/ops/function.rs"),
            "library/core/src/ops/function.rs"
        );
        assert_eq!(normalise("src/main.rs"), "src/main.rs");
        assert_eq!(normalise("/srv/app/src/main.rs"), "/srv/app/src/main.rs");
    }
}
