//! The simulator held against itself, and the product held against its promises.

mod bench;
mod bugs;
mod crashes;
mod seeds;
