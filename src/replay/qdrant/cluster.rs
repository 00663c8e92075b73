//! The one truth about an invented cluster, and how time passes in it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::collection::{Collection, State, mixed};
use super::consensus::{Peer, Raft};
use super::keys::Keys;
use super::nodes::{Load, Node, Points, Process, Standing};
use super::operations::Proposal;

/// A cluster; nodes go by the names of their machines.
pub struct Cluster {
    /// Since the beginning.
    pub(super) now: Duration,
    /// How fast a shard is copied.
    pub bytes_per_second: u64,
    pub(super) nodes: BTreeMap<String, Node>,
    /// Registered, whether they live or not.
    pub(super) peers: BTreeMap<u64, Peer>,
    pub(super) raft: Raft,
    pub(super) collections: BTreeMap<String, Collection>,
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) quota: Value,
    /// Accepted, and to happen when there is a leader.
    pub(super) waiting: Vec<(Duration, Proposal)>,
    pub(super) keys: Option<Keys>,
    drawn: u64,
}

/// All points of a collection, counted over the copies that are called active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Those that every active copy has.
    pub points: BTreeMap<u64, u64>,
    /// Shards of which no active copy lies on a disk.
    pub lost: Vec<u32>,
    /// Shards whose active copies differ.
    pub differing: Vec<u32>,
    /// Active copies of each shard.
    pub copies: BTreeMap<u32, usize>,
}

impl Cluster {
    /// Members that have long been together, the first of them the leader.
    pub fn new(names: &[&str]) -> Cluster {
        let mut cluster = Cluster {
            now: Duration::ZERO,
            bytes_per_second: 25_000_000,
            nodes: BTreeMap::new(),
            peers: BTreeMap::new(),
            raft: Raft::default(),
            collections: BTreeMap::new(),
            metadata: BTreeMap::new(),
            quota: serde_json::json!({"enabled": false}),
            waiting: Vec::new(),
            keys: None,
            drawn: 0,
        };
        for name in names {
            let mut node = Node::new(cluster.draw(), format!("http://{name}:6335/"), "1.19.0", Duration::ZERO);
            (node.standing, node.latched, node.polled) = (Standing::Member, true, true);
            cluster.peers.insert(node.peer, Peer { uri: node.uri.clone(), votes: true, down: None });
            cluster.raft.leader.get_or_insert(node.peer);
            cluster.nodes.insert((*name).into(), node);
        }
        cluster.raft.commit = 3 * cluster.peers.len() as u64;
        cluster
    }

    /// A peer id, at most 2^53 - 1 as Qdrant's are.
    pub(super) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        mixed(self.drawn) >> 11
    }

    /// Time passes; what is due happens.
    pub fn advance(&mut self, now: Duration) {
        while let Some(at) = self.next().filter(|at| *at <= now) {
            self.now = self.now.max(at);
            self.happen();
        }
        self.now = self.now.max(now);
    }

    /// When something happens by itself next.
    pub fn next(&self) -> Option<Duration> {
        let waiting = self.waiting.iter().map(|(at, _)| *at).min().filter(|_| self.agrees());
        [self.next_join(), self.raft.election, waiting, self.next_transfer(), self.next_recovery()]
            .into_iter()
            .flatten()
            .min()
    }

    fn happen(&mut self) {
        self.joins_happen();
        self.election_happens();
        self.waiting_happens();
        self.transfers_happen();
        self.recoveries_happen();
    }

    fn waiting_happens(&mut self) {
        let now = self.now;
        if !self.agrees() {
            return;
        }
        let due: Vec<_> = self.waiting.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, proposal) in due {
            if proposal.check(self).is_ok() {
                proposal.apply(self, now);
            }
        }
    }

    pub(super) fn node_of(&self, peer: u64) -> Option<&Node> {
        self.nodes.values().find(|node| node.peer == peer)
    }

    pub(super) fn node_of_mut(&mut self, peer: u64) -> Option<&mut Node> {
        self.nodes.values_mut().find(|node| node.peer == peer)
    }

    /// A peer whose machine is gone is as dead as one whose process is.
    pub(super) fn process_of(&self, peer: u64) -> Process {
        self.node_of(peer).map_or(Process::Dead, |node| node.process)
    }

    /// The id that the node's process has in the cluster, or had.
    pub fn peer(&self, name: &str) -> Option<u64> {
        self.nodes.get(name).map(|node| node.peer)
    }

    /// Peers that are registered.
    pub fn registered(&self) -> Vec<u64> {
        self.peers.keys().copied().collect()
    }

    /// The name of the node that leads.
    pub fn leader(&self) -> Option<String> {
        let leader = self.raft.leader.filter(|_| self.agrees())?;
        self.nodes.iter().find(|(_, node)| node.peer == leader).map(|(name, _)| name.clone())
    }

    /// Whether clients are sent to the node: it is a member and answers.
    pub fn serves(&self, name: &str) -> bool {
        let member = |node: &Node| matches!(node.standing, Standing::Member) && node.process == Process::Up;
        self.nodes.get(name).is_some_and(member)
    }

    pub fn load_mut(&mut self, name: &str) -> Option<&mut Load> {
        self.nodes.get_mut(name).map(|node| &mut node.load)
    }

    /// Copies that a node is listed with, in any state.
    pub fn copies_on(&self, name: &str) -> usize {
        let Some(peer) = self.peer(name) else { return 0 };
        self.collections.values().flat_map(|c| c.shards.values()).filter(|s| s.copies.contains_key(&peer)).count()
    }

    /// Transfers under way: collection, shard, and the names of source and target.
    pub fn transfers(&self) -> Vec<(String, u32, String, String)> {
        let named = |peer| self.nodes.iter().find(|(_, n)| n.peer == peer).map_or("gone".into(), |(n, _)| n.clone());
        let mut running = Vec::new();
        for (name, collection) in &self.collections {
            let over = collection.transfers.iter().filter(|t| t.over.is_none());
            running.extend(over.map(|t| (name.clone(), t.shard, named(t.from), named(t.to))));
        }
        running
    }

    /// What is there of a collection, whatever runs or hangs: the points on the disks of copies that are called active.
    pub fn census(&self, collection: &str) -> Census {
        let mut census = Census::default();
        let Some(of) = self.collections.get(collection) else { return census };
        for (&number, shard) in &of.shards {
            let active = shard.copies.iter().filter(|(_, copy)| copy.state == State::Active);
            let key = (collection.to_string(), number);
            let stores: Vec<&Points> = active.filter_map(|(peer, _)| self.node_of(*peer)?.store.get(&key)).collect();
            census.copies.insert(number, stores.len());
            match stores.first() {
                None => census.lost.push(number),
                Some(first) => {
                    let differs = stores.iter().any(|store| store != first);
                    let everywhere = |(id, hash): &(&u64, &u64)| stores.iter().all(|s| s.get(id) == Some(hash));
                    let common = first.iter().filter(|point| !differs || everywhere(point));
                    census.points.extend(common.map(|(id, hash)| (*id, *hash)));
                    if differs {
                        census.differing.push(number);
                    }
                }
            }
        }
        census
    }
}
