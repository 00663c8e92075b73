//! Every instant at which the controller may die, and every pair of them, times what can be wrong with replies.
//!
//! Alone, each instant is combined with each fault at each call in turn. In pairs, with good replies and with the fault at
//! the first call of every key, so that each call of the workflow gets it once; a request that is refused or lost adds no
//! instant that alone would not show, so pairs do without those. Two shards on their way at once, and a store that only
//! copies, are taken apart alone and in pairs with good replies: pairs of faults too would take three times as long.

use std::time::Duration;

use super::apart::{Replies, on_two_threads, pairs, run, singles};
use super::bench::paused;
use super::works::Work;
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
        let runs = runtime.block_on(singles(*work, *replies)).len();
        assert!(runs > 21, "{work:?}, {replies:?}: only {} instants", runs - 1);
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
    let runs = on_two_threads(&jobs, |runtime, (work, replies)| runtime.block_on(pairs(*work, *replies)).len());
    println!("{runs} runs");
    assert!(runs > 15_000, "{runs}");
}
