//! Trigger `manual`: what a person asks for, decided alone. Pure.

use super::{Look, Wish};
use crate::decide::victim;
use crate::model::{Kind, Request, Trigger};

pub fn wish<'a>(look: &Look<'a>, request: &'a Request) -> Wish<'a> {
    let what = match request.kind {
        Kind::ScaleUp => format!("scale_up by {}", request.nodes.max(1)),
        kind => request.node.as_ref().map_or(kind.as_str().to_string(), |node| format!("{} of {node}", kind.as_str())),
    };
    let reason = request.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    let mut wish = Wish::new(request.kind, Trigger::Manual, vec![format!("{} asked for {what}{reason}", request.who)]);
    wish.request = Some(request);
    match request.kind {
        Kind::ScaleUp => wish.nodes = request.nodes.max(1),
        Kind::ScaleDown => wish.victim = victim::choose(look.now, look.roster, request.node.as_ref()),
        Kind::Replace | Kind::Adopt | Kind::Drain | Kind::Reap => wish.subject = request.node.clone(),
        Kind::Rebalance => {}
    }
    wish
}
