//! Guards of what people want: the mode, the STOP file, switched-off directions, the hold after a manual operation or for
//! an alert, frozen windows. Pure.

use super::{Case, Held};
use crate::decide::triggers::alert;
use crate::model::{Freeze, Kind, Mode, Trigger};
use crate::units;

pub fn stopped(case: &Case) -> Option<Held> {
    if case.look.now.stop_file {
        return Held::because("a file named STOP lies in the storage path: nothing is started until it is removed");
    }
    if case.look.now.mode == Mode::Stopped { Held::because("autoscaling is stopped") } else { None }
}

pub fn observe(case: &Case) -> Option<Held> {
    if case.look.now.mode == Mode::Observe { Held::because("autoscaling only observes") } else { None }
}

pub fn direction_disabled(case: &Case) -> Option<Held> {
    match case.wish.kind {
        Kind::ScaleUp if !case.look.policy.scale_up.enabled => Held::because("scale_up.enabled is false"),
        Kind::ScaleDown if !case.look.policy.scale_down.enabled => Held::because("scale_down.enabled is false"),
        Kind::Rebalance if !case.look.policy.rebalance.enabled => Held::because("rebalance.enabled is false"),
        _ => None,
    }
}

/// Whoever has just scaled one way by hand does not want it undone; while the operation runs this holds too.
pub fn manual_hold(case: &Case) -> Option<Held> {
    let opposite = match case.wish.kind {
        Kind::ScaleUp => Kind::ScaleDown,
        Kind::ScaleDown => Kind::ScaleUp,
        Kind::Replace | Kind::Rebalance | Kind::Adopt | Kind::Drain | Kind::Reap => return None,
    };
    let now = case.look.now;
    if now.open_operation().is_some_and(|o| o.kind == opposite && o.trigger == Trigger::Manual) {
        return Held::because(format!("a manual {} is running", opposite.as_str()));
    }
    let (kind, ended) = case.look.memory.manual?;
    let passed = now.seen.at.since(ended);
    let left = case.look.policy.manual_hold.checked_sub(passed).filter(|left| !left.is_zero())?;
    (kind == opposite).then_some(())?;
    Held::until(format!("{} left after a manual {}", units::time(left), kind.as_str()), now.seen.at.plus(left))
}

/// While such an alert fires, nothing is begun by itself; a dead node is replaced all the same.
pub fn alert_hold(case: &Case) -> Option<Held> {
    Held::because(alert::holding(case.look)?)
}

/// Not removing nodes, or not changing anything, while a window is open.
pub fn window_freeze(case: &Case) -> Option<Held> {
    let frozen = case.look.policy.windows.freeze.as_ref()?;
    let freeze = match (frozen.freeze, case.wish.kind) {
        (Freeze::All, _) => "all",
        (Freeze::Down, Kind::ScaleDown) => "down",
        (Freeze::Down, _) => return None,
    };
    let detail = format!("window {} is open (freeze: {freeze})", frozen.window);
    Some(Held { detail, until: frozen.until })
}
