//! Copies on their way: work that takes time by size, stands still while an end of it does, is given up or left lying,
//! and ends only when the peers agree.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::collection::State;
use super::nodes::Process;
use super::reply::millis;

/// Before the first byte and after the last.
const SET_UP: Duration = millis(400);
/// A copy that missed writes gets just these.
const DELTA: Duration = millis(700);
/// The target sees its new copy as dead for so long.
const UNSEEN: Duration = millis(50);
/// The source lists a transfer for so long after its end.
const LINGERS: Duration = millis(100);
/// Three attempts at a target that is gone, or that does not answer.
const TARGET_DEAD: Duration = millis(5_000);
const TARGET_HUNG: Duration = millis(32_000);
/// The source waits so long for peers that do not follow.
const STRAGGLERS: Duration = millis(10_000);
/// A restarted source aborts what it had under way.
const RESTARTED: Duration = millis(300);
/// Reads of a shard fail for so long when its only copy moves.
const CUT_OVER: Duration = millis(40);
/// Bytes over which a streamed copy is indexed, and how fast.
const INDEXED_FROM: u64 = 10_000 * 1024;
const INDEXED_PER_SECOND: u64 = 8_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Snapshot,
    StreamRecords,
    WalDelta,
}

impl Method {
    pub fn named(name: &str) -> Option<Method> {
        [Method::Snapshot, Method::StreamRecords, Method::WalDelta].into_iter().find(|m| m.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Method::Snapshot => "snapshot",
            Method::StreamRecords => "stream_records",
            Method::WalDelta => "wal_delta",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub shard: u32,
    pub from: u64,
    pub to: u64,
    /// Whether the source keeps its copy.
    pub sync: bool,
    pub method: Method,
    pub born: Duration,
    /// Qdrant started it by itself.
    pub by_itself: bool,
    work: Duration,
    /// How much of the work was done at an instant.
    done: Duration,
    as_of: Duration,
    /// All is copied; when the peers are done with it.
    finishing: Option<Duration>,
    /// When the source gives up.
    given_up: Option<Duration>,
    /// It has ended; the source lists it until then.
    pub over: Option<Duration>,
}

/// What a transfer is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub collection: String,
    pub shard: u32,
    pub from: u64,
    pub to: u64,
    pub sync: bool,
    pub method: Method,
    pub by_itself: bool,
}

impl Transfer {
    pub fn forget_giving_up(&mut self) {
        self.given_up = None;
    }

    /// As it is listed.
    pub fn listed(&self, comment: Option<String>) -> Value {
        let (from, to) = (self.from, self.to);
        let mut listed = json!({
            "shard_id": self.shard, "from": from, "to": to, "sync": self.sync, "method": self.method.as_str(),
        });
        if let Some(comment) = comment {
            listed["comment"] = comment.into();
        }
        listed
    }

    /// 0..=1 of the points are on the target.
    fn share(&self, now: Duration, runs: bool) -> f64 {
        let since = if runs { now.saturating_sub(self.as_of) } else { Duration::ZERO };
        ((self.done + since).as_secs_f64() / self.work.as_secs_f64().max(0.001)).min(1.0)
    }
}

impl Cluster {
    /// Starts a transfer whose conditions were checked. A copy that the target has is wiped.
    pub(super) fn start_transfer(&mut self, order: &Order, born: Duration) {
        let key = (order.collection.clone(), order.shard);
        let points = self.node_of(order.from).map_or(0, |node| node.points(&order.collection, order.shard));
        let Some(collection) = self.collections.get_mut(&order.collection) else { return };
        let bytes = collection.bytes(points);
        let catches_up = order.by_itself && order.method == Method::WalDelta;
        let work = if catches_up {
            DELTA
        } else {
            SET_UP + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64)
        };
        let state = if order.method == Method::StreamRecords { State::Partial } else { State::Recovery };
        let Some(shard) = collection.shards.get_mut(&order.shard) else { return };
        shard.set(order.to, state, born);
        let (as_of, done) = (born, Duration::ZERO);
        collection.transfers.push(Transfer {
            shard: order.shard,
            from: order.from,
            to: order.to,
            sync: order.sync,
            method: order.method,
            born,
            by_itself: order.by_itself,
            work,
            done,
            as_of,
            finishing: None,
            given_up: None,
            over: None,
        });
        let process = self.process_of(order.to);
        if let Some(target) = self.node_of_mut(order.to).filter(|_| !catches_up) {
            target.store.insert(key, Default::default());
        }
        if process != Process::Up {
            self.target_changed(order.to, process);
        }
    }

    /// Counts the work done so far: what stands still from now on stays where it is.
    pub(super) fn count_work(&mut self) {
        let now = self.now;
        let runs: Vec<(String, usize)> = self.running();
        for (name, collection) in &mut self.collections {
            for (at, transfer) in collection.transfers.iter_mut().enumerate() {
                if runs.contains(&(name.clone(), at)) {
                    transfer.done = (transfer.done + now.saturating_sub(transfer.as_of)).min(transfer.work);
                }
                transfer.as_of = transfer.as_of.max(now);
            }
        }
    }

    /// Transfers with both ends at work.
    fn running(&self) -> Vec<(String, usize)> {
        let mut running = Vec::new();
        for (name, collection) in &self.collections {
            for (at, transfer) in collection.transfers.iter().enumerate() {
                if self.runs(transfer) {
                    running.push((name.clone(), at));
                }
            }
        }
        running
    }

    fn runs(&self, transfer: &Transfer) -> bool {
        let ends = [transfer.from, transfer.to];
        transfer.over.is_none() && ends.iter().all(|end| self.process_of(*end) == Process::Up)
    }

    /// A node's process has become another.
    pub(super) fn target_changed(&mut self, peer: u64, process: Process) {
        let now = self.now;
        for transfer in self.collections.values_mut().flat_map(|c| &mut c.transfers).filter(|t| t.to == peer) {
            let patience = match process {
                Process::Dead => TARGET_DEAD,
                Process::Hung => TARGET_HUNG,
                Process::Up => continue,
            };
            let until = now.max(transfer.born) + patience;
            transfer.given_up = Some(transfer.given_up.map_or(until, |at| at.min(until)));
        }
    }

    /// A hung node goes on where it was.
    pub(super) fn target_woke(&mut self, peer: u64) {
        for transfer in self.collections.values_mut().flat_map(|c| &mut c.transfers).filter(|t| t.to == peer) {
            transfer.given_up = None;
        }
    }

    pub(super) fn source_restarted(&mut self, peer: u64) {
        let now = self.now;
        for transfer in self.collections.values_mut().flat_map(|c| &mut c.transfers).filter(|t| t.from == peer) {
            transfer.given_up = Some(now + RESTARTED);
        }
    }

    /// When the next transfer goes on by itself; never while the peers cannot agree.
    pub(super) fn next_transfer(&self) -> Option<Duration> {
        let all = self.collections.values().flat_map(|c| &c.transfers);
        all.filter_map(|transfer| self.due(transfer)).min()
    }

    fn due(&self, transfer: &Transfer) -> Option<Duration> {
        if let Some(over) = transfer.over {
            return Some(over);
        }
        if !self.agrees() || self.process_of(transfer.from) != Process::Up {
            return None;
        }
        if transfer.given_up.is_some() {
            return transfer.given_up;
        }
        if transfer.finishing.is_some() {
            return transfer.finishing;
        }
        self.runs(transfer).then(|| transfer.as_of + transfer.work.saturating_sub(transfer.done))
    }

    /// What is due of the transfers happens.
    pub(super) fn transfers_happen(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (name, collection) in &self.collections {
            let of = collection.transfers.iter().filter(|t| self.due(t).is_some_and(|at| at <= now));
            due.extend(of.map(|t| (name.clone(), t.clone())));
        }
        for (name, transfer) in due {
            if transfer.over.is_some() {
                self.unlist(&name, &transfer);
            } else if transfer.given_up.is_some() {
                self.abort(&name, &transfer);
            } else if transfer.finishing.is_none() && self.has_stragglers() {
                if let Some(transfer) = self.transfer_mut(&name, &transfer) {
                    transfer.finishing = Some(now + STRAGGLERS);
                }
            } else {
                self.complete(&name, &transfer);
            }
        }
    }

    fn has_stragglers(&self) -> bool {
        self.peers.keys().any(|peer| self.process_of(*peer) != Process::Up)
    }

    fn transfer_mut(&mut self, name: &str, like: &Transfer) -> Option<&mut Transfer> {
        let same = |t: &&mut Transfer| t.over.is_none() && (t.shard, t.from, t.to) == (like.shard, like.from, like.to);
        self.collections.get_mut(name)?.transfers.iter_mut().find(same)
    }

    fn unlist(&mut self, name: &str, like: &Transfer) {
        let Some(collection) = self.collections.get_mut(name) else { return };
        let key = (like.shard, like.from, like.to, like.born);
        collection.transfers.retain(|t| (t.shard, t.from, t.to, t.born) != key || t.over != like.over);
    }

    fn complete(&mut self, name: &str, transfer: &Transfer) {
        let key = (name.to_string(), transfer.shard);
        let source = self.node_of(transfer.from).and_then(|node| node.store.get(&key));
        let points = source.cloned().unwrap_or_default();
        let now = self.now;
        let Some(collection) = self.collections.get_mut(name) else { return };
        let bytes = collection.bytes(points.len());
        let Some(shard) = collection.shards.get_mut(&transfer.shard) else { return };
        let was_only = !shard.has_other(transfer.from);
        shard.set(transfer.to, State::Active, now);
        if !transfer.sync {
            shard.copies.remove(&transfer.from);
            shard.cut_over = was_only.then_some(now + CUT_OVER);
        }
        if let Some(source) = self.node_of_mut(transfer.from).filter(|_| !transfer.sync) {
            source.store.remove(&key);
        }
        if let Some(target) = self.node_of_mut(transfer.to) {
            target.store.insert(key.clone(), points);
            if transfer.method == Method::StreamRecords && bytes >= INDEXED_FROM {
                let takes = Duration::from_secs_f64(bytes as f64 / INDEXED_PER_SECOND as f64);
                target.indexing.insert(key, now + takes);
            }
        }
        if let Some(transfer) = self.transfer_mut(name, transfer) {
            transfer.over = Some(now + LINGERS);
        }
        self.raft.commit += 2;
    }

    /// Ends a transfer. The target of a move is dropped; that of a replication is left behind, dead.
    pub(super) fn abort(&mut self, name: &str, transfer: &Transfer) {
        let now = self.now;
        let Some(running) = self.transfer_mut(name, transfer) else { return };
        running.over = Some(now);
        let of = running.clone();
        self.unlist(name, &of);
        self.raft.commit += 1;
        let Some(shard) = self.collections.get_mut(name).and_then(|c| c.shards.get_mut(&of.shard)) else { return };
        if of.sync {
            if shard.copies.contains_key(&of.to) {
                shard.set(of.to, State::Dead, now);
            }
        } else {
            shard.copies.remove(&of.to);
            self.erase(name, of.shard, of.to);
        }
    }

    /// A copy has missed a write. What is copied from it, or to it, ends.
    pub(super) fn call_dead(&mut self, name: &str, shard: u32, peer: u64) {
        let now = self.now;
        let Some(collection) = self.collections.get_mut(name) else { return };
        if let Some(shard) = collection.shards.get_mut(&shard) {
            shard.set(peer, State::Dead, now);
        }
        let touched = |t: &&Transfer| t.over.is_none() && t.shard == shard && (t.from == peer || t.to == peer);
        for transfer in collection.transfers.iter().filter(touched).cloned().collect::<Vec<_>>() {
            self.abort(name, &transfer);
        }
    }

    /// The copy is gone from the peer's disk.
    pub(super) fn erase(&mut self, name: &str, shard: u32, peer: u64) {
        if let Some(node) = self.node_of_mut(peer) {
            node.store.remove(&(name.to_string(), shard));
        }
    }

    /// How a copy looks to node `seen_by`: the state, and how many points are in it.
    pub(super) fn seen(&self, name: &str, shard: u32, peer: u64, seen_by: u64) -> (State, usize) {
        let collection = &self.collections[name];
        let state = collection.shards[&shard].copies[&peer].state;
        let points = self.node_of(peer).map_or(0, |node| node.points(name, shard));
        let Some(transfer) = collection.transfers.iter().find(|t| t.over.is_none() && t.shard == shard && t.to == peer)
        else {
            return (state, points);
        };
        if seen_by == peer && self.now < transfer.born + UNSEEN && !(transfer.by_itself && points > 0) {
            return (State::Dead, 0);
        }
        let share = transfer.share(self.now, self.runs(transfer));
        let source = self.node_of(transfer.from).map_or(0, |node| node.points(name, shard));
        let arrived = (source as f64 * share) as usize;
        let state = if transfer.method != Method::StreamRecords && share > 0.6 { State::Partial } else { state };
        (state, arrived.max(points))
    }

    /// The progress that the node at the source tells of a transfer, and in part that at the target.
    pub(super) fn comment(&self, name: &str, transfer: &Transfer, seen_by: u64) -> Option<String> {
        let total = self.node_of(transfer.from).map_or(0, |node| node.points(name, transfer.shard));
        let seconds = self.now.saturating_sub(transfer.born).as_secs_f64();
        let share = transfer.share(self.now, self.runs(transfer));
        let left = transfer.work.as_secs_f64() * (1.0 - share);
        let arrived = (total as f64 * share) as usize;
        let phase = if share < 1.0 { "transferring" } else { "finalizing" };
        match transfer.method {
            Method::StreamRecords if seen_by == transfer.from => {
                Some(format!("{phase} ({seconds:.2}s) | Transferring records ({arrived}/{total}), ETA: {left:.2}s"))
            }
            Method::StreamRecords => None,
            _ if seen_by == transfer.from => Some(format!("recovering ({seconds:.2}s)")),
            _ if seen_by == transfer.to => Some(format!("downloading ({seconds:.2}s)")),
            _ => None,
        }
    }
}
