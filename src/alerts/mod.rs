//! Alertmanager's notifications: payload -> what it tells of each alert -> the state of the alerts of each pool.
//!
//! Alerts are a state, not commands: what a pool does about them is decided at its next check, like everything else. A
//! notification is answered once that state is on disk; no controller is asked, so that none can keep it waiting.
//!
//! The state is the same whatever the order and number of notifications that come close together: of all starts and all
//! ends that were told of an alert, the latest count.

mod book;
mod desk;
mod matcher;
mod payload;
#[cfg(test)]
mod tests;

pub use book::{Book, Change, Changed, Heard};
pub use desk::Desk;
pub use matcher::{Matchers, NotAMatcher};
pub use payload::{MOST_ALERTS, Notification, Refused, Told};

use std::collections::BTreeMap;
use std::sync::Arc;

/// The label by which an alert names the pool that it is about.
const POOL_LABEL: &str = "pool";

/// Which alerts belong to an entry of a pool's `alerts`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name of the entry.
    pub entry: Arc<str>,
    pub matchers: Matchers,
}

impl Route {
    /// Whether an alert with these labels belongs to the entry, which is one of this pool's: its label `pool` must name
    /// the pool, unless it has none or the entry looks at that label itself.
    pub fn is_for(&self, pool: &str, labels: &BTreeMap<String, String>) -> bool {
        let ours = self.matchers.look_at(POOL_LABEL) || labels.get(POOL_LABEL).is_none_or(|name| name == pool);
        ours && self.matchers.match_labels(labels)
    }
}
