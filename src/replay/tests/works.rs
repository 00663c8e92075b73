//! The kinds of work that are taken apart over the invented store.

use std::sync::Arc;
use std::time::Duration;

use super::apart::Piece;
use super::bench::{Scene, planned};
use crate::model::{Action, Operation};
use crate::operate::drivers::{Datastore, Provider};
use crate::replay::faults::Faults;
use crate::replay::{World, node};

/// The kinds of work, each over eight shards with two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Up,
    /// Two nodes, and so two shards on their way at once.
    UpByTwo,
    Down,
    /// In a store that only ever copies.
    DownByCopies,
    Replace,
}

impl Work {
    pub const ALL: [Work; 5] = [Work::Up, Work::UpByTwo, Work::Down, Work::DownByCopies, Work::Replace];
}

impl Piece for Work {
    type Over = World;

    async fn scene(self) -> Arc<World> {
        let world = World::new(if self == Work::Up { 3 } else { 4 }, 8, 2);
        if self == Work::DownByCopies {
            world.only_copies();
        }
        if self == Work::Replace {
            world.kill(3);
            tokio::time::sleep(Duration::from_secs(10)).await; // the others have noticed
        }
        world
    }

    fn operation(self) -> Operation {
        let action = match self {
            Work::Up => Action::ScaleUp { nodes: 1, target: 4 },
            Work::UpByTwo => Action::ScaleUp { nodes: 2, target: 6 },
            Work::Down | Work::DownByCopies => Action::ScaleDown { node: node(3), target: 3 },
            Work::Replace => Action::Replace { node: node(3) },
        };
        planned("op", action, &[node(5), node(6)])
    }
}

impl Scene for World {
    fn reach(self: &Arc<World>) -> (Arc<dyn Provider>, Arc<dyn Datastore>) {
        (self.clone(), self.clone())
    }

    fn set_faults(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.state().faults);
    }

    fn ledger(&self) -> Vec<String> {
        World::ledger(self)
    }

    fn check(&self) -> Result<(), String> {
        World::check(self)?;
        if self.cordoned() > 0 { Err("a node is left cordoned".into()) } else { Ok(()) }
    }
}
