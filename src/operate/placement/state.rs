//! A placement in the making: where each copy is now, what each node then weighs, and what may be changed.

use super::layout::{BYTES, Layout, Weight, less, sum};
use super::limits::Limits;

/// A copy and the node where it is to be.
pub(super) type Step = (usize, usize);

#[derive(Clone)]
pub(super) struct State<'l, 'a> {
    pub layout: &'l Layout<'a>,
    pub limits: Limits,
    /// No node may get heavier: the heaviest at the start, or the band.
    pub ceiling: Weight,
    /// Where each copy is.
    pub at: Vec<usize>,
    /// The movable copies on each node.
    pub on: Vec<Vec<usize>>,
    pub weight: Vec<Weight>,
    /// Nodes that may receive.
    pub receives: Vec<bool>,
    pub movable: Vec<bool>,
    /// What a move costs besides its bytes, in bytes.
    pub per_move: u64,
    zones: usize,
}

impl<'l, 'a> State<'l, 'a> {
    pub fn new(layout: &'l Layout<'a>, limits: Limits, receives: Vec<bool>, movable: Vec<bool>) -> State<'l, 'a> {
        let weight: Vec<Weight> = layout.nodes.iter().map(|node| node.weight).collect();
        let open = || weight.iter().zip(&layout.nodes).filter(|(_, node)| node.open).map(|(weight, _)| weight);
        let ceiling = [0, 1].map(|d| open().map(|w| w[d]).max().unwrap_or(0).max(limits.high[d]));
        let mut on = vec![Vec::new(); layout.nodes.len()];
        for (c, copy) in layout.copies.iter().enumerate().filter(|(c, _)| movable[*c]) {
            on[copy.home].push(c);
        }
        State {
            at: layout.copies.iter().map(|copy| copy.home).collect(),
            per_move: limits.total[BYTES] / limits.nodes / 100,
            zones: layout.zones(None),
            layout,
            limits,
            ceiling,
            on,
            weight,
            receives,
            movable,
        }
    }

    pub fn home(&self, c: usize) -> usize {
        self.layout.copies[c].home
    }

    pub fn moved(&self, c: usize) -> bool {
        self.at[c] != self.home(c)
    }

    pub fn cost_of(&self, c: usize) -> u64 {
        self.layout.copies[c].replica.bytes + self.per_move
    }

    pub fn cost(&self) -> u64 {
        (0..self.at.len()).filter(|&c| self.moved(c)).map(|c| self.cost_of(c)).sum()
    }

    /// Whether the rules allow the copy there, whatever the node then weighs.
    pub fn may(&self, c: usize, to: usize) -> bool {
        let copy = &self.layout.copies[c];
        if !self.movable[c] || to == self.at[c] {
            return false;
        }
        let shard = &self.layout.shards[copy.shard];
        let free = to == copy.home
            || self.receives[to]
                && !shard.holders.contains(&to)
                && !shard.given_up.contains(&to)
                && shard.copies.iter().all(|&other| self.at[other] != to)
                && self.has_room(c, to);
        free && self.zones_allow(c, to)
    }

    /// Room for all that comes, and half as much again for the largest: a transfer needs that while it lasts.
    fn has_room(&self, c: usize, to: usize) -> bool {
        let Some(room) = self.layout.nodes[to].room else { return true };
        let bytes = |c: usize| self.layout.copies[c].replica.bytes;
        let coming = self.on[to].iter().filter(|&&other| other != c && self.home(other) != to).map(|&c| bytes(c));
        let (all, largest) = coming.fold((bytes(c), bytes(c)), |(all, most), b| (all + b, most.max(b)));
        all + largest / 2 <= room
    }

    fn zones_allow(&self, c: usize, to: usize) -> bool {
        if self.zones < 2 {
            return true;
        }
        let shard = &self.layout.shards[self.layout.copies[c].shard];
        let now = shard.copies.iter().map(|&other| if other == c { to } else { self.at[other] });
        let before = shard.copies.iter().map(|&other| self.home(other));
        self.layout.crowding(now, self.zones) <= self.layout.crowding(before, self.zones)
    }

    pub fn outside(&self, node: usize) -> f64 {
        self.limits.outside(self.weight[node], self.receives[node])
    }

    /// How much nearer to the lines the steps bring the nodes together; `None` if one of them would get too heavy.
    pub fn gain(&self, steps: &[Step]) -> Option<f64> {
        let mut after: [(usize, Weight); 4] = [(usize::MAX, [0, 0]); 4];
        let mut used = 0;
        // All come before any goes, so that no weight is less than nothing meanwhile.
        for comes in [true, false] {
            for &(c, to) in steps {
                let node = if comes { to } else { self.at[c] };
                let place = (0..used).find(|&i| after[i].0 == node).unwrap_or_else(|| {
                    after[used] = (node, self.weight[node]);
                    used += 1;
                    used - 1
                });
                let weight = self.layout.copies[c].weight;
                after[place].1 = if comes { sum(after[place].1, weight) } else { less(after[place].1, weight) };
            }
        }
        let mut gain = 0.0;
        for &(node, weight) in &after[..used] {
            let heavier = |d: usize| weight[d] > self.weight[node][d] && weight[d] > self.ceiling[d];
            if heavier(0) || heavier(1) {
                return None;
            }
            gain += self.outside(node) - self.limits.outside(weight, self.receives[node]);
        }
        Some(gain)
    }

    pub fn put(&mut self, c: usize, to: usize) {
        let from = self.at[c];
        let weight = self.layout.copies[c].weight;
        self.weight[from] = less(self.weight[from], weight);
        self.weight[to] = sum(self.weight[to], weight);
        self.on[from].retain(|&other| other != c);
        self.on[to].push(c);
        self.at[c] = to;
    }

    /// The heaviest of the open nodes, each measure by itself.
    pub fn highest(&self) -> Weight {
        let open = || (0..self.weight.len()).filter(|&n| self.layout.nodes[n].open);
        [0, 1].map(|d| open().map(|n| self.weight[n][d]).max().unwrap_or(0))
    }
}
