//! What is agreed on before it is done: what each proposal asks for, when it is refused, and what it does.

use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::collection::{Collection, Shard, State};
use super::nodes::{Frozen, Process, Standing};
use super::reply::{Refusal, Reply, millis, ok};
use super::transfer::{Method, Order, Transfer};

/// How long it takes the peers to agree.
const AGREED: Duration = millis(60);
/// A new collection takes longer, and so much longer again when a peer does not follow.
const CREATED: Duration = millis(720);
const CREATED_WITHOUT: Duration = millis(10_450);

/// One shard's transfer, as it is named in requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub collection: String,
    pub shard: u32,
    pub from: u64,
    pub to: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Proposal {
    Start(Order),
    Drop { collection: String, shard: u32, peer: u64 },
    Abort(Key),
    Restart(Key, Method),
    RemovePeer { peer: u64, force: bool },
    Create { name: String, collection: Box<Collection> },
    Delete { name: String },
    Keep { key: String, value: Option<Value> },
    Quota(Value),
}

impl Proposal {
    /// Why it cannot be done as things are.
    pub fn check(&self, cluster: &Cluster) -> Result<(), Refusal> {
        match self {
            Proposal::Start(order) => cluster.may_start(order),
            Proposal::Drop { collection, shard, peer } => {
                let of = cluster.shard(collection, *shard)?;
                if !of.copies.contains_key(peer) {
                    Err(Refusal::bad(format!("Peer {peer} has no replica of shard {shard}")))
                } else if !of.has_other(*peer) {
                    let must = "must have at least one active replica after removing";
                    Err(Refusal::bad(format!("Shard {shard} {must} {peer}")))
                } else {
                    Ok(())
                }
            }
            Proposal::Abort(key) => cluster.transfer(key).map(|_| ()),
            Proposal::Restart(key, method) => {
                let Key { shard, from, to, .. } = key;
                if cluster.transfer(key)?.method == *method {
                    let which = format!("Cannot restart transfer for shard {shard} from {from} to {to}");
                    return Err(Refusal::bad(format!("{which}, its configuration did not change")));
                }
                Ok(())
            }
            Proposal::RemovePeer { peer, force } => {
                if !force && cluster.has_copies(*peer) {
                    return Err(Refusal::bad(format!("Cannot remove peer {peer} as there are shards on it")));
                }
                Ok(())
            }
            Proposal::Create { name, .. } if cluster.collections.contains_key(name) => {
                Err(Refusal { status: 409, error: format!("Wrong input: Collection `{name}` already exists!") })
            }
            Proposal::Create { .. } | Proposal::Delete { .. } | Proposal::Keep { .. } | Proposal::Quota(_) => Ok(()),
        }
    }

    /// Does it; what it starts begins at `from`.
    pub fn apply(self, cluster: &mut Cluster, from: Duration) {
        cluster.raft.commit += 1;
        match self {
            Proposal::Start(order) => cluster.start_transfer(&order, from),
            Proposal::Drop { collection, shard, peer } => cluster.drop_copy(&collection, shard, peer),
            Proposal::Abort(key) => {
                if let Ok(transfer) = cluster.transfer(&key).cloned() {
                    cluster.abort(&key.collection, &transfer);
                }
            }
            Proposal::Restart(key, method) => {
                let Ok(transfer) = cluster.transfer(&key).cloned() else { return };
                cluster.cancel(&key.collection, &transfer);
                let Key { collection, shard, from: source, to } = key;
                let sync = transfer.sync;
                let order = Order { collection, shard, from: source, to, sync, method, by_itself: false };
                cluster.start_transfer(&order, from);
            }
            Proposal::RemovePeer { peer, .. } => cluster.remove_peer(peer),
            Proposal::Create { name, collection } => cluster.create(name, *collection),
            Proposal::Delete { name } => {
                cluster.collections.remove(&name);
                for node in cluster.nodes.values_mut() {
                    node.store.retain(|(collection, _), _| *collection != name);
                }
            }
            Proposal::Keep { key, value: Some(value) } => {
                cluster.metadata.insert(key, value);
            }
            Proposal::Keep { key, value: None } => {
                cluster.metadata.remove(&key);
            }
            Proposal::Quota(value) => cluster.quota = value,
        }
    }

    fn takes(&self, cluster: &Cluster) -> Duration {
        match self {
            Proposal::Create { .. } if cluster.peers.keys().any(|p| cluster.process_of(*p) != Process::Up) => {
                CREATED_WITHOUT
            }
            Proposal::Create { .. } => CREATED,
            _ => AGREED,
        }
    }
}

impl Cluster {
    /// Asks the peers to agree, through `asked`; `timeout` is how long the caller is kept waiting.
    pub(super) fn propose(&mut self, asked: &str, timeout: Duration, proposal: Proposal) -> Reply {
        if let Err(refusal) = proposal.check(self) {
            return refusal.after(millis(5));
        }
        let takes = proposal.takes(self);
        let removed = self.nodes.get(asked).is_some_and(|node| matches!(node.standing, Standing::Removed(_)));
        let seconds = timeout.as_secs();
        let unknown = format!("Waiting for consensus operation commit failed. Timeout set at: {seconds} seconds");
        if removed {
            return Refusal::internal(unknown).after(timeout);
        }
        if self.agrees() {
            let from = self.now + takes;
            proposal.apply(self, from);
            return ok(true.into(), takes);
        }
        if let Some(election) = self.raft.election.filter(|at| *at <= self.now + timeout) {
            self.waiting.push((election, proposal));
            return ok(true.into(), election.saturating_sub(self.now) + takes);
        }
        if self.is_led() {
            self.raft.hanging.push(proposal);
            return Refusal::internal(unknown).after(timeout);
        }
        let why = format!("Failed to propose operation: leader is not established within {seconds}s");
        Refusal::internal(why).after(timeout)
    }

    fn shard(&self, collection: &str, shard: u32) -> Result<&Shard, Refusal> {
        let of = self.collections.get(collection).ok_or_else(|| Refusal::no_collection(collection))?;
        of.shards.get(&shard).ok_or_else(|| Refusal::bad(format!("Shard {shard} of {collection} does not exist")))
    }

    fn transfer(&self, key: &Key) -> Result<&Transfer, Refusal> {
        let Key { collection, shard, from, to } = key;
        let of = self.collections.get(collection).ok_or_else(|| Refusal::no_collection(collection))?;
        let running = of.transfers.iter().filter(|t| t.over.is_none());
        let same = |t: &&Transfer| (t.shard, t.from, t.to) == (*shard, *from, *to);
        running.into_iter().find(same).ok_or_else(|| Refusal {
            status: 404,
            error: format!(
                "Not found: Shard transfer {from} -> {to} for collection {collection}:{shard} does not exist"
            ),
        })
    }

    fn may_start(&self, order: &Order) -> Result<(), Refusal> {
        let shard = self.shard(&order.collection, order.shard)?;
        for peer in [order.to, order.from] {
            if !self.peers.contains_key(&peer) {
                return Err(Refusal::bad(format!("Peer {peer} does not exist")));
            }
        }
        if !shard.is_active(order.from) {
            return Err(Refusal::bad(format!("Shard {} is not active on peer {}", order.shard, order.from)));
        }
        let ends = [order.from, order.to];
        let running = self.collections[&order.collection].transfers.iter().filter(|t| t.over.is_none());
        let met =
            running.into_iter().find(|t| t.shard == order.shard && (ends.contains(&t.from) || ends.contains(&t.to)));
        match met {
            None => Ok(()),
            Some(Transfer { from, to, .. }) => {
                let which = order.shard;
                Err(Refusal::bad(format!("Shard {which} is already involved in transfer {from} -> {to}")))
            }
        }
    }

    fn drop_copy(&mut self, collection: &str, shard: u32, peer: u64) {
        let Some(of) = self.collections.get(collection) else { return };
        let touched: Vec<Transfer> = of
            .transfers
            .iter()
            .filter(|t| t.over.is_none() && t.shard == shard && (t.from == peer || t.to == peer))
            .cloned()
            .collect();
        for transfer in touched {
            self.abort(collection, &transfer);
        }
        if let Some(of) = self.collections.get_mut(collection).and_then(|c| c.shards.get_mut(&shard)) {
            of.copies.remove(&peer);
        }
        self.erase(collection, shard, peer);
    }

    /// The transfer is gone, its target stays as it is.
    fn cancel(&mut self, collection: &str, transfer: &Transfer) {
        let Some(of) = self.collections.get_mut(collection) else { return };
        of.transfers
            .retain(|t| (t.shard, t.from, t.to, t.born) != (transfer.shard, transfer.from, transfer.to, transfer.born));
    }

    /// Places the copies of a new collection on the peers with fewest of it, whoever is drained or dead.
    fn create(&mut self, name: String, mut collection: Collection) {
        let now = self.now;
        let mut loads: Vec<(u32, u64)> = self.peers.keys().map(|peer| (0, *peer)).collect();
        for number in 0..collection.shard_number {
            let mut shard = Shard::default();
            loads.sort_unstable();
            for (load, peer) in loads.iter_mut().take(collection.replication_factor as usize) {
                *load += 1;
                let up = self.process_of(*peer) == Process::Up;
                shard.set(*peer, if up { State::Active } else { State::Initializing }, now);
                if let Some(node) = self.node_of_mut(*peer).filter(|_| up) {
                    node.store.insert((name.clone(), number), Default::default());
                }
            }
            collection.shards.insert(number, shard);
        }
        self.collections.insert(name, collection);
    }

    /// Takes a peer out, with all that it held: its copies, and the targets of the transfers it was the source of.
    fn remove_peer(&mut self, peer: u64) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        if let Some(since) = gone.down {
            let failures = self.send_failures(since);
            self.raft.stale_failures.insert(gone.uri.clone(), failures);
        }
        let mut orphans = Vec::new();
        for (name, collection) in &mut self.collections {
            let touched = collection.transfers.extract_if(.., |t| t.from == peer || t.to == peer);
            for transfer in touched.filter(|t| t.over.is_none() && t.from == peer) {
                if let Some(shard) = collection.shards.get_mut(&transfer.shard) {
                    shard.copies.remove(&transfer.to);
                    orphans.push((name.clone(), transfer.shard, transfer.to));
                }
            }
            for shard in collection.shards.values_mut() {
                shard.copies.remove(&peer);
            }
        }
        for (name, shard, target) in orphans {
            self.erase(&name, shard, target);
        }
        let collections = self.collections.clone();
        let (term, commit, leader) = (self.raft.term, self.raft.commit, self.raft.leader);
        if let Some(node) = self.node_of_mut(peer) {
            if node.process == Process::Up {
                node.store.clear();
            }
            node.standing = Standing::Removed(Box::new(Frozen { collections, term, commit, leader }));
        }
        self.look_for_leader();
    }
}
