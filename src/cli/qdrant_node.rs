//! `vecscale qdrant-node`: how the process provider starts Qdrant; nobody needs to call it by hand.

use std::path::PathBuf;

use crate::operate::drivers::qdrant_node::become_qdrant;

/// Run Qdrant as the node of a directory
#[derive(clap::Args, Clone, Debug)]
pub struct QdrantNodeArgs {
    /// The node's directory; the address goes to the file `address` in it
    #[arg(long)]
    pub data: PathBuf,
    /// Qdrant
    #[arg(long)]
    pub program: PathBuf,
    /// The address, between peers, of the member through which it joins
    #[arg(long, value_name = "URI")]
    pub bootstrap: Option<String>,
}

/// Becomes Qdrant.
///
/// # Errors
/// Whenever it comes back.
pub fn run(args: &QdrantNodeArgs) -> anyhow::Result<()> {
    Err(become_qdrant(&args.data, &args.program, args.bootstrap.as_deref()).into())
}
