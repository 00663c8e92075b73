//! What happens to an invented cluster without being asked for: nodes die, come back, lie and lag; vectors are written;
//! copies that missed a write are made whole again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::deeds::Deed;
use super::world::{State, World};
use crate::model::{Answer, Gap, Inventory, NodeId, NodeSample, Raw, ShardId, Signal, Timestamp};
use crate::scrape::Target;

/// So long after its return a node gets anew what it missed.
const HEALED_AFTER: Duration = Duration::from_secs(45);
/// Of a hundred shards, so many get a vector between two checks.
const WRITES_PER_CENT: u32 = 50;

/// What is the matter with a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// Nothing of it works, and the others notice.
    pub dead_since: Option<Instant>,
    /// When it died last, be it back or not.
    pub last_death: Option<Instant>,
    /// The others call it unhealthy, whatever it does.
    pub is_ill: bool,
    /// It never comes back.
    pub doomed: bool,
    back_since: Option<Instant>,
    /// We cannot reach it; the others can.
    pub cut_off: bool,
    /// The others call it well; asked itself, it does not serve.
    pub lies: bool,
    /// It says that it holds nothing.
    pub denies: bool,
    /// What it believes the cluster to be, when that is old.
    pub believes: Option<Inventory>,
    /// Its page lacks numbers.
    pub is_mute: bool,
}

/// What the provider's list is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    Told,
    Fails,
    Empty,
}

/// Something that befalls one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It ends; the machine stays listed. It may come back.
    Dies,
    /// It ends for good; the machine stays listed.
    DiesForGood,
    /// Machine and data are gone, by other hands.
    Vanishes,
    ComesBack,
    /// It comes back without its data.
    ComesBackEmpty,
    CutOff,
    Lies,
    Denies,
    /// Its view of the cluster stands still.
    Lags,
    /// Its page lacks numbers.
    FallsMute,
    /// All but death and its data is well again.
    Mends,
}

impl World {
    /// Something befalls the node; the name of it is counted.
    pub fn strikes(&self, id: &NodeId, blow: Blow) {
        let mut state = self.state();
        if !state.fates.contains_key(id) && !state.machines.contains_key(id) {
            return;
        }
        let text = match blow {
            Blow::Dies | Blow::DiesForGood => "dies",
            Blow::Vanishes => "vanishes, machine and all",
            Blow::ComesBack => "comes back",
            Blow::ComesBackEmpty => "comes back without its data",
            Blow::CutOff => "cannot be reached by us",
            Blow::Lies => "is called well and does not serve",
            Blow::Denies => "says that it holds nothing",
            Blow::Lags => "sees no change any more",
            Blow::FallsMute => "gives no numbers",
            Blow::Mends => "is as it should be",
        };
        state.told(format!("{id} {text}"));
        match blow {
            Blow::Dies => state.die(id),
            Blow::DiesForGood => {
                state.die(id);
                state.fates.entry(id.clone()).or_default().doomed = true;
            }
            Blow::Vanishes => {
                state.die(id);
                state.fates.entry(id.clone()).or_default().doomed = true;
                state.laws.taken(id);
                state.remove_machine(id);
                state.wipe(id);
                if !state.scale.data {
                    state.members.remove(id);
                }
            }
            Blow::ComesBack => state.come_back(id),
            Blow::ComesBackEmpty => {
                if state.fates.get(id).is_some_and(|fate| fate.dead_since.is_some() && !fate.doomed) {
                    state.wipe(id);
                }
                state.come_back(id);
            }
            Blow::Lags => {
                let view = state.inventory();
                state.fates.entry(id.clone()).or_default().believes = Some(view);
            }
            Blow::CutOff => state.fates.entry(id.clone()).or_default().cut_off = true,
            Blow::Lies => state.fates.entry(id.clone()).or_default().lies = true,
            Blow::Denies => state.fates.entry(id.clone()).or_default().denies = true,
            Blow::FallsMute => state.fates.entry(id.clone()).or_default().is_mute = true,
            Blow::Mends => {
                let fate = state.fates.entry(id.clone()).or_default();
                *fate = Fate {
                    dead_since: fate.dead_since,
                    last_death: fate.last_death,
                    doomed: fate.doomed,
                    back_since: fate.back_since,
                    ..Fate::default()
                };
            }
        }
        let counted = match blow {
            Blow::Dies | Blow::DiesForGood | Blow::Vanishes => "dead nodes",
            Blow::ComesBack | Blow::Mends => return,
            Blow::ComesBackEmpty => "nodes back empty",
            Blow::CutOff => "nodes cut off",
            Blow::Lies | Blow::Denies => "lying nodes",
            Blow::Lags => "lagging views",
            Blow::FallsMute => "missing readings",
        };
        state.tally.fault(counted);
    }

    /// From now on nothing goes wrong any more; what is dead for good stays dead.
    pub fn calms_down(&self) {
        let ids: Vec<NodeId> = {
            let mut state = self.state();
            state.told("the faults stop".into());
            state.faults.stop();
            state.flight = Some(Duration::from_secs(5));
            (state.listing, state.store_is_silent) = (Listing::Told, false);
            (state.reads_last, state.full) = (Duration::ZERO, 0);
            let now = Instant::now();
            for flight in &mut state.flights {
                flight.ends = flight.ends.min(now + Duration::from_secs(60));
            }
            state.fates.keys().cloned().collect()
        };
        for id in ids {
            self.strikes(&id, Blow::Mends);
            self.strikes(&id, Blow::ComesBack);
        }
    }
}

impl State {
    pub fn is_dead(&self, id: &NodeId) -> bool {
        self.fates.get(id).is_some_and(|fate| fate.dead_since.is_some())
    }

    /// Whether we get no answer from it.
    pub fn is_silent(&self, id: &NodeId) -> bool {
        self.is_dead(id) || self.fates.get(id).is_some_and(|fate| fate.cut_off)
    }

    /// The machine is gone by other hands, and no request of before brings it back.
    pub fn remove_machine(&mut self, id: &NodeId) {
        self.machines.remove(id);
        self.due.retain(|due| !matches!(&due.deed, Deed::Create(new) if new.id == *id));
    }

    pub fn die(&mut self, id: &NodeId) {
        let fate = self.fates.entry(id.clone()).or_default();
        if fate.dead_since.is_none() {
            fate.dead_since = Some(Instant::now());
            fate.last_death = fate.dead_since;
        }
    }

    fn come_back(&mut self, id: &NodeId) {
        let Some(fate) = self.fates.get_mut(id).filter(|fate| !fate.doomed) else { return };
        if fate.dead_since.take().is_some() {
            fate.back_since = Some(Instant::now());
        }
    }

    /// The node's data is gone. What was nowhere else is lost by nature: no one is to be blamed for it later.
    fn wipe(&mut self, id: &NodeId) {
        let shards: Vec<ShardId> = self.copies.keys().filter(|(_, on)| on == id).map(|(s, _)| s.clone()).collect();
        for shard in shards {
            if let Some(held) = self.copies.get_mut(&(shard.clone(), id.clone())) {
                held.vectors.clear();
                held.stale = true;
            }
            self.promote(&shard);
        }
        self.nature_took();
    }

    /// A shard without any whole copy goes on from the fullest that is left.
    fn promote(&mut self, shard: &ShardId) {
        let mut copies: Vec<_> = self.copies.iter_mut().filter(|((s, _), _)| s == shard).collect();
        if copies.iter().any(|(_, held)| !held.stale) {
            return;
        }
        let Some((_, fullest)) = copies.iter_mut().max_by_key(|(_, held)| held.vectors.len()) else { return };
        fullest.stale = false;
        self.acked.insert(shard.clone(), fullest.vectors.clone());
    }

    /// Clients write between two checks. Acknowledged is what every whole copy within reach has; a copy out of reach has
    /// missed it.
    pub fn writes(&mut self) {
        for shard in self.acked.keys().cloned().collect::<Vec<_>>() {
            if self.rng.u32(0..100) >= WRITES_PER_CENT {
                continue;
            }
            let whole: Vec<NodeId> = self
                .copies
                .iter()
                .filter(|((s, _), h)| *s == shard && !h.stale)
                .map(|((_, on), _)| on.clone())
                .collect();
            let (reached, missed): (Vec<NodeId>, Vec<NodeId>) = whole.into_iter().partition(|on| !self.is_dead(on));
            if reached.is_empty() {
                continue; // refused, and not acknowledged
            }
            let acked = self.acked.entry(shard.clone()).or_default();
            let vector = acked.last().map_or(0, |last| last + 1);
            acked.insert(vector);
            for on in reached {
                if let Some(held) = self.copies.get_mut(&(shard.clone(), on)) {
                    held.vectors.insert(vector);
                }
            }
            for on in missed {
                if let Some(held) = self.copies.get_mut(&(shard.clone(), on)) {
                    held.stale = true;
                }
            }
        }
        self.heal();
        self.nature_took();
    }

    /// The store makes copies whole again that missed something, some time after their node has come back.
    fn heal(&mut self) {
        let now = Instant::now();
        let is_well = |fate: Option<&Fate>| {
            let since = fate.and_then(|fate| fate.back_since);
            since.is_none_or(|since| now.saturating_duration_since(since) >= HEALED_AFTER)
        };
        let stale: Vec<(ShardId, NodeId)> =
            self.copies.iter().filter(|(_, h)| h.stale).map(|(k, _)| k.clone()).collect();
        for (shard, on) in stale {
            if self.is_dead(&on) || !is_well(self.fates.get(&on)) {
                continue;
            }
            let whole = self.copies.iter().find(|((s, other), h)| *s == shard && !h.stale && !self.is_dead(other));
            if let Some(held) = whole.map(|(_, held)| held.clone()) {
                self.copies.insert((shard, on), held);
            }
        }
    }

    /// What each node's page says now.
    pub fn samples(&mut self, targets: &[Target], at: Timestamp, signals: &[Signal]) -> Vec<NodeSample> {
        let load = self.load.at(self.since_start());
        let serving = self.members.keys().filter(|id| !self.is_dead(id)).count().max(1);
        let share = load / serving as f64;
        let mut samples: Vec<NodeSample> =
            targets.iter().map(|target| self.sample(&target.id, at, signals, share)).collect();
        samples.sort_by(|a, b| a.node.cmp(&b.node));
        let gaps = |sample: &NodeSample| sample.signals.values().any(Result::is_err);
        let blind: Vec<String> = samples
            .iter()
            .filter(|s| gaps(s) && self.members.contains_key(&s.node) && !self.laws.lost.contains(&s.node))
            .map(|s| s.node.to_string())
            .collect();
        self.laws.looked(blind);
        samples
    }

    fn sample(&mut self, id: &NodeId, at: Timestamp, signals: &[Signal], share: f64) -> NodeSample {
        let took = Duration::from_millis(5);
        let all = |gap: Gap| signals.iter().map(|s| (s.clone(), Err(gap.clone()))).collect();
        if self.is_silent(id) {
            let signals = all(Gap::NoAnswer("no route to host".into()));
            return NodeSample { node: id.clone(), at, took, answer: Answer::None, signals };
        }
        let values = self.values(id, share);
        let is_mute = self.fates.get(id).is_some_and(|fate| fate.is_mute);
        let signals = signals
            .iter()
            .map(|signal| {
                let known = values.get(signal).filter(|_| !(is_mute && signal.is_usage()));
                let raw = known.map(|value| Raw::Gauge(*value)).ok_or_else(|| Gap::NoSeries(signal.to_string()));
                (signal.clone(), raw)
            })
            .collect();
        NodeSample { node: id.clone(), at, took, answer: Answer::Up, signals }
    }

    fn values(&mut self, id: &NodeId, share: f64) -> BTreeMap<Signal, f64> {
        let serves = self.members.contains_key(id);
        let noise = 0.97 + 0.06 * self.rng.f64();
        let cpu = if serves { (share * noise).clamp(0.01, 1.0) } else { 0.02 };
        let held = self.copies.iter().filter(|((_, on), _)| on == id);
        let (copies, vectors) = held.fold((0u32, 0usize), |(n, v), (_, held)| (n + 1, v + held.vectors.len()));
        BTreeMap::from([
            (Signal::Cpu, cpu),
            (Signal::Memory, 0.3),
            (Signal::Storage, (0.1 + 0.015 * f64::from(copies)).min(1.0)),
            (Signal::Latency, (if cpu > 0.85 { 700.0 } else { 50.0 }) + self.burden * self.flights.len() as f64),
            (Signal::ErrorRate, 0.002),
            (Signal::Throughput, if serves { share * 100.0 } else { 0.0 }),
            (Signal::Vectors, vectors as f64),
        ])
    }
}
