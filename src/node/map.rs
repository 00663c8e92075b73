//! The cluster map: who is a member, and which node holds which copy of which shard. Pure data and plain functions.
//!
//! One writer, the datastore driver, makes every map; nodes act only on maps that a majority has accepted. Those form
//! one chain with growing epochs, so an epoch names a map, and the epoch at which a shard's holders last changed
//! names the shard's assignment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, ReplicaState};

/// The whole truth about the cluster, small enough to be sent and stored as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Made when the cluster was formed; keeps nodes of another cluster out.
    pub cluster: String,
    /// The writer's fence: grows with every start of the controller.
    pub fence: u64,
    pub epoch: u64,
    pub members: BTreeMap<NodeId, MapMember>,
    pub collections: BTreeMap<String, Collection>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapMember {
    /// `http://host:port`
    pub address: String,
    /// Nothing new is placed on it.
    #[serde(default)]
    pub cordoned: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// The epoch that made it: a collection that is deleted and made again is another one.
    pub id: u64,
    #[serde(flatten)]
    pub params: Params,
    pub shards: Vec<Assignment>,
}

/// What a client fixes for good when it makes a collection. The distance is always cosine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Numbers in a vector, 1..=65536.
    pub size: u32,
    /// 1..=1024
    pub shard_number: u32,
    /// Copies wanted of each shard, 1..=8.
    pub replication_factor: u32,
}

/// Who holds one shard. The first active replica is the primary: it orders the shard's writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The map's epoch at which the holders last changed.
    pub epoch: u64,
    pub replicas: Vec<Holder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    pub node: NodeId,
    /// Active: complete, read and written. Partial: written, being filled by the primary. Dead: was unreachable while
    /// a write went on without it; neither read nor written until it is partial again.
    pub state: ReplicaState,
}

/// A relocation under way: `to` is partial; when it is complete, `from` is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    pub from: NodeId,
    pub to: NodeId,
}

/// Names a shard between nodes and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardKey {
    /// [`Collection::id`]
    pub collection: u64,
    pub shard: u32,
}

impl ClusterMap {
    /// Orders maps by their writer, then by its count: the ballot of an accepted map.
    pub fn ballot(&self) -> (u64, u64) {
        (self.fence, self.epoch)
    }

    pub fn assignment(&self, key: ShardKey) -> Option<&Assignment> {
        self.collections.values().find(|c| c.id == key.collection)?.shards.get(key.shard as usize)
    }

    /// All shards with their collection's name.
    pub fn shards(&self) -> impl Iterator<Item = (&str, ShardKey, &Collection, &Assignment)> {
        self.collections.iter().flat_map(|(name, c)| {
            c.shards.iter().zip(0..).map(move |(a, shard)| {
                let key = ShardKey { collection: c.id, shard };
                (name.as_str(), key, c, a)
            })
        })
    }

    /// Shards that `node` is listed in, whatever its state there.
    pub fn listed_in(&self, node: &NodeId) -> usize {
        self.shards().filter(|(_, _, _, a)| a.state_of(node).is_some()).count()
    }

    /// Where the copies of a new collection go: each shard on the members with the fewest copies, none twice, none on
    /// a cordoned one. Fewer members than wanted copies give fewer copies.
    pub fn place(&self, params: &Params, epoch: u64) -> Vec<Assignment> {
        let mut held: BTreeMap<&NodeId, usize> =
            self.members.iter().filter(|(_, m)| !m.cordoned).map(|(id, _)| (id, 0)).collect();
        for (_, _, _, assignment) in self.shards() {
            for holder in &assignment.replicas {
                held.entry(&holder.node).and_modify(|n| *n += 1);
            }
        }
        let place_one = |_| {
            let mut by_load: Vec<&NodeId> = held.keys().copied().collect();
            by_load.sort_by_key(|id| held[id]);
            by_load.truncate(params.replication_factor as usize);
            by_load.iter().for_each(|id| *held.get_mut(id).expect("a key of this map") += 1);
            let active = |node: &NodeId| Holder { node: node.clone(), state: ReplicaState::Active };
            Assignment { epoch, replicas: by_load.into_iter().map(active).collect(), moving: None }
        };
        (0..params.shard_number).map(place_one).collect()
    }
}

impl Collection {
    /// Which shard a point belongs to.
    pub fn shard_of(&self, id: u64) -> ShardKey {
        let shard = (mix(id) % self.shards.len().max(1) as u64) as u32;
        ShardKey { collection: self.id, shard }
    }
}

impl Assignment {
    pub fn active(&self) -> impl Iterator<Item = &NodeId> {
        self.replicas.iter().filter(|h| h.state == ReplicaState::Active).map(|h| &h.node)
    }

    pub fn primary(&self) -> Option<&NodeId> {
        self.active().next()
    }

    /// Replicas that must have a write before it is acknowledged.
    pub fn written(&self) -> impl Iterator<Item = &NodeId> {
        self.replicas.iter().filter(|h| h.state != ReplicaState::Dead).map(|h| &h.node)
    }

    pub fn state_of(&self, node: &NodeId) -> Option<ReplicaState> {
        self.replicas.iter().find(|h| &h.node == node).map(|h| h.state)
    }

    pub fn set(&mut self, node: &NodeId, state: ReplicaState) {
        match self.replicas.iter_mut().find(|h| &h.node == node) {
            Some(holder) => holder.state = state,
            None => self.replicas.push(Holder { node: node.clone(), state }),
        }
    }

    pub fn drop_holder(&mut self, node: &NodeId) {
        self.replicas.retain(|h| &h.node != node);
    }

    /// Takes an unreachable replica out, never the last active one. A target that was being filled for a move is
    /// dropped and the move with it. Returns whether anything changed.
    pub fn take_out(&mut self, node: &NodeId) -> bool {
        match self.state_of(node) {
            Some(ReplicaState::Active) if self.active().count() > 1 => self.set(node, ReplicaState::Dead),
            Some(ReplicaState::Partial) if self.moving.as_ref().is_some_and(|m| &m.to == node) => {
                self.drop_holder(node);
                self.moving = None;
            }
            Some(ReplicaState::Partial) => self.set(node, ReplicaState::Dead),
            _ => return false,
        }
        true
    }
}

/// The smallest number of `members` that is more than half.
pub fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// Spreads ids evenly (splitmix64).
pub fn mix(id: u64) -> u64 {
    let mut z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn map(members: &[(&str, bool)]) -> ClusterMap {
        let member = |&(name, cordoned): &(&str, bool)| (node(name), MapMember { address: String::new(), cordoned });
        ClusterMap {
            cluster: "c".into(),
            fence: 1,
            epoch: 1,
            members: members.iter().map(member).collect(),
            collections: BTreeMap::new(),
        }
    }

    #[test]
    fn placement_spreads_copies_and_spares_the_cordoned() {
        let map = map(&[("a", false), ("b", false), ("c", true), ("d", false)]);
        let placed = map.place(&Params { size: 4, shard_number: 6, replication_factor: 2 }, 2);
        let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
        for assignment in &placed {
            assert_eq!(assignment.replicas.len(), 2);
            assert_ne!(assignment.replicas[0].node, assignment.replicas[1].node, "two copies on one node");
            assignment.replicas.iter().for_each(|h| *held.entry(h.node.clone()).or_default() += 1);
        }
        assert_eq!(held, BTreeMap::from([(node("a"), 4), (node("b"), 4), (node("d"), 4)]));
    }

    #[test]
    fn fewer_members_than_copies_give_fewer_copies() {
        let placed = map(&[("a", false)]).place(&Params { size: 4, shard_number: 1, replication_factor: 3 }, 2);
        assert_eq!(placed[0].replicas.len(), 1);
    }

    #[test]
    fn the_last_active_replica_is_never_taken_out() {
        use ReplicaState::*;
        let of = |holders: &[(&str, ReplicaState)], moving: Option<(&str, &str)>| Assignment {
            epoch: 1,
            replicas: holders.iter().map(|&(n, state)| Holder { node: node(n), state }).collect(),
            moving: moving.map(|(from, to)| Moving { from: node(from), to: node(to) }),
        };
        let cases = [
            ("sole copy", of(&[("x", Active)], None), of(&[("x", Active)], None)),
            (
                "beside a partial",
                of(&[("x", Active), ("b", Partial)], None),
                of(&[("x", Active), ("b", Partial)], None),
            ),
            ("one of two", of(&[("x", Active), ("b", Active)], None), of(&[("x", Dead), ("b", Active)], None)),
            ("target", of(&[("a", Active), ("x", Partial)], Some(("a", "x"))), of(&[("a", Active)], None)),
            ("refilled", of(&[("a", Active), ("x", Partial)], None), of(&[("a", Active), ("x", Dead)], None)),
        ];
        for (name, mut before, after) in cases {
            before.take_out(&node("x"));
            assert_eq!(before, after, "{name}");
        }
    }
}
