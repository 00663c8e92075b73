//! How things look in the API: an observation, a pool's status, an operation. Pure: picture and instant -> JSON.

use serde_json::{Map, Value, json};

use crate::model::{NodeSeen, Observation, Operation, PoolView, ScalingThresholds, Signal, ThresholdSource, Timestamp};

/// `ScalingMetrics`: what is not known is `null`.
pub fn metrics(seen: &Observation) -> Value {
    let value = |signal: Signal| seen.value(&signal);
    let mut custom = Map::new();
    for signal in seen.readings.keys().filter(|s| matches!(s, Signal::Custom(_))) {
        custom.insert(signal.name().into(), json!(seen.value(signal)));
    }
    json!({
        "timestamp": seen.at,
        "cpu_usage": value(Signal::Cpu),
        "memory_usage": value(Signal::Memory),
        "storage_usage": value(Signal::Storage),
        "search_latency": value(Signal::Latency),
        "query_throughput": value(Signal::Throughput),
        "error_rate": value(Signal::ErrorRate),
        "node_count": seen.node_count(),
        "healthy_nodes": seen.healthy_nodes(),
        "total_vectors": seen.total_vectors,
        "avg_vectors_per_node": seen.avg_vectors_per_node,
        "custom": custom,
        "readings": seen.readings,
    })
}

/// The whole status of a pool at `now`.
pub fn status(view: &PoolView, now: Timestamp) -> Value {
    json!({
        "headline": view.headline,
        "needs_human": view.needs_human,
        "pool": view.pool,
        "mode": view.mode,
        "stop_file": view.stop_file,
        "at": view.at,
        "metrics": view.seen.as_ref().map(metrics),
        "thresholds": view.thresholds,
        "sources": sources(view),
        "nodes": view.seen.iter().flat_map(|s| &s.nodes).map(|n| node(n, view)).collect::<Vec<_>>(),
        "conditions": view.conditions,
        "decision": view.decision,
        "operation": view.operation.as_ref().map(|o| running(o, now, view.bytes_per_second)),
        "last_operation": view.last_operation.as_ref().map(head),
        "cooldowns": view.cooldowns,
        "guards": view.guards,
        "windows": view.windows,
        "alerts": view.alerts,
        "desired_nodes": view.desired_nodes,
        "nodes_wanted": view.nodes_wanted,
        "store": view.store,
        "unexplained": view.unexplained,
    })
}

/// Per threshold where it comes from; what nobody changed is the profile's.
fn sources(view: &PoolView) -> Map<String, Value> {
    let profile =
        ThresholdSource { source: crate::model::Source::Profile, by: None, since: None, until: None, reason: None };
    ScalingThresholds::names()
        .map(|name| (name.to_string(), json!(view.sources.get(name).unwrap_or(&profile))))
        .collect()
}

fn node(node: &NodeSeen, view: &PoolView) -> Value {
    let mut shown = Map::new();
    let mut custom = Map::new();
    for signal in Signal::BUILT_IN {
        shown.insert(signal.name().into(), json!(node.values.get(&signal)));
    }
    for (signal, value) in node.values.iter().filter(|(s, _)| matches!(s, Signal::Custom(_))) {
        custom.insert(signal.name().into(), json!(value));
    }
    let rest = json!({
        "id": node.id,
        "address": node.address,
        "zone": node.zone,
        "state": node.state,
        "up": node.up,
        "healthy": node.healthy,
        "unhealthy_since": node.unhealthy_since,
        "maintenance_until": view.maintenance.get(&node.id),
        "drained_by": view.drained.get(&node.id),
        "shards": node.shards,
        "bytes": node.bytes,
        "load": node.load,
        "busy_with_data": node.busy_with_data,
        "scrape_seconds": node.scrape_seconds,
        "gaps": node.gaps,
        "custom": custom,
    });
    shown.extend(rest.as_object().cloned().unwrap_or_default());
    Value::Object(shown)
}

/// An operation in full, with its place and what is left of it; `usual` is the speed of past moves, bytes per second.
pub fn operation(operation: &Operation, now: Timestamp, usual: Option<f64>) -> Value {
    let mut shown = running(operation, now, usual);
    shown["steps"] = json!(operation.steps);
    shown
}

/// An operation without its single steps: step n of m, shards and bytes left, shards on their way, ETA, deadline.
fn running(operation: &Operation, now: Timestamp, usual: Option<f64>) -> Value {
    let mut shown = head(operation);
    if operation.state.is_final() {
        return shown;
    }
    let step = operation.current_step();
    shown["step"] = json!(step.map(|(_, step)| step.action.name()));
    shown["step_number"] = json!(step.map(|(place, _)| place));
    shown["deadline"] = json!(operation.deadline());
    shown["shards_moving"] = json!(operation.shards_moving());
    shown["eta_seconds"] = json!(operation.eta_seconds(now, usual));
    shown
}

/// An operation without its steps.
pub fn head(operation: &Operation) -> Value {
    let mut shown = json!(operation);
    shown["steps_total"] = json!(operation.steps.len());
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("steps");
    }
    shown
}
