//! A real vecscale process for tests: own temporary directory, free ports, gone when dropped, and talkative when it fails.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod before;
pub mod database;
pub mod double;
pub mod machines;
pub mod platform;
pub mod searches;
pub mod servers;
pub mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The program under test.
pub const VECSCALE: &str = env!("CARGO_BIN_EXE_vecscale");

/// A directory with a configuration, and at most one controller running on it.
pub struct World {
    pub dir: tempfile::TempDir,
    pub args: Vec<String>,
    /// What is started: vecscale, or a program that becomes it (`exec`) and its arguments.
    pub program: Vec<String>,
    /// What every request brings along, where callers are asked who they are.
    pub token: Option<String>,
    child: Option<Child>,
    pub url: String,
    starts: u32,
}

impl World {
    /// Writes the configuration; nothing runs yet.
    pub fn new(config: &str) -> World {
        let dir = tempfile::Builder::new().prefix("vecscale-test-").tempdir().expect("a temporary directory");
        fs::write(dir.path().join("config.yaml"), config).expect("writing the configuration");
        let (args, program) = (Vec::new(), vec![VECSCALE.into()]);
        World { dir, args, program, token: None, child: None, url: String::new(), starts: 0 }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn storage(&self) -> PathBuf {
        self.path("data")
    }

    /// Starts the controller on a free port and waits until it answers.
    pub async fn start(&mut self) {
        self.spawn();
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.try_get("/-/healthy").await.is_none() {
            assert!(self.is_running(), "the controller ended by itself\n{}", self.logs());
            assert!(Instant::now() < deadline, "the controller does not answer\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts the controller without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "a controller runs already");
        let port = free_port();
        self.url = format!("http://127.0.0.1:{port}");
        self.starts += 1;
        let log = fs::File::create(self.path(&format!("vecscale-{}.log", self.starts))).expect("the log file");
        let child = self
            .command()
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("starting vecscale");
        self.child = Some(child);
    }

    /// `vecscale run` with this world's configuration and storage.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program[0]);
        command
            .args(&self.program[1..])
            .arg("run")
            .arg(format!("--config.file={}", self.path("config.yaml").display()))
            .arg(format!("--storage.path={}", self.storage().display()))
            .current_dir(self.dir.path());
        command
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running controller").id()
    }

    /// `kill -9` of the controller alone.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running controller");
        child.kill().expect("kill -9");
        child.wait().expect("waiting for the killed controller");
    }

    /// Waits for the end of a controller that a signal was sent to.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("a running controller");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = child.try_wait().expect("waiting for the controller") {
                return status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("the controller did not end within 60 s\n{}", self.logs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a second controller on the same storage, which must be refused with the pid of the first.
    pub async fn refuses_a_second(&self) {
        let mut second = self.command();
        second.arg("--web.listen-address=127.0.0.1:0");
        let output = tokio::task::spawn_blocking(move || second.output().expect("it ends")).await.expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("belongs to another running vecscale (pid {})", self.pid())), "{said}");
    }

    /// An orderly stop; returns the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("a running controller");
        signal(child.id(), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = child.try_wait().expect("waiting for the controller") {
                return status.code();
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("the controller did not stop within 40 s\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// A request to the controller, not sent yet.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = http().request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// GET of a JSON document; `None` when it does not answer 200.
    pub async fn try_get(&self, path: &str) -> Option<String> {
        let answer = self.request(Method::GET, path).send().await.ok()?;
        if answer.status() != 200 {
            return None;
        }
        answer.text().await.ok()
    }

    pub async fn get(&self, path: &str) -> Value {
        let text = self.try_get(path).await.unwrap_or_else(|| panic!("GET {path} failed\n{}", self.logs()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("GET {path}: {e}: {text}"))
    }

    /// POST; status code and JSON answer.
    pub async fn post(&self, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.request(Method::POST, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap_or_else(|e| panic!("POST {path}: {e}\n{}", self.logs()));
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a whole answer");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn status(&self) -> Value {
        self.get("/autoscaling/status").await
    }

    /// Polls until `probe` gives something; panics with the logs when it does not in time.
    pub async fn until<T>(&self, what: &str, within: Duration, probe: impl AsyncFn(&World) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = probe(self).await {
                return found;
            }
            if Instant::now() > deadline {
                let status = self.try_get("/autoscaling/status").await.unwrap_or_default();
                panic!("not within {} s: {what}\nstatus: {status}\n{}", within.as_secs(), self.logs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until there are so many nodes, all healthy, and no operation runs.
    pub async fn settled(&self, nodes: usize) {
        let settled = async |w: &World| {
            let status: Value = serde_json::from_str(&w.try_get("/autoscaling/status").await?).ok()?;
            let healthy = status["metrics"]["healthy_nodes"] == nodes && status["metrics"]["node_count"] == nodes;
            (healthy && status["operation"].is_null()).then_some(())
        };
        self.until(&format!("{nodes} healthy nodes and no operation"), Duration::from_secs(120), settled).await;
    }

    /// The end of every log, for a failing test.
    pub fn logs(&self) -> String {
        (1..=self.starts)
            .map(|n| {
                let text = fs::read_to_string(self.path(&format!("vecscale-{n}.log"))).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                format!("--- log {n}\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n"))
            })
            .collect()
    }

    /// Ids of the processes of embedded nodes below the storage path.
    pub fn node_pids(&self) -> Vec<u32> {
        let mark = self.storage().display().to_string();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|&pid| Some(pid) != self.child.as_ref().map(Child::id))
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                // Qdrant's says nothing of its directory, in which it runs.
                let runs_in = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
                (line.contains("node ") && line.contains(&mark)) || runs_in.starts_with(&mark)
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.node_pids() {
            signal(pid, Signal::KILL);
        }
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal); // gone already
    }
}

/// `kill -9`, and waits until nothing of the process runs any more: for hooks that end a controller at one moment. Who
/// started it still has to wait for it ([`World::kill`] does).
pub fn kill_now(pid: u32) {
    signal(pid, Signal::KILL);
    let deadline = Instant::now() + Duration::from_secs(10);
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    };
    while runs() {
        assert!(Instant::now() < deadline, "{pid} does not die");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

pub fn http() -> reqwest::Client {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().expect("an HTTP client")
}

/// Writes an executable script.
pub fn script(at: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(at, text).expect("writing a script");
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).expect("making it executable");
}

/// Three embedded nodes, checked once a second; `THRESHOLDS` stands for what a test sets besides.
pub const EMBEDDED: &str = "
autoscaling: {mode: active}
pools:
  - name: default
    thresholds: {health_check_interval: 1, scale_up_cooldown: 0, scale_down_cooldown: 0, THRESHOLDS}
    provider: {type: process, nodes: 3, cpu_cores: 0.25, memory_limit: 64MiB, storage_limit: 256MiB, timeout: 60s}
    datastore: {type: vectornode}
";

/// A collection of known vectors on the embedded cluster.
pub struct Vectors {
    pub client: vecscale::node::client::Client,
}

pub const COLLECTION: &str = "articles";

/// The vector of an id: the same on every call, of length 1 as a cosine collection keeps it.
pub fn vector_of(id: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(id);
    let vector: Vec<f32> = (0..32).map(|_| random.f32() - 0.5).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

/// Whether a fetched vector is the one of `id`, up to rounding.
pub fn is_vector_of(id: u64, vector: Option<&Vec<f32>>) -> bool {
    let expected = vector_of(id);
    vector.is_some_and(|v| v.len() == expected.len() && v.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5))
}

impl Vectors {
    /// Eight shards, two copies each.
    pub async fn fill(world: &World, count: u64) -> Vectors {
        let vectors = Vectors { client: vecscale::node::client::Client::new(addresses(world).await) };
        vectors.client.create_collection(COLLECTION, 32, 8, 2).await.expect("the collection");
        for from in (0..count).step_by(200) {
            vectors.write(from..count.min(from + 200)).await.expect("an acknowledged write");
        }
        vectors
    }

    pub async fn write(&self, ids: std::ops::Range<u64>) -> Result<(), vecscale::node::client::ClientError> {
        let points: Vec<(u64, Vec<f32>)> = ids.map(|id| (id, vector_of(id))).collect();
        self.client.upsert(COLLECTION, &points).await
    }

    /// Over ids and vectors; fails when the copies of a shard differ.
    pub async fn digest(&self) -> vecscale::node::client::Digest {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.client.digest(COLLECTION).await {
                Ok(digest) => return digest,
                Err(error) => assert!(Instant::now() < deadline, "no digest: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks the nodes that are there now.
    pub async fn follow(&self, world: &World) {
        self.client.set_nodes(addresses(world).await);
    }
}

/// Where the nodes of the pool are.
pub async fn addresses(world: &World) -> Vec<String> {
    let status = world.status().await;
    let nodes = status["nodes"].as_array().expect("a list of nodes");
    nodes.iter().map(|n| n["address"].as_str().expect("an address").to_string()).collect()
}

/// Lets Debian's promtool judge a page of metrics. Without it the test fails in CI, and says elsewhere that it did not
/// look.
pub fn promtool_has_nothing_to_say(page: &str) {
    if !tools::has("promtool", "prometheus") {
        return;
    }
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("promtool");
    std::io::Write::write_all(&mut promtool.stdin.take().expect("a pipe"), page.as_bytes()).expect("writing the page");
    let said = promtool.wait_with_output().expect("the end of promtool");
    assert!(said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}\n{page}");
}
