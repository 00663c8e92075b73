//! Bugs put in on purpose: each must break a law, or the laws are worth nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::apart::Piece;
use super::bench::{Bench, paused, planned};
use super::works::Work;
use crate::clock::Clock;
use crate::controller::Parts;
use crate::model::*;
use crate::operate::drivers::{Call, Datastore, Effect, NewNode, Provider, Unanswered};
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};
use crate::operate::runner::Hands;
use crate::record::{Entry, HistoryQuery, Journal, JournalError};
use crate::replay::play::play_with;
use crate::replay::{Fault, Profile, World, node};
use crate::scrape::{Scrape, Target};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    /// The journal says that an intent is written, and writes none.
    ForgetsIntents,
    /// A destruction of which nobody knows counts as done.
    TimeoutIsDone,
    /// Every start but the first comes under an old fence.
    OldFence,
    /// A creation is sent once more, without a look.
    AsksTwice,
    /// A view that fails is one without the node.
    ErrorIsAbsence,
    /// A shard counts as arrived as soon as it is on its way.
    ArrivedTooEarly,
    /// The mode that a person set is forgotten at a restart.
    ForgetsMode,
    /// A number that is missing is zero.
    GapIsZero,
    /// The bounds of the pool are not kept.
    ForgetsBounds,
}

/// A driver or journal with a bug, and whether that has begun to show.
struct Broken<T: ?Sized>(Arc<T>, Bug, AtomicBool);

fn broken<T: ?Sized>(inner: Arc<T>, bug: Bug) -> Arc<Broken<T>> {
    Arc::new(Broken(inner, bug, AtomicBool::new(false)))
}

fn with_bug(bug: Bug, hands: Hands) -> Hands {
    Hands {
        provider: broken(hands.provider, bug),
        datastore: broken(hands.datastore, bug),
        journal: broken(hands.journal, bug),
        clock: hands.clock,
    }
}

/// Puts a bug into the hands.
type Twist = fn(Hands) -> Hands;

/// Two lives over one piece of work; what was broken.
fn broken_by(bug: Twist, work: Work, spoil: impl Fn(&World), dies_at: Option<u32>) -> String {
    paused().block_on(async {
        let world = work.scene().await;
        spoil(&world);
        let mut bench = Bench::new(world, bug);
        let begins = Some(work.operation());
        if bench.lives(begins, dies_at).await {
            bench.lives(None, None).await;
        }
        bench.judged().await.expect_err("no law was broken")
    })
}

#[test]
fn each_bug_breaks_a_law() {
    let cases: [(Bug, Twist, Work, &str); 6] = [
        (Bug::ForgetsIntents, |h| with_bug(Bug::ForgetsIntents, h), Work::Down, "without a durable intent"),
        (Bug::TimeoutIsDone, |h| with_bug(Bug::TimeoutIsDone, h), Work::Down, "are not the members"),
        (Bug::OldFence, |h| with_bug(Bug::OldFence, h), Work::Down, "was seen before"),
        (Bug::AsksTwice, |h| with_bug(Bug::AsksTwice, h), Work::Up, "asked twice without a look"),
        (Bug::ErrorIsAbsence, |h| with_bug(Bug::ErrorIsAbsence, h), Work::Down, "is a member"),
        (Bug::ArrivedTooEarly, |h| with_bug(Bug::ArrivedTooEarly, h), Work::Down, "holds, sends or receives"),
    ];
    for (bug, twist, work, law) in cases {
        let spoil = |world: &World| match bug {
            Bug::TimeoutIsDone => world.fault("destroy", &[Fault::Lose]),
            Bug::ErrorIsAbsence => world.fault("leave", &[Fault::Lose]),
            Bug::ArrivedTooEarly => world.set_flight(Some(Duration::from_secs(600))),
            _ => {}
        };
        let dies_at = (bug == Bug::OldFence).then_some(12);
        let broken = broken_by(twist, work, spoil, dies_at);
        assert!(broken.contains(law), "{bug:?}: {broken}");
    }
}

#[test]
fn a_name_that_is_given_twice_breaks_a_law() {
    let broken = paused().block_on(async {
        let mut bench = Bench::new(Work::Up.scene().await, |hands| hands);
        bench.world.set_ready(false);
        bench.lives(Some(Work::Up.operation()), None).await;
        bench.world.set_ready(true);
        let again = planned("op2", Action::ScaleUp { nodes: 1, target: 4 }, &[node(5)]);
        bench.lives(Some(again), None).await;
        bench.world.check().expect_err("no law was broken")
    });
    assert!(broken.contains("was made twice"), "{broken}");
}

#[test]
fn each_bug_of_the_whole_controller_breaks_a_law() {
    let cases = [
        (Bug::ForgetsMode, Profile::Crashy, "in mode"),
        (Bug::GapIsZero, Profile::Partition, "signals of"),
        (Bug::ForgetsBounds, Profile::Calm, "max_nodes is"),
    ];
    for (bug, profile, law) in cases {
        let twist = move |mut parts: Parts| {
            match bug {
                Bug::ForgetsBounds => parts.config.policy.thresholds.max_nodes = 1000,
                Bug::GapIsZero => parts.eyes.sources = broken(parts.eyes.sources, bug),
                _ => parts.journal = broken(parts.journal, bug),
            }
            parts
        };
        let played = |seed| play_with(seed, Some(profile), &twist).broken;
        let found = (1..400).find_map(played).unwrap_or_else(|| panic!("{bug:?} breaks no law"));
        assert!(found.contains(law), "{bug:?}: {found}");
    }
}

#[async_trait]
impl Provider for Broken<dyn Provider> {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        self.0.list().await
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        if self.1 == Bug::AsksTwice {
            self.0.create(call, new).await;
        }
        self.0.create(&self.fenced(call), new).await
    }

    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()> {
        match self.0.destroy(&self.fenced(call), machine).await {
            Effect::Unknown(_) if self.1 == Bug::TimeoutIsDone => Effect::Done(()),
            told => told,
        }
    }

    fn timeout(&self) -> Duration {
        self.0.timeout()
    }
}

impl<T: ?Sized> Broken<T> {
    fn fenced(&self, call: &Call) -> Call {
        let fence = if self.1 == Bug::OldFence && call.fence > 2 { 1 } else { call.fence };
        Call { fence, ..call.clone() }
    }
}

#[async_trait]
impl Datastore for Broken<dyn Datastore> {
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        let mut seen = self.0.inventory(via).await?;
        if self.1 == Bug::ErrorIsAbsence && self.2.load(Ordering::Relaxed) {
            seen.members.retain(|member| member.id != node(3));
        }
        if self.1 == Bug::ArrivedTooEarly {
            for transfer in std::mem::take(&mut seen.transfers) {
                seen.shards.retain(|r| r.shard != transfer.shard || r.node != transfer.from);
                let arrived = |r: &&mut Replica| r.shard == transfer.shard && r.node == transfer.to;
                seen.shards.iter_mut().filter(arrived).for_each(|r| r.state = ReplicaState::Active);
            }
        }
        Ok(seen)
    }

    async fn held_by(&self, member: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        if self.1 == Bug::ArrivedTooEarly { Ok(Vec::new()) } else { self.0.held_by(member).await }
    }

    async fn join(&self, call: &Call, machine: &Machine) -> Effect<()> {
        self.0.join(&self.fenced(call), machine).await
    }

    async fn ready(&self, machine: &Machine) -> Result<bool, Unanswered> {
        self.0.ready(machine).await
    }

    async fn cordon(&self, call: &Call, id: &NodeId) -> Effect<()> {
        self.0.cordon(&self.fenced(call), id).await
    }

    async fn uncordon(&self, call: &Call, id: &NodeId) -> Effect<()> {
        self.0.uncordon(&self.fenced(call), id).await
    }

    async fn start_move(&self, call: &Call, m: &Move) -> Effect<()> {
        self.0.start_move(&self.fenced(call), m).await
    }

    async fn finish_move(&self, call: &Call, m: &Move) -> Effect<()> {
        self.0.finish_move(&self.fenced(call), m).await
    }

    async fn replicate(&self, call: &Call, m: &Move) -> Effect<()> {
        self.0.replicate(&self.fenced(call), m).await
    }

    async fn cancel_move(&self, call: &Call, m: &Move) -> Effect<()> {
        self.0.cancel_move(&self.fenced(call), m).await
    }

    async fn leave(&self, call: &Call, id: &NodeId, proof: &ProofOfEmpty) -> Effect<()> {
        match self.0.leave(&self.fenced(call), id, proof).await {
            Effect::Unknown(why) => {
                self.2.store(true, Ordering::Relaxed); // and from here on nobody answers
                Effect::Unknown(why)
            }
            told => told,
        }
    }

    async fn forget(&self, call: &Call, id: &NodeId, proof: &ProofOfCopies) -> Effect<()> {
        self.0.forget(&self.fenced(call), id, proof).await
    }

    async fn unjoin(&self, call: &Call, id: &NodeId) -> Effect<()> {
        self.0.unjoin(&self.fenced(call), id).await
    }
}

#[async_trait]
impl Scrape for Broken<dyn Scrape> {
    fn signals(&self) -> Vec<Signal> {
        self.0.signals()
    }

    async fn collect(&self, targets: &[Target], interval: Duration, clock: &dyn Clock) -> Samples {
        let mut samples = self.0.collect(targets, interval, clock).await;
        for sample in &mut samples.nodes {
            sample.answer = Answer::Up;
            sample.signals.values_mut().filter(|raw| raw.is_err()).for_each(|raw| *raw = Ok(Raw::Gauge(0.0)));
        }
        samples
    }
}

#[async_trait]
impl Journal for Broken<dyn Journal> {
    fn fence(&self) -> u64 {
        self.0.fence()
    }
    async fn load(&self, pool: &PoolName, name: &str) -> Result<Option<Value>, JournalError> {
        if self.1 == Bug::ForgetsMode && name == "mode" {
            return Ok(None);
        }
        self.0.load(pool, name).await
    }
    async fn save(&self, pool: &PoolName, name: &str, value: &Value, entry: Option<Entry>) -> Result<(), JournalError> {
        self.0.save(pool, name, value, entry).await
    }
    async fn decided(
        &self,
        pool: &PoolName,
        decision: &Decision,
        memory: &Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        self.0.decided(pool, decision, memory, entry).await
    }
    async fn decisions(&self, p: &PoolName, limit: usize, before: Option<u64>) -> Result<Vec<Decision>, JournalError> {
        self.0.decisions(p, limit, before).await
    }
    async fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        self.0.decision(pool, id).await
    }
    async fn open(&self, operation: &Operation, key: Option<&str>, entry: Entry) -> Result<(), JournalError> {
        self.0.open(operation, key, entry).await
    }
    async fn update(&self, o: &Operation, step: Option<&Step>, entry: Option<Entry>) -> Result<(), JournalError> {
        if self.1 == Bug::ForgetsIntents && step.is_some_and(|step| step.state == StepState::Intent) {
            return Ok(());
        }
        self.0.update(o, step, entry).await
    }
    async fn open_operation(&self, pool: &PoolName) -> Result<Option<Operation>, JournalError> {
        self.0.open_operation(pool).await
    }
    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>, JournalError> {
        self.0.operation(id).await
    }
    async fn operations(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<&OperationId>,
    ) -> Result<Vec<Operation>, JournalError> {
        self.0.operations(pool, limit, before).await
    }
    async fn by_key(&self, pool: &PoolName, key: &str, now: Timestamp) -> Result<Option<OperationId>, JournalError> {
        self.0.by_key(pool, key, now).await
    }
    async fn append(&self, entry: Entry) -> Result<(), JournalError> {
        self.0.append(entry).await
    }
    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError> {
        self.0.history(query).await
    }
    async fn observed(&self, seen: &Observation) -> Result<(), JournalError> {
        self.0.observed(seen).await
    }
    async fn observations(&self, p: &PoolName, since: Timestamp, step: u64) -> Result<Vec<Value>, JournalError> {
        self.0.observations(p, since, step).await
    }
}
