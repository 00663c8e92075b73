//! Every instant at which the controller may die, and what may be wrong with the replies.
//!
//! Each instant alone and in pairs, with good replies; each fault at each change, with a controller that lives.

use std::time::Duration;

use super::works::Work;
use crate::model::OperationState;
use crate::replay::Fault;
use crate::replay::tests::apart::{Ran, Replies, on_two_threads, pairs, run, singles};
use crate::replay::tests::bench::paused;

const FAULTS: [Fault; 5] = [
    Fault::LoseAnswer,
    Fault::Lose,
    Fault::Late(Duration::from_secs(7)),
    Fault::Double(Duration::from_secs(3)),
    Fault::Refuse,
];

/// Deaths alone take nothing back: what was begun ends well.
fn ended_well(work: Work, runs: &[Ran]) {
    let ends = runs.iter().filter_map(|ran| ran.ended);
    ends.for_each(|ended| assert_eq!(ended, OperationState::Succeeded, "{work:?}"));
}

#[test]
fn every_instant_of_death() {
    let runs = on_two_threads(&Work::ALL, |runtime, work| {
        let runs = runtime.block_on(singles(*work, Replies::Good));
        assert!(runs.len() > 40, "{work:?}: only {} instants", runs.len() - 1);
        ended_well(*work, &runs);
        runs.len()
    });
    println!("{runs} runs");
}

#[test]
fn every_pair_of_instants_of_death() {
    let runs = on_two_threads(&Work::ALL, |runtime, work| {
        let runs = runtime.block_on(pairs(*work, Replies::Good));
        ended_well(*work, &runs);
        runs.len()
    });
    println!("{runs} runs");
    assert!(runs > 10_000, "{runs}");
}

#[test]
fn every_fault_at_every_change() {
    let mut jobs = Vec::new();
    for work in Work::ALL {
        let ran = paused().block_on(run(work, Replies::Good, &[]));
        assert!(ran.calls >= 5, "{work:?} makes {} calls only", ran.calls);
        assert_eq!(ran.ended, Some(OperationState::Succeeded), "{work:?}");
        jobs.extend((1..=ran.calls as u32).flat_map(|n| FAULTS.map(|fault| (work, n, fault))));
    }
    let runs = on_two_threads(&jobs, |runtime, (work, n, fault)| {
        runtime.block_on(run(*work, Replies::Nth(*n, *fault), &[]));
        1
    });
    println!("{runs} runs");
}
