//! The real operator with the real driver over an invented Qdrant: whoever dies and whatever answer is lost, the work
//! ends and loses nothing.

mod crashes;
mod laws;
mod nature;
mod pool;
mod seeds;
mod site;
mod works;
