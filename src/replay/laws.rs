//! What must hold at every instant, whatever goes wrong: kept by the invented cluster itself, from what it was asked, what
//! it did, and what the journal had on disk by then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::deeds::Deed;
use super::world::State;
use crate::model::{
    HistoryKind, Kind, Machine, Mode, Move, NodeId, Operation, OperationId, OperationState, ShardId, Step, StepAction,
    StepState, Trigger,
};
use crate::operate::drivers::Call;
use crate::record::Entry;

/// A node that was silent for longer than this when it left was not asked whether it is empty.
const PROOF_LASTS: Duration = Duration::from_secs(60);

/// The books that the laws are held against.
#[derive(Default)]
pub(super) struct Laws {
    broken: Option<String>,
    /// The highest fence seen.
    pub fence: u64,
    /// What each idempotency key stands for.
    keys: BTreeMap<String, String>,
    /// Names of machines that were ever made.
    made: BTreeSet<NodeId>,
    /// Asked for, and the provider's list not read since: asking again would be blind.
    unread: BTreeSet<NodeId>,
    /// Whether the provider ever listed its machines: before that, and without data, nothing tells a pool from an empty one.
    has_been_shown: bool,
    /// Whole copies that each shard must keep.
    floor: BTreeMap<ShardId, usize>,
    /// Nodes cordoned by a request that came late.
    stray: BTreeSet<NodeId>,
    /// Dead nodes that were replaced.
    pub lost: BTreeSet<NodeId>,
    /// Whether a journal tells what it has on disk.
    watched: bool,
    /// Nodes whose left-over cordon is to be lifted or set anew, as the audit trail has it.
    lifting: BTreeSet<String>,
    /// Last durable state of each step, with the fence under which it was written.
    steps: BTreeMap<String, (StepState, u64)>,
    open: BTreeMap<OperationId, Operation>,
    mode: Option<Mode>,
    /// Members without all numbers, at the last look and the one before.
    blind: [Vec<String>; 2],
}

impl Laws {
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// The first breach is the one to be explained; what follows may follow from it.
    pub fn breach(&mut self, what: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(what);
    }

    pub fn made(&mut self, id: &NodeId) {
        if !self.made.insert(id.clone()) {
            self.breach(|| format!("a machine named {id} was made twice"));
        }
    }

    /// Nature took a machine. Whoever asked for it and has not heard that it was made finds none, and may ask again.
    pub fn taken(&mut self, id: &NodeId) {
        let asked = |step: &Step| step.state.is_in_doubt() && step.action == StepAction::Create { node: id.clone() };
        if self.open.values().flat_map(|operation| &operation.steps).any(asked) {
            self.made.remove(id);
        }
    }

    pub fn listed(&mut self) {
        self.unread.clear();
    }

    /// The provider has shown its machines.
    pub fn shown(&mut self) {
        self.has_been_shown = true;
        self.listed();
    }

    /// A person's word stands in for a look at the list.
    pub fn vouched(&mut self, id: &NodeId) {
        self.unread.remove(id);
    }

    pub fn looked(&mut self, blind: Vec<String>) {
        let last = std::mem::replace(&mut self.blind[0], blind);
        self.blind[1] = last;
    }

    pub fn came_late(&mut self, deed: &Deed) {
        match deed {
            Deed::Cordon(id) => {
                self.stray.insert(id.clone());
            }
            Deed::Uncordon(id) => {
                self.stray.remove(id);
            }
            _ => {}
        }
    }

    /// Whether the cordon of a node is nobody's fault: its request came late.
    pub fn is_stray(&self, id: &NodeId) -> bool {
        self.stray.contains(id)
    }

    // ---- what the journal has on disk

    pub fn watch(&mut self) {
        self.watched = true;
    }

    pub fn mode_saved(&mut self, mode: Mode) {
        self.mode = Some(mode);
    }

    /// A row of the audit trail.
    pub fn appended(&mut self, entry: &Entry) {
        if entry.kind == HistoryKind::Step && matches!(entry.detail["step"].as_str(), Some("cordon" | "uncordon")) {
            self.lifting.extend(entry.detail["node"].as_str().map(str::to_string));
        }
    }

    fn wrote_step(&mut self, fence: u64, step: &Step) {
        self.steps.insert(step.key.clone(), (step.state, fence));
    }
}

impl State {
    /// Nature has taken something: it is not held against anyone that it is missing.
    pub fn nature_took(&mut self) {
        for shard in self.acked.keys().cloned().collect::<Vec<_>>() {
            let whole = self.complete(&shard);
            let known = self.laws.floor.entry(shard).or_default();
            *known = whole.min(self.scale.replicas as usize);
        }
    }

    /// After each change that was asked for: every shard has the whole copies that it had, and none lacks a vector.
    pub fn judge(&mut self, after: &str) {
        for (shard, acked) in &self.acked {
            let whole = self.complete(shard);
            let floor = self.laws.floor.entry(shard.clone()).or_default();
            if whole < *floor {
                let least = *floor;
                self.laws.breach(|| format!("{shard} has {whole} whole copies after {after}, it had {least}"));
                return;
            }
            *floor = whole.min(self.scale.replicas as usize);
            let lacking = |((s, _), held): &(&(ShardId, NodeId), &super::world::Held)| {
                s == shard && !held.stale && !held.vectors.is_superset(acked)
            };
            if let Some(((_, on), _)) = self.copies.iter().find(lacking) {
                self.laws.breach(|| format!("{shard} on {on} lacks vectors after {after}"));
                return;
            }
        }
        let cordoned: Vec<&NodeId> =
            self.members.iter().filter(|(id, c)| **c && !self.laws.stray.contains(*id)).map(|(id, _)| id).collect();
        if cordoned.len() > 1 {
            let told = format!("two nodes are being removed at once: {cordoned:?}");
            self.laws.breach(|| told);
        }
    }

    /// A request as it comes in, before anything is made of it.
    ///
    /// # Errors
    /// Why the cluster refuses it outright: its fence is old.
    pub fn receive(&mut self, call: &Call, deed: &Deed) -> Result<(), String> {
        let told = format!("{} {}", deed.name(), deed.on());
        if call.fence < self.laws.fence {
            let (theirs, seen) = (call.fence, self.laws.fence);
            self.laws.breach(|| format!("{told} came with fence {theirs}, {seen} was seen before"));
            return Err(format!("fence {theirs} is old"));
        }
        self.laws.fence = call.fence;
        self.was_written_down(call, &told);
        // A copy is begun, finished and called off by one step.
        if !matches!(deed, Deed::Cancel(_) | Deed::Finish(_)) {
            let meant = self.laws.keys.entry(call.key.clone()).or_insert_with(|| told.clone());
            if *meant != told {
                let meant = meant.clone();
                self.laws.breach(|| format!("key {} stood for {meant}, and now for {told}", call.key));
            }
        }
        self.may_be_asked(call, deed);
        Ok(())
    }

    /// No effect without an earlier durable intent with the same key, written under the same fence.
    fn was_written_down(&mut self, call: &Call, told: &str) {
        if !self.laws.watched {
            return;
        }
        if let Some((_, left_over)) = call.key.split_once("/left-over/") {
            let node = left_over.split('/').next().unwrap_or_default();
            if !self.laws.lifting.contains(node) {
                self.laws.breach(|| format!("{told} was asked, and no row of the audit trail says so"));
            }
            return;
        }
        match self.laws.steps.get(&call.key) {
            Some((StepState::Intent, fence)) if *fence == call.fence => {}
            known => {
                let known = format!("{known:?}");
                self.laws.breach(|| format!("{told} was asked without a durable intent of {}: {known}", call.key));
            }
        }
    }

    fn may_be_asked(&mut self, call: &Call, deed: &Deed) {
        let open = self.laws.open.get(&call.operation).cloned();
        match deed {
            Deed::Create(new) => {
                if !self.laws.unread.insert(new.id.clone()) {
                    self.laws.breach(|| format!("create {} was asked twice without a look at the list", new.id));
                }
                self.stays_below_most(&new.id, open.as_ref());
            }
            Deed::Destroy(machine) => self.may_be_destroyed(machine, open.as_ref()),
            Deed::Leave(id) => {
                if self.holds(id) {
                    self.laws.breach(|| format!("{id} was to leave while it holds, sends or receives a shard"));
                }
                let now = Instant::now();
                let silent = self.fates.get(id).and_then(|fate| fate.dead_since);
                if silent.is_some_and(|since| now.saturating_duration_since(since) > PROOF_LASTS) {
                    self.laws.breach(|| format!("{id} was to leave though it had long been silent"));
                }
                self.stays_above_least(id, "leave");
            }
            Deed::Move(_) | Deed::Replicate(_) => self.is_gentle(open.as_ref()),
            Deed::Unjoin(id) if self.holds(id) => {
                self.laws.breach(|| format!("{id} was to be taken out while it holds, sends or receives a shard"));
            }
            _ => {}
        }
    }

    /// Few copies at once: four in all, one from a node and one to it.
    fn is_gentle(&mut self, open: Option<&Operation>) {
        let begun = |step: &&Step| step.state == StepState::Intent;
        let copies: Vec<&Move> =
            open.iter().flat_map(|o| &o.steps).filter(begun).filter_map(|step| step.action.copy()).collect();
        let from: BTreeSet<&NodeId> = copies.iter().map(|copy| &copy.from).collect();
        let to: BTreeSet<&NodeId> = copies.iter().map(|copy| &copy.to).collect();
        if copies.len() > 4 || from.len() < copies.len() || to.len() < copies.len() {
            let told = format!("too many copies at once: {copies:?}");
            self.laws.breach(|| told);
        }
        self.tally.most_at_once = self.tally.most_at_once.max(copies.len() as u64);
    }

    /// Registered machines and creations of this operation in flight, this one included; the lost, and the dead node that
    /// this one stands in for, do not count. Nor does a creation that an earlier operation took back before it came
    /// through: nobody can know of it until it does, and then it is told as an orphan.
    fn stays_below_most(&mut self, id: &NodeId, open: Option<&Operation>) {
        let replaced = open.and_then(|o| o.replaces.as_ref());
        let counts = |other: &&NodeId| *other != id && Some(*other) != replaced && !self.laws.lost.contains(*other);
        let coming = self.due.iter().filter_map(|due| match &due.deed {
            Deed::Create(new) if open.is_some_and(|o| o.nodes.contains(&new.id)) => Some(&new.id),
            _ => None,
        });
        let all: BTreeSet<&NodeId> = self.machines.keys().chain(coming).filter(counts).collect();
        let (would_be, most) = (all.len() + 1, self.scale.max_nodes as usize);
        if would_be > most && (self.scale.data || self.laws.has_been_shown) {
            self.laws.breach(|| format!("{would_be} machines with {id}, max_nodes is {most}"));
        }
    }

    /// Nodes that take part once these have gone. Without data there is nothing to join: whatever runs takes part, one that
    /// came late included.
    fn staying(&self, without: &[NodeId]) -> usize {
        let stays = |id: &&NodeId| !without.contains(id);
        if self.scale.data {
            let open = self.members.iter().filter(|(_, cordoned)| !**cordoned).map(|(id, _)| id);
            return open.filter(stays).count();
        }
        self.machines.keys().filter(|id| !self.laws.lost.contains(*id)).filter(stays).count()
    }

    fn stays_above_least(&mut self, id: &NodeId, what: &str) {
        let staying = self.staying(std::slice::from_ref(id));
        let least = self.scale.min_nodes as usize;
        let is_there = if self.scale.data { self.members.contains_key(id) } else { self.machines.contains_key(id) };
        if is_there && staying < least {
            self.laws.breach(|| format!("{what} {id} leaves {staying} nodes, min_nodes is {least}"));
        }
    }

    /// Only what an open operation condemned, and no member.
    fn may_be_destroyed(&mut self, machine: &Machine, open: Option<&Operation>) {
        let id = &machine.id;
        if self.scale.data && (self.holds(id) && !self.laws.lost.contains(id) || self.members.contains_key(id)) {
            self.laws.breach(|| format!("{id} was to be destroyed while it holds shards or is a member"));
        }
        if self.laws.watched {
            let condemned = open.is_some_and(|o| {
                let action = StepAction::Destroy { node: id.clone() };
                o.steps.iter().any(|step| step.action == action && step.state == StepState::Intent)
            });
            if !condemned {
                self.laws.breach(|| format!("{id} was to be destroyed, and no open operation says so"));
            }
        }
        let exchanged = self.machines.get(id).is_some_and(|real| {
            machine.instance.is_some() && real.instance.is_some() && real.instance != machine.instance
        });
        if exchanged {
            self.laws.breach(|| format!("{id} was to be destroyed, and it is another instance now"));
        }
        let shrinks = open.is_some_and(|o| o.kind == Kind::ScaleDown);
        if !self.scale.data && shrinks {
            self.stays_above_least(id, "destroy");
        }
    }

    // ---- operations, as they reach the disk

    /// An operation was opened.
    pub fn opened(&mut self, fence: u64, operation: &Operation) {
        if let Some(other) = self.laws.open.keys().next() {
            let other = other.clone();
            self.laws.breach(|| format!("{} was opened while {other} is open", operation.id));
        }
        let told = format!("{} was started by {:?}", operation.kind.as_str(), operation.trigger);
        let is_automatic = operation.trigger != Trigger::Manual;
        if is_automatic && self.laws.mode.is_some_and(|mode| mode != Mode::Active) {
            let mode = self.laws.mode.map_or("", Mode::as_str);
            self.laws.breach(|| format!("{told} in mode {mode}"));
        }
        let makes = operation.steps.iter().any(|step| matches!(step.action, StepAction::Create { .. }));
        if matches!(operation.kind, Kind::ScaleUp | Kind::Replace) && !makes {
            self.laws.breach(|| format!("{told} and makes no node"));
        }
        if operation.kind == Kind::ScaleDown {
            // What a person asks for is decided over the last look that was thought through; a newer one may be under way.
            let [last, before] = &self.laws.blind;
            let blind = !last.is_empty() && (is_automatic || !before.is_empty());
            if blind {
                let named = last.join(", ");
                self.laws.breach(|| format!("{told} while signals of {named} were missing"));
            }
            // A node may have vanished since then: whether enough stay is judged when one is taken away.
            let staying = self.staying(&operation.nodes);
            if is_automatic && staying < self.scale.min_nodes as usize {
                let least = self.scale.min_nodes;
                self.laws.breach(|| format!("{told} and leaves {staying} nodes, min_nodes is {least}"));
            }
        }
        for step in &operation.steps {
            self.laws.wrote_step(fence, step);
        }
        self.laws.open.insert(operation.id.clone(), operation.clone());
        self.told(format!("{} {} is begun", operation.kind.as_str(), operation.id));
    }

    /// An operation, or one step of it, was written anew.
    pub fn wrote(&mut self, fence: u64, operation: &Operation, step: Option<&Step>) {
        if let Some(step) = step {
            if step.state == StepState::Waiting {
                self.laws.listed(); // a person says that it had no effect, and has looked
            }
            self.laws.wrote_step(fence, step);
        }
        if !operation.state.is_final() {
            let known = self.laws.open.insert(operation.id.clone(), operation.clone());
            if operation.state == OperationState::Blocked && known.is_none_or(|o| o.state != OperationState::Blocked) {
                self.tally.operation(operation.kind.as_str(), "blocked");
                self.told(format!("{} is blocked: {}", operation.kind.as_str(), operation.detail));
            }
            return;
        }
        self.laws.open.remove(&operation.id);
        for step in &operation.steps {
            self.laws.steps.remove(&step.key);
        }
        let is_kept = matches!(operation.state, OperationState::Succeeded | OperationState::Partial);
        let is_gone =
            |dead: &&NodeId| operation.state == OperationState::Succeeded || !self.members.contains_key(*dead);
        self.laws.lost.extend(operation.replaces.iter().filter(|dead| is_kept && is_gone(dead)).cloned());
        // Whoever has made a node knows that a list without any is wrong.
        let made = |step: &Step| matches!(step.action, StepAction::Create { .. }) && step.state == StepState::Done;
        self.laws.has_been_shown |= is_kept && operation.steps.iter().any(made);
        if is_kept && matches!(operation.kind, Kind::Reap | Kind::Adopt) {
            self.laws.lost.retain(|node| !operation.nodes.contains(node));
        }
        self.tally.operation(operation.kind.as_str(), operation.state.as_str());
        self.told(format!("{} has ended, {}: {}", operation.kind.as_str(), operation.state.as_str(), operation.detail));
    }
}
