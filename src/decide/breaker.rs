//! Failed operations in a row, the pause after each, and the breaker that they open. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 3;
/// Open for this long; then one operation may try, and a further failure opens it again.
const HALF_OPEN_AFTER: Duration = Duration::from_secs(30 * 60);
/// Closed again after this long, the failures forgotten.
const CLOSED_AFTER: Duration = Duration::from_secs(3 * 3600);
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);

/// What is remembered of operations that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    failures: u32,
    failed_at: Option<Timestamp>,
    opened: Option<Opened>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Opened {
    at: Timestamp,
    why: String,
}

impl Breaker {
    /// A success closes it: things work again, whoever tried.
    pub fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    pub fn failed(&mut self, now: Timestamp) {
        self.forget_old(now);
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(now);
        // An entry in `opened` means half-open (or a person's attempt while open): that attempt has failed as well.
        if self.failures >= FAILURES || self.opened.is_some() {
            self.open(now, format!("{} operations failed in a row", self.failures));
        }
    }

    /// An operation whose outcome nobody knows opens it at once.
    pub fn blocked(&mut self, now: Timestamp) {
        self.open(now, "an operation is blocked: nobody knows whether one of its steps happened".into());
    }

    fn open(&mut self, at: Timestamp, why: String) {
        self.opened = Some(Opened { at, why });
    }

    fn forget_old(&mut self, now: Timestamp) {
        if self.opened.as_ref().is_some_and(|o| now.since(o.at) >= CLOSED_AFTER) {
            *self = Breaker::default();
        }
    }

    /// Why it is open and when it lets one attempt through; `None` while closed or half-open.
    pub fn open_until(&self, now: Timestamp) -> Option<(&str, Timestamp)> {
        let opened = self.opened.as_ref()?;
        (now.since(opened.at) < HALF_OPEN_AFTER).then(|| (opened.why.as_str(), opened.at.plus(HALF_OPEN_AFTER)))
    }

    /// Failures in a row and the end of the pause after the last; `None` when it is over.
    pub fn backing_off_until(&self, now: Timestamp) -> Option<(u32, Timestamp)> {
        let until = self.failed_at?.plus(pause(self.failures));
        (now < until).then_some((self.failures, until))
    }
}

/// 1 min after the first failure, doubling to 30.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minute: u32) -> Timestamp {
        Timestamp::from_millis(1_000_000_000).plus(MINUTE * minute)
    }

    #[test]
    fn the_pause_doubles_to_half_an_hour() {
        let minutes: Vec<u64> = [1, 2, 3, 4, 5, 6, 7, 40].map(|n| pause(n).as_secs() / 60).to_vec();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn opens_after_three_failures_in_a_row_and_lets_one_try_after_half_an_hour() {
        let mut breaker = Breaker::default();
        breaker.failed(at(0));
        breaker.failed(at(5));
        assert_eq!(breaker.open_until(at(5)), None);
        breaker.failed(at(10));
        assert_eq!(breaker.open_until(at(10)).map(|o| o.1), Some(at(40)));
        assert_eq!(breaker.open_until(at(40)), None, "half-open");
        breaker.failed(at(41));
        assert_eq!(breaker.open_until(at(41)).map(|o| o.1), Some(at(71)), "the attempt failed");
        breaker.succeeded();
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_success_between_failures_starts_the_count_over() {
        let mut breaker = Breaker::default();
        for minute in [0, 10, 20, 30] {
            breaker.failed(at(minute));
            breaker.failed(at(minute + 1));
            breaker.succeeded();
        }
        assert_eq!(breaker.open_until(at(31)), None);
    }

    #[test]
    fn closed_after_three_hours_with_the_failures_forgotten() {
        let mut breaker = Breaker::default();
        breaker.blocked(at(0));
        assert!(breaker.open_until(at(29)).is_some());
        breaker.failed(at(179));
        assert!(breaker.open_until(at(180)).is_some(), "half-open at 179 min: one failure opens it again");
        breaker.failed(at(179 + 180));
        assert_eq!(breaker.open_until(at(179 + 180)), None, "closed: this is the first failure");
        assert_eq!(breaker.backing_off_until(at(179 + 180)), Some((1, at(179 + 181))));
    }
}
