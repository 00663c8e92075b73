//! Fills new nodes, or evens out all: the change that brings the nodes nearest to their lines for its bytes, again and
//! again; then whatever can be had for less.

use super::layout::Layout;
use super::limits::Limits;
use super::state::{State, Step};
use super::{Fixed, Placing, Plan, exact, order, report};
use crate::model::{Inventory, NodeId};

/// How far below the mean a node may stay when all are evened out: what makes the fullest no less full is hardly worth
/// its bytes, but a node is not left unused. A new node is filled up to the band.
pub(super) const LEFT_ALONE: f64 = 0.5;

/// Up to so many pairs of copy and node every change is looked at, not only those of the fullest and emptiest nodes.
const ALL_PAIRS: usize = 2_000;
/// With more: the fullest node, and so many of the emptiest.
const FULLEST: usize = 1;
const EMPTIEST: usize = 6;

/// Less is not worth a move.
const WORTH: f64 = 1e-9;

/// The plan that fills the `new` nodes, and moves nothing elsewhere; with none given, the one that evens out the whole
/// cluster. Cordoned and unhealthy nodes neither give nor take.
pub fn fill(inventory: &Inventory, new: &[NodeId], fixed: &Fixed, placing: &Placing) -> Plan {
    let layout = Layout::of(inventory, placing);
    let receives = layout.nodes.iter().map(|node| node.open && (new.is_empty() || new.contains(node.id))).collect();
    let movable = |copy: &super::layout::Copy| {
        let stays = || fixed.contains(&(copy.replica.shard.clone(), copy.replica.node.clone()));
        copy.free && layout.nodes[copy.home].open && !placing.rules.pinned(&copy.replica.shard) && !stays()
    };
    let movable = layout.copies.iter().map(movable).collect();
    let slack = if new.is_empty() { LEFT_ALONE } else { placing.rules.band };
    let mut state = State::new(&layout, Limits::of(&layout, None, slack), receives, movable);
    improve(&mut state);
    trim(&mut state);
    exact::refine(&mut state);
    let steps = order::order(&state);
    report::spread(&state, new, &steps)
}

fn improve(state: &mut State) {
    let mut stuck = vec![false; state.weight.len()];
    // Each change brings the nodes nearer; the bound is for what only rounding calls nearer.
    for _ in 0..4 * state.at.len() {
        let (sources, targets) = candidates(state, &stuck);
        match best(state, &sources, &targets) {
            Some(steps) => steps.into_iter().for_each(|(c, to)| state.put(c, to)),
            None if sources.iter().all(|&n| stuck[n]) => return,
            None => sources.into_iter().for_each(|n| stuck[n] = true),
        }
    }
}

fn is_small(state: &State) -> bool {
    state.at.len() * state.weight.len() <= ALL_PAIRS
}

/// The nodes to take from, fullest first, and those to give to, emptiest first; of equally full ones the more loaded is
/// taken for the fuller.
fn candidates(state: &State, stuck: &[bool]) -> (Vec<usize>, Vec<usize>) {
    let node = |n: usize| &state.layout.nodes[n];
    let mut order: Vec<(f64, f64, usize)> = (0..state.weight.len())
        .filter(|&n| node(n).open)
        .map(|n| (state.limits.share(state.weight[n]), node(n).load, n))
        .collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
    let order: Vec<usize> = order.into_iter().map(|(.., n)| n).collect();
    let (most_sources, most_targets) = if is_small(state) { (usize::MAX, usize::MAX) } else { (FULLEST, EMPTIEST) };
    let too_full = |n: &usize| !stuck[*n] && state.limits.outside(state.weight[*n], false) > 0.0;
    let mut sources: Vec<usize> = order.iter().copied().filter(too_full).take(most_sources).collect();
    let targets: Vec<usize> = order.iter().rev().copied().filter(|&n| state.receives[n]).take(most_targets).collect();
    if sources.is_empty() && targets.iter().any(|&n| state.outside(n) > 0.0) {
        sources = order.into_iter().filter(|&n| !stuck[n]).take(most_sources.saturating_mul(8)).collect();
    }
    (sources, targets)
}

/// The change with the most gain for its cost: one copy elsewhere, or two that change places.
fn best(state: &State, sources: &[usize], targets: &[usize]) -> Option<Vec<Step>> {
    let mut best = Best::default();
    let places = |c: usize| {
        let home = Some(state.home(c)).filter(|home| !targets.contains(home));
        targets.iter().copied().chain(home).filter(move |&to| state.may(c, to))
    };
    for &from in sources {
        for &c in &state.on[from] {
            for to in places(c) {
                best.consider(state, &[(c, to)]);
                let apart = |back: usize| state.layout.copies[back].shard != state.layout.copies[c].shard;
                let swaps = state.on[to].iter().copied().filter(|&back| apart(back) && state.may(back, from));
                swaps.for_each(|back| best.consider(state, &[(c, to), (back, from)]));
            }
        }
    }
    best.steps
}

#[derive(Default)]
struct Best {
    worth: f64,
    steps: Option<Vec<Step>>,
}

impl Best {
    fn consider(&mut self, state: &State, steps: &[Step]) {
        let Some(gain) = state.gain(steps).filter(|gain| *gain > WORTH) else { return };
        let cost: i64 = steps.iter().map(|&(c, to)| dearer(state, c, to)).sum();
        // What costs nothing is better than anything that costs.
        let worth = if cost <= 0 { gain * 1e18 } else { gain / cost as f64 };
        if worth > self.worth {
            *self = Best { worth, steps: Some(steps.to_vec()) };
        }
    }
}

/// What the plan costs more with the copy there.
fn dearer(state: &State, c: usize, to: usize) -> i64 {
    let cost = |moved: bool| if moved { state.cost_of(c) as i64 } else { 0 };
    cost(to != state.home(c)) - cost(state.moved(c))
}

/// Takes moves back, or makes them with smaller copies, as long as the nodes stay as near to their lines.
fn trim(state: &mut State) {
    loop {
        let mut moved: Vec<usize> = (0..state.at.len()).filter(|&c| state.moved(c)).collect();
        moved.sort_by_key(|&c| (std::cmp::Reverse(state.cost_of(c)), c));
        let mut changed = false;
        for c in moved {
            if let Some(steps) = cheaper(state, c) {
                steps.into_iter().for_each(|(c, to)| state.put(c, to));
                changed = true;
            }
        }
        // Each change costs less than what it takes the place of, so this ends.
        if !changed {
            return;
        }
    }
}

fn cheaper(state: &State, c: usize) -> Option<Vec<Step>> {
    let (home, away) = (state.home(c), state.at[c]);
    let keeps = |steps: &[Step]| state.gain(steps).is_some_and(|gain| gain > -WORTH);
    if !state.may(c, home) {
        return None;
    }
    if keeps(&[(c, home)]) {
        return Some(vec![(c, home)]);
    }
    let instead = state.on[home].iter().copied().filter(|&other| {
        state.home(other) == home
            && state.cost_of(other) < state.cost_of(c)
            && state.layout.copies[other].shard != state.layout.copies[c].shard
            && state.may(other, away)
    });
    instead.map(|other| vec![(c, home), (other, away)]).find(|steps| keeps(steps))
}
