//! `vecscale operation`: shows an operation step by step, or gives an order about it; `vecscale breaker reset`.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::args::{Connection, Output};
use super::client::{Client, shaped};
use super::operate::progress;
use super::shapes::{Accepted, Operation, Status, Step};
use super::status::{pretty, show};
use super::{Failure, text};
use crate::units;

#[derive(Clone, Debug, Args)]
pub struct OperationArgs {
    #[command(flatten)]
    connection: Connection,
    /// Which operation; the open one when left out
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// What to do about it; it is shown when left out
    #[arg(value_enum, value_name = "ORDER")]
    order: Option<OrderName>,
    /// For resolve: whether the step in doubt happened
    #[arg(long = "as", value_enum, value_name = "WORD")]
    verdict: Option<Word>,
    /// Why; kept in the audit trail, and needed to resolve
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderName {
    /// End it after the transfer in flight, and undo what can be undone
    Cancel,
    /// Begin nothing more until it is resumed
    Pause,
    /// Let a paused one go on
    Resume,
    /// Let a blocked one look again
    Retry,
    /// Say how the step in doubt of a blocked one came out
    Resolve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Word {
    /// It happened
    Done,
    /// It did not
    Absent,
}

pub async fn run(args: &OperationArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let (id, order) = meant(args)?;
    let body = body(args, order)?;
    let client = Client::new(&args.connection)?;
    let id = match id {
        Some(id) => id,
        None => the_open_one(&client).await?,
    };
    let path = format!("/autoscaling/operations/{id}");
    let Some(order) = order else {
        let answer = client.get(&path, &[]).await?;
        return print(&client, &answer, shaped(&answer), out);
    };
    let name = order.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
    let answer = client.post(&format!("{path}/{name}"), Some(&body), None).await?;
    print(&client, &answer, shaped(&answer).map(|Accepted { operation }| operation), out)
}

/// `vecscale operation pause` is about the open operation: an order in the place of the id is an order.
fn meant(args: &OperationArgs) -> Result<(Option<String>, Option<OrderName>), Failure> {
    match (&args.id, args.order) {
        (Some(word), None) => match OrderName::from_str(word, false) {
            Ok(order) => Ok((None, Some(order))),
            Err(_) => Ok((Some(checked(word)?), None)),
        },
        (Some(id), order) => Ok((Some(checked(id)?), order)),
        (None, order) => Ok((None, order)),
    }
}

fn checked(id: &str) -> Result<String, Failure> {
    let is_id = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if is_id {
        return Ok(id.into());
    }
    Err(Failure::usage(format!(
        "{:?} is neither an id of an operation nor one of cancel, pause, resume, retry, resolve",
        text::one_line(id)
    )))
}

fn body(args: &OperationArgs, order: Option<OrderName>) -> Result<Value, Failure> {
    let resolves = order == Some(OrderName::Resolve);
    if resolves != args.verdict.is_some() {
        return Err(Failure::usage("--as done or --as absent goes with resolve, and resolve needs it"));
    }
    if resolves && args.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
        return Err(Failure::usage("resolve needs --reason: how do you know? It is kept in the audit trail"));
    }
    if order.is_none() && args.reason.is_some() {
        return Err(Failure::usage("--reason goes with an order: cancel, pause, resume, retry or resolve"));
    }
    let word = args.verdict.map(|word| ("as", if word == Word::Done { "done" } else { "absent" }));
    let reason = args.reason.as_ref().map(|reason| ("reason", reason.as_str()));
    let fields: Map<String, Value> = word.into_iter().chain(reason).map(|(k, v)| (k.into(), json!(v))).collect();
    Ok(Value::Object(fields))
}

async fn the_open_one(client: &Client) -> Result<String, Failure> {
    let status: Status = shaped(&client.get("/autoscaling/status", &[]).await?)?;
    let open = status.operation.map(|operation| operation.id);
    open.ok_or_else(|| {
        Failure::failed(
            "no operation is open\n    hint: `vecscale history --kind operation` tells of those that have ended",
        )
    })
}

fn print(
    client: &Client,
    answer: &Value,
    operation: Result<Operation, Failure>,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let said = match client.output {
        Output::Json => pretty(answer),
        Output::Text => words(&operation?),
    };
    Ok(out.write_all(said.as_bytes())?)
}

fn words(operation: &Operation) -> String {
    let nodes = if operation.nodes.is_empty() { String::new() } else { format!(": {}", operation.nodes.join(", ")) };
    let mut said = format!("{} {}{nodes}\n  {}\n", operation.kind, operation.id, progress(operation));
    let began = format!("began {} by {}", text::instant(&operation.started_at), operation.who);
    let mut line = |line: String| said.push_str(&format!("  {}\n", text::one_line(&line)));
    line(began);
    operation.because.iter().for_each(|why| line(format!("because {why}")));
    if let Some(by) = &operation.paused_by {
        let reason = by.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        line(format!("paused {} by {}{reason}", text::instant(&by.since), by.who));
    }
    if let Some(by) = operation.cancel.as_ref().filter(|_| operation.ended_at.is_none()) {
        line(format!("to be cancelled, asked for by {by}"));
    }
    if operation.ended_at.is_none() {
        operation.detail.lines().for_each(|detail| line(detail.trim().into()));
    }
    if !operation.steps.is_empty() {
        let rows: Vec<Vec<String>> = operation.steps.iter().enumerate().map(|(i, step)| row(i + 1, step)).collect();
        said.push_str(&format!("\nsteps\n{}", text::table(&rows)));
    }
    said
}

fn row(place: usize, step: &Step) -> Vec<String> {
    let on = match (&step.collection, step.shard, &step.from, &step.to) {
        (Some(collection), Some(shard), Some(from), Some(to)) => format!(" {collection}/{shard} {from} -> {to}"),
        _ => step.node.as_ref().map_or(String::new(), |node| format!(" {node}")),
    };
    let attempts = if step.attempts > 1 { units::count(step.attempts, "attempt") } else { String::new() };
    let error = step.error.as_deref().unwrap_or_default();
    vec![
        place.to_string(),
        text::one_line(&format!("{}{on}", step.step)),
        step.state.clone(),
        attempts,
        text::one_line(error),
    ]
}

#[derive(Clone, Debug, Args)]
pub struct BreakerArgs {
    #[command(subcommand)]
    what: BreakerOrder,
}

#[derive(Clone, Debug, Subcommand)]
enum BreakerOrder {
    /// Close it, and end the pause after the last failed operation
    Reset(ResetArgs),
}

#[derive(Clone, Debug, Args)]
struct ResetArgs {
    #[command(flatten)]
    connection: Connection,
    /// Why; kept in the audit trail
    #[arg(long)]
    reason: Option<String>,
}

pub async fn breaker(args: &BreakerArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let BreakerOrder::Reset(args) = &args.what;
    let client = Client::new(&args.connection)?;
    let body = args.reason.as_ref().map_or(json!({}), |reason| json!({"reason": reason}));
    let answer = client.post("/autoscaling/breaker/reset", Some(&body), None).await?;
    show(&client, &answer, out)
}
