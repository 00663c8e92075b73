//! decision -> operation (pure), steps (IO).
pub mod drivers;
pub mod proof;
