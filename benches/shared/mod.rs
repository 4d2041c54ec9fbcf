//! What the benches share.

pub(crate) mod children;
pub(crate) mod goals;
pub(crate) mod machine;
pub(crate) mod pin;
pub(crate) mod process;
pub(crate) mod spread;
pub(crate) mod target;
pub(crate) mod work;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
