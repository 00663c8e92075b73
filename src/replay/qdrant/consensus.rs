//! Who leads, who votes, and what can be agreed on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::nodes::{Frozen, Node, Process, Standing};
use super::operations::Proposal;
use super::reply::millis;

/// Followers wait so long for a leader before one of them stands.
const ELECTION: Duration = millis(2_500);
/// Between two candidacies without a majority.
const CANDIDACY: Duration = millis(1_500);
/// How many terms a hung node comes back with.
const WOKE_TERMS: u64 = 14;
/// A started process listens, and votes, after so long.
const LISTENS: Duration = millis(300);
const VOTES: Duration = millis(2_000);
/// It ends when nobody lets it in.
const BOOTSTRAP: Duration = millis(15_000);

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub uri: String,
    pub votes: bool,
    /// Since when its process does not answer.
    pub down: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Raft {
    pub term: u64,
    pub commit: u64,
    /// As the peers believe; it may be gone.
    pub leader: Option<u64>,
    /// Since when nobody leads.
    pub lost: Option<Duration>,
    /// When a leader will be elected.
    pub election: Option<Duration>,
    /// Proposed to a leader without a majority: they happen when it has one again.
    pub hanging: Vec<Proposal>,
    /// `message_send_failures` of peers that have been removed, which stay.
    pub stale_failures: BTreeMap<String, Value>,
}

/// What a node says of the consensus.
pub(super) struct RaftView {
    pub term: u64,
    pub commit: u64,
    pub pending: u64,
    pub leader: Option<u64>,
    pub role: Option<&'static str>,
    pub is_voter: bool,
    pub works: bool,
}

impl Cluster {
    /// More than half of the voters answer.
    pub(super) fn has_quorum(&self) -> bool {
        let voters = self.peers.iter().filter(|(_, peer)| peer.votes);
        let answer = voters.clone().filter(|(id, _)| self.process_of(**id) == Process::Up).count();
        answer * 2 > voters.count()
    }

    /// The leader that the peers believe in is one of them and answers.
    pub(super) fn is_led(&self) -> bool {
        self.raft.leader.is_some_and(|l| self.peers.contains_key(&l) && self.process_of(l) == Process::Up)
    }

    /// A proposal would be applied.
    pub(super) fn agrees(&self) -> bool {
        self.is_led() && self.has_quorum()
    }

    /// After anything that may have changed who leads.
    pub(super) fn look_for_leader(&mut self) {
        let now = self.now;
        if self.is_led() {
            (self.raft.lost, self.raft.election) = (None, None);
            self.hanging_happens();
            return;
        }
        self.raft.lost.get_or_insert(now);
        if self.has_quorum() {
            self.raft.election.get_or_insert(now + ELECTION);
        } else {
            self.raft.election = None;
        }
    }

    pub(super) fn election_happens(&mut self) {
        let now = self.now;
        if self.raft.election.is_none_or(|at| at > now) {
            return;
        }
        self.raft.term = self.term_seen() + 1;
        let voters = self.peers.iter().filter(|(_, peer)| peer.votes).map(|(id, _)| *id);
        self.raft.leader = voters.into_iter().find(|id| self.process_of(*id) == Process::Up);
        self.raft.commit += 1;
        self.look_for_leader();
    }

    fn hanging_happens(&mut self) {
        if !self.has_quorum() {
            return;
        }
        let now = self.now;
        for proposal in std::mem::take(&mut self.raft.hanging) {
            if proposal.check(self).is_ok() {
                proposal.apply(self, now);
            }
        }
    }

    /// A node that was hung has missed its leader: it stands for election at once.
    pub(super) fn unrest(&mut self) {
        self.raft.term += WOKE_TERMS;
        self.raft.leader = None;
        self.look_for_leader();
    }

    /// How long followers have stood without a leader and without a majority.
    fn alone_for(&self) -> Option<Duration> {
        let lost = self.raft.lost.filter(|_| !self.has_quorum())?;
        self.now.checked_sub(lost + ELECTION)
    }

    fn term_seen(&self) -> u64 {
        let alone = self.raft.lost.and_then(|lost| self.now.checked_sub(lost + ELECTION)).unwrap_or_default();
        self.raft.term + (alone.as_millis() / CANDIDACY.as_millis()) as u64
    }

    pub(super) fn raft_view(&self, node: &Node) -> RaftView {
        let commit = self.raft.commit;
        match &node.standing {
            Standing::Removed(frozen) => {
                let Frozen { term, commit, leader, .. } = **frozen;
                let role = leader.map(|_| "Follower");
                RaftView { term, commit, pending: 1, leader, role, is_voter: false, works: false }
            }
            standing => {
                let leads = self.raft.leader == Some(node.peer);
                let alone = !leads && self.alone_for().is_some();
                let is_voter = matches!(standing, Standing::Member);
                let leader = Some(if alone { 0 } else { self.raft.leader.unwrap_or(0) });
                let role = match (leads, alone) {
                    (true, _) => "Leader",
                    (_, true) => "Candidate",
                    _ => "Follower",
                };
                let term = if alone { self.term_seen() + 1 } else { self.raft.term };
                let commit = if is_voter { commit } else { 0 };
                RaftView { term, commit, pending: 0, leader, role: Some(role), is_voter, works: true }
            }
        }
    }

    /// When a joining node gets on.
    pub(super) fn next_join(&self) -> Option<Duration> {
        let joining = self.nodes.values().filter(|node| node.process == Process::Up);
        joining.filter_map(|node| self.joins_at(node)).min()
    }

    fn joins_at(&self, node: &Node) -> Option<Duration> {
        match node.standing {
            Standing::Joining if self.agrees() => Some(node.started + LISTENS),
            Standing::Joining => Some(node.started + BOOTSTRAP),
            Standing::Learner if self.agrees() => Some(node.started + VOTES),
            Standing::Learner | Standing::Member | Standing::Removed(_) => None,
        }
    }

    pub(super) fn joins_happen(&mut self) {
        let now = self.now;
        let due: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.process == Process::Up && self.joins_at(node).is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.gets_on(&name);
        }
    }

    fn gets_on(&mut self, name: &str) {
        let agrees = self.agrees();
        let Some(node) = self.nodes.get_mut(name) else { return };
        let (peer, uri) = (node.peer, node.uri.clone());
        match node.standing {
            Standing::Joining if !agrees => node.process = Process::Dead,
            Standing::Joining => {
                let namesake = self.peers.iter().find(|(_, p)| p.uri == uri).map(|(id, _)| *id);
                if namesake.is_some_and(|id| self.has_copies(id)) {
                    // "peer URI … already used by peer X which still has shards": it ends in a panic.
                    self.nodes.get_mut(name).expect("looked up above").process = Process::Dead;
                    return;
                }
                if let Some(namesake) = namesake {
                    self.peers.remove(&namesake);
                }
                self.peers.insert(peer, Peer { uri, votes: false, down: None });
                self.nodes.get_mut(name).expect("looked up above").standing = Standing::Learner;
                self.raft.commit += 1;
            }
            Standing::Learner => {
                node.standing = Standing::Member;
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.votes = true;
                }
                self.raft.commit += 1;
                self.look_for_leader();
            }
            Standing::Member | Standing::Removed(_) => {}
        }
    }

    pub(super) fn has_copies(&self, peer: u64) -> bool {
        self.collections.values().flat_map(|c| c.shards.values()).any(|s| s.copies.contains_key(&peer))
    }
}
