//! The simulator held against itself, and the product held against its promises.

mod apart;
mod bench;
mod bugs;
mod crashes;
mod late_drops;
mod qdrant;
mod seeds;
mod works;
