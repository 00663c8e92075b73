//! The built-in vector node: a default and a test bench, not a database to compete with. A program of its own, which
//! the controller meets only over HTTP.
//!
//! Collections of points (a whole number, a vector, optional JSON) in a fixed number of shards, each on one or more
//! nodes. Searches compare with every vector, by cosine. Any node answers for the whole cluster.
//!
//! Who decides what: the *map* ([`map`]) says which node holds what. The datastore driver in the controller is its only
//! writer; nodes vote on it ([`cell`]) and act on what a majority has accepted. What only the writer can do, a node
//! wishes for ([`wishes`]). The first active replica of a shard, its primary, orders writes ([`mod@write`]) and keeps the
//! other replicas the same ([`keep`]): that is also how a shard moves.
//!
//! Absent on purpose: consensus among nodes, filters, other distances, indexes, snapshots, authentication (keep nodes
//! on a private network). A node that is cut off from all others may answer searches from what it last knew; it
//! cannot acknowledge a write that the others do not have.

mod api;
pub mod cell;
pub mod client;
pub mod keep;
pub mod lock;
mod log;
pub mod map;
pub mod pace;
mod page;
pub mod peers;
mod points;
pub mod read;
pub mod server;
mod shard;
pub mod state;
pub mod wishes;
pub mod write;
