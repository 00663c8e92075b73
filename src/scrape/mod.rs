//! nodes, Prometheus pages -> samples. IO.
pub mod exposition;
pub mod extract;
mod presets;
mod selector;
pub mod settings;

pub use presets::{PRESETS, preset};
pub use selector::SelectorError;
