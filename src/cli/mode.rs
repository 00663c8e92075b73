//! `vecscale start` and `vecscale stop`: what vecscale may do from now on; remembered over restarts.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Failure;
use super::args::Connection;
use super::client::Client;
use super::status::show;

#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    connection: Connection,
    /// active: decide and act; observe: decide and record, act only when a person asks
    #[arg(long, value_enum, default_value = "active")]
    mode: StartMode,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StartMode {
    Active,
    Observe,
}

pub async fn start(args: &StartArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let mode = match args.mode {
        StartMode::Active => "active",
        StartMode::Observe => "observe",
    };
    let answer = client.post("/autoscaling/start", Some(&json!({"mode": mode})), None).await?;
    show(&client, &answer, out)
}

#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    connection: Connection,
    /// Pause the running operation too, until `vecscale operation resume`
    #[arg(long)]
    halt: bool,
}

pub async fn stop(args: &StopArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let body = args.halt.then(|| json!({"halt": true}));
    let answer = client.post("/autoscaling/stop", body.as_ref(), None).await?;
    show(&client, &answer, out)
}
