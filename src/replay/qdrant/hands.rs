//! What is done to the cluster from outside: by an operator, by bad luck, or to have data in it.

use std::time::Duration;

use serde_json::json;

use super::cluster::Cluster;
use super::collection::{State, mixed};
use super::keys::Keys;
use super::nodes::{Node, Process, Standing};

impl Cluster {
    /// A new process on an empty disk, told to join.
    ///
    /// # Panics
    /// When a process of this name runs already.
    pub fn start(&mut self, now: Duration, name: &str, version: &str) -> u64 {
        self.advance(now);
        let runs = self.nodes.get(name).is_some_and(|node| node.process != Process::Dead);
        assert!(!runs, "{name} runs already");
        let peer = self.draw();
        self.nodes.insert(name.into(), Node::new(peer, format!("http://{name}:6335/"), version, now));
        peer
    }

    /// `kill -9`.
    pub fn kill(&mut self, now: Duration, name: &str) {
        self.process(now, name, Process::Dead);
    }

    /// `kill -STOP`.
    pub fn hang(&mut self, now: Duration, name: &str) {
        self.process(now, name, Process::Hung);
    }

    /// `kill -CONT`, or a start on the disk that is there.
    pub fn revive(&mut self, now: Duration, name: &str) {
        self.process(now, name, Process::Up);
    }

    /// The machine goes, with its disk.
    pub fn destroy(&mut self, now: Duration, name: &str) {
        self.kill(now, name);
        self.nodes.remove(name);
    }

    fn process(&mut self, now: Duration, name: &str, process: Process) {
        self.advance(now);
        self.count_work();
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.process != process) else { return };
        let (before, peer) = (node.process, node.peer);
        node.process = process;
        let restarts = before == Process::Dead;
        if restarts {
            (node.started, node.latched, node.polled, node.waited) = (now, false, false, false);
            node.served.clear();
            if let Standing::Removed(frozen) = &mut node.standing {
                (frozen.leader, node.latched) = (None, true);
            }
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.down = (process != Process::Up).then(|| peer.down.unwrap_or(now));
        }
        match process {
            Process::Up if restarts => {
                self.source_restarted(peer);
                self.initialize(peer);
                if self.raft.leader == Some(peer) {
                    self.raft.leader = None;
                }
            }
            Process::Up => self.target_woke(peer),
            Process::Hung | Process::Dead => {
                self.target_changed(peer, process);
                self.source_gone(peer);
            }
        }
        if process == Process::Up && before == Process::Hung && self.peers.contains_key(&peer) {
            self.unrest();
        } else {
            self.look_for_leader();
        }
    }

    /// Nobody is left to give up on a transfer whose source is gone.
    fn source_gone(&mut self, peer: u64) {
        for transfer in self.collections.values_mut().flat_map(|c| &mut c.transfers).filter(|t| t.from == peer) {
            transfer.forget_giving_up();
        }
    }

    /// Copies that were made while their node was away begin their life.
    fn initialize(&mut self, peer: u64) {
        let now = self.now;
        let mut made = Vec::new();
        for (name, collection) in &mut self.collections {
            for (number, shard) in &mut collection.shards {
                if shard.copies.get(&peer).is_some_and(|copy| copy.state == State::Initializing) {
                    shard.set(peer, State::Active, now);
                    made.push((name.clone(), *number));
                }
            }
        }
        let Some(node) = self.node_of_mut(peer) else { return };
        for key in made {
            node.store.entry(key).or_default();
        }
    }

    /// Writes so many points at once into every copy of a collection, ids from `first` on.
    pub fn fill(&mut self, collection: &str, first: u64, count: u64) {
        for id in first..first + count {
            self.put(collection, id, mixed(id));
        }
    }

    /// One point into every copy of its shard.
    fn put(&mut self, collection: &str, id: u64, hash: u64) {
        let Some(of) = self.collections.get(collection) else { return };
        let shard = of.shard_of(id);
        let on: Vec<u64> = of.shards[&shard].copies.keys().copied().collect();
        for node in self.nodes.values_mut().filter(|node| on.contains(&node.peer)) {
            node.store.entry((collection.into(), shard)).or_default().insert(id, hash);
        }
    }

    /// Somebody changes the number of shards, and stops at the first stage.
    pub fn reshard(&mut self, collection: &str) {
        let peer = self.peers.keys().next().copied();
        if let (Some(of), Some(peer)) = (self.collections.get_mut(collection), peer) {
            of.reshardings.push(json!({
                "uuid": "34ad1d8c-d981-4e20-b3c6-e5d2094d80d0", "direction": "up", "shard_id": of.shard_number,
                "peer_id": peer, "shard_key": null,
            }));
            let shard = of.shards.entry(of.shard_number).or_default();
            shard.set(peer, State::Resharding, self.now);
        }
    }

    /// From now on only who has a key is let in.
    pub fn demand(&mut self, keys: Keys) {
        self.keys = Some(keys);
    }
}
