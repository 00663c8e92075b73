//! Many seeds, on all cores: each thread takes the next one and plays it in a runtime of its own.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cast::Profile;
use super::play::{Played, play};
use super::tally::Tally;

/// What many seeds brought.
#[derive(Debug, Default)]
pub struct Found {
    pub tally: Tally,
    /// The lowest seed whose story broke a law, if one did.
    pub broken: Option<Played>,
}

/// Plays every seed of the range, in no order; once one is found that breaks a law, no higher seed is begun. `progress`
/// hears how many are done, now and then, from any thread.
pub fn many(
    seeds: RangeInclusive<u64>,
    profile: Option<Profile>,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Found {
    let (next, done, stop) = (AtomicU64::new(*seeds.start()), AtomicU64::new(0), AtomicBool::new(false));
    let found = Mutex::new(Found::default());
    let work = || {
        let mut tally = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > *seeds.end() || seed < *seeds.start() {
                break;
            }
            let played = play(seed, profile);
            tally.add(&played.tally);
            if played.broken.is_some() {
                stop.store(true, Ordering::Relaxed);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if found.broken.as_ref().is_none_or(|known| played.seed < known.seed) {
                    found.broken = Some(played);
                }
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
        found.lock().unwrap_or_else(PoisonError::into_inner).tally.add(&tally);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
