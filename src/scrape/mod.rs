//! nodes, Prometheus pages -> samples. IO.
pub mod settings;
