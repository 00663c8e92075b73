//! The same observe, decide, plan and run code, over an invented cluster: a seed is a story of load, faults and crashes,
//! played in paused time. The cluster keeps books of its own and holds every change against what must never happen.
//!
//! [`qdrant`] is a cluster of another kind: a Qdrant that behaves as recorded, for its driver to be held against.
//!
//! Nothing here reads a clock or a file: the same seed gives the same story, byte for byte.

mod cast;
mod curve;
mod deeds;
mod faults;
mod hands;
mod laws;
mod mortal;
mod nature;
mod play;
pub mod qdrant;
mod seeds;
mod tally;
#[cfg(test)]
mod tests;
mod world;

pub use cast::Profile;
pub use faults::Fault;
pub use mortal::Mortal;
pub use play::{Played, play};
pub use seeds::{Found, many};
pub use tally::Tally;
pub use world::{World, node};
