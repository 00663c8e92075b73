//! observation + policy + memory -> decision + memory. Pure: "now" is `seen.at`.

pub mod policy;

use std::time::Duration;

use crate::model::{Decision, Inventory, Machine, Mode, Observation, Operation, Outlook, Request};

pub use policy::Policy;

/// All that a decision looks at besides policy and memory.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub seen: &'a Observation,
    pub mode: Mode,
    /// A file named `STOP` lies in the storage path.
    pub stop_file: bool,
    /// The operation that is not yet ended.
    pub operation: Option<&'a Operation>,
    /// What a person asks for right now; decided alone, past the triggers.
    pub request: Option<&'a Request>,
    pub store: Store<'a>,
    pub provider: ProviderFacts<'a>,
    /// What the planner says each change would move.
    pub outlook: &'a Outlook,
    /// Creation to serving, of past scale-ups, oldest first.
    pub lead_times: &'a [Duration],
}

/// What the datastore said this time.
#[derive(Clone, Copy, Debug)]
pub enum Store<'a> {
    /// The nodes hold no data.
    None,
    /// It did not answer: unknown, never empty.
    Silent(&'a str),
    Seen(&'a Inventory),
}

/// What the provider can do, and said this time.
#[derive(Clone, Copy, Debug)]
pub struct ProviderFacts<'a> {
    /// `false` for provider `none`.
    pub can_change: bool,
    /// The only node it can take away (`victim: last`).
    pub only_victim: Option<&'a crate::model::NodeId>,
    /// Its list; `None` when it did not answer.
    pub machines: Option<&'a [Machine]>,
    /// The longest a creation may take.
    pub timeout: Duration,
}

/// What `decide` gives back.
#[derive(Clone, Debug)]
pub struct Outcome<M> {
    pub decision: Decision,
    pub memory: M,
}
