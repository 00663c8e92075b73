//! How many nodes a scale-up adds. Takes the conditions that want it, and the stairs of the shards, gives a number. Pure.

use super::conditions::{Known, Lines, Side};
use super::policy::{Policy, StepSize};
use super::triggers::{Look, Wish};
use crate::model::{Kind, Trigger};
use crate::units;

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

/// Fits a growth to its bounds and to the stairs of the shards, and says so.
///
/// A growth for load of which no node would lower the busiest one goes to the next count that does, if it may: `too_narrow`
/// holds the others. What a floor, a window or a person asks for stays as it is, and is told.
pub fn fit(look: &Look, wish: &mut Wish) {
    let stairs = &look.now.outlook.stairs;
    if wish.request.is_none() {
        if let Some(useful) = stairs.useful.filter(|useful| is_for_load(wish) && *useful <= most(look)) {
            wish.nodes = wish.nodes.max(useful);
        }
        wish.nodes = wish.nodes.min(room(look)).max(1);
    }
    let Some(why) = &stairs.why else { return };
    if !is_for_load(wish) {
        wish.because.push(match stairs.useful {
            Some(useful) if useful <= wish.nodes => return,
            Some(useful) => format!("{why}; {} would lower it", units::count(useful, "more node")),
            None => format!("{why}, and no number of nodes would lower it"),
        });
    } else if stairs.useful.is_some_and(|useful| useful <= wish.nodes) {
        wish.because.push(format!("{why}; {} lower it", units::count(wish.nodes, "more node")));
    }
}

/// Why a growth for load, [`fit`] before, would not lower the busiest node. While a node is leaving, growing begins with
/// keeping it.
pub fn too_narrow(look: &Look, wish: &Wish) -> Option<String> {
    if look.now.open_operation().is_some_and(|operation| operation.kind == Kind::ScaleDown) {
        return None;
    }
    let stairs = &look.now.outlook.stairs;
    let why = stairs.why.as_ref().filter(|_| is_for_load(wish))?;
    let Some(useful) = stairs.useful else {
        return Some(format!("{why}, and no number of nodes would lower it: replicate or re-shard instead"));
    };
    if useful <= wish.nodes {
        return None;
    }
    let bound = if room(look) < useful {
        format!("max_nodes is {}", look.policy.thresholds.max_nodes)
    } else {
        format!("scale_up.max_step is {}", look.policy.scale_up.max_step)
    };
    let more = units::count(useful, "more node");
    Some(format!("{why}; {more} would lower it, but {bound}: replicate or re-shard instead"))
}

/// Of a growth that only helps by lowering the busiest node.
fn is_for_load(wish: &Wish) -> bool {
    let for_load = [Trigger::Threshold, Trigger::Capacity, Trigger::Hotspot, Trigger::Alert];
    wish.request.is_none() && for_load.contains(&wish.trigger)
}

/// Nodes that may still be added.
fn room(look: &Look) -> u32 {
    look.policy.thresholds.max_nodes.saturating_sub(look.roster.existing)
}

/// The widest stair that is climbed at once. `max_step` says how many nodes a proportional growth may add, and binds
/// here too; a growth by one adds one where one helps, and the fewest that help where it does not, so that only
/// `max_nodes` is its bound.
fn most(look: &Look) -> u32 {
    match look.policy.scale_up.step {
        StepSize::One => room(look),
        StepSize::Proportional => room(look).min(look.policy.scale_up.max_step.max(1)),
    }
}
