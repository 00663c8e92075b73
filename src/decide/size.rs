//! How many nodes a scale-up adds. Takes the conditions that want it, gives a number. Pure.

use super::conditions::{Known, Lines, Side};
use super::policy::{Policy, StepSize};

/// Nodes to add where so many are missing.
pub fn towards(policy: &Policy, missing: u32) -> u32 {
    match policy.scale_up.step {
        StepSize::One => 1,
        StepSize::Proportional => missing.min(policy.scale_up.max_step.max(1)),
    }
}

/// Nodes to add, at least one. Bounds are looked at elsewhere.
///
/// Proportional: to `ceil(nodes × usage / target)`, target midway between low and high, for the usage that asks for
/// most. Only usages say how much is missing; for all else it is one.
pub fn of_scale_up(policy: &Policy, nodes: u32, lines: &[Lines], wanting: &[&Known]) -> u32 {
    if policy.scale_up.step == StepSize::One {
        return 1;
    }
    let needed = |known: &&Known| {
        let usage = known.condition.value.filter(|_| known.side == Side::High && known.signal.is_usage())?;
        let of_signal = lines.iter().find(|l| l.signal == known.signal)?;
        let target = (of_signal.low? + of_signal.high) / 2.0;
        let nodes = (f64::from(nodes) * usage / target).ceil();
        (target > 0.0 && nodes.is_finite()).then_some(nodes as u32)
    };
    let wanted = wanting.iter().filter_map(needed).max().unwrap_or(0);
    wanted.saturating_sub(nodes).clamp(1, policy.scale_up.max_step.max(1))
}
