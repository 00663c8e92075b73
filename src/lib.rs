//! vecscale watches a distributed vector database and grows, shrinks and rebalances it, shards included.
//!
//! # The way of the data
//!
//! ```text
//! scrape   IO     pages of the nodes, queries    -> samples
//! observe  pure   samples                        -> observation
//! decide   pure   observation + policy + memory  -> decision + memory
//! operate  pure   decision -> operation (plan, shards, placement), orders about it;  IO: its steps (runner, proof, drivers)
//! record   IO     the journal in SQLite: decisions, operations, steps, settings
//! serve    IO     /metrics and the REST API, answered from the pools' pictures and the journal
//! alerts   Alertmanager's notifications -> which alerts of a pool fire, at which `decide` looks;  IO: the journal
//! ```
//!
//! A stage knows [`model`], the nouns, and its own settings; it knows neither its neighbours nor the whole file.
//! [`controller`] joins the stages, one a pool: every check, order, finished step and stop reaches it as one closed
//! event, and what it knows goes out as one immutable picture ([`handle`]). [`app`] wires a process together.
//! [`config`] turns the file into checked settings; [`telemetry`] has one method per event. [`clock`] is the only
//! reader of the wall clock; [`http`], [`units`] and [`spelling`] are what several parts share.
//! [`schedule`] says of an instant which windows are open and what they lay over the thresholds (pure); [`alarm`] wakes the
//! controllers each minute.
//! [`replay`] drives the same controller with an invented cluster and a paused clock, and holds it against its promises.
//! [`node`] is the built-in vector node: a program of its own, it and the controller meet only over HTTP.
//!
//! # Where to begin
//!
//! - [`cli::main`]: the program; one file per command.
//! - [`app::App::start`]: a whole vecscale in this process, as `vecscale run` and `vecscale demo` have it.
//! - [`decide::decide`]: why something is done, or not; `decide/guards/mod.rs` has the table of what forbids what.
//! - [`operate::plan`] and [`operate::runner`]: the steps of each kind of work, and how they survive `kill -9`.
//! - [`operate::drivers`]: the traits behind which a further provider or datastore goes.
//! - [`record::Journal`]: what is kept, and in which transactions.
//! - [`replay`]: an invented cluster that drives all of the above through faults, a seed a story.
//!
//! # Absent on purpose
//!
//! - No way to remove a node without proof that it is empty, and no `force`: [`operate::proof`] makes the only value
//!   that the leave step takes.
//! - No web framework: hyper, tower layers and one table of routes.
//! - No crate for the text exposition format: those at hand lose samples silently, or refuse what Prometheus takes.
//! - No default for a missing reading: an error is "unknown", never zero and never empty.
//! - No consensus among vector nodes: their map has one writer, the controller's driver.
//! - No reading of the environment or of files by the stages that think: `now` and settings are arguments.

pub mod alarm;
pub mod alerts;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controller;
pub mod decide;
pub mod handle;
pub mod http;
pub mod model;
pub mod node;
pub mod observe;
pub mod operate;
pub mod record;
pub mod replay;
pub mod schedule;
pub mod scrape;
pub mod serve;
pub mod spelling;
pub mod telemetry;
pub mod units;
