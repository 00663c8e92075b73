//! One operation over an invented cluster, without a controller: it dies where it is told to, and is taken up again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::clock::TokioClock;
use crate::model::*;
use crate::operate::drivers::{Datastore, Provider};
use crate::operate::plan::{Planning, plan};
use crate::operate::runner::{Hands, Operator, Pace, Report, Service, Standing};
use crate::record::{HistoryQuery, Journal, MemoryJournal};
use crate::replay::Mortal;
use crate::replay::faults::Faults;
use crate::replay::mortal::Witness;

pub const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// Always says yes, and that searching is as it was: a new check at every look.
#[derive(Default)]
struct Stands(AtomicI64);

#[async_trait]
impl Standing for Stands {
    async fn still_stands(&self, _: &Operation, _: Option<&[Machine]>) -> Result<(), String> {
        Ok(())
    }

    fn forbidden(&self) -> bool {
        false
    }

    fn service(&self) -> Option<Service> {
        Some(Service {
            at: Timestamp::from_millis(self.0.fetch_add(1, Ordering::Relaxed)),
            latency: Some(Reading::Fresh { value: 50.0 }),
            error_rate: Some(Reading::Idle),
            latency_high: 500.0,
            error_rate_high: 0.05,
        })
    }

    fn has_listed(&self) -> bool {
        true
    }
}

/// An invented cluster that an operation may be taken apart over.
pub trait Scene: Witness + Sized + 'static {
    /// What a start of the operator reaches it through.
    fn reach(self: &Arc<Self>) -> (Arc<dyn Provider>, Arc<dyn Datastore>);

    fn set_faults(&self, set: impl FnOnce(&mut Faults));

    /// Every call that asked for a change, in order.
    fn ledger(&self) -> Vec<String>;

    /// Everything that must hold at the end; the first thing that does not.
    fn check(&self) -> Result<(), String>;
}

pub fn planned(id: &str, action: Action, names: &[NodeId]) -> Operation {
    let decision = Decision {
        id: 1,
        at: START,
        mode: Mode::Active,
        trigger: Some(Trigger::Manual),
        wanted: action.kind(),
        action,
        because: Vec::new(),
        conditions: Vec::new(),
        guards: Vec::new(),
        would_change: String::new(),
    };
    let with = Planning {
        id: OperationId(id.into()),
        pool: "p".into(),
        at: START,
        who: "vecscale",
        names: names.to_vec(),
        holds_data: true,
        has_service_hooks: false,
        is_drained: false,
        deadlines: pace().deadlines,
    };
    plan(&decision, with).expect("something to do")
}

fn pace() -> Pace {
    Pace::of(Duration::from_secs(30), Duration::from_secs(60))
}

/// What a start of the operator works with; a test may put something broken in between.
pub type Twist = fn(Hands) -> Hands;

/// Longer than all deadlines together: in paused time that costs nothing.
const LONGEST: Duration = Duration::from_secs(100_000);

/// Hears reports until the operation ends or is blocked.
async fn over(reports: &mut mpsc::UnboundedReceiver<Report>) {
    let is_over = |report: &Report| matches!(report, Report::Ended { .. } | Report::Blocked { .. });
    while !is_over(&reports.recv().await.expect("the runner ended without a word")) {}
}

/// One cluster, one journal, and one operator after the other.
pub struct Bench<W> {
    pub world: Arc<W>,
    base: MemoryJournal,
    twist: Twist,
    life: Option<(Operator, mpsc::UnboundedReceiver<Report>)>,
}

impl<W: Scene> Bench<W> {
    pub fn new(world: Arc<W>, twist: Twist) -> Bench<W> {
        Bench { world, base: MemoryJournal::new(), twist, life: None }
    }

    /// Runs until the end or a block, or until it dies at the instant that is given; says whether it died.
    pub async fn lives(&mut self, begins: Option<Operation>, dies_at: Option<u32>) -> bool {
        self.life = None; // whoever lived before is dead
        tokio::task::yield_now().await;
        self.world.crash().arm(dies_at);
        let journal = Arc::new(Mortal::new(self.base.reopen(), self.world.clone()));
        let (provider, datastore) = self.world.reach();
        let hands = Hands { provider, datastore, journal, clock: TokioClock::starting_at(START) };
        let (send, reports) = mpsc::unbounded_channel();
        let hands = (self.twist)(hands);
        let operator = Operator::new(hands, pace(), Arc::new(Stands::default()), send);
        let (operator, reports) = self.life.insert((operator, reports));
        let base = &self.base;
        let life = async {
            match begins {
                Some(operation) => operator.begin(operation, None).await.expect("a journal that opens"),
                None => match base.open_operation(&"p".into()).await.expect("a journal") {
                    Some(open) => {
                        operator.resume(open);
                    }
                    None => return,
                },
            }
            over(reports).await;
        };
        let life = tokio::time::timeout(LONGEST, life);
        let died = tokio::select! {
            biased;
            () = self.world.crash().happened.notified() => true,
            ended = life => {
                ended.expect("the operation never ended");
                false
            }
        };
        if died {
            self.life = None;
            tokio::task::yield_now().await;
        }
        self.world.crash().arm(None);
        died
    }

    /// A person orders something about an operation that is blocked; runs until the end or the next block.
    pub async fn obeys(&mut self, id: &OperationId, what: Verb) -> Result<(), String> {
        let (operator, reports) = self.life.as_mut().expect("somebody lives");
        let order = Order { what, who: "a person".into(), reason: Some("I have looked".into()) };
        operator.order(id, &order).await.map_err(|no| format!("{what:?}: {no:?}"))?;
        tokio::time::timeout(LONGEST, over(reports)).await.expect("the operation never ended");
        Ok(())
    }

    pub async fn operations(&self) -> Vec<Operation> {
        self.base.operations(&"p".into(), 10, None).await.expect("a journal")
    }

    /// Everything that must hold once an operation is over; the first thing that does not.
    pub async fn judged(&self) -> Result<(), String> {
        self.settled().await?;
        self.told_once().await
    }

    /// The world is in order, and no operation is open.
    pub async fn settled(&self) -> Result<(), String> {
        tokio::time::sleep(Duration::from_secs(4000)).await; // whatever was late has come by now
        self.world.check()?;
        match self.operations().await.iter().find(|operation| !operation.state.is_final()) {
            Some(open) => Err(format!("{:?}: {}", open.state, open.detail)),
            None => Ok(()),
        }
    }

    /// The audit trail has each operation's beginning and end, and each effect, once.
    async fn told_once(&self) -> Result<(), String> {
        let query = HistoryQuery { limit: 1000, ..HistoryQuery::default() };
        let rows = self.base.history(&query).await.expect("a history");
        let told = |kind| rows.iter().filter(|row| row.kind == kind).map(|row| row.summary.clone()).collect::<Vec<_>>();
        let operations = told(HistoryKind::Operation);
        if !operations.is_empty() && operations.len() != 2 {
            return Err(format!("not one beginning and one end: {operations:#?}"));
        }
        let mut steps = told(HistoryKind::Step);
        let all = steps.len();
        steps.sort();
        steps.dedup();
        if steps.len() < all { Err(format!("an effect was told twice: {steps:#?}")) } else { Ok(()) }
    }
}

/// A runtime in paused time.
pub fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}
