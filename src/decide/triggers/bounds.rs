//! Trigger `bounds`: fewer placeable nodes than `min_nodes`, at once. Pure.

use super::{Heard, Look, Wish};
use crate::decide::policy::StepSize;
use crate::model::{Kind, Trigger};
use crate::units;

pub fn vote<'a>(look: &Look<'a>) -> Heard<'a> {
    let (placeable, least) = (look.roster.placeable, look.policy.thresholds.min_nodes);
    if placeable >= least {
        return Heard::default();
    }
    let because = format!("{} placeable, min_nodes is {least}", units::count(placeable, "node"));
    let nodes = match look.policy.scale_up.step {
        StepSize::One => 1,
        StepSize::Proportional => (least - placeable).min(look.policy.scale_up.max_step.max(1)),
    };
    Heard::wish(Wish { nodes, ..Wish::new(Kind::ScaleUp, Trigger::Bounds, vec![because]) })
}
