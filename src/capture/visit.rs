//! Reads the fields of tokio's spans and events, without allocating once warm.

use crate::table::WakerOp;
use crate::task::Kind;
use std::fmt::{self, Write};
use tracing_core::field::{Field, Visit};

/// The fields of a `runtime.spawn` span. Reused, so that its buffers are.
#[derive(Debug, Default)]
pub(crate) struct TaskFields {
    pub(crate) id: u64,
    kind: Bounded,
    pub(crate) name: Bounded,
    pub(crate) file: Bounded,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) size: Option<u64>,
}

impl TaskFields {
    pub(crate) fn clear(&mut self, max_name_len: usize) {
        /// More than any path a compiler was given.
        const PATH: usize = 4_096;
        self.id = 0;
        self.kind.clear(16);
        self.name.clear(max_name_len);
        self.file.clear(PATH);
        self.line = 0;
        self.column = 0;
        self.size = None;
    }
}

impl TaskFields {
    pub(crate) fn kind(&self) -> Kind {
        Kind::parse(self.kind.as_str()).unwrap_or(Kind::Task)
    }
}

impl Visit for TaskFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "task.id" => self.id = value,
            "loc.line" => self.line = u32::try_from(value).unwrap_or(u32::MAX),
            "loc.col" => self.column = u32::try_from(value).unwrap_or(u32::MAX),
            "size.bytes" if self.size.is_none() => self.size = Some(value),
            // Before tokio boxed it, where it did: the future the user wrote.
            "original_size.bytes" => self.size = Some(value),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "loc.file" => self.file.push(value),
            "task.name" => self.name.push(value),
            "kind" => self.kind.push(value),
            _ => {}
        }
    }

    // tokio records its words with `%`, which arrive here.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let into = match field.name() {
            "task.name" => &mut self.name,
            "kind" => &mut self.kind,
            _ => return,
        };
        // `Bounded` never fails; a `Debug` that does leaves what it wrote.
        into.cut |= write!(into, "{value:?}").is_err();
    }
}

/// A string that takes no more than it may.
#[derive(Debug, Default)]
pub(crate) struct Bounded {
    text: String,
    max: usize,
    cut: bool,
}

impl Bounded {
    pub(crate) fn clear(&mut self, max: usize) {
        self.text.clear();
        self.max = max;
        self.cut = false;
    }

    pub(crate) fn push(&mut self, text: &str) {
        let room = self.max.saturating_sub(self.text.len());
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.cut |= end < text.len();
        self.text.push_str(&text[..end]);
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// The fields of a waker event.
#[derive(Debug, Default)]
pub(crate) struct WakerFields {
    pub(crate) op: Option<WakerOp>,
    /// In these events `task.id` is the id of the task's span.
    pub(crate) span: u64,
}

impl Visit for WakerFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "task.id" {
            self.span = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "op" {
            self.op = match value {
                "waker.clone" => Some(WakerOp::Clone),
                "waker.drop" => Some(WakerOp::Drop),
                "waker.wake" => Some(WakerOp::Wake),
                "waker.wake_by_ref" => Some(WakerOp::WakeByRef),
                _ => None,
            };
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_between_characters_and_says_so() {
        let mut name = Bounded::default();
        name.clear(5);
        name.push("abcß");
        assert_eq!((name.as_str(), name.is_cut()), ("abcß", false));
        name.clear(4);
        name.push("abcß");
        assert_eq!((name.as_str(), name.is_cut()), ("abc", true));
    }
}
