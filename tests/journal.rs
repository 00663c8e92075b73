//! The journal under attack: writers killed at any instant, files cut and bits flipped, a full disk, two controllers. What
//! was acknowledged is there, or the journal is refused: never something else.
//!
//! `VECSCALE_KILLS` sets how often a writer is killed (default 50).

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::World;
use rustix::process::Signal;
use serde_json::{Value, json};
use vecscale::clock::SystemClock;
use vecscale::model::*;
use vecscale::record::{Entry, HistoryQuery, Journal, JournalError, MemoryJournal, SqliteJournal};

/// Where the child of a test writes.
const STORAGE: &str = "VECSCALE_TEST_STORAGE";
const FILES: [&str; 3] = ["vecscale.db", "vecscale.db-wal", "vecscale.db-head"];

fn pool() -> PoolName {
    "p".into()
}

const AT: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fn step(operation: &str, seq: u32, state: StepState) -> Step {
    Step {
        seq,
        action: StepAction::Create { node: NodeId::new(&format!("n{seq}")).expect("a name") },
        key: format!("{operation}/{seq}"),
        state,
        attempts: 1,
        started_at: Some(AT),
        ended_at: None,
        deadline: Duration::from_secs(60),
        output: None,
        error: None,
        late_drop: false,
    }
}

/// The `n`th write of an endless story, the same every time: operations are opened, worked at and ended.
async fn write(journal: &dyn Journal, n: u64) -> Result<(), JournalError> {
    use StepState::*;
    let id = format!("op-{:06}", n / 6);
    let of = |states: &[(u32, StepState)]| Operation {
        steps: states.iter().map(|(seq, state)| step(&id, *seq, *state)).collect(),
        detail: format!("write {n}"),
        ..Operation::new(OperationId(id.as_str().into()), pool(), Kind::ScaleUp, Trigger::Manual, "cli", AT)
    };
    let entry = Entry {
        at: AT,
        pool: pool(),
        kind: HistoryKind::Step,
        who: "vecscale".into(),
        summary: format!("write {n}"),
        detail: json!({"n": n, "filler": "ü".repeat((n % 40) as usize)}),
    };
    match n % 6 {
        0 => journal.open(&of(&[(0, Waiting), (1, Waiting)]), Some(&id), entry).await,
        1 => journal.update(&of(&[(0, Intent), (1, Waiting)]), Some(&step(&id, 0, Intent)), Some(entry)).await,
        2 => {
            let states = [(0, Intent), (2, Intent), (1, Waiting)];
            journal.update(&of(&states), Some(&step(&id, 2, Intent)), Some(entry)).await
        }
        3 => {
            let decision = json!({
                "id": n, "at": AT, "mode": "active", "decision": "hold", "trigger": null, "wanted": null, "because": [],
                "conditions": [], "guards": [], "would_change": "",
            });
            let decision: Decision = serde_json::from_value(decision).expect("a decision");
            journal.decided(&pool(), &decision, &json!({"n": n}), Some(entry)).await
        }
        4 => {
            let done = of(&[(0, Done), (2, Done), (1, Skipped)]);
            let done = Operation { state: OperationState::Succeeded, ended_at: Some(AT), ..done };
            journal.update(&done, None, Some(entry)).await
        }
        _ => journal.save(&pool(), "mode", &json!({"n": n}), Some(entry)).await,
    }
}

/// All that a journal says of the story.
#[derive(Debug, PartialEq)]
struct Contents {
    open: Option<Operation>,
    operations: Vec<Operation>,
    decisions: Vec<Decision>,
    states: Vec<Option<Value>>,
    key: Option<OperationId>,
    history: Vec<HistoryItem>,
}

async fn contents(journal: &dyn Journal) -> Result<Contents, JournalError> {
    let pool = pool();
    let states = [journal.load(&pool, "mode").await?, journal.load(&pool, "memory").await?];
    let operations = journal.operations(&pool, usize::MAX >> 1, None).await?;
    let key = operations.first().map(|o| o.id.to_string()).unwrap_or_default();
    Ok(Contents {
        open: journal.open_operation(&pool).await?,
        operations,
        decisions: journal.decisions(&pool, usize::MAX >> 1, None).await?,
        states: states.into(),
        key: journal.by_key(&pool, &key, AT).await?,
        history: journal.history(&HistoryQuery { limit: usize::MAX >> 1, ..HistoryQuery::default() }).await?,
    })
}

fn open(storage: &Path) -> Result<SqliteJournal, JournalError> {
    SqliteJournal::open(storage, &SystemClock).map(|(journal, _)| journal)
}

// ---- writers that are killed

/// Goes on with the story after write `from`, and says each write that was acknowledged.
async fn go_on(journal: &dyn Journal, from: u64) {
    for n in from.. {
        write(journal, n).await.expect("an acknowledged write");
        println!("acknowledged {n}");
    }
}

#[tokio::test]
#[ignore = "the child of another test"]
async fn writes_until_it_is_killed() {
    let Some(storage) = std::env::var_os(STORAGE) else { return };
    let journal = open(Path::new(&storage)).expect("a whole journal");
    let from = contents(&journal).await.expect("readable").history.len() as u64;
    go_on(&journal, from).await;
}

/// A child that runs one of the ignored tests on `storage`.
fn child(test: &str, storage: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args([test, "--exact", "--ignored", "--nocapture"]).env(STORAGE, storage);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

fn acknowledged(line: &str) -> Option<u64> {
    line.split_once("acknowledged ")?.1.trim().parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_outlives_kill_9() {
    let kills: u64 = std::env::var("VECSCALE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let dir = tempfile::tempdir().expect("a directory");
    let storage = dir.path().join("data");
    let story = MemoryJournal::new();
    let (mut told, mut unheard) = (0, 0);
    for seed in 0..kills {
        let mut writer = child("writes_until_it_is_killed", &storage).spawn().expect("a writer");
        let lines = BufReader::new(writer.stdout.take().expect("a pipe")).lines();
        let (said, heard) = std::sync::mpsc::channel();
        let listener = std::thread::spawn(move || {
            let mut last = None;
            for n in lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)) {
                last = Some(n);
                let _ = said.send(n); // only the first is waited for
            }
            last
        });
        heard.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|e| panic!("seed {seed}: it does not write: {e}"));
        tokio::time::sleep(Duration::from_secs_f64(0.1 * fastrand::Rng::with_seed(seed).f64())).await;
        writer.kill().expect("kill -9");
        writer.wait().expect("its end");
        let last = listener.join().expect("its words").expect("one write at least");

        let journal = open(&storage).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let found = contents(&journal).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let writes = found.history.len() as u64;
        assert!(
            writes == last + 1 || writes == last + 2,
            "seed {seed}: write {last} was acknowledged, {writes} are there"
        );
        unheard += writes - last - 1;
        for n in told..writes {
            write(&story, n).await.expect("in memory");
        }
        told = writes;
        assert_eq!(found, contents(&story).await.expect("in memory"), "seed {seed}: half a write");
    }
    eprintln!(
        "{kills} writers killed, {told} writes, all there; {unheard} were on disk before the killed one could say so"
    );
}

// ---- files that are damaged

/// A journal after 100 writes: as a kill leaves it, with its WAL, or closed in order. And what it holds.
async fn a_journal(closed: bool) -> (tempfile::TempDir, PathBuf, Contents) {
    let dir = tempfile::tempdir().expect("a directory");
    let (storage, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let journal = open(&storage).expect("a new journal");
    for n in 0..100 {
        write(&journal, n).await.expect("writable");
    }
    let held = contents(&journal).await.expect("readable");
    let journal = (!closed).then_some(journal);
    fs::create_dir(&copy).expect("a directory");
    for name in FILES {
        let _ = fs::copy(storage.join(name), copy.join(name)); // closed, it has no WAL
    }
    drop(journal);
    (dir, copy, held)
}

/// How a damaged journal was met.
#[derive(Default, Debug)]
struct Met {
    refused: u32,
    whole: u32,
}

impl Met {
    /// Opens a copy of the journal in which one file has these bytes: it is refused with what to do, or it holds
    /// exactly what was written.
    async fn meet(&mut self, what: &str, from: &Path, held: &Contents, name: &str, bytes: Option<&[u8]>) {
        let dir = tempfile::tempdir().expect("a directory");
        for other in FILES {
            let _ = fs::copy(from.join(other), dir.path().join(other));
        }
        match bytes {
            Some(bytes) => fs::write(dir.path().join(name), bytes).expect("a damaged file"),
            None => fs::remove_file(dir.path().join(name)).expect("a file that goes"),
        }
        match open(dir.path()) {
            Err(JournalError::Unreadable(said)) => {
                assert!(said.contains("hint:") && said.contains("nothing was changed"), "{what}: {said}");
                self.refused += 1;
            }
            Err(other) => panic!("{what}: {other}"),
            Ok(journal) => {
                let found = contents(&journal).await.unwrap_or_else(|e| panic!("{what}: taken, and then: {e}"));
                assert!(found == *held, "{what}: other contents were taken for right\n{found:#?}");
                self.whole += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_cut_file_is_refused_or_has_lost_nothing() {
    for closed in [true, false] {
        let (_dir, journal, held) = a_journal(closed).await;
        for name in FILES.iter().filter(|name| journal.join(name).exists()) {
            let (bytes, mut met) = (fs::read(journal.join(name)).expect("a file"), Met::default());
            let mut random = fastrand::Rng::with_seed(bytes.len() as u64);
            let even = (0..40).map(|n| bytes.len() * n / 40);
            let odd: Vec<usize> = (0..40).map(|_| random.usize(..bytes.len())).collect();
            for at in even.chain(odd).chain(bytes.len().saturating_sub(30)..bytes.len()) {
                met.meet(&format!("{name} cut at {at}"), &journal, &held, name, Some(&bytes[..at])).await;
            }
            met.meet(&format!("{name} gone"), &journal, &held, name, None).await;
            eprintln!("{name} of {} bytes cut, closed in order: {closed}: {met:?}", bytes.len());
            assert!(*name == "vecscale.db-head" || met.refused > 50, "{name}: {met:?}");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_has_changed_nothing() {
    for (closed, name, flips) in [
        (true, "vecscale.db", 1200),
        (false, "vecscale.db", 200),
        (false, "vecscale.db-wal", 900),
        (false, "vecscale.db-head", 50),
    ] {
        let (_dir, journal, held) = a_journal(closed).await;
        let (whole, mut met) = (fs::read(journal.join(name)).expect("a file"), Met::default());
        let mut random = fastrand::Rng::with_seed(flips);
        for _ in 0..flips {
            let (at, bit) = (random.usize(..whole.len()), random.u8(..8));
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            met.meet(&format!("{name}: bit {bit} of byte {at} flipped"), &journal, &held, name, Some(&bytes)).await;
        }
        eprintln!("{flips} bits of {name} flipped, closed in order: {closed}: {met:?}");
    }
}

// ---- a full disk

/// On a small disk of its own: it is filled to somewhere, the story goes on until nothing fits, and there is room again.
#[tokio::test]
#[ignore = "the child of another test"]
async fn writes_on_a_disk_that_fills_up() {
    let Some(storage) = std::env::var_os(STORAGE).map(PathBuf::from) else { return };
    let journal = open(&storage.join("data")).expect("a new journal");
    let (ballast, story) = (storage.join("ballast"), MemoryJournal::new());
    let (mut n, mut random) = (0, fastrand::Rng::with_seed(3));
    for fill in 0..100 {
        // A little is left, most of the time.
        let mut file = fs::File::create(&ballast).expect("a file");
        for piece in [1 << 16, 512] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        let spared = random.u64(..200_000);
        let length = file.metadata().expect("its size").len().saturating_sub(spared);
        file.set_len(length).expect("a shorter file");
        drop(file);
        let refused = loop {
            match write(&journal, n).await {
                Ok(()) => {
                    write(&story, n).await.expect("in memory");
                    n += 1;
                }
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, JournalError::Unwritable(_)), "fill {fill}: {refused}");
        assert!(refused.to_string().contains("full disk"), "fill {fill}: {refused}");
        let same = contents(&journal).await.expect("readable") == contents(&story).await.expect("in memory");
        assert!(same, "fill {fill}: half of write {n} is there");
        fs::remove_file(&ballast).expect("room again");
        write(&journal, n).await.expect("room again");
        write(&story, n).await.expect("in memory");
        n += 1;
    }
    drop(journal);
    let journal = open(&storage.join("data")).expect("a whole journal");
    assert_eq!(contents(&journal).await.expect("readable"), contents(&story).await.expect("in memory"));
    println!("acknowledged {n}");
}

/// A tmpfs that only the child's own mount namespace has. Needs the right to make one.
#[test]
fn a_full_disk_takes_whole_writes_or_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let mounted = "mount -t tmpfs -o size=16m tmpfs \"$0\" && exec \"$@\"";
    let child = child("writes_on_a_disk_that_fills_up", dir.path());
    let arguments: Vec<_> = [child.get_program()].into_iter().chain(child.get_args()).collect();
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];
    let may_mount = |way: &&[&str]| {
        let mut trial = Command::new("unshare");
        trial.args(*way).args(["sh", "-c", mounted]).arg(dir.path()).arg("true").stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    };
    let Some(way) = ways.into_iter().find(may_mount) else {
        eprintln!("not run: this machine lets nobody here mount a tmpfs");
        return;
    };
    let mut small = Command::new("unshare");
    small.args(way).args(["sh", "-c", mounted]).arg(dir.path()).args(arguments).env(STORAGE, dir.path());
    let output = small.stderr(Stdio::inherit()).output().expect("the child");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let writes = said.lines().find_map(acknowledged).unwrap_or_else(|| panic!("it wrote nothing: {said}"));
    eprintln!("a disk filled 100 times, {writes} writes taken whole, the others not at all");
}

// ---- controllers

const NO_NODES: &str = "
pools:
  - name: default
    provider: {type: none}
    datastore: {type: none}
    nodes: {static: [{id: n1, address: 'http://127.0.0.1:1'}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_has_one_controller() {
    let mut world = World::new(NO_NODES);
    world.start().await;
    world.refuses_a_second().await;
    // One that is only stopped still has it.
    common::signal(world.pid(), Signal::STOP);
    world.refuses_a_second().await;
    common::signal(world.pid(), Signal::CONT);
    world.get("/autoscaling/status").await;
    // One that is dead has it no more, whatever it left behind.
    let first = world.pid();
    world.kill();
    assert!(fs::read_to_string(world.storage().join("lock")).expect("a lock").contains(&first.to_string()));
    world.start().await;
    world.refuses_a_second().await;
    assert_eq!(world.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_on_a_damaged_journal() {
    let mut world = World::new(NO_NODES);
    world.start().await;
    assert_eq!(world.post("/autoscaling/stop", None).await.0, 200);
    assert_eq!(world.stop(), Some(0));
    let db = world.storage().join("vecscale.db");
    let hand = rusqlite::Connection::open(&db).expect("the journal");
    hand.execute_batch("UPDATE history SET who = 'nobody' WHERE id = 1").expect("changed by hand");
    drop(hand);

    let refused = world.command().arg("--web.listen-address=127.0.0.1:0").output().expect("it ends");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for part in [db.to_str().expect("a path"), "row 1 of the history was changed", "nothing was changed", "hint:"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut offline = Command::new(common::VECSCALE);
    offline.arg("history").arg(format!("--storage.path={}", world.storage().display()));
    let offline = offline.output().expect("it ends");
    let said = String::from_utf8_lossy(&offline.stderr);
    assert_eq!(offline.status.code(), Some(1), "{said}");
    assert!(said.contains("row 1 of the history is damaged on disk"), "{said}");
}
