//! Random work, deaths, replies, blows and writes: nothing that was acknowledged is lost, and every operation ends, or
//! says why it cannot and ends once all is well.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use super::nature;
use super::works::Work;
use crate::model::{OperationState, Verb, Verdict};
use crate::replay::node;
use crate::replay::tests::apart::{Piece, on_two_threads};
use crate::replay::tests::bench::{Bench, Scene};

/// Orders after all is well, before an operation that is still open counts as stuck.
const LOOKS: usize = 3;

/// What a story came to.
///
/// # Errors
/// With the law that it broke.
async fn story(seed: u64) -> Result<String, String> {
    let mut rng = Rng::with_seed(seed);
    let work = *rng.choice(Work::ALL.iter()).expect("some");
    let pool = work.pool(seed).await;
    let per_mille = [0, 50, 200, 500][rng.usize(0..4)];
    pool.set_faults(|faults| (faults.per_mille, faults.latest) = (per_mille, Duration::from_secs(20)));
    let dead = (work == Work::Replace).then(|| node(3));
    // Now and then the dead one comes back.
    let spared = dead.clone().filter(|_| rng.u8(0..4) > 0);
    let nature = nature::takes_its_course(pool.site.clone(), rng.fork(), spared.clone());
    let nature = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(nature));
    let mut bench = Bench::new(pool.clone(), |hands| hands);
    let mut begins = Some(work.operation());
    for _ in 0..rng.usize(0..4) {
        let dies_at = rng.u32(1..120);
        pool.site.tells(format!("a controller that dies at {dies_at}"));
        if !bench.lives(begins.take(), Some(dies_at)).await {
            break;
        }
        sleep(Duration::from_millis(rng.u64(0..60_000))).await;
    }
    bench.lives(begins, None).await;
    drop(nature);
    pool.set_faults(|faults| faults.stop());
    pool.site.heals(spared.as_ref());
    sleep(Duration::from_secs(300)).await;
    let was_blocked = bench.operations().await.iter().any(|operation| !operation.state.is_final());
    bench.lives(None, None).await; // a start looks again by itself
    for look in 0..LOOKS {
        let Some(open) = bench.operations().await.into_iter().find(|operation| !operation.state.is_final()) else {
            break;
        };
        if open.state != OperationState::Blocked || open.detail.is_empty() {
            return Err(format!("{work:?}: {:?} without a reason: {}", open.state, open.detail));
        }
        let doubt = open.steps.iter().find(|step| step.state.is_in_doubt() && step.action.copy().is_none());
        let what = match doubt.filter(|_| look > 0) {
            Some(step) if pool.site.has(&step.action) => Verb::Resolve(Verdict::Done),
            Some(_) => Verb::Resolve(Verdict::Absent),
            None => Verb::Retry,
        };
        pool.site.tells(format!("{what:?}, for it is blocked: {}", open.detail));
        bench.obeys(&open.id, what).await?;
    }
    let settled = bench.settled().await;
    let operations = bench.operations().await;
    settled.map_err(|broken| {
        let ledger = bench.world.ledger().join("\n");
        format!("{work:?}, {per_mille} faults of 1000: {broken}\n{ledger}\n{operations:#?}")
    })?;
    let ended = operations.last().map_or("never began", |operation| operation.state.as_str());
    Ok(format!("{work:?}: {ended}{}", if was_blocked { ", was blocked" } else { "" }))
}

#[test]
fn no_seed_breaks_a_law() {
    let seeds: Vec<u64> = (1..=200).collect();
    let ends = Mutex::new(BTreeMap::<String, u32>::new());
    on_two_threads(&seeds, |runtime, seed| {
        let came_to = runtime.block_on(story(*seed)).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        *ends.lock().expect("no thread panicked").entry(came_to).or_default() += 1;
        1
    });
    let ends = ends.into_inner().expect("no thread panicked");
    println!("{ends:#?}");
    assert!(ends.len() > 8, "{ends:#?}");
}
