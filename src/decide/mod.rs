//! observation + policy + memory -> decision + memory. Pure: "now" is `seen.at`.
//!
//! Triggers make wishes, in the order replace, up, down, rebalance; the first that no guard blocks is the decision. What
//! a person asks for is decided alone. A hold says what was wanted, which guards hold, and what would change it.

mod breaker;
mod busy;
mod conditions;
mod guards;
mod hotspots;
mod memory;
pub mod policy;
mod projection;
mod roster;
mod size;
mod streak;
#[cfg(test)]
mod tests;
mod triggers;
mod victim;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{
    Action, Alert, Decision, Guard, GuardHit, Inventory, Kind, Machine, Mode, NodeId, Observation, Operation, Outlook,
    Request, Trigger,
};
use conditions::{Known, Side};
use guards::{Case, Row, Verdict};
use roster::Roster;
use triggers::{Heard, Look, Wish};

pub use guards::cancellable_for;
pub use memory::{Asked, Memory, cooldowns};
pub use policy::Policy;
pub use projection::lead_time;
pub use triggers::alert::standings;
pub use triggers::schedule::let_go;
pub use words::explain;

/// All that a decision looks at besides policy and memory.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub seen: &'a Observation,
    pub mode: Mode,
    /// A file named `STOP` lies in the storage path.
    pub stop_file: bool,
    /// The operation that is not yet ended.
    pub operation: Option<&'a Operation>,
    /// What a person asks for right now; decided alone, past the triggers.
    pub request: Option<&'a Request>,
    pub store: Store<'a>,
    pub provider: ProviderFacts<'a>,
    /// What the planner says each change would move.
    pub outlook: &'a Outlook,
    /// Creation to serving, of past scale-ups, oldest first.
    pub lead_times: &'a [Duration],
    /// Every alert that is known, firing or not.
    pub alerts: &'a [Alert],
    /// Nodes that others have added and that nobody has filled yet, by id; only where nodes come and go by other hands.
    pub arrivals: &'a [NodeId],
}

impl<'a> Situation<'a> {
    fn open_operation(&self) -> Option<&'a Operation> {
        self.operation.filter(|o| !o.state.is_final())
    }

    fn is_member(&self, id: &NodeId) -> bool {
        self.inventory().is_some_and(|seen| seen.member(id).is_some())
    }

    fn inventory(&self) -> Option<&'a Inventory> {
        match self.store {
            Store::Seen(inventory) => Some(inventory),
            Store::None | Store::Silent(_) => None,
        }
    }
}

/// What the datastore said this time.
#[derive(Clone, Copy, Debug)]
pub enum Store<'a> {
    /// The nodes hold no data.
    None,
    /// It did not answer: unknown, never empty.
    Silent(&'a str),
    Seen(&'a Inventory),
}

/// What the provider can do, and said this time.
#[derive(Clone, Copy, Debug)]
pub struct ProviderFacts<'a> {
    /// `false` for provider `none`.
    pub can_change: bool,
    /// The only node it can take away (`victim: last`).
    pub only_victim: Option<&'a NodeId>,
    /// Its list; `None` when it did not answer.
    pub machines: Option<&'a [Machine]>,
    /// The longest a creation may take.
    pub timeout: Duration,
}

/// What `decide` gives back.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub decision: Decision,
    pub memory: Memory,
}

/// Decides one check, or one request of a person. The memory that comes out belongs into the next call; it is to be
/// written down before anything is done.
pub fn decide(policy: &Policy, memory: &Memory, now: &Situation) -> Outcome {
    let mut memory = memory.clone();
    let roster = Roster::of(now, &memory);
    memory.pretend(now.mode, now.seen.at);
    memory.forget_answers(now.alerts, now.operation);
    let counts = now.request.is_none() && memory.look(now, &roster);
    let conditions = conditions::check(policy, &mut memory, now, &roster, counts);
    let hot = hotspots::check(policy, &mut memory, now, &roster, counts);
    let draft = consider(&Look { policy, memory: &memory, now, roster: &roster, conditions: &conditions, hot: &hot });
    remember(policy, &mut memory, now, &draft);
    let decision = Decision {
        id: memory.last_decision,
        at: now.seen.at,
        mode: now.mode,
        action: draft.action,
        trigger: draft.trigger,
        wanted: draft.wanted,
        because: draft.because,
        conditions: conditions.into_iter().map(|k| k.condition).chain(hot.into_iter().map(|h| h.condition)).collect(),
        guards: draft.guards,
        would_change: draft.would_change,
    };
    Outcome { decision, memory }
}

/// What a change would meet now, whatever is wanted.
#[derive(Clone, Debug, Default)]
pub struct Prospect {
    /// All guards that hold against one node more or one fewer; each says which it concerns.
    pub guards: Vec<GuardHit>,
    /// For each kind of change but a replacement, the guards that hold against it.
    pub against: BTreeMap<Kind, Vec<GuardHit>>,
    /// The node that a scale-down would remove; `None` where none can go.
    pub victim: Option<NodeId>,
}

/// Asks every guard about changes that nobody may want.
pub fn prospect(policy: &Policy, memory: &Memory, now: &Situation) -> Prospect {
    let roster = Roster::of(now, memory);
    let look = Look { policy, memory, now, roster: &roster, conditions: &[], hot: &[] };
    let wishes = [Kind::ScaleUp, Kind::ScaleDown, Kind::Rebalance].map(|kind| supposed(kind, &look));
    let against = wishes.iter().map(|wish| (wish.kind, guards::against(&Case { look: &look, wish }))).collect();
    let guards = guards::merged(&against, &[Kind::ScaleUp, Kind::ScaleDown]);
    let [_, down, _] = wishes;
    Prospect { guards, against, victim: down.victim.node }
}

/// A wish that nobody has, to ask what would stand against it.
fn supposed<'a>(kind: Kind, look: &Look<'a>) -> Wish<'a> {
    let mut wish = Wish::new(kind, Trigger::Threshold, Vec::new());
    match kind {
        Kind::ScaleDown => wish.victim = victim::choose(look.now, look.roster, None),
        Kind::ScaleUp => size::fit(look, &mut wish),
        _ => {}
    }
    wish
}

/// Whether a decision to hold asks for the running operation to be cancelled in its favour: only that operation is in the
/// way. Once it has ended, the change is decided anew.
pub fn preempts(decision: &Decision, running: &Operation) -> bool {
    let automatic = decision.trigger.is_some_and(|t| t != Trigger::Manual);
    let stoppable = decision.wanted.is_some_and(|wanted| cancellable_for(wanted, running));
    decision.action == Action::Hold && automatic && stoppable && only_in_the_way(&decision.guards, running)
}

/// A pool at its maximum gains from a cancelled drain all the same: the node that was leaving comes back.
fn only_in_the_way(guards: &[GuardHit], running: &Operation) -> bool {
    let comes_back = running.kind == Kind::ScaleDown;
    guards.iter().any(|g| g.name == Guard::OperationRunning)
        && guards.iter().all(|g| g.name == Guard::OperationRunning || comes_back && g.name == Guard::MaxNodes)
}

/// Nothing but the mode was in the way.
fn only_observed(guards: &[GuardHit]) -> bool {
    matches!(guards, [only] if only.name == Guard::Observe)
}

/// A decision without its frame.
struct Draft {
    action: Action,
    trigger: Option<Trigger>,
    wanted: Option<Kind>,
    /// What people are asked for meanwhile, whichever wish is told.
    asked: Asked,
    because: Vec<String>,
    guards: Vec<GuardHit>,
    would_change: String,
    /// How long the change is predicted to take.
    takes: Duration,
}

fn consider(look: &Look) -> Draft {
    if let Some(request) = look.now.request {
        let mut wish = triggers::manual::wish(look, request);
        if wish.kind == Kind::ScaleUp {
            size::fit(look, &mut wish);
        }
        let verdict = guards::judge(&Case { look, wish: &wish });
        return if verdict.blocking.is_empty() {
            act(look, wish, verdict)
        } else {
            hold(look, vec![(wish, verdict)], vec![])
        };
    }
    let mut notes = Vec::new();
    let mut blocked: Vec<(Wish, Verdict)> = Vec::new();
    let mut asked = Asked::default();
    let votes = [
        triggers::availability::vote,
        triggers::scale_up,
        triggers::arrival::vote,
        triggers::scale_down,
        triggers::hotspot::vote,
    ];
    for vote in votes {
        let heard: Heard = vote(look);
        notes.extend(heard.notes);
        // A rebalance that is wanted instead of a growth is wanted once.
        let is_new = |wish: &Wish| blocked.iter().all(|(known, _)| known.kind != wish.kind);
        let Some(wish) = heard.wish.filter(is_new) else { continue };
        let (wish, verdict, growth) = judged(look, wish);
        asked = growth.unwrap_or(asked);
        if verdict.blocking.is_empty() {
            return Draft { asked, ..act(look, wish, verdict) };
        }
        blocked.push((wish, verdict));
    }
    Draft { asked, ..hold(look, blocked, notes) }
}

/// The wish before its guards; in the place of a growth that a rebalance makes needless, that rebalance. It may have to
/// wait for its cooldown; but where something else holds it that does not hold the growth, the growth it is. With what
/// people are asked for.
fn judged<'a>(look: &Look<'a>, mut wish: Wish<'a>) -> (Wish<'a>, Verdict, Option<Asked>) {
    let instead = wish.instead.take();
    if wish.kind == Kind::ScaleUp {
        size::fit(look, &mut wish);
    }
    let verdict = guards::judge(&Case { look, wish: &wish });
    let asked = asked_for(look, &wish, &verdict);
    let Some(instead) = instead else { return (wish, verdict, asked) };
    let of_instead = guards::judge(&Case { look, wish: &instead });
    let holds_both = |hit: &&GuardHit| verdict.blocking.iter().any(|other| other.name == hit.name);
    let mut alone = of_instead.blocking.iter().filter(|hit| !holds_both(hit) && hit.name != Guard::Cooldown);
    match alone.next() {
        // Who only observes does not rebalance: the lack stays.
        None => (*instead, of_instead, asked.filter(|_| look.now.mode == Mode::Observe)),
        Some(hit) => {
            let held = format!("a rebalance would do, but {} holds it: {}", hit.name.as_str(), hit.detail);
            wish.because.push(held);
            (wish, verdict, asked)
        }
    }
}

fn act(look: &Look, wish: Wish, verdict: Verdict) -> Draft {
    let roster = look.roster;
    let action = match (wish.kind, wish.victim.node.clone(), wish.subject.clone()) {
        (Kind::ScaleUp, ..) => Action::ScaleUp { nodes: wish.nodes, target: roster.placeable + wish.nodes },
        (Kind::ScaleDown, Some(node), _) => Action::ScaleDown { target: roster.placeable_without(&node), node },
        (Kind::Replace, _, Some(node)) => Action::Replace { node },
        (Kind::Rebalance, ..) => Action::Rebalance {},
        (Kind::Adopt, _, Some(node)) => Action::Adopt { joined: look.now.is_member(&node), node },
        (Kind::Drain, _, Some(node)) => Action::Drain { node },
        (Kind::Reap, _, Some(node)) => Action::Reap { node },
        // `placement` or `victim_fixed` holds whenever there is no node; were it not so, nothing is the safe thing to do.
        (Kind::ScaleDown, None, _) | (Kind::Replace | Kind::Adopt | Kind::Drain | Kind::Reap, _, None) => {
            return hold(look, vec![(wish, verdict)], vec![]);
        }
    };
    let takes = takes(look, &wish);
    let overridden =
        verdict.overridden.iter().map(|g| format!("{} was overridden with a reason: {}", g.name.as_str(), g.detail));
    Draft {
        trigger: Some(wish.trigger),
        wanted: Some(wish.kind),
        asked: Asked::default(),
        because: wish.because.into_iter().chain(wish.victim.ranking).chain(overridden).collect(),
        guards: Vec::new(),
        would_change: format!("nothing until this {} has ended; then every streak starts over", wish.kind.as_str()),
        takes,
        action,
    }
}

fn takes(look: &Look, wish: &Wish) -> Duration {
    match wish.kind {
        Kind::ScaleUp | Kind::Replace => projection::lead_time(look.now.lead_times, look.now.provider.timeout),
        Kind::ScaleDown => Duration::try_from_secs_f64(wish.victim.drain_secs.unwrap_or(0.0)).unwrap_or_default(),
        Kind::Rebalance => {
            Duration::try_from_secs_f64(look.now.outlook.rebalance.seconds.unwrap_or(0.0)).unwrap_or_default()
        }
        Kind::Adopt | Kind::Drain | Kind::Reap => Duration::ZERO,
    }
}

/// Nothing is done. The wish that is told is the one that would have acted had vecscale not only observed, or the one for
/// which the running operation is to be cancelled, else the first.
fn hold(look: &Look, mut blocked: Vec<(Wish, Verdict)>, notes: Vec<String>) -> Draft {
    if blocked.is_empty() {
        return quiet(look, notes);
    }
    let running = look.now.open_operation();
    let told = blocked.iter().position(|(wish, verdict)| {
        let preempts = |o: &Operation| cancellable_for(wish.kind, o) && only_in_the_way(&verdict.blocking, o);
        only_observed(&verdict.blocking) || running.is_some_and(preempts)
    });
    let (wish, verdict) = blocked.remove(told.unwrap_or(0));
    let mut because = wish.because.clone();
    because.extend(wish.victim.ranking.clone());
    because.extend(blocked.iter().map(|(other, verdict)| {
        let guards: Vec<&str> = verdict.blocking.iter().map(|g| g.name.as_str()).collect();
        format!("{} is wanted too ({}), held by {}", other.kind.as_str(), other.because.join("; "), guards.join(", "))
    }));
    because.extend(notes);
    Draft {
        action: Action::Hold,
        trigger: Some(wish.trigger),
        wanted: Some(wish.kind),
        asked: Asked::default(),
        takes: takes(look, &wish),
        because,
        would_change: ways_out(&wish, &verdict.blocking),
        guards: verdict.blocking,
    }
}

fn ways_out(wish: &Wish, guards: &[GuardHit]) -> String {
    let ways: Vec<String> = guards
        .iter()
        .map(|g| {
            let until = g.until.map_or(String::new(), |until| format!(" at {until}"));
            format!("{}: {}{until}", g.name.as_str(), Row::of(g.name).way_out)
        })
        .collect();
    format!("{} once all of these let go: {}", wish.kind.as_str(), ways.join("; "))
}

/// No trigger wants anything.
fn quiet(look: &Look, mut notes: Vec<String>) -> Draft {
    notes.extend(guards::missing(look));
    if notes.is_empty() {
        notes.push("every signal lies between its lines, and no node is ill".into());
    }
    Draft {
        action: Action::Hold,
        trigger: None,
        wanted: None,
        asked: Asked::default(),
        because: notes,
        guards: Vec::new(),
        would_change: format!("scale_up: {}; scale_down: {}", nearest_up(look), needed_down(look)),
        takes: Duration::ZERO,
    }
}

/// The condition for more nodes that stands nearest to its line.
fn nearest_up(look: &Look) -> String {
    let nearness = |k: &&Known| k.condition.value.map_or(f64::NEG_INFINITY, |v| v / k.condition.line);
    let up = look.conditions.iter().filter(|k| k.side != Side::Low);
    match up.max_by(|a, b| nearness(a).total_cmp(&nearness(b))) {
        Some(nearest) => format!("a high condition for its checks (nearest: {})", words::condition(&nearest.condition)),
        None => "fewer nodes than min_nodes, for no high condition is configured".into(),
    }
}

fn needed_down(look: &Look) -> String {
    let checks = &look.policy.checks;
    let Some(needed) = checks.low else { return "only by hand, for low conditions are switched off".into() };
    let low: Vec<&Known> = look.conditions.iter().filter(|k| k.side == Side::Low).collect();
    let active = low.iter().filter(|k| k.condition.active).count();
    format!("{} of {} low conditions for {needed} checks ({active} now)", checks.low_required, low.len())
}

/// What people are asked to add: nothing holds a scale-up but that vecscale has no provider, only watches, or is busy with
/// something else, and what that moves.
fn asked_for(look: &Look, wish: &Wish, verdict: &Verdict) -> Option<Asked> {
    let is_busy = look.now.open_operation().is_some() && !guards::has_just_started(look);
    let passes = |hit: &GuardHit| match hit.name {
        Guard::NoProvider | Guard::Observe | Guard::OperationRunning => true,
        Guard::Settling => is_busy,
        _ => false,
    };
    let asks = wish.kind == Kind::ScaleUp && !look.now.provider.can_change && verdict.blocking.iter().all(passes);
    asks.then(|| Asked { nodes: wish.nodes, because: wish.because.clone() })
}

/// Writes into the memory what follows from the decision itself.
fn remember(policy: &Policy, memory: &mut Memory, now: &Situation, draft: &Draft) {
    memory.last_decision += 1;
    let at = now.seen.at;
    if let Some(kind) = draft.action.kind().filter(|_| now.request.is_none()) {
        let asked = triggers::alert::asking(policy, memory, now.alerts, kind);
        memory.answer(asked.into_iter().map(|(_, alert)| alert));
    }
    if now.request.is_none() {
        memory.recent.asked = draft.asked.clone();
    }
    if matches!(draft.action, Action::Replace { .. }) && now.request.is_none() {
        memory.last_replacement = Some(at);
    }
    if let Some(kind) = draft.wanted
        && only_observed(&draft.guards)
    {
        memory.begin_would_be(kind, at, at.plus(draft.takes));
    }
}
