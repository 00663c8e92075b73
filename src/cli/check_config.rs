//! `vecscale check-config FILE`: `FILE: ok` and a summary, or every problem and exit code 2.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::config;

#[derive(Clone, Debug, Args)]
pub struct CheckConfigArgs {
    /// The file to check
    pub file: PathBuf,
}

pub fn run(args: &CheckConfigArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let config = config::load(&args.file).map_err(|error| Failure::usage(error.to_string()))?;
    writeln!(out, "{}: ok", args.file.display())?;
    for line in config.summary() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}
