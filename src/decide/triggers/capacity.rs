//! Trigger `capacity`: too many vectors a node, or storage about to be full. Pure.

use super::{Heard, Look, Wish, told};
use crate::decide::conditions::Side;
use crate::model::{Kind, Trigger};

pub fn vote<'a>(look: &Look<'a>) -> Heard<'a> {
    let active = look.conditions.iter().filter(|k| k.side == Side::Capacity && k.condition.active);
    let because = told(active);
    if because.is_empty() {
        return Heard::default();
    }
    Heard::wish(Wish::new(Kind::ScaleUp, Trigger::Capacity, because))
}
