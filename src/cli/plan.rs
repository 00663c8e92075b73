//! `vecscale plan`: what a change would move now, how long that takes, and what forbids it.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::args::{Connection, Output};
use super::client::{Client, shaped};
use super::shapes::Plan;
use super::status::pretty;
use super::{Failure, text};
use crate::units;

/// Of longer plans the first moves are shown.
const SHOWN: usize = 10;

#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    connection: Connection,
    /// Only this kind of change
    #[arg(long, value_enum)]
    kind: Option<PlanKind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum PlanKind {
    #[value(alias = "scale-up")]
    ScaleUp,
    #[value(alias = "scale-down")]
    ScaleDown,
    Rebalance,
}

impl PlanKind {
    const ALL: [PlanKind; 3] = [PlanKind::ScaleUp, PlanKind::ScaleDown, PlanKind::Rebalance];

    fn as_str(self) -> &'static str {
        match self {
            PlanKind::ScaleUp => "scale_up",
            PlanKind::ScaleDown => "scale_down",
            PlanKind::Rebalance => "rebalance",
        }
    }
}

pub async fn run(args: &PlanArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    show(&Client::new(&args.connection)?, args.kind, out).await.map(drop)
}

/// Shows one plan, or one per kind; says whether a person who reads it sees a shard that would move.
pub async fn show(client: &Client, kind: Option<PlanKind>, out: &mut (dyn Write + Send)) -> Result<bool, Failure> {
    let query: Vec<_> = kind.iter().map(|kind| ("kind", kind.as_str().to_string())).collect();
    let answer = client.get("/autoscaling/plan", &query).await?;
    if client.output == Output::Json {
        out.write_all(pretty(&answer).as_bytes())?;
        return Ok(false);
    }
    let plans = all(&answer)?;
    out.write_all(plans.iter().map(words).collect::<String>().as_bytes())?;
    Ok(plans.iter().any(|plan| plan.shards.is_some_and(|shards| shards > 0)))
}

/// One plan, or one per kind.
fn all(answer: &Value) -> Result<Vec<Plan>, Failure> {
    if answer.get("kind").is_some() {
        return Ok(vec![shaped(answer)?]);
    }
    PlanKind::ALL.iter().filter_map(|kind| answer.get(kind.as_str())).map(shaped).collect()
}

fn words(plan: &Plan) -> String {
    let node = plan.node.as_ref().map(|node| format!(" of {node}")).unwrap_or_default();
    let mut said = match (plan.shards, plan.bytes) {
        (Some(shards), Some(bytes)) => format!("{}{node}: {}\n", plan.kind, moved(shards, bytes, plan.minutes)),
        _ => format!("{}: nothing can be moved now\n", plan.kind),
    };
    if let Some(why) = &plan.stairs.why {
        let useful = plan
            .stairs
            .useful
            .map_or("no number of nodes more helps".to_string(), |nodes| format!("{nodes} nodes more would help"));
        said.push_str(&format!("  {}; {useful}\n", text::one_line(why)));
    }
    said.push_str(&balance(plan));
    for change in &plan.nodes {
        said.push_str(&format!(
            "  {}: {} -> {}, {} -> {}\n",
            change.node,
            change.shards_before,
            units::count(change.shards_after, "shard"),
            units::bytes(change.bytes_before),
            units::bytes(change.bytes_after),
        ));
    }
    for one in plan.moves.iter().take(SHOWN) {
        let shard = text::one_line(&format!("{}/{}", one.collection, one.shard));
        said.push_str(&format!("  move {shard} {} -> {} ({})\n", one.from, one.to, units::bytes(one.bytes)));
    }
    if let Some(more) = plan.moves.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        said.push_str(&format!("  and {more} more; `--output json` has them all\n"));
    }
    for guard in &plan.guards {
        said.push_str(&format!("  guard {}\n", text::one_line(&guard.to_string())));
    }
    for candidate in plan.candidates.iter().filter(|c| plan.node.as_ref() != Some(&c.node)) {
        let what = match &candidate.impossible {
            Some(why) => format!("impossible: {}", text::one_line(why)),
            None => moved(candidate.shards, candidate.bytes, candidate.minutes),
        };
        said.push_str(&format!("  instead {}: {what}\n", candidate.node));
    }
    said
}

/// How even it gets, against the best there is.
fn balance(plan: &Plan) -> String {
    let Some(balance) = &plan.balance else { return String::new() };
    let least = plan.least_bytes.map(|least| format!("; at least {} have to move", units::bytes(least)));
    format!(
        "  busiest node {:.2} -> {:.2} of the mean, {:.2} at best{}\n",
        balance.ratio_before,
        balance.ratio_after,
        balance.ratio_reachable,
        least.unwrap_or_default(),
    )
}

fn moved(shards: u32, bytes: u64, minutes: Option<f64>) -> String {
    let time = minutes.map_or("time not known yet".into(), |m| format!("about {}", text::seconds(m * 60.0)));
    format!("moves {} ({}), {time}", units::count(shards, "shard"), units::bytes(bytes))
}
