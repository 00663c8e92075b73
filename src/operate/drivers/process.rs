//! Provider of local nodes, built-in vector nodes or Qdrant: each a process of its own with a directory of its own.
//! IO: processes, files.
//!
//! What runs is told by the lock that a node keeps on its directory, never by memory or by a number in a file: so
//! nodes outlive a crashed controller and are found again, and no directory ever has two processes.

mod qdrant;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::{Call, Effect, NewNode, ProcessSettings, Provider, Unanswered};
use crate::model::{Machine, NodeId, PoolName};
use crate::node::cell::write_durably;
use crate::node::lock::{Holder, ProcessName, holder, start_of};

/// How long a vector node may take to listen, and any node to end after it was asked to: Qdrant has taken over 30 s.
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(35);
const KILL_LIMIT: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(20);
/// Says that the first nodes were registered.
const FIRST_NODES: &str = ".first-nodes-registered";
/// Begins the name of a directory that is being deleted; no node id begins so.
const TOMBSTONE: &str = ".destroyed-";

pub struct Process {
    pool: PoolName,
    /// Holds a directory per node.
    root: PathBuf,
    settings: ProcessSettings,
    program: PathBuf,
    /// Asks the nodes, where these are Qdrant.
    qdrant: Option<qdrant::Asker>,
    /// One creation or removal at a time.
    one: tokio::sync::Mutex<()>,
    /// Nodes whose process was started from here; others may have run before.
    spawned: Mutex<BTreeSet<NodeId>>,
}

/// What a directory says about its node; written before a process is started.
#[derive(Serialize, Deserialize)]
struct Registration {
    id: NodeId,
    /// Idempotency key of the call that made it; empty for the first nodes.
    key: String,
}

/// Whether a process that was started here has ended.
struct Ended(oneshot::Receiver<()>);

impl Ended {
    fn is_so(&mut self) -> bool {
        self.0.try_recv() != Err(oneshot::error::TryRecvError::Empty)
    }
}

impl Process {
    /// Nodes live under `{storage}/nodes`; `program` is this program, which is run as `program node …` or
    /// `program qdrant-node …`.
    pub fn new(pool: PoolName, storage: &Path, settings: ProcessSettings, program: PathBuf) -> Process {
        let (one, spawned) = (tokio::sync::Mutex::default(), Mutex::default());
        let qdrant = settings.qdrant.as_ref().map(qdrant::Asker::new);
        Process { pool, root: storage.join("nodes"), settings, program, qdrant, one, spawned }
    }

    /// Starts every registered node that does not run; registers the first ones in an empty directory. Gives those that
    /// run: one that does not start is told in the log, and keeps no other from starting.
    ///
    /// # Errors
    /// When a directory cannot be used, or there are nodes and none of them starts.
    pub async fn start_registered(&self) -> io::Result<Vec<Machine>> {
        let _one = self.one.lock().await;
        fs::create_dir_all(&self.root)?;
        self.bury()?;
        if !self.root.join(FIRST_NODES).exists() {
            for n in 1..=self.settings.nodes {
                let id = NodeId::new(&format!("{}-{n}", self.pool)).map_err(io::Error::other)?;
                self.register(&id, "")?;
            }
            write_durably(&self.root.join(FIRST_NODES), b"")?;
        }
        let ids = self.registered()?;
        let starts = match &self.qdrant {
            None => futures::future::join_all(ids.iter().map(|id| self.start(id))).await,
            Some(qdrant) => self.start_cluster(qdrant, &ids).await,
        };
        some_run(starts)
    }

    /// Asks every node to end, and waits until all have. Their data stays.
    ///
    /// # Errors
    /// When one cannot be stopped.
    pub async fn stop_all(&self) -> io::Result<()> {
        let _one = self.one.lock().await;
        self.stop_each(self.registered()?).await
    }

    /// The same with the nodes that were started from here. Those that ran before go on.
    ///
    /// # Errors
    /// When one cannot be stopped.
    pub async fn stop_spawned(&self) -> io::Result<()> {
        let _one = self.one.lock().await;
        let spawned = self.spawned.lock().expect("no panic while it is held").clone();
        self.stop_each(self.registered()?.into_iter().filter(|id| spawned.contains(id))).await
    }

    async fn stop_each(&self, ids: impl IntoIterator<Item = NodeId>) -> io::Result<()> {
        let stops = ids.into_iter().map(|id| async move { stop(&self.dir(&id)).await });
        futures::future::try_join_all(stops).await.map(drop)
    }

    fn dir(&self, id: &NodeId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn registered(&self) -> io::Result<Vec<NodeId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| NodeId::new(name).ok()) else { continue };
            match fs::read(entry.path().join("node.json")) {
                Ok(text) => {
                    let told: Registration = serde_json::from_slice(&text)?;
                    if told.id != id {
                        return Err(io::Error::other(format!(
                            "{} is registered as {}",
                            entry.path().display(),
                            told.id
                        )));
                    }
                    ids.push(id);
                }
                // A registration that was interrupted: the node was never there.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(e) => return Err(e),
            }
        }
        ids.sort();
        Ok(ids)
    }

    fn register(&self, id: &NodeId, key: &str) -> io::Result<()> {
        let (dir, file) = (self.dir(id), self.dir(id).join("node.json"));
        if file.exists() {
            return Ok(());
        }
        fs::create_dir_all(&dir)?;
        let registration = Registration { id: id.clone(), key: key.into() };
        write_durably(&file, &serde_json::to_vec(&registration).expect("two texts"))?;
        File::open(&self.root)?.sync_all()
    }

    fn machine(&self, id: &NodeId) -> io::Result<Machine> {
        let dir = self.dir(id);
        let runs = holder(&dir)? != Holder::Nobody;
        // Without an address it has never listened.
        let address = fs::read_to_string(dir.join("address")).unwrap_or_default();
        Ok(Machine { id: id.clone(), address, zone: None, instance: None, ready: Some(runs) })
    }

    /// Runs the registered vector node, unless it runs; returns when it listens.
    async fn start(&self, id: &NodeId) -> io::Result<Machine> {
        let dir = self.dir(id);
        if holder(&dir)? != Holder::Nobody {
            return self.listening(id, None).await;
        }
        // The port it had before, if that is still free: others know it there.
        let last = fs::read_to_string(dir.join("address")).ok();
        let port = last.and_then(|a| a.rsplit_once(':')?.1.parse::<u16>().ok()).filter(|port| is_free(*port));
        let _ = fs::remove_file(dir.join("address")); // written anew once it listens
        let mut command = Command::new(&self.program);
        command
            .arg("node")
            .args(["--id", id.as_str()])
            .args(["--listen", &format!("127.0.0.1:{}", port.unwrap_or(0))])
            .args(["--cpu.cores", &self.settings.cpu_cores.to_string()])
            .args(["--memory.limit", &self.settings.memory_limit_bytes.to_string()])
            .args(["--storage.limit", &self.settings.storage_limit_bytes.to_string()])
            .arg("--data")
            .arg(&dir)
            .env_clear()
            .envs(inherited());
        let ended = self.spawn(id, command)?;
        self.listening(id, Some(ended)).await
    }

    /// Runs `command` as the node's process; what is given back says when it has ended.
    fn spawn(&self, id: &NodeId, mut command: Command) -> io::Result<Ended> {
        let log = File::options().create(true).append(true).open(self.dir(id).join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(false)
            // Signals to the controller's group, Ctrl-C above all, are not for the nodes.
            .process_group(0);
        let what = |e: io::Error| io::Error::new(e.kind(), format!("{} cannot be run: {e}", self.program.display()));
        let mut child = command.spawn().map_err(what)?;
        self.spawned.lock().expect("no panic while it is held").insert(id.clone());
        let (ended, has_ended) = oneshot::channel();
        let node = id.clone();
        // Waited for, so that no dead process is left behind.
        tokio::spawn(async move {
            let status = child.wait().await;
            tracing::info!(%node, ?status, "a node process ended");
            drop(ended);
        });
        Ok(Ended(has_ended))
    }

    async fn listening(&self, id: &NodeId, mut ended: Option<Ended>) -> io::Result<Machine> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let machine = self.machine(id)?;
            if machine.ready == Some(true) && !machine.address.is_empty() {
                return Ok(machine);
            }
            self.may_still_come(id, ended.as_mut(), deadline, "does not listen")?;
            sleep(GLANCE).await;
        }
    }

    /// An error, with what the node wrote last, once its process has ended or the deadline has passed.
    fn may_still_come(
        &self,
        id: &NodeId,
        ended: Option<&mut Ended>,
        deadline: Instant,
        missing: &str,
    ) -> io::Result<()> {
        let has_ended = ended.is_some_and(Ended::is_so);
        if !has_ended && Instant::now() <= deadline {
            return Ok(());
        }
        let log = self.dir(id).join("log");
        let why = fs::read_to_string(&log).unwrap_or_default();
        let last = why.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("it wrote nothing");
        let how = if has_ended { "ended at once" } else { missing };
        Err(io::Error::other(format!("node {id} {how}: {last}\n    hint: see {}", log.display())))
    }

    /// Deletes what earlier removals left.
    fn bury(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TOMBSTONE) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    async fn remove(&self, id: &NodeId) -> io::Result<()> {
        let dir = self.dir(id);
        if dir.exists() {
            stop(&dir).await?;
            fs::rename(&dir, self.root.join(format!("{TOMBSTONE}{id}-{}", uuid::Uuid::now_v7())))?;
            File::open(&self.root)?.sync_all()?;
        }
        if self.root.exists() { self.bury() } else { Ok(()) }
    }
}

/// The nodes that run, after a warning about each other.
///
/// # Errors
/// When none runs though there are some.
fn some_run(starts: Vec<io::Result<Machine>>) -> io::Result<Vec<Machine>> {
    let (mut run, mut first) = (Vec::new(), None);
    for start in starts {
        match start {
            Ok(machine) => run.push(machine),
            Err(error) => {
                tracing::warn!(%error, "a node does not start; the others go on");
                first.get_or_insert(error);
            }
        }
    }
    run.sort_by(|a, b| a.id.cmp(&b.id));
    match first {
        Some(error) if run.is_empty() => Err(io::Error::other(format!("no node starts; {error}"))),
        _ => Ok(run),
    }
}

/// What a node's process has of the controller's environment.
fn inherited() -> impl Iterator<Item = (&'static str, OsString)> {
    ["PATH", "HOME", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// Ends the process that holds the directory: asks first, kills after a while. Only the process that named itself in
/// the lock, never another one that got its number.
async fn stop(dir: &Path) -> io::Result<()> {
    for (signal, patience) in [(Signal::TERM, STOP_LIMIT), (Signal::KILL, KILL_LIMIT)] {
        let deadline = Instant::now() + patience;
        let mut told: Option<ProcessName> = None;
        loop {
            match holder(dir)? {
                Holder::Nobody => return Ok(()),
                Holder::Process(name) if told != Some(name) => {
                    send(name, signal)?;
                    told = Some(name);
                }
                // Its name comes, or its end does.
                Holder::Process(_) | Holder::Unnamed => {}
            }
            if Instant::now() > deadline {
                break;
            }
            sleep(GLANCE).await;
        }
    }
    Err(io::Error::other(format!("the process that uses {} does not end, not even killed", dir.display())))
}

fn send(name: ProcessName, signal: Signal) -> io::Result<()> {
    let Some(pid) = i32::try_from(name.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        process => process?,
    };
    // The descriptor stays with this one process: compared after it was opened, it cannot mean another.
    if start_of(name.pid) != Some(name.started) {
        return Ok(());
    }
    match pidfd_send_signal(process, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        sent => Ok(sent?),
    }
}

fn is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[async_trait]
impl Provider for Process {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        let told = self.registered().and_then(|ids| ids.iter().map(|id| self.machine(id)).collect());
        told.map_err(|e| Unanswered(format!("{}: {e}", self.root.display())))
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        let node = &new.id;
        let _one = self.one.lock().await;
        if let Err(error) = fs::create_dir_all(&self.root).and_then(|()| self.register(node, &call.key)) {
            return Effect::NoEffect(format!("node {node} cannot be registered: {error}"));
        }
        let started = match &self.qdrant {
            None => self.start(node).await,
            Some(qdrant) => self.start_qdrant(qdrant, node).await,
        };
        match started {
            Ok(machine) => Effect::Done(machine),
            // Registered, perhaps running: the list tells.
            Err(error) => Effect::Unknown(error.to_string()),
        }
    }

    async fn destroy(&self, _: &Call, machine: &Machine) -> Effect<()> {
        let _one = self.one.lock().await;
        match self.remove(&machine.id).await {
            Ok(()) => Effect::Done(()),
            Err(error) => Effect::Unknown(format!("node {}: {error}", machine.id)),
        }
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout
    }
}
