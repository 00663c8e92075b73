//! Guards of one thing after the other: the open operation, cooldowns, settling, the pause and the breaker after
//! failures. Pure.

use std::time::Duration;

use super::{Case, Held};
use crate::decide::memory::Spent;
use crate::decide::triggers::Look;
use crate::decide::{busy, words};
use crate::model::{Kind, Operation, OperationState, Step, StepAction, StepState, Timestamp};
use crate::units;

/// Checks after a start before anything automatic.
const CHECKS_AFTER_START: u32 = 5;

fn left(case: &Case, until: Timestamp) -> String {
    format!("{} left", units::time(until.since(case.look.now.seen.at)))
}

pub fn cooldown(case: &Case) -> Option<Held> {
    let look = case.look;
    let until = look.memory.cooldown_until(look.policy, case.wish.kind, look.now.seen.at)?;
    Held::until(left(case, until), until)
}

/// What automatic operations may change in an hour and in a day.
pub fn budget(case: &Case) -> Option<Held> {
    let look = case.look;
    let limits = look.policy.budget;
    // What is adopted has come by other hands.
    let no_node = matches!(case.wish.kind, Kind::Rebalance | Kind::Adopt);
    let nodes = if no_node { 0 } else { u64::from(case.wish.nodes) };
    let bytes = bytes_to_move(case);
    let hour = Duration::from_secs(3600);
    let limited = [
        (limits.nodes_per_hour.map(u64::from), hour, nodes, "nodes", "nodes_per_hour"),
        (limits.nodes_per_day.map(u64::from), 24 * hour, nodes, "nodes", "nodes_per_day"),
        (limits.bytes_per_day, 24 * hour, bytes, "bytes", "bytes_per_day"),
    ];
    limited.into_iter().find_map(|(limit, span, wanted, what, name)| {
        let now = look.now.seen.at;
        let amount = |spent: &Spent| if what == "nodes" { u64::from(spent.nodes) } else { spent.bytes };
        let recent: Vec<&Spent> = look.memory.spent.iter().filter(|spent| now.since(spent.at) < span).collect();
        let mut used: u64 = recent.iter().map(|spent| amount(spent)).sum();
        let limit = limit.filter(|limit| used + wanted > *limit && wanted > 0)?;
        let detail = format!("{used} {what} changed and {wanted} more asked for, {name} is {limit}");
        let frees = |spent: &&&Spent| {
            used -= amount(spent);
            used + wanted <= limit
        };
        let free_at = recent.iter().find(frees).map(|spent| spent.at.plus(span));
        Some(Held { detail, until: free_at })
    })
}

fn bytes_to_move(case: &Case) -> u64 {
    let outlook = case.look.now.outlook;
    match case.wish.kind {
        Kind::ScaleUp => outlook.scale_up.bytes.saturating_mul(u64::from(case.wish.nodes)),
        // The share of a node that holds nothing yet is about what evens the whole pool out.
        Kind::Rebalance | Kind::Adopt => outlook.rebalance.bytes,
        Kind::ScaleDown => {
            let drain = outlook.scale_down.iter().find(|drain| Some(&drain.node) == case.wish.victim.node.as_ref());
            drain.map_or(0, |drain| drain.forecast.bytes)
        }
        Kind::Replace | Kind::Drain | Kind::Reap => 0,
    }
}

/// Too few checks have come since the start to build on.
pub fn has_just_started(look: &Look) -> bool {
    look.memory.recent.checks <= CHECKS_AFTER_START
}

/// Own moves, index builds and the first checks after a start: readings are not what they will be.
pub fn settling(case: &Case) -> Option<Held> {
    let look = case.look;
    let checks = look.memory.recent.checks;
    if has_just_started(look) {
        return Held::because(format!("check {checks} of the first {CHECKS_AFTER_START} after the start"));
    }
    // What this wish would cancel does not hold it back.
    if case.wish.request.is_none() && look.now.open_operation().is_some_and(|o| cancellable_for(case.wish.kind, o)) {
        return None;
    }
    let moving = look.now.inventory().filter(|_| look.now.open_operation().is_some());
    let mut nodes = moving.map(|i| i.nodes_in_transfer()).unwrap_or_default();
    nodes.extend(busy::nodes(look.memory, look.now));
    if nodes.is_empty() {
        return None;
    }
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    Held::because(format!("shards move or an index is built: {}", words::some_of(&names, 5)))
}

/// What a person adopts cleans up after a fault, and is not held back by it; what is adopted by itself is.
fn cleans_up(case: &Case) -> bool {
    case.wish.kind == Kind::Adopt && case.wish.request.is_some()
}

pub fn breaker_open(case: &Case) -> Option<Held> {
    if cleans_up(case) {
        return None;
    }
    let (why, until) = case.look.memory.breaker.open_until(case.look.now.seen.at)?;
    Held::until(
        format!("{why}; one attempt is allowed again in {}", units::time(until.since(case.look.now.seen.at))),
        until,
    )
}

pub fn backing_off(case: &Case) -> Option<Held> {
    if cleans_up(case) {
        return None;
    }
    let (failures, until) = case.look.memory.breaker.backing_off_until(case.look.now.seen.at)?;
    Held::until(format!("{} after {}", left(case, until), units::count(failures, "failed operation")), until)
}

/// At most one operation a pool. What observing pretends to do counts for observing, and for nobody who really asks.
pub fn operation_running(case: &Case) -> Option<Held> {
    let look = case.look;
    if let Some(operation) = look.now.open_operation() {
        let state = if operation.paused { "paused" } else { operation.state.as_str() };
        let (kind, id) = (operation.kind.as_str(), &operation.id);
        let cancelled = case.wish.request.is_none() && cancellable_for(case.wish.kind, operation);
        let then = if cancelled { "; it is to be cancelled in favour of this" } else { "" };
        return Held::because(format!("{kind} {id} is {state}{then}"));
    }
    let pretended = look.memory.would_be.as_ref().filter(|_| case.wish.request.is_none());
    let (kind, end) = pretended?.running?;
    let left = units::time(end.since(look.now.seen.at));
    Held::until(format!("a would-be {} would run for another {left}", kind.as_str()), end)
}

/// Replace or up cancels what may be taken back; nothing else does.
pub fn cancellable_for(wanted: Kind, operation: &Operation) -> bool {
    matches!(wanted, Kind::ScaleUp | Kind::Replace) && cancellable(operation)
}

/// Whether an operation may still be taken back: a rebalance, or a scale-down that has not left the cluster yet.
pub fn cancellable(operation: &Operation) -> bool {
    let left_the_cluster = || {
        let left = |s: &Step| {
            matches!(s.action, StepAction::Leave { .. }) && !matches!(s.state, StepState::Waiting | StepState::Skipped)
        };
        operation.steps.iter().any(left)
    };
    let stoppable = match operation.kind {
        Kind::Rebalance => true,
        Kind::ScaleDown => !left_the_cluster(),
        Kind::ScaleUp | Kind::Replace | Kind::Adopt | Kind::Drain | Kind::Reap => false,
    };
    stoppable
        && operation.state == OperationState::Running
        // A person's pause stands.
        && !operation.paused
        && operation.cancel.is_none()
}
