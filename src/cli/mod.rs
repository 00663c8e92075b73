//! one file per command.
pub mod node;
