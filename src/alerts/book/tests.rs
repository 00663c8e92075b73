//! Stories of one alert, the limits of the book, and what holds in any order.

use proptest::prelude::*;

use super::*;
use crate::alerts::Matchers;

const T0: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fn at(secs: u64) -> Timestamp {
    T0.plus(Duration::from_secs(secs))
}

fn told(start: u64, end: Option<u64>) -> Told {
    let labels = BTreeMap::from([("alertname".to_string(), "Slow".to_string())]);
    Told { fingerprint: "ca2c83f1abddcc93".into(), labels, starts_at: at(start), ends_at: end.map(at) }
}

fn entry() -> Arc<str> {
    "slow-search".into()
}

/// What a notification did, in one word.
fn word(heard: Heard) -> &'static str {
    match heard {
        Heard::Nothing => "nothing",
        Heard::Noted => "noted",
        Heard::Changed(changed) => changed.change.as_str(),
        Heard::Full => "full",
    }
}

#[test]
fn stories_of_one_alert() {
    // When it is heard, start, end: what becomes of it. In seconds.
    type Story = &'static [(u64, u64, Option<u64>, &'static str)];
    let cases: [(&str, Story, bool); 18] = [
        ("it fires", &[(30, 0, None, "firing")], true),
        ("it fires and is resolved", &[(30, 0, None, "firing"), (90, 0, Some(60), "resolved")], false),
        ("two episodes", &[(30, 0, None, "firing"), (90, 0, Some(60), "resolved"), (130, 100, None, "firing")], true),
        ("sent twice", &[(30, 0, None, "firing"), (31, 0, None, "nothing"), (32, 0, None, "nothing")], true),
        ("repeated", &[(30, 0, None, "firing"), (14_430, 0, None, "noted")], true),
        (
            "resolved twice",
            &[(30, 0, None, "firing"), (90, 0, Some(60), "resolved"), (91, 0, Some(60), "nothing")],
            false,
        ),
        ("resolved, never heard to fire", &[(90, 0, Some(60), "noted")], false),
        ("the other way round", &[(90, 0, Some(60), "noted"), (91, 0, None, "nothing")], false),
        (
            "a late one after the resolved",
            &[(30, 0, None, "firing"), (90, 0, Some(60), "resolved"), (95, 0, None, "nothing")],
            false,
        ),
        (
            "it fires again with its old start",
            &[(30, 0, None, "firing"), (90, 0, Some(60), "resolved"), (390, 0, None, "firing")],
            true,
        ),
        (
            "and is resolved for good",
            &[(90, 0, Some(60), "noted"), (390, 0, None, "firing"), (690, 0, Some(600), "resolved")],
            false,
        ),
        ("as late as an old one may be", &[(90, 0, Some(60), "noted"), (210, 0, None, "nothing")], false),
        (
            "late after the last copy of the resolved",
            &[(90, 0, Some(60), "noted"), (150, 0, Some(60), "noted"), (270, 0, None, "nothing")],
            false,
        ),
        (
            "an old resolved one after a new episode",
            &[(30, 0, None, "firing"), (130, 100, None, "firing"), (135, 0, Some(60), "noted")],
            true,
        ),
        ("an old firing one after a new episode", &[(130, 100, None, "firing"), (145, 0, None, "noted")], true),
        // Alertmanager joins what two Prometheus servers send to the earliest start that it knows.
        (
            "the start moves back",
            &[(30, 10, None, "firing"), (45, 0, None, "noted"), (90, 0, Some(60), "resolved")],
            false,
        ),
        ("the end moves on", &[(90, 0, Some(60), "noted"), (95, 0, Some(70), "noted"), (96, 65, None, "noted")], false),
        ("a start in the future", &[(0, 20, None, "firing"), (90, 20, Some(60), "resolved")], false),
    ];
    for (name, story, fires) in cases {
        let mut book = Book::default();
        for (heard, start, end, expected) in story {
            let word = word(book.hear(&entry(), &told(*start, *end), at(*heard)));
            assert_eq!(word, *expected, "{name}: heard at {heard} s");
        }
        assert_eq!(book.alerts().any(Alert::is_firing), fires, "{name}");
    }
}

#[test]
fn what_is_not_heard_of_expires_and_is_forgotten_later() {
    let five_hours = |_: &str| Some(Duration::from_secs(18_000));
    let mut book = Book::default();
    book.hear(&entry(), &told(0, None), at(0));
    assert_eq!(book.expire(at(17_999), five_hours), []);
    book.hear(&entry(), &told(0, None), at(14_400));
    assert_eq!(book.expire(at(32_399), five_hours), [], "heard of again after four hours");
    let over = book.expire(at(32_400), five_hours);
    assert_eq!((over.len(), over[0].change), (1, Change::Expired));
    assert!(!book.alerts().any(Alert::is_firing));
    assert_eq!(book.expire(at(32_401), five_hours), [], "told once");
    // Heard of once more, the same episode goes on.
    assert_eq!(word(book.hear(&entry(), &told(0, None), at(33_000))), "firing");
    assert_eq!(book.expire(at(33_000 + 36_000), five_hours).len(), 1, "however long nobody looked");
    assert_eq!(book.count(), 0);
    book.hear(&entry(), &told(0, Some(60)), at(90));
    assert_eq!((book.expire(at(36_089), five_hours), book.count()), (vec![], 1), "a late one may still come");
    assert_eq!((book.expire(at(36_090), five_hours), book.count()), (vec![], 0));
}

#[test]
fn an_entry_that_is_gone_takes_its_alerts_along() {
    let mut book = Book::default();
    book.hear(&entry(), &told(0, None), at(0));
    assert_eq!((book.expire(at(1), |_| None), book.count()), (vec![], 0));
}

fn other(i: usize, end: Option<u64>) -> Told {
    Told { fingerprint: format!("f{i}"), ..told(0, end) }
}

#[test]
fn no_entry_has_more_than_it_may_nor_takes_the_room_of_another() {
    let mut book = Book::default();
    for i in 0..MOST_KEPT {
        let end = (i % 2 == 0).then_some(1);
        assert_ne!(book.hear(&entry(), &other(i, end), at(i as u64)), Heard::Full);
    }
    assert_eq!(book.hear(&entry(), &other(MOST_KEPT, None), at(0)), Heard::Full);
    assert_eq!(word(book.hear(&"upgrade".into(), &told(0, None), at(0))), "firing");
    book.make_room();
    assert_eq!(book.count(), MOST_KEPT / 2 + 1);
    assert!(book.alerts().all(Alert::is_firing), "those that do not fire make room");
    assert_ne!(book.hear(&entry(), &other(MOST_KEPT, None), at(0)), Heard::Full);
}

#[test]
fn alerts_follow_the_entries() {
    // Entries before and after with their matchers, and what becomes of an alert `Slow` that fires, severity "page".
    type Entries = &'static [(&'static str, &'static str)];
    type Case = (&'static str, Entries, Entries, &'static [&'static str], &'static [&'static str]);
    let cases: [Case; 8] = [
        ("the same", &[("slow", "alertname=Slow")], &[("slow", "alertname=Slow")], &[], &["slow"]),
        ("wider", &[("slow", "alertname=Slow")], &[("slow", "alertname=~Slow|Full")], &[], &["slow"]),
        ("other alerts", &[("slow", "alertname=Slow")], &[("slow", "alertname=Full")], &["slow unmatched"], &[]),
        ("narrower", &[("a", "severity=page")], &[("a", "severity=page,zone=x")], &["a unmatched"], &[]),
        (
            "renamed",
            &[("slow", "alertname=Slow")],
            &[("late", "alertname=Slow")],
            &["slow unmatched", "late firing"],
            &["late"],
        ),
        (
            "one more",
            &[("slow", "alertname=Slow")],
            &[("slow", "alertname=Slow"), ("hold", "severity=page")],
            &["hold firing"],
            &["hold", "slow"],
        ),
        (
            "names exchanged",
            &[("a", "alertname=Slow"), ("b", "alertname=Full")],
            &[("a", "alertname=Full"), ("b", "alertname=Slow")],
            &["a unmatched", "b firing"],
            &["b"],
        ),
        ("gone", &[("slow", "alertname=Slow")], &[], &["slow unmatched"], &[]),
    ];
    let routes = |entries: Entries| -> Vec<Route> {
        let matchers = |text: &str| Matchers::parse([text]).expect("matchers");
        entries.iter().map(|(entry, text)| Route { entry: (*entry).into(), matchers: matchers(text) }).collect()
    };
    for (name, before, after, expected, left) in cases {
        let mut slow = told(0, None);
        slow.labels.insert("severity".into(), "page".into());
        let mut book = Book::default();
        for route in routes(before).iter().filter(|route| route.is_for("p", &slow.labels)) {
            book.hear(&route.entry, &slow, at(30));
        }
        let changes = book.rebook("p", &routes(after));
        let changes = changes.iter().map(|c| format!("{} {}", c.alert.entry, c.change.as_str()));
        assert_eq!(changes.collect::<Vec<_>>(), expected, "{name}");
        let firing = book.alerts().filter(|alert| alert.is_firing()).map(|alert| &*alert.entry);
        assert_eq!(firing.collect::<Vec<_>>(), left, "{name}");
        assert_eq!(book.rebook("p", &routes(after)), [], "{name}: once");
    }
}

#[test]
fn without_labels_an_alert_stays_with_the_name_of_its_entry() {
    let mut book = Book::default();
    let mut long = told(0, None);
    long.labels.insert("list".into(), "x".repeat(LONGEST_LABELS));
    book.hear(&entry(), &long, at(30));
    let written = serde_json::to_string(&book).expect("JSON");
    assert!(written.len() < 1_000, "{} bytes are kept of it", written.len());
    let named = |name: &str| Route { entry: name.into(), matchers: Matchers::parse(["a=b"]).expect("matchers") };
    assert_eq!((book.rebook("p", &[named("slow-search")]), book.count()), (vec![], 1));
    assert_eq!((book.rebook("p", &[named("other")]).len(), book.count()), (1, 0));
    // Told again with fewer: they are learnt.
    book.hear(&entry(), &long, at(30));
    assert_eq!(word(book.hear(&entry(), &told(0, None), at(31))), "noted");
    assert_eq!(book.rebook("p", &[named("slow-search")]).len(), 1);
}

#[test]
fn written_and_read_back_it_is_the_same() {
    let mut book = Book::default();
    book.hear(&entry(), &told(0, None), at(30));
    book.hear(&"other".into(), &told(0, Some(60)), at(30));
    let read: Book = serde_json::from_value(serde_json::json!(book)).expect("what we wrote");
    assert_eq!(read, book);
}

/// Notifications about one alert that are true at some time: firing since, or resolved.
fn notifications() -> impl Strategy<Value = Vec<(u64, Option<u64>)>> {
    let episode = (0u64..6, 1u64..4, any::<bool>());
    let told = episode.prop_map(|(n, long, ended)| (n * 100, ended.then_some(n * 100 + long)));
    proptest::collection::vec(told, 1..12)
}

/// Of notifications that come within two minutes.
fn state(notifications: &[(u64, Option<u64>)]) -> Vec<(Timestamp, Option<Timestamp>, bool)> {
    let mut book = Book::default();
    for (n, (start, end)) in notifications.iter().enumerate() {
        book.hear(&entry(), &told(*start, *end), at(1_000 + n as u64 * 3));
    }
    book.alerts().map(|alert| (alert.starts_at, alert.ends_at, alert.is_firing())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Any order, and any number of copies, give the same state.
    #[test]
    fn order_and_number_do_not_matter(
        (sent, received) in notifications().prop_flat_map(|sent| {
            let more = proptest::collection::vec(proptest::sample::select(sent.clone()), 0..20);
            let all = more.prop_map({
                let sent = sent.clone();
                move |more| sent.iter().copied().chain(more).collect::<Vec<_>>()
            });
            (Just(sent), all.prop_shuffle())
        })
    ) {
        let (sent, received) = (state(&sent), state(&received));
        // `ends_at` of an episode before the last may be told before or after; what fires is the same.
        prop_assert_eq!(sent, received);
    }

    /// Whatever was told before: what fires later than an old one may come fires.
    #[test]
    fn a_firing_one_that_is_not_late_counts(sent in notifications(), start in 0u64..600) {
        let mut book = Book::default();
        for (n, (start, end)) in sent.iter().enumerate() {
            book.hear(&entry(), &told(*start, *end), at(1_000 + n as u64 * 20));
        }
        let later = at(1_000 + sent.len() as u64 * 20).plus(LATE);
        book.hear(&entry(), &told(start, None), later);
        prop_assert!(book.alerts().all(Alert::is_firing));
    }

    /// Resolved ones alone never make anything fire.
    #[test]
    fn resolved_never_fires(ends in proptest::collection::vec((0u64..500, 0u64..500), 1..12)) {
        let told: Vec<(u64, Option<u64>)> = ends.iter().map(|(start, long)| (*start, Some(start + long))).collect();
        prop_assert!(state(&told).iter().all(|(.., firing)| !firing));
    }
}
