//! The settings of deciding, as believed: checked, complete. Pure data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{AlertAction, Profile, ScalingThresholds, Signal, WindowsNow};

/// Everything a decision follows besides what is seen and remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub thresholds: ScalingThresholds,
    pub checks: Checks,
    pub scale_up: ScaleUp,
    pub scale_down: ScaleDown,
    pub replace: Replace,
    pub rebalance: Rebalance,
    /// Lines of the custom signals that vote.
    pub custom: BTreeMap<Arc<str>, CustomLine>,
    /// The built-in signals that are configured: a missing reading of any forbids scale-down.
    pub signals: Vec<Signal>,
    /// How long a manual operation holds the opposite direction.
    pub manual_hold: Duration,
    pub budget: Budget,
    /// What alerts of Alertmanager's may ask for, in the order of the file; names are unique.
    pub alerts: Vec<AlertRule>,
    /// What scheduled windows ask for besides thresholds, which are with the others already.
    pub windows: WindowsNow,
}

impl Policy {
    /// The defaults of a profile, with the built-in signals all configured.
    pub fn of(profile: Profile) -> Policy {
        let at_least = if profile == Profile::Production { Duration::from_secs(1800) } else { Duration::ZERO };
        Policy {
            thresholds: ScalingThresholds::of(profile),
            checks: Checks::default(),
            scale_up: ScaleUp::default(),
            scale_down: ScaleDown { at_least, ..ScaleDown::default() },
            replace: Replace::default(),
            rebalance: Rebalance::default(),
            custom: BTreeMap::new(),
            signals: Signal::BUILT_IN.to_vec(),
            manual_hold: Duration::from_secs(3600),
            budget: Budget::default(),
            alerts: Vec::new(),
            windows: WindowsNow::default(),
        }
    }
}

/// Checks in a row that a condition needs; `None`: the condition is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    pub cpu_high: Option<u32>,
    pub memory_high: Option<u32>,
    /// Switched off, storage is not projected either.
    pub storage_high: Option<u32>,
    pub latency_high: Option<u32>,
    pub error_rate_high: Option<u32>,
    /// For one node that is hot while the pool is not, or has far more than its share.
    pub hotspot: Option<u32>,
    /// For each of the five low conditions.
    pub low: Option<u32>,
    /// How many low conditions a scale-down needs, 1..=5; those of custom signals count like the five.
    pub low_required: u32,
}

impl Default for Checks {
    fn default() -> Self {
        Checks {
            cpu_high: Some(2),
            memory_high: Some(2),
            storage_high: Some(2),
            latency_high: Some(3),
            error_rate_high: Some(2),
            hotspot: Some(5),
            low: Some(5),
            low_required: 3,
        }
    }
}

/// How many nodes a scale-up adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepSize {
    #[default]
    One,
    /// To `ceil(nodes × usage / target)`.
    Proportional,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleUp {
    pub enabled: bool,
    pub step: StepSize,
    /// At most this many nodes at once, 1..=100.
    pub max_step: u32,
}

impl Default for ScaleUp {
    fn default() -> Self {
        ScaleUp { enabled: true, step: StepSize::One, max_step: 3 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleDown {
    pub enabled: bool,
    /// The lows must have held for this many times the predicted drain.
    pub payback: f64,
    /// And for at least this long.
    pub at_least: Duration,
    /// Whether absent traffic allows it.
    pub when_idle: bool,
}

impl Default for ScaleDown {
    fn default() -> Self {
        ScaleDown { enabled: true, payback: 1.0, at_least: Duration::ZERO, when_idle: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replace {
    pub enabled: bool,
    pub after: Duration,
    /// The grace once healthy/nodes is below `healthy_ratio_min`.
    pub after_degraded: Duration,
}

impl Default for Replace {
    fn default() -> Self {
        Replace { enabled: true, after: Duration::from_secs(900), after_degraded: Duration::from_secs(300) }
    }
}

/// When shards are spread anew without being asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rebalance {
    pub enabled: bool,
    /// A node with more than so many times the mean of load or bytes has more than its share; above 1.
    pub uneven: f64,
    /// A plan that lowers the node by less than this share is not worth its moves; 0..1.
    pub gain: f64,
    /// From this share of its memory or disk on, a node counts as full and is acted on at once; 0..=1.
    pub full: f64,
}

impl Default for Rebalance {
    fn default() -> Self {
        Rebalance { enabled: true, uneven: 1.20, gain: 0.10, full: 0.95 }
    }
}

/// The most that automatic operations may do in a time; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Nodes added and removed.
    pub nodes_per_hour: Option<u32>,
    pub nodes_per_day: Option<u32>,
    /// Bytes of shards moved or copied.
    pub bytes_per_day: Option<u64>,
}

/// Lines of a custom signal; it votes like the built-in ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CustomLine {
    pub high: f64,
    pub low: Option<f64>,
    pub checks: u32,
}

impl CustomLine {
    /// Checks in a row above the line, unless configured.
    pub const DEFAULT_CHECKS: u32 = 3;
}

/// What the alerts of one entry ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRule {
    pub name: Arc<str>,
    pub action: AlertAction,
    /// Nodes that a scale-up adds, 1..=100.
    pub nodes: u32,
    /// Whether it asks again after the cooldown, as long as it fires.
    pub repeat: bool,
    /// An alert that was not heard of for so long counts as over.
    pub expires: Duration,
}

impl AlertRule {
    /// Longer than the four hours after which Alertmanager repeats itself unless told otherwise.
    pub const DEFAULT_EXPIRES: Duration = Duration::from_secs(5 * 3600);
}
