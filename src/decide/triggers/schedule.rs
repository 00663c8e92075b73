//! Trigger `schedule`: a window wants more nodes than there are, or fewer. Pure.

use super::threshold::above_a_line;
use super::{Heard, Look, Wish};
use crate::decide::{size, victim};
use crate::model::{Floor, Kind, Trigger};
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
    Heard::wish(Wish { victim, ..Wish::new(Kind::ScaleDown, Trigger::Schedule, vec![wants]) })
}

/// What keeps low conditions from removing a node: as few are left as a window wants. `min_nodes` is a guard of its own.
pub fn keeps(look: &Look) -> Option<String> {
    let floor = look.policy.windows.floor.as_ref()?;
    let keeps = look.roster.placeable <= floor.nodes && floor.nodes > look.policy.thresholds.min_nodes;
    keeps.then(|| wants(floor, look.roster.placeable))
}

fn wants(floor: &Floor, placeable: u32) -> String {
    let when = floor.opens.map_or("is open".to_string(), |opens| format!("opens at {opens}"));
    let nodes = units::count(floor.nodes, "node");
    format!("window {} {when} and wants {nodes}, {placeable} placeable", floor.window)
}
