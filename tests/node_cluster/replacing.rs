//! Copies made anew from the living, and a dead member forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use vecscale::clock::SystemClock;
use vecscale::model::*;
use vecscale::node::client::Client;
use vecscale::operate::drivers::vectornode::Vectornode;
use vecscale::operate::drivers::*;
use vecscale::operate::placement::Placing;
use vecscale::operate::proof::{Baseline, ProofOfCopies, prove_copies};
use vecscale::operate::shards::plan_restore;

use super::world::*;

async fn prove(store: &Vectornode, node: &str) -> Result<ProofOfCopies, String> {
    let before = Baseline::of(&store.inventory(None).await.map_err(|e| e.0)?, &id(node));
    let apart = Duration::from_millis(100);
    prove_copies(store, &SystemClock, &id(node), &before, apart).await.map_err(|e| e.to_string())
}

/// A collection of `shards` with `replicas`, and 400 points in it.
async fn filled(world: &World, shards: u32, replicas: u32) -> Client {
    let client = world.client();
    client.create_collection("c", 4, shards, replicas).await.unwrap();
    client.upsert("c", &(0..400).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await.unwrap();
    client
}

async fn seen(store: &Vectornode) -> Inventory {
    store.inventory(None).await.unwrap()
}

fn state(seen: &Inventory, shard: &ShardId, node: &NodeId) -> Option<ReplicaState> {
    seen.shards.iter().find(|r| r.shard == *shard && r.node == *node).map(|r| r.state)
}

/// Makes a copy and waits until it is complete.
async fn replicate(store: &Vectornode, copy: &Move) {
    assert_eq!(store.replicate(&call(), copy).await, Effect::Done(()));
    until("the copy is complete", async || {
        let seen = store.inventory(None).await.map_err(|e| e.0)?;
        let complete = state(&seen, &copy.shard, &copy.to) == Some(ReplicaState::Active);
        complete.then_some(()).ok_or_else(|| format!("{:?}", seen.shards))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary_is_made_up_for_and_forgotten() {
    let mut world = World::of(&["a", "b", "c", "d"]).await;
    let store = world.driver(1).await;
    let client = filled(&world, 8, 2).await;
    let before = client.digest("c").await.unwrap();
    // Nobody writes: the dead node stays listed as active, and as primary of some shards.
    world.kill("a").await;
    let held = seen(&store).await;
    assert!(held.on(&id("a")).next().is_some() && held.on(&id("a")).all(|r| r.state == ReplicaState::Active));
    let early = prove(&store, "a").await.expect_err("its copies are not made anew yet");
    assert!(early.contains("has 1 of 2 active copies"), "{early}");
    let copies = plan_restore(&held, &id("a"), &Placing::default()).expect("each shard lives on");
    assert_eq!(copies.len(), held.on(&id("a")).count(), "one copy for each lost one");
    for copy in &copies {
        replicate(&store, copy).await;
        assert_eq!(store.replicate(&call(), copy).await, Effect::Done(()), "finished already");
    }
    let proof = prove(&store, "a").await.expect("nothing is missing without a");
    let wrong = store.forget(&call(), &id("b"), &proof).await;
    assert!(matches!(&wrong, Effect::NoEffect(why) if why.contains("about a, not b")), "{wrong:?}");
    for _ in 0..2 {
        assert_eq!(store.forget(&call(), &id("a"), &proof).await, Effect::Done(()));
    }
    let after = seen(&store).await;
    assert_eq!(after.members.iter().map(|m| m.id.to_string()).collect::<Vec<_>>(), ["b", "c", "d"]);
    assert!(after.on(&id("a")).next().is_none() && after.transfers.is_empty());
    assert!(after.by_shard().values().all(|replicas| replicas.len() == 2), "{:?}", after.shards);
    client.set_nodes(["b", "c", "d"].map(|name| world.address(name)));
    assert_eq!(client.digest("c").await.unwrap(), before);
    client.upsert("c", &[(400, vector(400, 1))]).await.expect("writes go on");

    // It comes back with all it had: it stays out, holds nothing any more, and may be taken in anew.
    world.run("a").await;
    until("a has heard that it is out", async || match store.held_by(&member(&world, "a")).await {
        Ok(held) if held.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(store.ready(&world.machine("a")).await, Ok(false));
    assert!(seen(&store).await.member(&id("a")).is_none());
    assert_eq!(client.digest("c").await.unwrap().vectors, 401);
}

fn member(world: &World, name: &str) -> Member {
    Member::new(id(name), world.address(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_refused_where_they_may_not_go_and_can_be_called_off() {
    let world = World::of(&["a", "b", "c", "d"]).await;
    let store = world.driver(1).await;
    let client = filled(&world, 1, 2).await;
    let before = client.digest("c").await.unwrap();
    let held = seen(&store).await;
    let shard = held.shards[0].shard.clone();
    let holders: Vec<NodeId> = held.shards.iter().map(|r| r.node.clone()).collect();
    let free: Vec<NodeId> = held.members.iter().map(|m| m.id.clone()).filter(|id| !holders.contains(id)).collect();
    let copy = |from: &NodeId, to: &NodeId| relocation(&shard, from, to.as_str());
    assert_eq!(store.cordon(&call(), &free[1]).await, Effect::Done(()));
    for (what, wrong, says) in [
        ("unknown target", copy(&holders[0], &id("x")), "x is not a member"),
        ("cordoned target", copy(&holders[0], &free[1]), "is cordoned"),
        ("no source", copy(&free[1], &free[0]), "has no active copy"),
        (
            "no such shard",
            relocation(&ShardId { collection: "c".into(), shard: 9 }, &id("a"), "b"),
            "there is no shard",
        ),
    ] {
        let refused = store.replicate(&call(), &wrong).await;
        assert!(matches!(&refused, Effect::NoEffect(why) if why.contains(says)), "{what}: {refused:?}");
    }
    assert_eq!(store.replicate(&call(), &copy(&holders[0], &holders[1])).await, Effect::Done(()), "it holds one");
    assert_eq!(
        seen(&store).await,
        Inventory { members: seen(&store).await.members, ..held.clone() },
        "nothing changed"
    );

    // Called off at once, or complete before that: in both cases the others keep theirs.
    let there = copy(&holders[0], &free[0]);
    assert_eq!(store.replicate(&call(), &there).await, Effect::Done(()));
    assert_eq!(store.replicate(&call(), &there).await, Effect::Done(()), "again");
    assert_eq!(store.cancel_move(&call(), &there).await, Effect::Done(()));
    let after = seen(&store).await;
    assert_eq!(after.transfers, []);
    assert!(holders.iter().all(|node| state(&after, &shard, node) == Some(ReplicaState::Active)), "{after:?}");
    assert_ne!(state(&after, &shard, &free[0]), Some(ReplicaState::Partial));
    assert_eq!(client.digest("c").await.unwrap(), before);
    replicate(&store, &there).await;
    assert_eq!(client.digest("c").await.unwrap(), before, "three copies are the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_to_a_node_that_dies_is_given_up() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    let client = filled(&world, 1, 2).await;
    let held = seen(&store).await;
    let (shard, from) = (held.shards[0].shard.clone(), held.shards[0].node.clone());
    let free = held.members.iter().map(|m| &m.id).find(|id| held.on(id).next().is_none()).expect("one without").clone();
    world.kill(free.as_str()).await;
    let copy = relocation(&shard, &from, free.as_str());
    assert_eq!(store.replicate(&call(), &copy).await, Effect::Done(()));
    until("nothing is in transfer, though nobody writes", async || {
        let seen = store.inventory(None).await.map_err(|e| e.0)?;
        seen.transfers.is_empty().then_some(()).ok_or_else(|| format!("{:?}", seen.transfers))
    })
    .await;
    client.upsert("c", &[(1, vector(1, 1))]).await.expect("writes go on");
    // Back again, it is filled.
    world.run(free.as_str()).await;
    until("it is filled", async || {
        let seen = store.inventory(None).await.map_err(|e| e.0)?;
        let whole = state(&seen, &shard, &free) == Some(ReplicaState::Active);
        whole.then_some(()).ok_or_else(|| format!("{:?}", seen.shards))
    })
    .await;
    client.digest("c").await.expect("all copies are the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_copy_is_never_forgotten() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    let client = filled(&world, 6, 1).await;
    let before = client.digest("c").await.unwrap();
    world.kill("b").await;
    assert!(plan_restore(&seen(&store).await, &id("b"), &Placing::default()).is_err());
    let unproven = prove(&store, "b").await.expect_err("its shards are nowhere else");
    assert!(unproven.contains("has 0 of 1 active copies"), "{unproven}");
    // Even with a proof: another cluster's node of the same name can be done without.
    let mut other = World::of(&["a", "b", "c"]).await;
    let others = other.driver(1).await;
    other.kill("b").await;
    let proof = prove(&others, "b").await.expect("it holds nothing");
    let refused = store.forget(&call(), &id("b"), &proof).await;
    assert!(matches!(&refused, Effect::NoEffect(why) if why.contains("only active copy on b")), "{refused:?}");
    world.run("b").await;
    until("b serves again", async || client.count("c").await.map_err(|e| e.to_string())).await;
    assert_eq!(client.digest("c").await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_is_not_proven_dead() {
    let world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    filled(&world, 3, 2).await;
    let alive = prove(&store, "b").await.expect_err("it is alive");
    assert!(alive.contains("b answers again"), "{alive}");
    let listed: BTreeSet<NodeId> = seen(&store).await.members.into_iter().map(|m| m.id).collect();
    assert_eq!(listed.len(), 3);
}
