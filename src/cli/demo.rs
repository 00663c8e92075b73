//! `vecscale demo`: what its command line may say.

/// The flags of the demonstration.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {}
