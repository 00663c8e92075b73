//! Trigger `bounds`: fewer placeable nodes than `min_nodes`, at once. Pure.

use super::{Heard, Look, Wish};
use crate::decide::size;
use crate::model::{Kind, Trigger};
use crate::units;

pub fn vote<'a>(look: &Look<'a>) -> Heard<'a> {
    let (placeable, least) = (look.roster.placeable, look.policy.thresholds.min_nodes);
    if placeable >= least {
        return Heard::default();
    }
    let because = format!("{} placeable, min_nodes is {least}", units::count(placeable, "node"));
    let nodes = size::towards(look.policy, least - placeable);
    Heard::wish(Wish { nodes, ..Wish::new(Kind::ScaleUp, Trigger::Bounds, vec![because]) })
}
