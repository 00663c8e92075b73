//! The stage: a played controller behind a real [`PoolHandle`], a journal in memory, a listener on a free port, and a
//! client that writes its requests byte by byte.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::alerts::{Desk, Matchers, Route};
use crate::clock::TokioClock;
use crate::handle::{Asked, Command, PoolHandle, Refusal, RefusalKind, Reply};
use crate::model::{
    self, Decision, GuardHit, HistoryItem, HistoryKind, NodeId, Observation, Operation, OperationId, PoolName,
    PoolView, ScalingThresholds, Step, Timestamp,
};
use crate::record::{Entry, HistoryQuery, Journal, JournalError, MemoryJournal};
use crate::serve::{AccessSettings, ExternalUrl, Keeper, Reload, ServeOptions, Server};
use crate::telemetry::Telemetry;

use crate::telemetry::tests::pool_view::{AT, decision, observation, operation, rich_view};

/// A running server. Its listeners end with it.
pub struct Stage {
    pub main: SocketAddr,
    pub telemetry_only: SocketAddr,
    pub server: Arc<Server>,
    pub journal: Arc<Shelf>,
    /// What the desks of alerts write to.
    pub alerts: Arc<MemoryJournal>,
    stop: CancellationToken,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stage {
    pub async fn one_pool() -> Stage {
        Stage::of(&["default"], false).await
    }

    pub async fn of(pools: &[&str], lifecycle: bool) -> Stage {
        Stage::with(pools, lifecycle, None, AccessSettings::default()).await
    }

    /// `web`: the file of `--web.config.file`.
    pub async fn with(pools: &[&str], lifecycle: bool, web: Option<PathBuf>, access: AccessSettings) -> Stage {
        let access = Keeper::open(web, access, ([127, 0, 0, 1], 0).into()).expect("a way in");
        let journal = Arc::new(Shelf::default());
        let telemetry = Telemetry::new(AT);
        let alerts = Arc::new(MemoryJournal::new());
        let mut handles: BTreeMap<PoolName, PoolHandle> = BTreeMap::new();
        for name in pools {
            let pool = played(name, desk(name, &alerts, &telemetry).await);
            telemetry.register_pool(&pool.pool, pool.view.clone());
            handles.insert(pool.pool.clone(), pool);
        }
        let reload: Reload = Arc::new(|_| Box::pin(async { Err("config.yaml: 2 problems".to_string()) }));
        let server = Arc::new(Server {
            pools: handles,
            journal: journal.clone(),
            telemetry,
            clock: TokioClock::starting_at(AT),
            access: Arc::new(access),
            options: ServeOptions {
                external_url: Some(ExternalUrl::parse("https://scale.example.com").expect("a URL")),
                reload: lifecycle.then_some(reload),
            },
        });
        let stop = CancellationToken::new();
        let (main, telemetry_only) = (free_port().await, free_port().await);
        let addresses = (address(&main), address(&telemetry_only));
        tokio::spawn(crate::http::serve(main, None, server.service(), stop.clone()));
        tokio::spawn(crate::http::serve(telemetry_only, None, server.telemetry_service(), stop.clone()));
        Stage { main: addresses.0, telemetry_only: addresses.1, server, journal, alerts, stop }
    }

    pub fn view(&self, pool: &str) -> Arc<PoolView> {
        self.server.pools[pool].view.load_full()
    }

    /// Changes the picture of a pool.
    pub fn repaint(&self, pool: &str, change: impl FnOnce(&mut PoolView)) {
        let mut view = PoolView::clone(&self.view(pool));
        change(&mut view);
        self.server.pools[pool].view.store(Arc::new(view));
    }

    /// `POST /path` and the like, with a JSON body unless it is empty.
    pub async fn ask(&self, line: &str, body: &str) -> Reached {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        self.ask_with(line, kind, body).await
    }

    /// The same with header lines of the caller's, each ended by CRLF.
    pub async fn ask_with(&self, line: &str, headers: &str, body: &str) -> Reached {
        let host = if headers.contains("Host:") { "" } else { "Host: localhost:8000\r\n" };
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!("{line} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n{body}");
        reach(self.main, request.as_bytes()).await
    }
}

async fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

/// What came back.
#[derive(Debug)]
pub struct Reached {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reached {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v).next()
    }
}

/// Writes all of `request`, then reads until the other side closes. Status 0: closed without an answer.
pub async fn reach(to: SocketAddr, request: &[u8]) -> Reached {
    let mut stream = TcpStream::connect(to).await.expect("the listener is there");
    stream.write_all(request).await.expect("the whole request is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the connection is closed in order");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Reached { status, head: head.into(), body: body.into() }
}

/// Entries for what asks for more nodes, and for what names its pool in a label of another name.
async fn desk(name: &str, journal: &Arc<MemoryJournal>, telemetry: &Telemetry) -> Arc<Desk> {
    let route = |entry: &str, matchers: &str| Route {
        entry: entry.into(),
        matchers: Matchers::parse([matchers]).expect("matchers"),
    };
    let routes = vec![route("up", r#"scale="up""#), route("own", &format!("for={name}"))];
    let desk = Desk::open(name.into(), routes, journal.clone(), telemetry.clone()).await;
    Arc::new(desk.expect("a journal in memory"))
}

/// A handle whose commands are answered as a controller would, as far as the API can tell.
fn played(name: &str, alerts: Arc<Desk>) -> PoolHandle {
    let view = Arc::new(ArcSwap::from_pointee(rich_view(name, 3)));
    let recent = VecDeque::from([Arc::new(observation(name, 2)), Arc::new(observation(name, 3))]);
    let (commands, mut asked) = mpsc::channel::<Asked>(8);
    let shown = view.clone();
    tokio::spawn(async move {
        while let Some(Asked { command, answer }) = asked.recv().await {
            let mut next = PoolView::clone(&shown.load());
            let result = play(&mut next, command);
            shown.store(Arc::new(next));
            let _ = answer.send(result);
        }
    });
    PoolHandle { pool: name.into(), view, recent: Arc::new(ArcSwap::from_pointee(recent)), commands, alerts }
}

fn play(view: &mut PoolView, command: Command) -> Result<Reply, Refusal> {
    match command {
        Command::SetMode { mode, who } => {
            view.mode = mode;
            view.headline = format!("{} by {who}", mode.as_str());
        }
        Command::SetThresholds { changes, .. } => view.thresholds = changed(view.thresholds, &changes)?,
        Command::DropThresholds { .. } => view.thresholds = ScalingThresholds::of(model::Profile::Default),
        Command::Operate(request) if request.reason.as_deref() == Some("panic") => {
            panic!("the controller's part is over")
        }
        Command::Operate(request) if request.reason.as_deref() == Some("busy") => {
            return Err(Refusal {
                guards: vec![GuardHit {
                    name: model::Guard::OperationRunning,
                    detail: "scale_up runs".into(),
                    until: None,
                }],
                operation: Some(operation("default").id),
                ..refusal(RefusalKind::Conflict, "another operation is running")
            });
        }
        Command::Operate(request) => {
            let mut started = operation(&view.pool);
            started.kind = request.kind;
            started.who = request.who;
            started.detail = request.key.unwrap_or_default();
            return Ok(Reply::Operation(Box::new(started)));
        }
        Command::Maintain { node, lasting, .. } => maintain(view, node, lasting)?,
        Command::OpenAgain { node, .. } if node.as_str() != "n2" => {
            return Err(refusal(RefusalKind::NotFound, "it was not drained"));
        }
        Command::OpenAgain { node, who } => view.headline = format!("{node} opened by {who}"),
        Command::Order { operation: id, .. } if id != operation("default").id => {
            return Err(refusal(RefusalKind::NotFound, "no such operation"));
        }
        Command::Order { order, .. } if order.reason.as_deref() == Some("late") => {
            return Err(Refusal {
                operation: Some(operation("default").id),
                ..refusal(RefusalKind::Conflict, "it is past its point of no return")
            });
        }
        Command::Order { order, .. } => {
            let mut ordered = operation(&view.pool);
            ordered.detail = format!("{:?} by {}: {}", order.what, order.who, order.reason.unwrap_or_default());
            return Ok(Reply::Operation(Box::new(ordered)));
        }
        Command::Halt { who } => (view.mode, view.headline) = (model::Mode::Stopped, format!("halted by {who}")),
        Command::ResetBreaker { reason, who } => {
            view.headline = format!("reset by {who}: {}", reason.unwrap_or_default());
        }
    }
    Ok(Reply::Done)
}

fn changed(mut thresholds: ScalingThresholds, changes: &BTreeMap<String, f64>) -> Result<ScalingThresholds, Refusal> {
    let told = |p: model::ThresholdProblem| refusal(RefusalKind::Unacceptable, &format!("{}: {}", p.name, p.what));
    for (name, value) in changes {
        thresholds.set(name, *value).expect("the API knows the names").map_err(told)?;
    }
    thresholds.problems().into_iter().next().map_or(Ok(thresholds), |p| Err(told(p)))
}

fn maintain(view: &mut PoolView, node: NodeId, lasting: Option<std::time::Duration>) -> Result<(), Refusal> {
    if view.seen.as_ref().is_none_or(|seen| seen.node(&node).is_none()) {
        return Err(refusal(RefusalKind::NotFound, "no such node"));
    }
    match lasting {
        Some(lasting) => view.maintenance.insert(node, AT.plus(lasting)),
        None => view.maintenance.remove(&node),
    };
    Ok(())
}

fn refusal(kind: RefusalKind, detail: &str) -> Refusal {
    Refusal { kind, detail: detail.into(), guards: vec![], operation: None }
}

/// A journal with decisions 1 to 5, two operations and four rows of history, and its moods.
#[derive(Default)]
pub struct Shelf {
    pub mood: ArcSwap<Mood>,
}

/// How the journal takes a question.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mood {
    #[default]
    Well,
    Fails,
    Panics,
    Hangs,
}

impl Shelf {
    async fn read<T>(&self, value: T) -> Result<T, JournalError> {
        match **self.mood.load() {
            Mood::Well => Ok(value),
            Mood::Fails => Err(JournalError::Unreadable("disk I/O error".into())),
            Mood::Panics => panic!("the journal is on fire"),
            Mood::Hangs => std::future::pending().await,
        }
    }
}

fn operations() -> Vec<Operation> {
    let mut ended = operation("default");
    ended.id = OperationId("019ab000-0000-7000-8000-000000000000".into());
    (ended.state, ended.ended_at) = (model::OperationState::Succeeded, Some(AT));
    vec![operation("default"), ended]
}

fn history() -> impl Iterator<Item = HistoryItem> {
    [4, 3, 2, 1].into_iter().map(|id| HistoryItem {
        id,
        at: AT,
        pool: "default".into(),
        kind: if id % 2 == 0 { HistoryKind::Decision } else { HistoryKind::Setting },
        who: "vecscale".into(),
        summary: "something".into(),
        detail: Value::Null,
    })
}

/// What the API never calls.
fn never<T>() -> Result<T, JournalError> {
    panic!("the API does not write to the journal")
}

#[async_trait]
impl Journal for Shelf {
    fn fence(&self) -> u64 {
        1
    }

    async fn load(&self, _: &PoolName, _: &str) -> Result<Option<Value>, JournalError> {
        never()
    }

    async fn save(&self, _: &PoolName, _: &str, _: &Value, _: Option<Entry>) -> Result<(), JournalError> {
        never()
    }

    async fn decided(&self, _: &PoolName, _: &Decision, _: &Value, _: Option<Entry>) -> Result<(), JournalError> {
        never()
    }

    async fn decisions(&self, _: &PoolName, limit: usize, before: Option<u64>) -> Result<Vec<Decision>, JournalError> {
        let ids = (1..before.unwrap_or(6).min(6)).rev().take(limit);
        self.read(ids.map(decision).collect()).await
    }

    async fn decision(&self, _: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        self.read((1..6).contains(&id).then(|| decision(id))).await
    }

    async fn open(&self, _: &Operation, _: Option<&str>, _: Entry) -> Result<(), JournalError> {
        never()
    }

    async fn update(&self, _: &Operation, _: Option<&Step>, _: Option<Entry>) -> Result<(), JournalError> {
        never()
    }

    async fn open_operation(&self, _: &PoolName) -> Result<Option<Operation>, JournalError> {
        never()
    }

    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>, JournalError> {
        self.read(operations().into_iter().find(|o| o.id == *id)).await
    }

    async fn operations(
        &self,
        _: &PoolName,
        limit: usize,
        before: Option<&OperationId>,
    ) -> Result<Vec<Operation>, JournalError> {
        let older = operations().into_iter().filter(|o| before.is_none_or(|b| o.id < *b));
        self.read(older.take(limit).collect()).await
    }

    async fn by_key(&self, _: &PoolName, _: &str, _: Timestamp) -> Result<Option<OperationId>, JournalError> {
        never()
    }

    async fn append(&self, _: Entry) -> Result<(), JournalError> {
        never()
    }

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError> {
        let asked = history()
            .filter(|h| query.kind.is_none_or(|kind| kind == h.kind))
            .filter(|h| query.before.is_none_or(|before| h.id < before));
        self.read(asked.take(query.limit).collect()).await
    }

    async fn observed(&self, _: &Observation) -> Result<(), JournalError> {
        never()
    }

    async fn observations(&self, _: &PoolName, since: Timestamp, step_secs: u64) -> Result<Vec<Value>, JournalError> {
        self.read(vec![json!({"timestamp": since, "step": step_secs, "cpu_usage": {"mean": 0.5, "max": 0.6}})]).await
    }
}
