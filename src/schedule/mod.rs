//! Scheduled windows: windows + instant -> which are open, what they set, when that changes. Pure, once the zones' rules
//! are read.

mod overlay;
mod pattern;
mod span;
#[cfg(test)]
mod tests;
mod zone;

use std::sync::Arc;

use crate::model::Asks;

pub use overlay::{Ahead, Overlay, Standing};
pub use pattern::{Pattern, SOME_DAY};
pub use span::{End, Span};
pub use zone::Zone;

/// A window as configured, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// A label value; unique in its pool.
    pub name: Arc<str>,
    pub span: Span,
    pub asks: Asks,
    /// Whether its floor holds early enough for the nodes to be there when it opens.
    pub ahead: bool,
}

impl Window {
    /// At least so many nodes, if it asks for that.
    pub fn floor(&self) -> Option<u32> {
        let least = self.asks.sets.get("min_nodes").map(|nodes| *nodes as u32);
        least.max(self.asks.desired_nodes)
    }
}
