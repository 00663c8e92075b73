//! Steps that act on the world: apply, look whether it took, repeat with the same key, or give up in the right way.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ledger::advance;
use super::throttle::Level;
use super::work::{Halt, Outcome, Proof, Run};
use crate::model::{Kind, Machine, Member, NodeId, OperationState, StepAction, StepEvent, StepState};
use crate::operate::drivers::{Call, Effect, NewNode, Unanswered, Victim};
use crate::operate::placement::Placing;
use crate::operate::plan;
use crate::operate::proof::Baseline;
use crate::operate::shards::{Infeasible, plan_drain, plan_restore};

/// Attempts at an effect before it counts as failed.
const ATTEMPTS: u32 = 3;
/// The same once there is no way back.
const ATTEMPTS_FORWARD_ONLY: u32 = 8;
/// Looks at a doubtful effect before a person must say.
const LOOKS: u32 = 30;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How much longer than its deadline a driver may take to give up by itself.
const MARGIN: Duration = Duration::from_secs(20);

/// How old a proof may be when the node leaves.
const PROOF_LASTS: Duration = Duration::from_secs(30);

/// What validation found; the later steps rely on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// How many nodes the provider listed: an empty list later is then an error, not an empty pool.
    machines: usize,
    /// The node to be removed or adopted, or the dead one to be replaced.
    machine: Option<Machine>,
    pub baseline: Option<Baseline>,
    /// How searching was before anything moved.
    #[serde(default)]
    pub level: Option<Level>,
}

/// Whether an effect is there.
#[derive(Debug, PartialEq)]
pub enum Look {
    Done(Option<Value>),
    NotDone,
    Unknown(String),
}

impl Run {
    /// Writes the intent, applies, and looks where that is in doubt, until the outcome is known. What a step in doubt
    /// left from before (a crash, a lost answer) is looked at first, never applied first.
    pub(super) async fn enact(&mut self, i: usize) -> Result<Outcome, Halt> {
        let mut in_doubt = self.operation.steps[i].state != StepState::Waiting;
        // Attempted, and put back because a person said that it had no effect: that stands where the world says nothing.
        let mut said_absent = !in_doubt && self.operation.steps[i].attempts > 0;
        let mut clean = !in_doubt && !said_absent;
        let mut why = "it did not happen".to_string();
        // Counted from this start: after a crash or a block there is always one more, with the same key.
        let mut tries = 0;
        loop {
            let lifts = matches!(self.operation.steps[i].action, StepAction::Uncordon { .. });
            let may_be_moot = match self.operation.steps[i].action {
                StepAction::Unjoin { .. } | StepAction::Forget { .. } | StepAction::Uncordon { .. } => true,
                StepAction::Destroy { .. } => self.operation.kind == Kind::Reap,
                StepAction::InService { .. } => matches!(self.operation.kind, Kind::ScaleDown | Kind::Drain),
                _ => false,
            };
            let look_first = in_doubt || may_be_moot || said_absent;
            if look_first {
                match self.look_until_known(i).await? {
                    Look::Done(output) if in_doubt => return Ok(Outcome::Done(output)),
                    Look::Done(output) if said_absent => {
                        self.begin_step(i).await?;
                        return Ok(Outcome::Done(output));
                    }
                    Look::Unknown(_) if said_absent || lifts && !in_doubt => {}
                    Look::Done(_) => return Ok(Outcome::Moot("it is so already".into())),
                    Look::Unknown(why) => return Ok(Outcome::Blocked(why)),
                    // A person and the world agree.
                    Look::NotDone => clean |= said_absent,
                }
            }
            said_absent = false;
            if tries >= self.attempts() {
                return self.give_up(i, clean, why).await;
            }
            self.until_allowed().await?;
            if self.cancelled() {
                return Ok(Outcome::Cancelled);
            }
            if let Err(no) = self.may_act(i).await? {
                // What was asked for before may have come through late, while the questions were put.
                let asked = self.operation.steps[i].state != StepState::Waiting;
                if asked && let Look::Done(output) = self.look_until_known(i).await? {
                    return Ok(Outcome::Done(output));
                }
                return self.give_up(i, clean, no).await;
            }
            if !self.begin_effect(i).await? {
                continue;
            }
            // A journal that took no writes for a while has kept it waiting: what was proven may have changed since.
            if leaves(&self.operation.steps[i].action) && !self.has_fresh_proof(i) {
                continue;
            }
            tries += 1;
            match self.ask(i).await? {
                Effect::Done(output) => return self.confirmed(i, output).await,
                Effect::NoEffect(said) => {
                    (why, in_doubt) = (said, false);
                    // Still a member when last looked at, and the store refuses: it has not left. Should an attempt of
                    // before come through late, the store refuses it too as soon as the node holds a shard.
                    clean |= leaves(&self.operation.steps[i].action);
                    if tries < self.attempts() {
                        self.rest(self.pause(tries)).await?;
                    }
                }
                Effect::InProgress => {
                    (why, in_doubt, clean) = ("it is still under way after its deadline".into(), true, false);
                    self.lose(i, &why).await?;
                }
                Effect::Unknown(said) => {
                    (why, in_doubt, clean) = (said, true, false);
                    self.lose(i, &why).await?;
                    self.rest(self.pace.probe).await?;
                }
            }
        }
    }

    fn attempts(&self) -> u32 {
        if self.forward_only() { ATTEMPTS_FORWARD_ONLY } else { ATTEMPTS }
    }

    /// The node has left, or is forgotten: what remains must be done.
    fn forward_only(&self) -> bool {
        let left = |action: &StepAction| matches!(action, StepAction::Leave { .. } | StepAction::Forget { .. });
        self.operation.steps.iter().any(|step| left(&step.action) && step.state == StepState::Done)
    }

    fn pause(&self, attempt: u32) -> Duration {
        self.pace.probe.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE)
    }

    /// Every attempt failed. Where nothing happened for certain the step has failed; where it may have, the undo must
    /// cover it, and where nothing could undo it a person must look.
    async fn give_up(&mut self, i: usize, clean: bool, why: String) -> Result<Outcome, Halt> {
        let undoing = self.operation.state == OperationState::Undoing;
        let action = &self.operation.steps[i].action;
        let final_step = leaves(action) || matches!(action, StepAction::Destroy { .. });
        let forward_only = self.forward_only() && !matches!(action, StepAction::InService { .. });
        if undoing || forward_only || (final_step && !clean) {
            return Ok(Outcome::Blocked(why));
        }
        match self.operation.steps[i].state {
            StepState::Intent if clean => self.fail_step(i, why).await,
            _ => Ok(Outcome::Failed(why)),
        }
    }

    async fn lose(&mut self, i: usize, why: &str) -> Result<(), Halt> {
        let step = &mut self.operation.steps[i];
        advance(step, StepEvent::Lost);
        step.error = Some(why.to_string());
        self.write(Some(i), None).await
    }

    /// Asks the driver, again and again while it says that it is under way.
    async fn ask(&mut self, i: usize) -> Result<Effect<Option<Value>>, Halt> {
        let mut deadline = self.deadline(i);
        loop {
            let limit = self.operation.steps[i].deadline + MARGIN;
            let asked = tokio::time::timeout(limit, self.apply(i));
            let answer = match self.unless_stopped(asked).await? {
                Ok(answer) => answer,
                Err(_) => Effect::Unknown(format!("no answer within {} s", limit.as_secs())),
            };
            if answer != Effect::InProgress || Instant::now() >= deadline {
                return Ok(answer);
            }
            self.rest(self.pace.probe).await?;
            // A late join may have come through meanwhile, and a shard have arrived: nothing but this question keeps them.
            let takes_back = match self.operation.steps[i].action {
                StepAction::Unjoin { .. } => true,
                StepAction::Destroy { .. } => {
                    self.operation.state == OperationState::Undoing && self.hands.datastore.holds_data()
                }
                _ => false,
            };
            // The next question may do the rest of it. While that may not be, no deadline comes nearer.
            loop {
                let held = Instant::now();
                self.until_allowed().await?;
                deadline += held.elapsed();
                if takes_back && let Err(no) = self.may_act(i).await? {
                    return Ok(Effect::Unknown(no));
                }
                self.hear().await; // that may have taken its time
                if !self.is_held() {
                    break;
                }
            }
        }
    }

    /// A member that left, or was taken out, must be seen to be gone.
    async fn confirmed(&mut self, i: usize, output: Option<Value>) -> Result<Outcome, Halt> {
        let action = &self.operation.steps[i].action;
        if !leaves(action) && !matches!(action, StepAction::Unjoin { .. }) {
            return Ok(Outcome::Done(output));
        }
        let deadline = self.deadline(i);
        loop {
            match self.look_until_known(i).await? {
                Look::Done(_) => return Ok(Outcome::Done(output)),
                Look::Unknown(why) => return Ok(Outcome::Blocked(why)),
                Look::NotDone if Instant::now() >= deadline => {
                    return Ok(Outcome::Blocked("the node is still listed as a member".into()));
                }
                Look::NotDone => self.rest(self.pace.probe).await?,
            }
        }
    }

    async fn look_until_known(&mut self, i: usize) -> Result<Look, Halt> {
        let action = self.operation.steps[i].action.clone();
        for _ in 1..LOOKS {
            match self.unless_stopped(self.look(&action)).await? {
                Look::Unknown(_) => self.rest(self.pace.probe).await?,
                known => return Ok(known),
            }
        }
        self.unless_stopped(self.look(&action)).await
    }

    /// Whether the effect of `action` is there, by the provider's list or the cluster's members.
    async fn look(&self, action: &StepAction) -> Look {
        let answer = match action {
            StepAction::Create { node } => {
                self.listed(node).await.map(|found| found.map_or(Look::NotDone, |m| Look::Done(Some(json!(m)))))
            }
            StepAction::Destroy { node } => self.listed(node).await.map(|found| done_if(found.is_none())),
            StepAction::Join { node } => self.is_member(node).await.map(done_if),
            StepAction::Leave { node } | StepAction::Forget { node } | StepAction::Unjoin { node } => {
                self.is_member(node).await.map(|member| done_if(!member))
            }
            StepAction::Cordon { node } => self.is_cordoned(node).await.map(done_if),
            StepAction::Uncordon { node } => self.is_uncordoned(node).await.map(done_if),
            // Nobody tells to whom clients are sent: a hook is run again. A node that has left is sent none anyway.
            StepAction::InService { node } if matches!(self.operation.kind, Kind::ScaleDown | Kind::Drain) => {
                Ok(done_if(self.is_member(node).await.is_ok_and(|is_member| !is_member)))
            }
            _ => Ok(Look::NotDone),
        };
        answer.unwrap_or_else(|why| Look::Unknown(why.0))
    }

    /// The provider's list. One that has become empty is no answer, nor is one that was always empty whether a machine
    /// was made that may have been: nothing tells it from the list of a provider that has lost its memory.
    async fn machines(&self) -> Result<Vec<Machine>, Unanswered> {
        let machines = self.hands.provider.list().await?;
        if !machines.is_empty() {
            return Ok(machines);
        }
        if self.standing.has_listed() || self.found().is_some_and(|found| found.machines > 0) {
            return Err(Unanswered("the provider lists no node at all, though it did before or one was made".into()));
        }
        for step in self.operation.steps.iter().filter(|step| step.state.is_in_doubt()) {
            if let StepAction::Create { node } = &step.action {
                return Err(Unanswered(format!("the provider lists no node at all, and {node} may have been made")));
            }
        }
        Ok(machines)
    }

    /// The node in the provider's list.
    pub(super) async fn listed(&self, node: &NodeId) -> Result<Option<Machine>, Unanswered> {
        let machines = self.machines().await?;
        Ok(machines.into_iter().find(|machine| &machine.id == node))
    }

    /// What shards are placed by. A node that was just made is where the provider said.
    pub(super) async fn placing(&self) -> Placing {
        let mut placing = Placing::clone(&*self.standing.placing().await);
        for machine in self.operation.nodes.iter().filter_map(|node| self.machine(node)) {
            placing.add(&machine.id, machine.zone);
        }
        placing
    }

    async fn is_member(&self, node: &NodeId) -> Result<bool, Unanswered> {
        let seen = self.hands.datastore.inventory(None).await?;
        if seen.members.is_empty() {
            return Err(Unanswered("the cluster lists no member at all".into()));
        }
        Ok(seen.member(node).is_some())
    }

    async fn as_member(&self, node: &NodeId) -> Result<Member, String> {
        let seen = self.hands.datastore.inventory(None).await.map_err(|silent| silent.0)?;
        seen.member(node).cloned().ok_or_else(|| format!("{node} is not a member"))
    }

    async fn is_cordoned(&self, node: &NodeId) -> Result<bool, Unanswered> {
        let seen = self.hands.datastore.inventory(None).await?;
        seen.member(node).map(|m| m.cordoned).ok_or_else(|| Unanswered(format!("{node} is not a member")))
    }

    /// A node that is no member any more, its leave having come through late, has no cordon either.
    async fn is_uncordoned(&self, node: &NodeId) -> Result<bool, Unanswered> {
        let seen = self.hands.datastore.inventory(None).await?;
        if seen.members.is_empty() {
            return Err(Unanswered("the cluster lists no member at all".into()));
        }
        Ok(seen.member(node).is_none_or(|member| !member.cordoned))
    }

    /// The machine as the journal has it: made by this operation, or found at its start.
    pub(super) fn machine(&self, node: &NodeId) -> Option<Machine> {
        let create = StepAction::Create { node: node.clone() };
        let made = self.operation.steps.iter().find(|step| step.action == create);
        let made = made.and_then(|step| serde_json::from_value(step.output.clone()?).ok());
        made.or_else(|| self.found()?.machine).filter(|machine: &Machine| &machine.id == node)
    }

    /// Where a node is: as the journal has it, else (a person said that it was made) as the provider lists it.
    pub(super) async fn located(&self, node: &NodeId) -> Result<Machine, String> {
        match self.machine(node) {
            Some(machine) => Ok(machine),
            None => self.listed(node).await.map_err(|e| e.0)?.ok_or(format!("the provider does not list {node}")),
        }
    }

    async fn apply(&self, i: usize) -> Effect<Option<Value>> {
        let step = &self.operation.steps[i];
        let call = self.call(i);
        let (provider, store) = (&self.hands.provider, &self.hands.datastore);
        let effect = match &step.action {
            StepAction::Create { node } => {
                return match provider.create(&call, &self.new_node(node)).await {
                    Effect::Done(machine) if machine.id != *node => {
                        Effect::Unknown(format!("asked for {node}, the provider answered {}", machine.id))
                    }
                    other => other.map(|machine| Some(json!(machine))),
                };
            }
            StepAction::Destroy { node } => match self.condemned(node).await {
                Ok(machine) => provider.destroy(&call, &machine).await,
                Err(why) => Effect::NoEffect(why),
            },
            StepAction::Join { node } => match self.located(node).await {
                Ok(machine) => store.join(&call, &machine).await,
                Err(why) => Effect::NoEffect(why),
            },
            StepAction::Cordon { node } => store.cordon(&call, node).await,
            StepAction::Uncordon { node } => store.uncordon(&call, node).await,
            StepAction::OutOfService { node } => match self.as_member(node).await {
                Ok(member) => store.out_of_service(&call, &member).await,
                Err(why) => Effect::NoEffect(why),
            },
            StepAction::InService { node } => match self.as_member(node).await {
                Ok(member) => store.in_service(&call, &member).await,
                Err(why) => Effect::NoEffect(why),
            },
            StepAction::Leave { node } => match &self.proof {
                Some((Proof::Empty(proof), _)) if proof.node() == node => store.leave(&call, node, proof).await,
                _ => Effect::NoEffect(format!("there is no proof that {node} is empty")),
            },
            StepAction::Forget { node } => match &self.proof {
                Some((Proof::Copies(proof), _)) if proof.node() == node => store.forget(&call, node, proof).await,
                _ => Effect::NoEffect(format!("there is no proof that nothing is missing without {node}")),
            },
            StepAction::Unjoin { node } => store.unjoin(&call, node).await,
            other => Effect::NoEffect(format!("{} is no effect", other.name())),
        };
        effect.map(|()| None)
    }

    /// A node to be made: one that stands in for another goes where that was.
    fn new_node(&self, node: &NodeId) -> NewNode {
        let replaces = self.operation.replaces.clone();
        let zone = replaces.as_ref().and_then(|dead| self.machine(dead)).and_then(|machine| machine.zone);
        NewNode { id: node.clone(), zone, replaces }
    }

    pub(super) fn call(&self, i: usize) -> Call {
        let step = &self.operation.steps[i];
        Call {
            pool: self.operation.pool.clone(),
            operation: self.operation.id.clone(),
            step: step.action.name(),
            key: step.key.clone(),
            fence: self.hands.journal.fence(),
            deadline: step.deadline,
        }
    }

    /// The very machine to be destroyed: as the provider lists it now, if it is still the same instance.
    async fn condemned(&self, node: &NodeId) -> Result<Machine, String> {
        let known = self.machine(node);
        let listed = self.listed(node).await.map_err(|e| e.0)?;
        match (known, listed) {
            (Some(known), Some(listed)) if differ(&known, &listed) => {
                Err(format!("{node} is another instance now ({:?}, was {:?})", listed.instance, known.instance))
            }
            (_, Some(listed)) => Ok(listed),
            (Some(known), None) => Ok(known),
            // A creation whose answer was lost: the name is all that is known of it.
            (None, None) => {
                Ok(Machine { id: node.clone(), address: String::new(), zone: None, instance: None, ready: None })
            }
        }
    }

    /// The last questions before an effect that cannot be taken back. Asked until answered or the deadline is over.
    async fn may_act(&mut self, i: usize) -> Result<Result<(), String>, Halt> {
        let holds_data = self.hands.datastore.holds_data();
        match self.operation.steps[i].action.clone() {
            StepAction::Leave { node } => {
                if let Err(why) = self.read(|run| run.stands(&node)).await?.and_then(|stands| stands) {
                    return Ok(Err(why));
                }
                if !self.has_fresh_proof(i) {
                    match self.new_proof(i, &node).await? {
                        Ok(proof) => self.operation.steps[i].output = Some(proof),
                        Err(why) => return Ok(Err(why)),
                    }
                }
                Ok(Ok(()))
            }
            StepAction::Forget { node } => {
                if let Err(why) = self.standing.still_stands(&self.operation, None).await {
                    return Ok(Err(why));
                }
                match self.new_proof(i, &node).await? {
                    Ok(proof) => self.operation.steps[i].output = Some(proof),
                    Err(why) => return Ok(Err(why)),
                }
                Ok(Ok(()))
            }
            // A move that was cancelled may have come through late, between two attempts too.
            StepAction::Unjoin { .. } => Ok(self.must_stay(i).await?.and_then(|stays| stays.map_or(Ok(()), Err))),
            StepAction::Destroy { node } if holds_data => {
                let member = self.read(|run| run.is_member(&node)).await?;
                Ok(match member {
                    Ok(false) => Ok(()),
                    Ok(true) => Err(format!("{node} is still a member of the cluster")),
                    Err(why) => Err(format!("nobody can say whether {node} is still a member: {why}")),
                })
            }
            StepAction::Destroy { node } if matches!(self.operation.kind, Kind::ScaleDown | Kind::Reap) => {
                Ok(self.read(|run| run.stands(&node)).await?.and_then(|stands| stands))
            }
            _ => Ok(Ok(())),
        }
    }

    /// Whether what the step takes was proven just now.
    fn has_fresh_proof(&self, i: usize) -> bool {
        let Some((proof, at)) = &self.proof else { return false };
        let fits = match (&self.operation.steps[i].action, proof) {
            (StepAction::Leave { node }, Proof::Empty(proof)) => proof.node() == node,
            (StepAction::Forget { node }, Proof::Copies(proof)) => proof.node() == node,
            _ => false,
        };
        fits && at.elapsed() < PROOF_LASTS.max(self.pace.probe)
    }

    /// Whether the decision still stands, and the node is still the one it was made about.
    async fn stands(&self, node: &NodeId) -> Result<Result<(), String>, Unanswered> {
        let machines = self.machines().await?;
        if let Err(why) = self.standing.still_stands(&self.operation, Some(&machines)).await {
            return Ok(Err(why));
        }
        Ok(match (self.machine(node), machines.into_iter().find(|machine| machine.id == *node)) {
            (_, None) => Err(format!("the provider does not list {node} any more")),
            (None, _) => Err(format!("the journal does not know {node}")),
            (Some(known), Some(listed)) if differ(&known, &listed) => {
                Err(format!("{node} is another instance than at the start"))
            }
            _ => Ok(()),
        })
    }

    /// Whether the operation may begin, and what it starts from.
    pub(super) async fn examine(&self) -> Result<Result<Found, String>, Unanswered> {
        let machines = self.machines().await?;
        if let Err(why) = self.standing.still_stands(&self.operation, Some(&machines)).await {
            return Ok(Err(why));
        }
        let store = &self.hands.datastore;
        let seen = if store.holds_data() { Some(store.inventory(None).await?) } else { None };
        // The decision was made on an earlier look.
        if let Some(why) = seen.as_ref().and_then(|seen| seen.no_quorum.as_ref()) {
            return Ok(Err(why.clone()));
        }
        let placing = self.placing().await;
        let level = self.standing.service().map(|service| Level::of(&service));
        let mut found = Found { machines: machines.len(), machine: None, baseline: None, level };
        for node in &self.operation.nodes {
            let machine = machines.iter().find(|machine| machine.id == *node);
            match self.operation.kind {
                Kind::ScaleUp | Kind::Replace => {
                    let member = seen.as_ref().is_some_and(|seen| seen.member(node).is_some());
                    if machine.is_some() || member {
                        return Ok(Err(format!("a node named {node} exists already")));
                    }
                }
                Kind::ScaleDown => {
                    let Some(machine) = machine else {
                        return Ok(Err(format!("the provider does not list {node}")));
                    };
                    let last = machines.iter().max_by_key(|m| (plan::ordinal(&m.id), m.id.clone()));
                    if self.hands.provider.victim() == Victim::Last && last != Some(machine) {
                        return Ok(Err(format!("the provider can only take the last node away, not {node}")));
                    }
                    found.machine = Some(machine.clone());
                    if let Some(seen) = &seen {
                        if let Err(why) = plan_drain(seen, node, &placing) {
                            return Ok(Err(why.to_string()));
                        }
                        found.baseline = Some(Baseline::of(seen, node));
                    }
                }
                Kind::Drain => {
                    let Some(seen) = &seen else { return Ok(Err("the nodes hold no data".into())) };
                    if let Err(why) = plan_drain(seen, node, &placing) {
                        return Ok(Err(why.to_string()));
                    }
                    found.machine = machine.cloned();
                    found.baseline = Some(Baseline::of(seen, node));
                }
                Kind::Adopt => {
                    // A member needs no machine that the provider knows of: it is there.
                    let is_member = seen.as_ref().is_some_and(|seen| seen.member(node).is_some());
                    if machine.is_none() && !is_member {
                        return Ok(Err(format!("the provider does not list {node}")));
                    }
                    found.machine = machine.cloned();
                }
                Kind::Reap => {
                    if seen.as_ref().and_then(|seen| seen.member(node)).is_some_and(|member| member.healthy) {
                        return Ok(Err(format!("{node} is a healthy member now")));
                    }
                    found.machine = machine.cloned();
                    found.baseline = seen.as_ref().map(|seen| Baseline::of(seen, node));
                }
                Kind::Rebalance => {}
            }
        }
        if let Some(dead) = &self.operation.replaces {
            found.machine = machines.iter().find(|machine| machine.id == *dead).cloned();
            if let Some(seen) = &seen {
                // Whether the new node offers a place is seen once it is there.
                if let Err(why @ Infeasible::OnlyCopy { .. }) = plan_restore(seen, dead, &placing) {
                    return Ok(Err(why.to_string()));
                }
                found.baseline = Some(Baseline::of(seen, dead));
            }
        }
        Ok(Ok(found))
    }
}

/// After it the node is no member any more.
fn leaves(action: &StepAction) -> bool {
    matches!(action, StepAction::Leave { .. } | StepAction::Forget { .. })
}

fn done_if(yes: bool) -> Look {
    if yes { Look::Done(None) } else { Look::NotDone }
}

/// Two machines of one name that the platform tells apart.
fn differ(known: &Machine, listed: &Machine) -> bool {
    known.instance.is_some() && listed.instance.is_some() && known.instance != listed.instance
}
