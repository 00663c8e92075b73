//! The KPIs: how often, how fast, how well and at what cost the pool was changed, and how its lines did. Pure: kept
//! operations, decisions and 5-minute means -> JSON. What cannot be known is `null`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::model::{Condition, Decision, Kind, Operation, OperationState, ScalingThresholds, Timestamp};

/// Before and after an operation so much time is compared.
pub const COMPARED: Duration = Duration::from_secs(3600);
/// Width of a kept mean.
const ROLLUP: Duration = Duration::from_secs(300);
const DAY_SECS: f64 = 86_400.0;
/// What tells the means of custom signals from the others.
const CUSTOM: &str = "custom/";

/// All that the KPIs are computed from.
pub struct Facts<'a> {
    pub since: Timestamp,
    pub now: Timestamp,
    /// Started since then; in any order.
    pub operations: &'a [Operation],
    /// By id, as many as are at hand.
    pub decisions: &'a BTreeMap<u64, Decision>,
    /// Oldest first, from [`COMPARED`] before `since` on.
    pub rollups: &'a [Rollup],
    pub thresholds: &'a ScalingThresholds,
    /// As of the last decision: among them are those on custom signals, with their lines.
    pub conditions: &'a [Condition],
}

/// The means of five minutes, by name; what was not known is absent. Names of custom signals begin with [`CUSTOM`].
pub struct Rollup {
    at: Timestamp,
    means: BTreeMap<String, f64>,
}

impl Rollup {
    /// Reads a row of the journal, `{timestamp, cpu_usage: {mean, max} | null, …, custom: {…}}`; `None` if it has no time.
    pub fn read(row: &Value) -> Option<Rollup> {
        let at = Timestamp::parse(row.get("timestamp")?.as_str()?)?;
        let mean = |(name, cell): (String, &Value)| Some((name, cell.get("mean")?.as_f64()?));
        let custom = row.get("custom").and_then(Value::as_object).into_iter().flatten();
        let custom = custom.map(|(name, cell)| (format!("{CUSTOM}{name}"), cell));
        let all = row.as_object()?.iter().map(|(name, cell)| (name.clone(), cell)).chain(custom);
        Some(Rollup { at, means: all.filter_map(mean).collect() })
    }
}

pub fn analytics(facts: &Facts) -> Value {
    let mut operations: Vec<&Operation> = facts.operations.iter().collect();
    operations.sort_by_key(|o| o.started_at);
    let by_kind: Map<String, Value> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let of_kind: Vec<&Operation> = operations.iter().copied().filter(|o| o.kind == kind).collect();
            (kind.as_str().to_string(), summary(&of_kind, facts))
        })
        .collect();
    let reversals = reversals(&operations);
    json!({
        "since": facts.since,
        "until": facts.now,
        "days": days(facts),
        "operations": summary(&operations, facts),
        "by_kind": by_kind,
        "reversals": reversals,
        "lead_time_seconds": spread(operations.iter().filter_map(|o| Some(o.lead_time()?.as_secs_f64())).collect()),
        "lead_times": operations
            .iter()
            .filter_map(|o| Some(json!({"operation": o.id, "seconds": o.lead_time()?.as_secs_f64()})))
            .collect::<Vec<_>>(),
        "cost": operations.iter().filter(|o| o.ended_at.is_some()).map(|o| cost(o, facts)).collect::<Vec<_>>(),
        "thresholds": lines(facts).map(|line| (line.name.to_string(), line.report(facts, reversals))).collect::<Map<_, _>>(),
    })
}

/// How long the pool was known within the window, in days, at least one: the rate of a first hour is no rate per day.
fn days(facts: &Facts) -> f64 {
    let known = facts.rollups.iter().map(|r| r.at).chain(facts.operations.iter().map(|o| o.started_at)).min();
    let from = known.unwrap_or(facts.now).max(facts.since);
    (facts.now.since(from).as_secs_f64() / DAY_SECS).max(1.0)
}

fn summary(operations: &[&Operation], facts: &Facts) -> Value {
    let ended: Vec<&Operation> = operations.iter().copied().filter(|o| o.state.is_final()).collect();
    let of = |state| ended.iter().filter(|o| o.state == state).count();
    let succeeded = of(OperationState::Succeeded);
    let outcomes: Map<String, Value> =
        OperationState::OUTCOMES.into_iter().map(|s| (s.as_str().to_string(), json!(of(s)))).collect();
    json!({
        "count": operations.len(),
        "per_day": operations.len() as f64 / days(facts),
        "outcomes": outcomes,
        "success_rate": (!ended.is_empty()).then(|| succeeded as f64 / ended.len() as f64),
        "response_seconds": spread(ended.iter().filter_map(|o| response(o, facts)).collect()),
    })
}

/// From the trigger to the end of an operation that succeeded.
fn response(operation: &Operation, facts: &Facts) -> Option<f64> {
    if operation.state != OperationState::Succeeded {
        return None;
    }
    let interval = Duration::try_from_secs_f64(facts.thresholds.health_check_interval).unwrap_or_default();
    let triggered = decision_of(operation, facts).map_or(operation.started_at, |d| d.triggered_at(interval));
    Some(operation.ended_at?.since(triggered).as_secs_f64())
}

fn decision_of<'a>(operation: &Operation, facts: &'a Facts) -> Option<&'a Decision> {
    facts.decisions.get(&operation.decision?)
}

/// Median and 95th percentile (nearest rank) of some numbers.
fn spread(mut numbers: Vec<f64>) -> Value {
    numbers.sort_by(f64::total_cmp);
    let rank = |share: f64| numbers.get(((numbers.len() as f64 * share).ceil() as usize).saturating_sub(1));
    json!({"count": numbers.len(), "p50": rank(0.50), "p95": rank(0.95)})
}

/// Ups soon after downs, and the other way round; `operations` by start.
fn reversals(operations: &[&Operation]) -> usize {
    let changes: Vec<&Operation> = operations.iter().copied().filter(|o| o.has_scaled()).collect();
    changes.windows(2).filter(|pair| pair[1].reverses(pair[0])).count()
}

/// Utilisation and node-hours of the hour before an operation and of the hour after.
fn cost(operation: &Operation, facts: &Facts) -> Value {
    let ended = operation.ended_at.unwrap_or(operation.updated_at);
    let started = operation.started_at;
    json!({
        "operation": operation.id,
        "kind": operation.kind,
        "before": stretch(facts, started.minus(COMPARED), started),
        "after": stretch(facts, ended, ended.plus(COMPARED)),
    })
}

/// Means over the whole five-minute pieces that lie in a stretch of time, and the node-hours that they make.
fn stretch(facts: &Facts, from: Timestamp, to: Timestamp) -> Value {
    let inside: Vec<&Rollup> = facts.rollups.iter().filter(|r| r.at >= from && r.at.plus(ROLLUP) <= to).collect();
    let mean = |name: &str| {
        let values: Vec<f64> = inside.iter().filter_map(|r| r.means.get(name).copied()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let hours =
        inside.iter().filter(|r| r.means.contains_key("node_count")).count() as f64 * ROLLUP.as_secs_f64() / 3600.0;
    json!({
        "hours": hours,
        "node_hours": mean("node_count").map(|nodes| nodes * hours),
        "cpu_usage": mean("cpu_usage"),
        "memory_usage": mean("memory_usage"),
        "storage_usage": mean("storage_usage"),
    })
}

/// A line, the condition that watches it, and the mean it is held against.
struct Line<'a> {
    /// The threshold's, or of a custom line the condition's.
    name: &'a str,
    condition: &'a str,
    signal: String,
    at: f64,
    high: bool,
}

/// Thresholds with their conditions and signals.
const THRESHOLDS: [(&str, &str, &str); 11] = [
    ("cpu_threshold_high", "cpu_high", "cpu_usage"),
    ("cpu_threshold_low", "cpu_low", "cpu_usage"),
    ("memory_threshold_high", "memory_high", "memory_usage"),
    ("memory_threshold_low", "memory_low", "memory_usage"),
    ("storage_threshold_high", "storage_high", "storage_usage"),
    ("storage_threshold_low", "storage_low", "storage_usage"),
    ("latency_threshold_high", "latency_high", "search_latency"),
    ("latency_threshold_low", "latency_low", "search_latency"),
    ("error_rate_threshold_high", "error_rate_high", "error_rate"),
    ("error_rate_threshold_low", "error_rate_low", "error_rate"),
    ("max_vectors_per_node", "capacity", "avg_vectors_per_node"),
];

/// Every line: those of the thresholds (0 vectors a node switches that one off), and those of custom signals.
fn lines<'a>(facts: &Facts<'a>) -> impl Iterator<Item = Line<'a>> {
    let (thresholds, conditions) = (facts.thresholds, facts.conditions);
    let built_in = THRESHOLDS.iter().filter_map(move |(name, condition, signal)| {
        let at = thresholds.get(name).filter(|at| *at > 0.0 || *condition != "capacity")?;
        Some(Line { name, condition, signal: signal.to_string(), at, high: !name.ends_with("_low") })
    });
    let is_built_in = |name: &str| name == "storage_projected" || THRESHOLDS.iter().any(|(_, known, _)| *known == name);
    let custom = conditions.iter().filter(move |c| !is_built_in(&c.name)).filter_map(|c| {
        let high = c.name.ends_with("_high");
        let signal = c.name.strip_suffix("_high").or_else(|| c.name.strip_suffix("_low"))?;
        Some(Line { name: &c.name, condition: &c.name, signal: format!("{CUSTOM}{signal}"), at: c.line, high })
    });
    built_in.chain(custom)
}

impl Line<'_> {
    fn report(&self, facts: &Facts, reversals: usize) -> Value {
        let at = self.at;
        let means: Vec<(Timestamp, f64)> = facts
            .rollups
            .iter()
            .filter(|r| r.at >= facts.since)
            .filter_map(|r| Some((r.at, *r.means.get(&self.signal)?)))
            .collect();
        let fired: Vec<&Operation> = facts.operations.iter().filter(|o| self.fired(o, facts)).collect();
        let beyond = means.iter().filter(|(_, mean)| self.is_beyond(*mean)).count();
        let within = means.iter().map(|(_, mean)| *mean).filter(|mean| !self.is_beyond(*mean));
        let nearest = if self.high { within.reduce(f64::max) } else { within.reduce(f64::min) };
        let recoveries = fired.iter().filter_map(|o| self.recovery(o, &means)).collect();
        json!({
            "line": at,
            "fired": fired.len(),
            "exceeded_seconds": (!means.is_empty()).then(|| beyond as f64 * ROLLUP.as_secs_f64()),
            "recovery_seconds": spread(recoveries),
            "nearest": nearest,
            "suggests": self.suggestion(fired.len(), beyond, nearest, reversals),
        })
    }

    fn is_beyond(&self, mean: f64) -> bool {
        if self.high { mean > self.at } else { mean < self.at }
    }

    /// Whether this line's condition was among those that led to the operation.
    fn fired(&self, operation: &Operation, facts: &Facts) -> bool {
        let direction = if self.high { Kind::ScaleUp } else { Kind::ScaleDown };
        operation.kind == direction
            && decision_of(operation, facts)
                .is_some_and(|d| d.conditions.iter().any(|c| c.active && c.name == self.condition))
    }

    /// From the start of the operation to the first five minutes back on the right side of a high line.
    fn recovery(&self, operation: &Operation, means: &[(Timestamp, f64)]) -> Option<f64> {
        let back = |(when, mean): &&(Timestamp, f64)| *when >= operation.started_at && !self.is_beyond(*mean);
        let (when, _) = means.iter().filter(|_| self.high).find(back)?;
        Some(when.since(operation.started_at).as_secs_f64())
    }

    fn suggestion(&self, fired: usize, beyond: usize, nearest: Option<f64>, reversals: usize) -> Option<&'static str> {
        let (nearest, at) = (nearest.filter(|_| self.high), self.at);
        match (fired, beyond) {
            (1.., _) if reversals > 0 => {
                Some("operations were soon taken back: widen the gap between the low and the high line")
            }
            (0, 1..) if self.high => {
                Some("it was exceeded and nothing followed: the decisions say which guard held it back")
            }
            (0, 0) if nearest.is_some_and(|n| n >= 0.9 * at) => {
                Some("it was nearly reached: the next rise of the load will cross it")
            }
            (0, 0) if nearest.is_some_and(|n| n < 0.5 * at) => {
                Some("never more than half of it was reached: the pool may be larger than it need be")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Condition, Mode, OperationId, Profile, Step, StepAction, StepState, Trigger};

    const T0: i64 = 1_764_000_000_000;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(T0 + secs * 1000)
    }

    fn step(seq: u32, action: StepAction, from: i64, to: i64) -> Step {
        Step {
            seq,
            action,
            key: format!("o/{seq}"),
            state: StepState::Done,
            attempts: 1,
            started_at: Some(at(from)),
            ended_at: Some(at(to)),
            deadline: Duration::from_secs(60),
            output: None,
            error: None,
            late_drop: false,
        }
    }

    fn operation(kind: Kind, state: OperationState, from: i64, to: i64, decision: u64) -> Operation {
        let node = crate::model::NodeId::new("n4").expect("an id");
        let steps = vec![
            step(0, StepAction::Create { node: node.clone() }, from + 5, from + 10),
            step(1, StepAction::Settle, from + 65, from + 70),
        ];
        let id = OperationId(format!("op-{from}").into());
        Operation {
            state,
            decision: Some(decision),
            nodes: vec![node],
            updated_at: at(to),
            ended_at: state.is_final().then(|| at(to)),
            last_progress_at: at(to),
            steps: if kind == Kind::ScaleUp { steps } else { vec![] },
            ..Operation::new(id, "default".into(), kind, Trigger::Threshold, "vecscale", at(from))
        }
    }

    fn condition(name: &str, line: f64) -> Condition {
        Condition { name: name.into(), value: Some(0.8), line, streak: 2, needed: 2, active: true }
    }

    fn decision(id: u64, secs: i64, condition: &str) -> Decision {
        Decision {
            id,
            at: at(secs),
            mode: Mode::Active,
            action: Action::ScaleUp { nodes: 1, target: 4 },
            trigger: Some(Trigger::Threshold),
            wanted: Some(Kind::ScaleUp),
            because: vec![],
            conditions: vec![self::condition(condition, 0.75)],
            guards: vec![],
            would_change: String::new(),
        }
    }

    /// Rows every five minutes: CPU at 0.875 on 3 nodes before second 3600, at 0.5 on 4 nodes after.
    fn rollups(upto: i64) -> Vec<Rollup> {
        let row = |secs: i64| {
            let (cpu, nodes) = if secs < 3600 { (0.875, 3) } else { (0.5, 4) };
            let mean = |v: f64| json!({"mean": v, "max": v});
            Rollup::read(
                &json!({"timestamp": at(secs), "step": 300, "cpu_usage": mean(cpu), "memory_usage": null, "node_count": mean(f64::from(nodes)),
                    "avg_vectors_per_node": mean(950_000.0), "custom": {"queue": mean(cpu * 8.0)}}),
            )
        };
        (0..upto).step_by(300).map(|secs| row(secs).expect("a row")).collect()
    }

    #[test]
    fn two_operations_that_take_each_other_back() {
        let operations = [
            operation(Kind::ScaleUp, OperationState::Succeeded, 3600, 3700, 1),
            operation(Kind::ScaleDown, OperationState::Failed, 4000, 4010, 2),
            operation(Kind::ScaleDown, OperationState::Succeeded, 5000, 5100, 3),
        ];
        let decisions = BTreeMap::from([(1, decision(1, 3600, "cpu_high"))]);
        let facts = Facts {
            since: at(0),
            now: at(7200),
            operations: &operations,
            decisions: &decisions,
            rollups: &rollups(7200),
            thresholds: &ScalingThresholds::of(Profile::Default),
            conditions: &[condition("queue_high", 5.0)],
        };
        let kpis = analytics(&facts);
        assert_eq!(kpis["operations"]["per_day"], 3.0, "two hours are not extrapolated to a day");
        assert_eq!(kpis["by_kind"]["scale_down"]["success_rate"], 0.5);
        assert_eq!(kpis["by_kind"]["replace"]["success_rate"], Value::Null, "none ended");
        // Two checks of 30 s: the trigger showed one interval before the decision.
        assert_eq!(kpis["by_kind"]["scale_up"]["response_seconds"], json!({"count": 1, "p50": 130.0, "p95": 130.0}));
        assert_eq!(kpis["lead_time_seconds"]["p50"], 60.0);
        assert_eq!(kpis["reversals"], 1);
        let up = &kpis["cost"][0];
        assert_eq!((&up["before"]["node_hours"], &up["before"]["cpu_usage"]), (&json!(3.0), &json!(0.875)));
        assert!((up["before"]["hours"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{up}");
        assert_eq!(up["after"]["memory_usage"], Value::Null, "never known");
        let cpu = &kpis["thresholds"]["cpu_threshold_high"];
        assert_eq!(
            (&cpu["fired"], &cpu["exceeded_seconds"], &cpu["nearest"]),
            (&json!(1), &json!(3600.0), &json!(0.5)),
            "{cpu}"
        );
        assert_eq!(cpu["recovery_seconds"]["p50"], 0.0);
        assert!(cpu["suggests"].as_str().unwrap().contains("widen the gap"), "{cpu}");
        assert_eq!(kpis["thresholds"]["memory_threshold_high"]["exceeded_seconds"], Value::Null);
        let vectors = &kpis["thresholds"]["max_vectors_per_node"];
        assert_eq!((&vectors["line"], &vectors["nearest"]), (&json!(1e6), &json!(950_000.0)));
        assert!(vectors["suggests"].as_str().unwrap().contains("nearly reached"), "{vectors}");
        let queue = &kpis["thresholds"]["queue_high"];
        assert_eq!((&queue["line"], &queue["fired"], &queue["nearest"]), (&json!(5.0), &json!(0), &json!(4.0)));
        assert!(queue["suggests"].as_str().unwrap().contains("nothing followed"), "{queue}");
        assert_eq!(kpis["thresholds"].as_object().unwrap().len(), 12);
    }

    #[test]
    fn nothing_known_is_null_and_no_number() {
        let thresholds = ScalingThresholds::of(Profile::Default);
        let facts = Facts {
            since: at(0),
            now: at(0),
            operations: &[],
            decisions: &BTreeMap::new(),
            rollups: &[],
            thresholds: &thresholds,
            conditions: &[],
        };
        let kpis = analytics(&facts);
        assert_eq!(kpis["operations"]["success_rate"], Value::Null);
        assert_eq!(kpis["operations"]["response_seconds"], json!({"count": 0, "p50": null, "p95": null}));
        assert_eq!(kpis["thresholds"]["cpu_threshold_high"]["nearest"], Value::Null);
    }
}
