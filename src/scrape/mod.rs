//! nodes, Prometheus pages -> samples. IO.
pub mod exposition;
mod selector;
pub mod settings;

pub use selector::SelectorError;
