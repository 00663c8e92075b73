//! The series of scheduled windows. Pure: pictures -> families.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::collector::flag;
use super::families::Family;
use crate::model::PoolView;

pub fn families(views: &[Arc<PoolView>]) -> [MetricFamily; 2] {
    let labels = &["pool", "window"];
    let mut active = Family::gauge("vecscale_window_active", labels, "Whether the window is open.");
    let mut next = Family::gauge(
        "vecscale_window_next_transition_timestamp_seconds",
        labels,
        "When the window next opens, or closes if it is open.",
    );
    for view in views {
        for window in &view.windows {
            active.sample([&*view.pool, &window.name], flag(window.open));
            next.sample([&*view.pool, &window.name], window.next.map(|at| at.seconds()));
        }
    }
    [active, next].map(Family::done)
}
