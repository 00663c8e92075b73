//! Storage path -> an open, checked SQLite connection: lock, file modes, schema, integrity, nothing missing at the end.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::head::{self, Head};
use super::{schema, verify};
use crate::record::JournalError;

/// The WAL file is cut back to this size after a checkpoint.
const WAL_LIMIT_BYTES: i64 = 16 << 20;

fn file(storage: &Path) -> PathBuf {
    storage.join("vecscale.db")
}

fn unwritable(path: &Path, error: impl std::fmt::Display) -> JournalError {
    JournalError::Unwritable(format!("{}: {error}", path.display()))
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> JournalError {
    JournalError::Unreadable(format!(
        "{path} is damaged ({what}); nothing was changed\n    hint: restore it from a backup; or look whether an \
         operation was under way, move {path} aside with its -wal, -shm and -head, and start with an empty history",
        path = path.display()
    ))
}

/// Makes the storage path (0700) and takes the lock that one controller holds for its whole life.
pub fn lock(storage: &Path) -> Result<File, JournalError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(storage);
    made.map_err(|e| unwritable(storage, e))?;
    let path = storage.join("lock");
    let mut file = private().truncate(false).open(&path).map_err(|e| unwritable(&path, e))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(in_use(storage, file));
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| unwritable(&path, e))?;
    Ok(file)
}

fn in_use(storage: &Path, lock: File) -> JournalError {
    let mut pid = String::new();
    let _ = lock.take(20).read_to_string(&mut pid); // who it is, is a courtesy
    let pid = if pid.trim().is_empty() { "unknown".into() } else { pid.trim().to_string() };
    JournalError::InUse { storage: storage.into(), pid }
}

/// The fence of the last start below `storage`, while no controller runs there; `None` when there is no journal. Takes no
/// hold of anything.
pub fn last_fence(storage: &Path) -> Result<Option<u64>, JournalError> {
    if let Ok(lock) = File::open(storage.join("lock"))
        && flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
    {
        return Err(in_use(storage, lock));
    }
    let path = file(storage);
    if !path.exists() {
        return Ok(None);
    }
    let fence: i64 = read_only(storage)?
        .query_row("SELECT fence FROM start", [], |row| row.get(0))
        .map_err(|error| damaged(&path, error))?;
    Ok(Some(fence as u64))
}

/// A file that only we may read, and no link to elsewhere.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    options
}

/// Opens the journal for writing, makes it if there is none; `true` if it was made.
pub fn writable(storage: &Path) -> Result<(Connection, Head, bool), JournalError> {
    let path = file(storage);
    let noted = noted(storage)?;
    let created = !path.exists();
    if created {
        create(storage, &path, noted)?;
    }
    // WAL and shm take the modes of the file they belong to.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(|e| unwritable(&path, e))?;
    let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let version = check(&connection, &path)?;
    durable(&connection).map_err(|e| unwritable(&path, e))?;
    if version < schema::VERSION {
        schema::upgrade(&mut connection)
            .map_err(|e| if e.is_full() { unwritable(&path, e) } else { damaged(&path, e) })?;
    }
    is_whole(&connection, &path, noted)?;
    let at = Head::path(storage);
    let opened = private().truncate(false).open(&at).map_err(|e| unwritable(&at, e))?;
    Ok((connection, Head::new(storage, opened), created))
}

/// Opens the journal for reading beside a running controller.
pub fn read_only(storage: &Path) -> Result<Connection, JournalError> {
    let path = file(storage);
    let noted = noted(storage)?; // before the journal: it may only lag behind
    if !path.exists() {
        return Err(JournalError::Unreadable(format!("there is no journal at {}", path.display())));
    }
    let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    if check(&connection, &path)? < schema::VERSION {
        return Err(JournalError::Unreadable(format!(
            "{} was written by an older vecscale\n    hint: start this one on it once, it brings the journal up to date",
            path.display()
        )));
    }
    is_complete(&connection, &path, noted)?;
    Ok(connection)
}

/// Makes the journal under another name and renames it when it is whole: a start that breaks off here leaves no file
/// that could be taken for an empty journal.
fn create(storage: &Path, path: &Path, noted: i64) -> Result<(), JournalError> {
    let wal = storage.join("vecscale.db-wal");
    if fs::metadata(&wal).is_ok_and(|found| found.len() > 0) {
        return Err(damaged(path, format!("it is gone, but {} is there", wal.display())));
    }
    if noted > 0 {
        return Err(damaged(
            path,
            format!("it is gone, but {} knows of {noted} writes", Head::path(storage).display()),
        ));
    }
    let fresh = storage.join("vecscale.db.new");
    let _ = fs::remove_file(&fresh); // left over from a start that broke off
    private().create_new(true).open(&fresh).map_err(|e| unwritable(&fresh, e))?;
    schema::create(&mut connect(&fresh, OpenFlags::SQLITE_OPEN_READ_WRITE)?).map_err(|e| unwritable(&fresh, e))?;
    fs::rename(&fresh, path).map_err(|e| unwritable(path, e))?;
    File::open(storage).and_then(|dir| dir.sync_all()).map_err(|e| unwritable(storage, e))
}

fn noted(storage: &Path) -> Result<i64, JournalError> {
    let path = Head::path(storage);
    head::noted(storage).map_err(|e| JournalError::Unreadable(format!("{}: {e}", path.display())))
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, JournalError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    // SQLite refuses links anywhere in the path; those above the storage path are the owner's own affair.
    let whole = path.parent().and_then(|dir| dir.canonicalize().ok()).zip(path.file_name());
    let whole = whole.map_or_else(|| path.to_path_buf(), |(dir, name)| dir.join(name));
    let connection = Connection::open_with_flags(whole, flags).map_err(|e| damaged(path, e))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(|e| damaged(path, e))?;
    Ok(connection)
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// Ours, sound as a database, and of a version that we know, which is the answer.
fn check(connection: &Connection, path: &Path) -> Result<i64, JournalError> {
    if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return Err(damaged(path, "it is empty"));
    }
    let read = |pragma| number(connection, pragma).map_err(|e| damaged(path, e));
    if read("application_id")? != schema::APPLICATION_ID {
        return Err(damaged(path, "it is no journal of vecscale"));
    }
    let version = read("user_version")?;
    if version > schema::VERSION {
        return Err(JournalError::Unreadable(format!(
            "{} was written by a newer vecscale (schema {version}, this one knows {})\n    \
             hint: start the newer one again; nothing was changed",
            path.display(),
            schema::VERSION
        )));
    }
    // Not `quick_check`: an index that has lost an entry would hide the open operation.
    let found: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(|e| damaged(path, e))?;
    if found != "ok" || version < 1 { Err(damaged(path, found)) } else { Ok(version) }
}

/// Every row is as it was written, and none is missing.
fn is_whole(connection: &Connection, path: &Path, noted: i64) -> Result<(), JournalError> {
    verify::whole(connection).map_err(|e| damaged(path, e))?;
    is_complete(connection, path, noted)
}

/// Every write that was acknowledged is there.
fn is_complete(connection: &Connection, path: &Path, noted: i64) -> Result<(), JournalError> {
    let writes = verify::start(connection).map_err(|e| damaged(path, e))?;
    if writes >= noted {
        return Ok(());
    }
    Err(JournalError::Unreadable(format!(
        "{path} ends {lost} writes before the last that was acknowledged; nothing was changed\n    hint: the end of \
         {path}-wal is damaged or gone, or {path} was restored from a backup; look whether an operation was under way, \
         and remove {path}-head to go on from what is there",
        path = path.display(),
        lost = noted - writes
    )))
}

/// A commit is on disk when it returns; read back, because SQLite ignores what it does not know.
fn durable(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;")?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}"), [], |_| Ok(()))?;
    let set = mode == "wal" && number(connection, "synchronous")? == 2 && number(connection, "foreign_keys")? == 1;
    if set { Ok(()) } else { Err(rusqlite::Error::ExecuteReturnedResults) }
}
