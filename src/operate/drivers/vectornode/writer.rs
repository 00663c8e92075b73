//! The only writer of the cluster map: claims the nodes under its fence, carries on the newest map, and makes each
//! change by the votes of a majority. IO: HTTP to the nodes.
//!
//! This is the proposer of CASPaxos with (fence, epoch) as the ballot. A change counts when majorities of the members
//! before and after it have accepted it; only then it is sent out to be acted upon. Members change one at a time, so
//! any two majorities meet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::sync::Mutex;

use crate::model::{Machine, NodeId};
use crate::node::cell::Vote;
use crate::node::map::{ClusterMap, MapMember, majority};
use crate::node::peers::{PeerError, Peers};
use crate::operate::drivers::{Provider, Unanswered};

/// How long a node may take to vote or to change over to a map.
const LIMIT: Duration = Duration::from_secs(2);

/// A node that says nothing at all for so long, twice, is unreachable.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Between the two.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// How a change did not come about.
#[derive(Clone, Debug, PartialEq)]
pub enum NotChanged {
    /// The map in force does not allow it; nothing was proposed.
    Refused(String),
    /// No majority answered, or another writer has taken over. It may come into force later or never.
    Unknown(String),
}

impl From<NotChanged> for Unanswered {
    fn from(not: NotChanged) -> Self {
        let (NotChanged::Refused(why) | NotChanged::Unknown(why)) = not;
        Unanswered(why)
    }
}

pub struct Writer {
    pub peers: Peers,
    provider: Arc<dyn Provider>,
    fence: u64,
    state: Mutex<State>,
    /// Where the provider says the nodes are: after a restart a node may be elsewhere than the map says.
    addresses: std::sync::RwLock<BTreeMap<NodeId, String>>,
}

#[derive(Default)]
struct State {
    /// In force, as far as this writer knows. `None` at first and after a vote without a result.
    map: Option<Arc<ClusterMap>>,
    /// The highest epoch that was ever proposed: never used for anything else.
    proposed: u64,
}

impl Writer {
    pub fn new(provider: Arc<dyn Provider>, fence: u64) -> Writer {
        Writer {
            peers: Peers::default(),
            provider,
            fence,
            state: Mutex::default(),
            addresses: std::sync::RwLock::default(),
        }
    }

    /// The map in force.
    ///
    /// # Errors
    /// When no majority can be reached to say which that is.
    pub async fn map(&self) -> Result<Arc<ClusterMap>, Unanswered> {
        let mut state = self.state.lock().await;
        Ok(self.in_force(&mut state).await?)
    }

    /// Where a node is.
    pub fn address(&self, map: &ClusterMap, node: &NodeId) -> String {
        let known = self.addresses.read().expect("no panic while writing").get(node).cloned();
        known.or_else(|| map.members.get(node).map(|m| m.address.clone())).unwrap_or_default()
    }

    /// Changes the map: `edit` gets a copy of the one in force, with the epoch that the new one will have, and says
    /// whether it changed it.
    ///
    /// # Errors
    /// The refusal of `edit`, or [`NotChanged::Unknown`] when the votes do not suffice.
    pub async fn change(
        &self,
        edit: impl FnOnce(&mut ClusterMap) -> Result<bool, String>,
    ) -> Result<Arc<ClusterMap>, NotChanged> {
        let mut state = self.state.lock().await;
        let held = self.in_force(&mut state).await?;
        let mut next = (*held).clone();
        (next.fence, next.epoch) = (self.fence, held.epoch.max(state.proposed) + 1);
        if !edit(&mut next).map_err(NotChanged::Refused)? {
            return Ok(held);
        }
        renew_epochs(&held, &mut next);
        self.commit(&mut state, Some(&held), next).await
    }

    async fn in_force(&self, state: &mut State) -> Result<Arc<ClusterMap>, NotChanged> {
        match &state.map {
            Some(map) => Ok(map.clone()),
            None => self.take_over(state).await,
        }
    }

    /// Claims the nodes, finds the newest map among them, and has it accepted anew under this fence.
    async fn take_over(&self, state: &mut State) -> Result<Arc<ClusterMap>, NotChanged> {
        let machines = self.look_up().await.map_err(|e| NotChanged::Unknown(e.0))?;
        let mut votes = self.claim(machines.iter().map(|m| (m.id.clone(), m.address.clone())).collect()).await?;
        let highest = |votes: &BTreeMap<NodeId, Result<Vote, String>>| {
            votes.values().flatten().filter_map(Vote::highest).max_by_key(|m| m.ballot()).cloned()
        };
        // Members that the provider does not list have a vote too.
        if let Some(map) = highest(&votes) {
            let others = map.members.iter().filter(|(id, _)| !votes.contains_key(*id));
            votes.extend(self.claim(others.map(|(id, m)| (id.clone(), m.address.clone())).collect()).await?);
        }
        let silent = || {
            let said = votes.iter().filter_map(|(id, vote)| Some(format!("{id}: {}", vote.as_ref().err()?)));
            said.collect::<Vec<_>>().join("; ")
        };
        let Some(found) = highest(&votes) else {
            let founders: Vec<_> = machines.iter().filter(|m| votes.get(&m.id).is_some_and(Result::is_ok)).collect();
            // One that is silent may know of a cluster.
            if founders.is_empty() || founders.len() < machines.len() {
                let what = format!("no node knows a cluster, and not all can be asked to form one: {}", silent());
                return Err(NotChanged::Unknown(what));
            }
            let member = |m: &&Machine| (m.id.clone(), MapMember { address: m.address.clone(), cordoned: false });
            let map = ClusterMap {
                cluster: uuid::Uuid::now_v7().to_string(),
                fence: self.fence,
                epoch: state.proposed + 1,
                members: founders.iter().map(member).collect(),
                collections: BTreeMap::new(),
            };
            return self.commit(state, None, map).await;
        };
        let promised = found.members.keys().filter(|id| matches!(votes.get(id), Some(Ok(_)))).count();
        if promised < majority(found.members.len()) {
            let (of, silent) = (found.members.len(), silent());
            return Err(NotChanged::Unknown(format!("only {promised} of {of} members answer: {silent}")));
        }
        let mut next = (*found).clone();
        let epochs = votes.values().flatten().filter_map(Vote::highest).map(|m| m.epoch).max().unwrap_or(0);
        (next.fence, next.epoch) = (self.fence, epochs.max(state.proposed) + 1);
        for (id, member) in &mut next.members {
            if let Some(machine) = machines.iter().find(|m| m.id == *id) {
                member.address = machine.address.clone();
            }
        }
        self.commit(state, Some(&found), next).await
    }

    /// Asks the provider where its nodes are.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn look_up(&self) -> Result<Vec<Machine>, Unanswered> {
        let machines = self.provider.list().await?;
        let known = machines.iter().map(|m| (m.id.clone(), m.address.clone())).collect();
        *self.addresses.write().expect("no panic while writing") = known;
        Ok(machines)
    }

    /// Whether a node gives any sign of life: an error is one too.
    pub async fn is_alive(&self, address: &str) -> bool {
        for _ in 0..2 {
            let answer = self.peers.send(Method::GET, address, "/health", "", SIGN_OF_LIFE).await;
            if matches!(answer, Ok(_) | Err(PeerError::Refused { .. })) {
                return true;
            }
            tokio::time::sleep(SECOND_LOOK).await;
        }
        false
    }

    /// Has the nodes promise to refuse older controllers.
    async fn claim(&self, nodes: Vec<(NodeId, String)>) -> Result<BTreeMap<NodeId, Result<Vote, String>>, NotChanged> {
        let asked = nodes.into_iter().map(|(id, address)| async move {
            let vote = self.claim_at(&address).await;
            (id, vote)
        });
        let mut votes = BTreeMap::new();
        for (id, vote) in join_all(asked).await {
            if let Err(error) = &vote {
                fenced(error)?;
            }
            votes.insert(id, vote.map_err(|e| e.to_string()));
        }
        Ok(votes)
    }

    /// # Errors
    /// When the node does not answer, or knows a newer controller.
    pub async fn claim_at(&self, address: &str) -> Result<Vote, PeerError> {
        self.peers.ask(Method::POST, address, "/cluster/claim", Some(&json!({"fence": self.fence})), LIMIT).await
    }

    /// Has a map accepted by majorities of the members before and after, and then sent to all.
    async fn commit(
        &self,
        state: &mut State,
        held: Option<&ClusterMap>,
        next: ClusterMap,
    ) -> Result<Arc<ClusterMap>, NotChanged> {
        let next = Arc::new(next);
        state.map = None;
        state.proposed = next.epoch;
        let held = held.unwrap_or(&next);
        let voters: BTreeSet<&NodeId> = held.members.keys().chain(next.members.keys()).collect();
        let asked = voters.into_iter().map(|id| {
            let address = if next.members.contains_key(id) { self.address(&next, id) } else { self.address(held, id) };
            let map = &next;
            async move { (id, self.peers.ask::<Vote>(Method::PUT, &address, "/cluster/map", Some(map), LIMIT).await) }
        });
        let (mut accepted, mut against) = (BTreeSet::new(), Vec::new());
        for (id, vote) in join_all(asked).await {
            match vote {
                Ok(_) => drop(accepted.insert(id.clone())),
                Err(error) => {
                    fenced(&error)?;
                    against.push(format!("{id}: {error}"));
                }
            }
        }
        for members in [&held.members, &next.members] {
            let votes = members.keys().filter(|id| accepted.contains(*id)).count();
            if votes < majority(members.len()) {
                let (of, why) = (members.len(), against.join("; "));
                return Err(NotChanged::Unknown(format!("only {votes} of {of} members accepted the map: {why}")));
            }
        }
        state.map = Some(next.clone());
        self.send_out(held, &next).await;
        Ok(next)
    }

    /// Sends a map in force to all. Who loses a shard hears it first: while it thinks it still has the shard, it would
    /// answer reads from a copy that no longer gets writes.
    async fn send_out(&self, held: &ClusterMap, next: &Arc<ClusterMap>) {
        let all: BTreeSet<&NodeId> = held.members.keys().chain(next.members.keys()).collect();
        let loses = |node: &NodeId| {
            let mut lost = held.shards().filter(|(_, _, _, a)| a.active().any(|n| n == node));
            lost.any(|(_, key, _, _)| next.assignment(key).is_none_or(|a| a.active().all(|n| n != node)))
        };
        let (first, then): (Vec<&NodeId>, Vec<&NodeId>) = all.into_iter().partition(|node| loses(node));
        for group in [first, then] {
            join_all(group.into_iter().map(|node| {
                let known = if next.members.contains_key(node) { next.as_ref() } else { held };
                self.send_map(self.address(known, node), next)
            }))
            .await;
        }
    }

    /// Sends a map in force to one node. One that misses it is told again when it next shows an older epoch.
    pub async fn send_map(&self, address: String, map: &Arc<ClusterMap>) {
        let sent = self.peers.ask::<Vote>(Method::PUT, &address, "/cluster/map/learned", Some(map), LIMIT).await;
        if let Err(error) = sent {
            tracing::debug!(epoch = map.epoch, %error, "a node did not take the map");
        }
    }
}

/// Every shard whose holders changed is at the new map's epoch.
fn renew_epochs(held: &ClusterMap, next: &mut ClusterMap) {
    let epoch = next.epoch;
    for collection in next.collections.values_mut() {
        let before = held.collections.values().find(|c| c.id == collection.id);
        for (assignment, shard) in collection.shards.iter_mut().zip(0..) {
            let same = before.and_then(|c| c.shards.get(shard)).is_some_and(|b| b.replicas == assignment.replicas);
            if !same {
                assignment.epoch = epoch;
            }
        }
    }
}

fn fenced(error: &PeerError) -> Result<(), NotChanged> {
    match error {
        PeerError::Refused { status: StatusCode::PRECONDITION_FAILED, detail, .. } => {
            Err(NotChanged::Unknown(format!("{detail}; this controller must not act any more")))
        }
        _ => Ok(()),
    }
}
