//! `vecscale scale-up`, `scale-down`, `rebalance --apply`, `drain`, `adopt`, `reap`: asks for an operation and follows
//! it to its end.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::args::{Connection, Output};
use super::client::{Client, shaped};
use super::plan::{self, PlanKind};
use super::shapes::{Begun, Operation, Proof, Step};
use super::status::pretty;
use super::{Failure, text};
use crate::model::{NodeId, OperationState, Timestamp};
use crate::units;

/// Between two looks at a running operation.
const POLL: Duration = Duration::from_millis(500);
/// How long vecscale may be silent (a restart, say) before following ends; the operation itself goes on.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Args)]
struct Asked {
    #[command(flatten)]
    connection: Connection,
    /// Why; kept in the audit trail, and needed to scale up while vecscale is backing off
    #[arg(long)]
    reason: Option<String>,
    /// Do not wait for the end of the operation
    #[arg(long)]
    detach: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ScaleUpArgs {
    #[command(flatten)]
    asked: Asked,
    /// How many nodes to add
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes: u32,
}

#[derive(Clone, Debug, Args)]
pub struct ScaleDownArgs {
    #[command(flatten)]
    asked: Asked,
    /// The node to remove; the one with the fewest bytes to move when left out
    #[arg(long, value_name = "ID")]
    node: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct RebalanceArgs {
    #[command(flatten)]
    asked: Asked,
    /// Do it; without, what it would move is only shown
    #[arg(long)]
    apply: bool,
}

#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    on: NodeArgs,
    /// Take the drain back: the node is open for shards again
    #[arg(long, conflicts_with_all = ["reason", "detach"])]
    undo: bool,
}

#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    #[command(flatten)]
    asked: Asked,
    /// The node, as `vecscale status` names it
    #[arg(value_name = "NODE", value_parser = node_id)]
    node: NodeId,
}

fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::new(text).map_err(|why| why.to_string())
}

pub async fn scale_up(args: &ScaleUpArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    operate("/autoscaling/scale-up", &args.asked, Some(("nodes", json!(args.nodes))), out).await.map(drop)
}

pub async fn scale_down(args: &ScaleDownArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let node = args.node.as_ref().map(|node| ("node", json!(node)));
    operate("/autoscaling/scale-down", &args.asked, node, out).await.map(drop)
}

pub async fn rebalance(args: &RebalanceArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    if args.apply {
        return operate("/autoscaling/rebalance", &args.asked, None, out).await.map(drop);
    }
    if args.asked.reason.is_some() || args.asked.detach {
        return Err(Failure::usage("--reason and --detach go with --apply: without it, nothing is moved"));
    }
    let client = Client::new(&args.asked.connection)?;
    let would_move = plan::show(&client, Some(PlanKind::Rebalance), out).await?;
    if would_move {
        writeln!(out, "nothing was moved: `vecscale rebalance --apply` does it")?;
    }
    Ok(())
}

/// Empties a node and prints the proof, or opens it again.
pub async fn drain(args: &DrainArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let path = format!("/autoscaling/nodes/{}/drain", args.on.node);
    if args.undo {
        let client = Client::new(&args.on.asked.connection)?;
        let answer = client.delete(&path).await?;
        match client.output {
            Output::Json => out.write_all(pretty(&answer).as_bytes())?,
            Output::Text => writeln!(out, "{} is open for shards again", args.on.node)?,
        }
        return Ok(());
    }
    let ended = operate(&path, &args.on.asked, None, out).await?;
    let proof = ended.iter().flat_map(|operation| &operation.steps).find_map(Step::proof);
    if let Some(proof) = proof.filter(|_| args.on.asked.connection.output == Output::Text) {
        out.write_all(proven(&args.on.node, &proof).as_bytes())?;
    }
    Ok(())
}

fn proven(node: &NodeId, proof: &Proof) -> String {
    let others: Vec<&str> = proof.witnesses.iter().map(String::as_str).filter(|w| *w != node.as_str()).collect();
    let deleted = match &proof.deleted[..] {
        [] => String::new(),
        some => format!("; deleted meanwhile: {}", text::one_line(&some.join(", "))),
    };
    format!(
        "{node} holds nothing:\n  read at {} and at {}: it says so itself, and {} agreed\n  \
         {} complete on the other nodes, nothing in transfer{deleted}\n\
         it stays a member, to which nothing is moved: `vecscale drain {node} --undo` takes that back\n",
        text::instant(&proof.first_read_at),
        text::instant(&proof.second_read_at),
        text::one_line(&others.join(", ")),
        units::count(proof.shards, "shard"),
    )
}

/// Adopts or reaps.
pub async fn on_node(what: &str, args: &NodeArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    operate(&format!("/autoscaling/nodes/{}/{what}", args.node), &args.asked, None, out).await.map(drop)
}

/// Gives the operation as it ended; `None` when nobody waited for that.
async fn operate(
    path: &str,
    asked: &Asked,
    what: Option<(&str, Value)>,
    out: &mut (dyn Write + Send),
) -> Result<Option<Operation>, Failure> {
    let reason = asked.reason.as_ref().map(|reason| ("reason", json!(reason)));
    let body: Map<String, Value> = what.into_iter().chain(reason).map(|(k, v)| (k.to_string(), v)).collect();
    let client = Client::new(&asked.connection)?;
    let key = uuid::Uuid::now_v7().to_string();
    let answer = client.post(path, Some(&Value::Object(body)), Some(&key)).await?;
    let Begun { operation } = shaped(&answer)?;
    let is_text = client.output == Output::Text;
    let Some(operation) = operation else {
        let said = if is_text { "taken as it is: there was nothing to do\n".into() } else { pretty(&answer) };
        out.write_all(said.as_bytes())?;
        return Ok(None);
    };
    if is_text {
        let nodes =
            if operation.nodes.is_empty() { String::new() } else { format!(": {}", operation.nodes.join(", ")) };
        writeln!(out, "{} {}{nodes}", operation.kind, operation.id)?;
    }
    if asked.detach {
        if !is_text {
            out.write_all(pretty(&answer).as_bytes())?;
        }
        return Ok(None);
    }
    follow(&client, &operation.id, out).await.map(Some)
}

/// Shows each change of the operation until it ends.
async fn follow(client: &Client, id: &str, out: &mut (dyn Write + Send)) -> Result<Operation, Failure> {
    let path = format!("/autoscaling/operations/{id}");
    let mut heard = Instant::now();
    let mut shown = String::new();
    loop {
        let answer = match client.get(&path, &[]).await {
            Ok(answer) => answer,
            Err(why) if why.is_passing() && heard.elapsed() < PATIENCE => {
                tokio::time::sleep(POLL).await;
                continue;
            }
            Err(why) => {
                let why = Failure::from(why).text;
                return Err(Failure::failed(format!("lost sight of operation {id}, which may go on: {why}")));
            }
        };
        heard = Instant::now();
        let operation: Operation = shaped(&answer)?;
        let (place, slow) = (place(&operation), slow(&operation));
        let place = format!("{place}{slow}");
        if client.output == Output::Text && place != shown {
            writeln!(out, "  {}{slow}", progress(&operation))?;
            out.flush()?;
            shown = place;
        }
        if let Some(end) = ended(&operation) {
            if client.output == Output::Json {
                out.write_all(pretty(&answer).as_bytes())?;
            }
            return end.map(|()| operation);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How following ends; `None` while the operation runs.
fn ended(operation: &Operation) -> Option<Result<(), Failure>> {
    let is = |state: OperationState| operation.state == state.as_str();
    if is(OperationState::Running) || is(OperationState::Undoing) {
        return None;
    }
    if is(OperationState::Succeeded) {
        return Some(Ok(()));
    }
    let hint = if is(OperationState::Blocked) {
        format!("a person must look: `vecscale operation {}` shows the step and the ways out", operation.id)
    } else {
        format!("`vecscale history` shows what happened; operation {}", operation.id)
    };
    Some(Err(Failure::failed(format!(
        "{} {}: {}\n    hint: {hint}",
        operation.kind,
        operation.state,
        text::one_line(&operation.detail)
    ))))
}

/// Where an operation stands, in one line, with the time that is left.
pub fn progress(operation: &Operation) -> String {
    match operation.eta_seconds {
        Some(eta) if operation.ended_at.is_none() => format!("{}, about {}", place(operation), text::seconds(eta)),
        _ => place(operation),
    }
}

/// Where an operation stands, in one line that changes only when something happened.
fn place(operation: &Operation) -> String {
    if let Some(ended) = &operation.ended_at {
        return outcome(operation, ended);
    }
    let is_running = operation.state == OperationState::Running.as_str();
    let mut line = match operation.paused {
        true if is_running => "paused".into(),
        true => format!("{}, paused", operation.state),
        false => operation.state.clone(),
    };
    if let (Some(number), Some(total)) = (operation.step_number, operation.steps_total) {
        line.push_str(&format!(", step {number} of {total}"));
    }
    if let Some(step) = &operation.step {
        line.push_str(&format!(": {step}"));
    }
    if operation.shards_left > 0 {
        let of = units::count(operation.shards_total, "shard");
        line.push_str(&format!(", {} of {of} left ({})", operation.shards_left, units::bytes(operation.bytes_left)));
    }
    if operation.shards_moving > 0 {
        line.push_str(&format!(", {} moving", operation.shards_moving));
    }
    line
}

/// Why a running operation goes slowly, if it does.
pub fn slow(operation: &Operation) -> String {
    match operation.state == OperationState::Running.as_str() && !operation.detail.is_empty() {
        true => format!("; {}", text::one_line(&operation.detail)),
        false => String::new(),
    }
}

fn outcome(operation: &Operation, ended: &str) -> String {
    let took = match (Timestamp::parse(&operation.started_at), Timestamp::parse(ended)) {
        (Some(from), Some(to)) => format!(" in {}", text::seconds(to.since(from).as_secs_f64())),
        _ => String::new(),
    };
    let detail = if operation.detail.is_empty() { String::new() } else { format!(": {}", operation.detail) };
    text::one_line(&format!("{}{took}{detail}", operation.state))
}
