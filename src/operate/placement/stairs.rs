//! How many nodes more the shards can make use of. Equal shards make stairs: growing by fewer nodes than a step is wide
//! leaves the busiest node as busy as it was.

use super::layout::Layout;
use super::limits::Limits;
use super::{Placing, Plan, fill_more};
use crate::model::{Balance, Inventory, Stairs};
use crate::units;

/// By so much the busiest node must get lighter for growing to be of use.
const USEFUL: f64 = 0.10;
/// Or, in a cluster so large that no one node can do that, by so much of what it would be if all were even.
const OF_EVEN: f64 = 0.8;
/// Counts of nodes that are tried in full, at most; those that cannot help whatever the plan are passed over before.
const TRIED: usize = 8;

/// `one_more` is the plan for one node more.
pub fn stairs(inventory: &Inventory, placing: &Placing, one_more: &Plan) -> Stairs {
    let Some(now) = one_more.balance.filter(|balance| balance.busiest_before > 0.0) else {
        return Stairs::default();
    };
    let layout = Layout::of(inventory, placing);
    let limits = Limits::of(&layout, None, 0.0);
    let nodes = limits.nodes as u32;
    let enough = |balance: &Balance, more: u32| {
        let even = f64::from(more) / f64::from(nodes + more);
        balance.busiest_after <= balance.busiest_before * (1.0 - USEFUL.min(OF_EVEN * even)) + f64::EPSILON
    };
    if enough(&now, 1) {
        return Stairs { useful: Some(1), why: None };
    }
    let why = Some(why(&layout, one_more, nodes));
    // Past one copy a node there is nothing left to gain.
    let most = (limits.total[super::layout::COUNT] as u32).saturating_sub(nodes).min(10 * nodes);
    let could = |more: &u32| {
        let best = limits.best_with(nodes + more);
        enough(&Balance { busiest_after: best, ..now }, *more)
    };
    let helps =
        |more: &u32| fill_more(inventory, placing, *more).balance.is_some_and(|balance| enough(&balance, *more));
    Stairs { useful: (2..=most).filter(could).take(TRIED).find(helps), why }
}

fn why(layout: &Layout, one_more: &Plan, nodes: u32) -> String {
    let heaviest = |d: usize| layout.nodes.iter().filter(|n| n.open).map(|n| n.weight[d]).max().unwrap_or(0);
    let copies: u64 = layout.nodes.iter().filter(|n| n.open).map(|n| n.weight[0]).sum();
    let after = |d: usize| {
        let changed = |node: &crate::model::NodeId| one_more.nodes.iter().find(|change| change.node == *node);
        let kept = layout.nodes.iter().filter(|n| n.open).map(|n| match changed(n.id) {
            Some(change) => [u64::from(change.shards_after), change.bytes_after][d],
            None => n.weight[d],
        });
        kept.max().unwrap_or(0)
    };
    let still = if after(0) >= heaviest(0) {
        format!("{}", after(0))
    } else {
        format!("{} of {}", units::bytes(after(1)), units::bytes(heaviest(1)))
    };
    let copies = if copies == 1 { "1 shard copy".to_string() } else { format!("{copies} shard copies") };
    format!("{copies} on {}: with {} the busiest node still holds {still}", units::count(nodes, "node"), nodes + 1)
}
