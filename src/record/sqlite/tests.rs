//! The journal on disk: the common suite, and what disks and people do to files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::clock::TokioClock;
use crate::record::conformance::{START, conforms, entry, operation, pool};

fn open(storage: &Path) -> Result<(SqliteJournal, OpenReport), JournalError> {
    SqliteJournal::open(storage, &*TokioClock::starting_at(START))
}

fn storage() -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("data");
    (dir, path)
}

/// A journal with an open operation and some history, closed.
async fn filled(storage: &Path) {
    let (journal, _) = open(storage).expect("a new journal");
    journal.save(&pool(), "mode", &json!("active"), None).await.expect("writable");
    journal.open(&operation("op-1"), Some("key"), entry("began")).await.expect("writable");
    for n in 0..50 {
        journal.append(entry(&format!("row {n}"))).await.expect("writable");
    }
}

#[tokio::test]
async fn it_conforms() {
    let (_dir, storage) = storage();
    conforms(Arc::new(open(&storage).expect("a new journal").0)).await;
}

#[tokio::test]
async fn what_was_written_is_there_after_the_end_of_the_process() {
    let (_dir, storage) = storage();
    for start in 1..=3 {
        let (journal, report) = open(&storage).expect("a journal");
        assert_eq!(report, OpenReport { created: start == 1, fence: start });
        if start == 1 {
            journal.open(&operation("op-1"), None, entry("began")).await.expect("writable");
        }
        assert_eq!(journal.open_operation(&pool()).await.expect("readable"), Some(operation("op-1")));
    }
}

#[tokio::test]
async fn a_copy_taken_at_any_moment_is_a_whole_journal() {
    // What `kill -9` leaves behind: database and WAL as they stand, without a checkpoint.
    let (_dir, storage) = storage();
    let (journal, _) = open(&storage).expect("a new journal");
    for n in 0..20 {
        journal.append(entry(&format!("row {n}"))).await.expect("writable");
        let (_copy_dir, copy) = self::storage();
        fs::create_dir(&copy).expect("a directory");
        for name in ["vecscale.db", "vecscale.db-wal"] {
            fs::copy(storage.join(name), copy.join(name)).expect("a copy");
        }
        let (after, _) = open(&copy).expect("a whole journal");
        let rows = after.history(&HistoryQuery { limit: 100, ..HistoryQuery::default() }).await.expect("readable");
        assert_eq!(rows.len(), n + 1);
    }
}

#[tokio::test]
async fn a_second_controller_is_refused_with_the_pid_of_the_first() {
    let (_dir, storage) = storage();
    let (first, _) = open(&storage).expect("a new journal");
    let refused = open(&storage).map(|_| ()).expect_err("two controllers on one journal").to_string();
    assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
    assert!(refused.contains("--storage.path"), "{refused}");
    first.append(entry("still mine")).await.expect("writable");
    drop(first);
    open(&storage).expect("free again");
}

#[tokio::test]
async fn one_whose_lock_was_taken_away_is_fenced() {
    let (_dir, storage) = storage();
    let (old, _) = open(&storage).expect("a new journal");
    fs::remove_file(storage.join("lock")).expect("a lock");
    let (new, _) = open(&storage).expect("no lock in the way");
    let late = old.append(entry("late")).await;
    assert!(matches!(late, Err(JournalError::Fenced { ours: 1, theirs: 2 })), "{late:?}");
    new.append(entry("in time")).await.expect("writable");
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let (_dir, storage) = storage();
    let (journal, _) = open(&storage).expect("a new journal");
    journal.append(entry("a row")).await.expect("writable");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&storage), 0o700);
    for name in ["vecscale.db", "vecscale.db-wal", "vecscale.db-shm", "lock"] {
        assert_eq!(mode(&storage.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_reader_sees_the_history_while_another_writes() {
    let (_dir, storage) = storage();
    assert!(matches!(SqliteJournal::open_read_only(&storage), Err(JournalError::Unreadable(_))));
    filled(&storage).await;
    let all = HistoryQuery { limit: 1000, ..HistoryQuery::default() };
    let reader = SqliteJournal::open_read_only(&storage).expect("nobody else there");
    assert_eq!(reader.history(&all).await.expect("readable").len(), 51);
    let (writer, report) = open(&storage).expect("a reader is no controller");
    writer.append(entry("new")).await.expect("writable");
    assert_eq!(reader.history(&all).await.expect("readable").len(), 52);
    let refused = reader.append(entry("never")).await;
    assert!(matches!(refused, Err(JournalError::Unwritable(_))), "{refused:?}");
    drop(writer);
    assert_eq!(open(&storage).expect("a journal").1.fence, report.fence + 1, "a reader takes nothing over");
}

#[tokio::test]
async fn the_last_fence_is_told_while_nobody_runs() {
    let (_dir, storage) = storage();
    assert_eq!(SqliteJournal::last_fence(&storage).expect("no journal is no fence"), 0);
    assert!(!storage.exists(), "it makes nothing");
    for start in 1..3 {
        let (running, report) = open(&storage).expect("a journal");
        let refused = SqliteJournal::last_fence(&storage).expect_err("somebody runs there");
        assert!(matches!(refused, JournalError::InUse { ref pid, .. } if *pid == std::process::id().to_string()));
        drop(running);
        assert_eq!((report.fence, SqliteJournal::last_fence(&storage).expect("free")), (start, start));
    }
    fs::write(storage.join("vecscale.db"), b"").expect("a file");
    assert!(matches!(SqliteJournal::last_fence(&storage), Err(JournalError::Unreadable(_))));
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_passes() {
    let (_dir, storage) = storage();
    let (journal, _) = open(&storage).expect("a new journal");
    journal.open(&operation("op-1"), None, entry("began")).await.expect("writable");
    journal.store.lock().expect("a store").limit_pages(Some(0));
    let large = Entry { detail: json!("x".repeat(100_000)), ..entry("large") };
    let full =
        journal.update(&Operation { detail: "new".into(), ..operation("op-1") }, None, Some(large.clone())).await;
    assert!(matches!(full, Err(JournalError::Unwritable(_))), "{full:?}");
    assert!(full.expect_err("full").to_string().contains("full"));
    assert_eq!(journal.open_operation(&pool()).await.expect("readable"), Some(operation("op-1")), "half a write");
    journal.store.lock().expect("a store").limit_pages(None);
    journal.append(large).await.expect("space again");
}

#[tokio::test]
async fn what_is_no_whole_journal_is_refused_and_left_alone() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm); 6] = [
        ("empty", |db| fs::write(db, b"").unwrap()),
        ("another file", |db| fs::write(db, b"these are notes").unwrap()),
        ("cut", |db| {
            let bytes = fs::read(db).unwrap();
            fs::write(db, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("another's database", |db| {
            fs::remove_file(db).unwrap();
            rusqlite::Connection::open(db).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
        }),
        ("newer", |db| rusqlite::Connection::open(db).unwrap().execute_batch("PRAGMA user_version = 99").unwrap()),
        ("gone, but for the WAL", |db| fs::rename(db, db.with_extension("db-wal")).unwrap()),
    ];
    for (what, harm) in cases {
        let (_dir, storage) = storage();
        filled(&storage).await;
        let db = storage.join("vecscale.db");
        harm(&db);
        let before = fs::read(&db).ok();
        let refused = open(&storage).map(|_| ()).expect_err(what).to_string();
        assert!(refused.contains("hint:") && refused.contains("nothing was changed"), "{what}: {refused}");
        assert_eq!(fs::read(&db).ok(), before, "{what}: it was changed");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_harmless() {
    let (_dir, storage) = storage();
    filled(&storage).await;
    let whole = fs::read(storage.join("vecscale.db")).expect("a file");
    let (mut refused, mut random) = (0, fastrand::Rng::with_seed(7));
    for _ in 0..300 {
        let (_copy_dir, copy) = self::storage();
        fs::create_dir(&copy).expect("a directory");
        let mut bytes = whole.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        fs::write(copy.join("vecscale.db"), bytes).expect("a copy");
        let Ok((journal, _)) = open(&copy) else {
            refused += 1;
            continue;
        };
        match (journal.open_operation(&pool()).await, journal.load(&pool(), "mode").await) {
            (Ok(found), Ok(mode)) => {
                // It is what was written, or it is not there: never something else.
                assert!(found.is_none_or(|found| found == operation("op-1")), "bit flipped in byte {at}");
                assert!(mode.is_none_or(|mode| mode == json!("active")), "bit flipped in byte {at}");
            }
            _ => refused += 1,
        }
    }
    assert!(refused > 10, "only {refused} of 300 were noticed");
}

#[tokio::test]
async fn a_cut_wal_loses_the_end_and_nothing_else() {
    let (_dir, storage) = storage();
    let (journal, _) = open(&storage).expect("a new journal");
    for n in 0..10 {
        journal.append(entry(&format!("row {n}"))).await.expect("writable");
    }
    let (db, wal) =
        (fs::read(storage.join("vecscale.db")).unwrap(), fs::read(storage.join("vecscale.db-wal")).unwrap());
    for part in 0..=10 {
        let (_copy_dir, copy) = self::storage();
        fs::create_dir(&copy).expect("a directory");
        fs::write(copy.join("vecscale.db"), &db).unwrap();
        fs::write(copy.join("vecscale.db-wal"), &wal[..wal.len() * part / 10]).unwrap();
        let (after, _) = open(&copy).expect("the beginning is whole");
        let rows = after.history(&HistoryQuery { limit: 100, ..HistoryQuery::default() }).await.expect("readable");
        let summaries: Vec<String> = rows.iter().rev().map(|row| row.summary.clone()).collect();
        let expected: Vec<String> = (0..rows.len()).map(|n| format!("row {n}")).collect();
        assert_eq!(summaries, expected);
        after.append(entry("goes on")).await.expect("writable");
    }
}

#[tokio::test]
async fn a_start_that_broke_off_while_making_it_leaves_nothing_in_the_way() {
    let (_dir, storage) = storage();
    fs::create_dir(&storage).expect("a directory");
    fs::write(storage.join("vecscale.db.new"), b"half").expect("a file");
    assert!(open(&storage).expect("a new journal").1.created);
}

#[test]
fn a_path_that_cannot_be_written_says_so() {
    let (dir, _) = storage();
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("a file");
    let refused = open(&file.join("data")).map(|_| ()).expect_err("a file is no directory").to_string();
    assert!(refused.contains("file/data") && refused.contains("hint:"), "{refused}");
}
