//! Qdrant in place of vector nodes: who founds the cluster, who joins it through whom, and when a start is done.
//! IO: processes, files, HTTP.
//!
//! A node without a member to join founds a cluster of its own and says that it is ready. So exactly one ever does, and
//! who is new joins through a member that is one now, one at a time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::{Process, inherited};
use crate::model::{Machine, NodeId};
use crate::node::cell::write_durably;
use crate::node::lock::{Holder, holder};
use crate::operate::drivers::{QdrantProgram, qdrant_node};

/// Says that a node has founded the cluster.
const FOUNDED: &str = ".cluster-founded";
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const GLANCE: Duration = Duration::from_millis(200);

/// How a node comes into the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// It is the first.
    Founds,
    /// Its storage says that it is a member already.
    Returns,
    /// Through the member whose address between peers this is.
    Through(String),
}

/// # Errors
/// When there is a cluster, and no way into it.
fn entry(has_joined: bool, is_founded: bool, member: Option<String>) -> Result<Entry, &'static str> {
    match (has_joined, member, is_founded) {
        (true, _, _) => Ok(Entry::Returns),
        (false, Some(member), _) => Ok(Entry::Through(member)),
        (false, None, false) => Ok(Entry::Founds),
        (false, None, true) => Err("it has no storage, and no member runs through which it could join"),
    }
}

/// What a member says of itself and the cluster.
#[derive(Deserialize)]
struct Told {
    peer_id: u64,
    peers: BTreeMap<String, IgnoredAny>,
    raft_info: RaftInfo,
    consensus_thread_status: ThreadStatus,
}

#[derive(Deserialize)]
struct RaftInfo {
    leader: Option<u64>,
    is_voter: bool,
}

#[derive(Deserialize)]
struct ThreadStatus {
    consensus_thread_status: String,
}

impl Told {
    /// A voter with a leader. One that was removed goes on answering, and lists itself alone.
    fn is_member(&self) -> bool {
        let lists = |peer: u64| self.peers.contains_key(&peer.to_string());
        self.consensus_thread_status.consensus_thread_status == "working"
            && self.raft_info.is_voter
            && lists(self.peer_id)
            && self.raft_info.leader.is_some_and(lists)
    }
}

/// Asks Qdrant nodes how they stand.
pub struct Asker {
    program: QdrantProgram,
    http: reqwest::Client,
}

impl Asker {
    pub fn new(program: &QdrantProgram) -> Asker {
        let mut headers = HeaderMap::new();
        let key = program.env.get("QDRANT__SERVICE__API_KEY").and_then(|key| HeaderValue::from_str(key).ok());
        if let Some(mut key) = key {
            key.set_sensitive(true);
            headers.insert("api-key", key);
        }
        let http = crate::http::client(|builder| builder.default_headers(headers.clone()).timeout(ANSWER_LIMIT));
        Asker { program: program.clone(), http: http.expect("no file is read to build a client") }
    }

    /// Whether it answers, whatever it says.
    async fn answers(&self, address: &str) -> bool {
        self.http.get(format!("{address}/healthz")).send().await.is_ok()
    }

    /// It says that it is ready, which only gets on while it is asked.
    async fn is_ready(&self, address: &str) -> bool {
        self.http.get(format!("{address}/readyz")).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    async fn told(&self, address: &str) -> Option<Told> {
        #[derive(Deserialize)]
        struct Answer {
            result: Told,
        }
        let answer = self.http.get(format!("{address}/cluster")).send().await.ok()?;
        Some(answer.json::<Answer>().await.ok()?.result)
    }
}

impl Process {
    /// Starts every registered node that does not run, and says how each came out. Members come back together, since it
    /// takes most of them to have a leader; the new ones join one after the other.
    pub(super) async fn start_cluster(&self, qdrant: &Asker, ids: &[NodeId]) -> Vec<io::Result<Machine>> {
        // One whose storage tells nothing is none that may found a cluster: how it is broken is said when it is started.
        let is_new = |id: &&NodeId| matches!(has_joined(&self.dir(id)), Ok(false));
        let (new, members): (Vec<&NodeId>, Vec<&NodeId>) = ids.iter().partition(is_new);
        let mut starts = futures::future::join_all(members.iter().map(|id| self.start_qdrant(qdrant, id))).await;
        for id in new {
            let start = self.start_qdrant(qdrant, id).await;
            // Whoever comes after a founder of whom nothing is known would found a second cluster.
            let is_over = start.is_err() && members.is_empty() && !self.root.join(FOUNDED).exists();
            starts.push(start);
            if is_over {
                break;
            }
        }
        starts
    }

    /// Runs the registered node, unless it runs. Returns when a new one is a member and a returning one answers.
    pub(super) async fn start_qdrant(&self, qdrant: &Asker, id: &NodeId) -> io::Result<Machine> {
        let dir = self.dir(id);
        let is_new = !has_joined(&dir)?;
        let mut ended = match holder(&dir)? {
            Holder::Nobody => {
                let entry = self.entry(qdrant, id).await?;
                Some(self.spawn(id, self.qdrant_command(qdrant, &dir, &entry))?)
            }
            Holder::Process(_) | Holder::Unnamed => None,
        };
        let missing = if is_new { "does not become a member" } else { "does not answer" };
        let deadline = Instant::now() + self.settings.timeout;
        let machine = loop {
            let machine = self.machine(id)?;
            if machine.ready == Some(true) && self.is_up(qdrant, &machine.address, is_new).await {
                break machine;
            }
            self.may_still_come(id, ended.as_mut(), deadline, missing)?;
            sleep(GLANCE).await;
        };
        if is_new && !self.root.join(FOUNDED).exists() {
            write_durably(&self.root.join(FOUNDED), b"")?;
        }
        Ok(machine)
    }

    async fn is_up(&self, qdrant: &Asker, address: &str, is_new: bool) -> bool {
        if !is_new {
            return qdrant.answers(address).await;
        }
        qdrant.is_ready(address).await && qdrant.told(address).await.is_some_and(|told| told.is_member())
    }

    async fn entry(&self, qdrant: &Asker, id: &NodeId) -> io::Result<Entry> {
        let mut is_founded = self.root.join(FOUNDED).exists();
        // Of two clusters, where a person has made a second one, the larger.
        let mut best: Option<(usize, String)> = None;
        for other in self.registered()?.iter().filter(|other| *other != id) {
            let dir = self.dir(other);
            // One whose storage cannot be read has one, and keeps nobody out.
            is_founded |= has_joined(&dir).unwrap_or(true);
            let machine = self.machine(other)?;
            let Ok(Some(ports)) = qdrant_node::ports(&dir) else { continue };
            if machine.ready != Some(true) {
                continue;
            }
            if let Some(told) = qdrant.told(&machine.address).await.filter(Told::is_member)
                && best.as_ref().is_none_or(|(peers, _)| told.peers.len() > *peers)
            {
                best = Some((told.peers.len(), ports.peer_uri()));
            }
        }
        let member = best.map(|(_, uri)| uri);
        entry(has_joined(&self.dir(id))?, is_founded, member)
            .map_err(|why| io::Error::other(format!("node {id} is not started: {why}")))
    }

    fn qdrant_command(&self, qdrant: &Asker, dir: &Path, entry: &Entry) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("qdrant-node").arg("--data").arg(dir).arg("--program").arg(&qdrant.program.path);
        if let Entry::Through(member) = entry {
            command.args(["--bootstrap", member]);
        }
        // Its log has a line per request otherwise.
        command.env_clear().envs(inherited()).env("QDRANT__LOG_LEVEL", "WARN").envs(&qdrant.program.env);
        command
    }
}

/// Whether the node's storage makes it a member: its consensus has begun. One whose joining broke off has a storage too.
fn has_joined(dir: &Path) -> io::Result<bool> {
    let file = qdrant_node::storage(dir).join("raft_state.json");
    let text = match fs::read(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text?,
    };
    let state: serde_json::Value = serde_json::from_slice(&text)?;
    let term = state.pointer("/state/hard_state/term").and_then(serde_json::Value::as_u64);
    term.map(|term| term > 0).ok_or_else(|| io::Error::other(format!("{}: no term in it", file.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_node_founds_the_cluster_and_all_others_join_it() {
        let member = || Some("http://127.0.0.1:1".to_string());
        let through = || Ok(Entry::Through("http://127.0.0.1:1".into()));
        let refused = Err("it has no storage, and no member runs through which it could join");
        for (what, has_joined, is_founded, member, expected) in [
            ("the very first", false, false, None, Ok(Entry::Founds)),
            ("the second", false, true, member(), through()),
            ("the second, when the first was only just founded", false, false, member(), through()),
            ("a wiped one, the first too", false, true, member(), through()),
            ("a wiped one while no member runs", false, true, None, refused),
            ("one with its storage", true, true, member(), Ok(Entry::Returns)),
            ("one with its storage, alone", true, true, None, Ok(Entry::Returns)),
        ] {
            assert_eq!(entry(has_joined, is_founded, member), expected, "{what}");
        }
    }

    #[test]
    fn only_a_voter_with_a_leader_lets_others_in() {
        let told = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut told = json!({
                "status": "enabled", "peer_id": 1, "peers": {"1": {"uri": "http://a"}, "2": {"uri": "http://b"}},
                "raft_info": {"term": 1, "commit": 9, "leader": 2, "role": "Follower", "is_voter": true},
                "consensus_thread_status": {"consensus_thread_status": "working", "last_update": "…"},
            });
            change(&mut told);
            serde_json::from_value::<Told>(told).is_ok_and(|told| told.is_member())
        };
        assert!(told(&|_| {}));
        assert!(!told(&|t| t["raft_info"]["is_voter"] = json!(false)), "one that still joins");
        assert!(!told(&|t| t["raft_info"]["leader"] = json!(0)), "without a leader");
        assert!(!told(&|t| t["raft_info"]["leader"] = json!(null)), "without a leader");
        assert!(!told(&|t| t["raft_info"]["leader"] = json!(3)), "removed: its leader is none of its peers");
        assert!(!told(&|t| t["consensus_thread_status"]["consensus_thread_status"] = json!("stopped")), "removed");
        assert!(!told(&|t| *t = json!({"status": "disabled"})), "not distributed at all");
    }

    #[test]
    fn a_storage_is_a_members_once_its_consensus_has_begun() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_joined(dir.path()).unwrap());
        let storage = qdrant_node::storage(dir.path());
        fs::create_dir(&storage).unwrap();
        let write = |text: &str| fs::write(storage.join("raft_state.json"), text).unwrap();
        write(r#"{"state": {"hard_state": {"term": 0, "vote": 0, "commit": 0}}}"#);
        assert!(!has_joined(dir.path()).unwrap(), "its joining broke off");
        write(r#"{"state": {"hard_state": {"term": 3, "vote": 1, "commit": 7}}}"#);
        assert!(has_joined(dir.path()).unwrap());
        for text in ["{}", "no JSON"] {
            write(text);
            assert!(has_joined(dir.path()).is_err(), "{text}: not knowing is not “new”");
        }
    }
}
