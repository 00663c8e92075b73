//! The right to run a script on one node or shard, as a locked file that is the script's stdin: it stays locked for as
//! long as the script lives, whatever becomes of the controller. A record beside it says until when it may.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::end::Traces;

/// Why there is no lock.
pub enum NotTaken {
    /// A script on this node or shard is still running, of this controller or of one before.
    Held,
    Failed(String),
}

/// Other processes see it as held until the script has ended too.
pub struct Lock {
    path: PathBuf,
    file: File,
    /// A script of before ended without a clear word: nobody knows what it did.
    pub unfinished: bool,
}

/// When a script was started and how long it may take, in the machine's time since it was booted: a script does not
/// outlive that, and no setting of the clock changes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    key: String,
    started_ms: u64,
    deadline_ms: u64,
    /// Its output, as `/proc/PID/fd` has it; empty until it is started.
    output: BTreeSet<String>,
}

impl Record {
    /// In one go: a record that is there is whole.
    fn write(&self, lock: &Path) -> io::Result<()> {
        let fresh = lock.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, lock.with_extension("run"))
    }

    fn read(lock: &Path) -> Option<Record> {
        serde_json::from_slice(&fs::read(lock.with_extension("run")).ok()?).ok()
    }
}

impl Lock {
    /// # Errors
    /// When it is held, or the file cannot be had.
    pub async fn take(folder: &Path, subject: &str) -> Result<Lock, NotTaken> {
        let path = folder.join(format!("{:016x}.lock", hash(subject)));
        let failed = |e: io::Error| NotTaken::Failed(format!("{}: {e}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(failed)?;
            if !try_lock(&file).await.map_err(failed)? {
                return Err(NotTaken::Held);
            }
            let ours = file.metadata().map_err(failed)?;
            // Whoever held it may have removed the file since it was opened: then another may lock a new one.
            if fs::metadata(&path).is_ok_and(|now| now.ino() == ours.ino()) {
                return Ok(Lock { path, file, unfinished: ours.len() > 0 });
            }
        }
    }

    /// Writes down until when the script may run, and gives its stdin: the input, from its start.
    pub fn filled(&mut self, key: &str, deadline: Duration, input: &Value) -> io::Result<File> {
        let (started_ms, deadline_ms) = (since_boot_ms(), deadline.as_millis() as u64);
        Record { key: key.into(), started_ms, deadline_ms, output: BTreeSet::new() }.write(&self.path)?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(input.to_string().as_bytes())?;
        self.file.rewind()?;
        self.file.try_clone()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// After a clear word the next script starts from nothing; after any other the file stays as a warning.
    pub fn ended(&self, code: Option<i32>) {
        let _ = match code {
            Some(0 | 10 | 20) => {
                fs::remove_file(self.path.with_extension("run")).and(fs::remove_file(&self.path)) // both, in any case
            }
            // Work that goes on in the background may still hold the lock.
            Some(11) => self.file.set_len(0),
            _ => Ok(()),
        };
    }
}

/// Waits for the deadline of whatever holds the lock now, and ends it if it holds it still. Nobody is told: the lock is
/// free then, and whoever takes it next finds it unfinished.
pub async fn guard(lock: PathBuf) {
    let Some(record) = Record::read(&lock) else { return };
    loop {
        let left = record.started_ms.saturating_add(record.deadline_ms).saturating_sub(since_boot_ms());
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(left)).await;
    }
    // A later script has a record of its own, which is written before it is started, and a guard of its own.
    let path = lock.clone();
    let has_passed_on = move || Record::read(&path).is_none_or(|now| now.started_ms != record.started_ms);
    if !has_passed_on() && is_held(&lock).await {
        tracing::warn!(key = record.key, "a script is over its deadline and is ended");
        let left = Traces::of_lock(&lock, record.output, has_passed_on).end().await;
        if left > 0 {
            tracing::error!(key = record.key, left, "processes of a script could not be ended");
        }
    }
}

/// Guards every script that a controller of before left running: call it once, before any script is started.
pub async fn adopt(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return }; // no script ran yet
    for entry in entries.flatten() {
        let lock = entry.path();
        if lock.extension().is_some_and(|e| e == "lock") && is_held(&lock).await {
            tokio::spawn(guard(lock));
        }
    }
}

/// Writes down where the started script's output goes: by it a child is known that has let go of the lock.
pub fn note_output(lock: &Path, output: BTreeSet<String>) {
    let noted = Record::read(lock).map(|record| Record { output, ..record }.write(lock));
    if let Some(Err(error)) = noted {
        tracing::warn!(%error, "the output of a script could not be noted; its lock is");
    }
}

/// Whether a script still works under it, as long as we do not hold it ourselves.
pub async fn is_held(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    try_lock(&file).await.is_ok_and(|got| !got)
}

/// Between fork and exec a child of ours has all our files: a lock that was let go may be held for a moment more.
async fn try_lock(file: &File) -> io::Result<bool> {
    for _ in 0..5 {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

fn since_boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// FNV-1a: a name for a file, from a text that must not be one.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
