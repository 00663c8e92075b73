//! `vecscale demo`: a temporary cluster, a moving load, the whole loop within two minutes, and the proof at the end. With
//! `--qdrant`, the cluster is of real Qdrant processes.

mod load;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::app::{App, Options};
use crate::cli::temp::TempDir;
use crate::config;
use crate::handle::PoolHandle;
use crate::model::{Kind, NodeState, Operation, OperationState, Signal};
use crate::node::client::Client;
use crate::serve::Keeper;
use crate::units;

use load::Load;
use view::Screen;

const CONFIG: &str = include_str!("config.yaml");
const QDRANT_CONFIG: &str = include_str!("qdrant.yaml");
const VECTORS: u64 = 20_000;
/// With these, there are more on each of three Qdrant nodes than the demo's configuration allows, and on four not.
const MORE_VECTORS: u64 = 9_000;
/// Each phase must be over by then, or the demo says so and ends.
const PHASE: Duration = Duration::from_secs(75);
/// The same with Qdrant: a join takes seconds, and so does each copy.
const QDRANT_PHASE: Duration = Duration::from_secs(240);
/// The mean CPU usage that a busy phase aims at, above the line of 0.60.
const BUSY: f64 = 0.80;
/// Searches per second to begin with; the busy phases find the rate that this machine needs.
const FIRST_RATE: f64 = 50.0;
/// The calm load as a share of the busy one.
const FALL: f64 = 0.2;

#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// Run this Qdrant, 1.17 or later, in place of the built-in vector nodes
    #[arg(long, value_name = "PROGRAM")]
    pub qdrant: Option<PathBuf>,
}

/// Runs the demo to its end, or until Ctrl-C; either way no process and no file is left.
///
/// # Errors
/// When a phase does not come about, or a vector is missing at the end.
pub async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let storage = TempDir::new("demo")?;
    let text = configuration(args.qdrant.as_deref())?;
    let (config, listen) = (config::parse(&text, "demo", Path::new("."))?, ([127, 0, 0, 1], 0).into());
    let access = Keeper::open(None, config.access.clone(), listen).map_err(anyhow::Error::msg)?;
    let app = App::start(Options {
        config,
        config_file: None,
        listen,
        telemetry_listen: None,
        external_url: None,
        access: Arc::new(access),
        enable_lifecycle: false,
        storage: storage.0.clone(),
        program: std::env::current_exe().context("finding the program itself")?,
    })
    .await?;
    let story = async {
        match args.qdrant {
            None => story(&app).await,
            Some(_) => story_of_qdrant(&app).await,
        }
    };
    let outcome = tokio::select! {
        told = story => told,
        () = crate::app::asked_to_stop() => Err(anyhow::anyhow!("interrupted")),
    };
    app.stop().await;
    outcome
}

fn configuration(qdrant: Option<&Path>) -> anyhow::Result<String> {
    let Some(program) = qdrant else { return Ok(CONFIG.into()) };
    let program = program.canonicalize().with_context(|| format!("--qdrant {}", program.display()))?;
    Ok(QDRANT_CONFIG.replace("PROGRAM", &serde_json::to_string(&program)?))
}

async fn story(app: &App) -> anyhow::Result<()> {
    let mut stage = Stage::set(app, "three vector nodes are starting", PHASE).await?;
    stage.fill().await?;
    stage.searches(FIRST_RATE, "and more, until the nodes are busy");
    for nodes in [4, 5] {
        stage.grow_busy().await?;
        stage.until("one node more", |s| s.serving() == nodes && s.idle()).await?;
    }
    stage.searches(FALL * stage.rate(), "calm: the load falls to a fifth");
    for nodes in [4, 3] {
        stage.until("one node fewer", |s| s.serving() == nodes && s.idle()).await?;
    }
    stage.finish().await
}

/// The same with Qdrant, whose nodes share the machine's processors: its load is vectors, not searches.
async fn story_of_qdrant(app: &App) -> anyhow::Result<()> {
    let mut stage = Stage::set(app, "three Qdrant nodes are starting", QDRANT_PHASE).await?;
    stage.fill().await?;
    stage.searches(FIRST_RATE, "all the time");
    stage.screen.say(format!("load      a second collection comes: {MORE_VECTORS} vectors more"));
    stage.load()?.add(MORE_VECTORS).await?;
    stage.until("one node more", |s| s.serving() == 4 && s.idle()).await?;
    stage.screen.say("load      the second collection is deleted");
    stage.load()?.take_away().await?;
    stage.until("one node fewer", |s| s.serving() == 3 && s.idle()).await?;
    stage.finish().await
}

/// The running demo.
struct Stage {
    pool: PoolHandle,
    screen: Screen,
    phase: Duration,
    /// Operations that ended, oldest first.
    operations: Vec<Operation>,
    load: Option<Load>,
}

impl Stage {
    /// Waits for the first three nodes.
    async fn set(app: &App, what: &str, phase: Duration) -> anyhow::Result<Stage> {
        let pool = app.pools.values().next().context("the demo has one pool")?.clone();
        let mut screen = Screen::new();
        screen.say(format!("{what}; the API is at http://{}", app.address));
        let mut stage = Stage { pool, screen, phase, operations: Vec::new(), load: None };
        stage.until("three healthy nodes", |s| s.serving() == 3 && s.healthy() == 3).await?;
        Ok(stage)
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.load = Some(Load::fill(Client::new(self.addresses()), VECTORS).await?);
        self.screen.say(format!(
            "{VECTORS} vectors in {} shards, {} copies each; a writer goes on writing",
            load::SHARDS,
            load::REPLICAS
        ));
        Ok(())
    }

    fn load(&self) -> anyhow::Result<&Load> {
        self.load.as_ref().context("the load runs")
    }

    fn nodes(&self, counts: impl Fn(&crate::model::NodeSeen) -> bool) -> usize {
        self.pool.view.load().seen.as_ref().map_or(0, |s| s.nodes.iter().filter(|n| counts(n)).count())
    }

    fn serving(&self) -> usize {
        self.nodes(|n| n.state == NodeState::Serving)
    }

    fn healthy(&self) -> usize {
        self.nodes(|n| n.healthy)
    }

    fn idle(&self) -> bool {
        self.pool.view.load().operation.is_none()
    }

    /// Of the nodes that clients are sent to.
    fn addresses(&self) -> Vec<String> {
        let view = self.pool.view.load();
        let nodes = view.seen.iter().flat_map(|s| &s.nodes).filter(|n| n.state == NodeState::Serving);
        nodes.map(|n| n.address.clone()).collect()
    }

    fn mean_cpu(&self) -> Option<f64> {
        self.pool.view.load().seen.as_ref()?.value(&Signal::Cpu)
    }

    /// Follows the pool until `done`.
    async fn until(&mut self, what: &str, done: impl Fn(&Stage) -> bool) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + self.phase;
        while !done(self) {
            if tokio::time::Instant::now() > deadline {
                let why = self.pool.view.load().headline.clone();
                bail!("not within {} s: {what}; {why}", self.phase.as_secs());
            }
            self.follow().await;
        }
        self.follow().await;
        Ok(())
    }

    async fn follow(&mut self) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let view = self.pool.view.load_full();
        if let Some(load) = &self.load {
            load.follow(self.addresses());
        }
        self.screen.show(&view, &self.load_line());
        if let Some(ended) = &view.last_operation
            && self.operations.last().is_none_or(|o| o.id != ended.id)
        {
            self.operations.push(ended.clone());
        }
    }

    fn load_line(&self) -> String {
        let Some(load) = &self.load else { return "none yet".into() };
        let (done, failed) = load.searches();
        format!("{:.0} searches/s; {done} done, {failed} failed; {} vectors written", load.rate(), load.written())
    }

    fn searches(&mut self, per_second: f64, why: &str) {
        if let Some(load) = &self.load {
            load.set_rate(per_second);
        }
        self.screen.say(format!("load      {per_second:.0} searches/s ({why})"));
    }

    fn rate(&self) -> f64 {
        self.load.as_ref().map_or(0.0, Load::rate)
    }

    /// Finds the rate that keeps the nodes busy, machines being different, until an operation begins.
    async fn grow_busy(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + self.phase;
        while self.idle() {
            if tokio::time::Instant::now() > deadline {
                bail!("the nodes do not become busy; {}", self.pool.view.load().headline);
            }
            let factor = self.mean_cpu().map_or(1.0, |cpu| (BUSY / cpu.max(0.01)).clamp(0.7, 1.5));
            if let Some(load) = &self.load {
                load.set_rate(load.rate() * factor);
            }
            // The CPU gauge looks back two seconds.
            for _ in 0..6 {
                self.follow().await;
            }
        }
        self.screen.say(format!("load      {:.0} searches/s", self.rate()));
        Ok(())
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        let load = self.load.take().context("the load runs")?;
        let (done, failed) = load.searches();
        let (written, counted, found) = load.prove().await?;
        let count =
            |kind| self.operations.iter().filter(|o| o.kind == kind && o.state == OperationState::Succeeded).count();
        let (up, down) = (count(Kind::ScaleUp), count(Kind::ScaleDown));
        let moved = self.operations.iter().map(view::moved).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let took = self.screen.elapsed().as_secs();
        view::put(&format!(
            "\n{up} scale-ups, {down} scale-downs in {took} s; {} shards, {} moved; {done} searches, {failed} failed\n\
             proof: {written} vectors written, {counted} counted, {found} fetched and equal\n",
            moved.0,
            units::bytes(moved.1),
        ));
        if counted != written || found != written {
            bail!("{} vectors are missing", written - found.min(counted));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_configurations_can_stand() {
        for qdrant in [None, Some(Path::new("/bin/sh"))] {
            let text = configuration(qdrant).expect("a program that is there");
            config::parse(&text, "demo", Path::new(".")).unwrap_or_else(|error| panic!("{error}"));
        }
        let error = configuration(Some(Path::new("/nonexistent/qdrant"))).expect_err("no such program");
        assert!(format!("{error:#}").starts_with("--qdrant /nonexistent/qdrant: "), "{error:#}");
    }
}
