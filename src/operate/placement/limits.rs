//! What is even enough: how much the fullest node may keep, how little the emptiest, and what no placement can better.

use super::Strategy;
use super::layout::{BYTES, COUNT, Layout, Weight, sum};

/// Lines between which every node should be. What the pool's strategy does not count has none.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// No node above.
    pub high: Weight,
    /// No node that may receive below.
    pub low: Weight,
    /// Of all nodes that take part.
    pub total: Weight,
    pub nodes: u64,
    /// The least that the fullest node can have, by any placement.
    pub best: Weight,
    counts: [bool; 2],
    /// Bytes of all copies, largest first.
    sizes: Vec<u64>,
}

impl Limits {
    /// Over the open nodes and what they hold; `leaving` is a node that gives all it has to the others. `slack` is the
    /// share of the mean that the emptiest node may lack, if that is more than a copy of mean size.
    pub fn of(layout: &Layout, leaving: Option<usize>, slack: f64) -> Limits {
        let takes_part = |i: usize| layout.nodes[i].open || Some(i) == leaving;
        let all = layout.nodes.iter().enumerate().filter(|(i, _)| takes_part(*i));
        let total = all.clone().fold([0, 0], |total, (_, node)| sum(total, node.weight));
        let nodes = all.filter(|(i, _)| Some(*i) != leaving).count().max(1) as u64;
        let mut sizes: Vec<u64> =
            layout.copies.iter().filter(|c| takes_part(c.home)).map(|c| c.weight[BYTES]).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let best = best(total, &sizes, nodes);
        let counts = match layout.placing.rules.strategy {
            Strategy::ByCount => [true, false],
            Strategy::BySize => [false, true],
            Strategy::ByCountAndSize => [true, true],
        };
        let band = 1.0 + layout.placing.rules.band;
        let high = |d: usize| best[d].max((best[d] as f64 * band) as u64);
        let low = |d: usize| {
            let mean = total[d] as f64 / nodes as f64;
            let lump = total[d] as f64 / total[COUNT].max(1) as f64;
            (mean - (slack * mean).max(lump)).max(0.0).ceil() as u64
        };
        let high = [COUNT, BYTES].map(|d| if counts[d] { high(d) } else { u64::MAX });
        let low = [COUNT, BYTES].map(|d| if counts[d] { low(d) } else { 0 });
        Limits { high, low, total, nodes, best, counts, sizes }
    }

    /// The least that the fullest of so many nodes could have.
    pub fn best_with(&self, nodes: u32) -> f64 {
        self.measured(best(self.total, &self.sizes, u64::from(nodes)))
    }

    fn counted(&self) -> impl Iterator<Item = usize> {
        [COUNT, BYTES].into_iter().filter(|d| self.counts[*d])
    }

    /// A part of all there is: the largest of the shares that count.
    pub fn share(&self, weight: Weight) -> f64 {
        self.counted().map(|d| weight[d] as f64 / self.total[d].max(1) as f64).fold(0.0, f64::max)
    }

    /// The weight over what each node would have if all were even.
    pub fn ratio(&self, weight: Weight, nodes: u64) -> f64 {
        self.share(weight) * nodes as f64
    }

    /// In the measure of the strategy: copies, bytes, or the share.
    pub fn measured(&self, weight: Weight) -> f64 {
        match self.counts {
            [true, false] => weight[COUNT] as f64,
            [false, true] => weight[BYTES] as f64,
            _ => self.share(weight),
        }
    }

    /// How far outside the lines a node is, as a share of all there is; 0 inside.
    pub fn outside(&self, weight: Weight, receives: bool) -> f64 {
        let outside = |d: usize| {
            let under = if receives { self.low[d].saturating_sub(weight[d]) } else { 0 };
            (weight[d].saturating_sub(self.high[d]) + under) as f64 / self.total[d].max(1) as f64
        };
        outside(COUNT) + outside(BYTES)
    }
}

fn best(total: Weight, sizes: &[u64], nodes: u64) -> Weight {
    [total[COUNT].div_ceil(nodes), total[BYTES].div_ceil(nodes).max(crowded(sizes, nodes))]
}

/// By the pigeonhole: of the `(k - 1) n + 1` largest, some node has `k`, which weigh at least what the `k` smallest do.
fn crowded(sizes: &[u64], nodes: u64) -> u64 {
    let nodes = nodes as usize;
    let smallest = |k: usize| sizes.get(..(k - 1) * nodes + 1).map(|top| top[top.len() - k..].iter().sum::<u64>());
    (1..).map_while(smallest).max().unwrap_or(0)
}
