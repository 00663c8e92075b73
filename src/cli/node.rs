//! `vecscale node`: what the command line of the built-in vector node may say.

/// The flags of one vector node.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {}
