//! What an `inventory` script prints -> inventory, whole or not at all: one entry that cannot be read would make a
//! node, a copy or a transfer look gone. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use super::super::written::plain_address;
use crate::model::{Inventory, Member, NodeId, Replica, ReplicaState, ShardId, Transfer};

/// As written. Further keys are the script's own affair.
#[derive(Deserialize)]
struct Written {
    members: Vec<WrittenMember>,
    wanted_replicas: Wanted,
    shards: Vec<WrittenReplica>,
    transfers: Vec<WrittenTransfer>,
}

#[derive(Deserialize)]
struct WrittenMember {
    id: NodeId,
    address: String,
    healthy: Option<bool>,
    cordoned: Option<bool>,
    version: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Wanted {
    /// The same for all collections.
    All(u32),
    Each(BTreeMap<Arc<str>, u32>),
}

#[derive(Deserialize)]
struct WrittenReplica {
    collection: Arc<str>,
    shard: u32,
    node: NodeId,
    bytes: u64,
    vectors: u64,
    state: ReplicaState,
}

#[derive(Deserialize)]
struct WrittenTransfer {
    collection: Arc<str>,
    shard: u32,
    from: NodeId,
    to: NodeId,
    done_bytes: Option<u64>,
}

/// # Errors
/// The first thing that cannot be read or contradicts the rest.
pub fn inventory(stdout: &[u8]) -> Result<Inventory, String> {
    let written: Written =
        serde_json::from_slice(stdout).map_err(|e| format!("its stdout is not the JSON asked for: {e}"))?;
    let members = members(written.members)?;
    let known = |node: &NodeId, what: &dyn std::fmt::Display| match members.iter().any(|member| member.id == *node) {
        true => Ok(()),
        false => Err(format!("{what} names {node}, which is no member")),
    };
    let mut seen = BTreeSet::new();
    let mut shards = Vec::new();
    for WrittenReplica { collection, shard, node, bytes, vectors, state } in written.shards {
        let shard = ShardId { collection, shard };
        known(&node, &shard)?;
        if !seen.insert((shard.clone(), node.clone())) {
            return Err(format!("{shard} is listed twice on {node}"));
        }
        shards.push(Replica { shard, node, bytes, vectors, state });
    }
    let mut transfers = Vec::new();
    for WrittenTransfer { collection, shard, from, to, done_bytes } in written.transfers {
        let shard = ShardId { collection, shard };
        known(&from, &format_args!("the transfer of {shard}"))?;
        known(&to, &format_args!("the transfer of {shard}"))?;
        // Whether its source goes at the end is the store's affair: the next view shows it.
        transfers.push(Transfer { shard, from, to, done_bytes, is_move: false });
    }
    let collections: BTreeSet<Arc<str>> = shards.iter().map(|replica| replica.shard.collection.clone()).collect();
    let wanted_replicas = wanted(written.wanted_replicas, collections)?;
    Ok(Inventory { members, wanted_replicas, shards, transfers, ..Inventory::default() })
}

fn members(written: Vec<WrittenMember>) -> Result<Vec<Member>, String> {
    let mut members: Vec<Member> = Vec::new();
    for WrittenMember { id, address, healthy, cordoned, version } in written {
        if members.iter().any(|other| other.id == id) {
            return Err(format!("the member {id} is listed twice"));
        }
        let (healthy, cordoned) = (healthy.unwrap_or(true), cordoned.unwrap_or(false));
        let address = plain_address(&id, &address)?;
        members.push(Member { cordoned, healthy, version, ..Member::new(id, address) });
    }
    members.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(members)
}

/// For every collection that there is: with a guess, a copy too few could pass for enough.
fn wanted(written: Wanted, collections: BTreeSet<Arc<str>>) -> Result<BTreeMap<Arc<str>, u32>, String> {
    let wanted = match written {
        Wanted::All(copies) => collections.into_iter().map(|name| (name, copies)).collect(),
        Wanted::Each(copies) => match collections.iter().find(|name| !copies.contains_key(*name)) {
            Some(name) => return Err(format!("wanted_replicas does not say how many copies {name:?} is to have")),
            None => copies,
        },
    };
    match wanted.iter().find(|(_, copies)| **copies == 0) {
        Some((name, _)) => Err(format!("wanted_replicas of {name:?} is 0")),
        None => Ok(wanted),
    }
}
