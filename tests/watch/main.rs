//! `straggler::testing`: what belongs to a watch, when it is done, and what it says.

mod scope;
