//! Draws every gauge of pools and nodes from the pools' pictures at the moment of a scrape, so that all series of a
//! page belong to one check, a node that left is gone at once, and a signal without a value has no sample.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::families::Family;
use crate::model::{
    Guard, Kind, Mode, NodeSeen, NodeState, Observation, Operation, OperationState, PoolName, PoolView,
    ScalingThresholds, Signal, StepAction, UnexplainedKind,
};

/// The pools that are shown. Clones show the same pools.
#[derive(Clone)]
pub struct PoolCollector {
    desc: Desc,
    pools: Arc<Mutex<BTreeMap<PoolName, Arc<ArcSwap<PoolView>>>>>,
}

impl PoolCollector {
    pub fn new() -> PoolCollector {
        let desc = Desc::new("vecscale_build_info".into(), "Gauges".into(), vec![], Default::default());
        PoolCollector { desc: desc.expect("the name is valid"), pools: Arc::default() }
    }

    pub fn add(&self, pool: PoolName, view: Arc<ArcSwap<PoolView>>) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).insert(pool, view);
    }
}

impl Collector for PoolCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let views: Vec<Arc<PoolView>> = pools.values().map(|view| view.load_full()).collect();
        drop(pools);
        let mut families = vec![build_info()];
        families.extend(node_families(&views));
        families.extend(pool_families(&views));
        families.extend(reason_families(&views));
        families.extend(operation_families(&views));
        families.extend(super::windows::families(&views));
        families
    }
}

fn build_info() -> MetricFamily {
    let mut family = Family::gauge("vecscale_build_info", &["revision", "version"], "What is running; always 1.");
    let revision = option_env!("VECSCALE_REVISION").unwrap_or("unknown");
    family.sample([revision, env!("CARGO_PKG_VERSION")], 1.0);
    family.done()
}

/// A signal's value in the unit of its series: Prometheus counts latency in seconds, the API in milliseconds.
fn base_unit(signal: &Signal, value: f64) -> f64 {
    if *signal == Signal::Latency { value / 1000.0 } else { value }
}

pub(super) fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

const NODE: &[&str] = &["node", "pool"];
const POOL: &[&str] = &["pool"];

/// A column of the node table: name, help, and the value of one node.
type NodeColumn = (&'static str, &'static str, fn(&NodeSeen) -> Option<f64>);

fn node_value(node: &NodeSeen, signal: &Signal) -> Option<f64> {
    node.values.get(signal).map(|v| base_unit(signal, *v))
}

const NODE_COLUMNS: [NodeColumn; 13] = [
    ("vecscale_node_up", "Whether the node answered the last scrape.", |n| Some(flag(n.up))),
    ("vecscale_node_healthy", "Whether the node counts as healthy.", |n| Some(flag(n.healthy))),
    ("vecscale_node_cpu_usage_ratio", "Share of CPU in use, 0 to 1.", |n| node_value(n, &Signal::Cpu)),
    ("vecscale_node_memory_usage_ratio", "Share of memory in use, 0 to 1.", |n| node_value(n, &Signal::Memory)),
    ("vecscale_node_storage_usage_ratio", "Share of disk in use, 0 to 1.", |n| node_value(n, &Signal::Storage)),
    ("vecscale_node_search_latency_seconds", "Search latency in seconds.", |n| node_value(n, &Signal::Latency)),
    ("vecscale_node_queries_per_second", "Searches answered per second.", |n| node_value(n, &Signal::Throughput)),
    ("vecscale_node_error_ratio", "Share of requests that failed, 0 to 1.", |n| node_value(n, &Signal::ErrorRate)),
    ("vecscale_node_vectors", "Vectors on the node, replicas counted.", |n| node_value(n, &Signal::Vectors)),
    ("vecscale_node_shards", "Copies of shards on the node.", |n| n.shards.map(f64::from)),
    ("vecscale_node_bytes", "Bytes of shards on the node.", |n| n.bytes.map(|b| b as f64)),
    ("vecscale_node_load_ratio", "Highest usage relative to its high line; above 1 is over the line.", |n| n.load),
    ("vecscale_node_scrape_duration_seconds", "Time the last scrape took, in seconds.", |n| Some(n.scrape_seconds)),
];

fn node_families(views: &[Arc<PoolView>]) -> impl Iterator<Item = MetricFamily> {
    NODE_COLUMNS.iter().map(move |(name, help, value)| {
        let mut family = Family::gauge(name, NODE, help);
        for view in views {
            for node in view.seen.iter().flat_map(|seen| &seen.nodes) {
                family.sample([node.id.as_str(), &*view.pool], value(node));
            }
        }
        family.done()
    })
}

/// One number per pool: name, help, value.
type PoolColumn = (&'static str, &'static str, fn(&PoolView) -> Option<f64>);

fn reading(view: &PoolView, signal: Signal) -> Option<f64> {
    view.seen.as_ref()?.value(&signal).map(|v| base_unit(&signal, v))
}

/// A number of the operation that runs just now.
fn running(view: &PoolView, value: fn(&Operation) -> Option<f64>) -> Option<f64> {
    view.operation.as_ref().and_then(value)
}

const POOL_COLUMNS: [PoolColumn; 25] = [
    ("vecscale_cpu_usage_ratio", "Share of CPU in use over the pool, 0 to 1.", |v| reading(v, Signal::Cpu)),
    ("vecscale_memory_usage_ratio", "Share of memory in use over the pool, 0 to 1.", |v| reading(v, Signal::Memory)),
    ("vecscale_storage_usage_ratio", "Share of disk in use over the pool, 0 to 1.", |v| reading(v, Signal::Storage)),
    ("vecscale_search_latency_seconds", "Search latency in seconds, weighted by requests.", |v| {
        reading(v, Signal::Latency)
    }),
    ("vecscale_queries_per_second", "Searches per second, all nodes.", |v| reading(v, Signal::Throughput)),
    ("vecscale_error_ratio", "Share of requests that failed, 0 to 1.", |v| reading(v, Signal::ErrorRate)),
    ("vecscale_vectors", "Vectors, each counted once where the datastore tells.", |v| {
        v.seen.as_ref()?.total_vectors.map(|n| n as f64)
    }),
    ("vecscale_desired_nodes", "Node count aimed at.", |v| Some(f64::from(v.desired_nodes))),
    ("vecscale_nodes_wanted", "Nodes that a person should add.", |v| Some(f64::from(v.nodes_wanted))),
    ("vecscale_min_nodes", "Fewest nodes allowed.", |v| Some(f64::from(v.thresholds.min_nodes))),
    ("vecscale_max_nodes", "Most nodes allowed.", |v| Some(f64::from(v.thresholds.max_nodes))),
    ("vecscale_last_observation_timestamp_seconds", "When the pool was last observed; gauges are as of then.", |v| {
        v.seen.as_ref().map(|seen| seen.at.seconds())
    }),
    ("vecscale_last_decision_timestamp_seconds", "When the last decision was made, hold included.", |v| {
        v.decision.as_ref().map(|d| d.at.seconds())
    }),
    ("vecscale_shard_replicas_missing", "Copies of shards that are wanted and not there.", |v| {
        v.store.replicas_missing.map(|n| n as f64)
    }),
    ("vecscale_shards_sole_copy", "Shards with a single copy.", |v| v.store.shards_sole_copy.map(|n| n as f64)),
    ("vecscale_shard_moves_running", "Shards in transfer now.", |v| Some(v.store.moves_running as f64)),
    ("vecscale_needs_human", "Things that a person must look at; the status names them.", |v| {
        Some(v.needs_human.len() as f64)
    }),
    ("vecscale_avg_vectors_per_node", "Mean vectors per node, replicas counted.", |v| {
        v.seen.as_ref()?.avg_vectors_per_node
    }),
    ("vecscale_operation_started_timestamp_seconds", "Start of the running operation.", |v| {
        running(v, |o| Some(o.started_at.seconds()))
    }),
    ("vecscale_operation_last_progress_timestamp_seconds", "When the running operation last came on.", |v| {
        running(v, |o| Some(o.last_progress_at.seconds()))
    }),
    ("vecscale_operation_deadline_timestamp_seconds", "When the running operation's step must be done.", |v| {
        running(v, |o| o.deadline().map(|at| at.seconds()))
    }),
    (
        "vecscale_operation_blocked",
        "Whether the running operation waits for a person to say how a step came out.",
        |v| Some(flag(v.operation.as_ref().is_some_and(|o| o.state == OperationState::Blocked))),
    ),
    ("vecscale_operation_bytes", "Bytes that the running operation moves in all.", |v| {
        running(v, |o| Some(o.bytes_total as f64))
    }),
    ("vecscale_operation_bytes_remaining", "Bytes that the running operation has yet to move.", |v| {
        running(v, |o| Some(o.bytes_left as f64))
    }),
    ("vecscale_stop_file", "Whether a file named STOP in the storage path forbids everything.", |v| {
        Some(flag(v.stop_file))
    }),
];

fn pool_families(views: &[Arc<PoolView>]) -> Vec<MetricFamily> {
    let columns = POOL_COLUMNS.iter().map(|(name, help, value)| {
        let mut family = Family::gauge(name, POOL, help);
        for view in views {
            family.sample([&*view.pool], value(view));
        }
        family.done()
    });
    let mut nodes = Family::gauge("vecscale_nodes", &["pool", "state"], "Nodes by state.");
    let mut unexplained =
        Family::gauge("vecscale_unexplained", &["kind", "pool"], "Machines and members that nothing explains.");
    let mut fresh = Family::gauge(
        "vecscale_signal_fresh",
        &["pool", "signal"],
        "1 while the reading is fresh or idle, 0 while it is partial or missing.",
    );
    let mut values =
        Family::gauge("vecscale_signal_value", &["pool", "signal"], "The pool's fresh readings, latency in seconds.");
    for view in views {
        let pool = &*view.pool;
        for state in NodeState::ALL {
            let count = |seen: &Observation| seen.nodes.iter().filter(|n| n.state == state).count();
            nodes.sample([pool, state.as_str()], view.seen.as_ref().map_or(0, count) as f64);
        }
        for kind in UnexplainedKind::ALL {
            let count = view.unexplained.iter().filter(|u| u.kind == kind).count();
            unexplained.sample([kind.as_str(), pool], count as f64);
        }
        for (signal, reading) in view.seen.iter().flat_map(|seen| &seen.readings) {
            fresh.sample([pool, signal.name()], flag(reading.is_settled()));
            values.sample([pool, signal.name()], reading.fresh().map(|v| base_unit(signal, v)));
        }
    }
    columns.chain([nodes.done(), unexplained.done(), fresh.done(), values.done()]).collect()
}

/// The lines of the built-in signals: the label of the series they are drawn beside, low and high.
const LINES: [(&str, Signal, &str, &str); 5] = [
    ("cpu_usage", Signal::Cpu, "cpu_threshold_low", "cpu_threshold_high"),
    ("memory_usage", Signal::Memory, "memory_threshold_low", "memory_threshold_high"),
    ("storage_usage", Signal::Storage, "storage_threshold_low", "storage_threshold_high"),
    ("search_latency", Signal::Latency, "latency_threshold_low", "latency_threshold_high"),
    ("error_rate", Signal::ErrorRate, "error_rate_threshold_low", "error_rate_threshold_high"),
];

fn reason_families(views: &[Arc<PoolView>]) -> Vec<MetricFamily> {
    let mut threshold = Family::gauge(
        "vecscale_threshold",
        &["bound", "pool", "signal"],
        "The lines, in the unit of the signal's series (latency in seconds).",
    );
    let condition = &["condition", "pool"];
    let mut streak = Family::gauge("vecscale_condition_streak", condition, "Checks in a row that the condition holds.");
    let mut required = Family::gauge("vecscale_condition_streak_required", condition, "Checks in a row it needs.");
    let mut active = Family::gauge("vecscale_condition_active", condition, "Whether the streak has reached its need.");
    let mut guards = Family::gauge("vecscale_guard_active", &["guard", "pool"], "Whether the guard holds now.");
    let mut cooldown = Family::gauge(
        "vecscale_cooldown_remaining_seconds",
        &["direction", "pool"],
        "Cooldown left as of the last check, in seconds; 0 when free.",
    );
    let mut mode = Family::gauge("vecscale_mode", &["mode", "pool"], "1 for the mode the pool is in.");
    let mut alerts =
        Family::gauge("vecscale_alert_firing", &["alert", "pool"], "Whether an alert of this entry fires.");
    let mut overrides =
        Family::gauge("vecscale_override_active", &["name", "pool"], "Whether a person overrides this threshold.");
    for view in views {
        let pool = &*view.pool;
        for (label, signal, low, high) in &LINES {
            for (bound, name) in [("low", low), ("high", high)] {
                let line = view.thresholds.get(name).map(|v| base_unit(signal, v));
                threshold.sample([bound, pool, label], line);
            }
        }
        let most = view.thresholds.max_vectors_per_node as f64;
        threshold.sample(["high", pool, "avg_vectors_per_node"], (most > 0.0).then_some(most));
        for (bound, signal, line) in custom_lines(view) {
            threshold.sample([bound, pool, signal], line);
        }
        for c in &view.conditions {
            streak.sample([&c.name, pool], f64::from(c.streak));
            required.sample([&c.name, pool], f64::from(c.needed));
            active.sample([&c.name, pool], flag(c.active));
        }
        for guard in Guard::ALL {
            guards.sample([guard.as_str(), pool], flag(view.guards.iter().any(|g| g.name == guard)));
        }
        cooldown.sample(["scale_down", pool], view.cooldowns.scale_down.as_secs_f64());
        cooldown.sample(["scale_up", pool], view.cooldowns.scale_up.as_secs_f64());
        for one in Mode::ALL {
            mode.sample([one.as_str(), pool], flag(view.mode == one));
        }
        for name in ScalingThresholds::names() {
            overrides.sample([name, pool], flag(view.overridden.contains(name)));
        }
        for entry in &view.alerts {
            alerts.sample([&entry.name, pool], flag(entry.firing > 0));
        }
    }
    [threshold, streak, required, active, guards, cooldown, mode, alerts, overrides].map(Family::done).into()
}

/// The lines of custom signals, as their conditions `<name>_high` and `<name>_low` show them.
fn custom_lines(view: &PoolView) -> impl Iterator<Item = (&'static str, &str, f64)> {
    let readings = view.seen.iter().flat_map(|seen| seen.readings.keys());
    readings.filter(|s| matches!(s, Signal::Custom(_))).flat_map(|signal| {
        ["low", "high"].into_iter().filter_map(|bound| {
            let matches = |name: &str| {
                name.strip_suffix(bound).and_then(|n| n.strip_suffix('_')).is_some_and(|n| n == signal.name())
            };
            let condition = view.conditions.iter().find(|c| matches(&c.name))?;
            Some((bound, signal.name(), condition.line))
        })
    })
}

fn operation_families(views: &[Arc<PoolView>]) -> [MetricFamily; 1] {
    let mut family = Family::gauge(
        "vecscale_operation_running",
        &["kind", "pool", "step"],
        "1 for the step that the running operation is at.",
    );
    for view in views {
        let now = view.operation.as_ref().map(|o| (o.kind, o.current_step().map(|(_, step)| step.action.name())));
        for kind in Kind::ALL {
            for step in StepAction::NAMES {
                family.sample([kind.as_str(), &*view.pool, step], flag(now == Some((kind, Some(step)))));
            }
        }
    }
    [family.done()]
}
