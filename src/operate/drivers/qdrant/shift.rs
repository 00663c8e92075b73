//! Copies that are made, dropped and called off. What may be done is decided by plain functions from what *every*
//! living member sees at that moment; members that see different things are waited for.

use std::collections::{BTreeMap, BTreeSet};

use super::Qdrant;
use super::placement::{Placed, seen_by_one, wanted};
use super::read::wanted_of;
use super::survey::{Survey, nameless};
use super::told::{PeerId, TransferTold, minor};
use super::words::Changed;
use crate::model::{Move, NodeId, ReplicaState, ShardId};
use crate::operate::drivers::{Effect, Unanswered};

/// A copy may have this share of its source's points fewer, for writes go on between two reads.
const MAY_LACK_SHARE: f64 = 0.01;
/// The same in points, for small shards.
const MAY_LACK_POINTS: u64 = 100;

/// One collection as every living member sees it.
pub struct Sight {
    pub survey: Survey,
    pub views: BTreeMap<PeerId, Placed>,
    pub wanted: u32,
    pub cordoned: BTreeSet<PeerId>,
}

/// One copy on its way, by the members' numbers.
#[derive(Clone, Copy)]
pub struct Way {
    pub shard: u32,
    pub from: PeerId,
    pub to: PeerId,
}

/// What is to be done about a copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Go,
    /// It is so already.
    Done,
    /// The members have yet to see the same.
    Wait,
    /// A transfer is in the way that will never end: its source is dead.
    Clear(TransferTold),
    Refuse(String),
}

/// What ends a copy that is under way.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Nothing is under way.
    Done,
    /// The target's copy goes, and with it the transfer.
    DropTarget,
    /// The transfer goes, and Qdrant clears away what it was to be.
    Abort,
    /// Both: of a replication whose source is dead the target stays behind.
    AbortAndDrop,
    Refuse(String),
}

impl Sight {
    fn name(&self, peer: PeerId) -> NodeId {
        self.survey.peers.get(&peer).map_or_else(|| nameless(peer), |peer| peer.node.clone())
    }

    fn transfers(&self, shard: u32) -> impl Iterator<Item = &TransferTold> {
        self.views.values().flat_map(|view| &view.transfers).filter(move |transfer| transfer.shard_id == shard)
    }

    /// How the members see a copy: each state once, `None` where it is not listed.
    fn states(&self, shard: u32, peer: PeerId) -> Vec<Option<ReplicaState>> {
        let mut states: Vec<_> = self.views.values().map(|view| view.state(shard, peer)).collect();
        states.dedup();
        states
    }

    fn is(&self, shard: u32, peer: PeerId, state: Option<ReplicaState>) -> bool {
        self.states(shard, peer) == [state]
    }

    /// Points that a peer itself counts in its copy.
    fn points(&self, shard: u32, peer: PeerId) -> Option<u64> {
        Some(self.views.get(&peer)?.size(shard, peer)?.points)
    }

    /// Members that answer and have an active copy, as every member sees it.
    fn active(&self, shard: u32) -> Vec<PeerId> {
        let active = |peer: &PeerId| self.is(shard, *peer, Some(ReplicaState::Active));
        self.survey.living().map(|(id, _)| id).filter(active).collect()
    }

    /// What is wrong with the words for a person.
    fn transfer_words(&self, transfer: &TransferTold) -> String {
        format!("it is in transfer already, {} -> {}", self.name(transfer.from), self.name(transfer.to))
    }
}

/// Whether a copy may be started. `is_move`: the source's copy is to go afterwards; `ours`: this driver started it
/// before.
pub fn may_copy(sight: &Sight, way: Way, is_move: bool, ours: bool) -> Next {
    let Way { shard, from, to } = way;
    if let Some(transfer) = sight.transfers(shard).next() {
        if sight.survey.long_silent.contains(&transfer.from) {
            return Next::Clear(transfer.clone());
        }
        let same = (transfer.from, transfer.to) == (from, to);
        return if same { Next::Done } else { Next::Refuse(sight.transfer_words(transfer)) };
    }
    if let Some(remark) = sight.views.values().flat_map(|view| &view.remarks).next() {
        return Next::Refuse(remark.clone());
    }
    if sight.is(shard, to, Some(ReplicaState::Active)) {
        let left = sight.active(shard).into_iter().filter(|peer| *peer != from).count();
        // Qdrant would take this for a wish to have one copy fewer.
        if is_move && !ours && left < sight.wanted as usize {
            let node = sight.name(to);
            return Next::Refuse(format!("{node} has a copy already: {left} of {} would be left", sight.wanted));
        }
        return Next::Done;
    }
    if !sight.is(shard, to, None) {
        return Next::Refuse(format!("{} has a copy that is not whole", sight.name(to)));
    }
    if !sight.is(shard, from, Some(ReplicaState::Active)) {
        return Next::Refuse(format!("{} has no active copy", sight.name(from)));
    }
    for peer in [from, to] {
        if let Some(why) = sight.survey.trouble(peer) {
            return Next::Refuse(format!("{}: {why}", sight.name(peer)));
        }
    }
    if sight.cordoned.contains(&to) { Next::Refuse(format!("{} is cordoned", sight.name(to))) } else { Next::Go }
}

/// Whether the source's copy may go: the other is whole on every member's word, and enough are left.
pub fn may_drop(sight: &Sight, way: Way, ours: bool) -> Next {
    let Way { shard, from, to } = way;
    if sight.transfers(shard).next().is_some() {
        return Next::Wait;
    }
    let arrived = sight.is(shard, to, Some(ReplicaState::Active));
    if sight.is(shard, from, None) {
        return if arrived { Next::Done } else { Next::Refuse(format!("{} has no whole copy", sight.name(to))) };
    }
    if sight.is(shard, to, None) {
        return Next::Refuse(format!("{} has no copy", sight.name(to)));
    }
    if !arrived || sight.states(shard, from).contains(&None) {
        return Next::Wait;
    }
    let (Some(has), Some(should)) = (sight.points(shard, to), sight.points(shard, from)) else {
        return Next::Refuse("source and target do not both answer".into());
    };
    let lacks = should.saturating_sub(has);
    if lacks > MAY_LACK_POINTS.max((should as f64 * MAY_LACK_SHARE) as u64) {
        return Next::Refuse(format!("the new copy has {has} points, the old one {should}"));
    }
    let left = sight.active(shard).into_iter().filter(|peer| *peer != from).count();
    let needed = if ours { 1 } else { sight.wanted as usize };
    if left < needed {
        return Next::Refuse(format!("{left} of {needed} active copies would be left"));
    }
    Next::Go
}

/// How a copy under way is ended so that the source keeps its own. `ours`: a relocation that this driver started.
pub fn how_to_cancel(sight: &Sight, way: Way, ours: bool) -> End {
    let Way { shard, from, to } = way;
    let source_lives = sight.survey.is_living(from) && sight.is(shard, from, Some(ReplicaState::Active));
    if let Some(transfer) = sight.transfers(shard).find(|transfer| (transfer.from, transfer.to) == (from, to)) {
        return match (transfer.sync, source_lives) {
            (true, true) => End::DropTarget,
            (true, false) => End::AbortAndDrop,
            (false, _) => End::Abort,
        };
    }
    let there = sight.states(shard, to);
    if there == [None] {
        return End::Done;
    }
    if sight.is(shard, from, None) {
        return End::Refuse(format!("the move has ended: {} no longer holds it", sight.name(from)));
    }
    let whole = there == [Some(ReplicaState::Active)];
    match (whole, ours, source_lives) {
        (true, false, _) => End::Done,
        // Left as it is, Qdrant would fill it again by itself.
        (_, _, true) => End::DropTarget,
        (_, _, false) => End::Refuse(format!("{} is not there to keep its copy", sight.name(from))),
    }
}

impl Qdrant {
    /// What every living member sees of the shard's collection.
    async fn sight(&self, shard: &ShardId) -> Result<Sight, Unanswered> {
        let survey = self.survey().await?;
        if let Some(why) = &survey.no_quorum {
            return Err(Unanswered(format!("the members can agree on no change: {why}")));
        }
        let (_, address) = survey.spokesman(None).ok_or_else(|| Unanswered("no member answers".into()))?;
        let told = self.ask.telemetry(address, 2).await.map_err(|error| Unanswered(error.to_string()))?;
        let cordoned = self.cordoned(&survey).await?;
        let asked = survey.living().map(|(id, peer)| async move {
            let view = self.ask.local_view(&peer.address, &shard.collection).await;
            let view = view.map_err(|error| Unanswered(format!("{}: {error}", peer.node)))?;
            Ok::<_, Unanswered>((id, seen_by_one(&shard.collection, view)))
        });
        let views = futures::future::try_join_all(asked).await?.into_iter().collect();
        let remembered = self.memory().copies.get(shard).copied();
        let wanted = wanted_of(&shard.collection, &wanted(&told), remembered);
        Ok(Sight { survey, views, wanted, cordoned })
    }

    async fn look(&self, relocation: &Move) -> Result<(Sight, Way), String> {
        let sight = self.sight(&relocation.shard).await.map_err(|why| why.0)?;
        let peer = |node: &NodeId| sight.survey.peer_of(node).ok_or_else(|| format!("{node} is not a member"));
        let way = Way { shard: relocation.shard.shard, from: peer(&relocation.from)?, to: peer(&relocation.to)? };
        Ok((sight, way))
    }

    /// Starts a copy. What is read first cannot be read: nothing was asked for.
    pub(super) async fn copy(&self, copy: &Move, is_move: bool) -> Effect<()> {
        let (sight, way) = match self.look(copy).await {
            Ok(seen) => seen,
            Err(why) => return Effect::NoEffect(why),
        };
        let started = (copy.shard.clone(), way.from, way.to);
        let ours = self.memory().started.contains(&started);
        match may_copy(&sight, way, is_move, ours) {
            Next::Go => {}
            Next::Done => return Effect::Done(()),
            Next::Wait => return Effect::InProgress,
            Next::Refuse(why) => return Effect::NoEffect(format!("{}: {why}", copy.shard)),
            Next::Clear(dead) => return self.clear(&sight, &copy.shard, &dead).await,
        }
        self.note_names(&sight.survey).await;
        let Some((_, address)) = sight.survey.spokesman(None) else { return Effect::NoEffect("nobody answers".into()) };
        if is_move {
            self.memory().started.insert(started.clone());
        }
        let method = method(&sight.survey);
        let (from_to, shard) = ((way.from, way.to), way.shard);
        let effect = self.ask.replicate(address, &copy.shard.collection, shard, from_to, method).await.effect();
        if matches!(effect, Effect::NoEffect(_)) {
            self.memory().started.remove(&started);
        }
        effect
    }

    /// Drops the source's copy of a relocation whose new copy is whole.
    pub(super) async fn drop_source(&self, relocation: &Move) -> Effect<()> {
        let (sight, way) = match self.look(relocation).await {
            Ok(seen) => seen,
            Err(why) => return Effect::NoEffect(why),
        };
        let started = (relocation.shard.clone(), way.from, way.to);
        let ours = self.memory().started.contains(&started);
        let next = may_drop(&sight, way, ours);
        if next == Next::Go {
            let Some((_, address)) = sight.survey.spokesman(None) else {
                return Effect::NoEffect("nobody answers".into());
            };
            let dropped = self.ask.drop_replica(address, &relocation.shard.collection, way.shard, way.from).await;
            if dropped != Changed::Accepted {
                return dropped.effect();
            }
        }
        let next = match next {
            // Taken up is not done: the next look tells.
            Next::Go => match self.look(relocation).await {
                Ok((sight, way)) if may_drop(&sight, way, ours) == Next::Done => Next::Done,
                _ => Next::Wait,
            },
            seen => seen,
        };
        match next {
            Next::Done => {
                self.memory().started.remove(&started);
                Effect::Done(())
            }
            Next::Refuse(why) => Effect::NoEffect(format!("{}: {why}", relocation.shard)),
            Next::Go | Next::Wait | Next::Clear(_) => Effect::InProgress,
        }
    }

    /// Aborts a transfer whose source is dead, so that the next attempt finds the shard free.
    async fn clear(&self, sight: &Sight, shard: &ShardId, dead: &TransferTold) -> Effect<()> {
        let Some((_, address)) = sight.survey.spokesman(None) else { return Effect::NoEffect("nobody answers".into()) };
        match self.ask.abort(address, &shard.collection, shard.shard, (dead.from, dead.to)).await {
            Changed::Accepted | Changed::Missing(_) => Effect::NoEffect(format!(
                "{shard}: a transfer from {}, which is dead, was aborted first",
                sight.name(dead.from)
            )),
            other => other.effect(),
        }
    }

    /// Ends a copy under way.
    pub(super) async fn cancel(&self, copy: &Move) -> Effect<()> {
        let (sight, way) = match self.look(copy).await {
            Ok(seen) => seen,
            Err(why) => return Effect::NoEffect(why),
        };
        let started = (copy.shard.clone(), way.from, way.to);
        let end = how_to_cancel(&sight, way, self.memory().started.contains(&started));
        let Some((_, address)) = sight.survey.spokesman(None) else { return Effect::NoEffect("nobody answers".into()) };
        let collection = &*copy.shard.collection;
        if matches!(end, End::Abort | End::AbortAndDrop) {
            match self.ask.abort(address, collection, way.shard, (way.from, way.to)).await {
                // One that has ended meanwhile is none any more.
                Changed::Accepted | Changed::Missing(_) => {}
                other => return other.effect(),
            }
        }
        if matches!(end, End::DropTarget | End::AbortAndDrop) {
            match self.ask.drop_replica(address, collection, way.shard, way.to).await {
                Changed::Accepted => {}
                Changed::Refused(why) if why.contains("has no replica") => {}
                other => return other.effect(),
            }
        }
        if let End::Refuse(why) = end {
            return Effect::NoEffect(format!("{}: {why}", copy.shard));
        }
        self.memory().started.remove(&started);
        Effect::Done(())
    }
}

/// How a copy travels; never left to Qdrant, whose default has changed. A snapshot brings its index along, so that the
/// target is fast at once; records are the surer way with versions before that was the default.
fn method(survey: &Survey) -> &'static str {
    let knows = |version: &Option<String>| version.as_deref().and_then(minor) >= Some((1, 18));
    if survey.living().all(|(_, peer)| knows(&peer.version)) { "snapshot" } else { "stream_records" }
}
