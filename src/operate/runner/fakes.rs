//! A world for stories: machines, a sharded store with real vectors, faults on demand, and a ledger of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::*;
use crate::operate::drivers::{Call, Datastore, Effect, NewNode, Provider, Unanswered};
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};
use crate::record::{Entry, HistoryQuery, Journal, JournalError, MemoryJournal};

/// What a call is made to do instead of its work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Refuse,
    /// Nothing happened, nobody knows.
    Lose,
    /// It happened, nobody knows.
    LoseAnswer,
    /// It happens after so long, nobody knows.
    Late(Duration),
    Hang,
    InProgress,
}

/// The moment at which the controller is to die: before or after the n-th write or effect.
#[derive(Default)]
pub struct Crash {
    at: Mutex<(u32, Option<u32>)>,
    pub happened: Notify,
}

impl Crash {
    pub fn arm(&self, at: Option<u32>) {
        *self.at.lock().unwrap() = (0, at);
    }

    pub async fn point(&self) {
        let dies = {
            let mut at = self.at.lock().unwrap();
            at.0 += 1;
            at.1.is_some_and(|n| at.0 >= n)
        };
        if dies {
            self.happened.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

struct Flight {
    shard: ShardId,
    from: NodeId,
    to: NodeId,
    is_move: bool,
    ends: Instant,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<NodeId, Machine>,
    members: BTreeMap<NodeId, Member>,
    /// The vectors of each copy.
    copies: BTreeMap<(ShardId, NodeId), BTreeSet<u64>>,
    flights: Vec<Flight>,
    late: Vec<(Instant, NodeId)>,
    faults: BTreeMap<&'static str, VecDeque<Fault>>,
    fence: u64,
    ledger: Vec<String>,
    violations: Vec<String>,
    made: BTreeMap<NodeId, u32>,
}

pub struct World {
    state: Mutex<State>,
    pub crash: Crash,
    /// How long a shard takes to move; `None`: it never arrives.
    pub flight: Mutex<Option<Duration>>,
    pub ready: Mutex<bool>,
    pub silent: Mutex<BTreeSet<NodeId>>,
    pub replicas: u32,
    /// Whether nodes hold data: if not, every machine is a member.
    pub data: bool,
}

pub fn node(n: usize) -> NodeId {
    NodeId::new(&format!("n{n}")).expect("a name")
}

fn machine(id: &NodeId) -> Machine {
    let instance = Some(format!("i-{id}"));
    Machine { id: id.clone(), address: format!("http://{id}"), zone: None, instance, ready: Some(true) }
}

impl World {
    /// `shards` shards of one collection with `replicas` copies each, dealt round over `nodes` nodes.
    pub fn new(nodes: usize, shards: u32, replicas: u32) -> Arc<World> {
        let mut state = State::default();
        for n in 1..=nodes {
            state.machines.insert(node(n), machine(&node(n)));
            state.join(&node(n));
        }
        for shard in 0..shards {
            let vectors: BTreeSet<u64> = (0..10 + u64::from(shard)).map(|v| u64::from(shard) * 1000 + v).collect();
            for copy in 0..replicas {
                let on = node(((shard + copy) as usize % nodes) + 1);
                state.copies.insert((ShardId { collection: "docs".into(), shard }, on), vectors.clone());
            }
        }
        Arc::new(World {
            state: Mutex::new(state),
            crash: Crash::default(),
            flight: Mutex::new(Some(Duration::from_secs(5))),
            ready: Mutex::new(true),
            silent: Mutex::default(),
            replicas,
            data: true,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.catch_up();
        state
    }

    /// The next calls of this name do this instead.
    pub fn fault(&self, call: &'static str, faults: &[Fault]) {
        self.state().faults.entry(call).or_default().extend(faults);
    }

    pub fn ledger(&self) -> Vec<String> {
        self.state().ledger.clone()
    }

    pub fn machines(&self) -> Vec<String> {
        self.state().machines.keys().map(ToString::to_string).collect()
    }

    pub fn cordoned(&self) -> usize {
        self.state().members.values().filter(|m| m.cordoned).count()
    }

    /// The node answers no one any more; its machine is still listed.
    pub fn kill(&self, n: usize) {
        self.silent.lock().unwrap().insert(node(n));
        if let Some(member) = self.state().members.get_mut(&node(n)) {
            member.healthy = false;
        }
    }

    pub fn is_dead(&self, id: &NodeId) -> bool {
        self.silent.lock().unwrap().contains(id)
    }

    /// A person makes a machine by hand.
    pub fn put_machine(&self, n: usize) {
        self.state().make(&node(n));
    }

    /// A person lets the machine join by hand.
    pub fn put_member(&self, n: usize) {
        self.state().join(&node(n));
    }

    pub fn cordon_by_hand(&self, n: usize) {
        self.state().members.get_mut(&node(n)).expect("a member").cordoned = true;
    }

    /// The node is back with all that it had.
    pub fn revive(&self, n: usize) {
        self.silent.lock().unwrap().remove(&node(n));
        if let Some(member) = self.state().members.get_mut(&node(n)) {
            member.healthy = true;
        }
    }

    pub fn members(&self) -> Vec<String> {
        self.state().members.keys().map(ToString::to_string).collect()
    }

    /// A person removes the machine by hand.
    pub fn take_away(&self, n: usize) {
        self.state().machines.remove(&node(n));
    }

    /// A person starts a machine by hand.
    pub fn bring(&self, n: usize) {
        self.state().make(&node(n));
    }

    /// A person makes it a member by hand.
    pub fn enrol(&self, n: usize) {
        self.state().join(&node(n));
    }

    /// The cluster calls the member unhealthy from now on.
    pub fn fall_ill(&self, n: usize) {
        self.state().members.get_mut(&node(n)).expect("a member").healthy = false;
    }

    /// Every copy is on one node.
    pub fn pile_up(&self, on: usize) {
        let mut state = self.state();
        let copies = std::mem::take(&mut state.copies);
        state.copies = copies.into_iter().map(|((shard, _), vectors)| ((shard, node(on)), vectors)).collect();
    }

    pub fn put_shard_back(&self, shard: u32, on: usize) {
        let shard = ShardId { collection: "docs".into(), shard };
        self.state().copies.insert((shard, node(on)), BTreeSet::from([1]));
    }

    /// Everything that must hold at the end, whatever happened on the way.
    pub fn check(&self, shards: u32) -> Result<(), String> {
        let state = self.state();
        if !state.violations.is_empty() {
            return Err(format!("violations: {:?}", state.violations));
        }
        if let Some((node, times)) = state.made.iter().find(|(_, times)| **times > 1) {
            return Err(format!("{node} was made {times} times"));
        }
        // The machine of a dead node stays until a person reaps it.
        let silent = self.silent.lock().unwrap();
        let lost = |id: &&NodeId| silent.contains(*id) && !state.members.contains_key(*id);
        let machines: Vec<_> = state.machines.keys().filter(|id| !lost(id)).collect();
        let members: Vec<_> = state.members.keys().collect();
        if self.data && machines != members {
            return Err(format!("machines {machines:?} are not the members {members:?}"));
        }
        for number in (0..shards).filter(|_| self.data) {
            let shard = ShardId { collection: "docs".into(), shard: number };
            let copies: Vec<_> = state.copies.iter().filter(|((s, _), _)| *s == shard).collect();
            let whole = copies.iter().filter(|(_, v)| v.len() as u32 == 10 + number).count() as u32;
            if whole < self.replicas || copies.iter().any(|((_, on), _)| !state.members.contains_key(on)) {
                return Err(format!("{shard} lives on {:?}", copies.iter().map(|((_, on), _)| on).collect::<Vec<_>>()));
            }
        }
        Ok(())
    }

    /// One call that changes something: dies before or after it, or fails as told.
    async fn change<T>(
        &self,
        what: &'static str,
        call: &Call,
        on: &str,
        act: impl Fn(&mut State) -> Effect<T>,
        late: impl Fn(&mut State, Instant),
    ) -> Effect<T> {
        self.crash.point().await;
        let fault = {
            let mut state = self.state();
            if call.fence < state.fence {
                state.violations.push(format!("{what} {on} with the old fence {}", call.fence));
            }
            state.fence = state.fence.max(call.fence);
            let fault = state.faults.get_mut(what).and_then(VecDeque::pop_front);
            let seq = call.key.rsplit('/').next().unwrap_or_default().to_string();
            let told = fault.map(|fault| format!(" ({fault:?})")).unwrap_or_default();
            state.ledger.push(format!("{what} {on} #{seq}{told}"));
            fault
        };
        let effect = match fault {
            None => act(&mut self.state()),
            Some(Fault::Refuse) => Effect::NoEffect("refused".into()),
            Some(Fault::Lose) => Effect::Unknown("connection reset".into()),
            Some(Fault::LoseAnswer) => {
                act(&mut self.state());
                Effect::Unknown("connection reset".into())
            }
            Some(Fault::Late(after)) => {
                late(&mut self.state(), Instant::now() + after);
                Effect::Unknown("timed out".into())
            }
            Some(Fault::InProgress) => Effect::InProgress,
            Some(Fault::Hang) => std::future::pending().await,
        };
        self.crash.point().await;
        effect
    }
}

impl State {
    fn join(&mut self, id: &NodeId) {
        let address = format!("http://{id}");
        let member = Member { id: id.clone(), address, cordoned: false, healthy: true, version: None };
        self.members.entry(id.clone()).or_insert(member);
    }

    fn make(&mut self, id: &NodeId) -> Machine {
        self.machines.entry(id.clone()).or_insert_with(|| machine(id)).clone()
    }

    /// Lets happen what is due.
    fn catch_up(&mut self) {
        let now = Instant::now();
        for (_, id) in self.late.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            self.make(&id);
        }
        for flight in self.flights.extract_if(.., |flight| flight.ends <= now).collect::<Vec<_>>() {
            let source = (flight.shard.clone(), flight.from);
            let vectors = if flight.is_move { self.copies.remove(&source) } else { self.copies.get(&source).cloned() };
            if let Some(vectors) = vectors {
                self.copies.insert((flight.shard, flight.to), vectors);
            }
        }
    }

    fn holds(&self, id: &NodeId) -> bool {
        self.copies.keys().any(|(_, on)| on == id) || self.flights.iter().any(|f| f.from == *id || f.to == *id)
    }
}

#[async_trait]
impl Provider for World {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        let mut state = self.state();
        match state.faults.get_mut("list").and_then(VecDeque::pop_front) {
            Some(_) => Err(Unanswered("list: connection refused".into())),
            None => Ok(state.machines.values().cloned().collect()),
        }
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        let id = &new.id;
        let late = |state: &mut State, at| state.late.push((at, id.clone()));
        // A provider that does not look before it acts: whoever asks twice without looking is found out.
        let act = |state: &mut State| {
            *state.made.entry(id.clone()).or_default() += 1;
            Effect::Done(state.make(id))
        };
        self.change("create", call, id.as_str(), act, late).await
    }

    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()> {
        let id = &machine.id;
        let act = |state: &mut State| {
            if self.data && (state.holds(id) || state.members.contains_key(id)) {
                state.violations.push(format!("{id} was destroyed while it held shards or was a member"));
            }
            state.machines.remove(id);
            state.late.retain(|(_, late)| late != id);
            Effect::Done(())
        };
        self.change("destroy", call, id.as_str(), act, |_, _| {}).await
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}

#[async_trait]
impl Datastore for World {
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        if via.is_some_and(|via| self.silent.lock().unwrap().contains(via)) {
            return Err(Unanswered("no route to host".into()));
        }
        let mut state = self.state();
        if state.faults.get_mut("inventory").and_then(VecDeque::pop_front).is_some() {
            return Err(Unanswered("inventory: connection refused".into()));
        }
        let copy = |((shard, on), vectors): (&(ShardId, NodeId), &BTreeSet<u64>)| {
            let count = vectors.len() as u64;
            let (shard, node) = (shard.clone(), on.clone());
            Replica { shard, node, bytes: count * 100, vectors: count, state: ReplicaState::Active }
        };
        let flight = |f: &Flight| Transfer {
            shard: f.shard.clone(),
            from: f.from.clone(),
            to: f.to.clone(),
            done_bytes: None,
            is_move: f.is_move,
        };
        let partial = |f: &Flight| Replica {
            shard: f.shard.clone(),
            node: f.to.clone(),
            bytes: 0,
            vectors: 0,
            state: ReplicaState::Partial,
        };
        let mut shards: Vec<Replica> = state.copies.iter().map(copy).collect();
        shards.extend(state.flights.iter().map(partial));
        Ok(Inventory {
            members: state
                .members
                .values()
                .filter(|m| self.data || state.machines.contains_key(&m.id))
                .cloned()
                .collect(),
            wanted_replicas: BTreeMap::from([("docs".into(), self.replicas)]),
            shards,
            transfers: state.flights.iter().map(flight).collect(),
        })
    }

    fn holds_data(&self) -> bool {
        self.data
    }

    async fn held_by(&self, member: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        if self.silent.lock().unwrap().contains(&member.id) {
            return Err(Unanswered("no route to host".into()));
        }
        let state = self.state();
        let on = state.copies.iter().filter(|((_, on), _)| *on == member.id);
        Ok(on.map(|((shard, _), vectors)| (shard.clone(), vectors.len() as u64)).collect())
    }

    async fn join(&self, call: &Call, machine: &Machine) -> Effect<()> {
        let act = |state: &mut State| {
            state.join(&machine.id);
            Effect::Done(())
        };
        self.change("join", call, machine.id.as_str(), act, |_, _| {}).await
    }

    async fn ready(&self, _machine: &Machine) -> Result<bool, Unanswered> {
        Ok(*self.ready.lock().unwrap())
    }

    async fn cordon(&self, call: &Call, id: &NodeId) -> Effect<()> {
        let act = |state: &mut State| match state.members.get_mut(id) {
            Some(member) => {
                member.cordoned = true;
                Effect::Done(())
            }
            None => Effect::NoEffect("no such member".into()),
        };
        self.change("cordon", call, id.as_str(), act, |_, _| {}).await
    }

    async fn uncordon(&self, call: &Call, id: &NodeId) -> Effect<()> {
        let act = |state: &mut State| match state.members.get_mut(id) {
            Some(member) => {
                member.cordoned = false;
                Effect::Done(())
            }
            None => Effect::NoEffect("no such member".into()),
        };
        self.change("uncordon", call, id.as_str(), act, |_, _| {}).await
    }

    async fn start_move(&self, call: &Call, m: &Move) -> Effect<()> {
        let time = *self.flight.lock().unwrap();
        let act = |state: &mut State| {
            if state.copies.contains_key(&(m.shard.clone(), m.to.clone())) {
                let moved = !state.copies.contains_key(&(m.shard.clone(), m.from.clone()));
                return if moved { Effect::Done(()) } else { Effect::NoEffect("the target has a copy".into()) };
            }
            if state.members.get(&m.to).is_none_or(|to| to.cordoned) {
                state.violations.push(format!("{} was moved onto a closed node", m.shard));
            }
            if !state.flights.iter().any(|f| f.shard == m.shard) {
                let ends = Instant::now() + time.unwrap_or(Duration::from_secs(1_000_000));
                let (shard, from, to) = (m.shard.clone(), m.from.clone(), m.to.clone());
                state.flights.push(Flight { shard, from, to, is_move: true, ends });
            }
            Effect::Done(())
        };
        self.change("move", call, &format!("{} {}>{}", m.shard.shard, m.from, m.to), act, |_, _| {}).await
    }

    async fn replicate(&self, call: &Call, m: &Move) -> Effect<()> {
        let time = *self.flight.lock().unwrap();
        let act = |state: &mut State| {
            let under_way = state.flights.iter().any(|f| f.shard == m.shard);
            if !under_way && !state.copies.contains_key(&(m.shard.clone(), m.to.clone())) {
                let ends = Instant::now() + time.unwrap_or(Duration::from_secs(1_000_000));
                let (shard, from, to) = (m.shard.clone(), m.from.clone(), m.to.clone());
                state.flights.push(Flight { shard, from, to, is_move: false, ends });
            }
            Effect::Done(())
        };
        self.change("replicate", call, &format!("{} {}>{}", m.shard.shard, m.from, m.to), act, |_, _| {}).await
    }

    async fn cancel_move(&self, call: &Call, m: &Move) -> Effect<()> {
        let act = |state: &mut State| {
            state.flights.retain(|f| f.shard != m.shard);
            Effect::Done(())
        };
        self.change("cancel", call, &m.shard.shard.to_string(), act, |_, _| {}).await
    }

    async fn leave(&self, call: &Call, id: &NodeId, proof: &ProofOfEmpty) -> Effect<()> {
        let act = |state: &mut State| {
            if state.holds(id) || proof.node() != id {
                state.violations.push(format!("{id} was to leave with shards on it"));
                return Effect::NoEffect("it holds shards".into());
            }
            state.members.remove(id);
            Effect::Done(())
        };
        self.change("leave", call, id.as_str(), act, |_, _| {}).await
    }

    async fn forget(&self, call: &Call, id: &NodeId, proof: &ProofOfCopies) -> Effect<()> {
        let act = |state: &mut State| {
            if proof.node() != id {
                state.violations.push(format!("{id} was to be forgotten on a proof of {}", proof.node()));
            }
            state.copies.retain(|(_, on), _| on != id);
            state.members.remove(id);
            Effect::Done(())
        };
        self.change("forget", call, id.as_str(), act, |_, _| {}).await
    }

    async fn unjoin(&self, call: &Call, id: &NodeId) -> Effect<()> {
        let act = |state: &mut State| {
            if state.holds(id) {
                state.violations.push(format!("{id} was taken out with shards on it"));
            }
            state.members.remove(id);
            Effect::Done(())
        };
        self.change("unjoin", call, id.as_str(), act, |_, _| {}).await
    }
}

/// A journal at whose every write the controller may die, before it or after it; and that may be full for a while.
pub struct Mortal {
    pub inner: MemoryJournal,
    pub world: Arc<World>,
    /// So many writes fail.
    pub full: Mutex<u32>,
}

#[async_trait]
impl Journal for Mortal {
    fn fence(&self) -> u64 {
        self.inner.fence()
    }
    async fn load(&self, pool: &PoolName, name: &str) -> Result<Option<Value>, JournalError> {
        self.inner.load(pool, name).await
    }
    async fn save(&self, pool: &PoolName, name: &str, value: &Value, entry: Option<Entry>) -> Result<(), JournalError> {
        self.inner.save(pool, name, value, entry).await
    }
    async fn decided(
        &self,
        pool: &PoolName,
        decision: &Decision,
        memory: &Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        self.inner.decided(pool, decision, memory, entry).await
    }
    async fn decisions(&self, p: &PoolName, limit: usize, before: Option<u64>) -> Result<Vec<Decision>, JournalError> {
        self.inner.decisions(p, limit, before).await
    }
    async fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        self.inner.decision(pool, id).await
    }
    async fn open(&self, operation: &Operation, key: Option<&str>, entry: Entry) -> Result<(), JournalError> {
        self.world.crash.point().await;
        let done = self.inner.open(operation, key, entry).await;
        self.world.crash.point().await;
        done
    }
    async fn update(&self, o: &Operation, step: Option<&Step>, entry: Option<Entry>) -> Result<(), JournalError> {
        self.world.crash.point().await;
        let left = std::mem::take(&mut *self.full.lock().unwrap());
        if left > 0 {
            *self.full.lock().unwrap() = left - 1;
            return Err(JournalError::Unwritable("the disk is full".into()));
        }
        let done = self.inner.update(o, step, entry).await;
        self.world.crash.point().await;
        done
    }
    async fn open_operation(&self, pool: &PoolName) -> Result<Option<Operation>, JournalError> {
        self.inner.open_operation(pool).await
    }
    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>, JournalError> {
        self.inner.operation(id).await
    }
    async fn operations(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<&OperationId>,
    ) -> Result<Vec<Operation>, JournalError> {
        self.inner.operations(pool, limit, before).await
    }
    async fn by_key(&self, pool: &PoolName, key: &str, now: Timestamp) -> Result<Option<OperationId>, JournalError> {
        self.inner.by_key(pool, key, now).await
    }
    async fn append(&self, entry: Entry) -> Result<(), JournalError> {
        self.inner.append(entry).await
    }
    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError> {
        self.inner.history(query).await
    }
    async fn observed(&self, seen: &Observation) -> Result<(), JournalError> {
        self.inner.observed(seen).await
    }
    async fn observations(&self, p: &PoolName, since: Timestamp, step: u64) -> Result<Vec<Value>, JournalError> {
        self.inner.observations(p, since, step).await
    }
}
