//! The invented cluster as provider, datastore and pages: every call may fail as told or drawn, and the controller may die
//! before it or after it.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::deeds::{Deed, Made};
use super::faults::Fault;
use super::nature::Listing;
use super::world::{Due, Line, World, node};
use crate::clock::Clock;
use crate::model::{Inventory, Machine, Member, Move, NodeId, Samples, ShardId, Signal};
use crate::operate::drivers::{Call, Datastore, Effect, NewNode, Provider, Unanswered};
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};
use crate::scrape::{Scrape, Target};

/// A request to drop a copy that was answered comes once more within this time, or never: nobody could tell a later one from
/// a new one, if a copy has come back meanwhile.
const DROPPED_AGAIN_WITHIN: Duration = Duration::from_secs(5);

impl World {
    /// One call that changes something: the controller dies before or after it, or it fails as told.
    async fn change(&self, call: &Call, deed: Deed) -> Made {
        self.crash.point().await;
        let fault = match self.received(call, &deed) {
            Ok(fault) => fault,
            Err(why) => return Effect::NoEffect(why),
        };
        let effect = match fault {
            None => self.done(&deed),
            Some(Fault::Refuse) => Effect::NoEffect("refused".into()),
            Some(Fault::Lose) => Effect::Unknown("connection reset".into()),
            Some(Fault::LoseAnswer) => {
                self.done(&deed);
                Effect::Unknown("connection reset".into())
            }
            Some(Fault::Late(after)) => {
                self.later(call, &deed, after);
                Effect::Unknown("timed out".into())
            }
            Some(Fault::Slow(after)) => {
                tokio::time::sleep(after).await;
                self.done(&deed)
            }
            Some(Fault::Double(after)) => {
                let done = self.done(&deed);
                let drops = matches!(deed, Deed::Finish(_));
                self.later(call, &deed, if drops { after.min(DROPPED_AGAIN_WITHIN) } else { after });
                done
            }
            Some(Fault::Wrong) => match &deed {
                Deed::Create(_) => {
                    self.done(&deed).map(|made| made.map(|machine| Machine { id: node(999), ..machine }))
                }
                _ => Effect::NoEffect("refused".into()),
            },
            Some(Fault::InProgress) => Effect::InProgress,
            Some(Fault::Hang) => std::future::pending().await,
        };
        self.crash.point().await;
        effect
    }

    fn received(&self, call: &Call, deed: &Deed) -> Result<Option<Fault>, String> {
        let mut state = self.state();
        let state = &mut *state;
        let fault = state.faults.of_call(&mut state.rng, deed.name(), &call.key);
        let told = fault.map(|fault| format!(" ({fault:?})")).unwrap_or_default();
        let seq = call.key.rsplit('/').next().unwrap_or_default();
        let text = format!("{} {} #{seq}{told}", deed.name(), deed.on());
        let line = Line { at: state.since_start(), is_call: true, text, note: format!("fence {}", call.fence) };
        state.ledger.push(line);
        state.tally.calls += 1;
        if let Some(fault) = fault {
            state.tally.fault(fault.name());
        }
        state.receive(call, deed)?;
        Ok(fault)
    }

    fn done(&self, deed: &Deed) -> Made {
        let mut state = self.state();
        let made = state.act(deed);
        if let (Effect::NoEffect(why), Some(line)) = (&made, state.ledger.last_mut()) {
            line.note.push_str(&format!("; refused: {why}"));
        }
        state.judge(deed.name());
        made
    }

    fn later(&self, call: &Call, deed: &Deed, after: Duration) {
        let asked = Instant::now();
        let due = Due { at: asked + after, asked, after_death: None, deed: deed.clone(), fence: call.fence };
        self.state().due.push(due);
    }

    /// One read: it takes its time, or fails.
    async fn read(&self, what: &'static str) -> Result<(), Unanswered> {
        let (fails, takes) = {
            let mut state = self.state();
            let state = &mut *state;
            let longest = state.reads_last.as_millis() as u64;
            let takes = if longest > 0 { state.rng.u64(0..longest) } else { 0 };
            (state.faults.of_read(&mut state.rng, what), Duration::from_millis(takes))
        };
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        if fails { Err(Unanswered(format!("{what}: connection refused"))) } else { Ok(()) }
    }

    fn reached(&self, id: &NodeId) -> Result<(), Unanswered> {
        if self.state().is_silent(id) { Err(Unanswered("no route to host".into())) } else { Ok(()) }
    }
}

fn nothing(made: Made) -> Effect<()> {
    made.map(|_| ())
}

#[async_trait]
impl Provider for World {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        self.read("list").await?;
        let mut state = self.state();
        match state.listing {
            Listing::Fails => Err(Unanswered("the provider's API is down".into())),
            Listing::Empty => Ok(Vec::new()),
            Listing::Told => {
                state.laws.shown();
                Ok(state.machines.values().cloned().collect())
            }
        }
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        match self.change(call, Deed::Create(new.clone())).await {
            Effect::Done(Some(machine)) => Effect::Done(machine),
            Effect::Done(None) => Effect::Unknown("no machine was named".into()),
            // Whoever was refused, or is to wait, may ask again without looking.
            Effect::InProgress => {
                self.state().laws.listed();
                Effect::InProgress
            }
            Effect::NoEffect(why) => {
                self.state().laws.listed();
                Effect::NoEffect(why)
            }
            Effect::Unknown(why) => Effect::Unknown(why),
        }
    }

    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()> {
        nothing(self.change(call, Deed::Destroy(machine.clone())).await)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}

#[async_trait]
impl Datastore for World {
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        self.read("inventory").await?;
        let state = self.state();
        let Some(via) = via else {
            let answers = state.members.keys().any(|id| !state.is_silent(id));
            let silent = state.store_is_silent || state.scale.data && !answers;
            return if silent { Err(Unanswered("no member answers".into())) } else { Ok(state.inventory()) };
        };
        if state.is_silent(via) || state.store_is_silent {
            return Err(Unanswered("no route to host".into()));
        }
        let fate = state.fates.get(via);
        let mut view = fate.and_then(|fate| fate.believes.clone()).unwrap_or_else(|| state.inventory());
        if fate.is_some_and(|fate| fate.denies) {
            view.shards.retain(|replica| replica.node != *via);
        }
        Ok(view)
    }

    fn holds_data(&self) -> bool {
        self.scale.data
    }

    async fn held_by(&self, member: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        self.read("held_by").await?;
        self.reached(&member.id)?;
        let state = self.state();
        if state.fates.get(&member.id).is_some_and(|fate| fate.denies) {
            return Ok(Vec::new());
        }
        let on = state.copies.iter().filter(|((_, on), _)| *on == member.id);
        Ok(on.map(|((shard, _), held)| (shard.clone(), held.vectors.len() as u64)).collect())
    }

    async fn join(&self, call: &Call, machine: &Machine) -> Effect<()> {
        nothing(self.change(call, Deed::Join(machine.clone())).await)
    }

    async fn ready(&self, machine: &Machine) -> Result<bool, Unanswered> {
        self.read("ready").await?;
        self.reached(&machine.id)?;
        let state = self.state();
        Ok(state.is_ready && !state.fates.get(&machine.id).is_some_and(|fate| fate.lies))
    }

    async fn cordon(&self, call: &Call, id: &NodeId) -> Effect<()> {
        nothing(self.change(call, Deed::Cordon(id.clone())).await)
    }

    async fn uncordon(&self, call: &Call, id: &NodeId) -> Effect<()> {
        nothing(self.change(call, Deed::Uncordon(id.clone())).await)
    }

    async fn start_move(&self, call: &Call, m: &Move) -> Effect<()> {
        nothing(self.change(call, Deed::Move(m.clone())).await)
    }

    async fn finish_move(&self, call: &Call, m: &Move) -> Effect<()> {
        // A store that drops by itself is not even asked.
        if !self.state().copies_only {
            return Effect::Done(());
        }
        nothing(self.change(call, Deed::Finish(m.clone())).await)
    }

    async fn replicate(&self, call: &Call, m: &Move) -> Effect<()> {
        nothing(self.change(call, Deed::Replicate(m.clone())).await)
    }

    async fn cancel_move(&self, call: &Call, m: &Move) -> Effect<()> {
        nothing(self.change(call, Deed::Cancel(m.clone())).await)
    }

    async fn leave(&self, call: &Call, id: &NodeId, proof: &ProofOfEmpty) -> Effect<()> {
        self.is_about(proof.node(), id);
        nothing(self.change(call, Deed::Leave(id.clone())).await)
    }

    async fn forget(&self, call: &Call, id: &NodeId, proof: &ProofOfCopies) -> Effect<()> {
        self.is_about(proof.node(), id);
        nothing(self.change(call, Deed::Forget(id.clone())).await)
    }

    async fn unjoin(&self, call: &Call, id: &NodeId) -> Effect<()> {
        nothing(self.change(call, Deed::Unjoin(id.clone())).await)
    }

    async fn out_of_service(&self, call: &Call, member: &Member) -> Effect<()> {
        nothing(self.change(call, Deed::OutOfService(member.id.clone())).await)
    }

    async fn in_service(&self, call: &Call, member: &Member) -> Effect<()> {
        nothing(self.change(call, Deed::InService(member.id.clone())).await)
    }

    fn has_service_hooks(&self) -> bool {
        self.state().has_hooks
    }
}

impl World {
    fn is_about(&self, proven: &NodeId, id: &NodeId) {
        if proven != id {
            self.state().laws.breach(|| format!("{id} was to go on a proof of {proven}"));
        }
    }
}

#[async_trait]
impl Scrape for World {
    fn signals(&self) -> Vec<Signal> {
        Signal::BUILT_IN.to_vec()
    }

    async fn collect(&self, targets: &[Target], _interval: Duration, clock: &dyn Clock) -> Samples {
        let mut state = self.state();
        state.writes();
        Samples::of_nodes(state.samples(targets, clock.now(), &Signal::BUILT_IN))
    }
}
