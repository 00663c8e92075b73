//! Copies that are made, dropped and called off. What may be done is decided by plain functions from what *every*
//! living member sees at that moment; members that see different things are waited for.

use std::collections::{BTreeMap, BTreeSet};

use super::Qdrant;
use super::placement::{Placed, seen_by_one, wanted};
use super::read::wanted_of;
use super::survey::{Survey, nameless};
use super::told::{PeerId, TransferTold, minor};
use super::words::{Changed, NotTold};
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
    /// The transfer goes. What Qdrant leaves behind of it is looked at anew.
    Abort,
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

    /// How many copies besides this one are listed, whatever their state.
    fn listed_besides(&self, shard: u32, peer: PeerId) -> usize {
        let copies = self.views.values().flat_map(|view| view.copies.keys());
        copies.filter(|(of, on)| *of == shard && *on != peer).map(|(_, on)| on).collect::<BTreeSet<_>>().len()
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

/// Whether the source's copy may go: the other is whole on every member's word, and enough are left. `before`: how many
/// active copies lay on living members when this driver started the copy, if it remembers; no fewer may be left.
pub fn may_drop(sight: &Sight, way: Way, before: Option<usize>) -> Next {
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
    let is_keyed = sight.views.values().any(|view| view.is_keyed);
    let needed = before.unwrap_or_else(|| match sight.wanted as usize {
        // What is wanted of one key is told nowhere, and may be more than of another: each that is listed.
        wanted if is_keyed => wanted.max(sight.listed_besides(shard, from)),
        wanted => wanted,
    });
    match before {
        _ if left >= needed => Next::Go,
        Some(_) => Next::Refuse(format!("{left} active copies would be left, and there were {needed} before the move")),
        None => Next::Refuse(format!(
            "{left} of {needed} active copies would be left; whether there were fewer before is not known any more, so \
             both stay"
        )),
    }
}

/// How a copy under way is ended so that the source keeps its own. `ours`: a relocation that this driver started.
pub fn how_to_cancel(sight: &Sight, way: Way, ours: bool) -> End {
    let Way { shard, from, to } = way;
    let source_lives = sight.survey.is_living(from) && sight.is(shard, from, Some(ReplicaState::Active));
    if let Some(transfer) = sight.transfers(shard).find(|transfer| (transfer.from, transfer.to) == (from, to)) {
        return match (transfer.sync, source_lives) {
            (true, true) => End::DropTarget,
            // A source that is silent to us may end the transfer all the same: nothing is dropped yet.
            _ => End::Abort,
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
    let may_be_whole = there.contains(&Some(ReplicaState::Active));
    let another_lives = sight.active(shard).iter().any(|peer| *peer != to);
    match (whole, ours) {
        (true, false) => End::Done,
        // Left as it is, Qdrant would fill it again by itself.
        _ if source_lives || (another_lives && !may_be_whole) => End::DropTarget,
        _ => End::Refuse(format!("{} is not there to keep its copy", sight.name(from))),
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
        let views: BTreeMap<PeerId, Placed> = futures::future::try_join_all(asked).await?.into_iter().collect();
        let remembered = views.values().filter_map(|view| self.memory().least_copies(&shard.collection, view)).max();
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
        let before = self.memory().started.get(&started).copied();
        match may_copy(&sight, way, is_move, before.is_some()) {
            Next::Go => {}
            Next::Done => return Effect::Done(()),
            Next::Wait => return Effect::InProgress,
            Next::Refuse(why) => return Effect::NoEffect(format!("{}: {why}", copy.shard)),
            Next::Clear(dead) => return self.clear(&sight, &copy.shard, &dead).await,
        }
        self.note_names(&sight.survey).await;
        let Some((_, address)) = sight.survey.spokesman(None) else { return Effect::NoEffect("nobody answers".into()) };
        if is_move {
            // An earlier attempt in doubt may be the one that runs.
            let active = sight.active(way.shard).len().max(before.unwrap_or(0));
            self.memory().started.insert(started.clone(), active);
        }
        let method = method(&sight.survey);
        let (from_to, shard) = ((way.from, way.to), way.shard);
        let effect = self.ask.replicate(address, &copy.shard.collection, shard, from_to, method).await.effect();
        if matches!(effect, Effect::NoEffect(_)) && before.is_none() {
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
        let before = self.memory().started.get(&started).copied();
        let next = may_drop(&sight, way, before);
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
                Ok((sight, way)) if may_drop(&sight, way, before) == Next::Done => Next::Done,
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
        let unreached = self.unreached(&sight.survey).await;
        let silence = sight.survey.peers.get(&dead.from).and_then(|peer| peer.silence.as_ref());
        let is_down = unreached.is_some() || matches!(silence, Some(NotTold::Closed(_)));
        let alive = sight.survey.sign_of_life(dead.from, unreached.as_ref());
        if let Some(why) = alive.or((!is_down).then(|| "it is silent to us, and nobody else tells of it".into())) {
            let words = sight.transfer_words(dead);
            return Effect::NoEffect(format!("{shard}: {words}, and {} may live: {why}", sight.name(dead.from)));
        }
        let Some((_, address)) = sight.survey.spokesman(None) else { return Effect::NoEffect("nobody answers".into()) };
        match self.ask.abort(address, &shard.collection, shard.shard, (dead.from, dead.to)).await {
            Changed::Accepted | Changed::Missing(_) => Effect::NoEffect(format!(
                "{shard}: a transfer from {}, which is dead, was aborted first",
                sight.name(dead.from)
            )),
            other => other.effect(),
        }
    }

    /// Ends a copy under way. After an abort it is looked at anew: the copy may have become whole before it.
    pub(super) async fn cancel(&self, copy: &Move) -> Effect<()> {
        let mut is_aborted = false;
        loop {
            let (sight, way) = match self.look(copy).await {
                Ok(seen) => seen,
                Err(_) if is_aborted => return Effect::InProgress,
                Err(why) => return Effect::NoEffect(why),
            };
            let Some((_, address)) = sight.survey.spokesman(None) else {
                return Effect::NoEffect("nobody answers".into());
            };
            let started = (copy.shard.clone(), way.from, way.to);
            let ours = self.memory().started.contains_key(&started);
            let (collection, ends) = (&*copy.shard.collection, (way.from, way.to));
            match how_to_cancel(&sight, way, ours) {
                End::Done => {}
                End::Abort | End::Refuse(_) if is_aborted => return Effect::InProgress,
                End::Refuse(why) => return Effect::NoEffect(format!("{}: {why}", copy.shard)),
                End::Abort => match self.ask.abort(address, collection, way.shard, ends).await {
                    Changed::Accepted => {
                        is_aborted = true;
                        continue;
                    }
                    // It has ended meanwhile, and what it made may be the only whole copy by now.
                    Changed::Missing(_) => return Effect::InProgress,
                    other => return other.effect(),
                },
                End::DropTarget => match self.ask.drop_replica(address, collection, way.shard, way.to).await {
                    Changed::Accepted => {}
                    Changed::Refused(why) if why.contains("has no replica") => {}
                    other => return other.effect(),
                },
            }
            self.memory().started.remove(&started);
            return Effect::Done(());
        }
    }
}

/// How a copy travels; never left to Qdrant, whose default has changed. A snapshot brings its index along, so that the
/// target is fast at once; records are the surer way with versions before that was the default.
fn method(survey: &Survey) -> &'static str {
    let knows = |version: &Option<String>| version.as_deref().and_then(minor) >= Some((1, 18));
    if survey.living().all(|(_, peer)| knows(&peer.version)) { "snapshot" } else { "stream_records" }
}
