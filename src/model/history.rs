//! The audit trail's rows. Pure data.

use serde::{Deserialize, Serialize};

use super::{PoolName, Timestamp};

/// One row of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryItem {
    /// Counts up without gaps.
    pub id: u64,
    pub at: Timestamp,
    pub pool: PoolName,
    pub kind: HistoryKind,
    /// `vecscale`, `api 127.0.0.1`, `cli` …
    pub who: String,
    /// One sentence for a person.
    pub summary: String,
    /// The decision, step, setting …, as it stands elsewhere in the API.
    pub detail: serde_json::Value,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryKind {
    /// A decision that differs from the one before.
    Decision,
    /// An operation began or ended.
    Operation,
    /// An effect on the world was made, or failed.
    Step,
    /// Alerts of Alertmanager's began to fire, were resolved or expired.
    Alert,
    /// Mode, thresholds, maintenance, breaker.
    Setting,
    /// Start, stop, reload of vecscale itself.
    Program,
}

impl HistoryKind {
    pub const ALL: [HistoryKind; 6] = [
        HistoryKind::Decision,
        HistoryKind::Operation,
        HistoryKind::Step,
        HistoryKind::Alert,
        HistoryKind::Setting,
        HistoryKind::Program,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            HistoryKind::Decision => "decision",
            HistoryKind::Operation => "operation",
            HistoryKind::Step => "step",
            HistoryKind::Alert => "alert",
            HistoryKind::Setting => "setting",
            HistoryKind::Program => "program",
        }
    }
}
