//! Trigger `threshold`: a signal above its line for long enough wants more nodes; several below theirs, for as long as
//! the drain would take, want fewer. Pure.

use std::time::Duration;

use super::hotspot::Pushed;
use super::{Heard, Look, Wish, hotspot, schedule, told};
use crate::decide::conditions::{self, Known, Side, is_above, reading};
use crate::decide::projection;
use crate::decide::{size, victim, words};
use crate::model::{Kind, Signal, Timestamp, Trigger};
use crate::units;

pub fn vote_up<'a>(look: &Look<'a>) -> Heard<'a> {
    let high = |active: bool| {
        let under_way = move |k: &&Known| k.side == Side::High && k.condition.active == active && k.streak.checks > 0;
        look.conditions.iter().filter(under_way)
    };
    let wanting: Vec<&Known> = high(true).collect();
    if wanting.is_empty() {
        return Heard { wish: None, notes: told(high(false)) };
    }
    let nodes = size::of_scale_up(look.policy, look.roster.bearing, &conditions::lines(look.policy), &wanting);
    let because = told(wanting.iter().copied());
    match hotspot::pushed(look, &wanting, &because) {
        Pushed::Waits(why) => Heard::note(format!("{}; {why}", because.join("; "))),
        Pushed::ByAll => Heard::wish(Wish { nodes, ..Wish::new(Kind::ScaleUp, Trigger::Threshold, because) }),
        Pushed::ByOne(instead) => {
            Heard::wish(Wish { nodes, instead, ..Wish::new(Kind::ScaleUp, Trigger::Threshold, because) })
        }
    }
}

pub fn vote_down<'a>(look: &Look<'a>) -> Heard<'a> {
    let low: Vec<&Known> = look.conditions.iter().filter(|k| k.side == Side::Low && k.condition.active).collect();
    let required = look.policy.checks.low_required as usize;
    if look.policy.checks.low.is_none() || low.len() < required {
        let under_way = look.conditions.iter().filter(|k| k.side == Side::Low && k.streak.checks > 0);
        return Heard { wish: None, notes: told(under_way) };
    }
    let above = above_a_line(look);
    if !above.is_empty() {
        return Heard::note(format!("{} low conditions hold, but {}", low.len(), above.join(", ")));
    }
    if let Some(keeps) = schedule::keeps(look) {
        return Heard::note(format!("{} low conditions hold, but {keeps}", low.len()));
    }
    let victim = victim::choose(look.now, look.roster, None);
    let held = look.now.seen.at.since(held_since(&low, required));
    let (needed, why) = must_hold(look, victim.drain_secs);
    if held < needed {
        let (held, needed) = (units::time(held), units::time(needed));
        return Heard::note(format!("{} low conditions have held for {held} of the {needed} that {why}", low.len()));
    }
    Heard::wish(Wish { victim, ..Wish::new(Kind::ScaleDown, Trigger::Threshold, told(low)) })
}

/// Since when as many low conditions as are required have held together.
fn held_since(low: &[&Known], required: usize) -> Timestamp {
    let mut since: Vec<Timestamp> = low.iter().filter_map(|k| k.streak.since).collect();
    since.sort_unstable();
    since[required.clamp(1, since.len()) - 1]
}

/// How long the lows, an alert or a window must have held, and what asks for it. A drain that nobody can predict yet asks
/// for nothing.
pub(super) fn must_hold(look: &Look, drain_secs: Option<f64>) -> (Duration, &'static str) {
    let settings = &look.policy.scale_down;
    let drain = drain_secs.unwrap_or(0.0) * settings.payback;
    let drain = Duration::try_from_secs_f64(drain.max(0.0)).unwrap_or(Duration::MAX);
    if drain > settings.at_least {
        (drain, "the drain is predicted to take (scale_down.payback)")
    } else {
        (settings.at_least, "the profile asks for at least")
    }
}

/// Signals above their high line now, whatever their streak and whether or not their condition is switched off; and nodes
/// that are nearly full.
pub(super) fn above_a_line(look: &Look) -> Vec<String> {
    let seen = look.now.seen;
    let mut above: Vec<String> = conditions::lines(look.policy)
        .iter()
        .filter(|l| is_above(reading(seen, &l.signal), l.high))
        .map(|l| format!("{} is above {}", l.signal, words::number(l.high)))
        .collect();
    if let (Some(line), Some(mean)) = (projection::high_line(look.policy, &Signal::Vectors), seen.avg_vectors_per_node)
        && mean > line
    {
        above.push(format!("avg_vectors_per_node is above {}", words::number(line)));
    }
    above.extend(hotspot::full_told(look));
    above
}
