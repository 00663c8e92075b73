//! Trigger `arrival`: a node that others have added wants its share of the shards, once. Pure.

use super::{Heard, Look, Wish};
use crate::model::{Kind, Mode, NodeId, NodeState, Trigger};

/// The first that is well; the others say what they wait for.
pub fn vote<'a>(look: &Look<'a>) -> Heard<'a> {
    let mut heard = Heard::default();
    for id in look.now.arrivals {
        let came = format!("{id} has come by other hands");
        match waits_for(look, id) {
            Some(why) => heard.notes.push(format!("{came}; {why}")),
            None if heard.wish.is_some() => heard.notes.push(format!("{came} too")),
            None => {
                let wish = Wish::new(Kind::Adopt, Trigger::Arrival, vec![came]);
                heard.wish = Some(Wish { subject: Some(id.clone()), ..wish });
            }
        }
    }
    heard
}

/// What keeps a newcomer from being filled. One that is no member yet has answered, or it would not be told.
fn waits_for(look: &Look, id: &NodeId) -> Option<&'static str> {
    if look.now.mode == Mode::Observe {
        return Some("it would be adopted and filled in mode active");
    }
    match look.roster.nodes.get(id) {
        Some(node) if node.state != NodeState::Serving => Some("it is filled once it is open for shards"),
        Some(node) if !node.healthy || !node.up => Some("it is filled once it is healthy"),
        _ => None,
    }
}
