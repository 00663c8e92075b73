//! The command line: what it may say, and one file per command. Commands write to the writer they are given and end in
//! `Ok` or in a [`Failure`] with its exit code: 0 done, 1 failed, 2 wrong usage or configuration.

mod args;
mod check_config;
mod client;
mod demo;
mod drivers;
mod explain;
mod history;
mod mode;
mod node;
mod operate;
mod operation;
mod plan;
mod qdrant_node;
mod run;
mod schedule;
mod shapes;
mod simulate;
mod status;
mod temp;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use args::RunArgs;
use client::Client;

/// Watches a distributed vector database and grows, shrinks, repairs and rebalances it, shards included.
#[derive(Debug, Parser)]
#[command(name = "vecscale", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch and scale; what `vecscale` without a command does
    Run(RunArgs),
    /// Show it all on a temporary cluster, without any configuration
    Demo(demo::DemoArgs),
    /// Run one built-in vector node
    Node(node::NodeArgs),
    /// Become the Qdrant process of a node's directory
    #[command(hide = true)]
    QdrantNode(qdrant_node::QdrantNodeArgs),
    #[command(flatten)]
    Short(Short),
}

/// The commands that ask a running vecscale, or a file, and end.
#[derive(Debug, Subcommand)]
pub enum Short {
    /// Say everything that is wrong with a configuration file
    CheckConfig(check_config::CheckConfigArgs),
    /// How the cluster stands, and why nothing or something is done
    Status(args::Connection),
    /// What happened, newest first
    History(history::HistoryArgs),
    /// Why the last decision, or the one with this id, was taken
    Explain(explain::ExplainArgs),
    /// What a change would move now, and what forbids it
    Plan(plan::PlanArgs),
    /// Let vecscale act (or, with --mode observe, only watch and say what it would do)
    Start(mode::StartArgs),
    /// Start no new automatic operation; a running one goes on (or, with --halt, is paused)
    Stop(mode::StopArgs),
    /// Add nodes by hand
    ScaleUp(operate::ScaleUpArgs),
    /// Drain and remove one node by hand
    ScaleDown(operate::ScaleDownArgs),
    /// What spreading the shards evenly would move; with --apply, do it
    Rebalance(operate::RebalanceArgs),
    /// Empty a node by hand and prove it; it stays a member, to which nothing is moved any more
    Drain(operate::DrainArgs),
    /// Show an operation step by step, or cancel, pause, resume, retry or resolve it
    Operation(operation::OperationArgs),
    /// The breaker that failed and blocked operations open
    Breaker(operation::BreakerArgs),
    /// Make a machine that the provider runs a member, and fill it
    Adopt(operate::NodeArgs),
    /// Destroy a machine that serves no one, or forget a dead member that has none
    Reap(operate::NodeArgs),
    /// When scheduled windows open and close
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Try out the scripts, or the API, that make and destroy nodes
    #[command(subcommand)]
    Drivers(drivers::DriversCommand),
    /// Play an invented cluster through load, faults and crashes, and hold vecscale against its promises
    Simulate(simulate::SimulateArgs),
}

impl Cli {
    /// The command that was asked for; `run` when none was named.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

/// The whole program: reads the command line, and does what it says.
pub fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(Failure::failed(format!("cannot start: {error}")))),
    };
    runtime.block_on(async {
        finish(match command {
            Command::Run(args) => run::run(args).await,
            Command::Demo(args) => demo::run(&args).await.map_err(|error| Failure::failed(format!("{error:#}"))),
            Command::Node(args) => node::run(args).await.map_err(|error| Failure::failed(format!("{error:#}"))),
            Command::QdrantNode(args) => qdrant_node::run(&args).map_err(|error| Failure::failed(format!("{error:#}"))),
            Command::Short(command) => short(command, &mut io::stdout()).await,
        })
    })
}

/// Carries out a short command.
///
/// # Errors
/// What went wrong, in words, with the exit code.
async fn short(command: Short, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    match command {
        Short::CheckConfig(args) => check_config::run(&args, out),
        Short::Status(connection) => status::run(&Client::new(&connection)?, out).await,
        Short::History(args) => history::run(&args, out).await,
        Short::Explain(args) => explain::run(&args, out).await,
        Short::Plan(args) => plan::run(&args, out).await,
        Short::Start(args) => mode::start(&args, out).await,
        Short::Stop(args) => mode::stop(&args, out).await,
        Short::ScaleUp(args) => operate::scale_up(&args, out).await,
        Short::ScaleDown(args) => operate::scale_down(&args, out).await,
        Short::Rebalance(args) => operate::rebalance(&args, out).await,
        Short::Drain(args) => operate::drain(&args, out).await,
        Short::Operation(args) => operation::run(&args, out).await,
        Short::Breaker(args) => operation::breaker(&args, out).await,
        Short::Adopt(args) => operate::on_node("adopt", &args, out).await,
        Short::Reap(args) => operate::on_node("reap", &args, out).await,
        Short::Drivers(drivers::DriversCommand::Test(args)) => drivers::test(&args, out).await,
        Short::Schedule(schedule::ScheduleCommand::Next(args)) => schedule::next(&args, out),
        Short::Simulate(args) => simulate::run(&args, out),
    }
}

/// How a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: u8,
    /// Whole sentences for standard error; empty when there is nothing to say.
    pub text: String,
}

impl Failure {
    /// It was tried and did not come about.
    pub fn failed(text: impl Into<String>) -> Failure {
        Failure { code: 1, text: text.into() }
    }

    /// Nothing was tried: wrong usage or configuration.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure { code: 2, text: text.into() }
    }
}

/// A reader that has seen enough (`vecscale history | head`) is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { code: 0, text: String::new() },
            _ => Failure::failed(format!("cannot write the output: {error}")),
        }
    }
}

/// Says on standard error what went wrong, and gives the exit code.
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                let _ = writeln!(io::stderr(), "{}", failure.text); // nobody left to tell
            }
            ExitCode::from(failure.code)
        }
    }
}
