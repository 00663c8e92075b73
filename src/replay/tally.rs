//! What was played, in numbers. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts over one story, or over many.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    pub stories: u64,
    /// Time that went by in them, seconds.
    pub simulated_seconds: u64,
    /// Checks of a pool.
    pub checks: u64,
    /// Calls that asked the invented cluster to change.
    pub calls: u64,
    /// The most copies of shards that were on their way at once.
    pub most_at_once: u64,
    /// What went wrong, by name.
    pub faults: BTreeMap<String, u64>,
    /// Operations that ended, by kind and outcome.
    pub operations: BTreeMap<String, u64>,
}

impl Tally {
    pub fn fault(&mut self, name: &str) {
        match self.faults.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.faults.insert(name.into(), 1);
            }
        }
    }

    pub fn operation(&mut self, kind: &str, outcome: &str) {
        *self.operations.entry(format!("{kind} {outcome}")).or_default() += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        self.stories += other.stories;
        self.simulated_seconds += other.simulated_seconds;
        self.checks += other.checks;
        self.calls += other.calls;
        self.most_at_once = self.most_at_once.max(other.most_at_once);
        for (mine, theirs) in [(&mut self.faults, &other.faults), (&mut self.operations, &other.operations)] {
            for (name, count) in theirs {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }
}
