//! What every node says of itself -> who forms the cluster, who is who, and whether the members can agree. Pure.
//!
//! Qdrant knows its members by number and by an address that is not the one we ask; which machine is which member, only
//! the machine itself can tell. One that is silent is known from before, or by its host where that is beyond doubt; a
//! member that nobody can name is one all the same, `peer-<number>`.

use std::collections::{BTreeMap, BTreeSet};

use super::told::{OwnView, PeerId};
use super::words::NotTold;
use crate::model::{Machine, NodeId};

/// How far a member may be behind in what was agreed, in entries of the common log.
const CLOSE: u64 = 20;

/// One machine, and what it says.
#[derive(Clone, Debug)]
pub struct Asked {
    pub machine: Machine,
    pub own: Result<OwnView, NotTold>,
    pub version: Option<String>,
}

impl Asked {
    /// Its number, if it says that it is a member of any cluster.
    fn peer(&self) -> Option<PeerId> {
        self.own.as_ref().ok().filter(|own| own.status == "enabled").map(|own| own.peer_id)
    }
}

/// One registered peer.
#[derive(Clone, Debug)]
pub struct Peer {
    pub node: NodeId,
    /// Where it is asked; its own address among the members where nobody knows better.
    pub address: String,
    /// What it says of itself, if it does.
    pub own: Option<OwnView>,
    /// What came instead when its machine was asked; `None` where it speaks, or no machine is known.
    pub silence: Option<NotTold>,
    pub version: Option<String>,
    /// No machine could be told to be this one.
    pub is_nameless: bool,
}

/// The cluster as the nodes themselves tell it.
#[derive(Clone, Debug)]
pub struct Survey {
    pub peers: BTreeMap<PeerId, Peer>,
    /// The one whose view the others are held against.
    pub reference: PeerId,
    /// Of the members' consensus; it may be silent.
    pub leader: Option<PeerId>,
    /// A member that is not known to be gone may keep questions about all of them waiting.
    pub may_hang: bool,
    /// Why the members can agree on no change.
    pub no_quorum: Option<String>,
    /// Members that have said nothing for so long that a transfer from them is none any more.
    pub long_silent: BTreeSet<PeerId>,
    /// Machines that answer, and are no members.
    strangers: BTreeMap<NodeId, String>,
}

impl Survey {
    pub fn peer_of(&self, node: &NodeId) -> Option<PeerId> {
        self.peers.iter().find(|(_, peer)| peer.node == *node).map(|(id, _)| *id)
    }

    /// Members that answer and whose consensus works; ordered by number.
    pub fn living(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        let works = |peer: &Peer| peer.own.as_ref().is_some_and(OwnView::is_working);
        self.peers.iter().filter(move |(_, peer)| works(peer)).map(|(id, peer)| (*id, peer))
    }

    pub fn is_living(&self, peer: PeerId) -> bool {
        self.living().any(|(id, _)| id == peer)
    }

    /// The address of the member to be asked about all of them: the leader, if it answers, but never `without`.
    pub fn spokesman(&self, without: Option<PeerId>) -> Option<(PeerId, &str)> {
        let preferred = [self.leader, Some(self.reference)].into_iter().flatten();
        let all = preferred.chain(self.living().map(|(id, _)| id));
        let fits = |id: &PeerId| Some(*id) != without && self.is_living(*id);
        all.filter(fits).find_map(|id| Some((id, self.peers.get(&id)?.address.as_str())))
    }

    /// Why a member does not serve, by all that it says: `/readyz` says less. `None` when it does.
    pub fn trouble(&self, peer: PeerId) -> Option<String> {
        let Some(own) = self.peers.get(&peer).and_then(|peer| peer.own.as_ref()) else {
            return Some("it does not answer".into());
        };
        let ahead = self.living().filter_map(|(_, peer)| Some(peer.own.as_ref()?.raft_info.commit)).max().unwrap_or(0);
        if !own.is_working() {
            return Some("its consensus has stopped".into());
        }
        if !own.raft_info.is_voter {
            return Some("it has no vote yet".into());
        }
        if own.raft_info.commit.saturating_add(CLOSE) < ahead {
            return Some(format!("it is at {} of {ahead} in what was agreed", own.raft_info.commit));
        }
        let known: BTreeSet<_> = own.peers.keys().collect();
        (known != self.peers.keys().collect()).then(|| "it knows other members than the rest".into())
    }

    /// Why a member is not to be taken for dead. `unreached` are those that the others cannot reach, if they could be
    /// asked: an answer that only we cannot read is an answer, and who is silent to us alone lives.
    pub fn sign_of_life(&self, peer: PeerId, unreached: Option<&BTreeSet<PeerId>>) -> Option<String> {
        let it = self.peers.get(&peer)?;
        if it.own.is_some() {
            return Some("it answers again".into());
        }
        match (&it.silence, unreached) {
            (Some(error @ (NotTold::Refused { .. } | NotTold::Unreadable(_))), _) => {
                Some(format!("it answers, though not with what was asked for: {error}"))
            }
            (_, Some(unreached)) if !unreached.contains(&peer) => Some("the other members reach it".into()),
            (None, None) => Some("it has no machine to be asked, and the other members do not tell of it".into()),
            _ => None,
        }
    }

    /// Why a machine that answers is no member.
    pub fn stranger(&self, node: &NodeId) -> Option<&str> {
        self.strangers.get(node).map(String::as_str)
    }

    /// Those that have a name of their own, as they are to be remembered.
    pub fn names(&self) -> BTreeMap<PeerId, NodeId> {
        let named = self.peers.iter().filter(|(_, peer)| !peer.is_nameless);
        named.map(|(id, peer)| (*id, peer.node.clone())).collect()
    }
}

/// Holds what the machines say together. `known` are names from before.
///
/// # Errors
/// When no cluster can be made out: nobody answers, none is a member of any, or several clusters answer.
pub fn settle(asked: &[Asked], known: &BTreeMap<PeerId, NodeId>) -> Result<Survey, String> {
    let by_peer = by_peer(asked)?;
    let reference = reference(asked)?;
    let registered = &by_peer[&reference].own.as_ref().expect("the reference answers").peers;
    let mut taken: BTreeSet<&NodeId> = asked.iter().filter(|it| it.own.is_ok()).map(|it| &it.machine.id).collect();
    let mut peers = BTreeMap::new();
    for (id, peer) in registered {
        let speaks = by_peer.get(id).copied();
        let machine = speaks.or_else(|| silent_machine(*id, registered, asked, known));
        // One that is known from before, and whose machine is listed no more, keeps its name.
        let unlisted = |node: &&NodeId| !asked.iter().any(|it| it.machine.id == **node);
        let name = machine.map(|it| &it.machine.id).or(known.get(id).filter(unlisted));
        let name = name.filter(|&name| taken.insert(name) || speaks.is_some());
        let machine = machine.filter(|_| name.is_some());
        let address = machine.map_or(peer.uri.trim_end_matches('/').to_string(), |it| it.machine.address.clone());
        peers.insert(
            *id,
            Peer {
                is_nameless: name.is_none(),
                node: name.cloned().unwrap_or_else(|| nameless(*id)),
                address,
                own: speaks.and_then(|it| it.own.clone().ok()),
                silence: machine.and_then(|it| it.own.clone().err()),
                version: speaks.and_then(|it| it.version.clone()),
            },
        );
    }
    let hangs = |it: &Asked| matches!(it.own, Err(NotTold::Hung(_)));
    let may_hang = asked.iter().any(hangs) || peers.values().any(|peer| peer.is_nameless);
    let strangers = asked.iter().filter_map(|it| Some((it.machine.id.clone(), strange(it, reference, registered)?)));
    let strangers = strangers.collect();
    let long_silent = BTreeSet::new(); // one look does not tell
    let mut survey = Survey { peers, reference, leader: None, may_hang, no_quorum: None, long_silent, strangers };
    match agreement(&survey) {
        Ok(leader) => survey.leader = Some(leader),
        Err(why) => survey.no_quorum = Some(why),
    }
    Ok(survey)
}

/// What a member is called whom nobody can name.
pub fn nameless(peer: PeerId) -> NodeId {
    NodeId::new(&format!("peer-{peer}")).expect("letters and digits")
}

/// Takes names in that were told now; a name that was another member's before is no longer that one's.
pub fn learn(names: &mut BTreeMap<PeerId, NodeId>, told: BTreeMap<PeerId, NodeId>) {
    names.retain(|_, node| !told.values().any(|new| new == node));
    names.extend(told);
}

fn by_peer(asked: &[Asked]) -> Result<BTreeMap<PeerId, &Asked>, String> {
    let mut by_peer: BTreeMap<PeerId, &Asked> = BTreeMap::new();
    for it in asked {
        let Some(peer) = it.peer() else { continue };
        if let Some(other) = by_peer.insert(peer, it) {
            return Err(format!("{} and {} are the same Qdrant node, {peer}", other.machine.id, it.machine.id));
        }
    }
    Ok(by_peer)
}

/// The member whose word counts: of the list of members that most of them share, the one that knows most.
fn reference(asked: &[Asked]) -> Result<PeerId, String> {
    let views: Vec<&OwnView> = asked.iter().filter_map(|it| it.own.as_ref().ok()).collect();
    if views.is_empty() {
        let each: Vec<String> = asked.iter().map(|it| format!("{}: {}", it.machine.id, silence(it))).collect();
        return Err(format!("no node answers ({})", each.join("; ")));
    }
    if views.iter().all(|own| own.status != "enabled") {
        return Err("Qdrant runs in standalone mode: start every node with QDRANT__CLUSTER__ENABLED=true".into());
    }
    let working: Vec<&&OwnView> = views.iter().filter(|own| own.is_working()).collect();
    let ids = |own: &OwnView| own.peers.keys().copied().collect::<BTreeSet<_>>();
    let weight = |own: &OwnView| {
        let shared = working.iter().filter(|other| ids(other) == ids(own)).count();
        (shared, own.peers.len(), own.raft_info.is_voter, own.raft_info.commit)
    };
    let best = working.iter().max_by_key(|own| (weight(own), own.peer_id));
    let Some(best) = best.filter(|own| own.peers.contains_key(&own.peer_id)) else {
        return Err("no node that answers is a member of a cluster: the consensus of each has stopped".into());
    };
    let (shared, size, ..) = weight(best);
    let rival = working.iter().find(|own| {
        let (theirs, of, ..) = weight(own);
        (theirs, of) == (shared, size) && ids(own).is_disjoint(&ids(best))
    });
    match rival {
        Some(rival) => Err(format!(
            "the nodes form several clusters of their own, such as {} and {}: a new one is started with --bootstrap",
            best.peer_id, rival.peer_id
        )),
        None => Ok(best.peer_id),
    }
}

fn silence(it: &Asked) -> String {
    it.own.as_ref().err().map_or(String::new(), ToString::to_string)
}

/// The machine that a silent member is: known from before, or the only one at the only host of that name.
fn silent_machine<'a>(
    peer: PeerId,
    registered: &BTreeMap<PeerId, super::told::Peer>,
    asked: &'a [Asked],
    known: &BTreeMap<PeerId, NodeId>,
) -> Option<&'a Asked> {
    let silent = |it: &&Asked| it.own.is_err();
    if let Some(node) = known.get(&peer) {
        return asked.iter().filter(silent).find(|it| it.machine.id == *node);
    }
    let place = host(&registered[&peer].uri);
    let at_place: Vec<&Asked> = asked.iter().filter(|it| host(&it.machine.address) == place).collect();
    let only_peer = registered.values().filter(|other| host(&other.uri) == place).count() == 1;
    match at_place[..] {
        [one] if only_peer && silent(&one) && !known.values().any(|node| *node == one.machine.id) => Some(one),
        _ => None,
    }
}

/// `http://10.0.0.1:6335/` -> `10.0.0.1`.
fn host(address: &str) -> &str {
    let host_port = crate::http::host_port(address);
    host_port.rsplit_once(':').map_or(host_port, |(host, _)| host)
}

/// Why a machine that answers is not among the registered.
fn strange(it: &Asked, reference: PeerId, registered: &BTreeMap<PeerId, super::told::Peer>) -> Option<String> {
    let own = it.own.as_ref().ok()?;
    if own.status != "enabled" {
        return Some("it runs in standalone mode: start it with QDRANT__CLUSTER__ENABLED=true".into());
    }
    if registered.contains_key(&own.peer_id) {
        return None;
    }
    if !own.is_working() {
        return Some("it was removed from the cluster: it comes back only with an empty disk".into());
    }
    let apart = !own.peers.contains_key(&reference);
    apart.then(|| "it forms a cluster of its own: start it with --bootstrap, and with an empty disk".into())
}

/// The leader, if the members can agree on a change.
///
/// Whoever lost its quorum as the leader goes on calling itself one, so it is counted who answers.
fn agreement(survey: &Survey) -> Result<PeerId, String> {
    let has_no_vote = |peer: &&Peer| peer.own.as_ref().is_some_and(|own| own.is_working() && !own.raft_info.is_voter);
    let voters = survey.peers.len() - survey.peers.values().filter(has_no_vote).count();
    let voting: Vec<(&Peer, &OwnView)> = survey
        .living()
        .filter_map(|(_, peer)| Some((peer, peer.own.as_ref()?)))
        .filter(|(_, own)| own.raft_info.is_voter)
        .collect();
    if voting.len() * 2 <= voters {
        return Err(format!("{} of {voters} voting members answer, which is no majority", voting.len()));
    }
    let mut leader = None;
    for (peer, own) in voting {
        let Some(theirs) = own.leader() else { return Err(format!("{} knows no leader", peer.node)) };
        if let Some((node, other)) = leader.replace((&peer.node, theirs)).filter(|(_, other)| *other != theirs) {
            return Err(format!("{node} and {} follow different leaders, {other} and {theirs}", peer.node));
        }
    }
    let (_, leader) = leader.ok_or("nobody votes")?;
    match survey.peers.get(&leader) {
        None => Err(format!("the leader, {leader}, is no member any more; the next is to be elected")),
        Some(peer) if !survey.is_living(leader) => Err(format!("the leader, {}, does not answer", peer.node)),
        Some(_) => Ok(leader),
    }
}
