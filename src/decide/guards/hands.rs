//! Guards of the provider: what it can and cannot take away or make. Pure.

use super::{Case, Held};
use crate::model::Kind;

pub fn victim_fixed(case: &Case) -> Option<Held> {
    Held::because(case.wish.victim.fixed.clone()?)
}

pub fn no_provider(case: &Case) -> Option<Held> {
    let provider = &case.look.now.provider;
    if !provider.can_change {
        return Held::because("no provider is configured: nodes come and go by other hands");
    }
    if provider.machines.is_none() {
        return Held::because("the provider did not answer: which machines there are is unknown");
    }
    if case.wish.kind == Kind::Replace && !provider.can_replace {
        return Held::because(
            "replacing a dead node is not available in this version: bring the node back, or add one by hand with scale-up",
        );
    }
    None
}
