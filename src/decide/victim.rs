//! Which node a scale-down removes. Takes the planner's order, gives a node or why there is none. Pure.

use std::collections::BTreeMap;

use super::roster::Roster;
use super::words;
use super::{Situation, Store};
use crate::model::{Drain, NodeId, NodeSeen, NodeState};

/// The node to remove, or what stands in the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    pub node: Option<NodeId>,
    /// How long its drain is predicted to take; `None` before a move was measured.
    pub drain_secs: Option<f64>,
    /// The provider takes away another node only.
    pub fixed: Option<String>,
    /// No candidate can be emptied.
    pub impossible: Option<String>,
    /// Why this node and no other, in words; what it would mean for the next.
    pub ranking: Vec<String>,
}

/// The best node that can go: the planner's order is fewest bytes to move, then least load.
pub fn choose(now: &Situation, roster: &Roster, named: Option<&NodeId>) -> Choice {
    let only = now.provider.only_victim;
    if let (Some(named), Some(only)) = (named, only)
        && named != only
    {
        let fixed = format!("the provider takes away {only} next and no other, so {named} cannot go");
        return Choice { fixed: Some(fixed), ..Choice::default() };
    }
    let drains: BTreeMap<&NodeId, &Drain> = now.outlook.scale_down.iter().map(|d| (&d.node, d)).collect();
    let candidates = match named.or(only) {
        Some(node) => vec![node],
        None => in_order(now, roster, &drains),
    };
    let is_asked = named.or(only).is_some();
    let mut unfit = Vec::new();
    let mut fit = Vec::new();
    for id in candidates {
        let drain = drains.get(id).copied();
        let why_not = why_not_by_itself(roster, id).filter(|_| named.is_none());
        match why_not.or_else(|| why_not_at_all(now, roster, id)) {
            None => fit.push((id, drain)),
            Some(why) => unfit.push(format!("{id}: {why}")),
        }
    }
    if let Some((id, drain)) = fit.first() {
        let drain_secs = drain.and_then(|d| d.forecast.seconds);
        let ranking = ranking(now, &fit, &unfit, is_asked);
        return Choice { node: Some((*id).clone()), drain_secs, ranking, ..Choice::default() };
    }
    let why =
        if unfit.is_empty() { "there is no node that could be removed".into() } else { words::some_of(&unfit, 3) };
    Choice { impossible: Some(why), ..Choice::default() }
}

/// Why the first of these goes: what it means to drain it, what it would mean for the second, and who cannot go.
fn ranking(now: &Situation, fit: &[(&NodeId, Option<&Drain>)], unfit: &[String], is_asked: bool) -> Vec<String> {
    let means = |drain: Option<&Drain>| match drain {
        Some(drain) => format!("{} to move", words::moved(&drain.forecast)),
        None => "it holds no data".into(),
    };
    let Some((first, drain)) = fit.first() else { return Vec::new() };
    let mut told = vec![format!("{first} goes: {}", means(*drain))];
    if let Some((next, drain)) = fit.get(1).filter(|_| !is_asked) {
        told[0].push_str(&format!("; the next were {next}: {}", means(*drain)));
    }
    if now.inventory().and_then(|inventory| inventory.member(first)).is_some_and(|member| member.leader) {
        told.push(format!("{first} leads the members' consensus: when it leaves they elect another"));
    }
    if !unfit.is_empty() {
        told.push(format!("not to be removed: {}", words::some_of(unfit, 3)));
    }
    told
}

/// The planner's order; nodes that hold no data need no plan and go by least load.
fn in_order<'a>(now: &Situation<'a>, roster: &Roster<'a>, drains: &BTreeMap<&NodeId, &Drain>) -> Vec<&'a NodeId> {
    let mut order: Vec<&NodeId> = now.outlook.scale_down.iter().map(|d| &d.node).collect();
    if matches!(now.store, Store::None) {
        let mut rest: Vec<&NodeSeen> = roster.nodes.values().filter(|n| !drains.contains_key(&n.id)).copied().collect();
        let load = |n: &NodeSeen| n.load.unwrap_or(f64::INFINITY);
        rest.sort_by(|a, b| load(a).total_cmp(&load(b)).then_with(|| a.id.cmp(&b.id)));
        order.extend(rest.iter().map(|n| &n.id));
    }
    order
}

/// What stands in the way unless a person names the node.
fn why_not_by_itself(roster: &Roster, id: &NodeId) -> Option<String> {
    let is_cordoned = roster.nodes.get(id).is_some_and(|node| node.state == NodeState::Draining);
    is_cordoned.then(|| "it is cordoned already, for somebody's reason".into())
}

fn why_not_at_all(now: &Situation, roster: &Roster, id: &NodeId) -> Option<String> {
    let unlisted = "the provider does not list it, so it could not be taken away";
    let why = || (!roster.provider_knows(id)).then(|| unlisted.to_string());
    cannot_be_emptied(now, roster, id).or_else(why)
}

/// Why the shards of the node cannot all be moved away.
pub fn cannot_be_emptied(now: &Situation, roster: &Roster, id: &NodeId) -> Option<String> {
    let drain = now.outlook.scale_down.iter().find(|drain| drain.node == *id);
    let Some(node) = roster.nodes.get(id) else { return Some("no node of this pool has this name".into()) };
    match node.state {
        NodeState::Serving | NodeState::Draining => {}
        state => return Some(format!("its state is {}", state.as_str())),
    }
    if !node.healthy {
        return Some("it is unhealthy".into());
    }
    match drain {
        Some(drain) => drain.impossible.clone(),
        None if matches!(now.store, Store::None) => None,
        None => Some("there is no plan yet of where its shards would go".into()),
    }
}
