//! An invented cluster: machines, members, shards with real vectors, transfers that take time. What nature does to it is
//! in `nature`, what is asked of it in `deeds` and `hands`, what must hold in `laws`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::curve::Curve;
use super::deeds::Deed;
use super::faults::{Crash, Fault, Faults};
use super::laws::Laws;
use super::nature::{Fate, Listing};
use super::tally::Tally;
use crate::model::{Inventory, Machine, Member, Move, NodeId, Replica, ReplicaState, ShardId, Transfer};

/// A dead node is called unhealthy by the others after this long.
const NOTICED_AFTER: Duration = Duration::from_secs(5);
/// The only collection.
const COLLECTION: &str = "docs";
const BYTES_PER_VECTOR: u64 = 100;
/// A transfer that never arrives.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// How large the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    pub nodes: usize,
    pub shards: u32,
    /// Copies of each shard.
    pub replicas: u32,
    /// Zones over which the first nodes are dealt; 0: none is told.
    pub zones: usize,
    /// Whether nodes hold data: if not, every machine is a member.
    pub data: bool,
    /// The bounds that are to hold.
    pub min_nodes: u32,
    pub max_nodes: u32,
}

/// Provider, datastore and pages of an invented cluster, in tokio's time.
pub struct World {
    state: Mutex<State>,
    pub crash: Crash,
    pub(super) scale: Scale,
}

/// One copy of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub vectors: BTreeSet<u64>,
    /// It has missed a write, or lost what it had: no copy to rely on.
    pub stale: bool,
}

/// A copy on its way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub copy: Move,
    pub is_move: bool,
    /// The source's copy is to be dropped at its end, once that is asked for.
    pub is_to_finish: bool,
    pub ends: Instant,
}

/// A request that arrives late, or once more.
#[derive(Debug)]
pub(super) struct Due {
    pub at: Instant,
    pub asked: Instant,
    /// Of a drop whose move was called off meanwhile: whether the target had died by then.
    pub after_death: Option<bool>,
    pub deed: Deed,
    pub fence: u64,
}

/// One line of what happened, as the cluster itself saw it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Since the beginning.
    pub at: Duration,
    /// A call, or something that no one asked for.
    pub is_call: bool,
    pub text: String,
    pub note: String,
}

pub(super) struct State {
    pub rng: Rng,
    began: Instant,
    pub scale: Scale,
    pub machines: BTreeMap<NodeId, Machine>,
    pub fates: BTreeMap<NodeId, Fate>,
    /// Whether each is cordoned.
    pub members: BTreeMap<NodeId, bool>,
    pub copies: BTreeMap<(ShardId, NodeId), Held>,
    /// What was written and acknowledged.
    pub acked: BTreeMap<ShardId, BTreeSet<u64>>,
    pub flights: Vec<Flight>,
    pub due: Vec<Due>,
    pub faults: Faults,
    pub laws: Laws,
    pub ledger: Vec<Line>,
    pub tally: Tally,
    /// How long a shard takes to move; `None`: it never arrives.
    pub flight: Option<Duration>,
    /// The store only ever copies: the source's copy is dropped when that is asked for.
    pub copies_only: bool,
    /// Copies that were made on the second node, and are yet to be dropped on the first.
    pub unfinished: BTreeMap<(ShardId, NodeId), NodeId>,
    /// Whether clients are sent to nodes, and away from them, by hooks; and to which they are sent.
    pub has_hooks: bool,
    pub served: BTreeSet<NodeId>,
    /// Milliseconds that each transfer in flight adds to the search latency.
    pub burden: f64,
    pub listing: Listing,
    pub store_is_silent: bool,
    /// The longest that a read takes.
    pub reads_last: Duration,
    pub is_ready: bool,
    /// So many writes of the journal fail.
    pub full: u32,
    pub load: Curve,
}

/// `n1`, `n2` …
pub fn node(n: usize) -> NodeId {
    NodeId::new(&format!("n{n}")).expect("a letter and digits are a name")
}

fn machine(id: &NodeId, zone: Option<String>) -> Machine {
    let instance = Some(format!("i-{id}"));
    Machine { id: id.clone(), address: format!("http://{id}"), zone, instance, ready: Some(true) }
}

/// Whether it has died since something was asked for, or so shortly before that nobody knew.
fn had_died(died: Option<Instant>, asked: Instant) -> bool {
    died.is_some_and(|died| died + NOTICED_AFTER >= asked)
}

fn shard(number: u32) -> ShardId {
    ShardId { collection: COLLECTION.into(), shard: number }
}

impl World {
    /// `shards` shards with `replicas` copies each, dealt round over `nodes` nodes; nothing goes wrong in it by itself.
    pub fn new(nodes: usize, shards: u32, replicas: u32) -> Arc<World> {
        let scale = Scale { nodes, shards, replicas, zones: 0, data: true, min_nodes: 1, max_nodes: 1000 };
        World::drawn(scale, Rng::with_seed(0), Curve::Constant(1.0))
    }

    /// Nodes that hold no data: every machine is a member.
    pub fn without_data(nodes: usize) -> Arc<World> {
        let scale = Scale { nodes, shards: 0, replicas: 1, zones: 0, data: false, min_nodes: 1, max_nodes: 1000 };
        World::drawn(scale, Rng::with_seed(0), Curve::Constant(1.0))
    }

    pub fn drawn(scale: Scale, rng: Rng, load: Curve) -> Arc<World> {
        let mut state = State {
            rng,
            began: Instant::now(),
            scale,
            machines: BTreeMap::new(),
            fates: BTreeMap::new(),
            members: BTreeMap::new(),
            copies: BTreeMap::new(),
            acked: BTreeMap::new(),
            flights: Vec::new(),
            due: Vec::new(),
            faults: Faults::default(),
            laws: Laws::default(),
            ledger: Vec::new(),
            tally: Tally::default(),
            flight: Some(Duration::from_secs(5)),
            copies_only: false,
            unfinished: BTreeMap::new(),
            has_hooks: false,
            served: (1..=scale.nodes).map(node).collect(),
            burden: 0.0,
            listing: Listing::Told,
            store_is_silent: false,
            reads_last: Duration::ZERO,
            is_ready: true,
            full: 0,
            load,
        };
        for n in 1..=scale.nodes {
            let zone = (scale.zones > 0).then(|| format!("z{}", n % scale.zones.max(1)));
            state.machines.insert(node(n), machine(&node(n), zone));
            state.members.insert(node(n), false);
        }
        for number in 0..scale.shards {
            let first = u64::from(number) * 100_000;
            let vectors: BTreeSet<u64> = (first..first + 10 + u64::from(number)).collect();
            for copy in 0..scale.replicas {
                let on = node(((number + copy) as usize % scale.nodes) + 1);
                state.copies.insert((shard(number), on), Held { vectors: vectors.clone(), stale: false });
            }
            state.acked.insert(shard(number), vectors);
        }
        state.nature_took();
        Arc::new(World { state: Mutex::new(state), crash: Crash::default(), scale })
    }

    /// The state as of now: what is due has happened.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.as_left();
        state.catch_up();
        state
    }

    /// The state when it was last looked at.
    pub(super) fn as_left(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next calls of this name do this instead.
    pub fn fault(&self, call: &'static str, faults: &[Fault]) {
        self.state().faults.script(call, faults);
    }

    /// Every call that asked for a change, in order.
    pub fn ledger(&self) -> Vec<String> {
        self.as_left().ledger.iter().filter(|line| line.is_call).map(|line| line.text.clone()).collect()
    }

    pub fn machines(&self) -> Vec<String> {
        self.state().machines.keys().map(ToString::to_string).collect()
    }

    pub fn cordoned(&self) -> usize {
        self.state().members.values().filter(|cordoned| **cordoned).count()
    }

    /// How long a shard takes to move from now on; `None`: it never arrives.
    pub fn set_flight(&self, flight: Option<Duration>) {
        self.state().flight = flight;
    }

    /// The store only ever copies from now on, and drops what is at the source when that is asked for.
    pub fn only_copies(&self) {
        self.state().copies_only = true;
    }

    /// Clients are sent to nodes by hooks from now on.
    pub fn has_hooks(&self) {
        self.state().has_hooks = true;
    }

    /// Nodes that clients are sent to.
    pub fn served(&self) -> Vec<String> {
        self.state().served.iter().map(ToString::to_string).collect()
    }

    /// The most copies that were on their way at once, as the journal had it.
    pub fn most_at_once(&self) -> u64 {
        self.as_left().tally.most_at_once
    }

    /// Transfers in flight just now.
    pub fn in_flight(&self) -> usize {
        self.state().flights.len()
    }

    /// Whether nodes, asked themselves, serve.
    pub fn set_ready(&self, ready: bool) {
        self.state().is_ready = ready;
    }

    /// So many writes of the journal fail from now on.
    pub fn fill_disk(&self, writes: u32) {
        self.state().full = writes;
    }

    pub fn members(&self) -> Vec<String> {
        self.state().members.keys().map(ToString::to_string).collect()
    }

    /// A person removes the machine by hand.
    pub fn take_away(&self, n: usize) {
        self.state().remove_machine(&node(n));
    }

    /// The provider lists no node, whatever there is.
    pub fn lists_nothing(&self) {
        self.state().listing = Listing::Empty;
    }

    /// A person makes a machine by hand.
    pub fn put_machine(&self, n: usize) {
        self.state().make(&node(n), None);
    }

    /// A person lets the machine join by hand.
    pub fn put_member(&self, n: usize) {
        self.state().members.insert(node(n), false);
    }

    pub fn cordon_by_hand(&self, n: usize) {
        self.state().members.insert(node(n), true);
    }

    /// The node answers no one any more, and the others call it unhealthy; its machine is still listed.
    pub fn kill(&self, n: usize) {
        let mut state = self.state();
        state.die(&node(n));
        state.fates.entry(node(n)).or_default().is_ill = true;
    }

    /// The node is back with all that it had.
    pub fn revive(&self, n: usize) {
        self.state().fates.remove(&node(n));
    }

    pub fn is_dead(&self, id: &NodeId) -> bool {
        self.state().is_dead(id)
    }

    /// Whether no member of a cluster with data answers: once the faults have stopped, none ever will.
    pub fn is_silent(&self) -> bool {
        let state = self.state();
        state.scale.data && !state.members.is_empty() && state.members.keys().all(|id| state.is_silent(id))
    }

    /// The cluster calls the member unhealthy from now on.
    pub fn fall_ill(&self, n: usize) {
        self.state().fates.entry(node(n)).or_default().is_ill = true;
    }

    /// Whether we can reach the node; the others can all the while.
    pub fn cut_off(&self, n: usize, is_cut_off: bool) {
        self.state().fates.entry(node(n)).or_default().cut_off = is_cut_off;
    }

    /// So many copies of each shard are wanted from now on.
    pub fn want(&self, replicas: u32) {
        let mut state = self.state();
        state.scale.replicas = replicas;
        state.nature_took();
    }

    /// Every copy is on one node.
    pub fn pile_up(&self, on: usize) {
        let mut state = self.state();
        let copies = std::mem::take(&mut state.copies);
        state.copies = copies.into_iter().map(|((shard, _), held)| ((shard, node(on)), held)).collect();
        state.nature_took();
    }

    /// A copy that nobody asked for.
    pub fn put_shard_back(&self, number: u32, on: usize) {
        let held = Held { vectors: BTreeSet::from([1]), stale: false };
        self.state().copies.insert((shard(number), node(on)), held);
    }

    /// What is on its way breaks off, and leaves a broken copy at its target.
    pub fn break_off(&self) {
        let mut state = self.state();
        for flight in std::mem::take(&mut state.flights) {
            let broken = Held { vectors: BTreeSet::new(), stale: true };
            state.copies.insert((flight.copy.shard, flight.copy.to), broken);
        }
    }

    /// A person says that no machine of this name was made: it may be asked for again without a look.
    pub fn vouch(&self, n: usize) {
        self.state().laws.vouched(&node(n));
    }

    /// Everything that must hold at the end, whatever happened on the way.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state();
        if let Some(broken) = state.laws.broken() {
            return Err(broken.to_string());
        }
        // The machine of a dead node stays until a person reaps it.
        let is_lost =
            |id: &NodeId| state.laws.lost.contains(id) || state.is_dead(id) && !state.members.contains_key(id);
        let machines: Vec<_> = state.machines.keys().filter(|id| !is_lost(id)).collect();
        let members: Vec<_> = state.members.keys().collect();
        if state.scale.data && machines != members {
            return Err(format!("machines {machines:?} are not the members {members:?}"));
        }
        for shard in state.acked.keys() {
            if state.complete(shard) < state.scale.replicas as usize {
                let on: Vec<_> = state.copies.keys().filter(|(s, _)| s == shard).map(|(_, on)| on).collect();
                return Err(format!("{shard} lives on {on:?}"));
            }
        }
        Ok(())
    }
}

impl State {
    pub fn since_start(&self) -> Duration {
        Instant::now().saturating_duration_since(self.began)
    }

    pub fn told(&mut self, text: String) {
        let line = Line { at: self.since_start(), is_call: false, text, note: String::new() };
        self.ledger.push(line);
    }

    pub fn make(&mut self, id: &NodeId, zone: Option<String>) -> Machine {
        self.machines.entry(id.clone()).or_insert_with(|| machine(id, zone)).clone()
    }

    /// Lets happen what is due, in the order of time.
    fn catch_up(&mut self) {
        let now = Instant::now();
        loop {
            let late = self.due.iter().enumerate().map(|(i, due)| (due.at, i)).min().filter(|(at, _)| *at <= now);
            let flight = self.flights.iter().enumerate().map(|(i, f)| (f.ends, i)).min().filter(|(at, _)| *at <= now);
            match (late, flight) {
                (None, None) => return,
                (Some((at, i)), flight) if flight.is_none_or(|(ends, _)| at <= ends) => {
                    let due = self.due.remove(i);
                    self.arrives(due);
                }
                (_, Some((_, i))) => {
                    let flight = self.flights.remove(i);
                    self.lands(flight);
                }
                (Some(_), None) => unreachable!("taken by the arm of what is late"),
            }
        }
    }

    fn arrives(&mut self, due: Due) {
        let told = format!("late: {} {}", due.deed.name(), due.deed.on());
        if due.fence < self.laws.fence {
            self.told(format!("{told}: refused, its fence is old"));
            return;
        }
        self.told(told);
        self.laws.came_late(&due.deed);
        match &due.deed {
            Deed::Finish(m) => {
                self.drops(m);
                // In time it would have come before that death, or before anybody noticed it, and left as much. The node
                // may be back by now, and its copy gone with the move that was called off.
                if due.after_death.unwrap_or_else(|| had_died(self.last_death(&m.to), due.asked)) {
                    self.nature_took();
                }
            }
            deed => drop(self.act(deed)),
        }
        self.judge(due.deed.name());
    }

    /// What is still on its way of that move is judged by the deaths until now.
    pub fn calls_off(&mut self, m: &Move) {
        let died = self.last_death(&m.to);
        for due in &mut self.due {
            if matches!(&due.deed, Deed::Finish(late) if late.shard == m.shard && late.to == m.to) {
                due.after_death.get_or_insert(had_died(died, due.asked));
            }
        }
    }

    fn last_death(&self, id: &NodeId) -> Option<Instant> {
        self.fates.get(id).and_then(|fate| fate.last_death)
    }

    fn lands(&mut self, flight: Flight) {
        let Move { shard, from, to, .. } = &flight.copy;
        let source = self.copies.get(&(shard.clone(), from.clone())).filter(|held| !held.stale).cloned();
        let source = source.filter(|_| !self.is_dead(from) && !self.is_dead(to) && self.members.contains_key(to));
        let Some(held) = source else {
            self.told(format!("the transfer of {shard} from {from} to {to} broke off"));
            return;
        };
        self.copies.insert((shard.clone(), to.clone()), held);
        self.unfinished.remove(&(shard.clone(), to.clone()));
        if flight.is_move {
            self.copies.remove(&(shard.clone(), from.clone()));
        }
        if flight.is_to_finish {
            self.unfinished.insert((shard.clone(), from.clone()), to.clone());
        }
        self.judge("the end of a transfer");
    }

    /// The transfer begins, unless the shard is on its way already.
    pub fn take_off(&mut self, copy: &Move, is_move: bool) {
        let (is_move, is_to_finish) = (is_move && !self.copies_only, is_move && self.copies_only);
        if self.flights.iter().any(|flight| flight.copy.shard == copy.shard) {
            return;
        }
        let ends = Instant::now() + self.flight.unwrap_or(NEVER);
        self.flights.push(Flight { copy: copy.clone(), is_move, is_to_finish, ends });
    }

    /// Holds, sends or receives a shard.
    pub fn holds(&self, id: &NodeId) -> bool {
        let on_its_way = |f: &Flight| f.copy.from == *id || f.copy.to == *id;
        self.copies.keys().any(|(_, on)| on == id) || self.flights.iter().any(on_its_way)
    }

    /// Copies on members that have everything that was acknowledged. One that is to be dropped, since it is on another node
    /// by now, does not count: it may go at any time.
    pub fn complete(&self, shard: &ShardId) -> usize {
        let is_whole = |on: &NodeId| {
            let held = self.copies.get(&(shard.clone(), on.clone()));
            held.is_some_and(|held| !held.stale) && self.members.contains_key(on)
        };
        let is_to_go = |on: &NodeId| self.unfinished.get(&(shard.clone(), on.clone())).is_some_and(is_whole);
        let holders = self.copies.keys().filter(|(s, _)| s == shard).map(|(_, on)| on);
        holders.filter(|on| is_whole(on) && !is_to_go(on)).count()
    }

    /// The whole cluster, as it is.
    pub fn inventory(&self) -> Inventory {
        let now = Instant::now();
        let noticed = |id: &NodeId| {
            let dead = self.fates.get(id).and_then(|fate| fate.dead_since);
            let is_ill = self.fates.get(id).is_some_and(|fate| fate.is_ill);
            is_ill || dead.is_some_and(|since| now.saturating_duration_since(since) >= NOTICED_AFTER)
        };
        let member = |(id, cordoned): (&NodeId, &bool)| Member {
            cordoned: *cordoned,
            healthy: !noticed(id),
            ..Member::new(id.clone(), format!("http://{id}"))
        };
        let replica = |shard: &ShardId, on: &NodeId, vectors: usize, state| Replica {
            shard: shard.clone(),
            node: on.clone(),
            bytes: vectors as u64 * BYTES_PER_VECTOR,
            vectors: vectors as u64,
            state,
        };
        let state = |held: &Held| if held.stale { ReplicaState::Dead } else { ReplicaState::Active };
        let copies = self.copies.iter().map(|((s, on), held)| replica(s, on, held.vectors.len(), state(held)));
        let arriving = self.flights.iter().map(|f| replica(&f.copy.shard, &f.copy.to, 0, ReplicaState::Partial));
        let transfer = |f: &Flight| Transfer {
            shard: f.copy.shard.clone(),
            from: f.copy.from.clone(),
            to: f.copy.to.clone(),
            done_bytes: None,
            is_move: f.is_move,
        };
        Inventory {
            members: self
                .members
                .iter()
                .filter(|(id, _)| self.scale.data || self.machines.contains_key(*id))
                .map(member)
                .collect(),
            wanted_replicas: BTreeMap::from([(COLLECTION.into(), self.scale.replicas)]),
            shards: copies.chain(arriving).collect(),
            transfers: self.flights.iter().map(transfer).collect(),
            ..Inventory::default()
        }
    }
}
