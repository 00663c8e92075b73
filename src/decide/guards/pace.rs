//! Guards of one thing after the other: the open operation, cooldowns, settling, the pause and the breaker after
//! failures. Pure.

use std::collections::BTreeSet;

use super::{Case, Held};
use crate::decide::words;
use crate::model::{Kind, NodeId, Operation, OperationState, Step, StepAction, StepState, Timestamp};
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

/// Own moves, index builds and the first checks after a start: readings are not what they will be.
pub fn settling(case: &Case) -> Option<Held> {
    let look = case.look;
    let checks = look.memory.recent.checks;
    if checks <= CHECKS_AFTER_START {
        return Held::because(format!("check {checks} of the first {CHECKS_AFTER_START} after the start"));
    }
    // What this wish would cancel does not hold it back.
    if case.wish.request.is_none() && look.now.open_operation().is_some_and(|o| cancellable_for(case.wish.kind, o)) {
        return None;
    }
    let busy = look.now.seen.nodes.iter().filter(|n| n.busy_with_data).map(|n| &n.id);
    let moving = look.now.inventory().filter(|_| look.now.open_operation().is_some());
    let moving = moving.map(|i| i.nodes_in_transfer()).unwrap_or_default();
    let nodes: BTreeSet<&NodeId> = busy.chain(moving).collect();
    if nodes.is_empty() {
        return None;
    }
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    Held::because(format!("shards move or an index is built: {}", words::some_of(&names, 5)))
}

pub fn breaker_open(case: &Case) -> Option<Held> {
    let (why, until) = case.look.memory.breaker.open_until(case.look.now.seen.at)?;
    Held::until(
        format!("{why}; one attempt is allowed again in {}", units::time(until.since(case.look.now.seen.at))),
        until,
    )
}

pub fn backing_off(case: &Case) -> Option<Held> {
    let (failures, until) = case.look.memory.breaker.backing_off_until(case.look.now.seen.at)?;
    Held::until(format!("{} after {}", left(case, until), units::count(failures, "failed operation")), until)
}

/// At most one operation a pool. What observing pretends to do counts for observing.
pub fn operation_running(case: &Case) -> Option<Held> {
    let look = case.look;
    if let Some(operation) = look.now.open_operation() {
        let (kind, id, state) = (operation.kind.as_str(), &operation.id, operation.state.as_str());
        let cancelled = case.wish.request.is_none() && cancellable_for(case.wish.kind, operation);
        let then = if cancelled { "; it is to be cancelled in favour of this" } else { "" };
        return Held::because(format!("{kind} {id} is {state}{then}"));
    }
    let (kind, end) = look.memory.would_be.as_ref()?.running?;
    let left = units::time(end.since(look.now.seen.at));
    Held::until(format!("a would-be {} would run for another {left}", kind.as_str()), end)
}

/// Replace or up cancels a running rebalance, or a scale-down that has not left the cluster yet; nothing else.
pub fn cancellable_for(wanted: Kind, operation: &Operation) -> bool {
    let left_the_cluster = || {
        let left = |s: &Step| {
            matches!(s.action, StepAction::Leave { .. }) && !matches!(s.state, StepState::Waiting | StepState::Skipped)
        };
        operation.steps.iter().any(left)
    };
    let stoppable = match operation.kind {
        Kind::Rebalance => true,
        Kind::ScaleDown => !left_the_cluster(),
        Kind::ScaleUp | Kind::Replace => false,
    };
    matches!(wanted, Kind::ScaleUp | Kind::Replace)
        && stoppable
        && operation.state == OperationState::Running
        && operation.cancel.is_none()
}
