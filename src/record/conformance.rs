//! What every journal must do, whichever one it is: the same suite over memory and SQLite.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::model::{
    Action, Kind, Mode, NodeId, NodeSeen, NodeState, OperationState, Reading, Signal, StepAction, StepState, Trigger,
};

pub const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);

pub fn pool() -> PoolName {
    "p".into()
}

pub fn entry(summary: &str) -> Entry {
    Entry {
        at: START,
        pool: pool(),
        kind: HistoryKind::Step,
        who: "vecscale".into(),
        summary: summary.into(),
        detail: json!({"a": [1, null, "ü\n"]}),
    }
}

pub fn step(id: &str, seq: u32) -> Step {
    Step {
        seq,
        action: StepAction::Create { node: NodeId::new("n4").expect("a name") },
        key: format!("{id}/{seq}"),
        state: StepState::Waiting,
        attempts: 0,
        started_at: None,
        ended_at: None,
        deadline: Duration::from_millis(1500),
        output: None,
        error: None,
        late_drop: false,
    }
}

pub fn operation(id: &str) -> Operation {
    Operation {
        because: vec!["a person asked".into()],
        decision: Some(7),
        nodes: vec![NodeId::new("n4").expect("a name")],
        steps: vec![step(id, 0), step(id, 1)],
        ..Operation::new(OperationId(id.into()), pool(), Kind::ScaleUp, Trigger::Manual, "cli", START)
    }
}

fn decision(id: u64) -> Decision {
    Decision {
        id,
        at: START,
        mode: Mode::Observe,
        action: Action::Hold,
        trigger: None,
        wanted: None,
        because: vec![format!("reason {id}")],
        conditions: Vec::new(),
        guards: Vec::new(),
        would_change: "cpu above 0.75".into(),
    }
}

fn observation(at: Timestamp, cpu: Option<f64>) -> Observation {
    let reading = cpu.map_or(Reading::Missing { why: "silent".into() }, |value| Reading::Fresh { value });
    let node = NodeSeen {
        id: NodeId::new("n1").expect("a name"),
        address: "http://n1".into(),
        zone: None,
        state: NodeState::Serving,
        up: true,
        healthy: true,
        unhealthy_since: None,
        health_unknown: false,
        values: BTreeMap::new(),
        shards: None,
        bytes: None,
        load: None,
        busy_with_data: false,
        scrape_seconds: 0.0,
        gaps: BTreeMap::new(),
    };
    let custom = Reading::Fresh { value: 5.0 };
    Observation {
        pool: pool(),
        at,
        readings: [(Signal::Cpu, reading), (Signal::Custom("queue".into()), custom)].into(),
        nodes: vec![node],
        total_vectors: Some(100),
        avg_vectors_per_node: None,
    }
}

/// Runs all of it on a new journal.
pub async fn conforms(journal: Arc<dyn Journal>) {
    states(&*journal).await;
    decisions(&*journal).await;
    operations(&*journal).await;
    keys(&*journal).await;
    history(&*journal).await;
    rollups(&*journal).await;
}

async fn states(journal: &dyn Journal) {
    assert_eq!(journal.load(&pool(), "mode").await.expect("readable"), None);
    for value in [json!("active"), json!({"deep": {"er": [1.5, null]}}), Value::Null] {
        journal.save(&pool(), "mode", &value, None).await.expect("writable");
        assert_eq!(journal.load(&pool(), "mode").await.expect("readable"), Some(value));
    }
    assert_eq!(journal.load(&"other".into(), "mode").await.expect("readable"), None);
}

async fn decisions(journal: &dyn Journal) {
    for id in 1..=5 {
        journal.decided(&pool(), &decision(id), &json!({"streak": id}), None).await.expect("writable");
    }
    let ids = |found: Vec<Decision>| found.iter().map(|d| d.id).collect::<Vec<_>>();
    assert_eq!(ids(journal.decisions(&pool(), 2, None).await.expect("readable")), [5, 4]);
    assert_eq!(ids(journal.decisions(&pool(), 9, Some(3)).await.expect("readable")), [2, 1]);
    assert_eq!(ids(journal.decisions(&"other".into(), 9, None).await.expect("readable")), [] as [u64; 0]);
    assert_eq!(journal.decision(&pool(), 3).await.expect("readable"), Some(decision(3)));
    assert_eq!(journal.decision(&pool(), 30).await.expect("readable"), None);
    assert_eq!(journal.load(&pool(), "memory").await.expect("readable"), Some(json!({"streak": 5})));

    let much_later = 3 + DECISIONS_KEPT;
    journal.decided(&pool(), &decision(much_later), &json!({"streak": 6}), None).await.expect("writable");
    assert_eq!(ids(journal.decisions(&pool(), 9, None).await.expect("readable")), [much_later, 5, 4]);
}

async fn operations(journal: &dyn Journal) {
    let mut first = operation("op-1");
    journal.open(&first, None, entry("began")).await.expect("writable");
    assert_eq!(journal.open_operation(&pool()).await.expect("readable"), Some(first.clone()));
    let second = journal.open(&operation("op-2"), Some("k"), entry("never")).await;
    assert!(matches!(second, Err(JournalError::OperationOpen(ref id)) if id == &first.id), "{second:?}");
    assert_eq!(journal.by_key(&pool(), "k", START).await.expect("readable"), None, "a refused one leaves nothing");
    let mut other = operation("op-3");
    other.pool = "other".into();
    journal.open(&other, None, entry("another pool")).await.expect("its own operation");

    // A step in between keeps its place, and only the step that is given is written.
    first.steps.insert(1, step("op-1", 2));
    first.steps[1].state = StepState::Intent;
    first.detail = "half way".into();
    journal.update(&first, Some(&first.steps[1]), None).await.expect("writable");
    assert_eq!(journal.operation(&first.id).await.expect("readable"), Some(first.clone()));
    let mut unwritten = first.clone();
    unwritten.steps[0].attempts = 9;
    journal.update(&unwritten, None, None).await.expect("writable");
    assert_eq!(journal.operation(&first.id).await.expect("readable"), Some(first.clone()));

    first.state = OperationState::Succeeded;
    first.ended_at = Some(START);
    first.steps.iter_mut().for_each(|step| step.state = StepState::Done);
    journal.update(&first, None, Some(entry("ended"))).await.expect("writable");
    assert_eq!(journal.operation(&first.id).await.expect("readable"), Some(first.clone()), "all steps at the end");
    assert_eq!(journal.open_operation(&pool()).await.expect("readable"), None);
    first.state = OperationState::Running;
    let reopened = journal.update(&first, None, Some(entry("never"))).await;
    assert!(matches!(reopened, Err(JournalError::Unwritable(_))), "{reopened:?}");

    let mut last = operation("op-4");
    last.state = OperationState::Blocked;
    journal.open(&last, None, entry("began")).await.expect("writable");
    assert_eq!(journal.open_operation(&pool()).await.expect("readable"), Some(last.clone()), "blocked is open");
    let ids = |found: Vec<Operation>| found.iter().map(|o| o.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(journal.operations(&pool(), 9, None).await.expect("readable")), ["op-4", "op-1"]);
    assert_eq!(ids(journal.operations(&pool(), 9, Some(&last.id)).await.expect("readable")), ["op-1"]);
    last.state = OperationState::Failed;
    journal.update(&last, None, None).await.expect("writable");
}

async fn keys(journal: &dyn Journal) {
    let mut asked = operation("op-5");
    journal.open(&asked, Some("key"), entry("began")).await.expect("writable");
    let day = Duration::from_secs(24 * 3600);
    let just_before = START.plus(day - Duration::from_millis(1));
    assert_eq!(journal.by_key(&pool(), "key", just_before).await.expect("readable"), Some(asked.id.clone()));
    assert_eq!(journal.by_key(&pool(), "key", START.plus(day)).await.expect("readable"), None);
    assert_eq!(journal.by_key(&"other".into(), "key", START).await.expect("readable"), None);
    asked.state = OperationState::Failed;
    journal.update(&asked, None, None).await.expect("writable");
}

async fn history(journal: &dyn Journal) {
    let before = journal.history(&HistoryQuery { limit: 1000, ..HistoryQuery::default() }).await.expect("readable");
    for n in 0..3 {
        let kind = if n == 1 { HistoryKind::Setting } else { HistoryKind::Program };
        let at = START.plus(Duration::from_secs(n));
        journal.append(Entry { at, kind, ..entry(&format!("row {n}")) }).await.expect("writable");
    }
    journal.save(&pool(), "mode", &json!("stopped"), Some(entry("with a setting"))).await.expect("writable");
    let all = journal.history(&HistoryQuery { limit: 1000, ..HistoryQuery::default() }).await.expect("readable");
    let ids: Vec<u64> = all.iter().rev().map(|item| item.id).collect();
    assert_eq!(ids, (1..=before.len() as u64 + 4).collect::<Vec<_>>(), "ids without gaps");
    assert_eq!(all[0].summary, "with a setting");
    assert_eq!(all[0].detail, entry("").detail);
    assert!(all.iter().all(|item| item.summary != "never"), "refused writes leave no row");
    let asked = |query: HistoryQuery| async move {
        let found = journal.history(&HistoryQuery { limit: 1000, ..query }).await.expect("readable");
        found.into_iter().map(|item| item.summary).collect::<Vec<_>>()
    };
    let by_kind = HistoryQuery { kind: Some(HistoryKind::Program), ..HistoryQuery::default() };
    assert_eq!(asked(by_kind).await, ["row 2", "row 0"]);
    let since = Some(START.plus(Duration::from_secs(1)));
    assert_eq!(asked(HistoryQuery { since, ..HistoryQuery::default() }).await, ["row 2", "row 1"]);
    let other = HistoryQuery { pool: Some("nobody".into()), ..HistoryQuery::default() };
    assert_eq!(asked(other).await, [] as [&str; 0]);
    let second = HistoryQuery { before: Some(all[0].id), limit: 1, ..HistoryQuery::default() };
    assert_eq!(journal.history(&second).await.expect("readable")[0].summary, "row 2");
}

async fn rollups(journal: &dyn Journal) {
    let minutes = |n: u64| START.plus(Duration::from_secs(60 * n));
    for (at, cpu) in [(0, Some(0.2)), (1, Some(0.6)), (2, None), (5, Some(0.9)), (6, Some(f64::NAN))] {
        journal.observed(&observation(minutes(at), cpu)).await.expect("writable");
    }
    let rows = journal.observations(&pool(), START, 300).await.expect("readable");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["timestamp"], json!(START));
    assert_eq!(rows[0]["cpu_usage"], json!({"mean": 0.4, "max": 0.6}), "a gap counts as nothing, not as zero");
    assert_eq!(rows[1]["cpu_usage"], json!({"mean": 0.9, "max": 0.9}));
    assert_eq!((&rows[0]["memory_usage"], &rows[0]["search_latency"]), (&Value::Null, &Value::Null));
    assert_eq!(rows[0]["custom"]["queue"], json!({"mean": 5.0, "max": 5.0}));
    assert_eq!(rows[0]["node_count"]["max"], json!(1.0));
    let joined = journal.observations(&pool(), START, 600).await.expect("readable");
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0]["cpu_usage"]["max"], json!(0.9));
    assert_eq!(journal.observations(&pool(), minutes(5), 1).await.expect("readable").len(), 1);
    let late = START.plus(Duration::from_secs(28 * 24 * 3600 + 300));
    journal.observed(&observation(late, Some(0.1))).await.expect("writable");
    let kept = journal.observations(&pool(), START, 300).await.expect("readable");
    assert_eq!(kept.len(), 2, "what is older than 28 days is gone");
}

#[tokio::test]
async fn the_journal_in_memory_conforms() {
    conforms(Arc::new(MemoryJournal::new())).await;
}

#[tokio::test]
async fn an_overtaken_start_writes_no_more() {
    let old = MemoryJournal::new();
    let new = old.reopen();
    assert!(new.fence() > old.fence());
    assert!(matches!(old.append(entry("late")).await, Err(JournalError::Fenced { ours: 1, theirs: 2 })));
    new.append(entry("in time")).await.expect("writable");
}
