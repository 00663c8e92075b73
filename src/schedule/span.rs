//! When a window is open: an instant -> open or closed, and the next change. Half-open: open at its start, closed at its
//! end. Nothing is remembered, so restarts, missed ticks and clocks that are set need no care. Pure.

use std::time::Duration;

use super::pattern::Pattern;
use super::zone::{Shown, Zone};
use crate::model::Timestamp;

/// After so many starts in a row without a pause, a window counts as one that never closes.
const MOST_STARTS: usize = 10_000;

/// The times of a window.
#[derive(Clone, Debug, PartialEq)]
pub enum Span {
    /// Again and again, by the clock of a zone.
    Recurring { start: Pattern, end: End, zone: Zone },
    /// Once.
    Dated { from: Timestamp, to: Timestamp, zone: Zone },
}

/// How a recurring window ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// When the clock shows this.
    At(Pattern),
    /// So long after the start, whatever the clock shows then.
    After(Duration),
}

impl Span {
    pub fn zone(&self) -> &Zone {
        match self {
            Span::Recurring { zone, .. } | Span::Dated { zone, .. } => zone,
        }
    }

    /// The last start, if the window is open at this instant.
    pub fn open_since(&self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Span::Dated { from, to, .. } => (*from <= at && at < *to).then_some(*from),
            Span::Recurring { start, end, zone } => {
                let secs = at.millis().div_euclid(1000);
                let started = zone.last(start, secs)?;
                let open = match end {
                    End::After(duration) => at < closes(started, *duration),
                    // Where one window ends and the next starts in the same minute, it is open.
                    End::At(end) => zone.last(end, secs).is_none_or(|ended| ended <= started),
                };
                open.then(|| timestamp(started))
            }
        }
    }

    /// When it next opens, or closes if it is open; `None` if never again.
    pub fn next_change(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Span::Dated { from, to, .. } => [*from, *to].into_iter().find(|change| after < *change),
            Span::Recurring { start, end, zone } => {
                let secs = after.millis().div_euclid(1000);
                let open = self.open_since(after).is_some();
                let changes = |at: &Timestamp| self.open_since(*at).is_some() != open;
                match end {
                    End::After(duration) if open => self.end_of_run(zone.last(start, secs)?, *duration),
                    End::At(end) if open => marks(zone, end, secs).map(timestamp).find(changes),
                    _ => marks(zone, start, secs).map(timestamp).find(changes),
                }
            }
        }
    }

    /// The end of a start's duration, and of those of all starts before that end.
    fn end_of_run(&self, started: Shown, duration: Duration) -> Option<Timestamp> {
        let Span::Recurring { start, zone, .. } = self else { return None };
        let mut end = closes(started, duration);
        for next in marks(zone, start, started.at) {
            if end < timestamp(next) {
                return Some(end);
            }
            end = closes(next, duration);
        }
        None
    }
}

/// The instants of a pattern after one, at most as many as a look ahead takes.
fn marks<'a>(zone: &'a Zone, pattern: &'a Pattern, after: i64) -> impl Iterator<Item = Shown> + 'a {
    let first = zone.first(pattern, after);
    std::iter::successors(first, |last| zone.first(pattern, last.at)).take(MOST_STARTS)
}

fn closes(started: Shown, duration: Duration) -> Timestamp {
    timestamp(started).plus(duration)
}

fn timestamp(shown: Shown) -> Timestamp {
    Timestamp::from_millis(shown.at.saturating_mul(1000))
}
