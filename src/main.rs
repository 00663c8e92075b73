//! The program: dispatches to its commands.

use clap::Parser;
use vecscale::cli::node::{NodeArgs, run};

#[derive(Parser)]
#[command(version, about)]
enum Cli {
    Node(NodeArgs),
}

fn main() -> anyhow::Result<()> {
    let Cli::Node(args) = Cli::parse();
    tokio::runtime::Runtime::new()?.block_on(run(args))
}
