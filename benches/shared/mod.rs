//! What the benches share.

pub(crate) mod machine;
pub(crate) mod target;
