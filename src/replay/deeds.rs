//! What can be asked of an invented cluster, and what it makes of it. Each deed may come twice, or late: it looks before
//! it acts, as every driver must.

use super::world::{Held, State};
use crate::model::{Machine, Move, NodeId, ShardId};
use crate::operate::drivers::{Effect, NewNode};

/// One change, as a provider or datastore understands it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Deed {
    Create(NewNode),
    Destroy(Machine),
    Join(Machine),
    Cordon(NodeId),
    Uncordon(NodeId),
    OutOfService(NodeId),
    InService(NodeId),
    Move(Move),
    Finish(Move),
    Replicate(Move),
    Cancel(Move),
    Leave(NodeId),
    Forget(NodeId),
    Unjoin(NodeId),
}

impl Deed {
    pub fn name(&self) -> &'static str {
        match self {
            Deed::Create(_) => "create",
            Deed::Destroy(_) => "destroy",
            Deed::Join(_) => "join",
            Deed::Cordon(_) => "cordon",
            Deed::Uncordon(_) => "uncordon",
            Deed::OutOfService(_) => "out_of_service",
            Deed::InService(_) => "in_service",
            Deed::Move(_) => "move",
            Deed::Finish(_) => "finish",
            Deed::Replicate(_) => "replicate",
            Deed::Cancel(_) => "cancel",
            Deed::Leave(_) => "leave",
            Deed::Forget(_) => "forget",
            Deed::Unjoin(_) => "unjoin",
        }
    }

    pub fn on(&self) -> String {
        match self {
            Deed::Create(new) => new.id.to_string(),
            Deed::Destroy(machine) | Deed::Join(machine) => machine.id.to_string(),
            Deed::Cordon(id)
            | Deed::Uncordon(id)
            | Deed::OutOfService(id)
            | Deed::InService(id)
            | Deed::Leave(id)
            | Deed::Forget(id)
            | Deed::Unjoin(id) => id.to_string(),
            Deed::Move(m) | Deed::Finish(m) | Deed::Replicate(m) => format!("{} {}>{}", m.shard.shard, m.from, m.to),
            Deed::Cancel(m) => m.shard.shard.to_string(),
        }
    }
}

/// `Some(machine)` for a creation.
pub(super) type Made = Effect<Option<Machine>>;

impl State {
    /// Does it, as far as the cluster lets it be done.
    pub fn act(&mut self, deed: &Deed) -> Made {
        match deed {
            Deed::Create(new) => {
                if !self.machines.contains_key(&new.id) {
                    self.laws.made(&new.id);
                }
                Effect::Done(Some(self.make(&new.id, new.zone.clone())))
            }
            Deed::Destroy(machine) => {
                let id = &machine.id;
                self.remove_machine(id);
                self.die(id);
                if !self.scale.data {
                    self.members.remove(id);
                }
                Effect::Done(None)
            }
            Deed::Join(machine) => {
                if !self.machines.contains_key(&machine.id) {
                    return Effect::NoEffect("no such host".into());
                }
                self.members.entry(machine.id.clone()).or_insert(false);
                Effect::Done(None)
            }
            Deed::Cordon(id) => self.cordons(id, true),
            Deed::Uncordon(id) => self.cordons(id, false),
            Deed::OutOfService(id) => {
                self.served.remove(id);
                Effect::Done(None)
            }
            Deed::InService(id) => {
                self.served.insert(id.clone());
                Effect::Done(None)
            }
            Deed::Move(m) => self.transfers(m, true),
            Deed::Finish(m) => self.finishes(m),
            Deed::Replicate(m) => self.transfers(m, false),
            Deed::Cancel(m) => {
                self.flights.retain(|flight| flight.copy.shard != m.shard);
                let whole = |on: &NodeId| self.copies.get(&(m.shard.clone(), on.clone())).map(|held| !held.stale);
                if whole(&m.from) == Some(true) && whole(&m.to) == Some(false) {
                    self.copies.remove(&(m.shard.clone(), m.to.clone()));
                }
                self.calls_off(m);
                // It has come to nothing: the copy at the source is to stay.
                self.unfinished.retain(|(shard, _), to| *shard != m.shard || *to != m.to);
                Effect::Done(None)
            }
            Deed::Leave(id) | Deed::Unjoin(id) if self.holds(id) => Effect::NoEffect(format!("{id} holds shards")),
            Deed::Leave(id) | Deed::Unjoin(id) => {
                self.members.remove(id);
                Effect::Done(None)
            }
            Deed::Forget(id) => {
                self.copies.retain(|(_, on), _| on != id);
                self.flights.retain(|flight| flight.copy.from != *id && flight.copy.to != *id);
                self.members.remove(id);
                Effect::Done(None)
            }
        }
    }

    fn cordons(&mut self, id: &NodeId, cordoned: bool) -> Made {
        match self.members.get_mut(id) {
            Some(known) => {
                *known = cordoned;
                Effect::Done(None)
            }
            None => Effect::NoEffect("no such member".into()),
        }
    }

    fn transfers(&mut self, m: &Move, is_move: bool) -> Made {
        let copy = |on: &NodeId| self.copies.get(&(m.shard.clone(), on.clone()));
        if copy(&m.to).is_some() {
            let moved = !is_move || self.copies_only || copy(&m.from).is_none();
            return if moved { Effect::Done(None) } else { Effect::NoEffect("the target has a copy".into()) };
        }
        if copy(&m.from).is_none_or(|held| held.stale) {
            return Effect::NoEffect(format!("{} has no whole copy of {}", m.from, m.shard));
        }
        if self.members.get(&m.to) != Some(&false) {
            return Effect::NoEffect(format!("{} is closed", m.to));
        }
        match self.flights.iter().find(|flight| flight.copy.shard == m.shard) {
            Some(flight) if flight.copy.to != m.to => Effect::NoEffect("the shard is on its way elsewhere".into()),
            _ => {
                self.take_off(m, is_move);
                Effect::Done(None)
            }
        }
    }

    /// Drops the copy at the source, if the one at the target can be relied on.
    fn finishes(&mut self, m: &Move) -> Made {
        if !self.copies_only {
            return Effect::Done(None);
        }
        let is_whole = self.copies.get(&(m.shard.clone(), m.to.clone())).is_some_and(|held| !held.stale);
        if !is_whole || self.is_dead(&m.to) || self.flights.iter().any(|flight| flight.copy.shard == m.shard) {
            return Effect::NoEffect(format!("{} has no whole copy of {}", m.to, m.shard));
        }
        self.drops(m);
        Effect::Done(None)
    }

    /// What becomes of a request to drop a copy once it is on its way: the store keeps the last one, and looks at nothing else.
    pub fn drops(&mut self, m: &Move) {
        let is_whole = |((shard, on), held): (&(ShardId, NodeId), &Held)| {
            *shard == m.shard && *on != m.from && !held.stale && !self.is_dead(on)
        };
        if self.copies.iter().any(is_whole) {
            self.copies.remove(&(m.shard.clone(), m.from.clone()));
            self.unfinished.remove(&(m.shard.clone(), m.from.clone()));
        }
    }
}
