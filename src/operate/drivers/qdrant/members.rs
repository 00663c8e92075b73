//! Members that come and go, and the marks that are kept about them.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use serde_json::json;

use super::placement::seen_by_one;
use super::survey::{Peer, Survey, learn};
use super::told::{PeerId, TransferTold};
use super::words::{Changed, NotTold};
use super::{CORDONED, NAMES, Qdrant};
use crate::model::{Machine, NodeId};
use crate::operate::drivers::{Effect, Unanswered};

impl Qdrant {
    /// The member that is to speak for itself: one that answers, and is a member on the others' word too. A removed
    /// node and one with a cluster of its own answer just as calmly.
    pub(super) fn witness<'a>(&self, survey: &'a Survey, node: &NodeId) -> Result<&'a Peer, Unanswered> {
        let no = |why: &str| Unanswered(format!("{node}: {why}"));
        if let Some(why) = survey.stranger(node) {
            return Err(no(why));
        }
        let id = survey.peer_of(node).ok_or_else(|| no("is not a member"))?;
        survey.trouble(id).map_or(Ok(&survey.peers[&id]), |why| Err(no(&why)))
    }

    /// Qdrant joins by itself as it starts; here it is seen whether it did.
    pub(super) async fn has_joined(&self, machine: &Machine) -> Effect<()> {
        let survey = match self.survey().await {
            Ok(survey) => survey,
            Err(why) => return Effect::NoEffect(why.0),
        };
        if let Some(why) = survey.stranger(&machine.id) {
            return Effect::NoEffect(format!("{}: {why}", machine.id));
        }
        let id = survey.peer_of(&machine.id).filter(|id| survey.peers[id].own.is_some());
        let Some(id) = id else { return Effect::InProgress }; // it may still be starting
        match other_version(&survey, id) {
            Some(why) => Effect::NoEffect(why),
            None => {
                self.note_names(&survey).await;
                Effect::Done(())
            }
        }
    }

    /// One good probe: the node says that it is ready, and so does everything else that is said.
    pub(super) async fn serves(&self, machine: &Machine) -> Result<bool, Unanswered> {
        let of = |error: NotTold| Unanswered(format!("{}: {error}", machine.id));
        let survey = self.survey().await?;
        if survey.stranger(&machine.id).is_some() {
            return Ok(false);
        }
        let member = survey.peer_of(&machine.id).and_then(|id| Some((id, survey.peers[&id].own.as_ref()?)));
        let Some((id, own)) = member else {
            return Err(Unanswered(format!("{} does not answer as a member", machine.id)));
        };
        let follows = own.leader().is_some_and(|leader| survey.peers.contains_key(&leader));
        let others: Vec<&Peer> = survey.living().filter(|(other, _)| *other != id).map(|(_, peer)| peer).collect();
        let lists_it = |peer: &&Peer| peer.own.as_ref().is_some_and(|own| own.peers.contains_key(&id));
        let is_known = survey.peers.len() == 1 || others.iter().any(lists_it);
        let fits = survey.trouble(id).is_none() && follows && is_known && other_version(&survey, id).is_none();
        // It counts as ready from the first time that it is asked; before that it does not even try.
        if !self.ask.is_ready(&machine.address).await.map_err(of)? || !fits {
            return Ok(false);
        }
        let Some(other) = others.first() else { return Ok(true) };
        let (here, there) = tokio::join!(self.ask.collections(&machine.address), self.ask.collections(&other.address));
        Ok(here.map_err(of)? == there.map_err(of)?)
    }

    /// Qdrant knows no cordon, so the mark is ours; it is kept where all members agree on it.
    pub(super) async fn set_cordon(&self, node: &NodeId, on: bool) -> Effect<()> {
        let survey = match self.survey().await {
            Ok(survey) => survey,
            Err(why) => return Effect::NoEffect(why.0),
        };
        let Some(id) = survey.peer_of(node) else {
            // Nothing to lift from one that is gone.
            return if on { Effect::NoEffect(format!("{node} is not a member")) } else { Effect::Done(()) };
        };
        let mut cordoned = match self.cordoned(&survey).await {
            Ok(cordoned) => cordoned,
            Err(why) => return Effect::NoEffect(why.0),
        };
        if cordoned.contains(&id) == on {
            return Effect::Done(());
        }
        let Some((_, address)) = agreeing(&survey, None) else { return Effect::NoEffect(disagreement(&survey)) };
        if on {
            cordoned.insert(id)
        } else {
            cordoned.remove(&id)
        };
        cordoned.retain(|peer| survey.peers.contains_key(peer));
        self.note_names(&survey).await;
        self.ask.set_key(address, CORDONED, json!({"peers": cordoned})).await.effect()
    }

    /// Keeps in the cluster who is who, so that a start while one is dead can name it. Best effort: what cannot be
    /// written now is written with the next change.
    pub(super) async fn note_names(&self, survey: &Survey) {
        let Some((_, address)) = agreeing(survey, None) else { return };
        let known = self.memory().stored.clone();
        let stored = match known {
            Some(stored) => stored,
            None => match self.ask.key(address, NAMES).await {
                Ok(value) => value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default(),
                Err(_) => return,
            },
        };
        let mut next = stored.clone();
        learn(&mut next, survey.names());
        next.retain(|peer, _| survey.peers.contains_key(peer));
        if next == stored || self.ask.set_key(address, NAMES, json!(next)).await == Changed::Accepted {
            self.memory().stored = Some(next);
        }
    }

    /// Takes a member out that holds nothing; Qdrant refuses where it holds something.
    pub(super) async fn remove_empty(&self, node: &NodeId) -> Effect<()> {
        let survey = match self.survey().await {
            Ok(survey) => survey,
            Err(why) => return Effect::NoEffect(why.0),
        };
        let Some(id) = survey.peer_of(node) else { return gone(&survey, node) };
        let Some((_, address)) = agreeing(&survey, Some(id)) else {
            return Effect::NoEffect(disagreement(&survey));
        };
        if survey.leader == Some(id) && survey.peers.len() == 2 {
            let why = "it leads the last two members, and the other might be left without a leader";
            return Effect::NoEffect(format!("{node}: {why}"));
        }
        match self.ask.remove_peer(address, id, false).await {
            Changed::Accepted => self.confirm_gone(node).await,
            other => other.effect(),
        }
    }

    /// Strikes a member off that is dead on the others' word too, where they can be asked. What it was listed for must have
    /// an active copy on a member that answers, on the word of every such member: Qdrant itself would give up the last one
    /// without asking.
    pub(super) async fn strike_off(&self, node: &NodeId) -> Effect<()> {
        let survey = match self.survey().await {
            Ok(survey) => survey,
            Err(why) => return Effect::NoEffect(why.0),
        };
        let Some(id) = survey.peer_of(node) else { return gone(&survey, node) };
        let Some((_, address)) = agreeing(&survey, Some(id)) else {
            return Effect::NoEffect(disagreement(&survey));
        };
        let (unreached, held) = tokio::join!(self.unreached(&survey), self.left_without(&survey, id));
        if let Some(why) = survey.sign_of_life(id, unreached.as_ref()) {
            return Effect::NoEffect(format!("{node}: {why}"));
        }
        let held = match held {
            Ok(held) => held,
            Err(why) => return Effect::NoEffect(why.0),
        };
        // They would never end by themselves.
        for (collection, transfer) in &held.transfers {
            let ends = (transfer.from, transfer.to);
            match self.ask.abort(address, collection, transfer.shard_id, ends).await {
                Changed::Accepted | Changed::Missing(_) => {}
                other => return other.effect(),
            }
        }
        if !held.transfers.is_empty() {
            return Effect::InProgress; // looked at anew before it goes on
        }
        match self.ask.remove_peer(address, id, held.has_copies).await {
            Changed::Accepted => self.confirm_gone(node).await,
            other => other.effect(),
        }
    }

    /// What is listed of a dead member.
    ///
    /// # Errors
    /// When a shard would be left without an active copy, or that cannot be known.
    async fn left_without(&self, survey: &Survey, dead: PeerId) -> Result<Held, Unanswered> {
        let living: BTreeSet<PeerId> = survey.living().map(|(id, _)| id).collect();
        let asked = survey.living().map(|(_, peer)| async move {
            let views = self.views(&peer.address).await;
            views.map_err(|error| Unanswered(format!("{}: {error}", peer.node)))
        });
        let mut held = Held::default();
        for (name, view) in try_join_all(asked).await?.into_iter().flatten() {
            let placed = seen_by_one(&name, view);
            for (shard, peer) in placed.copies.keys().filter(|(_, peer)| *peer == dead) {
                held.has_copies = true;
                if !placed.active(*shard).any(|other| other != *peer && living.contains(&other)) {
                    let node = &survey.peers[&dead].node;
                    return Err(Unanswered(format!("{name}/{shard} has its only active copy on {node}")));
                }
            }
            let touches = |transfer: &&TransferTold| transfer.from == dead || transfer.to == dead;
            for transfer in placed.transfers.iter().filter(touches) {
                let entry = (name.clone(), transfer.clone());
                if !held.transfers.iter().any(|(name, known)| *name == entry.0 && same(known, transfer)) {
                    held.transfers.push(entry);
                }
            }
        }
        Ok(held)
    }

    /// The removal was taken up; done it is when no member lists it any more, and they have a leader again.
    async fn confirm_gone(&self, node: &NodeId) -> Effect<()> {
        match self.survey().await {
            Ok(survey) if survey.peer_of(node).is_none() => gone(&survey, node),
            _ => Effect::InProgress,
        }
    }
}

/// What a dead member is listed for.
#[derive(Default)]
struct Held {
    has_copies: bool,
    transfers: Vec<(String, TransferTold)>,
}

fn same(one: &TransferTold, other: &TransferTold) -> bool {
    (one.shard_id, one.from, one.to) == (other.shard_id, other.from, other.to)
}

/// A node that no member is known as. It may be one that nobody could name, unless it speaks for itself.
fn gone(survey: &Survey, node: &NodeId) -> Effect<()> {
    if let Some(nameless) = survey.peers.values().find(|peer| peer.is_nameless)
        && survey.stranger(node).is_none()
    {
        return Effect::Unknown(format!("{} is a member that nobody can name: it may be {node}", nameless.node));
    }
    let agree =
        survey.living().all(|(_, peer)| peer.own.as_ref().is_some_and(|own| own.peers.keys().eq(survey.peers.keys())));
    // After the leader has left it takes some seconds until there is another.
    if agree && survey.no_quorum.is_none() { Effect::Done(()) } else { Effect::InProgress }
}

/// Who takes a change, when the members can agree on one.
fn agreeing(survey: &Survey, without: Option<PeerId>) -> Option<(PeerId, &str)> {
    if survey.no_quorum.is_some() { None } else { survey.spokesman(without) }
}

fn disagreement(survey: &Survey) -> String {
    let why = survey.no_quorum.as_deref().unwrap_or("no other member answers");
    format!("the members can agree on no change: {why}")
}

/// Why a member's version keeps it out.
fn other_version(survey: &Survey, id: PeerId) -> Option<String> {
    let own = &survey.peers[&id];
    let Some(version) = &own.version else { return Some(format!("{} does not tell its version", own.node)) };
    let differs = |peer: &&Peer| peer.version.as_ref().is_some_and(|other| other != version);
    let other = survey.peers.values().find(differs)?;
    let theirs = other.version.as_deref().unwrap_or_default();
    Some(format!("{} runs Qdrant {version}, {} runs {theirs}: bring all to one version first", own.node, other.node))
}
