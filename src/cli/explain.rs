//! `vecscale explain [ID]`: why a decision was taken, above all the decision to do nothing.

use std::io::Write;

use clap::Args;

use super::args::{Connection, Output};
use super::client::{Client, shaped};
use super::shapes::Decision;
use super::status::{conditions, pretty};
use super::{Failure, text};

#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    connection: Connection,
    /// The decision's id, as `history` and `status` show it; the last one when left out
    id: Option<u64>,
}

pub async fn run(args: &ExplainArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let decision = match args.id {
        Some(id) => client.get(&format!("/autoscaling/decisions/{id}"), &[]).await?,
        None => client.get("/autoscaling/status", &[]).await?["decision"].take(),
    };
    if decision.is_null() {
        return Err(Failure::failed(
            "nothing was decided yet\n    hint: the first check is under way; ask again in a moment",
        ));
    }
    let said = match client.output {
        Output::Json => pretty(&decision),
        Output::Text => words(&shaped(&decision)?),
    };
    out.write_all(said.as_bytes())?;
    Ok(())
}

fn words(decision: &Decision) -> String {
    let node = decision.node.as_ref().map(|node| format!(" {node}")).unwrap_or_default();
    let mode = if decision.mode.is_empty() { String::new() } else { format!(" (mode {})", decision.mode) };
    let at = text::instant(&decision.at);
    let mut said = format!("decision {} at {at}: {}{node}{mode}\n", decision.id, decision.decision);
    match (&decision.wanted, decision.decision.as_str()) {
        (Some(wanted), "hold") => {
            said.push_str(&format!("  wanted {wanted}, trigger {}\n", or_none(&decision.trigger)))
        }
        (None, "hold") => {}
        _ => said.push_str(&format!("  trigger {}\n", or_none(&decision.trigger))),
    }
    for reason in &decision.because {
        said.push_str(&format!("  because {}\n", text::one_line(reason)));
    }
    for guard in &decision.guards {
        said.push_str(&format!("  held back by {}\n", text::one_line(&guard.to_string())));
    }
    if !decision.conditions.is_empty() {
        said.push_str(&format!("\nconditions\n{}", text::table(&conditions(&decision.conditions))));
    }
    if !decision.would_change.is_empty() {
        said.push_str(&format!("\nwhat would change it: {}\n", text::one_line(&decision.would_change)));
    }
    said
}

fn or_none(trigger: &Option<String>) -> &str {
    trigger.as_deref().unwrap_or("none")
}
