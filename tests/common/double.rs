//! A double of a platform: it makes and removes nodes, keeps a ledger that owes nothing to vecscale, and can hit the
//! controller at an exact place in one of its calls.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;

/// Where in a call a trap lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The call has arrived, nothing has happened yet.
    BeforeEffect,
    /// The node is there, or gone.
    AfterEffect,
    /// The call is over but for what it says.
    BeforeAnswer,
    /// The answer is on its way or has arrived.
    AfterAnswer,
}

impl Place {
    pub const ALL: [Place; 4] = [Place::BeforeEffect, Place::AfterEffect, Place::BeforeAnswer, Place::AfterAnswer];

    pub fn as_str(self) -> &'static str {
        match self {
            Place::BeforeEffect => "before_effect",
            Place::AfterEffect => "after_effect",
            Place::BeforeAnswer => "before_answer",
            Place::AfterAnswer => "after_answer",
        }
    }
}

/// What hits the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hand {
    /// `kill -9`.
    Kill,
    /// `SIGSTOP`, and `SIGCONT` after a while.
    Stop,
    /// `SIGTERM`: it parks its work and ends with 0.
    Term,
}

impl Hand {
    pub const ALL: [Hand; 3] = [Hand::Kill, Hand::Stop, Hand::Term];

    pub fn signal(self) -> Signal {
        match self {
            Hand::Kill => Signal::KILL,
            Hand::Stop => Signal::STOP,
            Hand::Term => Signal::TERM,
        }
    }

    /// The signal's name, as `kill -s` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Hand::Kill => "KILL",
            Hand::Stop => "STOP",
            Hand::Term => "TERM",
        }
    }
}

/// Sends a signal to the controller at one place of the next call, once.
#[derive(Clone, Debug)]
pub struct Trap {
    /// `create` or `destroy`.
    pub call: &'static str,
    pub place: Place,
    pub signal: Hand,
    /// The controller.
    pub pid: u32,
}

pub trait Double {
    /// A configuration of one pool over this platform, with one check a second, provider and nodes without data.
    fn config(&self, thresholds: &str) -> String;

    /// Sets a trap; one at a time.
    fn set(&self, trap: &Trap);

    /// Whether the trap that was set last has gone off.
    fn is_sprung(&self) -> bool;

    /// The nodes that there are.
    fn nodes(&self) -> BTreeSet<String>;

    /// `made NODE`, `removed NODE` for each real effect; `concurrent …` for a call about a node while another
    /// about it was running; anything else besides.
    fn ledger(&self) -> Vec<String>;

    /// How often each node was really `made`, or really `removed`.
    fn effects(&self, what: &str) -> BTreeMap<String, u32> {
        let mut effects = BTreeMap::new();
        for line in self.ledger() {
            if let Some(node) = line.strip_prefix(what).and_then(|rest| rest.strip_prefix(' ')) {
                *effects.entry(node.to_string()).or_default() += 1;
            }
        }
        effects
    }
}
