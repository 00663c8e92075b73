//! Takes a piece of work apart: it is done once for every instant at which the controller may die.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::bench::{Bench, Scene, paused};
use crate::model::{Operation, OperationState};
use crate::replay::Fault;

/// One operation, and the cluster that it is done to.
pub trait Piece: Copy + Debug + Send + Sync {
    type Over: Scene;

    fn scene(self) -> impl Future<Output = Arc<Self::Over>>;

    fn operation(self) -> Operation;
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub enum Replies {
    Good,
    Nth(u32, Fault),
    FirstOfEach(Fault),
}

/// What one run came to.
pub struct Ran {
    /// How many of the deaths came about.
    pub deaths: usize,
    pub calls: usize,
    /// Nothing ended if it died before it had begun.
    pub ended: Option<OperationState>,
}

/// Does the work, dies at each of these instants after the last, and judges.
pub async fn run<P: Piece>(work: P, replies: Replies, deaths: &[u32]) -> Ran {
    let world = work.scene().await;
    match replies {
        Replies::Good => {}
        Replies::Nth(n, fault) => world.set_faults(|faults| faults.nth(n, fault)),
        Replies::FirstOfEach(fault) => world.set_faults(|faults| faults.first_of_each(fault)),
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
    let ended = bench.operations().await.last().map(|operation| operation.state);
    Ran { deaths: died, calls: bench.world.ledger().len(), ended }
}

/// Dies at every instant, once; the last run is the one that none was left for.
pub async fn singles<P: Piece>(work: P, replies: Replies) -> Vec<Ran> {
    let mut runs = Vec::new();
    for at in 1.. {
        runs.push(run(work, replies, &[at]).await);
        if runs.last().is_some_and(|ran| ran.deaths == 0) {
            break;
        }
    }
    runs
}

/// Dies at every pair of instants.
pub async fn pairs<P: Piece>(work: P, replies: Replies) -> Vec<Ran> {
    let mut runs = Vec::new();
    for first in 1.. {
        for second in 1.. {
            let ran = run(work, replies, &[first, second]).await;
            let deaths = ran.deaths;
            runs.push(ran);
            match deaths {
                0 => return runs,
                1 => break,
                _ => {}
            }
        }
    }
    unreachable!("every run has an end")
}

/// Does all jobs on two threads; gives the number of runs.
pub fn on_two_threads<J: Sync>(jobs: &[J], work: impl Fn(&tokio::runtime::Runtime, &J) -> usize + Sync) -> usize {
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
