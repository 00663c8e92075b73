//! What wants a change: each trigger takes the situation and gives a wish, or notes on why it has none yet. Pure.

pub mod alert;
pub mod arrival;
pub mod availability;
pub mod bounds;
pub mod capacity;
pub mod hotspot;
pub mod manual;
pub mod schedule;
pub mod threshold;

use super::conditions::Known;
use super::hotspots::Hot;
use super::memory::Memory;
use super::policy::Policy;
use super::roster::Roster;
use super::victim::Choice;
use super::{Situation, words};
use crate::model::{Kind, NodeId, Request, Trigger};

/// What a trigger looks at.
pub struct Look<'a> {
    pub policy: &'a Policy,
    pub memory: &'a Memory,
    pub now: &'a Situation<'a>,
    pub roster: &'a Roster<'a>,
    pub conditions: &'a [Known],
    /// The conditions on single nodes.
    pub hot: &'a [Hot],
}

/// A change that is wanted; guards have the last word.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    pub kind: Kind,
    pub trigger: Trigger,
    /// One sentence each.
    pub because: Vec<String>,
    /// Nodes to add; 1 for everything but a scale-up.
    pub nodes: u32,
    /// The dead node of a replacement; what is to be adopted, drained or reaped.
    pub subject: Option<NodeId>,
    /// The node that a scale-down would remove.
    pub victim: Choice,
    /// Who asks, when it is a person.
    pub request: Option<&'a Request>,
    /// The rebalance that would make a growth needless.
    pub instead: Option<Box<Wish<'a>>>,
}

impl Wish<'_> {
    pub fn new(kind: Kind, trigger: Trigger, because: Vec<String>) -> Self {
        let victim = Choice::default();
        Wish { kind, trigger, because, nodes: 1, subject: None, victim, request: None, instead: None }
    }
}

/// A wish, or what is on its way to one.
#[derive(Default)]
pub struct Heard<'a> {
    pub wish: Option<Wish<'a>>,
    /// Sentences for a hold: streaks under way, a grace that runs.
    pub notes: Vec<String>,
}

impl<'a> Heard<'a> {
    pub fn wish(wish: Wish<'a>) -> Self {
        Heard { wish: Some(wish), notes: Vec::new() }
    }

    pub fn note(text: String) -> Self {
        Heard { wish: None, notes: vec![text] }
    }
}

/// What wants more nodes.
pub fn scale_up<'a>(look: &Look<'a>) -> Heard<'a> {
    together([
        schedule::vote_up(look),
        bounds::vote(look),
        threshold::vote_up(look),
        capacity::vote(look),
        hotspot::full(look),
        alert::vote_up(look),
    ])
}

/// What wants fewer; never against an alert that is for more.
pub fn scale_down<'a>(look: &Look<'a>) -> Heard<'a> {
    let mut heard = together([threshold::vote_down(look), alert::vote_down(look), schedule::vote_down(look)]);
    if let (Some(wish), Some(against)) = (&heard.wish, alert::against_shrinking(look)) {
        heard.notes.push(format!("{}; but {against}", wish.because.join("; ")));
        heard.wish = None;
    }
    heard
}

/// The first trigger that wants the change gives the wish its name; the reasons of all are told.
fn together<'a, const N: usize>(votes: [Heard<'a>; N]) -> Heard<'a> {
    let mut all = Heard::default();
    for heard in votes {
        all.notes.extend(heard.notes);
        match (&mut all.wish, heard.wish) {
            (Some(first), Some(other)) => {
                first.because.extend(other.because);
                first.nodes = first.nodes.max(other.nodes);
                // Needless is only what is needless for each of them.
                first.instead = first.instead.take().zip(other.instead).map(|(first, _)| first);
            }
            (none @ None, wish) => *none = wish,
            (Some(_), None) => {}
        }
    }
    all
}

/// Conditions as sentences.
fn told<'k>(conditions: impl IntoIterator<Item = &'k Known>) -> Vec<String> {
    conditions.into_iter().map(|k| words::condition(&k.condition)).collect()
}
