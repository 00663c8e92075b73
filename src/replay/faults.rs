//! What goes wrong with a call, and when the controller dies: told beforehand by a test, or drawn from the seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Notify;

/// What a call is made to do instead of its work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing happened, and the answer says so.
    Refuse,
    /// Nothing happened, nobody knows.
    Lose,
    /// It happened, nobody knows.
    LoseAnswer,
    /// It happens after so long, nobody knows.
    Late(Duration),
    /// It happens after so long, and is told then.
    Slow(Duration),
    /// It happened, is told, and the request arrives once more after so long.
    Double(Duration),
    /// It happened; the answer speaks of another node. A call whose answer names none is refused.
    Wrong,
    /// Nothing happened, and no answer ever comes.
    Hang,
    /// Nothing happened yet: ask again.
    InProgress,
}

impl Fault {
    /// The name in counts.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Refuse => "refused",
            Fault::Lose => "lost requests",
            Fault::LoseAnswer => "lost replies",
            Fault::Late(_) => "late effects",
            Fault::Slow(_) => "slow calls",
            Fault::Double(_) => "doubled requests",
            Fault::Wrong => "wrong replies",
            Fault::Hang => "hanging calls",
            Fault::InProgress => "calls in progress",
        }
    }
}

/// Which calls fail how.
#[derive(Default)]
pub(super) struct Faults {
    /// The next calls of a name do this instead.
    scripted: BTreeMap<&'static str, VecDeque<Fault>>,
    /// The first call with each key does this.
    first_of_each: Option<Fault>,
    seen: BTreeSet<String>,
    /// The n-th call, counted from 1, does this.
    nth: Option<(u32, Fault)>,
    calls: u32,
    /// Of a thousand calls, so many fail.
    pub per_mille: u32,
    /// The longest that something late takes.
    pub latest: Duration,
    /// Of a thousand reads, so many fail.
    pub reads_per_mille: u32,
}

impl Faults {
    pub fn script(&mut self, call: &'static str, faults: &[Fault]) {
        self.scripted.entry(call).or_default().extend(faults);
    }

    #[cfg(test)]
    pub fn first_of_each(&mut self, fault: Fault) {
        self.first_of_each = Some(fault);
    }

    #[cfg(test)]
    pub fn nth(&mut self, n: u32, fault: Fault) {
        self.nth = Some((n, fault));
    }

    /// Whether and how this call fails.
    pub fn of_call(&mut self, rng: &mut Rng, call: &'static str, key: &str) -> Option<Fault> {
        if let Some(fault) = self.scripted.get_mut(call).and_then(VecDeque::pop_front) {
            return Some(fault);
        }
        self.calls += 1;
        if let Some((_, fault)) = self.nth.filter(|(n, _)| *n == self.calls) {
            return Some(fault);
        }
        if self.first_of_each.is_some() && self.seen.insert(format!("{call} {key}")) {
            return self.first_of_each;
        }
        (self.per_mille > 0 && rng.u32(0..1000) < self.per_mille).then(|| self.drawn(rng))
    }

    pub fn of_read(&mut self, rng: &mut Rng, call: &'static str) -> bool {
        let scripted = self.scripted.get_mut(call).and_then(VecDeque::pop_front).is_some();
        scripted || (self.reads_per_mille > 0 && rng.u32(0..1000) < self.reads_per_mille)
    }

    fn drawn(&self, rng: &mut Rng) -> Fault {
        let latest = self.latest.as_millis().max(2) as u64;
        let soon = Duration::from_millis(rng.u64(1..latest));
        match rng.u32(0..15) {
            0..2 => Fault::Refuse,
            2..4 => Fault::Lose,
            4..8 => Fault::LoseAnswer,
            8..10 => Fault::Late(soon),
            10..12 => Fault::Double(soon),
            12 => Fault::Wrong,
            13 => Fault::Hang,
            _ => Fault::InProgress,
        }
    }

    /// From now on all goes well.
    pub fn stop(&mut self) {
        *self = Faults::default();
    }
}

/// The moment at which the controller is to die: before or after the n-th write or effect.
#[derive(Default)]
pub struct Crash {
    at: Mutex<(u32, Option<u32>)>,
    pub happened: Notify,
}

impl Crash {
    /// Counts anew, and dies at the n-th instant from here, or never.
    pub fn arm(&self, at: Option<u32>) {
        *self.lock() = (0, at);
    }

    /// An instant at which the controller may die. Once dead, it stays at each: nothing of it goes on.
    pub async fn point(&self) {
        let (dies, now) = {
            let mut at = self.lock();
            at.0 += 1;
            (at.1.is_some_and(|n| at.0 >= n), at.1 == Some(at.0))
        };
        if now {
            self.happened.notify_one();
        }
        if dies {
            std::future::pending::<()>().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u32, Option<u32>)> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
