//! The four kinds of work, each under writes and searches: nothing is lost, and no search of what has two copies fails.

use serde_json::json;

use super::{WAIT, ask, controller, copies_are_whole, filled, of_node, reason, succeeded, was_gentle};
use crate::common::http;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_four_and_four_become_three() {
    let qdrant = filled(&["n1", "n2", "n3"]).await;
    let (once, twice) = (qdrant.scroll("n1", "once").await, qdrant.scroll("n1", "twice").await);
    let world = controller(&qdrant, 3).await;
    let (on_once, on_twice) = (qdrant.load("once"), qdrant.load("twice"));

    let id = ask(&world, "/autoscaling/scale-up", reason()).await;
    succeeded(&world, &id).await;
    world.settled(4).await;
    let new =
        qdrant.machines().into_iter().find(|name| !["n1", "n2", "n3"].contains(&name.as_str())).expect("a fourth");
    assert!(qdrant.with(|cluster, _| cluster.copies_on(&new)) >= 3, "it is filled");
    copies_are_whole(&qdrant);

    let id = ask(&world, "/autoscaling/scale-down", reason()).await;
    succeeded(&world, &id).await;
    world.settled(3).await;
    copies_are_whole(&qdrant);
    assert_eq!(qdrant.with(|cluster, _| cluster.registered().len()), 3);
    assert_eq!((qdrant.machines().len(), qdrant.ledger().removed.len()), (3, 1));
    was_gentle(&qdrant);

    assert_eq!(on_twice.failed_searches(), Vec::<String>::new());
    assert_eq!(on_once.failed_searches(), Vec::<String>::new(), "a copy is made before the other is dropped");
    let left = qdrant.machines().remove(0);
    on_once.all_is_there(&qdrant, &left, "once", &once).await;
    on_twice.all_is_there(&qdrant, &left, "twice", &twice).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_drained_and_leaves() {
    let qdrant = filled(&["n1", "n2", "n3", "n4"]).await;
    let before = qdrant.scroll("n2", "once").await;
    let world = controller(&qdrant, 4).await;
    let load = qdrant.load("once");
    let leader = qdrant.with(|cluster, _| cluster.leader()).expect("a leader");
    let id = ask(&world, "/autoscaling/scale-down", of_node(&leader)).await;
    succeeded(&world, &id).await;
    world.settled(3).await;
    assert!(!qdrant.machines().contains(&leader));
    assert!(qdrant.with(|cluster, _| cluster.leader()).is_some_and(|next| next != leader));
    copies_are_whole(&qdrant);
    was_gentle(&qdrant);
    assert_eq!(load.failed_searches(), Vec::<String>::new());
    let left = qdrant.machines().remove(0);
    load.all_is_there(&qdrant, &left, "once", &before).await;
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_member_gets_its_share() {
    let qdrant = filled(&["n1", "n2", "n3"]).await;
    let before = qdrant.scroll("n1", "twice").await;
    let made = http().put(format!("{}/nodes/n4", qdrant.base)).send().await.expect("an answer");
    assert_eq!(made.status(), 201);
    let world = controller(&qdrant, 4).await;
    let load = qdrant.load("twice");
    let id = ask(&world, "/autoscaling/rebalance", json!({"reason": "a new node"})).await;
    succeeded(&world, &id).await;
    let held = qdrant.with(|cluster, _| ["n1", "n2", "n3", "n4"].map(|name| cluster.copies_on(name)));
    let (most, least) = (held.iter().max().expect("four"), held.iter().min().expect("four"));
    assert!(held[3] >= 3 && most - least <= 2, "{held:?}");
    assert_eq!(qdrant.machines().len(), 4);
    copies_are_whole(&qdrant);
    was_gentle(&qdrant);
    assert_eq!(load.failed_searches(), Vec::<String>::new());
    load.all_is_there(&qdrant, "n4", "twice", &before).await;
}
