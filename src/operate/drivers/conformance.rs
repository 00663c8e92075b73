//! Whether a provider keeps its contract. Makes two throw-away nodes, asks twice, asks wrongly, takes them away again, and
//! gives what holds as values. The list is read before and after each change: as soon as a node is gone that nobody asked
//! to destroy, nothing more is asked for, not even to clean up.

mod checks;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Call, Effect, NewNode, Provider, Victim};
use crate::model::{Machine, NodeId, OperationId, PoolName};
use crate::operate::plan;

pub use checks::Check;

/// Between two questions while something is under way.
const PROBE: Duration = Duration::from_secs(2);
/// How much longer than its deadline a driver may take to give up by itself.
const MARGIN: Duration = Duration::from_secs(20);
/// How long a list may lag behind what was done.
const LAG: Duration = Duration::from_secs(10);
/// When the answer to a creation is dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(100);
/// The longest text that a zone or an instance may be.
const LONGEST_TEXT: usize = 200;

/// What came of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub check: Check,
    pub verdict: Verdict,
    /// What was seen; may be empty where all is well.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Holds,
    /// It works, less safely than it could.
    Warning,
    Failed,
    /// There was nothing to look at.
    NotRun,
}

/// A run to its end, or as far as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The names that were used; no node had them before.
    pub nodes: Vec<NodeId>,
    /// One per check, in their order.
    pub findings: Vec<Finding>,
    /// Nodes that were taken away though nobody asked for it; to be looked after at once.
    pub lost: Vec<NodeId>,
    /// Nodes that appeared meanwhile, of the provider's making or of somebody else's. They are left alone.
    pub strangers: Vec<NodeId>,
    /// Throw-away nodes that may still be there.
    pub left: Vec<NodeId>,
}

impl Report {
    pub fn all_hold(&self) -> bool {
        self.left.is_empty() && self.findings.iter().all(|finding| finding.verdict != Verdict::Failed)
    }
}

/// Why a run ends early.
enum Stop {
    /// What comes later would have nothing to look at.
    Pointless(String),
    /// Destroying takes nodes away that were not meant.
    Dangerous,
}

/// How a call came out in the end.
enum Said<T> {
    Done(T),
    Refused(String),
    Unknown(String),
    /// Not within the provider's timeout.
    Late,
}

impl<T> Said<T> {
    /// The same in words, where `Done` was expected.
    fn not_done(self) -> Result<T, String> {
        match self {
            Said::Done(value) => Ok(value),
            Said::Refused(why) => Err(format!("refused: {why}")),
            Said::Unknown(why) => Err(format!("outcome unknown: {why}")),
            Said::Late => Err("it was not done within the timeout".into()),
        }
    }
}

/// What a list shows, besides that every node of others is still there.
struct Seen {
    /// Of the throw-away nodes.
    ours: BTreeSet<NodeId>,
    machines: Vec<Machine>,
    /// Nodes of others that were not there before.
    strangers: Vec<NodeId>,
}

/// One run over one provider. Dropping the future of [`Conformance::check_all`] interrupts it; [`Conformance::clean_up`]
/// comes last in any case.
pub struct Conformance<'a> {
    provider: &'a dyn Provider,
    pool: PoolName,
    operation: OperationId,
    stem: String,
    fence: u64,
    names: Vec<NodeId>,
    /// Everything that was listed and is not ours.
    others: BTreeSet<NodeId>,
    /// Throw-away nodes that were asked for and not seen to be gone.
    made: Vec<NodeId>,
    lost: Vec<NodeId>,
    strangers: Vec<NodeId>,
    findings: Vec<Finding>,
    now: watch::Sender<Check>,
}

impl<'a> Conformance<'a> {
    /// `fence` is that of the last start of a controller over these nodes, at least 1: a higher one would make a provider
    /// refuse that controller. `mark` makes the names unique; it holds letters and digits only.
    pub fn new(provider: &'a dyn Provider, pool: PoolName, fence: u64, mark: &str) -> Conformance<'a> {
        let stem = match provider.victim() {
            Victim::Any => format!("vecscale-test-{mark}"),
            Victim::Last => pool.to_string(), // such a platform numbers its nodes, and takes no other names
        };
        Conformance {
            provider,
            pool,
            operation: OperationId(format!("test-{mark}").into()),
            stem,
            fence,
            names: Vec::new(),
            others: BTreeSet::new(),
            made: Vec::new(),
            lost: Vec::new(),
            strangers: Vec::new(),
            findings: Vec::new(),
            now: watch::Sender::new(Check::List),
        }
    }

    /// The check that runs now.
    pub fn progress(&self) -> watch::Receiver<Check> {
        self.now.subscribe()
    }

    /// Everything but the cleaning up.
    pub async fn check_all(&mut self) {
        if let Err(Stop::Pointless(why)) = self.checks().await {
            for check in Check::ALL {
                if check != Check::CleanUp && self.verdict(check).is_none() {
                    self.found(check, Verdict::NotRun, why.clone());
                }
            }
        }
    }

    /// Takes away what is left of the throw-away nodes, unless that has become dangerous.
    pub async fn clean_up(&mut self) {
        self.now.send_replace(Check::CleanUp);
        if self.lost.is_empty() {
            let (verdict, detail) = self.sweep().await;
            self.found(Check::CleanUp, verdict, detail);
        } else if !self.made.is_empty() {
            let what = "left alone, since destroy takes away what it was not asked for";
            self.found(Check::CleanUp, Verdict::NotRun, what.into());
        }
    }

    pub fn report(mut self) -> Report {
        for check in Check::ALL {
            if self.verdict(check).is_none() {
                let why =
                    if self.lost.is_empty() { "the run ended before" } else { "a node is gone that nobody asked for" };
                self.found(check, Verdict::NotRun, why.into());
            }
        }
        self.findings.sort_by_key(|finding| finding.check);
        let Conformance { names, findings, lost, strangers, made, .. } = self;
        Report { nodes: names, findings, lost, strangers, left: made }
    }

    fn verdict(&self, check: Check) -> Option<Verdict> {
        self.findings.iter().find(|finding| finding.check == check).map(|finding| finding.verdict)
    }

    fn found(&mut self, check: Check, verdict: Verdict, detail: String) {
        self.findings.push(Finding { check, verdict, detail });
    }

    fn call(&self, step: &'static str, number: u32) -> Call {
        Call {
            pool: self.pool.clone(),
            operation: self.operation.clone(),
            step,
            key: format!("{}/{number}", self.operation),
            fence: self.fence,
            deadline: self.provider.timeout(),
        }
    }

    async fn create(&mut self, node: &NodeId, call: &Call) -> Said<Machine> {
        if !self.made.contains(node) {
            self.made.push(node.clone());
        }
        let (provider, new) = (self.provider, NewNode::named(node.clone()));
        until_answered(call.deadline, async || provider.create(call, &new).await).await
    }

    async fn destroy(&self, machine: &Machine, call: &Call) -> Said<()> {
        until_answered(call.deadline, async || self.provider.destroy(call, machine).await).await
    }

    /// Reads the list and compares it with what was there. What is missing is looked for twice before it is said.
    async fn look(&mut self, check: Check) -> Result<Seen, Stop> {
        let mut machines = self.listed(check).await?;
        if !self.missing(&machines).is_empty() {
            tokio::time::sleep(PROBE).await;
            machines = self.listed(check).await?;
        }
        self.lost = self.missing(&machines);
        if !self.lost.is_empty() {
            let gone = words(&self.lost);
            self.found(
                check,
                Verdict::Failed,
                format!("{gone}: there before, and gone now, though nobody asked for it"),
            );
            return Err(Stop::Dangerous);
        }
        let ids: BTreeSet<NodeId> = machines.iter().map(|machine| machine.id.clone()).collect();
        let (ours, others): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            ids.into_iter().partition(|id| self.names.contains(id));
        let strangers: Vec<NodeId> = others.difference(&self.others).cloned().collect();
        self.strangers.extend(strangers.iter().cloned());
        self.others.extend(others);
        Ok(Seen { ours, machines, strangers })
    }

    async fn listed(&mut self, check: Check) -> Result<Vec<Machine>, Stop> {
        let mut tries = 0;
        loop {
            match self.provider.list().await {
                Ok(machines) => return Ok(machines),
                Err(_) if tries < 2 => tokio::time::sleep(PROBE).await,
                Err(why) => {
                    self.found(check, Verdict::Failed, format!("the list cannot be read: {why}"));
                    return Err(Stop::Pointless("the list could not be read".into()));
                }
            }
            tries += 1;
        }
    }

    fn missing(&self, machines: &[Machine]) -> Vec<NodeId> {
        let there = |id: &&NodeId| machines.iter().any(|machine| machine.id == **id);
        self.others.iter().filter(|id| !there(id)).cloned().collect()
    }

    /// Looks until the list shows `node` if it `should`, or does not; gives how long that took, if it came about.
    async fn look_for(&mut self, check: Check, node: &NodeId, should: bool) -> Result<(Seen, Option<Duration>), Stop> {
        let began = Instant::now();
        loop {
            let seen = self.look(check).await?;
            if seen.ours.contains(node) == should {
                return Ok((seen, Some(began.elapsed())));
            }
            if began.elapsed() >= LAG {
                return Ok((seen, None));
            }
            tokio::time::sleep(PROBE).await;
        }
    }

    /// Destroys every throw-away node that may be there, the highest number first.
    async fn sweep(&mut self) -> (Verdict, String) {
        let mut said = Vec::new();
        let mut left = self.made.clone();
        left.sort_by_key(|node| std::cmp::Reverse(plan::ordinal(node)));
        for (node, number) in left.into_iter().zip(90..) {
            let machine = self.machine(&node).await;
            let call = self.call("destroy", number);
            if let Err(why) = self.destroy(&machine, &call).await.not_done() {
                said.push(format!("{node}: {why}"));
            }
            match self.look_for(Check::CleanUp, &node, false).await {
                Ok((_, Some(_))) => self.made.retain(|made| *made != node),
                Ok((_, None)) => said.push(format!("{node} is still listed")),
                Err(_) => {
                    let why = self.findings.pop().map_or(String::new(), |finding| finding.detail);
                    return (Verdict::Failed, why);
                }
            }
        }
        let verdict = if self.made.is_empty() { Verdict::Holds } else { Verdict::Failed };
        (verdict, said.join("; "))
    }

    /// As the list has it; where that says nothing, the name is all that is known.
    async fn machine(&self, node: &NodeId) -> Machine {
        let listed = self.provider.list().await.unwrap_or_default();
        let unlisted = || Machine { id: node.clone(), address: String::new(), zone: None, instance: None, ready: None };
        listed.into_iter().find(|machine| machine.id == *node).unwrap_or_else(unlisted)
    }
}

/// Asks again while it is under way, and no longer than `limit`.
async fn until_answered<T>(limit: Duration, ask: impl AsyncFn() -> Effect<T>) -> Said<T> {
    let began = Instant::now();
    loop {
        match tokio::time::timeout(limit + MARGIN, ask()).await {
            Err(_) => return Said::Late,
            Ok(Effect::Done(value)) => return Said::Done(value),
            Ok(Effect::NoEffect(why)) => return Said::Refused(why),
            Ok(_) if began.elapsed() >= limit => return Said::Late,
            Ok(Effect::Unknown(why)) => return Said::Unknown(why),
            Ok(Effect::InProgress) => tokio::time::sleep(PROBE).await,
        }
    }
}

fn words(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests;
