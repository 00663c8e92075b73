//! Machines with an invented Qdrant on them, and the books that are kept about what is asked of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;

use super::laws::is_member;
use crate::model::{Machine, NodeId, Operation, StepAction};
use crate::operate::drivers::qdrant::api::{Answer, Api, ApiError, Request};
use crate::operate::drivers::{Effect, NewNode};
use crate::replay::qdrant::Wire;

/// The only collection.
pub const COLLECTION: &str = "docs";
/// Copies of each of its shards.
pub const COPIES: usize = 2;

/// What stays while controllers come and go.
pub struct Site {
    pub wire: Wire,
    books: Mutex<Books>,
}

#[derive(Default)]
pub struct Books {
    pub machines: BTreeMap<NodeId, Machine>,
    /// Names of machines that were ever made.
    made: BTreeSet<NodeId>,
    /// The highest fence that the provider has seen.
    fence: u64,
    /// Written and acknowledged: ids, and the hash of what was written.
    pub acked: BTreeMap<u64, u64>,
    /// Writes of which nobody knows what became of them.
    pub unsure: u32,
    /// Nodes have been killed or hung while work went on.
    pub is_struck: bool,
    /// Requests have come late, or twice.
    pub has_echoes: bool,
    /// The node that was dead from the beginning.
    pub dead: Option<NodeId>,
    /// The operation that the journal had last.
    pub operation: Option<Operation>,
    pub ledger: Vec<String>,
    broken: Option<String>,
}

impl Books {
    /// The first breach is the one to be explained.
    pub fn breach(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }
}

pub fn machine(id: &NodeId) -> Machine {
    let instance = Some(format!("i-{id}"));
    Machine { id: id.clone(), address: address(id.as_str()), zone: None, instance, ready: Some(true) }
}

pub fn address(name: &str) -> String {
    format!("http://{name}:6333")
}

impl Site {
    pub fn new(wire: Wire, machines: &[NodeId], dead: Option<NodeId>) -> Site {
        let machines = machines.iter().map(|id| (id.clone(), machine(id))).collect();
        let acked = wire.cluster().census(COLLECTION).points;
        Site { wire, books: Mutex::new(Books { machines, acked, dead, ..Books::default() }) }
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the effect of a step is there, as a person finds who looks.
    pub fn has(&self, action: &StepAction) -> bool {
        let machines = self.books().machines.clone();
        let is_member = |id: &NodeId| is_member(&self.wire.cluster(), id);
        match action {
            StepAction::Create { node } => machines.contains_key(node),
            StepAction::Destroy { node } => !machines.contains_key(node),
            StepAction::Join { node } => is_member(node),
            StepAction::Leave { node } | StepAction::Forget { node } | StepAction::Unjoin { node } => !is_member(node),
            _ => false,
        }
    }

    /// A line of what happened.
    pub fn tells(&self, what: String) {
        let at = self.wire.now().as_secs_f64();
        self.books().ledger.push(format!("{at:.1} {what}"));
    }

    /// One that is there already is told again.
    pub fn creates(&self, fence: u64, new: &NewNode) -> Effect<Machine> {
        let mut books = self.books();
        if let Err(why) = books.receive(fence) {
            return Effect::NoEffect(why);
        }
        if !books.machines.contains_key(&new.id) {
            if !books.made.insert(new.id.clone()) {
                books.breach(format!("a machine named {} was made twice", new.id));
            }
            books.machines.insert(new.id.clone(), machine(&new.id));
            self.wire.cluster().start(self.wire.now(), new.id.as_str(), "1.19.0");
        }
        Effect::Done(machine(&new.id))
    }

    pub fn destroys(&self, fence: u64, id: &NodeId) -> Effect<()> {
        let mut books = self.books();
        if let Err(why) = books.receive(fence) {
            return Effect::NoEffect(why);
        }
        if books.machines.remove(id).is_some() {
            self.wire.cluster().destroy(self.wire.now(), id.as_str());
            self.nothing_is_lost(&mut books, &format!("destroy {id}"));
        }
        Effect::Done(())
    }

    /// One request for a change, with what may never come of it.
    pub async fn asks(&self, address: &str, request: Request) -> Result<Answer, ApiError> {
        let (what, is_forced) = (format!("{} {}", request.method, request.path), is_forced(&request));
        if is_forced {
            self.may_force(&request.path);
        }
        let answer = self.wire.ask(address, request).await;
        self.nothing_is_lost(&mut self.books(), &what);
        answer
    }

    /// Only the dead node that is being replaced may go with all that it is listed for.
    fn may_force(&self, path: &str) {
        let mut books = self.books();
        let replaced = books.operation.as_ref().and_then(|operation| operation.replaces.clone());
        let peer = replaced.and_then(|dead| self.wire.cluster().peer(dead.as_str()));
        if !peer.is_some_and(|peer| path.starts_with(&format!("/cluster/peer/{peer}?"))) {
            books.breach(format!("{path} was asked for, and nobody is being replaced there"));
        }
    }

    /// Every shard has an active copy on some disk.
    fn nothing_is_lost(&self, books: &mut Books, after: &str) {
        let lost = self.wire.cluster().census(COLLECTION).lost;
        if !lost.is_empty() {
            books.breach(format!("no active copy of shards {lost:?} after {after}"));
        }
    }
}

impl Books {
    fn receive(&mut self, fence: u64) -> Result<(), String> {
        self.fence = self.fence.max(fence);
        if fence < self.fence { Err(format!("fence {fence} is old")) } else { Ok(()) }
    }
}

fn is_forced(request: &Request) -> bool {
    request.method == Method::DELETE && request.path.contains("force=true")
}
