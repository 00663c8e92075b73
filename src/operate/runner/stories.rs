//! Whole operations over a fake world, in paused time. Here stands what the stories share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ledger::operation_entry;
use super::{Hands, NotTaken, Operator, Pace, Report, Service, Standing};
use crate::clock::TokioClock;
use crate::model::*;
use crate::operate::placement::Placing;
use crate::operate::plan::{self, Planning, plan};
use crate::record::{HistoryQuery, Journal, JournalError, MemoryJournal, SqliteJournal};
use crate::replay::{Fault, Mortal, World, node};

mod again;
mod draining;
mod gentle;
mod hooks;
mod orders;
mod people;
mod replacing;
mod scaling;

const SHARDS: u32 = 6;
const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// Says yes until told otherwise.
#[derive(Default)]
struct Stands {
    /// Why the decision does not stand any more.
    objection: Mutex<Option<String>>,
    forbids: AtomicBool,
    checks: Mutex<Checks>,
    /// What shards are placed by.
    placing: Mutex<Arc<Placing>>,
    /// No node was ever listed.
    is_new: AtomicBool,
}

/// How many checks there were, and the search latency at each from now on, in milliseconds.
#[derive(Default)]
struct Checks(i64, Option<f64>);

#[async_trait]
impl Standing for Stands {
    async fn still_stands(&self, _: &Operation, _: Option<&[Machine]>) -> Result<(), String> {
        self.objection.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn forbidden(&self) -> bool {
        self.forbids.load(Ordering::Relaxed)
    }

    /// Every look is at a new check.
    fn service(&self) -> Option<Service> {
        let mut checks = self.checks.lock().unwrap();
        checks.0 += 1;
        Some(Service {
            at: Timestamp::from_millis(checks.0),
            latency: Some(Reading::Fresh { value: checks.1? }),
            error_rate: None,
            latency_high: 500.0,
            error_rate_high: 0.05,
        })
    }

    fn has_listed(&self) -> bool {
        !self.is_new.load(Ordering::Relaxed)
    }

    async fn placing(&self) -> Arc<Placing> {
        self.placing.lock().unwrap().clone()
    }
}

/// One world with one controller after the other.
struct Story {
    world: Arc<World>,
    journal: Arc<Mortal>,
    standing: Arc<Stands>,
    operator: Operator,
    reports: mpsc::UnboundedReceiver<Report>,
}

fn pace() -> Pace {
    Pace::of(Duration::from_secs(30), Duration::from_secs(60))
}

fn operator(
    world: &Arc<World>,
    journal: &Arc<Mortal>,
    standing: &Arc<Stands>,
) -> (Operator, mpsc::UnboundedReceiver<Report>) {
    let (send, reports) = mpsc::unbounded_channel();
    let hands = Hands {
        provider: world.clone(),
        datastore: world.clone(),
        journal: journal.clone(),
        clock: TokioClock::starting_at(START),
    };
    (Operator::new(hands, pace(), standing.clone(), send), reports)
}

impl Story {
    fn of(world: Arc<World>) -> Story {
        let journal = Arc::new(Mortal::new(MemoryJournal::new(), world.clone()));
        let standing = Arc::new(Stands::default());
        let (operator, reports) = operator(&world, &journal, &standing);
        Story { world, journal, standing, operator, reports }
    }

    /// Three nodes, six shards with two copies each.
    fn new() -> Story {
        Story::of(World::new(3, SHARDS, 2))
    }

    async fn begin(&mut self, action: Action) {
        self.operator.begin(planned(action), None).await.expect("a journal that opens");
    }

    /// The next controller, on the same journal and world.
    async fn restart(&mut self) {
        let inner = self.journal.inner.reopen();
        self.journal = Arc::new(Mortal::new(inner, self.world.clone()));
        (self.operator, self.reports) = operator(&self.world, &self.journal, &self.standing);
        if let Some(open) = self.journal.open_operation(&"p".into()).await.expect("a journal") {
            self.operator.resume(open);
        }
    }

    /// Waits until the operation ends or is blocked.
    async fn end(&mut self) -> Operation {
        let end = async {
            loop {
                match self.reports.recv().await.expect("the runner ended without a word") {
                    Report::Ended { operation } | Report::Blocked { operation } => return *operation,
                    _ => {}
                }
            }
        };
        // Longer than all deadlines together: in paused time that costs nothing.
        tokio::time::timeout(Duration::from_secs(100_000), end).await.expect("the operation never ended")
    }

    async fn step_seen(&mut self, name: &str, state: StepState) {
        loop {
            match self.reports.recv().await.expect("the runner ended without a word") {
                Report::Step { step, .. } if step.action.name() == name && step.state == state => return,
                Report::Ended { operation } => panic!("ended first: {operation:#?}"),
                _ => {}
            }
        }
    }

    async fn order(&mut self, what: Verb) -> Result<(), String> {
        let order = Order { what, who: "someone".into(), reason: Some("why not".into()) };
        self.operator.order(&OperationId("op".into()), &order).await.map_err(|not| match not {
            NotTaken::No(why) => why,
            other => panic!("{other:?}"),
        })
    }

    async fn audit(&self, kind: HistoryKind) -> Vec<String> {
        let query = HistoryQuery { kind: Some(kind), limit: 1000, ..HistoryQuery::default() };
        let rows = self.journal.history(&query).await.expect("a history");
        rows.into_iter().rev().map(|row| row.summary).collect()
    }

    /// One line per audit row, after the invariants.
    async fn told(&self) -> Vec<String> {
        self.world.check().unwrap_or_else(|broken| panic!("{broken}\n{:#?}", self.world.ledger()));
        let query = HistoryQuery { limit: 1000, ..HistoryQuery::default() };
        self.journal.history(&query).await.expect("a history").into_iter().rev().map(|row| row.summary).collect()
    }
}

/// What, action, call, its faults, the end, machines then.
type Case<'a> = (&'static str, Action, &'static str, &'a [Fault], OperationState, usize);

fn decision(action: Action) -> Decision {
    Decision {
        id: 1,
        at: START,
        mode: Mode::Active,
        trigger: Some(Trigger::Threshold),
        wanted: action.kind(),
        action,
        because: vec!["cpu_high 0.81 > 0.75, 2 of 2 checks".into()],
        conditions: Vec::new(),
        guards: Vec::new(),
        would_change: String::new(),
    }
}

fn planned(action: Action) -> Operation {
    planned_for(action, true)
}

fn planned_for(action: Action, holds_data: bool) -> Operation {
    planned_with(action, holds_data, false)
}

fn planned_with(action: Action, holds_data: bool, has_service_hooks: bool) -> Operation {
    let with = Planning {
        id: OperationId("op".into()),
        pool: "p".into(),
        at: START,
        who: "vecscale",
        names: (4..10).map(node).collect(),
        holds_data,
        has_service_hooks,
        is_drained: false,
        deadlines: pace().deadlines,
    };
    plan(&decision(action), with).expect("something to do")
}

fn up() -> Action {
    Action::ScaleUp { nodes: 1, target: 4 }
}

fn down() -> Action {
    Action::ScaleDown { node: node(3), target: 2 }
}

/// Four nodes, so that one can go while two copies of each shard find places.
fn four() -> Story {
    Story::of(World::new(4, SHARDS, 2))
}

/// Runs until the end or the crash that is armed; says whether it crashed.
async fn runs_or_dies(story: &mut Story, begins: Option<Operation>, dies_at: Option<u32>) -> bool {
    story.world.crash.arm(dies_at);
    let world = story.world.clone();
    let life = async {
        match begins {
            Some(operation) => story.operator.begin(operation, None).await.expect("a journal that opens"),
            None => story.restart().await,
        }
        if story.operator.running().is_some() {
            story.end().await;
        }
    };
    let died = tokio::select! {
        () = life => false,
        () = world.crash.happened.notified() => true,
    };
    world.crash.arm(None);
    died
}

async fn after_crashes(what: &str, story: &mut Story) {
    runs_or_dies(story, None, None).await;
    let operations = story.journal.operations(&"p".into(), 10, None).await.expect("a journal");
    for operation in &operations {
        assert!(operation.state.is_final(), "{what}: {operation:#?}\n{:#?}", story.world.ledger());
        assert_eq!(story.audit(HistoryKind::Operation).await.len(), 2, "{what}");
    }
    story.world.check().unwrap_or_else(|broken| panic!("{what}: {broken}\n{:#?}", story.world.ledger()));
    let drained = operations.iter().filter(|o| o.kind == Kind::Drain && o.state == OperationState::Succeeded).count();
    assert_eq!(story.world.cordoned(), drained, "{what}: left cordoned");
    let mut rows = story.audit(HistoryKind::Step).await;
    let all = rows.len();
    rows.sort();
    rows.dedup();
    assert_eq!(rows.len(), all, "{what}: an effect was told twice: {rows:#?}");
}

/// The controller dies at every write and every effect, once; then at each of them and again at every one after it.
async fn dies_everywhere(name: &str, fresh: impl Fn() -> Story, action: Action, twice: bool) {
    for first in 1.. {
        let mut story = fresh();
        let died = runs_or_dies(&mut story, Some(planned(action.clone())), Some(first)).await;
        after_crashes(&format!("{name}, dies at {first}"), &mut story).await;
        if !died {
            assert!(first > 15, "{name}: only {first} instants");
            return;
        }
        for second in 1.. {
            let mut story = fresh();
            runs_or_dies(&mut story, Some(planned(action.clone())), Some(first)).await;
            let died = twice && runs_or_dies(&mut story, None, Some(second)).await;
            if !died {
                break;
            }
            after_crashes(&format!("{name}, dies at {first} and {second}"), &mut story).await;
        }
    }
}
