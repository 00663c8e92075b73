//! What forbids a change: one table says which guard binds whom, and each guard is a plain function of the case. Pure.

mod counts;
mod data;
mod evidence;
mod hands;
mod modes;
mod pace;
mod places;

use std::collections::BTreeMap;

use Cell::{Blocks, NotUp, Passes, UpWithReason};
use Kind::{Adopt, Drain, Reap, Rebalance, Replace, ScaleDown, ScaleUp};

pub use data::lost_with;
pub use evidence::missing;
pub use pace::{cancellable, cancellable_for, has_just_started};

use super::triggers::{Look, Wish};
use crate::model::{Guard, GuardHit, Kind, Timestamp};

/// A wish before its guards.
pub struct Case<'a> {
    pub look: &'a Look<'a>,
    pub wish: &'a Wish<'a>,
}

/// That a guard holds, in words, and until when if that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub detail: String,
    pub until: Option<Timestamp>,
}

impl Held {
    pub fn because(detail: impl Into<String>) -> Option<Held> {
        Some(Held { detail: detail.into(), until: None })
    }

    pub fn until(detail: impl Into<String>, until: Timestamp) -> Option<Held> {
        Some(Held { detail: detail.into(), until: Some(until) })
    }
}

/// What a guard that holds means for a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Blocks,
    Passes,
    /// Anything but a scale-up is blocked.
    NotUp,
    /// The same, and a scale-up needs a reason.
    UpWithReason,
}

/// One line of the table of guards.
pub struct Row {
    pub guard: Guard,
    /// The changes it can stand against at all; for others it is not even asked.
    pub concerns: &'static [Kind],
    /// For wishes of triggers; `replace` has a column of its own.
    pub automatic: Cell,
    pub replace: Cell,
    /// For wishes of a person.
    pub manual: Cell,
    /// What a person may do about it, or what it waits for.
    pub way_out: &'static str,
    holds: fn(&Case) -> Option<Held>,
}

const ALL: &[Kind] = &Kind::ALL;
const DOWN: &[Kind] = &[ScaleDown];
/// Fewer nodes that hold data, whether or not one leaves.
const FEWER: &[Kind] = &[ScaleDown, Drain];
const SHRINK_OR_SPREAD: &[Kind] = &[ScaleDown, Drain, Rebalance];
const MEMBERS: &[Kind] = &[ScaleUp, ScaleDown, Replace, Reap];
/// All that is no cleaning up after a fault, which is not held back by that fault.
const CHANGES: &[Kind] = &[ScaleUp, ScaleDown, Replace, Rebalance, Adopt, Drain];
/// What is begun by itself besides replacing the dead, and moves shards.
const MOVES: &[Kind] = &[ScaleUp, ScaleDown, Rebalance, Adopt];

macro_rules! row {
    ($guard:ident, $concerns:expr, $automatic:ident, $replace:ident, $manual:ident, $holds:path, $way_out:expr) => {
        Row {
            guard: Guard::$guard,
            concerns: $concerns,
            automatic: $automatic,
            replace: $replace,
            manual: $manual,
            way_out: $way_out,
            holds: $holds,
        }
    };
}

/// The table of guards: who is bound by which.
#[rustfmt::skip]
pub const TABLE: [Row; 26] = [
    row!(Stopped,            ALL,     Blocks, Blocks, Passes, modes::stopped, "start autoscaling again, or remove the STOP file"),
    row!(Observe,            ALL,     Blocks, Blocks, Passes, modes::observe, "start autoscaling in mode active"),
    row!(DirectionDisabled,  &[ScaleUp, ScaleDown, Rebalance], Blocks, Passes, Passes, modes::direction_disabled, "enable the direction in the configuration, or ask for the change by hand"),
    row!(ManualHold,         &[ScaleUp, ScaleDown], Blocks, Passes, Passes, modes::manual_hold, "the hold after a manual operation ends by itself"),
    row!(AlertHold,          MOVES,   Blocks, Passes, Passes, modes::alert_hold, "the alert is resolved, or ask for the change by hand"),
    row!(Cooldown,           &[ScaleUp, ScaleDown, Rebalance], Blocks, Passes, Passes, pace::cooldown, "the cooldown ends by itself"),
    row!(Budget,             MOVES,   Blocks, Passes, Passes, pace::budget, "the budget of the last hour or day is free again"),
    row!(TrafficLost,        DOWN,    Blocks, Passes, Passes, evidence::traffic_lost, "traffic returns (or scale_down.when_idle: true for a pool that may shrink without)"),
    row!(WindowFreeze,       MOVES,   Blocks, Passes, Passes, modes::window_freeze, "the window closes, or do it by hand"),
    row!(Settling,           ALL,     Blocks, Passes, Passes, pace::settling, "the pool settles by itself"),
    row!(BreakerOpen,        CHANGES,   Blocks, Blocks, UpWithReason, pace::breaker_open, "find out why operations fail, then reset the breaker; half an hour after the last failure one attempt is let through"),
    row!(BackingOff,         CHANGES,   Blocks, Blocks, UpWithReason, pace::backing_off, "the pause after a failed operation ends by itself"),
    row!(PartitionSuspected, ALL,     Blocks, Blocks, UpWithReason, evidence::partition_suspected, "the nodes answer again; look at the network between vecscale and them"),
    row!(MissingData,        FEWER,   NotUp,  Passes, NotUp,  evidence::missing_data, "every configured signal has a fresh reading"),
    row!(UnhealthyNodes,     SHRINK_OR_SPREAD, NotUp, Passes, NotUp, evidence::unhealthy_nodes, "every node is healthy"),
    row!(MinNodes,           FEWER,   Blocks, Blocks, Blocks, counts::min_nodes, "lower min_nodes"),
    row!(MaxNodes,           &[ScaleUp, Replace], Blocks, Blocks, Blocks, counts::max_nodes, "raise max_nodes"),
    row!(OperationRunning,   ALL,     Blocks, Blocks, Blocks, pace::operation_running, "the operation ends, or is cancelled"),
    row!(Quorum,             ALL,     Blocks, Blocks, Blocks, data::quorum, "every member of the datastore is healthy, and they can agree on changes"),
    row!(Placement,          ALL,     Blocks, Blocks, Blocks, data::placement, "the datastore answers and has a legal place for every shard; where more nodes would help no one, replicate or re-shard"),
    row!(Projection,         SHRINK_OR_SPREAD, Blocks, Blocks, Blocks, counts::projection, "the load falls further"),
    row!(DataMoving,         SHRINK_OR_SPREAD, Blocks, Blocks, Blocks, data::data_moving, "the transfers end"),
    row!(ForeignOperation,   ALL,     Blocks, Blocks, Blocks, data::foreign_operation, "whoever moves shards besides vecscale has finished"),
    row!(MixedVersions,      ALL,     Blocks, Blocks, Blocks, data::mixed_versions, "the upgrade is finished: all members of one version"),
    row!(VictimFixed,        DOWN,    Blocks, Blocks, Blocks, hands::victim_fixed, "name the node that the provider takes, or none"),
    row!(NoProvider,         MEMBERS, Blocks, Blocks, Blocks, hands::no_provider, "do it by hand (what you add is adopted and filled, `vecscale drain NODE` empties a node), or configure a provider that can"),
];

impl Row {
    /// The row of a guard.
    pub fn of(guard: Guard) -> &'static Row {
        TABLE.iter().find(|row| row.guard == guard).expect("the table has every guard; a test says so")
    }

    fn hit(&self, case: &Case) -> Option<GuardHit> {
        let held = self.concerns.contains(&case.wish.kind).then(|| (self.holds)(case))??;
        Some(GuardHit { name: self.guard, detail: held.detail, until: held.until })
    }

    /// Whether this guard, when it holds, blocks the wish.
    pub fn blocks(&self, case: &Case) -> bool {
        let wish = case.wish;
        // The file forbids everything, what a person asks for over the API included.
        if self.guard == Guard::Stopped && case.look.now.stop_file {
            return true;
        }
        let cell = match (wish.request, wish.kind) {
            (Some(_), _) => self.manual,
            (None, Replace) => self.replace,
            (None, _) => self.automatic,
        };
        match cell {
            Blocks => true,
            Passes => false,
            NotUp => wish.kind != ScaleUp,
            UpWithReason => wish.kind != ScaleUp || !has_reason(wish),
        }
    }
}

fn has_reason(wish: &Wish) -> bool {
    wish.request.and_then(|r| r.reason.as_ref()).is_some_and(|reason| !reason.trim().is_empty())
}

/// Guards that hold, apart by what they mean for the wish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub blocking: Vec<GuardHit>,
    /// Held, and passed because a person gave a reason.
    pub overridden: Vec<GuardHit>,
}

/// Asks every guard, not only the first that holds.
pub fn judge(case: &Case) -> Verdict {
    let mut verdict = Verdict::default();
    for row in &TABLE {
        let Some(mut hit) = row.hit(case) else { continue };
        let by_reason = case.wish.request.is_some() && row.manual == UpWithReason && case.wish.kind == ScaleUp;
        if row.blocks(case) {
            if by_reason {
                hit.detail.push_str("; a scale-up passes when the request gives a reason");
            }
            verdict.blocking.push(hit);
        } else if by_reason {
            verdict.overridden.push(hit);
        }
    }
    verdict
}

/// Every guard that holds against the wish, whether or not it would block it.
pub fn against(case: &Case) -> Vec<GuardHit> {
    TABLE.iter().filter_map(|row| row.hit(case)).collect()
}

/// Every guard that holds against any of these kinds of change; each says which it concerns.
pub fn merged(against: &BTreeMap<Kind, Vec<GuardHit>>, kinds: &[Kind]) -> Vec<GuardHit> {
    let mut all = Vec::new();
    for row in &TABLE {
        let mut hits: Vec<(&GuardHit, Vec<&str>)> = Vec::new();
        for kind in kinds {
            let Some(hit) = against.get(kind).and_then(|hits| hits.iter().find(|hit| hit.name == row.guard)) else {
                continue;
            };
            match hits.iter_mut().find(|(known, _)| known.detail == hit.detail) {
                Some((_, concerned)) => concerned.push(kind.as_str()),
                None => hits.push((hit, vec![kind.as_str()])),
            }
        }
        let told = |(hit, kinds): (&GuardHit, Vec<&str>)| {
            let detail = format!("{} ({})", hit.detail, kinds.join(", "));
            GuardHit { name: hit.name, detail, until: hit.until }
        };
        all.extend(hits.into_iter().map(told));
    }
    all
}
