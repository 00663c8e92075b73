//! Scheduled windows: what they ask of a pool at an instant, and how they are shown. Pure data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What a window forbids while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
    /// Automatic scale-downs.
    Down,
    /// Everything automatic but replacing a dead node.
    All,
}

impl Freeze {
    pub fn as_str(self) -> &'static str {
        match self {
            Freeze::Down => "down",
            Freeze::All => "all",
        }
    }
}

/// What the windows ask for at an instant, besides thresholds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowsNow {
    /// At least so many nodes, by windows that are open or about to open.
    pub floor: Option<Floor>,
    /// As many nodes as open windows want: with more, and nothing that speaks against it, one is removed.
    pub desired: Option<Floor>,
    pub freeze: Option<Frozen>,
}

/// A node count, and the window that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    pub nodes: u32,
    pub window: Arc<str>,
    /// When the window opens; `None` once it is open.
    pub opens: Option<Timestamp>,
    /// When it opened; `None` until then.
    pub since: Option<Timestamp>,
}

/// A freeze, and the window that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    pub freeze: Freeze,
    pub window: Arc<str>,
    /// When the window closes; `None` if it never does.
    pub until: Option<Timestamp>,
}

/// A window as the status shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowView {
    pub name: Arc<str>,
    pub open: bool,
    /// Its floor holds already, so that the nodes are there when it opens.
    pub growing: bool,
    /// Its last start; `None` while it is closed.
    pub since: Option<Timestamp>,
    /// When it next opens or closes; `None` if never again.
    pub next: Option<Timestamp>,
    pub timezone: String,
    #[serde(flatten)]
    pub asks: Asks,
}

/// What a window asks for while it is open.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Asks {
    /// Thresholds, by name.
    pub sets: BTreeMap<&'static str, f64>,
    /// The node count that it wants: a floor for lows, and what more nodes are brought down to.
    pub desired_nodes: Option<u32>,
    pub freeze: Option<Freeze>,
}

impl Asks {
    /// "min_nodes 5, freeze down"; empty when it asks for nothing.
    pub fn in_words(&self) -> String {
        let sets = self.sets.iter().map(|(name, value)| format!("{name} {value}"));
        let desired = self.desired_nodes.map(|nodes| format!("desired_nodes {nodes}"));
        let freeze = self.freeze.map(|freeze| format!("freeze {}", freeze.as_str()));
        sets.chain(desired).chain(freeze).collect::<Vec<_>>().join(", ")
    }
}
