//! Whether a node is well, by streaks of good and bad checks. Pure.

use crate::model::Timestamp;

/// A node's health over its checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    good: u32,
    bad: u32,
    /// The last checks make it healthy; never so before the first good one.
    pub healthy: bool,
    pub unhealthy_since: Option<Timestamp>,
}

impl Health {
    /// One check. `bad_checks` in a row make it unhealthy, `good_checks` in a row healthy again; a node never seen
    /// unhealthy is healthy from its first good one.
    pub fn check(&mut self, good: bool, at: Timestamp, bad_checks: u32, good_checks: u32) {
        if good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            if self.unhealthy_since.is_none() || self.good >= good_checks {
                (self.healthy, self.unhealthy_since) = (true, None);
            }
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
            if self.bad >= bad_checks {
                self.healthy = false;
                self.unhealthy_since.get_or_insert(at);
            }
        }
    }

    /// One check of a node that may be silent (it is in maintenance, or not yet in service): silence starts no streak, so
    /// that it is not replaced in the moment its maintenance ends. It is healthy as long as it answers.
    pub fn check_excused(&mut self, good: bool) {
        *self = Health { healthy: good, ..Health::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaks() {
        // (good +, bad -, silent m or answering p and excused; whether it is healthy after each)
        let cases = [
            ("+", "+"),
            ("-", "-"),
            ("-+", "-+"),
            ("+--", "+++"),
            ("+---", "+++-"),
            ("+--+--", "++++++"),
            ("+---+", "+++--"),
            ("+---++", "+++---"),
            ("+---+++", "+++---+"),
            ("+---++-+++", "+++------+"),
            ("---+", "----"),
            ("---+++", "-----+"),
            ("+mmmm--", "+------"),
            ("+mmm+", "+---+"),
            ("+---pm+", "+++-+-+"),
        ];
        for (checks, expected) in cases {
            let mut health = Health::default();
            let mut seen = String::new();
            for (i, check) in checks.chars().enumerate() {
                let at = Timestamp::from_millis(i as i64);
                match check {
                    'm' => health.check_excused(false),
                    'p' => health.check_excused(true),
                    _ => health.check(check == '+', at, 3, 3),
                }
                seen.push(if health.healthy { '+' } else { '-' });
            }
            assert_eq!(seen, expected, "{checks}");
        }
    }

    #[test]
    fn unhealthy_since_the_check_that_made_it_so() {
        let mut health = Health::default();
        for (i, good) in [true, false, false, false, false, true, true].into_iter().enumerate() {
            health.check(good, Timestamp::from_millis(i as i64), 3, 3);
        }
        assert_eq!(health.unhealthy_since, Some(Timestamp::from_millis(3)));
        health.check(true, Timestamp::from_millis(9), 3, 3);
        assert_eq!((health.healthy, health.unhealthy_since), (true, None));
        for at in 10..13 {
            health.check(false, Timestamp::from_millis(at), 3, 3);
        }
        assert_eq!(health.unhealthy_since, Some(Timestamp::from_millis(12)));
    }
}
