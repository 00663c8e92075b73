//! One method per event: exactly one log line, and the event's metrics. Labels come from enums and checked names;
//! error texts go to the log only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Registry, TextEncoder};
use tracing::{debug, error, info, warn};

use super::collector::PoolCollector;
use super::counters::{Counters, NO_TRIGGER};
use super::process::ProcessCollector;
use crate::model::{
    Action, Answer, Decision, Gap, Kind, NodeSample, Operation, OperationId, OperationState, Order, PoolName, PoolView,
    Rejection, Step, StepState, Timestamp,
};
use crate::record::JournalError;

/// What the program tells of itself. Cheap to clone; all clones share one registry.
#[derive(Clone)]
pub struct Telemetry(Arc<Shared>);

struct Shared {
    registry: Registry,
    counters: Counters,
    pools: PoolCollector,
    /// What was last decided per pool, to tell a new decision from a repeated one.
    last_decided: Mutex<BTreeMap<PoolName, Decided>>,
    /// Which nodes did not answer well at the last look, in words.
    last_scraped: Mutex<BTreeMap<PoolName, String>>,
    /// What was to be known of the queries at the last look.
    last_queried: Mutex<BTreeMap<PoolName, String>>,
}

/// What makes a decision another one: what is done, and what holds it back.
#[derive(PartialEq)]
struct Decided {
    action: Action,
    wanted: Option<Kind>,
    guards: Vec<&'static str>,
}

impl Telemetry {
    /// `started`: when the program started.
    pub fn new(started: Timestamp) -> Telemetry {
        let registry = Registry::new();
        let counters = Counters::new(&registry);
        let pools = PoolCollector::new();
        registry.register(Box::new(pools.clone())).expect("registered once");
        registry.register(Box::new(ProcessCollector::new(started))).expect("registered once");
        Telemetry(Arc::new(Shared {
            registry,
            counters,
            pools,
            last_decided: Mutex::default(),
            last_scraped: Mutex::default(),
            last_queried: Mutex::default(),
        }))
    }

    /// Shows a pool from now on: its counters at 0, its gauges as its picture has them at each scrape.
    pub fn register_pool(&self, pool: &PoolName, view: Arc<ArcSwap<PoolView>>) {
        debug!(%pool, "pool registered");
        self.0.counters.expect_pool(pool);
        self.0.pools.add(pool.clone(), view);
    }

    /// A route that is served: its series begin at 0.
    pub fn register_path(&self, path: &'static str) {
        self.0.counters.expect_path(path);
    }

    /// The page of all series, to be sent as [`super::CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let families = self.0.registry.gather();
        let mut page = String::with_capacity(64 * 1024);
        TextEncoder::new().encode_utf8(&families, &mut page).expect("no family is empty and a String takes all");
        page
    }

    /// A check came to a decision. At info when it acts or differs from the one before, else at debug.
    pub fn decided(&self, pool: &PoolName, decision: &Decision) {
        let counters = &self.0.counters;
        let (name, mode) = (decision.action.name(), decision.mode.as_str());
        let trigger = decision.trigger.map_or(NO_TRIGGER, |t| t.as_str());
        counters.decisions.with_label_values(&[pool, name, trigger, mode]).inc();
        let held_back = decision.action == Action::Hold && decision.wanted.is_some();
        let guards: Vec<&'static str> = decision.guards.iter().map(|g| g.name.as_str()).collect();
        for guard in guards.iter().filter(|_| held_back) {
            counters.decisions_blocked.with_label_values(&[&**pool, guard]).inc();
        }
        let because = decision.because.join("; ");
        let id = decision.id;
        let held_by = guards.join(",");
        if self.is_news(pool, decision, guards) {
            info!(%pool, id, decision = name, trigger, mode, because, held_by, would_change = decision.would_change, "decided");
        } else {
            debug!(%pool, id, decision = name, trigger, mode, because, held_by, would_change = decision.would_change, "decided");
        }
    }

    fn is_news(&self, pool: &PoolName, decision: &Decision, guards: Vec<&'static str>) -> bool {
        let decided = Decided { action: decision.action.clone(), wanted: decision.wanted, guards };
        let mut last = lock(&self.0.last_decided);
        let same = last.get(pool).is_some_and(|before| *before == decided);
        let acts = decided.action != Action::Hold;
        last.insert(pool.clone(), decided);
        acts || !same
    }

    pub fn operation_began(&self, operation: &Operation) {
        let nodes = names(operation);
        info!(pool = %operation.pool, operation = %operation.id, kind = operation.kind.as_str(), nodes, who = operation.who,
            because = operation.because.join("; "), "operation began");
    }

    /// A step moved on. Steps that failed or whose outcome is unknown are warnings.
    pub fn step_changed(&self, operation: &Operation, step: &Step) {
        let state = format!("{:?}", step.state).to_lowercase();
        let (pool, id, name) = (&operation.pool, &operation.id, step.action.name());
        match &step.error {
            Some(why) if matches!(step.state, StepState::Failed | StepState::Unknown) => {
                warn!(%pool, operation = %id, step = name, key = step.key, state, attempts = step.attempts, why, "step changed");
            }
            _ => {
                info!(%pool, operation = %id, step = name, key = step.key, state, attempts = step.attempts, "step changed")
            }
        }
    }

    /// An operation ended. `triggered_at`: the check at which what led to it first showed.
    pub fn operation_ended(&self, operation: &Operation, triggered_at: Timestamp) {
        let counters = &self.0.counters;
        let (pool, kind) = (&operation.pool, operation.kind.as_str());
        let ended = operation.ended_at.unwrap_or(operation.updated_at);
        let took = ended.since(operation.started_at).as_secs_f64();
        counters.operations.with_label_values(&[pool, kind, operation.state.as_str()]).inc();
        counters.operation_duration.with_label_values(&[pool, kind]).observe(took);
        if operation.state == OperationState::Succeeded {
            let waited = ended.since(triggered_at).as_secs_f64();
            counters.trigger_to_completion.with_label_values(&[pool, kind]).observe(waited);
        }
        self.show_end(operation);
        let (nodes, outcome, detail) = (names(operation), operation.state.as_str(), &operation.detail);
        let id = &operation.id;
        if operation.state == OperationState::Succeeded {
            info!(%pool, operation = %id, kind, nodes, outcome, seconds = took, detail, "operation ended");
        } else {
            warn!(%pool, operation = %id, kind, nodes, outcome, seconds = took, detail, "operation ended");
        }
    }

    /// An operation that ended before this start: only its time is shown again.
    pub fn operation_remembered(&self, operation: &Operation) {
        self.show_end(operation);
        debug!(pool = %operation.pool, operation = %operation.id, "operation remembered");
    }

    fn show_end(&self, operation: &Operation) {
        let ended = operation.ended_at.unwrap_or(operation.updated_at).seconds();
        let gauge = self.0.counters.last_operation.with_label_values(&[&*operation.pool, operation.kind.as_str()]);
        gauge.set(gauge.get().max(ended));
    }

    /// Someone gave an order about an operation, and it was taken.
    pub fn operation_ordered(&self, pool: &PoolName, operation: &OperationId, order: &Order) {
        let (what, reason) = (format!("{:?}", order.what).to_lowercase(), order.reason.as_deref().unwrap_or_default());
        info!(%pool, %operation, order = what, who = order.who, reason, "operation ordered");
    }

    /// An operation waits for a person.
    pub fn operation_blocked(&self, operation: &Operation) {
        warn!(pool = %operation.pool, operation = %operation.id, kind = operation.kind.as_str(), detail = operation.detail,
            "operation blocked: a person must look");
    }

    /// One shard was moved to its new node.
    pub fn moved(&self, pool: &PoolName, shards: u64, bytes: u64) {
        self.0.counters.shards_moved.with_label_values(&[&**pool]).inc_by(shards);
        self.0.counters.bytes_moved.with_label_values(&[&**pool]).inc_by(bytes);
        info!(%pool, shards, bytes, "shards moved");
    }

    /// An operation soon took back the one before.
    pub fn reversal(&self, pool: &PoolName) {
        self.0.counters.reversals.with_label_values(&[&**pool]).inc();
        warn!(%pool, "an operation took back the one before; the lines may be too close to each other");
    }

    /// All nodes of a pool were looked at. A line above debug only when other nodes than before do not answer well.
    pub fn scraped(&self, pool: &PoolName, samples: &[NodeSample]) {
        let mut bad = Vec::new();
        for sample in samples {
            let outcome = scrape_outcome(sample);
            self.0.counters.scrapes.with_label_values(&[&**pool, outcome]).inc();
            if outcome != "ok" {
                bad.push(format!("{} {outcome}", sample.node));
            }
        }
        let (nodes, bad) = (samples.len(), bad.join(", "));
        let before = lock(&self.0.last_scraped).insert(pool.clone(), bad.clone()).unwrap_or_default();
        match (bad == before, bad.is_empty()) {
            (true, _) => debug!(%pool, nodes, bad, "scraped"),
            (false, false) => warn!(%pool, nodes, bad, "some nodes did not answer well"),
            (false, true) => info!(%pool, nodes, "all nodes answer well again"),
        }
    }

    /// A Prometheus server was asked. A line above debug only when there is other news of the queries than before.
    pub fn queried(&self, pool: &PoolName, notes: &[String]) {
        let notes = notes.join("; ");
        let before = lock(&self.0.last_queried).insert(pool.clone(), notes.clone()).unwrap_or_default();
        match (notes == before, notes.is_empty()) {
            (true, _) => debug!(%pool, notes, "queried"),
            (false, false) => warn!(%pool, notes, "queries to Prometheus: not all is well"),
            (false, true) => info!(%pool, "queries to Prometheus: all is well again"),
        }
    }

    /// One whole check took this long.
    pub fn evaluated(&self, pool: &PoolName, took: Duration) {
        self.0.counters.evaluation_duration.with_label_values(&[&**pool]).observe(took.as_secs_f64());
        debug!(%pool, seconds = took.as_secs_f64(), "evaluated");
    }

    /// A check did not run because the one before still did.
    pub fn evaluation_missed(&self, pool: &PoolName) {
        self.0.counters.evaluations_missed.with_label_values(&[&**pool]).inc();
        warn!(%pool, "a check was missed: the one before took longer than health_check_interval");
    }

    /// A notification of Alertmanager's was taken: how many of its alerts fire, are resolved, belong to no pool, and were
    /// left out.
    pub fn alerts_received(&self, receiver: &str, [firing, resolved, unmatched, truncated]: [u64; 4], now: Timestamp) {
        let counters = &self.0.counters;
        counters.alerts_received.with_label_values(&["firing"]).inc_by(firing);
        counters.alerts_received.with_label_values(&["resolved"]).inc_by(resolved);
        counters.alerts_unmatched.inc_by(unmatched);
        counters.alerts_truncated.inc_by(truncated);
        counters.alertmanager_heard_at.set(now.seconds());
        if truncated > 0 {
            warn!(
                receiver,
                firing,
                resolved,
                unmatched,
                truncated,
                "notification of a list that is not whole: nothing is known of the alerts left out; raise max_alerts"
            );
        } else {
            debug!(receiver, firing, resolved, unmatched, "notification received");
        }
    }

    /// A notification was not taken.
    pub fn alerts_rejected(&self, reason: Rejection, why: &str) {
        self.0.counters.alerts_rejected.with_label_values(&[reason.as_str()]).inc();
        warn!(reason = reason.as_str(), why, "notification rejected");
    }

    /// More alerts of an entry are told of than are kept.
    pub fn alerts_dropped(&self, pool: &PoolName, dropped: u64) {
        self.0.counters.alerts_dropped.with_label_values(&[pool]).inc_by(dropped);
        warn!(%pool, dropped, "too many alerts of one entry: further ones are passed over; its matchers may be too wide");
    }

    /// Alerts of a pool began to fire, were resolved or expired.
    pub fn alerts_changed(&self, pool: &PoolName, summary: &str) {
        info!(%pool, summary, "alerts changed");
    }

    /// A person changed mode, thresholds, maintenance …
    pub fn setting_changed(&self, pool: &PoolName, who: &str, summary: &str) {
        info!(%pool, who, summary, "setting changed");
    }

    /// The journal refused a read or write.
    pub fn journal_error(&self, why: &JournalError) {
        self.0.counters.journal_errors.inc();
        error!(%why, "journal error");
    }

    /// A configuration was taken, or refused with this text.
    pub fn config_reloaded(&self, outcome: Result<(), &str>, now: Timestamp) {
        let counters = &self.0.counters;
        counters.config_successful.set(if outcome.is_ok() { 1.0 } else { 0.0 });
        match outcome {
            Ok(()) => {
                counters.config_success_at.set(now.seconds());
                counters.web_config_successful.set(1.0); // their files are read with it
                info!("configuration taken");
            }
            Err(why) => error!(why, "configuration refused; the running one stays"),
        }
    }

    /// The files of `--web.config.file` and of the tokens changed.
    pub fn web_config_reloaded(&self, outcome: Result<(), &str>) {
        self.0.counters.web_config_successful.set(if outcome.is_ok() { 1.0 } else { 0.0 });
        match outcome {
            Ok(()) => info!("TLS and credentials taken anew"),
            Err(why) => error!(why, "TLS and credentials not taken; what was in force stays"),
        }
    }

    /// The file of a token can be read by everybody on this machine.
    pub fn token_exposed(&self, file: &Path) {
        let file = file.display();
        warn!(%file, "everybody on this machine can read a token: chmod o-r would hide it");
    }

    /// A request was answered. `path` is the route's template, never the path that was asked for.
    pub fn http_served(&self, path: &'static str, code: u16, took: Duration) {
        let counters = &self.0.counters;
        counters.http_requests.with_label_values(&[path, code.to_string().as_str()]).inc();
        counters.http_duration.with_label_values(&[path]).observe(took.as_secs_f64());
        let seconds = took.as_secs_f64();
        if code >= 500 && code != 503 {
            warn!(path, code, seconds, "request failed");
        } else {
            debug!(path, code, seconds, "request answered");
        }
    }

    /// A handler panicked; the request was answered with 500.
    pub fn http_panicked(&self, path: &'static str, why: &str) {
        error!(path, why, "a request handler panicked: this is a fault of vecscale, please report it");
    }

    /// Someone brought a credential that is not known; what it was stays unsaid.
    pub fn credential_refused(&self, path: &'static str, from: Option<SocketAddr>) {
        info!(path, from = from.map(tracing::field::display), "a credential was refused");
    }

    pub fn listening(&self, what: &'static str, address: SocketAddr, tls: bool) {
        info!(what, %address, tls, "listening");
    }

    /// Callers are asked who they are, over plain HTTP, from other machines.
    pub fn credentials_in_the_clear(&self, address: SocketAddr) {
        warn!(%address, "credentials cross the network in the clear; tls_server_config in --web.config.file would hide them");
    }

    /// The program's start, stop and the like.
    pub fn program(&self, what: &str) {
        info!("{what}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn names(operation: &Operation) -> String {
    operation.nodes.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(",")
}

fn scrape_outcome(sample: &NodeSample) -> &'static str {
    let unreadable = || sample.signals.values().any(|s| matches!(s, Err(Gap::Unreadable(_))));
    match sample.answer {
        Answer::None => "no_answer",
        Answer::Ill => "ill",
        Answer::Up if unreadable() => "unreadable",
        Answer::Up => "ok",
        Answer::Unknown => "unknown",
    }
}
