//! Small clusters are searched to the end: branch and bound for the cheapest placement at the same balance, within a
//! fixed number of steps, so that the answer does not hang on the speed of the machine.

use super::layout::{BYTES, COUNT, Weight};
use super::state::State;

/// Up to so many pairs of movable copy and receiving node.
const PAIRS: usize = 400;
/// Placements looked at in one round, at most, for one that costs less.
const FOR_LESS: u32 = 2_000;
/// And for one between the lines: mostly there is none, which no bound tells beforehand.
const FOR_BALANCE: u32 = 200;
/// A round looks at what costs up to so many times the lower bound; the last one at everything. Cheap placements are
/// few, so they are found before the steps are used up by dear ones.
const ROUNDS: [f64; 4] = [1.1, 1.3, 1.7, 2.5];

/// Looks for a placement between the lines if the given one is not, then for one that is as even and costs less.
pub(super) fn refine(state: &mut State) {
    let movable = state.movable.iter().filter(|movable| **movable).count();
    let receiving = state.receives.iter().filter(|receives| **receives).count();
    if movable * receiving > PAIRS || state.weight.len() > 64 {
        return;
    }
    let high = state.limits.high;
    let reached = state.highest();
    let low = |n: usize| if state.receives[n] { state.limits.low } else { [0, 0] };
    let lows: Vec<Weight> = (0..state.weight.len()).map(low).collect();
    let within = |high: Weight, n: usize| [COUNT, BYTES].map(|d| lows[n][d].min(state.weight[n][d]).min(high[d]));
    let as_even: Vec<Weight> = (0..lows.len()).map(|n| within(high, n)).collect();
    let is_within = [COUNT, BYTES].iter().all(|&d| reached[d] <= high[d]) && as_even == lows;
    let better = (!is_within).then(|| search(state, high, lows, u64::MAX, FOR_BALANCE)).flatten();
    let found = better.or_else(|| {
        let relaxed = [COUNT, BYTES].map(|d| high[d].max(reached[d]));
        search(state, relaxed, as_even, state.cost(), FOR_LESS)
    });
    for (c, to) in found.into_iter().flatten().enumerate() {
        if state.at[c] != to {
            state.put(c, to);
        }
    }
}

/// The cheapest placement between these lines that costs less than `cost`, as far as so many steps a round lead.
fn search(state: &State, high: Weight, low: Vec<Weight>, cost: u64, steps: u32) -> Option<Vec<usize>> {
    let mut from_home = state.clone();
    for c in 0..state.at.len() {
        if state.moved(c) {
            from_home.put(c, state.home(c));
        }
    }
    let none = vec![0; state.at.len()];
    let mut search = Search { state: from_home, high, low, barred: none, least: cost, best: None, left: steps };
    let bound = search.still_needed()?;
    let limits = ROUNDS.map(|times| (bound as f64 * times) as u64 + 1).into_iter().filter(|limit| *limit < cost);
    for limit in limits.chain([cost]) {
        (search.least, search.left) = (limit, steps);
        search.dive(0);
        if search.best.is_some() {
            break;
        }
    }
    search.best
}

struct Search<'l, 'a> {
    state: State<'l, 'a>,
    high: Weight,
    low: Vec<Weight>,
    /// Per copy, the nodes to which it is decided not to go, one bit each; all bits once it is decided altogether.
    barred: Vec<u64>,
    least: u64,
    best: Option<Vec<usize>>,
    left: u32,
}

const DECIDED: u64 = u64::MAX;

impl Search<'_, '_> {
    fn dive(&mut self, cost: u64) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        match self.still_needed() {
            Some(more) if cost.saturating_add(more) < self.least => {}
            _ => return,
        }
        let nodes = 0..self.state.weight.len();
        let too_full = nodes.clone().map(|n| (self.relative(self.over(n)), n)).filter(|(over, _)| *over > 0.0);
        if let Some((_, full)) = too_full.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))) {
            return self.relieve(full, cost);
        }
        let too_empty = nodes.map(|n| (self.relative(self.under(n)), n)).filter(|(under, _)| *under > 0.0);
        if let Some((_, empty)) = too_empty.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))) {
            return self.feed(empty, cost);
        }
        self.least = cost;
        self.best = Some(self.state.at.clone());
    }

    /// One of its copies must leave: tries each, and with each later one those before it stay.
    fn relieve(&mut self, node: usize, cost: u64) {
        let over = self.over(node)[BYTES];
        let mut copies: Vec<usize> = self.undecided(node).collect();
        copies.sort_by_key(|&c| (self.state.layout.copies[c].weight[BYTES].abs_diff(over), c));
        let mut targets: Vec<usize> = (0..self.state.weight.len()).filter(|&n| self.state.receives[n]).collect();
        targets.sort_by(|&a, &b| self.share(a).total_cmp(&self.share(b)).then(a.cmp(&b)));
        let before: Vec<u64> = copies.iter().map(|&c| self.barred[c]).collect();
        for &c in &copies {
            for &to in &targets {
                self.branch(c, to, cost);
            }
            self.barred[c] = DECIDED;
        }
        copies.iter().zip(before).for_each(|(&c, barred)| self.barred[c] = barred);
    }

    /// One more copy must come: tries each, and with each later one those before it do not come here.
    fn feed(&mut self, node: usize, cost: u64) {
        let under = self.under(node)[BYTES];
        let undecided = (0..self.state.at.len()).filter(|&c| !self.state.moved(c) && self.state.movable[c]);
        let mut copies: Vec<usize> = undecided.collect();
        copies.sort_by_key(|&c| (self.state.layout.copies[c].weight[BYTES].abs_diff(under), c));
        let before: Vec<u64> = copies.iter().map(|&c| self.barred[c]).collect();
        for &c in &copies {
            self.branch(c, node, cost);
            self.barred[c] |= 1 << node;
        }
        copies.iter().zip(before).for_each(|(&c, barred)| self.barred[c] = barred);
    }

    fn branch(&mut self, c: usize, to: usize, cost: u64) {
        if self.barred[c] & (1 << to) != 0 || !self.state.may(c, to) {
            return;
        }
        let (home, barred) = (self.state.at[c], std::mem::replace(&mut self.barred[c], DECIDED));
        self.state.put(c, to);
        self.dive(cost + self.state.cost_of(c));
        self.state.put(c, home);
        self.barred[c] = barred;
    }

    fn undecided(&self, node: usize) -> impl Iterator<Item = usize> {
        self.state.on[node].iter().copied().filter(|&c| self.barred[c] != DECIDED)
    }

    fn over(&self, n: usize) -> Weight {
        let taking_part = self.state.layout.nodes[n].open;
        [COUNT, BYTES].map(|d| if taking_part { self.state.weight[n][d].saturating_sub(self.high[d]) } else { 0 })
    }

    fn under(&self, n: usize) -> Weight {
        [COUNT, BYTES].map(|d| self.low[n][d].saturating_sub(self.state.weight[n][d]))
    }

    fn relative(&self, weight: Weight) -> f64 {
        let part = |d: usize| weight[d] as f64 / self.state.limits.total[d].max(1) as f64;
        part(COUNT).max(part(BYTES))
    }

    fn share(&self, n: usize) -> f64 {
        self.state.limits.share(self.state.weight[n])
    }

    /// What at least must be spent from here: what has to leave the full nodes, or to come to the empty ones. `None`
    /// when it cannot be done.
    fn still_needed(&self) -> Option<u64> {
        let (mut leave, mut come) = (0, 0);
        for n in 0..self.state.weight.len() {
            leave += self.least_to_leave(n)?;
            let under = self.under(n);
            come += under[BYTES].max(under[COUNT] * self.state.per_move);
        }
        Some(leave.max(come))
    }

    fn least_to_leave(&self, n: usize) -> Option<u64> {
        let over = self.over(n);
        if over == [0, 0] {
            return Some(0);
        }
        let copy = |c: usize| (self.state.cost_of(c), self.state.layout.copies[c].weight);
        let mut copies: Vec<(u64, Weight)> = self.undecided(n).map(copy).collect();
        copies.sort_unstable();
        let mut rest = vec![[0, 0]; copies.len() + 1];
        for i in (0..copies.len()).rev() {
            rest[i] = super::layout::sum(rest[i + 1], copies[i].1);
        }
        let mut least = u64::MAX;
        cheapest(&copies, &rest, over, 0, &mut least);
        (least < u64::MAX).then_some(least)
    }
}

/// The least cost of copies that together weigh `over`; `rest[i]` is what the copies from `i` on weigh.
fn cheapest(copies: &[(u64, Weight)], rest: &[Weight], over: Weight, cost: u64, least: &mut u64) {
    if over == [0, 0] {
        *least = cost.min(*least);
        return;
    }
    let reachable = over[COUNT] <= rest[0][COUNT] && over[BYTES] <= rest[0][BYTES];
    let Some(((price, weight), others)) = copies.split_first().filter(|_| reachable) else { return };
    // They are in order of cost: one more costs at least this.
    if cost.saturating_add(*price) >= *least {
        return;
    }
    let left = [COUNT, BYTES].map(|d| over[d].saturating_sub(weight[d]));
    cheapest(others, &rest[1..], left, cost + price, least);
    cheapest(others, &rest[1..], over, cost, least);
}
