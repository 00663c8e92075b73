//! One process per data directory: a lock that ends with its holder, and the holder's name in it. IO.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// How long a start waits for the lock: a look at it holds it for a moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// A process that cannot be mistaken for a later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessName {
    pub pid: u32,
    /// Clock ticks from the machine's start to the process's.
    pub started: u64,
}

/// Takes the directory's lock and writes this process's name into it.
///
/// # Errors
/// When another process keeps it.
pub fn take(dir: &Path) -> io::Result<File> {
    let mut file = open(dir, true)?;
    let until = Instant::now() + PATIENCE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > until {
            let what = format!("another process uses {}; one node, one directory", dir.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, what));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = std::process::id();
    let name = ProcessName { pid, started: start_of(pid).unwrap_or(0) };
    file.set_len(0)?;
    file.write_all(&serde_json::to_vec(&name).expect("two numbers"))?;
    Ok(file)
}

/// Who holds the directory's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    Process(ProcessName),
    /// Someone does, who has not written his name yet.
    Unnamed,
}

/// Looks who holds the lock.
///
/// # Errors
/// When the directory cannot be read.
pub fn holder(dir: &Path) -> io::Result<Holder> {
    let mut file = match open(dir, false) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Holder::Nobody),
        Err(e) if e == rustix::io::Errno::WOULDBLOCK => {
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(serde_json::from_slice(&text).map_or(Holder::Unnamed, Holder::Process))
        }
        Err(e) => Err(e.into()),
    }
}

fn open(dir: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).open(dir.join("lock"))
}

/// When a process started, in clock ticks after the machine; `None` when there is none of this number.
pub fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; field 22 is the 20th after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
