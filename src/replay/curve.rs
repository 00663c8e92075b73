//! How the load of an invented cluster goes, in nodes that it would keep wholly busy. Pure.

use std::time::Duration;

/// A load over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Curve {
    Constant(f64),
    /// From one level to another at an instant.
    Step {
        before: f64,
        after: f64,
        at: Duration,
    },
    /// From one level to another, over a time.
    Ramp {
        from: f64,
        to: f64,
        over: Duration,
    },
    /// A day, shortened.
    Sine {
        mean: f64,
        swing: f64,
        period: Duration,
    },
    /// None at all for a while: an outage in front of the cluster.
    Outage {
        level: f64,
        from: Duration,
        until: Duration,
    },
}

impl Curve {
    pub fn at(self, since_start: Duration) -> f64 {
        let value = match self {
            Curve::Constant(level) => level,
            Curve::Step { before, after, at } => {
                if since_start < at {
                    before
                } else {
                    after
                }
            }
            Curve::Ramp { from, to, over } => {
                let share = (since_start.as_secs_f64() / over.as_secs_f64().max(1.0)).min(1.0);
                from + (to - from) * share
            }
            Curve::Sine { mean, swing, period } => {
                let turns = since_start.as_secs_f64() / period.as_secs_f64().max(1.0);
                mean + swing * (turns * std::f64::consts::TAU).sin()
            }
            Curve::Outage { level, from, until } => {
                if (from..until).contains(&since_start) {
                    0.0
                } else {
                    level
                }
            }
        };
        value.max(0.0)
    }
}
