//! A platform for the `http` provider: an API that makes and removes "machines", with a ledger of its own, faults that can
//! be ordered per call, and hooks at the moments of a call. A double: it says what such an API would say.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::double::{Double, Hand, Place, Trap};
use super::platform::{self, Load, Page};
use super::{kill_now, signal};

/// One call as it came in.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// The node of the path; empty for the list.
    pub node: String,
    pub key: String,
    pub fence: Option<u64>,
    pub authorization: String,
    /// Everything before the body, as it came.
    pub head: String,
    pub body: Value,
}

/// How one call is answered. What is not ordered is answered well.
#[derive(Clone, Debug)]
pub enum Manner {
    Well,
    /// Takes this long before the effect.
    Slow(Duration),
    /// 202 so many times, counted over the calls for this key; then well.
    InProgress(u32),
    /// This status and body, without an effect.
    Instead(u16, String),
    /// The effect, then this status and body.
    Then(u16, String),
    /// The effect, then these bytes as they are; the connection is closed after them.
    ThenRaw(Vec<u8>),
    /// The effect, then as many zero bytes in a body as somebody reads, at most 1 GiB.
    ThenEndless,
    /// The effect, then not a word on an open connection.
    ThenSilence,
    /// The connection is closed before anything is done.
    Unheard,
}

/// What happened on the platform, whatever was answered.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// How often each node was really made, and really removed.
    pub made: BTreeMap<String, u32>,
    pub removed: BTreeMap<String, u32>,
    /// Work on a node that was begun while other work on it went on; never for the same key, which is told to wait.
    pub concurrent: Vec<String>,
    /// Refused for their fence.
    pub fenced: u32,
    /// Every `PUT` and `DELETE`, in the order of arrival.
    pub asked: Vec<Asked>,
    /// Bytes of the longest answer that was taken.
    pub sent: u64,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    nodes: BTreeSet<String>,
    /// Node and key of the work that goes on.
    busy: BTreeMap<String, String>,
    waits: BTreeMap<String, u32>,
    fence: u64,
    orders: BTreeMap<String, VecDeque<Manner>>,
}

type Hook = Arc<dyn Fn(Place, &Asked) + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
    token: Mutex<Option<String>>,
    /// The trap that was set last has gone off.
    sprung: Arc<AtomicBool>,
    /// Where every node's page is.
    page_port: u16,
}

pub struct Machines {
    /// `{base}` of the provider.
    pub base: String,
    pub load: Arc<Mutex<Load>>,
    shared: Arc<Shared>,
}

impl Machines {
    /// A platform that runs `nodes` nodes already.
    pub async fn new(nodes: &[&str], load: Load) -> Machines {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}/v1", listener.local_addr().expect("bound"));
        let pages = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let page_port = pages.local_addr().expect("bound").port();
        let load = Arc::new(Mutex::new(load));
        tokio::spawn(platform::answer(pages, load.clone(), Arc::new(Mutex::new(Page::Whole))));
        let state = State { nodes: nodes.iter().map(ToString::to_string).collect(), ..State::default() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            hook: Mutex::default(),
            token: Mutex::default(),
            sprung: Arc::default(),
            page_port,
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        Machines { base, load, shared }
    }

    /// A configuration of one pool over this platform, with one check a second.
    pub fn config(&self, thresholds: &str) -> String {
        let base = &self.base;
        format!(
            r#"
autoscaling: {{mode: active}}
pools:
  - name: default
    thresholds: {{health_check_interval: 1, {thresholds}}}
    scrape:
      preset: none
      signals:
        cpu_usage: {{gauge: 'my_cpu_ratio{{core="all"}}'}}
        memory_usage: {{gauge: my_memory_ratio}}
        storage_usage: {{gauge: my_disk_ratio}}
        query_throughput: {{counter: my_searches_total}}
    provider: {{type: http, base: "{base}", timeout: 20s}}
    datastore: {{type: none}}
"#
        )
    }

    /// The next call of this method is answered so; further orders wait behind it.
    pub fn order(&self, method: &str, manner: Manner) {
        self.state().orders.entry(method.into()).or_default().push_back(manner);
    }

    /// Called at every moment of each `PUT` and `DELETE` that is carried out, while the call waits: to kill the controller
    /// at exactly that moment, say.
    pub fn hook(&self, hook: impl Fn(Place, &Asked) + Send + Sync + 'static) {
        *self.shared.hook.lock().expect("no panic") = Some(Arc::new(hook));
    }

    pub fn unhook(&self) {
        *self.shared.hook.lock().expect("no panic") = None;
    }

    /// From now on only this bearer token is let in.
    pub fn demand(&self, token: &str) {
        *self.shared.token.lock().expect("no panic") = Some(token.into());
    }

    pub fn ledger(&self) -> Ledger {
        self.state().ledger.clone()
    }

    pub fn nodes(&self) -> BTreeSet<String> {
        self.state().nodes.clone()
    }

    /// The node's address as the platform tells it.
    pub fn address(&self) -> String {
        self.shared.address()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Double for Machines {
    fn config(&self, thresholds: &str) -> String {
        Machines::config(self, thresholds)
    }

    fn set(&self, trap: &Trap) {
        let (trap, sprung, is_set) = (trap.clone(), self.shared.sprung.clone(), AtomicBool::new(true));
        sprung.store(false, Ordering::SeqCst);
        let method = if trap.call == "create" { "PUT" } else { "DELETE" };
        self.hook(move |place, asked| {
            if place != trap.place || asked.method != method || !is_set.swap(false, Ordering::SeqCst) {
                return;
            }
            match trap.signal {
                Hand::Kill => kill_now(trap.pid),
                hand => signal(trap.pid, hand.signal()),
            }
            sprung.store(true, Ordering::SeqCst);
        });
    }

    fn is_sprung(&self) -> bool {
        self.shared.sprung.load(Ordering::SeqCst)
    }

    fn nodes(&self) -> BTreeSet<String> {
        Machines::nodes(self)
    }

    fn ledger(&self) -> Vec<String> {
        let ledger = Machines::ledger(self);
        let times = |what: &str, nodes: &BTreeMap<String, u32>| -> Vec<String> {
            nodes.iter().flat_map(|(node, &n)| vec![format!("{what} {node}"); n as usize]).collect()
        };
        let concurrent = ledger.concurrent.iter().map(|call| format!("concurrent {call}"));
        times("made", &ledger.made).into_iter().chain(times("removed", &ledger.removed)).chain(concurrent).collect()
    }
}

/// What is to be written back.
enum Reply {
    Status(u16, String),
    Raw(Vec<u8>),
    Endless,
    Silence,
    Nothing,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.page_port)
    }

    fn machine(&self, node: &str) -> Value {
        json!({"id": node, "address": self.address(), "instance": format!("i-{node}"), "ready": true, "more": {}})
    }

    async fn at(&self, moment: Place, asked: &Asked) {
        let hook = self.hook.lock().expect("no panic").clone();
        if let Some(hook) = hook {
            let asked = asked.clone();
            tokio::task::spawn_blocking(move || hook(moment, &asked)).await.expect("the hook does not panic");
        }
    }

    async fn serve(&self, mut stream: TcpStream) {
        let Some(asked) = read(&mut stream).await else { return };
        let token = self.token.lock().expect("no panic").clone();
        let known = token.is_none_or(|token| asked.authorization == format!("Bearer {token}"));
        let changes = matches!(asked.method.as_str(), "PUT" | "DELETE") && asked.path.starts_with("/v1/nodes/");
        let reply = if !known {
            Reply::Status(401, json!({"error": format!("who are you? {}", asked.authorization)}).to_string())
        } else if changes {
            self.change(&asked).await
        } else if asked.method == "GET" && asked.path == "/v1/nodes" {
            self.list()
        } else {
            Reply::Status(404, json!({"error": "no such path"}).to_string())
        };
        let carried_out = changes && !matches!(reply, Reply::Nothing);
        if carried_out {
            self.at(Place::BeforeAnswer, &asked).await;
        }
        self.write(&mut stream, reply).await;
        if carried_out {
            self.at(Place::AfterAnswer, &asked).await;
        }
    }

    fn next(&self, method: &str) -> Manner {
        self.state().orders.get_mut(method).and_then(VecDeque::pop_front).unwrap_or(Manner::Well)
    }

    fn list(&self) -> Reply {
        let nodes: Vec<Value> = self.state().nodes.iter().map(|node| self.machine(node)).collect();
        match self.next("GET") {
            Manner::Instead(status, body) | Manner::Then(status, body) => Reply::Status(status, body),
            Manner::ThenRaw(bytes) => Reply::Raw(bytes),
            Manner::ThenEndless => Reply::Endless,
            Manner::ThenSilence => Reply::Silence,
            Manner::Unheard => Reply::Nothing,
            Manner::Well | Manner::Slow(_) | Manner::InProgress(_) => {
                Reply::Status(200, json!({"nodes": nodes}).to_string())
            }
        }
    }

    async fn change(&self, asked: &Asked) -> Reply {
        let manner = self.next(&asked.method);
        if let Some(reply) = self.not_now(asked, &manner) {
            return reply;
        }
        self.at(Place::BeforeEffect, asked).await;
        if let Manner::Slow(time) = manner {
            tokio::time::sleep(time).await;
        }
        let reply = self.effect(asked);
        self.at(Place::AfterEffect, asked).await;
        self.state().busy.remove(&asked.node);
        match manner {
            Manner::Then(status, body) => Reply::Status(status, body),
            Manner::ThenRaw(bytes) => Reply::Raw(bytes),
            Manner::ThenEndless => Reply::Endless,
            Manner::ThenSilence => Reply::Silence,
            _ => reply,
        }
    }

    /// Answers that come without an effect; otherwise the node is being worked on from now on.
    fn not_now(&self, asked: &Asked, manner: &Manner) -> Option<Reply> {
        let mut state = self.state();
        state.ledger.asked.push(asked.clone());
        match manner {
            Manner::Unheard => return Some(Reply::Nothing),
            Manner::Instead(status, body) => return Some(Reply::Status(*status, body.clone())),
            Manner::InProgress(times) => {
                state.waits.insert(asked.key.clone(), *times);
            }
            _ => {}
        }
        if asked.fence.is_none_or(|fence| fence < state.fence) {
            state.ledger.fenced += 1;
            return Some(Reply::Status(409, json!({"error": "an old fence"}).to_string()));
        }
        state.fence = asked.fence.unwrap_or_default();
        if let Some(left) = state.waits.get_mut(&asked.key).filter(|left| **left > 0) {
            *left -= 1;
            return Some(Reply::Status(202, String::new()));
        }
        match state.busy.get(&asked.node) {
            Some(key) if *key == asked.key => return Some(Reply::Status(202, String::new())),
            Some(_) => state.ledger.concurrent.push(format!("{} {}", asked.method, asked.node)),
            None => {}
        }
        state.busy.insert(asked.node.clone(), asked.key.clone());
        None
    }

    fn effect(&self, asked: &Asked) -> Reply {
        let mut state = self.state();
        let node = &asked.node;
        if asked.method == "PUT" {
            let new = state.nodes.insert(node.clone());
            if new {
                *state.ledger.made.entry(node.clone()).or_default() += 1;
            }
            Reply::Status(if new { 201 } else { 200 }, self.machine(node).to_string())
        } else if state.nodes.remove(node) {
            *state.ledger.removed.entry(node.clone()).or_default() += 1;
            Reply::Status(204, String::new())
        } else {
            Reply::Status(404, json!({"error": "no such node"}).to_string())
        }
    }

    async fn write(&self, stream: &mut TcpStream, reply: Reply) {
        let bytes = match reply {
            Reply::Nothing => return,
            Reply::Silence => return tokio::time::sleep(Duration::from_secs(3600)).await,
            Reply::Raw(bytes) => bytes,
            Reply::Status(status, body) => {
                let location =
                    if (300..400).contains(&status) { format!("location: {body}\r\n") } else { String::new() };
                let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
                format!("HTTP/1.1 {status} Said\r\n{location}{length}connection: close\r\n\r\n{body}").into_bytes()
            }
            Reply::Endless => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1u64 << 30);
                let mut sent = 0;
                if stream.write_all(head.as_bytes()).await.is_ok() {
                    while sent < 1 << 30 && stream.write_all(&[b' '; 64 << 10]).await.is_ok() {
                        sent += 64 << 10;
                    }
                }
                let mut state = self.state();
                state.ledger.sent = state.ledger.sent.max(sent);
                return;
            }
        };
        let _ = stream.write_all(&bytes).await; // whoever asked may be dead
        let _ = stream.shutdown().await;
    }
}

/// Reads one request; `None` when it breaks off.
async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.map(|line| line[name.len() + 1..].trim().to_string()).unwrap_or_default()
    };
    let length: usize = header("content-length").parse().unwrap_or(0);
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let mut line = head.split(' ');
    let (method, path) = (line.next()?.to_string(), line.next()?.to_string());
    Some(Asked {
        node: path.strip_prefix("/v1/nodes/").unwrap_or_default().to_string(),
        method,
        path,
        key: header("idempotency-key"),
        fence: header("vecscale-fence").parse().ok(),
        authorization: header("authorization"),
        body: serde_json::from_slice(&bytes[head_end..]).unwrap_or(Value::Null),
        head: head.clone(),
    })
}
