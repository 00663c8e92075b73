//! An invented Qdrant cluster that behaves: what is asked of a node goes in, what Qdrant 1.19 answers to it comes out,
//! and time is an argument. Pure: no clock, no network, no chance.
//!
//! Shapes, error texts and times are those of answers recorded from Qdrant 1.19.0. Points are real (an id, and a hash
//! of what was written), so that a loss can be counted. There is one truth, and each node's view of it: a removed node
//! keeps the view it had, a target sees its new copy as `Dead` at first, a source lists its transfer a little longer.
//!
//! Left out: named vectors, custom sharding, the walk through a resharding, snapshots as files, gRPC.

mod cluster;
mod collection;
mod consensus;
mod hands;
mod keys;
mod nodes;
mod operations;
mod pages;
mod points;
mod recovery;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod transfer;
mod views;
mod wire;

pub use cluster::{Census, Cluster};
pub use keys::Keys;
pub use nodes::{Load, Process};
pub use points::content;
pub use reply::{Answer, Body, Reply};
pub use wire::Wire;
