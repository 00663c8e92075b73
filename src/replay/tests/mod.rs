//! The simulator held against itself, and the product held against its promises.

mod seeds;
