//! The pool in one sentence, what needs a person, and the shards in three numbers. Pure.

use std::collections::BTreeMap;

use crate::decide::Asked;
use crate::model::{
    Action, Decision, Guard, GuardHit, Inventory, Kind, Mode, NodeId, Observation, Operation, OperationState, Reading,
    ReplicaState, ShardId, Signal, StoreHealth, Unexplained, UnexplainedKind,
};

/// The datastore's shards in three numbers; unknown when it did not answer or holds none.
pub fn store_health(inventory: Option<&Inventory>) -> StoreHealth {
    let Some(inventory) = inventory else { return StoreHealth::default() };
    let mut active: BTreeMap<&ShardId, u64> = inventory.shards.iter().map(|r| (&r.shard, 0)).collect();
    let counts = |r: &&crate::model::Replica| {
        r.state == ReplicaState::Active && inventory.member(&r.node).is_some_and(|member| member.healthy)
    };
    for replica in inventory.shards.iter().filter(counts) {
        *active.entry(&replica.shard).or_default() += 1;
    }
    let wanted = |shard: &ShardId| u64::from(inventory.wanted_replicas.get(&shard.collection).copied().unwrap_or(1));
    StoreHealth {
        replicas_missing: Some(active.iter().map(|(shard, &have)| wanted(shard).saturating_sub(have)).sum()),
        shards_sole_copy: Some(active.values().filter(|&&have| have <= 1).count() as u64),
        moves_running: inventory.transfers.len() as u64,
    }
}

/// Guards that do not go away by waiting: a fault, or something that only a person can mend.
fn is_alarming(guard: Guard) -> bool {
    matches!(guard, Guard::PartitionSuspected | Guard::BreakerOpen | Guard::Quorum | Guard::MixedVersions)
}

/// Why those without whom nothing goes on do not answer; `None` for each that does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble<'a> {
    pub journal: Option<&'a str>,
    pub provider: Option<&'a str>,
    pub store: Option<&'a str>,
}

/// What a person must look at, one sentence each; of each lost machine it is told whether it is a healthy member again.
pub fn needs_human(
    decision: Option<&Decision>,
    operation: Option<&Operation>,
    trouble: Trouble,
    guards_now: &[GuardHit],
    unexplained: &[Unexplained],
    lost: &[(&NodeId, bool)],
) -> Vec<String> {
    let mut needs: Vec<String> = trouble.journal.map(Into::into).into_iter().collect();
    needs.extend(trouble.provider.map(|why| format!("the provider does not answer: {why}")));
    if let Some(operation) = operation.filter(|o| o.state == OperationState::Blocked) {
        needs.push(format!("operation {} is blocked: {}", operation.id, operation.detail));
    }
    needs.extend(
        operation.filter(|o| o.paused).map(|o| format!("operation {} {}", o.id, crate::operate::orders::paused(o))),
    );
    if let Some(why) = trouble.store {
        needs.push(format!("the datastore does not answer: {why}"));
    }
    // Of now, not of the decision: with nothing wanted a decision names no guards, and these stand all the same.
    needs.extend(guards_now.iter().filter(|hit| is_alarming(hit.name)).map(in_words));
    if let Some(decision) = decision.filter(|d| d.wanted == Some(Kind::Replace) && d.action == Action::Hold) {
        needs.push(format!("a node should be replaced and is not: {}", held_by(decision)));
    }
    needs.extend(unexplained.iter().map(way_out));
    needs.extend(lost.iter().map(|(id, is_back)| match is_back {
        true => format!("{id} was replaced, and is a member again; `vecscale adopt {id}` counts it again"),
        false => format!("{id} was replaced; `vecscale reap {id}` destroys its machine"),
    }));
    needs
}

/// The nodes that a person is asked to add, and why; `None` when none is wanted.
pub fn asks(asked: &Asked) -> Option<String> {
    let nodes = (asked.nodes > 0).then(|| crate::units::count(asked.nodes, "more node"))?;
    let because = asked.because.join("; ");
    Some(format!("{nodes} wanted ({because}); there is no provider: add what is wanted, and it is filled by itself"))
}

fn way_out(found: &Unexplained) -> String {
    let (detail, id) = (&found.detail, &found.node);
    match found.kind {
        UnexplainedKind::OrphanInstance => {
            format!("{detail}; `vecscale adopt {id}` makes it a member, `vecscale reap {id}` destroys it")
        }
        UnexplainedKind::GhostMember => format!("{detail}; bring it back, or `vecscale reap {id}` forgets it"),
        UnexplainedKind::LeftOverCordon => format!("{detail}; lift it with the datastore's own means"),
        UnexplainedKind::ForeignChange => format!("{detail}; `vecscale adopt {id}` says that this is right"),
    }
}

/// Why a pool that wants no change is not simply at rest: a person must look, or signals are unknown.
pub fn unsettled(needs_human: &[String], seen: Option<&Observation>) -> Option<String> {
    if let Some(need) = needs_human.first().and_then(|need| need.lines().next()) {
        return Some(format!("a person must look: {need}"));
    }
    let missing = |(signal, reading): (&Signal, &Reading)| {
        matches!(reading, Reading::Missing { .. }).then(|| signal.name().to_string())
    };
    let missing: Vec<String> = seen?.readings.iter().filter_map(missing).collect();
    (!missing.is_empty()).then(|| format!("unknown now: {}", missing.join(", ")))
}

/// The pool in one sentence. `unsettled` is said instead of "nothing to do", `asked` of what people are to add.
pub fn headline(
    mode: Mode,
    nodes: usize,
    healthy: usize,
    decision: Option<&Decision>,
    operation: Option<&Operation>,
    unsettled: Option<&str>,
    asked: Option<&str>,
) -> String {
    let health = if nodes == healthy {
        format!("{nodes} nodes, all healthy")
    } else {
        format!("{healthy} of {nodes} nodes healthy")
    };
    let doing = match asked.filter(|_| operation.is_none()) {
        Some(asked) => asked.to_string(),
        None => doing(decision, operation, unsettled),
    };
    format!("{health}; {}; {doing}", mode.as_str())
}

fn doing(decision: Option<&Decision>, operation: Option<&Operation>, unsettled: Option<&str>) -> String {
    match (operation, decision) {
        (Some(operation), _) => under_way(operation),
        (None, None) => "the first check is not done yet".into(),
        (None, Some(decision)) => match (&decision.action, decision.wanted) {
            (Action::Hold, None) => unsettled.unwrap_or("nothing to do").into(),
            (Action::Hold, Some(kind)) => {
                format!("would {} ({}), held by {}", verb(kind), decision.because.join("; "), held_by(decision))
            }
            (action, _) => format!("{} decided", action.name()),
        },
    }
}

/// "scale_up: create default-4 (step 2 of 6)".
pub fn under_way(operation: &Operation) -> String {
    let (at, step) = operation.current_step().map_or((0, "nothing"), |(place, step)| (place, step.action.name()));
    let paused = if operation.paused { ", paused" } else { "" };
    format!("{} {}: {step} (step {at} of {}{paused})", operation.kind.as_str(), state(operation), operation.steps.len())
}

fn state(operation: &Operation) -> &'static str {
    match operation.state {
        OperationState::Undoing => "is being taken back",
        OperationState::Blocked => "is blocked",
        _ => "runs",
    }
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::ScaleUp => "scale up",
        Kind::ScaleDown => "scale down",
        Kind::Replace => "replace a node",
        Kind::Rebalance => "rebalance",
        Kind::Adopt => "adopt a node",
        Kind::Drain => "drain a node",
        Kind::Reap => "reap a node",
    }
}

fn held_by(decision: &Decision) -> String {
    let words: Vec<String> = decision.guards.iter().map(in_words).collect();
    if words.is_empty() { "nothing".into() } else { words.join("; ") }
}

fn in_words(hit: &GuardHit) -> String {
    format!("{}: {}", hit.name.as_str(), hit.detail)
}
