//! The alerts of one pool as a state, by entry and fingerprint: notifications in, changes out. Pure.
//!
//! Order and number of notifications that come within two minutes do not matter for what fires: the latest start and the
//! latest end that were told of an alert count, whoever told them. So an older notification after a newer, a peer that
//! sends everything twice and a resolved one without a firing one before it are no cases of their own. What is said to
//! fire later than that fires, whatever its start: Alertmanager sends the old one again when Prometheus was away for so
//! long that the alert was taken for resolved, or when one of two Prometheus servers still has it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Route, Told};
use crate::model::{Alert, Timestamp};

/// Alerts kept of one entry. No operation would be decided otherwise for more of them, and no entry whose matchers are too
/// wide takes the room of another.
const MOST_KEPT: usize = 1_000;
/// A repeated notification closer to the last than this changes nothing.
const HEARD_STEP: Duration = Duration::from_secs(10);
/// How much later than the resolved one a firing notification of the same episode may arrive and still be an old one. Less
/// than Alertmanager's `group_interval` (5 min), the soonest at which one that fires again is told.
const LATE: Duration = Duration::from_secs(120);
const LONGEST_NAME: usize = 120;
/// Bytes of names and values; an alert that has more is kept without its labels.
const LONGEST_LABELS: usize = 4_096;

/// The alerts of a pool, by entry and fingerprint. Written as a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Booked>", into = "Vec<Booked>")]
pub struct Book(BTreeMap<Arc<str>, BTreeMap<Arc<str>, Booked>>);

/// An alert with what tells whose it is when the entries change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Booked {
    #[serde(flatten)]
    alert: Alert,
    /// `None` when they are too long, or were not told since they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<Arc<BTreeMap<String, String>>>,
}

/// What became of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It began to fire, or fires anew.
    Firing,
    Resolved,
    /// It was not heard of for so long that it counts as over.
    Expired,
    /// It still fires, but the entry is no more, or is not for it any more.
    Unmatched,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Firing => "firing",
            Change::Resolved => "resolved",
            Change::Expired => "expired",
            Change::Unmatched => "unmatched",
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

impl From<Vec<Booked>> for Book {
    fn from(all: Vec<Booked>) -> Book {
        let mut book = Book::default();
        all.into_iter().for_each(|booked| book.add(booked));
        book
    }
}

impl From<Book> for Vec<Booked> {
    fn from(book: Book) -> Vec<Booked> {
        book.0.into_values().flat_map(BTreeMap::into_values).collect()
    }
}

impl Book {
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.0.values().flat_map(BTreeMap::values).map(|booked| &booked.alert)
    }

    fn add(&mut self, booked: Booked) {
        let of_entry = self.0.entry(booked.alert.entry.clone()).or_default();
        of_entry.insert(booked.alert.fingerprint.clone(), booked);
    }

    /// Whether the entry has no room for an alert that it does not have yet.
    fn lacks_room(&self, entry: &str) -> bool {
        self.0.get(entry).is_some_and(|of_entry| of_entry.len() >= MOST_KEPT)
    }

    /// Takes in what is told of an alert that belongs to an entry.
    pub fn hear(&mut self, entry: &Arc<str>, told: &Told, now: Timestamp) -> Heard {
        let known = self.0.get_mut(entry).and_then(|of_entry| of_entry.get_mut(told.fingerprint.as_str()));
        let Some(Booked { alert: known, labels }) = known else {
            if self.lacks_room(entry) {
                return Heard::Full;
            }
            let alert = first(entry, told, now);
            self.add(Booked { alert: alert.clone(), labels: not_too_long(&told.labels) });
            // Resolved, and never heard to fire: remembered, for a firing one may come late.
            return if alert.is_firing() { changed(Change::Firing, alert) } else { Heard::Noted };
        };
        let before = known.clone();
        take_in(known, told, now);
        let learnt = labels.is_none() && {
            *labels = not_too_long(&told.labels);
            labels.is_some()
        };
        let began = known.is_firing() && (!before.is_firing() || known.starts_at != before.starts_at);
        match (began, before.is_firing() && !known.is_firing()) {
            (true, _) => changed(Change::Firing, known.clone()),
            (_, true) => changed(Change::Resolved, known.clone()),
            _ if learnt || *known != before => Heard::Noted,
            _ => Heard::Nothing,
        }
    }

    /// Puts every alert under the entries that are for it now, whatever they were when it was heard of; gives what fires
    /// under other entries than before. One without labels stays where it is, as long as there is an entry of that name.
    pub fn rebook(&mut self, pool: &str, routes: &[Route]) -> Vec<Changed> {
        let is_for = |route: &Route, booked: &Booked| match &booked.labels {
            Some(labels) => route.is_for(pool, labels),
            None => route.entry == booked.alert.entry,
        };
        let stays =
            |booked: &Booked| routes.iter().any(|route| route.entry == booked.alert.entry && is_for(route, booked));
        let all: Vec<Booked> = std::mem::take(self).into();
        let (stay, leave): (Vec<Booked>, Vec<Booked>) = all.iter().cloned().partition(stays);
        *self = stay.into();
        let mut changes: Vec<Changed> = leave
            .into_iter()
            .filter(|booked| booked.alert.is_firing())
            .map(|booked| Changed { change: Change::Unmatched, alert: booked.alert })
            .collect();
        // Where two entries had it, one may have let it expire before the other.
        let (firing, resting): (Vec<Booked>, Vec<Booked>) =
            all.into_iter().partition(|booked| booked.alert.is_firing());
        for booked in firing.into_iter().chain(resting) {
            for route in routes.iter().filter(|route| is_for(route, &booked)) {
                let has_it = |of_entry: &BTreeMap<_, _>| of_entry.contains_key(&booked.alert.fingerprint);
                if self.0.get(&route.entry).is_some_and(has_it) || self.lacks_room(&route.entry) {
                    continue;
                }
                let alert = Alert { entry: route.entry.clone(), ..booked.alert.clone() };
                if alert.is_firing() {
                    changes.push(Changed { change: Change::Firing, alert: alert.clone() });
                }
                self.add(Booked { alert, labels: booked.labels.clone() });
            }
        }
        changes
    }

    /// Ends what fires and was not heard of for too long, and forgets what was not heard of for twice as long. `expires` is
    /// the time that an entry gives its alerts; an entry that is not configured any more has none, and its alerts go.
    pub fn expire(&mut self, now: Timestamp, expires: impl Fn(&str) -> Option<Duration>) -> Vec<Changed> {
        let mut over = Vec::new();
        self.0.retain(|entry, of_entry| {
            let Some(expires) = expires(entry) else { return false };
            of_entry.retain(|_, Booked { alert, .. }| {
                let silent = now.since(alert.last_heard);
                if alert.is_firing() && silent >= expires {
                    alert.expired = true;
                    over.push(Changed { change: Change::Expired, alert: alert.clone() });
                }
                silent < expires.saturating_mul(2)
            });
            !of_entry.is_empty()
        });
        over
    }

    /// Forgets alerts that do not fire, those heard of longest ago first, where there is little room for further ones.
    pub fn make_room(&mut self) {
        for of_entry in self.0.values_mut().filter(|of_entry| of_entry.len() >= MOST_KEPT / 10 * 9) {
            let resting = of_entry.values().map(|booked| &booked.alert).filter(|alert| !alert.is_firing());
            let mut resting: Vec<(Timestamp, Arc<str>)> =
                resting.map(|alert| (alert.last_heard, alert.fingerprint.clone())).collect();
            resting.sort();
            for (_, fingerprint) in resting.into_iter().take(MOST_KEPT / 2) {
                of_entry.remove(&fingerprint);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

fn take_in(known: &mut Alert, told: &Told, now: Timestamp) {
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
}

fn changed(change: Change, alert: Alert) -> Heard {
    Heard::Changed(Changed { change, alert })
}

fn first(entry: &Arc<str>, told: &Told, now: Timestamp) -> Alert {
    let name = told.labels.get("alertname").map_or("", String::as_str);
    Alert {
        entry: entry.clone(),
        fingerprint: told.fingerprint.as_str().into(),
        alertname: name.chars().take(LONGEST_NAME).collect::<String>().into(),
        starts_at: told.starts_at,
        ends_at: told.ends_at,
        first_heard: now,
        last_heard: now,
        expired: false,
    }
}

fn not_too_long(labels: &BTreeMap<String, String>) -> Option<Arc<BTreeMap<String, String>>> {
    let length: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    (length <= LONGEST_LABELS).then(|| Arc::new(labels.clone()))
}
