//! How many checks in a row a condition has held. Takes one vote a check, gives the next streak. Pure.

use crate::model::Timestamp;

/// After this many silent checks in a row a streak starts over.
const SILENT_CHECKS: u32 = 5;

/// What one check says to one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// The reading is beyond the line.
    For,
    /// It is not; an idle reading too, for it is neither beyond the line nor missing.
    Against,
    /// No evidence either way.
    Silent,
}

/// Checks in a row that voted for a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Streak {
    pub checks: u32,
    /// Silent checks since the last vote.
    silent: u32,
    /// When the first of `checks` was made; `None` while there is none.
    pub since: Option<Timestamp>,
    /// The line that the last of `checks` was held against.
    line: Option<f64>,
}

impl Streak {
    /// What it is worth against a line that may have moved: nothing when `is_stricter`, told the line it was counted
    /// against and this one, says that less is beyond this one.
    pub fn against(self, line: f64, is_stricter: impl Fn(f64, f64) -> bool) -> Streak {
        if self.line.is_some_and(|counted| is_stricter(counted, line)) { Streak::default() } else { self }
    }

    /// A silent check leaves the count as it was, until five in a row have made it worthless.
    pub fn after(self, vote: Vote, line: f64, at: Timestamp) -> Streak {
        match vote {
            Vote::For => Streak {
                checks: self.checks.saturating_add(1),
                silent: 0,
                since: self.since.or(Some(at)),
                line: Some(line),
            },
            Vote::Against => Streak::default(),
            Vote::Silent if self.silent + 1 >= SILENT_CHECKS => Streak::default(),
            Vote::Silent => Streak { silent: self.silent + 1, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_extends_breaks_and_leaves_a_streak() {
        use Vote::{Against as A, For as F, Silent as S};
        let cases: [(&str, &[Vote], u32); 8] = [
            ("nothing yet", &[], 0),
            ("votes add up", &[F, F, F], 3),
            ("a vote against starts over", &[F, F, A, F], 1),
            ("silence neither extends nor breaks", &[F, S, F], 2),
            ("four silent checks are bridged", &[F, S, S, S, S, F], 2),
            ("five silent checks start it over", &[F, S, S, S, S, S, F], 1),
            ("only silence in a row counts", &[F, S, S, S, F, S, S, S, F], 3),
            ("silence alone is nothing", &[S, S, S, S, S, S], 0),
        ];
        for (name, votes, expected) in cases {
            let end = votes
                .iter()
                .enumerate()
                .fold(Streak::default(), |s, (i, vote)| s.after(*vote, 1.0, Timestamp::from_millis(i as i64)));
            assert_eq!(end.checks, expected, "{name}");
            assert_eq!(end.since.is_some(), expected > 0, "{name}: {end:?}");
        }
    }
}
