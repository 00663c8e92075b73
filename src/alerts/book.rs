//! The alerts of one pool as a state, by entry and fingerprint: notifications in, changes out. Pure.
//!
//! Order and number of notifications that come within two minutes do not matter for what fires: the latest start and the
//! latest end that were told of an alert count, whoever told them. So an older notification after a newer, a peer that
//! sends everything twice and a resolved one without a firing one before it are no cases of their own. What is said to
//! fire later than that fires, whatever its start: Alertmanager sends the old one again when Prometheus was away for so
//! long that the alert was taken for resolved, or when one of two Prometheus servers still has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Told;
use crate::model::{Alert, Timestamp};

/// Alerts kept of one pool. No operation would be decided otherwise for more of them.
const MOST_KEPT: usize = 10_000;
/// A repeated notification closer to the last than this changes nothing.
const HEARD_STEP: Duration = Duration::from_secs(10);
/// How much later than the resolved one a firing notification of the same episode may arrive and still be an old one. Less
/// than Alertmanager's `group_interval` (5 min), the soonest at which one that fires again is told.
const LATE: Duration = Duration::from_secs(120);
const LONGEST_NAME: usize = 120;

/// The alerts of a pool. Written as a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Alert>", into = "Vec<Alert>")]
pub struct Book(BTreeMap<Key, Alert>);

/// Entry and fingerprint.
type Key = (Arc<str>, Arc<str>);

/// What became of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It began to fire, or fires anew.
    Firing,
    Resolved,
    /// It was not heard of for so long that it counts as over.
    Expired,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Firing => "firing",
            Change::Resolved => "resolved",
            Change::Expired => "expired",
        }
    }
}

/// A change with the alert as it is after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    pub change: Change,
    pub alert: Alert,
}

/// What taking in a notification did to the book.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Nothing that is worth writing down.
    Nothing,
    /// Only when it was last heard of, or what is known of an alert that does not fire.
    Noted,
    Changed(Changed),
    /// There is no room for it.
    Full,
}

impl From<Vec<Alert>> for Book {
    fn from(alerts: Vec<Alert>) -> Book {
        Book(alerts.into_iter().map(|alert| ((alert.entry.clone(), alert.fingerprint.clone()), alert)).collect())
    }
}

impl From<Book> for Vec<Alert> {
    fn from(book: Book) -> Vec<Alert> {
        book.0.into_values().collect()
    }
}

impl Book {
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.0.values()
    }

    /// Takes in what is told of an alert that belongs to an entry.
    pub fn hear(&mut self, entry: &Arc<str>, told: &Told, now: Timestamp) -> Heard {
        let key = (entry.clone(), Arc::from(told.fingerprint.as_str()));
        let Some(known) = self.0.get_mut(&key) else {
            if self.0.len() >= MOST_KEPT {
                return Heard::Full;
            }
            let alert = first(&key, told, now);
            self.0.insert(key, alert.clone());
            // Resolved, and never heard to fire: remembered, for a firing one may come late.
            return if alert.is_firing() { changed(Change::Firing, alert) } else { Heard::Noted };
        };
        let before = known.clone();
        match told.ends_at {
            Some(end) => {
                let repeated = Some(end) == known.ends_at && known.starts_at <= end;
                if Some(end) > known.ends_at || repeated && now.since(known.last_heard) >= HEARD_STEP {
                    (known.ends_at, known.last_heard) = (Some(end), now);
                }
                known.starts_at = known.starts_at.max(told.starts_at);
            }
            None => {
                if known.ends_at.is_some_and(|end| known.starts_at <= end) && now.since(known.last_heard) > LATE {
                    known.ends_at = None;
                }
                if told.starts_at > known.starts_at {
                    (known.starts_at, known.first_heard, known.last_heard) = (told.starts_at, now, now);
                    known.expired = false;
                } else if known.ends_at.is_none_or(|end| told.starts_at > end) {
                    // A peer may know an earlier start of the same firing, and one that fires again has its old one: what
                    // answered the episode still does.
                    if known.expired || now.since(known.last_heard) >= HEARD_STEP {
                        known.last_heard = now;
                    }
                    known.expired = false;
                }
            }
        }
        let began = known.is_firing() && (!before.is_firing() || known.starts_at != before.starts_at);
        match (began, before.is_firing() && !known.is_firing()) {
            (true, _) => changed(Change::Firing, known.clone()),
            (_, true) => changed(Change::Resolved, known.clone()),
            _ if *known != before => Heard::Noted,
            _ => Heard::Nothing,
        }
    }

    /// Ends what fires and was not heard of for too long, and forgets what was not heard of for twice as long. `expires` is
    /// the time that an entry gives its alerts; an entry that is not configured any more has none, and its alerts go.
    pub fn expire(&mut self, now: Timestamp, expires: impl Fn(&str) -> Option<Duration>) -> Vec<Changed> {
        let mut over = Vec::new();
        self.0.retain(|_, alert| {
            let Some(expires) = expires(&alert.entry) else { return false };
            let silent = now.since(alert.last_heard);
            if alert.is_firing() && silent >= expires {
                alert.expired = true;
                over.push(Changed { change: Change::Expired, alert: alert.clone() });
            }
            silent < expires.saturating_mul(2)
        });
        over
    }

    /// Forgets alerts that do not fire, those heard of longest ago first, when there is little room for further ones.
    pub fn make_room(&mut self) {
        if self.0.len() < MOST_KEPT / 10 * 9 {
            return;
        }
        let resting = self.0.iter().filter(|(_, alert)| !alert.is_firing());
        let mut resting: Vec<(Timestamp, Key)> = resting.map(|(key, alert)| (alert.last_heard, key.clone())).collect();
        resting.sort();
        for (_, key) in resting.into_iter().take(MOST_KEPT / 2) {
            self.0.remove(&key);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

fn changed(change: Change, alert: Alert) -> Heard {
    Heard::Changed(Changed { change, alert })
}

fn first(key: &Key, told: &Told, now: Timestamp) -> Alert {
    let name = told.labels.get("alertname").map_or("", String::as_str);
    Alert {
        entry: key.0.clone(),
        fingerprint: key.1.clone(),
        alertname: name.chars().take(LONGEST_NAME).collect::<String>().into(),
        starts_at: told.starts_at,
        ends_at: told.ends_at,
        first_heard: now,
        last_heard: now,
        expired: false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            (
                "two episodes",
                &[(30, 0, None, "firing"), (90, 0, Some(60), "resolved"), (130, 100, None, "firing")],
                true,
            ),
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
            (
                "the end moves on",
                &[(90, 0, Some(60), "noted"), (95, 0, Some(70), "noted"), (96, 65, None, "noted")],
                false,
            ),
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

    #[test]
    fn the_book_is_never_larger_than_it_may_be() {
        let mut book = Book::default();
        let other = |i: usize, end| Told { fingerprint: format!("f{i}"), ..told(0, end) };
        for i in 0..MOST_KEPT {
            let end = (i % 2 == 0).then_some(1);
            assert_ne!(book.hear(&entry(), &other(i, end), at(i as u64)), Heard::Full);
        }
        assert_eq!(book.hear(&entry(), &other(MOST_KEPT, None), at(0)), Heard::Full);
        book.make_room();
        assert_eq!(book.count(), MOST_KEPT / 2);
        assert!(book.alerts().all(Alert::is_firing), "those that do not fire make room");
        assert_ne!(book.hear(&entry(), &other(MOST_KEPT, None), at(0)), Heard::Full);
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
}
