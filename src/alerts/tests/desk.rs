//! The desk: what belongs to a pool, what is on disk when it answers, and after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::alerts::{Desk, Matchers, Notification, Route, Told};
use crate::model::{Alert, HistoryItem, HistoryKind, Timestamp};
use crate::record::{HistoryQuery, Journal, JournalError, MemoryJournal};
use crate::telemetry::Telemetry;

const T0: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fn at(secs: u64) -> Timestamp {
    T0.plus(Duration::from_secs(secs))
}

fn routes(entries: &[(&str, &str)]) -> Vec<Route> {
    let route = |(entry, matchers): &(&str, &str)| Route {
        entry: (*entry).into(),
        matchers: Matchers::parse([*matchers]).expect("matchers"),
    };
    entries.iter().map(route).collect()
}

async fn desk(pool: &str, journal: &Arc<MemoryJournal>, entries: &[(&str, &str)]) -> Arc<Desk> {
    Arc::new(Desk::open(pool.into(), routes(entries), journal.clone(), Telemetry::new(T0)).await.expect("a journal"))
}

fn told(fingerprint: &str, labels: &[(&str, &str)], ended: bool) -> Told {
    let labels: BTreeMap<String, String> = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    Told { fingerprint: fingerprint.into(), labels, starts_at: T0, ends_at: ended.then(|| at(60)) }
}

fn notification(alerts: Vec<Told>) -> Notification {
    Notification { receiver: "scaler".into(), alerts, truncated: 0 }
}

async fn history(journal: &MemoryJournal) -> Vec<HistoryItem> {
    let query = HistoryQuery { limit: 100, ..HistoryQuery::default() };
    journal.history(&query).await.expect("a journal")
}

fn firing(desk: &Desk) -> Vec<String> {
    let shown = desk.shown();
    let firing = shown.iter().filter(|alert: &&Alert| alert.is_firing());
    firing.map(|alert| format!("{} {}", alert.entry, alert.fingerprint)).collect()
}

#[tokio::test]
async fn which_alerts_belong_to_a_pool() {
    let entries = [("slow", "alertname=Slow"), ("all-pages", "severity=page"), ("own", "pool=~\"a|b\"")];
    type Labels = &'static [(&'static str, &'static str)];
    let cases: [(&str, Labels, &[&str]); 7] = [
        ("by matchers", &[("alertname", "Slow")], &["slow f"]),
        ("by two entries", &[("alertname", "Slow"), ("severity", "page")], &["all-pages f", "slow f"]),
        ("by none", &[("alertname", "Fast")], &[]),
        ("of this pool by its label", &[("alertname", "Slow"), ("pool", "a")], &["own f", "slow f"]),
        ("of another by its label, but for who looks at it", &[("alertname", "Slow"), ("pool", "b")], &["own f"]),
        ("of another", &[("alertname", "Slow"), ("pool", "c")], &[]),
        ("an empty label is a label", &[("alertname", "Slow"), ("pool", "")], &[]),
    ];
    for (name, labels, expected) in cases {
        let desk = desk("a", &Arc::default(), &entries).await;
        let matched = desk.hear(&notification(vec![told("f", labels, false)]), "am", at(30)).await.expect("a journal");
        assert_eq!(firing(&desk), expected, "{name}");
        assert_eq!(matched.len(), usize::from(!expected.is_empty()), "{name}");
    }
}

#[tokio::test]
async fn changes_are_one_row_each_and_copies_none() {
    let journal = Arc::new(MemoryJournal::new());
    let desk = desk("a", &journal, &[("slow", "alertname=Slow")]).await;
    let slow = [("alertname", "Slow")];
    let fires = notification(vec![told("f1", &slow, false), told("f2", &slow, false)]);
    for secs in [30, 31, 45, 4_000] {
        desk.hear(&fires, "api 10.0.0.1", at(secs)).await.expect("a journal");
    }
    let resolved = notification(vec![told("f1", &slow, true), told("f2", &slow, false)]);
    desk.hear(&resolved, "api 10.0.0.2", at(4_100)).await.expect("a journal");
    let rows = history(&journal).await;
    let rows: Vec<(HistoryKind, &str, &str)> =
        rows.iter().map(|r| (r.kind, r.who.as_str(), r.summary.as_str())).collect();
    assert_eq!(
        rows,
        [
            (HistoryKind::Alert, "api 10.0.0.2", "slow resolved (Slow f1)"),
            (HistoryKind::Alert, "api 10.0.0.1", "slow firing (Slow f1); slow firing (Slow f2)"),
        ]
    );
}

#[tokio::test]
async fn a_storm_is_one_row_that_names_a_few() {
    let journal = Arc::new(MemoryJournal::new());
    let telemetry = Telemetry::new(T0);
    let desk = Desk::open("a".into(), routes(&[("slow", "alertname=Slow")]), journal.clone(), telemetry.clone()).await;
    let desk = Arc::new(desk.expect("a journal"));
    let storm = (0..10_000).map(|i| told(&format!("f{i}"), &[("alertname", "Slow")], false)).collect();
    desk.hear(&notification(storm), "am", at(30)).await.expect("a journal");
    let rows = history(&journal).await;
    assert_eq!(rows.len(), 1);
    assert!(rows[0].summary.ends_with("; and 995 more"), "{}", rows[0].summary);
    assert_eq!(
        (&rows[0].detail["count"], rows[0].detail["changes"].as_array().map(Vec::len)),
        (&1_000.into(), Some(100))
    );
    let page = telemetry.render();
    assert!(page.contains("vecscale_alerts_dropped_total{pool=\"a\"} 9000"), "{page}");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let journal = Arc::new(MemoryJournal::new());
    let entries = [("slow", "alertname=Slow")];
    let before = desk("a", &journal, &entries).await;
    let slow = [("alertname", "Slow")];
    before.hear(&notification(vec![told("f1", &slow, false)]), "am", at(30)).await.expect("a journal");
    before.hear(&notification(vec![told("f2", &slow, true)]), "am", at(70)).await.expect("a journal");

    let journal = Arc::new(journal.reopen());
    let after = desk("a", &journal, &entries).await;
    assert_eq!(after.shown(), before.shown());
    after.hear(&notification(vec![told("f2", &slow, false)]), "am", at(80)).await.expect("a journal");
    assert_eq!(firing(&after), ["slow f1"], "a late one is late after a restart too");
    assert_eq!(history(&journal).await.len(), 1, "nothing has changed");
}

#[tokio::test]
async fn other_entries_hold_for_what_fires_already() {
    let journal = Arc::new(MemoryJournal::new());
    let before = desk("a", &journal, &[("slow", "alertname=Slow")]).await;
    let page = [("alertname", "Slow"), ("severity", "page")];
    before.hear(&notification(vec![told("f1", &page, false)]), "am", at(30)).await.expect("a journal");
    let renamed = routes(&[("late", "alertname=Slow"), ("hold", "severity=page")]);
    before.route(renamed.clone(), at(60)).await.expect("a journal");
    assert_eq!(firing(&before), ["hold f1", "late f1"]);
    before.route(renamed, at(61)).await.expect("a journal");
    let rows = history(&journal).await;
    assert_eq!(rows.len(), 2, "the same entries again change nothing: {rows:?}");
    assert_eq!(rows[0].who, "vecscale");
    assert_eq!(rows[0].summary, "slow unmatched (Slow f1); late firing (Slow f1); hold firing (Slow f1)");

    // The file was edited while the program was down.
    let journal = Arc::new(journal.reopen());
    let after = desk("a", &journal, &[("late", "alertname=Full"), ("hold", "severity=page")]).await;
    assert_eq!(firing(&after), ["hold f1", "late f1"], "as it is on disk");
    after.expire(at(90), |_| Some(Duration::from_secs(600))).await.expect("a journal");
    assert_eq!(firing(&after), ["hold f1"]);
    assert_eq!(history(&journal).await[0].summary, "late unmatched (Slow f1)");
    after.hear(&notification(vec![told("f1", &page, true)]), "am", at(95)).await.expect("a journal");
    assert_eq!(firing(&after), [""; 0], "and is resolved");
}

#[tokio::test]
async fn nothing_is_written_for_a_pool_that_nothing_is_told_of() {
    let journal = Arc::new(MemoryJournal::new());
    let desk = desk("a", &journal, &[("slow", "alertname=Slow")]).await;
    let others = notification(vec![told("f1", &[("alertname", "Slow"), ("pool", "b")], false)]);
    desk.hear(&others, "am", at(30)).await.expect("a journal");
    assert_eq!(journal.load(&"a".into(), "alerts").await.expect("a journal"), None);
    let fires = notification(vec![told("f1", &[("alertname", "Slow")], false)]);
    desk.hear(&fires, "am", at(30)).await.expect("a journal");
    // A newer start has the journal: whatever is written now is refused.
    let _newer = journal.reopen();
    desk.hear(&fires, "am", at(31)).await.expect("a copy is not written");
    desk.hear(&others, "am", at(60)).await.expect("nor what is another's");
}

#[tokio::test]
async fn without_a_journal_nothing_is_taken_and_the_next_one_writes_it_all() {
    let journal = Arc::new(MemoryJournal::new());
    let desk = desk("a", &journal, &[("slow", "alertname=Slow")]).await;
    let fires = notification(vec![told("f1", &[("alertname", "Slow")], false)]);
    // A newer start has the journal: this one may not write any more.
    let newer = Arc::new(journal.reopen());
    for secs in [30, 31] {
        let refused = desk.hear(&fires, "am", at(secs)).await;
        assert!(matches!(refused, Err(JournalError::Fenced { .. })), "also when nothing is new: {refused:?}");
    }
    assert_eq!(firing(&desk), [""; 0], "what is not on disk is not shown");
    assert_eq!(history(&newer).await, []);
}

#[tokio::test]
async fn many_at_once_are_written_together() {
    let journal = Arc::new(MemoryJournal::new());
    let desk = desk("a", &journal, &[("slow", "alertname=Slow")]).await;
    let mut changed = tokio::spawn({
        let desk = desk.clone();
        async move { desk.changed().await }
    });
    let all = (0..200).map(|i| {
        let desk = desk.clone();
        async move {
            let one = notification(vec![told(&format!("f{}", i % 50), &[("alertname", "Slow")], false)]);
            desk.hear(&one, "am", at(30)).await
        }
    });
    for heard in futures::future::join_all(all).await {
        heard.expect("a journal");
    }
    assert_eq!(firing(&desk).len(), 50);
    let told: u64 = history(&journal).await.iter().filter_map(|row| row.detail["count"].as_u64()).sum();
    assert_eq!(told, 50, "each change is told once");
    tokio::time::timeout(Duration::from_secs(10), &mut changed).await.expect("it is told of").expect("no panic");
}

#[tokio::test]
async fn expiry_is_told_and_written() {
    let journal = Arc::new(MemoryJournal::new());
    let desk = desk("a", &journal, &[("slow", "alertname=Slow")]).await;
    desk.hear(&notification(vec![told("f1", &[("alertname", "Slow")], false)]), "am", at(30)).await.expect("a journal");
    let expires = |_: &str| Some(Duration::from_secs(600));
    desk.expire(at(629), expires).await.expect("a journal");
    assert_eq!(firing(&desk), ["slow f1"]);
    desk.expire(at(630), expires).await.expect("a journal");
    assert_eq!(firing(&desk), [""; 0]);
    let rows = history(&journal).await;
    assert_eq!((rows[0].who.as_str(), rows[0].summary.as_str()), ("vecscale", "slow expired (Slow f1)"));
}
