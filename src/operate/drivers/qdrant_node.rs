//! What `vecscale qdrant-node` does: takes the lock of a node's directory, and becomes Qdrant, which keeps it until its
//! end. So the process provider finds a Qdrant process as it finds a vector node. IO: files, exec.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use crate::node::cell::write_durably;
use crate::node::lock;

/// Where a node listens, all on loopback; remembered in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub http: u16,
    pub grpc: u16,
    /// Between the peers.
    pub p2p: u16,
}

impl Ports {
    /// Where clients and we reach it.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Where the other peers reach it.
    pub fn peer_uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.p2p)
    }

    /// Each of the last ones that is still free, and free ones for the others: Qdrant tells its peers by itself when it
    /// has moved.
    fn choose(last: Option<Ports>) -> io::Result<Ports> {
        let listen = |port: Option<u16>| {
            let at = |port| TcpListener::bind(("127.0.0.1", port));
            port.and_then(|port| at(port).ok()).map_or_else(|| at(0), Ok)
        };
        // All three are held at once, so that they differ.
        let (http, grpc, p2p) =
            (listen(last.map(|l| l.http))?, listen(last.map(|l| l.grpc))?, listen(last.map(|l| l.p2p))?);
        let port = |listener: &TcpListener| Ok::<u16, io::Error>(listener.local_addr()?.port());
        Ok(Ports { http: port(&http)?, grpc: port(&grpc)?, p2p: port(&p2p)? })
    }
}

/// Where the node in this directory listens, or listened last; `None` when it never ran.
///
/// # Errors
/// When it cannot be read.
pub fn ports(dir: &Path) -> io::Result<Option<Ports>> {
    match fs::read(dir.join("ports.json")) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where Qdrant keeps what it stores.
pub fn storage(dir: &Path) -> PathBuf {
    dir.join("storage")
}

/// Runs `program` as the node of `dir`, in this process; with `bootstrap` it joins through that peer. Comes back only when
/// it cannot be run, or the directory cannot be used.
pub fn become_qdrant(dir: &Path, program: &Path, bootstrap: Option<&str>) -> io::Error {
    let prepared = || {
        let dir = dir.canonicalize()?;
        let lock = lock::take(&dir)?;
        // Held on by what this process becomes; its number and its start stay the same, too.
        fcntl_setfd(&lock, FdFlags::empty())?;
        let ports = Ports::choose(ports(&dir)?)?;
        write_durably(&dir.join("ports.json"), &serde_json::to_vec(&ports).expect("three numbers"))?;
        write_durably(&dir.join("address"), ports.address().as_bytes())?;
        let mut command = Command::new(program);
        // Its directory has no configuration of another Qdrant's, and what it writes beside its storage stays in there.
        command.args(arguments(&ports, bootstrap)).envs(environment(&dir, &ports)).current_dir(&dir);
        Ok((lock, command))
    };
    match prepared() {
        Err(error) => error,
        Ok((_lock, mut command)) => {
            let error = command.exec();
            io::Error::new(error.kind(), format!("{} cannot be run: {error}", program.display()))
        }
    }
}

fn arguments(ports: &Ports, bootstrap: Option<&str>) -> Vec<String> {
    let mut arguments = vec!["--uri".into(), ports.peer_uri()];
    if let Some(peer) = bootstrap {
        arguments.extend(["--bootstrap".into(), peer.into()]);
    }
    arguments
}

/// What must be so for the provider to find and reach the node.
fn environment(dir: &Path, ports: &Ports) -> [(&'static str, String); 8] {
    let below = |name: PathBuf| name.display().to_string();
    [
        ("QDRANT__CLUSTER__ENABLED", "true".into()),
        ("QDRANT__CLUSTER__P2P__PORT", ports.p2p.to_string()),
        ("QDRANT__SERVICE__HOST", "127.0.0.1".into()),
        ("QDRANT__SERVICE__HTTP_PORT", ports.http.to_string()),
        ("QDRANT__SERVICE__GRPC_PORT", ports.grpc.to_string()),
        ("QDRANT__STORAGE__STORAGE_PATH", below(storage(dir))),
        ("QDRANT__STORAGE__SNAPSHOTS_PATH", below(dir.join("snapshots"))),
        ("QDRANT__TELEMETRY_DISABLED", "true".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_where_it_is_and_through_whom_it_joins() {
        let ports = Ports { http: 1, grpc: 2, p2p: 3 };
        assert_eq!(arguments(&ports, None), ["--uri", "http://127.0.0.1:3"]);
        let joins = arguments(&ports, Some("http://127.0.0.1:9"));
        assert_eq!(joins, ["--uri", "http://127.0.0.1:3", "--bootstrap", "http://127.0.0.1:9"]);
        let told: Vec<String> =
            environment(Path::new("/n/a"), &ports).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            told,
            [
                "QDRANT__CLUSTER__ENABLED=true",
                "QDRANT__CLUSTER__P2P__PORT=3",
                "QDRANT__SERVICE__HOST=127.0.0.1",
                "QDRANT__SERVICE__HTTP_PORT=1",
                "QDRANT__SERVICE__GRPC_PORT=2",
                "QDRANT__STORAGE__STORAGE_PATH=/n/a/storage",
                "QDRANT__STORAGE__SNAPSHOTS_PATH=/n/a/snapshots",
                "QDRANT__TELEMETRY_DISABLED=true",
            ]
        );
    }

    #[test]
    fn ports_are_kept_while_they_are_free() {
        let first = Ports::choose(None).unwrap();
        assert_eq!(Ports::choose(Some(first)).unwrap(), first);
        let taken = TcpListener::bind(("127.0.0.1", first.grpc)).unwrap();
        let next = Ports::choose(Some(first)).unwrap();
        assert_eq!((next.http, next.p2p), (first.http, first.p2p));
        assert_ne!(next.grpc, first.grpc);
        drop(taken);
    }
}
