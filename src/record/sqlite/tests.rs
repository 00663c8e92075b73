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

/// A journal with an open operation, a decision and some history, closed.
async fn filled(storage: &Path) {
    let (journal, _) = open(storage).expect("a new journal");
    let decision: Decision = serde_json::from_value(json!({
        "id": 1, "at": START, "mode": "active", "decision": "hold", "trigger": null, "wanted": null, "because": [],
        "conditions": [], "guards": [], "would_change": "",
    }))
    .expect("a decision");
    journal.decided(&pool(), &decision, &json!({}), None).await.expect("writable");
    journal.save(&pool(), "mode", &json!("active"), None).await.expect("writable");
    journal.open(&operation("op-1"), Some("key"), entry("began")).await.expect("writable");
    for n in 0..50 {
        journal.append(entry(&format!("row {n}"))).await.expect("writable");
    }
}

/// The files of a closed journal, or of one that is open, in a directory of their own.
fn copied(from: &Path) -> (TempDir, PathBuf) {
    let (dir, copy) = storage();
    fs::create_dir(&copy).expect("a directory");
    for name in ["vecscale.db", "vecscale.db-wal", "vecscale.db-head"] {
        let _ = fs::copy(from.join(name), copy.join(name)); // closed, it has no WAL
    }
    (dir, copy)
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
async fn what_was_changed_by_hand_is_refused_with_what_it_is() {
    let cases = [
        ("UPDATE state SET body = '\"stopped\"'", "a row of state was changed"),
        ("DELETE FROM state WHERE name = 'mode'", "state has 1 of 2 rows"),
        ("UPDATE operation SET is_open = 0", "a row of operation was changed"),
        ("UPDATE operation SET head = replace(head, 'n4', 'n5')", "a row of operation was changed"),
        ("DELETE FROM step; DELETE FROM operation", "operation has 0 of 1 rows"),
        ("DELETE FROM step WHERE seq = 1", "step has 1 of 2 rows"),
        ("UPDATE step SET body = replace(body, 'waiting', 'done') WHERE seq = 0", "a row of step was changed"),
        ("UPDATE step SET body = (SELECT body FROM step WHERE seq = 1)", "a row of step was changed"),
        ("DELETE FROM request_key", "request_key has 0 of 1 rows"),
        ("UPDATE decision SET at = at + 1", "a row of decision was changed"),
        ("DELETE FROM decision", "decision has 0 of 1 rows"),
        ("UPDATE history SET who = 'nobody' WHERE id = 7", "row 7 of the history was changed"),
        ("DELETE FROM history WHERE id = 7", "row 7 of the history is gone"),
        ("DELETE FROM history WHERE id > 40", "the history ends at row 40 of 51"),
        ("DELETE FROM history", "the history ends at row 0 of 51"),
        (
            "INSERT INTO history SELECT id + 1, at, pool, kind, who, summary, detail, sum FROM history WHERE id = 51",
            "row 52",
        ),
        (
            "UPDATE history SET id = -1 WHERE id = 7; UPDATE history SET id = 7 WHERE id = 8; UPDATE history SET id = 8 WHERE id = -1",
            "row 7 of the history was changed",
        ),
        ("UPDATE start SET fence = 0", "the count of its starts and writes was changed"),
        ("UPDATE tally SET rows = 0, sum = 0", "state has 2 of 0 rows"),
    ];
    let (_dir, whole) = storage();
    filled(&whole).await;
    for (sql, expected) in cases {
        let (_copy_dir, storage) = copied(&whole);
        let db = storage.join("vecscale.db");
        rusqlite::Connection::open(&db).unwrap().execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
        let refused = open(&storage).map(|_| ()).expect_err(sql).to_string();
        assert!(refused.contains(expected), "{sql}: {refused}");
        assert!(refused.contains("hint:") && refused.contains("nothing was changed"), "{sql}: {refused}");
    }
}

#[tokio::test]
async fn a_reader_checks_what_it_reads() {
    let all = HistoryQuery { limit: 1000, ..HistoryQuery::default() };
    for (sql, query, expected) in [
        ("UPDATE history SET who = 'nobody' WHERE id = 7", all.clone(), Some("row 7 of the history")),
        ("UPDATE history SET sum = 1 WHERE id = 7", HistoryQuery { before: Some(9), ..all.clone() }, Some("row 8")),
        ("UPDATE history SET who = 'nobody' WHERE id = 7", HistoryQuery { limit: 10, ..all.clone() }, None),
        ("DELETE FROM history WHERE id = 7", all.clone(), Some("row 8 of the history")),
        ("DELETE FROM history WHERE id > 40", HistoryQuery { limit: 1, ..all.clone() }, Some("ends at row 40 of 51")),
    ] {
        let (_dir, storage) = storage();
        filled(&storage).await;
        rusqlite::Connection::open(storage.join("vecscale.db")).unwrap().execute_batch(sql).unwrap();
        let reader = SqliteJournal::open_read_only(&storage).expect("the file itself is whole");
        match (reader.history(&query).await, expected) {
            (Ok(_), None) => {}
            (Err(JournalError::Unreadable(said)), Some(expected)) => assert!(said.contains(expected), "{sql}: {said}"),
            (answer, _) => panic!("{sql}: {answer:?}"),
        }
    }
}

/// What the tables were before their rows had sums.
const FIRST_SCHEMA: &str = "
CREATE TABLE start(id INTEGER PRIMARY KEY CHECK (id = 1), fence INTEGER NOT NULL, at INTEGER NOT NULL) STRICT;
INSERT INTO start VALUES (1, 0, 0);
CREATE TABLE state(
  pool TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (pool, name)
) STRICT;
CREATE TABLE decision(
  pool TEXT NOT NULL, id INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pool, id)
) STRICT;
CREATE TABLE operation(
  id TEXT NOT NULL PRIMARY KEY, pool TEXT NOT NULL, is_open INTEGER NOT NULL, fence INTEGER NOT NULL,
  head TEXT NOT NULL, step_order TEXT NOT NULL, sum INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_open_operation ON operation(pool) WHERE is_open = 1;
CREATE INDEX operations_of_pool ON operation(pool, id);
CREATE TABLE step(
  operation TEXT NOT NULL REFERENCES operation(id), seq INTEGER NOT NULL, key TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL, fence INTEGER NOT NULL, body TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (operation, seq)
) STRICT;
CREATE TABLE request_key(
  pool TEXT NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (pool, key)
) STRICT;
CREATE TABLE history(
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, pool TEXT NOT NULL, kind TEXT NOT NULL, who TEXT NOT NULL,
  summary TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE TABLE rollup(
  pool TEXT NOT NULL, start INTEGER NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL,
  max REAL NOT NULL, PRIMARY KEY (pool, start, name)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = 1987273580;
PRAGMA user_version = 1;
";

/// A journal as the first version left it, with an open operation whose last planned step was never written.
fn of_the_first_version(storage: &Path) {
    fs::create_dir(storage).expect("a directory");
    let old = rusqlite::Connection::open(storage.join("vecscale.db")).expect("a file");
    old.execute_batch(FIRST_SCHEMA).expect("its tables");
    let open = operation("op-1");
    let head = json!(Operation { steps: Vec::new(), ..open.clone() }).to_string();
    let order = "[1,0,7]".to_string();
    let sum = sums::first_version(&head, Some(&order));
    let row = rusqlite::params!["op-1", "p", 1, 3, head, order, sum];
    old.execute("INSERT INTO operation VALUES (?, ?, ?, ?, ?, ?, ?)", row).expect("a row");
    for step in &open.steps {
        let body = json!(step).to_string();
        let sum = sums::first_version(&body, None);
        let row = rusqlite::params!["op-1", step.seq, step.key, "waiting", 3, body, sum];
        old.execute("INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?)", row).expect("a row");
    }
    let mode = sums::first_version("\"active\"", None);
    old.execute("INSERT INTO state VALUES ('p', 'mode', '\"active\"', ?)", [mode]).expect("a row");
    old.execute_batch(
        "UPDATE start SET fence = 3;
         INSERT INTO request_key VALUES ('p', 'key', 'op-1', 1764000000000);
         INSERT INTO history VALUES (1, 5, 'p', 'operation', 'cli', 'began', '{}'), (2, 6, 'p', 'step', 'vecscale', 'done', '[1]');",
    )
    .expect("rows");
}

#[tokio::test]
async fn a_journal_of_the_first_version_is_brought_up_to_date_with_all_it_holds() {
    let (_dir, storage) = storage();
    of_the_first_version(&storage);
    let offline = SqliteJournal::open_read_only(&storage).map(|_| ()).expect_err("a reader changes nothing");
    assert!(offline.to_string().contains("older vecscale"), "{offline}");
    for fence in [4, 5] {
        let (journal, report) = open(&storage).expect("a journal");
        assert_eq!(report, OpenReport { created: false, fence });
        let open = journal.open_operation(&pool()).await.expect("readable").expect("still open");
        let mut expected = operation("op-1");
        expected.steps.reverse();
        assert_eq!(open, expected, "its steps in their order");
        assert_eq!(journal.load(&pool(), "mode").await.expect("readable"), Some(json!("active")));
        assert_eq!(journal.by_key(&pool(), "key", START).await.expect("readable"), Some(open.id));
        let rows = journal.history(&HistoryQuery { limit: 9, ..HistoryQuery::default() }).await.expect("readable");
        let said: Vec<&str> = rows.iter().rev().map(|row| row.summary.as_str()).collect();
        assert_eq!(said[..2], ["began", "done"]);
        journal.append(entry("goes on")).await.expect("writable");
    }
    // From now on it is held to its sums.
    let db = rusqlite::Connection::open(storage.join("vecscale.db")).unwrap();
    db.execute_batch("UPDATE history SET who = 'nobody' WHERE id = 1").unwrap();
    drop(db);
    assert!(open(&storage).map(|_| ()).expect_err("changed").to_string().contains("row 1 of the history was changed"));
}

#[tokio::test]
async fn a_damaged_journal_of_the_first_version_is_not_made_to_look_sound() {
    let (_dir, storage) = storage();
    of_the_first_version(&storage);
    let db = storage.join("vecscale.db");
    rusqlite::Connection::open(&db)
        .unwrap()
        .execute_batch("UPDATE operation SET head = replace(head, 'n4', 'n5')")
        .unwrap();
    for _ in 0..2 {
        let refused = open(&storage).map(|_| ()).expect_err("changed").to_string();
        assert!(refused.contains("a row of operation was changed") && refused.contains("hint:"), "{refused}");
    }
}

#[tokio::test]
async fn writes_that_were_acknowledged_and_are_gone_are_missed() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm, &str); 4] = [
        (
            "no WAL",
            |dir| fs::remove_file(dir.join("vecscale.db-wal")).unwrap(),
            "before the last that was acknowledged",
        ),
        (
            "half a WAL",
            |dir| {
                let wal = dir.join("vecscale.db-wal");
                let bytes = fs::read(&wal).unwrap();
                fs::write(wal, &bytes[..bytes.len() / 2]).unwrap();
            },
            "before the last that was acknowledged",
        ),
        (
            "nothing but the count",
            |dir| {
                fs::remove_file(dir.join("vecscale.db-wal")).unwrap();
                fs::remove_file(dir.join("vecscale.db")).unwrap();
            },
            "it is gone, but",
        ),
        // A backup of the file alone: there is nothing to hold it against.
        ("no count", |dir| fs::remove_file(dir.join("vecscale.db-head")).unwrap(), ""),
    ];
    for (what, harm, expected) in cases {
        let (_dir, storage) = storage();
        let (journal, _) = open(&storage).expect("a new journal");
        for n in 0..10 {
            journal.append(entry(&format!("row {n}"))).await.expect("writable");
        }
        let (_copy_dir, copy) = copied(&storage);
        harm(&copy);
        match open(&copy).map(|_| ()) {
            Ok(()) => assert!(expected.is_empty(), "{what}: taken"),
            Err(refused) => {
                let refused = refused.to_string();
                assert!(
                    !expected.is_empty() && refused.contains(expected) && refused.contains("hint:"),
                    "{what}: {refused}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_count_that_was_torn_or_lost_its_bits_keeps_nobody_out() {
    let (_dir, whole) = storage();
    filled(&whole).await;
    for harm in 0..33 * 8 {
        let (_copy_dir, storage) = copied(&whole);
        let head = storage.join("vecscale.db-head");
        let mut bytes = fs::read(&head).expect("the count");
        match harm / 8 {
            32 => bytes.truncate(harm % 8 * 5),
            byte => bytes[byte] ^= 1 << (harm % 8),
        }
        fs::write(&head, bytes).expect("a file");
        let (journal, _) = open(&storage).expect("the journal is whole");
        assert_eq!(journal.open_operation(&pool()).await.expect("readable"), Some(operation("op-1")));
    }
}

#[tokio::test]
async fn the_wal_is_cut_back_once_a_long_reader_has_left() {
    let (_dir, storage) = storage();
    let (journal, _) = open(&storage).expect("a new journal");
    let wal = || fs::metadata(storage.join("vecscale.db-wal")).expect("a file").len();
    let large = |n: usize| Entry { detail: json!("x".repeat(500_000)), ..entry(&format!("row {n}")) };
    let reader = rusqlite::Connection::open(storage.join("vecscale.db")).expect("a reader");
    reader.execute_batch("BEGIN; SELECT count(*) FROM history;").expect("it reads, and goes on reading");
    for n in 0..80 {
        journal.append(large(n)).await.expect("writable");
    }
    assert!(wal() > 32 << 20, "the reader keeps {} bytes of it", wal());
    reader.execute_batch("COMMIT").expect("it leaves");
    for n in 0..10 {
        journal.append(large(n)).await.expect("writable");
    }
    assert!(wal() <= 17 << 20, "{} bytes were left", wal());
    for n in 0..200 {
        journal.append(large(n)).await.expect("writable");
        assert!(wal() <= 32 << 20, "{} bytes without any reader", wal());
    }
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
