//! Every instant at which the controller may die, and every pair of them, times what can be wrong with replies.
//!
//! Alone, each instant is combined with each fault at each call in turn. In pairs, with good replies and with the fault at
//! the first call of every key, so that each call of the workflow gets it once; a request that is refused or lost adds no
//! instant that alone would not show, so pairs do without those. Two shards on their way at once, and a store that only
//! copies, are taken apart alone and in pairs with good replies: pairs of faults too would take half an hour.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::bench::{Bench, Work, paused};
use crate::replay::Fault;

const FAULTS: [Fault; 6] = [
    Fault::LoseAnswer,
    Fault::Lose,
    Fault::Late(Duration::from_secs(7)),
    Fault::Double(Duration::from_secs(3)),
    Fault::Refuse,
    Fault::Wrong,
];

const IN_PAIRS: [Fault; 3] =
    [Fault::LoseAnswer, Fault::Late(Duration::from_secs(7)), Fault::Double(Duration::from_secs(3))];

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
enum Replies {
    Good,
    Nth(u32, Fault),
    FirstOfEach(Fault),
}

/// What one run came to.
struct Ran {
    /// How many of the deaths came about.
    deaths: usize,
    calls: usize,
}

async fn run(work: Work, replies: Replies, deaths: &[u32]) -> Ran {
    let world = work.world().await;
    match replies {
        Replies::Good => {}
        Replies::Nth(n, fault) => world.fault_nth(n, fault),
        Replies::FirstOfEach(fault) => world.fault_each(fault),
    }
    let mut bench = Bench::new(world, |hands| hands);
    let mut begins = Some(work.operation());
    let mut died = 0;
    for at in deaths {
        if !bench.lives(begins.take(), Some(*at)).await {
            break;
        }
        died += 1;
    }
    bench.lives(begins, None).await;
    if let Err(broken) = bench.judged().await {
        let ledger = bench.world.ledger();
        panic!("{work:?}, {replies:?}, dies at {deaths:?}: {broken}\n{ledger:#?}\n{:#?}", bench.operations().await);
    }
    Ran { deaths: died, calls: bench.world.ledger().len() }
}

/// Dies at every instant, once; gives how many there are.
async fn singles(work: Work, replies: Replies) -> (usize, u32) {
    let mut runs = 0;
    for at in 1.. {
        runs += 1;
        if run(work, replies, &[at]).await.deaths == 0 {
            return (runs, at - 1);
        }
    }
    unreachable!("every run has an end")
}

async fn pairs(work: Work, replies: Replies) -> (usize, u32) {
    let mut runs = 0;
    for first in 1.. {
        for second in 1.. {
            runs += 1;
            match run(work, replies, &[first, second]).await.deaths {
                0 => return (runs, first - 1),
                1 => break,
                _ => {}
            }
        }
    }
    unreachable!("every run has an end")
}

/// Does all jobs on two threads; gives the number of runs.
fn on_two_threads<J: Sync>(jobs: &[J], work: impl Fn(&tokio::runtime::Runtime, &J) -> usize + Sync) -> usize {
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = paused();
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ran = work(&runtime, job);
                    *runs.lock().expect("no thread panicked") += ran;
                }
            });
        }
    });
    runs.into_inner().expect("no thread panicked")
}

#[test]
fn every_instant_of_death_with_every_fault_at_every_call() {
    let mut jobs = Vec::new();
    let runtime = paused();
    for work in Work::ALL {
        let calls = runtime.block_on(run(work, Replies::Good, &[])).calls as u32;
        assert!(calls >= 5, "{work:?} makes {calls} calls only");
        jobs.push((work, Replies::Good));
        jobs.extend((1..=calls).flat_map(|n| FAULTS.map(|fault| (work, Replies::Nth(n, fault)))));
    }
    let runs = on_two_threads(&jobs, |runtime, (work, replies)| {
        let (runs, instants) = runtime.block_on(singles(*work, *replies));
        assert!(instants > 20, "{work:?}, {replies:?}: only {instants} instants");
        runs
    });
    println!("{runs} runs");
    assert!(runs > 3_000, "{runs}");
}

#[test]
fn every_pair_of_instants_of_death_with_every_fault() {
    let mut jobs = Vec::new();
    for work in Work::ALL {
        jobs.push((work, Replies::Good));
        if matches!(work, Work::UpByTwo | Work::DownByCopies) {
            continue;
        }
        jobs.extend(IN_PAIRS.map(|fault| (work, Replies::FirstOfEach(fault))));
    }
    let runs = on_two_threads(&jobs, |runtime, (work, replies)| runtime.block_on(pairs(*work, *replies)).0);
    println!("{runs} runs");
    assert!(runs > 15_000, "{runs}");
}
