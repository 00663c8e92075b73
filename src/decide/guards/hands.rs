//! Guards of the provider: what it can and cannot take away or make. Pure.

use super::{Case, Held};
use crate::model::Kind;

pub fn victim_fixed(case: &Case) -> Option<Held> {
    Held::because(case.wish.victim.fixed.clone()?)
}

/// Whether the provider is known to run what is to be reaped, or has not said.
fn is_listed(case: &Case) -> bool {
    let subject = case.wish.subject.as_ref();
    case.look.now.provider.machines.is_none_or(|list| list.iter().any(|machine| Some(&machine.id) == subject))
}

pub fn no_provider(case: &Case) -> Option<Held> {
    let provider = &case.look.now.provider;
    // A ghost is only forgotten: there is no machine.
    if case.wish.kind == Kind::Reap && !is_listed(case) {
        return None;
    }
    if !provider.can_change {
        return Held::because("no provider is configured: nodes come and go by other hands");
    }
    if provider.machines.is_none() {
        return Held::because("the provider did not answer: which machines there are is unknown");
    }
    None
}
