//! Work on the cluster under writes and searches: nothing is lost, and no search of what has two copies fails.

use super::{WAIT, controller};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_is_replaced() {
    let qdrant = crate::qdrant::Qdrant::new(&["n1", "n2", "n3"]).await;
    qdrant.fill("twice", 6, 2, 3000).await;
    let before = qdrant.scroll("n1", "twice").await;
    let world = controller(&qdrant, 3).await;
    let load = qdrant.load("twice");
    let dead = qdrant.with(|cluster, _| cluster.peer("n3")).expect("a peer");
    qdrant.kill("n3");
    let replaced = async |_: &crate::common::World| {
        let (peers, census) = qdrant.with(|cluster, _| (cluster.registered(), cluster.census("twice")));
        let whole = census.copies.values().all(|copies| *copies == 2);
        (peers.len() == 3 && !peers.contains(&dead) && whole).then_some(())
    };
    world.until("the dead peer is replaced", WAIT, replaced).await;
    world.until("the operation is over", WAIT, async |w| w.status().await["operation"].is_null().then_some(())).await;
    assert_eq!(qdrant.ledger().made.len(), 1);
    assert!(qdrant.machines().contains(&"n3".to_string()), "the machine is left to a person");
    assert_eq!(
        load.failed_searches().iter().filter(|why| why.starts_with('5')).count(),
        0,
        "{:?}",
        load.failed_searches()
    );
    load.all_is_there(&qdrant, "n1", "twice", &before).await;
    // The one that comes back is not of the cluster any more, and is not taken for a member.
    qdrant.revive("n3");
    world
        .until("three healthy members", WAIT, async |w| {
            let status = w.status().await;
            (status["metrics"]["healthy_nodes"] == 3 && status["operation"].is_null()).then_some(())
        })
        .await;
    assert_eq!(qdrant.with(|cluster, _| cluster.registered().len()), 3);
}
