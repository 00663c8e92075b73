//! What nodes say of the shards -> which copies there are, in what state, and what goes on among them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::told::{
    ClusterTelemetry, LocalView, NodeTelemetry, PeerId, Resharding, Size, SizeTold, TransferTold, share_done, state,
};
use crate::model::ReplicaState;

/// One collection as one source tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placed {
    /// By shard and peer.
    pub copies: BTreeMap<(u32, PeerId), CopyTold>,
    pub transfers: Vec<TransferTold>,
    /// What others do, and what only a person can mend.
    pub remarks: Vec<String>,
    /// Shards are made by key, each key with a number of copies that Qdrant tells nobody.
    pub is_keyed: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CopyTold {
    pub state: ReplicaState,
    pub size: Option<Size>,
    pub is_indexing: bool,
}

impl Placed {
    pub fn state(&self, shard: u32, peer: PeerId) -> Option<ReplicaState> {
        self.copies.get(&(shard, peer)).map(|copy| copy.state)
    }

    pub fn size(&self, shard: u32, peer: PeerId) -> Option<Size> {
        self.copies.get(&(shard, peer))?.size
    }

    /// Peers with an active copy.
    pub fn active(&self, shard: u32) -> impl Iterator<Item = PeerId> {
        let of_shard = self.copies.range((shard, 0)..=(shard, PeerId::MAX));
        of_shard.filter(|(_, copy)| copy.state == ReplicaState::Active).map(|((_, peer), _)| *peer)
    }

    pub fn shards(&self) -> BTreeSet<u32> {
        self.copies.keys().map(|(shard, _)| *shard).collect()
    }

    /// A target shows its own copy as dead while it begins to be filled: it is not lost, it is not there yet.
    fn without_false_alarms(mut self) -> Placed {
        for transfer in &self.transfers {
            if let Some(copy) = self.copies.get_mut(&(transfer.shard_id, transfer.to))
                && copy.state == ReplicaState::Dead
            {
                copy.state = ReplicaState::Partial;
            }
        }
        self
    }
}

/// How much of a transfer is on the target, if its comment says so.
pub fn done_bytes(transfer: &TransferTold, source: Option<Size>) -> Option<u64> {
    let share = share_done(transfer.comment.as_deref()?)?;
    Some((source?.bytes as f64 * share) as u64)
}

/// All collections, as one node gathered them.
pub fn gathered(told: ClusterTelemetry) -> (BTreeMap<String, Placed>, BTreeSet<PeerId>) {
    let silent = told.cluster.peers.iter().filter(|(_, peer)| !peer.responsive).map(|(id, _)| *id).collect();
    let mut all = BTreeMap::new();
    for (name, collection) in told.collections {
        let mut placed = Placed { transfers: collection.shard_transfers, ..Placed::default() };
        placed.remarks.extend(collection.reshardings.iter().map(|resharding| resharding_of(&name, resharding)));
        for shard in collection.shards {
            placed.is_keyed |= shard.key.is_some();
            if shard.replicas.is_empty() {
                placed.remarks.push(lost(&format!("{name}/{}", shard.id)));
            }
            for replica in shard.replicas {
                placed.copies.insert((shard.id, replica.peer_id), copy(&replica.state, &replica.size));
            }
        }
        all.insert(name, placed.without_false_alarms());
    }
    (all, silent)
}

/// One collection, as one node sees it.
pub fn seen_by_one(name: &str, view: LocalView) -> Placed {
    let mut placed = Placed { transfers: view.shard_transfers, ..Placed::default() };
    placed.remarks.extend(view.resharding_operations.iter().map(|resharding| resharding_of(name, resharding)));
    for shard in view.local_shards {
        placed.is_keyed |= shard.shard_key.is_some();
        let mut told = copy(&shard.state, &SizeTold::default());
        told.size = Some(Size { bytes: 0, points: shard.points_count });
        placed.copies.insert((shard.shard_id, view.peer_id), told);
    }
    for shard in view.remote_shards {
        placed.is_keyed |= shard.shard_key.is_some();
        placed.copies.insert((shard.shard_id, shard.peer_id), copy(&shard.state, &SizeTold::default()));
    }
    // Only the count tells of a shard that no peer has any more.
    let known = placed.shards();
    let missing = (view.shard_count as usize).saturating_sub(known.len());
    let nameless = (0..view.shard_count).filter(|shard| !known.contains(shard)).map(|shard| format!("{name}/{shard}"));
    if placed.is_keyed && missing > 0 {
        placed.remarks.push(lost(&format!("{missing} of the shards of {name}")));
    } else if missing > 0 {
        placed.remarks.extend(nameless.map(|shard| lost(&shard)));
    }
    placed.without_false_alarms()
}

/// Puts the sizes in that a node tells of its own copies.
pub fn add_sizes(all: &mut BTreeMap<String, Placed>, peer: PeerId, told: &NodeTelemetry) {
    for collection in &told.collections.collections {
        let Some(placed) = all.get_mut(&collection.id) else { continue };
        for shard in &collection.shards {
            let Some(local) = &shard.local else { continue };
            if let Some(copy) = placed.copies.get_mut(&(shard.id, peer)) {
                copy.size = local.size().or(copy.size);
                copy.is_indexing = local.is_indexing();
            }
        }
    }
}

/// Copies wanted per shard, by collection.
pub fn wanted(told: &NodeTelemetry) -> BTreeMap<String, u32> {
    let each = told.collections.collections.iter();
    each.map(|collection| (collection.id.clone(), collection.config.params.replication_factor)).collect()
}

fn copy(word: &str, size: &SizeTold) -> CopyTold {
    CopyTold { state: state(word), size: size.size(), is_indexing: size.is_indexing() }
}

fn lost(what: &str) -> String {
    format!("no peer has a copy of {what}: its points are lost until a snapshot is restored")
}

fn resharding_of(name: &str, resharding: &Resharding) -> String {
    format!("{name} is being resharded {} (shard {})", resharding.direction, resharding.shard_id)
}
