//! Wires the stages of one process together, and takes them apart again. IO.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use futures::FutureExt;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, PoolConfig};
use crate::controller::{self, Eyes, Parts, Reload, Running, StopFile, Taking};
use crate::handle::PoolHandle;
use crate::model::{HistoryKind, PoolName};
use crate::operate::drivers::http::HttpProvider;
use crate::operate::drivers::none::{NoDatastore, NoProvider, Probe};
use crate::operate::drivers::process::Process;
use crate::operate::drivers::qdrant::{Qdrant, Rest};
use crate::operate::drivers::script::{self, ScriptProvider};
use crate::operate::drivers::script_store::ScriptStore;
use crate::operate::drivers::service_hooks::ServiceHooks;
use crate::operate::drivers::vectornode::Vectornode;
use crate::operate::drivers::{Datastore, DatastoreSettings, Places, Provider, ProviderSettings};
use crate::record::{Entry, Journal, SqliteJournal};
use crate::scrape::Sources;
use crate::scrape::prometheus::Prometheus;
use crate::scrape::settings::ScrapeSettings;
use crate::serve::{self, ExternalUrl, Keeper, ServeOptions, Server};
use crate::telemetry::Telemetry;

/// What a process is started with.
#[derive(Clone)]
pub struct Options {
    pub config: Config,
    /// Where a reload reads the configuration anew; `None`: there is no file.
    pub config_file: Option<PathBuf>,
    pub listen: SocketAddr,
    /// A second listener that serves only what Prometheus reads.
    pub telemetry_listen: Option<SocketAddr>,
    pub external_url: Option<ExternalUrl>,
    /// Who may call, over which wire.
    pub access: Arc<Keeper>,
    pub enable_lifecycle: bool,
    pub storage: PathBuf,
    /// The program that runs embedded nodes: vecscale itself.
    pub program: PathBuf,
}

/// A started vecscale.
pub struct App {
    pub address: SocketAddr,
    pub pools: BTreeMap<PoolName, PoolHandle>,
    reloader: Arc<Reloader>,
    controllers: Vec<JoinHandle<()>>,
    embedded: Vec<Arc<Process>>,
    listeners: Vec<JoinHandle<()>>,
    alarm: Alarm,
    telemetry: Telemetry,
    stop_serving: CancellationToken,
    stop_controllers: CancellationToken,
}

/// The pools while they start.
#[derive(Default)]
struct Started {
    pools: BTreeMap<PoolName, PoolHandle>,
    controllers: Vec<JoinHandle<()>>,
    embedded: Vec<Arc<Process>>,
    reloadable: BTreeMap<PoolName, Reloadable>,
    minutes: Vec<tokio::sync::mpsc::Sender<()>>,
}

/// What a reload needs of a running pool.
struct Reloadable {
    eyes: Eyes,
    reloads: tokio::sync::mpsc::Sender<Reload>,
}

impl App {
    /// Starts everything: journal, nodes of the embedded provider, controllers, listeners.
    ///
    /// # Errors
    /// When anything of it is not possible; what was started is stopped again, and nodes that ran before go on.
    pub async fn start(options: Options) -> anyhow::Result<App> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let main = bind(options.listen, "--web.listen-address").await?;
        let second = match options.telemetry_listen {
            Some(address) => Some(bind(address, "--web.telemetry-address").await?),
            None => None,
        };
        let (journal, _) = SqliteJournal::open(&options.storage, clock.as_ref())?;
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let telemetry = Telemetry::new(clock.now());
        telemetry.config_reloaded(Ok(()), clock.now());
        script::prepare(&options.storage).await;
        let stop_controllers = CancellationToken::new();

        let mut started = Started::default();
        for pool in &options.config.pools {
            let begun = start_pool(pool, &options, &journal, &clock, &telemetry, &stop_controllers, &mut started).await;
            if let Err(error) = begun {
                give_up(&stop_controllers, started.controllers, &started.embedded).await;
                return Err(error.context(format!("pool {}", pool.name)));
            }
        }
        let alarm = match Alarm::start(std::mem::take(&mut started.minutes)).await {
            Ok(alarm) => alarm,
            Err(error) => {
                give_up(&stop_controllers, started.controllers, &started.embedded).await;
                return Err(error);
            }
        };
        let reloader = Arc::new(Reloader {
            file: options.config_file.clone(),
            config: tokio::sync::Mutex::new(options.config.clone()),
            pools: started.reloadable,
            access: options.access.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
        });
        let mut app = App {
            address: main.local_addr()?,
            pools: started.pools,
            reloader,
            controllers: started.controllers,
            embedded: started.embedded,
            listeners: Vec::new(),
            alarm,
            telemetry,
            stop_serving: CancellationToken::new(),
            stop_controllers,
        };
        app.serve(&options, journal, clock, main, second);
        Ok(app)
    }

    fn serve(
        &mut self,
        options: &Options,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        main: TcpListener,
        second: Option<TcpListener>,
    ) {
        let reloader = self.reloader.clone();
        let reload: serve::Reload = Arc::new(move |who| {
            let reloader = reloader.clone();
            async move { reloader.reload(&who).await }.boxed()
        });
        let server = Arc::new(Server {
            pools: self.pools.clone(),
            journal,
            telemetry: self.telemetry.clone(),
            clock,
            access: options.access.clone(),
            options: ServeOptions {
                external_url: options.external_url.clone(),
                reload: options.enable_lifecycle.then_some(reload),
            },
        });
        let tls = options.access.tls();
        let tell = |telemetry: &Telemetry, what, address: SocketAddr| {
            telemetry.listening(what, address, tls.is_some());
            let asked = options.access.in_force().credentials.are_asked();
            if asked && tls.is_none() && !address.ip().to_canonical().is_loopback() {
                telemetry.credentials_in_the_clear(address);
            }
        };
        tell(&self.telemetry, "API", self.address);
        let stop = self.stop_serving.clone();
        self.reloader.tell_of_exposed();
        let (reloader, until) = (self.reloader.clone(), stop.clone());
        self.listeners.push(tokio::spawn(async move { reloader.watch_access(until).await }));
        self.listeners.push(tokio::spawn(crate::http::serve(main, tls.clone(), server.service(), stop.clone())));
        if let Some(second) = second {
            if let Ok(address) = second.local_addr() {
                tell(&self.telemetry, "telemetry", address);
            }
            self.listeners.push(tokio::spawn(crate::http::serve(
                second,
                tls.clone(),
                server.telemetry_service(),
                stop,
            )));
        }
    }

    /// Reads the configuration anew; taken whole or refused whole.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn reload(&self, who: &str) -> Result<String, String> {
        self.reloader.reload(who).await
    }

    /// An orderly end: requests are answered, the running step is parked, embedded nodes are stopped, their data stays.
    pub async fn stop(self) {
        self.telemetry.program("stopping");
        self.stop_serving.cancel();
        for listener in self.listeners {
            let _ = listener.await; // a panic in it was reported by the runtime
        }
        self.alarm.stop().await;
        end(&self.stop_controllers, self.controllers).await;
        for provider in &self.embedded {
            told(provider.stop_all().await);
        }
    }
}

/// The end of a start that failed: of the embedded nodes only those that it has started are stopped.
async fn give_up(stop: &CancellationToken, controllers: Vec<JoinHandle<()>>, embedded: &[Arc<Process>]) {
    end(stop, controllers).await;
    for provider in embedded {
        told(provider.stop_spawned().await);
    }
}

async fn end(stop: &CancellationToken, controllers: Vec<JoinHandle<()>>) {
    stop.cancel();
    for controller in controllers {
        let _ = controller.await; // a panic in it was reported by the runtime
    }
}

fn told(stopped: io::Result<()>) {
    if let Err(error) = stopped {
        tracing::error!(%error, "an embedded node could not be stopped");
    }
}

async fn start_pool(
    pool: &PoolConfig,
    options: &Options,
    journal: &Arc<dyn Journal>,
    clock: &Arc<dyn Clock>,
    telemetry: &Telemetry,
    stop: &CancellationToken,
    started: &mut Started,
) -> anyhow::Result<()> {
    let places = Places { storage: options.storage.clone() };
    let provider: Arc<dyn Provider> = match &pool.provider {
        ProviderSettings::Process(settings) => {
            let place = options.storage.join(&*pool.name);
            let provider = Arc::new(Process::new(pool.name.clone(), &place, settings.clone(), options.program.clone()));
            started.embedded.push(provider.clone());
            provider.start_registered().await.context("starting the embedded nodes")?;
            provider
        }
        ProviderSettings::Script(settings) => {
            Arc::new(ScriptProvider::new(pool.name.clone(), settings.clone(), &places))
        }
        ProviderSettings::Http(settings) => Arc::new(HttpProvider::new(settings.clone())?),
        ProviderSettings::None => {
            Arc::new(NoProvider::new(pool.nodes.clone().unwrap_or_default(), pool.node_files.clone()))
        }
    };
    let store: Arc<dyn Datastore> = match &pool.datastore {
        DatastoreSettings::Vectornode => Arc::new(Vectornode::start(provider.clone(), journal.fence())),
        DatastoreSettings::Qdrant(settings) => {
            let rest = Rest::new(settings.clone()).map_err(|why| anyhow::anyhow!("datastore: {why}"))?;
            Arc::new(Qdrant::new(provider.clone(), Arc::new(rest)))
        }
        DatastoreSettings::Script(settings) => {
            Arc::new(ScriptStore::new(pool.name.clone(), (**settings).clone(), &places))
        }
        DatastoreSettings::None => Arc::new(NoDatastore::new(provider.clone(), probe(&pool.scrape, clock)?)),
    };
    let store: Arc<dyn Datastore> = match &pool.service_hooks {
        Some(hooks) => Arc::new(ServiceHooks::new(store, pool.name.clone(), hooks.clone(), &places)),
        None => store,
    };
    let sources = Arc::new(Sources::new(pool.scrape.clone())?);
    let eyes = Eyes { provider, store, sources, clock: clock.clone() };
    let parts = Parts {
        config: pool.clone(),
        first_mode: options.config.mode,
        eyes: eyes.clone(),
        journal: journal.clone(),
        telemetry: telemetry.clone(),
        stop_file: stop_file(&options.storage),
    };
    let Running { handle, reloads, minutes, task } = controller::start(parts, stop.clone()).await?;
    started.controllers.push(task);
    started.minutes.push(minutes);
    started.pools.insert(pool.name.clone(), handle);
    started.reloadable.insert(pool.name.clone(), Reloadable { eyes, reloads });
    Ok(())
}

/// How a node without a datastore shows that it serves: as it does at every check.
fn probe(scrape: &ScrapeSettings, clock: &Arc<dyn Clock>) -> anyhow::Result<Probe> {
    if let Some(asking) = scrape.prometheus.clone().filter(|asking| asking.health.is_some()) {
        let prometheus = Prometheus::new(asking).map_err(|why| anyhow::anyhow!("prometheus: {why}"))?;
        return Ok(Probe::Prometheus(Box::new(prometheus), clock.clone()));
    }
    let path = scrape.pages.first().map_or("/", |page| page.path.as_str()).to_string();
    Ok(Probe::Page { client: crate::http::client(|builder| builder)?, path })
}

fn stop_file(storage: &Path) -> StopFile {
    let file = storage.join("STOP");
    // A path that cannot be looked at is taken for a stop: what cannot be proven safe is not done.
    Arc::new(move || file.try_exists().unwrap_or(true))
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{flag} {address}: cannot listen there\n    hint: another program may have the port; choose another")
    })
}

/// Takes a changed configuration while everything runs.
struct Reloader {
    file: Option<PathBuf>,
    config: tokio::sync::Mutex<Config>,
    pools: BTreeMap<PoolName, Reloadable>,
    access: Arc<Keeper>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
}

impl Reloader {
    async fn reload(&self, who: &str) -> Result<String, String> {
        let outcome = self.try_reload(who).await.map_err(|error| format!("{error:#}"));
        self.telemetry.config_reloaded(outcome.as_ref().map(|_| ()).map_err(String::as_str), self.clock.now());
        outcome
    }

    async fn try_reload(&self, who: &str) -> anyhow::Result<String> {
        let Some(file) = &self.file else { bail!("this vecscale was started without a configuration file") };
        let mut held = self.config.lock().await;
        let next = config::load(file)?;
        let refused = Config::refused_at_reload(&held, &next);
        if !refused.is_empty() {
            let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
            bail!("{}", lines.join("\n"));
        }
        let changes = Config::differences(&held, &next);
        let prepared = self.prepared(&next)?;
        self.access.try_out(next.access.clone()).map_err(anyhow::Error::msg)?;
        for (pool, eyes) in &prepared {
            self.ask(pool, eyes.clone(), Taking::Trial).await?;
        }
        self.access.take(next.access.clone()).map_err(anyhow::Error::msg)?;
        self.tell_of_exposed();
        for (pool, eyes) in prepared {
            self.ask(pool, eyes, Taking::ForGood).await?;
        }
        *held = next;
        let summary = if changes.is_empty() { "nothing changed".into() } else { changes.join("; ") };
        self.note(who, &format!("configuration reloaded: {summary}"), json!({"changes": changes})).await;
        Ok(summary)
    }

    /// Takes changed files of access as they come, until `stop`.
    async fn watch_access(&self, stop: CancellationToken) {
        while let Some(outcome) = stop.run_until_cancelled(self.access.renewed()).await {
            self.telemetry.web_config_reloaded(outcome.as_ref().copied().map_err(String::as_str));
            if outcome.is_ok() {
                self.note("changed files", "TLS and credentials taken anew", json!({})).await;
            }
        }
    }

    fn tell_of_exposed(&self) {
        self.access.exposed().iter().for_each(|file| self.telemetry.token_exposed(file));
    }

    /// A row in the audit trail of each pool.
    async fn note(&self, who: &str, summary: &str, detail: serde_json::Value) {
        for pool in self.pools.keys() {
            let (at, pool, detail) = (self.clock.now(), pool.clone(), detail.clone());
            let kind = HistoryKind::Program;
            let entry = Entry { at, pool, kind, who: who.into(), summary: summary.into(), detail };
            // It is in force by now: not to be told as refused because this one row is missing.
            if let Err(error) = self.journal.append(entry).await {
                self.telemetry.journal_error(&error);
            }
        }
    }

    /// Every pool's new sources, before any pool takes anything.
    fn prepared<'a>(&self, next: &'a Config) -> anyhow::Result<Vec<(&'a PoolConfig, Eyes)>> {
        let with_eyes = |pool: &'a PoolConfig| {
            let running = self.pools.get(&pool.name).context("a pool that runs")?;
            let sources = Arc::new(Sources::new(pool.scrape.clone())?);
            Ok((pool, Eyes { sources, ..running.eyes.clone() }))
        };
        next.pools.iter().map(with_eyes).collect()
    }

    async fn ask(&self, pool: &PoolConfig, eyes: Eyes, taking: Taking) -> anyhow::Result<()> {
        let running = self.pools.get(&pool.name).context("a pool that runs")?;
        let (answer, answered) = oneshot::channel();
        running.reloads.send(Reload { config: pool.clone(), eyes, taking, answer }).await.context("it is stopping")?;
        answered.await.context("it is stopping")?.map_err(|why| anyhow::anyhow!("pool {}: {why}", pool.name))
    }
}

/// Resolves when the process is asked to end: Ctrl-C or SIGTERM. It listens from the call on, not only once awaited.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let wanted = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        let [Ok(mut interrupt), Ok(mut terminate)] = wanted else {
            return std::future::pending().await; // without signal handlers the default action ends the process anyway
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Runs until asked to stop; SIGHUP reloads.
///
/// # Errors
/// When the start fails.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    // Before the start: who is asked to stop meanwhile ends in order too, and leaves no embedded node behind.
    let stop = asked_to_stop();
    tokio::pin!(stop);
    let app = App::start(options).await?;
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = hangup.recv() => {
                let _ = app.reload("SIGHUP").await; // told in the log and the series
            }
        }
    }
    app.stop().await;
    Ok(())
}
