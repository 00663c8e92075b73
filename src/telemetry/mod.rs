//! What happens and how things stand, told to the outside: one method per event gives its log line and its metrics,
//! one collector draws all gauges from the pools' pictures. IO (stderr); reads no clock.

mod collector;
mod counters;
mod events;
mod families;
mod logging;
mod process;
mod windows;

pub use events::Telemetry;
pub use logging::{LogFormat, LogLevel, init};

/// Content type of the page that [`Telemetry::render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
pub(crate) mod tests;
