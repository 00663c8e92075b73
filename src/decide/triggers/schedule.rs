//! Trigger `schedule`: a window wants more nodes than there are, or fewer. Pure.

use std::time::Duration;

use super::threshold::{above_a_line, must_hold};
use super::{Heard, Look, Wish};
use crate::decide::guards::cancellable;
use crate::decide::{Policy, Situation, size, victim};
use crate::model::{Floor, Kind, NodeSeen, NodeState, Operation, Trigger};
use crate::units;

pub fn vote_up<'a>(look: &Look<'a>) -> Heard<'a> {
    let placeable = look.roster.placeable;
    let Some(floor) = look.policy.windows.floor.as_ref().filter(|floor| placeable < floor.nodes) else {
        return Heard::default();
    };
    let nodes = size::towards(look.policy, floor.nodes - placeable);
    Heard::wish(Wish { nodes, ..Wish::new(Kind::ScaleUp, Trigger::Schedule, vec![wants(floor, placeable)]) })
}

pub fn vote_down<'a>(look: &Look<'a>) -> Heard<'a> {
    let placeable = look.roster.placeable;
    let Some(desired) = look.policy.windows.desired.as_ref().filter(|desired| placeable > desired.nodes) else {
        return Heard::default();
    };
    let wants = wants(desired, placeable);
    let above = above_a_line(look);
    if !above.is_empty() {
        return Heard::note(format!("{wants}, but {}", above.join(", ")));
    }
    let victim = victim::choose(look.now, look.roster, None);
    // A window that closes before the node has gone would have gained nothing by it.
    let open = desired.since.map_or(Duration::ZERO, |since| look.now.seen.at.since(since));
    let (needed, why) = must_hold(look, victim.drain_secs);
    if open < needed {
        let (open, needed) = (units::time(open), units::time(needed));
        return Heard::note(format!("{wants}: for {open} of the {needed} that {why}"));
    }
    Heard::wish(Wish { victim, ..Wish::new(Kind::ScaleDown, Trigger::Schedule, vec![wants]) })
}

/// What keeps low conditions from removing a node: as few are left as a window wants. `min_nodes` is a guard of its own.
pub fn keeps(look: &Look) -> Option<String> {
    let floor = look.policy.windows.floor.as_ref()?;
    let keeps = look.roster.placeable <= floor.nodes && floor.nodes > look.policy.thresholds.min_nodes;
    keeps.then(|| wants(floor, look.roster.placeable))
}

/// Why the running scale-down, which nothing but a window wanted, is to be taken back: windows want no pool so small any
/// more.
pub fn let_go(policy: &Policy, now: &Situation) -> Option<String> {
    let ours = |o: &&Operation| o.kind == Kind::ScaleDown && o.trigger == Trigger::Schedule && cancellable(o);
    let running = now.open_operation().filter(ours)?;
    let stays =
        |n: &&NodeSeen| !running.nodes.contains(&n.id) && !matches!(n.state, NodeState::Draining | NodeState::Lost);
    let left = now.seen.nodes.iter().filter(stays).count() as u32;
    match &policy.windows.desired {
        Some(desired) if desired.nodes <= left => None,
        Some(desired) => Some(format!("{}, {left} would stay", asks(desired))),
        None => Some("the window that wanted fewer nodes has closed".into()),
    }
}

fn wants(floor: &Floor, placeable: u32) -> String {
    format!("{}, {placeable} placeable", asks(floor))
}

fn asks(floor: &Floor) -> String {
    let when = floor.opens.map_or("is open".to_string(), |opens| format!("opens at {opens}"));
    format!("window {} {when} and wants {}", floor.window, units::count(floor.nodes, "node"))
}
