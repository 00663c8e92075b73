//! Trigger `hotspot`: one node is hot while the pool is not, or has far more than its share, and moving shards lowers it;
//! or it is nearly full. Pure.

use super::{Heard, Look, Wish};
use crate::decide::conditions::Known;
use crate::decide::hotspots::{self, Hot, Rule};
use crate::decide::{Store, words};
use crate::model::{Forecast, Kind, NodeId, Signal, Trigger};

/// What wants shards to be spread, where no growth is in question.
pub fn vote<'a>(look: &Look<'a>) -> Heard<'a> {
    let mut heard = Heard::default();
    let mut because = Vec::new();
    for hot in look.hot.iter().filter(|hot| !matches!(hot.rule, Rule::Full(_)) && hot.condition.streak > 0) {
        match (hot.condition.active, help(look, &hot.nodes)) {
            (true, Some(help)) => because.push(format!("{}; {help}", hot.told())),
            // Where nothing is known of what a rebalance would do, there is nothing to tell.
            (true, None) if look.now.outlook.rebalance.balance.is_none() => {}
            (true, None) => heard.notes.push(format!("{}; {}", hot.told(), no_help(look, hot))),
            (false, Some(_)) => heard.notes.push(hot.told()),
            (false, None) => {}
        }
    }
    if !because.is_empty() {
        heard.wish = Some(Wish::new(Kind::Rebalance, Trigger::Hotspot, because));
    }
    heard
}

/// A node that is nearly full wants room at once: a rebalance if that helps, else a node more.
pub fn full<'a>(look: &Look<'a>) -> Heard<'a> {
    let full: Vec<&Hot> = full_now(look).collect();
    if full.is_empty() {
        return Heard::default();
    }
    let because: Vec<String> = full.iter().map(|hot| hot.told()).collect();
    if let Some(running) = spreading(look) {
        return Heard::note(format!("{}; {running}", because.join("; ")));
    }
    let helps: Option<Vec<String>> = full.iter().map(|hot| help(look, &hot.nodes)).collect();
    let mut wish = Wish::new(Kind::ScaleUp, Trigger::Hotspot, because);
    wish.instead = helps.and_then(|helps| rather(look, &wish.because, helps));
    Heard::wish(wish)
}

/// Nodes that are nearly full, in words: with one fewer they would be fuller.
pub fn full_told(look: &Look) -> Vec<String> {
    full_now(look).map(Hot::told).collect()
}

fn full_now<'l>(look: &'l Look) -> impl Iterator<Item = &'l Hot> {
    look.hot.iter().filter(|hot| matches!(hot.rule, Rule::Full(_)) && hot.condition.active)
}

/// Signals that ask for more nodes only because one node is hot: the pool's reading is a maximum or a quantile, and the
/// nodes' mean lies below the line.
pub enum Pushed<'a> {
    /// The pool as a whole is high.
    ByAll,
    /// Shards are being spread already.
    Waits(String),
    /// A rebalance would do; `None` where it would not.
    ByOne(Option<Box<Wish<'a>>>),
}

/// What pushes the conditions that want more nodes; `told` are their sentences.
pub fn pushed<'a>(look: &Look<'a>, wanting: &[&Known], told: &[String]) -> Pushed<'a> {
    let one = |known: &&Known| -> Option<(NodeId, String)> {
        let watched = matches!(known.signal, Signal::Cpu | Signal::Memory | Signal::Storage | Signal::Latency);
        let line = known.condition.line;
        let mean = hotspots::mean(look.now, look.roster, &known.signal).filter(|mean| watched && *mean <= line)?;
        let (node, value) = hotspots::highest(look.roster, &known.signal).filter(|(_, value)| *value > line)?;
        let (mean, value) = (words::number(mean), words::number(value));
        Some((node.clone(), format!("{node} alone is at {value}, while the mean is {mean}")))
    };
    let Some(ones) = wanting.iter().map(one).collect::<Option<Vec<_>>>() else { return Pushed::ByAll };
    if let Some(running) = spreading(look) {
        return Pushed::Waits(running);
    }
    let helps: Option<Vec<String>> = ones
        .iter()
        .map(|(node, alone)| Some(format!("{alone}; {}", help(look, std::slice::from_ref(node))?)))
        .collect();
    Pushed::ByOne(helps.and_then(|helps| rather(look, told, helps)))
}

/// The rebalance to make instead of a growth, unless it is switched off.
fn rather<'a>(look: &Look<'a>, because: &[String], mut helps: Vec<String>) -> Option<Box<Wish<'a>>> {
    if !look.policy.rebalance.enabled {
        return None;
    }
    helps.dedup();
    let because = because.iter().cloned().chain(helps).collect();
    Some(Box::new(Wish::new(Kind::Rebalance, Trigger::Hotspot, because)))
}

/// A rebalance that runs already is given the time to help.
fn spreading(look: &Look) -> Option<String> {
    let running = look.now.open_operation().filter(|operation| operation.kind == Kind::Rebalance)?;
    Some(format!("rebalance {} is to lower it", running.id))
}

/// By which share the plan lowers what a node holds: its bytes, or its shards where those are empty. `None` where the
/// plan does not touch the node.
fn lowers(plan: &Forecast, node: &NodeId) -> Option<f64> {
    let change = plan.nodes.iter().find(|change| &change.node == node)?;
    let (before, after) = match change.bytes_before {
        0 => (f64::from(change.shards_before), f64::from(change.shards_after)),
        bytes => (bytes as f64, change.bytes_after as f64),
    };
    (before > 0.0).then(|| (before - after) / before)
}

/// What the plan does for the first of the nodes that it lowers enough, in words.
fn help(look: &Look, nodes: &[NodeId]) -> Option<String> {
    if matches!(look.now.store, Store::None) {
        return None; // there is no data to move
    }
    let plan = &look.now.outlook.rebalance;
    let enough = |node: &NodeId| lowers(plan, node).filter(|share| *share >= look.policy.rebalance.gain);
    let (node, share) = nodes.iter().find_map(|node| Some((node, enough(node)?)))?;
    Some(format!("a rebalance lowers {node} by {} ({})", words::percent(share), words::moved(plan)))
}

fn no_help(look: &Look, hot: &Hot) -> String {
    let plan = &look.now.outlook.rebalance;
    let most = hot.nodes.iter().filter_map(|node| Some((lowers(plan, node).filter(|s| *s > 0.0)?, node)));
    let gain = words::percent(look.policy.rebalance.gain);
    match most.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((share, node)) => {
            format!("a rebalance would lower {node} by {} only, {gain} are needed", words::percent(share))
        }
        None => "no rebalance would lower it".into(),
    }
}
