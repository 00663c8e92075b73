//! decision -> operation (pure), steps (IO).
pub mod drivers;
pub mod orders;
pub mod placement;
pub mod plan;
pub mod proof;
pub mod runner;
pub mod shards;
