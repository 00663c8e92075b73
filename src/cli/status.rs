//! `vecscale status`: the headline first, then what it rests on.

use std::io::Write;

use serde_json::Value;

use super::Failure;
use super::args::Output;
use super::client::{Client, shaped};
use super::operate::{progress, slow};
use super::shapes::{AlertEntry, Condition, Metrics, Node, Status, Window};
use super::text;
use crate::units;

pub async fn run(client: &Client, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let answer = client.get("/autoscaling/status", &[]).await?;
    show(client, &answer, out)
}

/// Prints a status, as `start` and `stop` do too.
pub fn show(client: &Client, answer: &Value, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let said = match client.output {
        Output::Json => pretty(answer),
        Output::Text => match answer.get("items").and_then(Value::as_array) {
            // `stop` of all pools answers with the status of each.
            Some(all) => {
                all.iter().map(|one| Ok(words(&shaped(one)?))).collect::<Result<Vec<_>, Failure>>()?.join("\n")
            }
            None => words(&shaped(answer)?),
        },
    };
    out.write_all(said.as_bytes())?;
    Ok(())
}

/// The API's answer, indented.
pub fn pretty(answer: &Value) -> String {
    format!("{answer:#}\n")
}

fn words(status: &Status) -> String {
    let mut said = format!("{}: {}\n", status.pool, text::one_line(&status.headline));
    for need in &status.needs_human {
        said.push_str(&format!("  needs a person: {}\n", text::one_line(need)));
    }
    let bound = |name: &str| text::number(status.thresholds.get(name).copied());
    let nodes = match &status.metrics {
        Some(metrics) => format!("{} nodes ({} healthy)", metrics.node_count, metrics.healthy_nodes),
        None => "not checked yet".into(),
    };
    let (min, max) = (bound("min_nodes"), bound("max_nodes"));
    said.push_str(&format!(
        "  mode {}, {nodes}, aims at {} (min {min}, max {max})\n",
        status.mode, status.desired_nodes
    ));
    if let Some(metrics) = &status.metrics {
        said.push_str(&format!("  {}\n", usage(metrics)));
    }
    if let Some(operation) = &status.operation {
        let (kind, id, slow) = (&operation.kind, &operation.id, slow(operation));
        said.push_str(&format!("\noperation {kind} {id}\n  {}{slow}\n", progress(operation)));
    }
    said.push_str(&section("conditions", &conditions(&status.conditions)));
    if !status.guards.is_empty() {
        said.push_str("\nguards that hold\n");
        said.extend(status.guards.iter().map(|guard| format!("  {}\n", text::one_line(&guard.to_string()))));
    }
    said.push_str(&section("alerts that fire", &alerts(&status.alerts)));
    said.push_str(&section("windows", &windows(&status.windows)));
    said.push_str(&section("nodes", &nodes_table(&status.nodes)));
    said.push_str(&section("thresholds not from the profile", &changed(status)));
    said
}

fn usage(metrics: &Metrics) -> String {
    format!(
        "CPU {}, memory {}, storage {}, latency {} ms, {} searches/s, errors {}, {} vectors",
        text::percent(metrics.cpu_usage),
        text::percent(metrics.memory_usage),
        text::percent(metrics.storage_usage),
        text::number(metrics.search_latency),
        text::number(metrics.query_throughput),
        text::percent(metrics.error_rate),
        text::number(metrics.total_vectors),
    )
}

fn section(title: &str, rows: &[Vec<String>]) -> String {
    if rows.is_empty() { String::new() } else { format!("\n{title}\n{}", text::table(rows)) }
}

/// `* cpu_high  0.81 > 0.75  2 of 2 checks`; the star marks what is active.
pub fn conditions(conditions: &[Condition]) -> Vec<Vec<String>> {
    let row = |condition: &Condition| {
        let (yes, no) = if condition.name.ends_with("_low") { ("<", ">=") } else { (">", "<=") };
        let sign = if condition.holds() { yes } else { no };
        let line = text::number(Some(condition.line));
        let compared = match condition.value {
            Some(value) => format!("{} {sign} {line}", text::number(Some(value))),
            None => format!("not known, line {line}"),
        };
        let mark = if condition.active { "*" } else { "" };
        let streak = format!("{} of {}", condition.streak, units::count(condition.needed, "check"));
        vec![mark.into(), condition.name.clone(), compared, streak]
    };
    conditions.iter().map(row).collect()
}

/// `slow-search  VectorSearchSlow  since 2026-01-31 03:12:00Z  asks for scale_up`.
fn alerts(entries: &[AlertEntry]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for entry in entries {
        rows.extend(entry.episodes.iter().map(|episode| {
            let name = if episode.alertname.is_empty() { &episode.fingerprint } else { &episode.alertname };
            let since = format!("since {}", text::instant(&episode.starts_at));
            vec![entry.name.clone(), text::one_line(name), since, text::one_line(&episode.standing)]
        }));
        let more = entry.firing.saturating_sub(entry.episodes.len() as u32);
        if more > 0 {
            rows.push(vec![entry.name.clone(), format!("and {more} more")]);
        }
    }
    rows
}

/// `office  open until 2026-01-31 17:00:00Z  min_nodes 5`.
fn windows(windows: &[Window]) -> Vec<Vec<String>> {
    let row = |window: &Window| {
        let next = window.next.as_ref().map(|next| text::instant(next));
        let state = match (window.open, window.growing, next) {
            (true, _, Some(next)) => format!("open until {next}"),
            (true, _, None) => "open".into(),
            (false, true, Some(next)) => format!("grows for {next}"),
            (false, _, Some(next)) => format!("opens {next}"),
            (false, _, None) => "over".into(),
        };
        let sets = window.sets.iter().map(|(name, value)| format!("{name} {}", text::number(Some(*value))));
        let desired = window.desired_nodes.map(|nodes| format!("desired_nodes {nodes}"));
        let freeze = window.freeze.as_ref().map(|freeze| format!("freeze {freeze}"));
        vec![window.name.clone(), state, sets.chain(desired).chain(freeze).collect::<Vec<_>>().join(", ")]
    };
    windows.iter().map(row).collect()
}

fn nodes_table(nodes: &[Node]) -> Vec<Vec<String>> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let heads = [
        "node",
        "state",
        "health",
        "CPU",
        "memory",
        "storage",
        "latency ms",
        "searches/s",
        "vectors",
        "shards",
        "bytes",
    ];
    let row = |node: &Node| {
        vec![
            node.id.clone(),
            if node.drained_by.is_some() { "drained".into() } else { node.state.clone() },
            if node.healthy { "healthy".into() } else { "UNHEALTHY".into() },
            text::percent(node.cpu_usage),
            text::percent(node.memory_usage),
            text::percent(node.storage_usage),
            text::number(node.search_latency),
            text::number(node.query_throughput),
            text::number(node.vectors),
            node.shards.map_or("-".into(), |n| n.to_string()),
            node.bytes.map_or("-".into(), units::bytes),
        ]
    };
    std::iter::once(heads.map(String::from).to_vec()).chain(nodes.iter().map(row)).collect()
}

fn changed(status: &Status) -> Vec<Vec<String>> {
    let from = |name: &String| {
        let source = status.sources.get(name).filter(|s| s.source != "profile")?;
        let value = text::number(status.thresholds.get(name).copied());
        let by = match &source.by {
            Some(window) if source.source == "window" => format!("set by window {window}"),
            Some(by) => format!("set by {by}"),
            None => format!("from the {}", source.source),
        };
        let until = source.until.as_ref().map(|until| format!(" until {}", text::instant(until))).unwrap_or_default();
        Some(vec![name.clone(), value, format!("{by}{until}")])
    };
    status.thresholds.keys().filter_map(from).collect()
}
