//! `vecscale run`: watches and scales until it is asked to stop.

use std::sync::Arc;

use anyhow::Context;

use super::{Failure, RunArgs};
use crate::app::{self, Options};
use crate::config;
use crate::serve::{ExternalUrl, Keeper};
use crate::telemetry;

/// # Errors
/// Code 2 when the configuration or a flag cannot stand, 1 when the start fails.
pub async fn run(args: RunArgs) -> Result<(), Failure> {
    telemetry::init(args.log_level, args.log_format);
    let config = config::load(&args.config_file).map_err(|error| Failure::usage(error.to_string()))?;
    let external_url = args.external_url.as_ref().map(|url| ExternalUrl::parse(url.as_str())).transpose();
    let access =
        Keeper::open(args.web_config_file, config.access.clone(), args.listen_address).map_err(Failure::usage)?;
    let options = Options {
        config,
        config_file: Some(args.config_file),
        listen: args.listen_address,
        telemetry_listen: args.telemetry_address,
        external_url: external_url.map_err(|why| Failure::usage(format!("--web.external-url: {why}")))?,
        access: Arc::new(access),
        enable_lifecycle: args.enable_lifecycle,
        storage: args.storage_path,
        program: std::env::current_exe()
            .context("finding the program itself")
            .map_err(|error| Failure::failed(format!("{error:#}")))?,
    };
    app::run(options).await.map_err(|error| Failure::failed(format!("{error:#}")))
}
