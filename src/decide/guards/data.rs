//! Guards of the datastore: what it says about members, shards and transfers, or that it says nothing. Pure.

use std::collections::BTreeSet;

use super::{Case, Held, places};
use crate::decide::{Store, size, victim, words};
use crate::model::{Inventory, Kind, Member, NodeId, Replica, ReplicaState, ShardId};
use crate::units;

/// A majority of healthy members has to agree to any change, and still has to be there afterwards.
pub fn quorum(case: &Case) -> Option<Held> {
    let inventory = match case.look.now.store {
        Store::None => return None,
        // For adding and spreading, `placement` says that the store is silent.
        Store::Silent(_) if matches!(case.wish.kind, Kind::ScaleUp | Kind::Rebalance) => return None,
        Store::Silent(why) => {
            return Held::because(format!("which members are healthy is unknown, the datastore did not answer: {why}"));
        }
        Store::Seen(inventory) => inventory,
    };
    if let Some(why) = &inventory.no_quorum {
        return Held::because(why.clone());
    }
    let ill: Vec<String> = inventory.members.iter().filter(|m| !is_well(case, m)).map(|m| m.id.to_string()).collect();
    let (members, healthy) = (inventory.members.len(), inventory.members.len() - ill.len());
    if healthy * 2 <= members {
        return Held::because(format!("{healthy} of {members} members are healthy: no majority"));
    }
    if case.wish.kind != Kind::ScaleDown {
        return None;
    }
    if !ill.is_empty() {
        return Held::because(format!("no member is removed while another is unhealthy: {}", words::some_of(&ill, 5)));
    }
    None
}

/// As the store calls it and as we see it; a member that we do not scrape is judged by the store alone.
fn is_well(case: &Case, member: &Member) -> bool {
    member.healthy && case.look.roster.nodes.get(&member.id).is_none_or(|n| n.healthy && n.up)
}

pub fn placement(case: &Case) -> Option<Held> {
    match (case.look.now.store, case.wish.kind) {
        (Store::Silent(why), _) => Held::because(format!("the datastore did not answer: {why}")),
        (_, Kind::ScaleUp) => Held::because(size::too_narrow(case.look, case.wish)?),
        (store, Kind::ScaleDown) => match &case.wish.victim.impossible {
            Some(why) => Held::because(format!("no node can be emptied: {why}")),
            None => unproven(case, store),
        },
        (store, Kind::Rebalance) => unproven(case, store),
        (store, Kind::Drain) => not_to_be_drained(case, store),
        (store, Kind::Replace) => irreplaceable(case, store),
        (store, Kind::Adopt) => not_to_be_adopted(case, store),
        (store, Kind::Reap) => not_to_be_reaped(case, store),
    }
}

/// Only a node that is known and ill is replaced, and only if nothing is lost with it.
fn irreplaceable(case: &Case, store: Store) -> Option<Held> {
    let Some(dead) = &case.wish.subject else { return Held::because("which node is to be replaced was not said") };
    match case.look.roster.nodes.get(dead) {
        None => Held::because(format!("{dead} is no node of this pool")),
        Some(node) if node.healthy => Held::because(format!("{dead} is healthy: drain it with a scale-down instead")),
        Some(_) => lost_with(store, dead),
    }
}

/// Why a dead node cannot be replaced, as far as the store tells: something is lost with it, or has no place elsewhere.
pub fn lost_with(store: Store, dead: &NodeId) -> Option<Held> {
    match store {
        Store::Seen(inventory) => {
            only_copies(inventory, dead).or_else(|| Held::because(places::without_room(inventory, dead)?))
        }
        Store::None | Store::Silent(_) => None,
    }
}

/// Before the first step, each step of the plan has to be legal.
fn unproven(case: &Case, store: Store) -> Option<Held> {
    let Store::Seen(inventory) = store else { return None };
    let outlook = case.look.now.outlook;
    let plan = match &case.wish.victim.node {
        Some(victim) => &outlook.scale_down.iter().find(|drain| &drain.node == victim)?.forecast,
        None => &outlook.rebalance,
    };
    Held::because(places::illegal(inventory, &plan.moves, case.wish.victim.node.as_ref())?)
}

/// Only a well node whose shards have places elsewhere is emptied.
fn not_to_be_drained(case: &Case, store: Store) -> Option<Held> {
    let Some(node) = &case.wish.subject else { return Held::because("which node is to be drained was not said") };
    if matches!(store, Store::None) {
        return Held::because("the nodes hold no data: there is nothing to drain");
    }
    let why = victim::cannot_be_emptied(case.look.now, case.look.roster, node)?;
    Held::because(format!("{node} cannot be emptied: {why}"))
}

/// Only what the cluster does not have is adopted, and a member that others have just added.
fn not_to_be_adopted(case: &Case, store: Store) -> Option<Held> {
    let Some(node) = &case.wish.subject else { return Held::because("which node is to be adopted was not said") };
    if matches!(store, Store::None) {
        return Held::because("the nodes hold no data: each that the provider lists is part of the pool already");
    }
    if case.look.memory.replaced().contains(node) {
        let member = match store {
            Store::Seen(inventory) => inventory.member(node),
            Store::None | Store::Silent(_) => None,
        };
        // The store itself has taken it in anew.
        if member.is_some_and(|member| member.healthy) {
            return None;
        }
        return Held::because(format!("{node} was replaced; what it holds is out of date, so it can only be reaped"));
    }
    if case.look.now.is_member(node) {
        let has_come = case.look.now.arrivals.contains(node);
        return if has_come { None } else { Held::because(format!("{node} is a member already")) };
    }
    let Some(machines) = case.look.now.provider.machines else {
        return Held::because("the provider did not answer: whether it runs the node is unknown");
    };
    if machines.iter().any(|machine| machine.id == *node) {
        None
    } else {
        Held::because(format!("the provider does not list {node}"))
    }
}

/// Only what serves no one is reaped: a lost machine, one that the cluster does not have, or a dead member without a
/// machine.
fn not_to_be_reaped(case: &Case, store: Store) -> Option<Held> {
    let Some(node) = &case.wish.subject else { return Held::because("which node is to be reaped was not said") };
    let Some(machines) = case.look.now.provider.machines else {
        return Held::because("the provider did not answer: whether it runs the node is unknown");
    };
    let is_listed = machines.iter().any(|machine| machine.id == *node);
    let is_lost = case.look.memory.replaced().contains(node);
    let member = match store {
        // Without data, being listed is being in the pool.
        Store::None if is_listed && !is_lost => {
            return Held::because(format!("{node} is part of the pool: take it away with a scale-down"));
        }
        Store::None | Store::Silent(_) => None,
        Store::Seen(inventory) => inventory.member(node),
    };
    match member {
        Some(member) if member.healthy => {
            Held::because(format!("{node} is a healthy member: drain it with a scale-down instead"))
        }
        Some(_) if is_listed => {
            Held::because(format!("{node} is still a member and has a machine: bring it back, or let it be replaced"))
        }
        Some(_) => match store {
            Store::Seen(inventory) => only_copies(inventory, node),
            Store::None | Store::Silent(_) => None,
        },
        None if is_listed => None,
        None => Held::because(format!("there is neither a machine nor a member named {node}")),
    }
}

/// Replacing makes a lost replica anew from another; where there is no other, only the dead node has the data.
fn only_copies(inventory: &Inventory, dead: &NodeId) -> Option<Held> {
    let well: BTreeSet<&NodeId> =
        inventory.members.iter().filter(|m| m.healthy && &m.id != dead).map(|m| &m.id).collect();
    let active = |r: &&Replica| r.state == ReplicaState::Active && well.contains(&r.node);
    let living: BTreeSet<&ShardId> = inventory.shards.iter().filter(active).map(|r| &r.shard).collect();
    let lost: BTreeSet<String> =
        inventory.on(dead).filter(|r| !living.contains(&r.shard)).map(|r| r.shard.to_string()).collect();
    if lost.is_empty() {
        return None;
    }
    let lost: Vec<String> = lost.into_iter().collect();
    Held::because(format!(
        "{dead} has the only copy of {}: bring it back, replacing it would lose them",
        words::some_of(&lost, 5)
    ))
}

pub fn data_moving(case: &Case) -> Option<Held> {
    let transfers = case.look.now.inventory()?.transfers.len() as u32;
    if transfers == 0 { None } else { Held::because(format!("{} running", units::count(transfers, "transfer"))) }
}

pub fn foreign_operation(case: &Case) -> Option<Held> {
    let inventory = case.look.now.inventory()?;
    if !inventory.foreign.is_empty() {
        return Held::because(format!("work that vecscale did not start: {}", words::some_of(&inventory.foreign, 3)));
    }
    if case.look.now.open_operation().is_some() {
        return None;
    }
    let transfers = &inventory.transfers;
    let first = transfers.first()?;
    let count = units::count(transfers.len() as u32, "transfer");
    Held::because(format!("{count} that vecscale did not start: {} from {} to {}", first.shard, first.from, first.to))
}

pub fn mixed_versions(case: &Case) -> Option<Held> {
    let versions: BTreeSet<&str> =
        case.look.now.inventory()?.members.iter().filter_map(|m| m.version.as_deref()).collect();
    if versions.len() < 2 {
        return None;
    }
    let versions: Vec<&str> = versions.into_iter().collect();
    Held::because(format!("members run versions {}", versions.join(", ")))
}
