//! `vecscale drivers test`: tries a pool's scripts or API out with throw-away nodes, and says what holds and what to mend.
//! It takes no lock; a vecscale that runs on the same storage path would act on the throw-away nodes, so then it refuses.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::args::Output;
use super::status::pretty;
use super::temp::TempDir;
use super::{Failure, text};
use crate::app::asked_to_stop;
use crate::config::{self, Config, PoolConfig};
use crate::operate::drivers::conformance::{Check, Conformance, Finding, Report, Verdict};
use crate::operate::drivers::http::HttpProvider;
use crate::operate::drivers::script::ScriptProvider;
use crate::operate::drivers::{Places, Provider, ProviderSettings};
use crate::record::SqliteJournal;

#[derive(Debug, Subcommand)]
pub enum DriversCommand {
    /// Make throw-away nodes, ask twice, ask wrongly, take them away again; say what holds
    Test(TestArgs),
}

#[derive(Clone, Debug, Args)]
pub struct TestArgs {
    /// The configuration
    #[arg(long = "config.file", value_name = "FILE", default_value = "config.yaml")]
    config_file: PathBuf,
    /// The pool, where there are several
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Where the journal of the vecscale lies that uses this configuration, if it ran before: for its fence
    #[arg(long = "storage.path", value_name = "DIR", default_value = "data")]
    storage_path: PathBuf,
    /// For people, or as JSON
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// # Errors
/// Code 1 when something does not hold, 2 when there is nothing that could be tested.
pub async fn test(args: &TestArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let config = config::load(&args.config_file).map_err(|error| Failure::usage(error.to_string()))?;
    let pool = chosen(&config, args.pool.as_deref())?;
    let fence = SqliteJournal::last_fence(&args.storage_path).map_err(|error| {
        Failure::usage(format!("{error}\n    a running vecscale would act on the throw-away nodes of the test"))
    })?;
    let failed = |error: anyhow::Error| Failure::failed(format!("{error:#}"));
    let locks = TempDir::new("drivers").map_err(failed)?;
    let (kind, provider) = provider(pool, &locks)?;

    let mark: String = std::iter::repeat_with(fastrand::alphanumeric).take(6).collect();
    // A fence of 0 has none below it that could be tried.
    let mut run = Conformance::new(provider.as_ref(), pool.name.clone(), fence.max(1), &mark.to_lowercase());
    let interrupted = watched(&mut run, provider.timeout()).await;
    let report = run.report();

    let said = match args.output {
        Output::Json => pretty(&as_json(pool, kind, &report)),
        Output::Text => words(pool, kind, &report),
    };
    out.write_all(said.as_bytes())?;
    match (report.all_hold(), interrupted) {
        (true, false) => Ok(()),
        (true, true) => Err(Failure::failed("interrupted")),
        (false, _) => Err(Failure { code: 1, text: String::new() }),
    }
}

fn chosen<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a PoolConfig, Failure> {
    let names = || config.pools.iter().map(|pool| &*pool.name).collect::<Vec<_>>().join(", ");
    match (name, config.pools.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::usage(format!("which pool? `--pool` is one of: {}", names()))),
        (Some(name), pools) => pools
            .iter()
            .find(|pool| *pool.name == *name)
            .ok_or_else(|| Failure::usage(format!("there is no pool {name}; `--pool` is one of: {}", names()))),
    }
}

fn provider(pool: &PoolConfig, locks: &TempDir) -> Result<(&'static str, Box<dyn Provider>), Failure> {
    let nothing = |why: &str| Failure::usage(format!("pool {}: there is nothing to test: {why}", pool.name));
    match &pool.provider {
        ProviderSettings::Script(settings) => {
            let places = Places { storage: locks.0.clone() };
            Ok(("script", Box::new(ScriptProvider::new(pool.name.clone(), settings.clone(), &places))))
        }
        ProviderSettings::Http(settings) => {
            let provider = HttpProvider::new(settings.clone());
            let provider = provider.map_err(|error| Failure::failed(format!("cannot set up HTTP: {error}")))?;
            Ok(("http", Box::new(provider)))
        }
        ProviderSettings::Process(_) => {
            Err(nothing("provider process is vecscale's own; `vecscale demo` shows it at work"))
        }
        ProviderSettings::None => Err(nothing("with provider none, nodes come and go by other hands")),
    }
}

/// Runs it to its end, with the running check shown on a terminal; gives whether it was interrupted. Either way it is
/// cleaned up, unless a second interruption comes.
async fn watched(run: &mut Conformance<'_>, timeout: Duration) -> bool {
    let progress = run.progress();
    let line = async {
        if io::stderr().is_terminal() { show(progress, timeout).await } else { std::future::pending::<()>().await }
    };
    tokio::pin!(line);
    let interrupted = tokio::select! {
        () = run.check_all() => false,
        () = asked_to_stop() => true,
        () = &mut line => false,
    };
    tokio::select! {
        () = run.clean_up() => {}
        () = asked_to_stop() => {}
        () = &mut line => {}
    }
    if io::stderr().is_terminal() {
        draw("");
    }
    interrupted
}

/// The running check, once a second, for ever.
async fn show(progress: watch::Receiver<Check>, timeout: Duration) {
    let (mut shown, mut since) = (None, Instant::now());
    let mut each = tokio::time::interval(Duration::from_secs(1));
    loop {
        each.tick().await;
        let check = *progress.borrow();
        if shown != Some(check) {
            (shown, since) = (Some(check), Instant::now());
        }
        let number = Check::ALL.iter().position(|c| *c == check).map_or(0, |i| i + 1);
        let (all, took) = (Check::ALL.len(), since.elapsed().as_secs());
        draw(&format!("{number}/{all} {}: {took} s (each call has {} s)", check.name(), timeout.as_secs()));
    }
}

fn draw(line: &str) {
    let mut to = io::stderr();
    let _ = write!(to, "\r\x1b[K{line}").and_then(|()| to.flush()); // nobody left to see it
}

fn as_json(pool: &PoolConfig, kind: &str, report: &Report) -> Value {
    let check = |finding: &Finding| {
        json!({
            "name": finding.check, "verdict": finding.verdict, "promise": finding.check.promise(),
            "detail": text::one_line(&finding.detail),
            "hint": needs_mending(finding).then(|| finding.check.mend()),
        })
    };
    json!({
        "pool": pool.name, "provider": kind, "all_hold": report.all_hold(), "nodes": report.nodes, "lost": report.lost,
        "strangers": report.strangers, "left": report.left,
        "checks": report.findings.iter().map(check).collect::<Vec<_>>(),
    })
}

fn needs_mending(finding: &Finding) -> bool {
    matches!(finding.verdict, Verdict::Failed | Verdict::Warning)
}

fn words(pool: &PoolConfig, kind: &str, report: &Report) -> String {
    let names = |nodes: &[crate::model::NodeId]| nodes.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    let mut said = format!("pool {}, provider {kind}; throw-away nodes: {}\n", pool.name, names(&report.nodes));
    if !report.lost.is_empty() {
        said.push_str(&format!(
            "\nDANGER: {} was taken away though nobody asked for it. Nothing more was asked for. Look after it at once, and \
             do not let vecscale act with this provider.\n\n",
            names(&report.lost)
        ));
    }
    for finding in &report.findings {
        let verdict = match finding.verdict {
            Verdict::Holds => "holds",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
            Verdict::NotRun => "not run",
        };
        said.push_str(&format!("  {verdict:8} {:15} {}\n", finding.check.name(), finding.check.promise()));
        let detail = text::one_line(&finding.detail);
        if !detail.is_empty() {
            said.push_str(&format!("{:27}{detail}\n", ""));
        }
        if needs_mending(finding) {
            said.push_str(&format!("{:27}hint: {}\n", "", finding.check.mend()));
        }
    }
    let count = |verdict| report.findings.iter().filter(|finding| finding.verdict == verdict).count();
    said.push_str(&format!(
        "{} hold, {} failed, {} warned, {} not run\n",
        count(Verdict::Holds),
        count(Verdict::Failed),
        count(Verdict::Warning),
        count(Verdict::NotRun),
    ));
    if !report.strangers.is_empty() {
        said.push_str(&format!("appeared meanwhile, and left alone: {}\n", names(&report.strangers)));
    }
    if !report.left.is_empty() {
        said.push_str(&format!("may still be there, take away by hand: {}\n", names(&report.left)));
    }
    said
}
