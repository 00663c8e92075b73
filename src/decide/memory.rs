//! What deciding remembers from check to check: a durable part that is written to the journal and survives restarts,
//! and a volatile part (streaks, recent readings) that starts over with the program. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Situation;
use super::breaker::Breaker;
use super::busy;
use super::policy::Policy;
use super::projection;
use super::roster::Roster;
use super::streak::Streak;
use crate::model::{
    Alert, Cooldowns, Kind, Mode, NodeId, Operation, OperationId, OperationState, Signal, StepAction, StepState,
    Timestamp, Trigger,
};

/// How far back the fit of storage looks.
const STORAGE_SPAN: Duration = Duration::from_secs(6 * 3600);
/// Readings of storage closer together than this add nothing to the fit.
const STORAGE_STEP: Duration = Duration::from_secs(25);
/// The longest time that a budget is for.
const SPENT_SPAN: Duration = Duration::from_secs(24 * 3600);
const TRAFFIC_SPAN: Duration = Duration::from_secs(3600);

/// The memory of one pool. Written as JSON, only the durable part is kept: what is read back has been
/// [`Memory::restarted`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Of the last decision; ids count up per pool over all restarts.
    pub(super) last_decision: u64,
    pub(super) ends: Ends,
    /// The decision behind the last operation whose end was taken in: counts up, whatever the clock does.
    ended: u64,
    pub(super) breaker: Breaker,
    /// The last manual scale-up or scale-down that was not cancelled, and when it ended.
    pub(super) manual: Option<(Kind, Timestamp)>,
    /// When the last automatic replacement was decided.
    pub(super) last_replacement: Option<Timestamp>,
    replaced: BTreeSet<NodeId>,
    /// Nodes that a person had emptied, with the operation that did it, until that is taken back or they are gone.
    drained: BTreeMap<NodeId, OperationId>,
    /// What ended operations of the last day have changed, oldest first; for the budget.
    pub(super) spent: VecDeque<Spent>,
    /// Alerts for which an operation was begun, by entry and fingerprint.
    answered: BTreeMap<String, Answer>,
    /// What observing has pretended to do; `None` in any other mode.
    pub(super) would_be: Option<WouldBe>,
    #[serde(skip)]
    pub(super) recent: Recent,
}

/// When operations ended: what cooldowns count from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ends {
    /// The last scale-up that added a node. One that failed or was cancelled added none: `backing_off` paces that.
    pub scale_up: Option<Timestamp>,
    /// The last scale-down that removed its node.
    pub scale_down: Option<Timestamp>,
    /// The last operation of any kind, however it ended.
    pub any: Option<Timestamp>,
}

impl Ends {
    fn ended(&mut self, kind: Kind, kept: bool, at: Timestamp) {
        self.any = Some(at);
        match kind {
            Kind::ScaleUp | Kind::Adopt if kept => self.scale_up = Some(at),
            Kind::ScaleDown if kept => self.scale_down = Some(at),
            _ => {}
        }
    }

    fn latest(self, other: Ends) -> Ends {
        Ends {
            scale_up: self.scale_up.max(other.scale_up),
            scale_down: self.scale_down.max(other.scale_down),
            any: self.any.max(other.any),
        }
    }
}

/// The operation that was begun for an alert.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    /// Of the episode that was answered.
    starts_at: Timestamp,
    decision: u64,
}

/// What one operation changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    pub at: Timestamp,
    /// Nodes added and removed.
    pub nodes: u32,
    /// Of shards moved and copied.
    pub bytes: u64,
}

impl Spent {
    fn by(operation: &Operation, at: Timestamp) -> Spent {
        let done = || operation.steps.iter().filter(|step| step.state == StepState::Done).map(|step| &step.action);
        let changes = |action: &&StepAction| matches!(action, StepAction::Create { .. } | StepAction::Destroy { .. });
        Spent {
            at,
            nodes: done().filter(changes).count() as u32,
            bytes: done().filter_map(StepAction::copy).map(|copy| copy.bytes).sum(),
        }
    }
}

/// What would have run in mode *active*: it ends after the predicted time and starts its cooldown, so that the record of
/// an observing pool is honest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WouldBe {
    /// Kind and end of the pretended operation.
    pub running: Option<(Kind, Timestamp)>,
    last_replacement: Option<Timestamp>,
    ends: Ends,
}

/// What is forgotten at a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recent {
    /// Checks since the start.
    pub checks: u32,
    pub asked: Asked,
    last_check: Option<Timestamp>,
    /// By condition.
    pub streaks: BTreeMap<String, Streak>,
    /// Of the conditions on single nodes, by condition and node.
    pub hot: BTreeMap<String, BTreeMap<NodeId, Streak>>,
    /// Since when each node that is busy with data has been so at every check.
    pub busy_since: BTreeMap<NodeId, Timestamp>,
    /// Of each projected signal, mean × nodes at the last checks, oldest first: the load that stays when nodes go.
    pub totals: BTreeMap<Signal, VecDeque<f64>>,
    /// Mean × nodes of storage over the last six hours, oldest first.
    pub storage: VecDeque<(Timestamp, f64)>,
    /// Requests per second over the last hour, oldest first.
    pub traffic: VecDeque<(Timestamp, f64)>,
}

/// Nodes that the last check asks people for; none where nothing is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    pub nodes: u32,
    /// One sentence each.
    pub because: Vec<String>,
}

impl Recent {
    /// All streaks start over.
    fn start_over(&mut self) {
        self.streaks.clear();
        self.hot.clear();
    }
}

impl Memory {
    /// As after a restart of the program: streaks and recent readings start over, all else stays.
    pub fn restarted(self) -> Memory {
        Memory { recent: Recent::default(), ..self }
    }

    /// An operation has ended, in whatever way: cooldowns, breaker, manual hold; all streaks start over.
    pub fn operation_ended(&mut self, operation: &Operation, now: Timestamp) {
        use OperationState::{Failed, Partial, Succeeded};
        self.ended = self.ended.max(operation.decision.unwrap_or(0));
        let (kind, state) = (operation.kind, operation.state);
        let kept = matches!(state, Succeeded | Partial);
        self.ends.ended(kind, kept, now);
        match state {
            Succeeded => self.breaker.succeeded(),
            Failed => self.breaker.failed(now),
            _ => {}
        }
        if state == Failed {
            // Nothing came of it: the alert asks again, paced by the pause after failures.
            self.answered.retain(|_, answer| Some(answer.decision) != operation.decision);
        }
        let directed = matches!(kind, Kind::ScaleUp | Kind::ScaleDown);
        if operation.trigger == Trigger::Manual && directed && state != OperationState::Cancelled {
            self.manual = Some((kind, now));
        }
        // One that was given up has not forgotten the dead node, which counts on; one that lacks but a hook at its end has.
        let is_through = operation.steps.last().is_some_and(|step| step.state == StepState::Done);
        if state == Succeeded || state == Partial && is_through {
            self.replaced.extend(operation.replaces.clone());
        }
        let counts_again = match kind {
            Kind::Reap => state == Succeeded,
            Kind::Adopt => kept,
            _ => false,
        };
        if counts_again {
            self.replaced.retain(|node| !operation.nodes.contains(node));
        }
        // However else it ended, the cordon was lifted.
        for node in operation.nodes.iter().filter(|_| kind == Kind::Drain) {
            match state {
                Succeeded => drop(self.drained.insert(node.clone(), operation.id.clone())),
                _ => drop(self.drained.remove(node)),
            }
        }
        self.spent.push_back(Spent::by(operation, now));
        while self.spent.front().is_some_and(|spent| now.since(spent.at) > SPENT_SPAN) {
            self.spent.pop_front();
        }
        self.recent.start_over();
    }

    /// Whether the end of this operation was taken in: a crash between its end and the writing of this memory loses that.
    pub fn knows_end_of(&self, operation: &Operation) -> bool {
        operation.decision.is_some_and(|decision| decision <= self.ended)
    }

    /// The open operation has become blocked: a step's outcome stays unknown.
    pub fn operation_blocked(&mut self, now: Timestamp) {
        self.breaker.blocked(now);
    }

    /// A person closes the breaker; the pause after the last failure ends with it.
    pub fn reset_breaker(&mut self) {
        self.breaker = Breaker::default();
    }

    /// Dead nodes that were replaced: they count nowhere and are never replaced again, until reaped.
    pub fn replaced(&self) -> &BTreeSet<NodeId> {
        &self.replaced
    }

    /// Nodes that a person had emptied, with the operation that did it: nothing is placed on them.
    pub fn drained(&self) -> &BTreeMap<NodeId, OperationId> {
        &self.drained
    }

    /// The drain is taken back; gives the operation that did it.
    pub fn opened(&mut self, node: &NodeId) -> Option<OperationId> {
        self.drained.remove(node)
    }

    /// Drained nodes that are no members any more are nobody's concern.
    pub fn forget_gone(&mut self, members: &BTreeSet<NodeId>) {
        self.drained.retain(|node, _| members.contains(node));
    }

    /// Nodes that people are asked to add, as of the last check: nothing but the missing provider holds a scale-up.
    pub fn asked(&self) -> &Asked {
        &self.recent.asked
    }

    /// An operation is begun for these alerts by the last decision.
    pub(super) fn answer<'a>(&mut self, alerts: impl IntoIterator<Item = &'a Alert>) {
        for alert in alerts {
            let answer = Answer { starts_at: alert.starts_at, decision: self.last_decision };
            self.answered.insert(key(alert), answer);
        }
    }

    /// The decision that answered this very episode of an alert.
    pub(super) fn answer_to(&self, alert: &Alert) -> Option<u64> {
        let answer = self.answered.get(&key(alert))?;
        (answer.starts_at == alert.starts_at).then_some(answer.decision)
    }

    /// Forgets answers to episodes that nobody knows any more, and those whose operation never began: it neither is the
    /// open one nor has ended. The process died between the writing of the decision and of the operation, or the latter
    /// could not be written.
    pub(super) fn forget_answers(&mut self, known: &[Alert], operation: Option<&Operation>) {
        if self.answered.is_empty() {
            return;
        }
        let known: BTreeMap<String, Timestamp> = known.iter().map(|alert| (key(alert), alert.starts_at)).collect();
        let open = operation.and_then(|operation| operation.decision);
        let ended = self.ended;
        self.answered.retain(|key, answer| {
            let began = answer.decision <= ended || Some(answer.decision) == open;
            began && known.get(key) == Some(&answer.starts_at)
        });
    }

    /// When the last scale-up or scale-down ended that changed the pool, would-be ones included.
    pub(super) fn last_end_of(&self, kind: Kind) -> Option<Timestamp> {
        let ends = self.ends();
        match kind {
            Kind::ScaleUp => ends.scale_up,
            Kind::ScaleDown => ends.scale_down,
            Kind::Replace | Kind::Rebalance | Kind::Adopt | Kind::Drain | Kind::Reap => None,
        }
    }

    /// Of real operations and of would-be ones.
    fn ends(&self) -> Ends {
        self.ends.latest(self.would_be.as_ref().map(|w| w.ends).unwrap_or_default())
    }

    /// Takes in one check, once: histories, and the end of a would-be operation. Streaks follow in `conditions`.
    /// `false` when this very observation was taken in before.
    pub(super) fn look(&mut self, now: &Situation, roster: &Roster) -> bool {
        let seen = now.seen;
        if self.recent.last_check == Some(seen.at) {
            return false;
        }
        let recent = &mut self.recent;
        recent.last_check = Some(seen.at);
        recent.checks = recent.checks.saturating_add(1);
        for signal in projection::PROJECTED {
            if let Some(mean) = projection::mean_of(&signal, seen) {
                let totals = recent.totals.entry(signal).or_default();
                totals.push_back(mean * f64::from(roster.bearing));
                totals.drain(..totals.len().saturating_sub(projection::LEVEL_CHECKS));
            }
        }
        if let Some(mean) = projection::mean_of(&Signal::Storage, seen)
            && recent.storage.back().is_none_or(|(last, _)| seen.at.since(*last) >= STORAGE_STEP)
        {
            recent.storage.push_back((seen.at, mean * f64::from(roster.bearing)));
        }
        if let Some(rate) = seen.value(&Signal::Throughput).filter(|r| r.is_finite()) {
            recent.traffic.push_back((seen.at, rate));
        }
        let before = std::mem::take(&mut recent.busy_since);
        let since = |id: &NodeId| before.get(id).copied().unwrap_or(seen.at);
        recent.busy_since = busy::told(now).map(|id| (id.clone(), since(id))).collect();
        forget_before(&mut recent.storage, seen.at.minus(STORAGE_SPAN));
        forget_before(&mut recent.traffic, seen.at.minus(TRAFFIC_SPAN));
        true
    }

    /// Ends the would-be operation whose time is over, as a real one would end; forgets all of them outside *observe*.
    pub(super) fn pretend(&mut self, mode: Mode, now: Timestamp) {
        if mode != Mode::Observe {
            self.would_be = None;
        } else if let Some(would_be) = &mut self.would_be
            && let Some((kind, end)) = would_be.running
            && end <= now
        {
            would_be.running = None;
            would_be.ends.ended(kind, true, end);
            self.recent.start_over();
        }
    }

    pub(super) fn begin_would_be(&mut self, kind: Kind, at: Timestamp, until: Timestamp) {
        let would_be = self.would_be.get_or_insert_default();
        would_be.running = Some((kind, until));
        if kind == Kind::Replace {
            would_be.last_replacement = Some(at);
        }
    }

    /// When a node was last replaced automatically, or would have been.
    pub(super) fn last_replacement(&self) -> Option<Timestamp> {
        self.last_replacement.max(self.would_be.as_ref().and_then(|w| w.last_replacement))
    }

    /// When the cooldown of a direction ends; `None` when it is over or never began. A rebalance waits like a scale-down:
    /// what the last operation has changed must show before shards are moved again. Replace has none.
    pub(super) fn cooldown_until(&self, policy: &Policy, kind: Kind, now: Timestamp) -> Option<Timestamp> {
        let ends = self.ends();
        let (from, secs) = match kind {
            Kind::ScaleUp => (ends.scale_up?, policy.thresholds.scale_up_cooldown),
            Kind::ScaleDown | Kind::Rebalance => (ends.any?, policy.thresholds.scale_down_cooldown),
            Kind::Replace | Kind::Adopt | Kind::Drain | Kind::Reap => return None,
        };
        // Measured by the time passed, so that a clock set back stretches a cooldown but never multiplies it.
        let left = Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX).checked_sub(now.since(from))?;
        (!left.is_zero()).then(|| now.plus(left))
    }
}

/// Entry and fingerprint; an entry is a name, which has no slash.
fn key(alert: &Alert) -> String {
    format!("{}/{}", alert.entry, alert.fingerprint)
}

fn forget_before(history: &mut VecDeque<(Timestamp, f64)>, oldest: Timestamp) {
    while history.front().is_some_and(|(at, _)| *at < oldest) {
        history.pop_front();
    }
}

/// How long until each direction may start again.
pub fn cooldowns(policy: &Policy, memory: &Memory, now: Timestamp) -> Cooldowns {
    let left = |kind| memory.cooldown_until(policy, kind, now).map_or(Duration::ZERO, |until| until.since(now));
    Cooldowns { scale_up: left(Kind::ScaleUp), scale_down: left(Kind::ScaleDown) }
}
