//! What is a proof, and above all what is none.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::clock::TokioClock;
use crate::model::{Machine, Move, Transfer};
use crate::operate::drivers::{Call, Effect, Unanswered};

fn node(n: u32) -> NodeId {
    NodeId::new(&format!("n{n}")).expect("a name")
}

fn replica(shard: u32, on: u32) -> Replica {
    let shard = ShardId { collection: "docs".into(), shard };
    Replica { shard, node: node(on), bytes: 1, vectors: 1, state: ReplicaState::Active }
}

/// Three members; two shards with two copies on n1 and n2; n3 is empty.
fn emptied() -> Inventory {
    let member = |n| Member { cordoned: n == 3, ..Member::new(node(n), String::new()) };
    Inventory {
        members: (1..=3).map(member).collect(),
        wanted_replicas: BTreeMap::from([("docs".into(), 2)]),
        shards: vec![replica(0, 1), replica(0, 2), replica(1, 1), replica(1, 2)],
        ..Inventory::default()
    }
}

type Views = fn(read: usize, via: Option<u32>) -> Result<Inventory, Unanswered>;
type Held = fn(read: usize) -> Result<Vec<(ShardId, u64)>, Unanswered>;

/// Who says what; by the number of the read, so that the second may differ.
struct Told {
    views: Views,
    held: Held,
    read: Mutex<usize>,
}

#[async_trait]
impl Datastore for Told {
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        let mut read = self.read.lock().unwrap();
        *read += usize::from(via.is_none());
        (self.views)(*read, via.map(|via| via.as_str()[1..].parse().expect("a number")))
    }
    async fn held_by(&self, _node: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        (self.held)(*self.read.lock().unwrap())
    }
    async fn ready(&self, _machine: &Machine) -> Result<bool, Unanswered> {
        Ok(true)
    }
    async fn join(&self, _: &Call, _: &Machine) -> Effect<()> {
        unreachable!("a proof only reads")
    }
    async fn cordon(&self, _: &Call, _: &NodeId) -> Effect<()> {
        unreachable!("a proof only reads")
    }
    async fn uncordon(&self, _: &Call, _: &NodeId) -> Effect<()> {
        unreachable!("a proof only reads")
    }
    async fn start_move(&self, _: &Call, _: &Move) -> Effect<()> {
        unreachable!("a proof only reads")
    }
    async fn replicate(&self, _: &Call, _: &Move) -> Effect<()> {
        unreachable!("a proof only reads")
    }
    async fn cancel_move(&self, _: &Call, _: &Move) -> Effect<()> {
        unreachable!("a proof only reads")
    }
    async fn forget(&self, _: &Call, _: &NodeId, _: &ProofOfCopies) -> Effect<()> {
        unreachable!("a proof only reads")
    }
    async fn leave(&self, _: &Call, _: &NodeId, _: &ProofOfEmpty) -> Effect<()> {
        unreachable!("a proof only reads")
    }
    async fn unjoin(&self, _: &Call, _: &NodeId) -> Effect<()> {
        unreachable!("a proof only reads")
    }
}

const AGREED: Views = |_, _| Ok(emptied());
const NOTHING: Held = |_| Ok(Vec::new());

async fn asked(views: Views, held: Held, baseline: &Baseline) -> Result<ProofOfEmpty, NotProven> {
    let store = Told { views, held, read: Mutex::new(0) };
    let clock = TokioClock::starting_at(Timestamp::from_millis(0));
    prove(&store, &*clock, &node(3), baseline, Duration::from_secs(2)).await
}

/// Whether the cluster can do without n3, which is dead.
async fn asked_of_dead(views: Views, held: Held, baseline: &Baseline) -> Result<ProofOfCopies, NotProven> {
    let store = Told { views, held, read: Mutex::new(0) };
    let clock = TokioClock::starting_at(Timestamp::from_millis(0));
    prove_copies(&store, &*clock, &node(3), baseline, Duration::from_secs(2)).await
}

/// As [`emptied`], with n3 dead and still listed for both shards.
fn restored() -> Inventory {
    let mut view = emptied();
    view.members[2].healthy = false;
    view.shards.extend([replica(0, 3), replica(1, 3)]);
    view
}

const SILENT: Held = |_| Err(Unanswered("no route to host".into()));

#[tokio::test(start_paused = true)]
async fn two_reads_apart_in_which_all_agree_are_a_proof() {
    let mut before = emptied();
    before.shards[1].node = node(3);
    let proof = asked(AGREED, NOTHING, &Baseline::of(&before, &node(3))).await.expect("a proof");
    assert_eq!(proof.node(), &node(3));
    assert_eq!(proof.0.witnesses, [node(1), node(2), node(3)]);
    assert_eq!(proof.0.second_read_at.since(proof.0.first_read_at), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn whatever_is_not_said_clearly_is_no_proof() {
    let cases: [(&str, Views, Held); 14] = [
        ("did not answer", |_, via| if via.is_none() { Err(Unanswered("x".into())) } else { Ok(emptied()) }, NOTHING),
        ("n3 did not answer", AGREED, |_| Err(Unanswered("x".into()))),
        ("n3 did not answer", AGREED, |read| if read == 2 { Err(Unanswered("x".into())) } else { Ok(Vec::new()) }),
        ("still holds docs/0", AGREED, |_| Ok(vec![(replica(0, 3).shard, 5)])),
        ("still holds docs/0", AGREED, |read| Ok(if read == 2 { vec![(replica(0, 3).shard, 0)] } else { vec![] })),
        (
            "n2 did not answer",
            |_, via| if via == Some(2) { Err(Unanswered("x".into())) } else { Ok(emptied()) },
            NOTHING,
        ),
        (
            "n2 says: docs/1 is still on n3",
            |_, via| {
                Ok(Inventory {
                    shards: if via == Some(2) {
                        vec![replica(0, 1), replica(0, 2), replica(1, 1), replica(1, 3)]
                    } else {
                        emptied().shards
                    },
                    ..emptied()
                })
            },
            NOTHING,
        ),
        (
            "n2 sees other copies",
            |_, via| Ok(Inventory { shards: if via == Some(2) { Vec::new() } else { emptied().shards }, ..emptied() }),
            NOTHING,
        ),
        (
            "n1 sees other members",
            |_, via| {
                let mut view = emptied();
                view.members.truncate(if via == Some(1) { 2 } else { 3 });
                Ok(view)
            },
            NOTHING,
        ),
        (
            "n3 is not among the members",
            |_, _| {
                let mut view = emptied();
                view.members.truncate(2);
                Ok(view)
            },
            NOTHING,
        ),
        (
            "docs/0 is in transfer",
            |_, _| {
                let transfer = Transfer {
                    shard: replica(0, 1).shard,
                    from: node(1),
                    to: node(2),
                    done_bytes: None,
                    is_move: true,
                };
                Ok(Inventory { transfers: vec![transfer], ..emptied() })
            },
            NOTHING,
        ),
        (
            "docs/1 has 1 of 2 active copies",
            |_, _| {
                let mut view = emptied();
                view.shards[3].state = ReplicaState::Partial;
                Ok(view)
            },
            NOTHING,
        ),
        (
            "docs/0 has 1 of 2 active copies",
            |_, _| {
                let mut view = emptied();
                view.members[1].healthy = false;
                Ok(view)
            },
            NOTHING,
        ),
        (
            "no other member",
            |_, _| Ok(Inventory { members: vec![emptied().members.remove(2)], shards: vec![], ..emptied() }),
            NOTHING,
        ),
    ];
    for (expected, views, held) in cases {
        let said = asked(views, held, &Baseline::default()).await.expect_err(expected).to_string();
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_node_held_before_must_be_somewhere_and_few_copies_must_not_become_fewer() {
    let mut before = emptied();
    before.shards.push(replica(2, 3));
    let gone = asked(AGREED, NOTHING, &Baseline::of(&before, &node(3))).await.expect_err("docs/2 is nowhere");
    assert_eq!(gone.to_string(), "docs/2, which was on n3, is nowhere");

    // The whole collection was deleted, if the store lists all there are, and has others still.
    before.shards[4].shard.collection = "old".into();
    let baseline = Baseline::of(&before, &node(3));
    let lists: Views = |_, _| Ok(Inventory { lists_collections: true, ..emptied() });
    assert_eq!(asked(lists, NOTHING, &baseline).await.expect("a proof").0.deleted, ["old".into()].into());
    let is_there: Views = |_, _| {
        let mut view = Inventory { lists_collections: true, ..emptied() };
        view.wanted_replicas.insert("old".into(), 1);
        Ok(view)
    };
    let has_none: Views = |_, _| {
        let (shards, wanted_replicas) = (Vec::new(), BTreeMap::new());
        Ok(Inventory { lists_collections: true, shards, wanted_replicas, ..emptied() })
    };
    let one_has_it: Views = |_, via| {
        let mut view = Inventory { lists_collections: true, ..emptied() };
        view.wanted_replicas.extend((via == Some(2)).then(|| ("old".into(), 1)));
        Ok(view)
    };
    for views in [AGREED, is_there, has_none, one_has_it] {
        let gone = asked(views, NOTHING, &baseline).await.expect_err("nobody says that it was deleted").to_string();
        assert!(gone.ends_with("which was on n3, is nowhere"), "{gone}");
    }
    let dead: Views = |_, _| Ok(Inventory { lists_collections: true, ..restored() });
    assert!(asked_of_dead(dead, SILENT, &baseline).await.is_err(), "the dead node cannot say what it has");

    let single: Views = |_, _| Ok(Inventory { shards: vec![replica(0, 1), replica(1, 1), replica(1, 2)], ..emptied() });
    assert!(asked(single, NOTHING, &Baseline::default()).await.is_err(), "two are wanted");
    let before = Inventory { shards: vec![replica(0, 3), replica(1, 1), replica(1, 2)], ..emptied() };
    asked(single, NOTHING, &Baseline::of(&before, &node(3))).await.expect("there was one copy before, too");
    // Three are wanted and two were whole: two must still be, not one.
    let mut three = Inventory { shards: vec![replica(0, 1), replica(0, 2), replica(1, 1), replica(1, 2)], ..emptied() };
    three.wanted_replicas = BTreeMap::from([("docs".into(), 3)]);
    let fewer: Views = |_, _| {
        let mut view = Inventory { shards: vec![replica(0, 1), replica(1, 1), replica(1, 2)], ..emptied() };
        view.wanted_replicas = BTreeMap::from([("docs".into(), 3)]);
        Ok(view)
    };
    let lost = asked(fewer, NOTHING, &Baseline::of(&three, &node(3))).await.expect_err("one whole copy is gone");
    assert_eq!(lost.to_string(), "docs/0 has 1 of 2 active copies");
    let none: Views = |_, _| {
        let mut dead = replica(0, 1);
        dead.state = ReplicaState::Dead;
        Ok(Inventory { shards: vec![dead], ..emptied() })
    };
    let before = none(0, None).expect("a view");
    let lost = asked(none, NOTHING, &Baseline::of(&before, &node(3))).await.expect_err("one is needed at least");
    assert_eq!(lost.to_string(), "docs/0 has 0 of 1 active copies");
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_whose_shards_all_live_on_can_be_done_without() {
    let proof =
        asked_of_dead(|_, _| Ok(restored()), SILENT, &Baseline::of(&restored(), &node(3))).await.expect("a proof");
    assert_eq!(proof.node(), &node(3));
    assert_eq!(proof.0.witnesses, [node(1), node(2)], "the dead node says nothing");
    assert_eq!((proof.0.shards, proof.0.second_read_at.since(proof.0.first_read_at)), (2, Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn whatever_is_not_said_clearly_of_a_dead_node_is_no_proof() {
    let agreed: Views = |_, _| Ok(restored());
    let cases: [(&str, Views, Held); 15] = [
        ("n3 answers again", agreed, NOTHING),
        ("n3 answers again", agreed, |read| if read == 2 { Ok(Vec::new()) } else { Err(Unanswered("x".into())) }),
        (
            "n3 answers again",
            |_, _| {
                let mut view = restored();
                view.members[2].healthy = true;
                Ok(view)
            },
            SILENT,
        ),
        ("did not answer", |_, via| if via.is_none() { Err(Unanswered("x".into())) } else { Ok(restored()) }, SILENT),
        (
            "n2 did not answer",
            |_, via| if via == Some(2) { Err(Unanswered("x".into())) } else { Ok(restored()) },
            SILENT,
        ),
        (
            "n1 sees other members",
            |_, via| {
                let mut view = restored();
                view.members.truncate(if via == Some(1) { 2 } else { 3 });
                Ok(view)
            },
            SILENT,
        ),
        (
            "n2 sees other copies",
            |_, via| {
                let mut view = restored();
                view.shards.truncate(if via == Some(2) { 4 } else { 6 });
                Ok(view)
            },
            SILENT,
        ),
        (
            "n3 is not among the members",
            |_, _| {
                let mut view = restored();
                view.members.truncate(2);
                Ok(view)
            },
            SILENT,
        ),
        (
            "docs/0 is in transfer",
            |_, _| {
                let (shard, from, to) = (replica(0, 1).shard, node(1), node(2));
                let transfer = Transfer { shard, from, to, done_bytes: None, is_move: false };
                Ok(Inventory { transfers: vec![transfer], ..restored() })
            },
            SILENT,
        ),
        // The dead node's own copy, a partial one and one on an unhealthy node count for nothing.
        (
            "docs/1 has 1 of 2 active copies",
            |_, _| {
                let mut view = restored();
                view.shards.remove(3);
                Ok(view)
            },
            SILENT,
        ),
        (
            "docs/1 has 1 of 2 active copies",
            |_, _| {
                let mut view = restored();
                view.shards[3].state = ReplicaState::Partial;
                Ok(view)
            },
            SILENT,
        ),
        // Its own copy counts for nothing even where somebody still thinks it alive.
        (
            "n2 says: docs/1 has 1 of 2 active copies",
            |_, via| {
                let mut view = restored();
                if via == Some(2) {
                    view.members[2].healthy = true;
                    view.shards[3].state = ReplicaState::Partial;
                }
                Ok(view)
            },
            SILENT,
        ),
        (
            "docs/0 has 1 of 2 active copies",
            |_, _| {
                let mut view = restored();
                view.members[1].healthy = false;
                Ok(view)
            },
            SILENT,
        ),
        (
            "no other member",
            |_, _| {
                let mut view = restored();
                view.shards.clear();
                view.members[0].healthy = false;
                view.members[1].healthy = false;
                Ok(view)
            },
            SILENT,
        ),
        (
            "the members changed",
            |read, _| {
                let mut view = restored();
                view.members[1].healthy = read == 1;
                view.shards.retain(|r| read == 1 || r.node != node(2));
                view.wanted_replicas = BTreeMap::from([("docs".into(), if read == 1 { 2 } else { 1 })]);
                Ok(view)
            },
            SILENT,
        ),
    ];
    for (expected, views, held) in cases {
        let said = asked_of_dead(views, held, &Baseline::default()).await.expect_err(expected).to_string();
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_dead_node_had_needs_all_its_copies_and_the_rest_as_many_as_before() {
    // docs/1 is listed on n1 alone by now: the store has dropped the dead copy, and one is missing.
    let dropped: Views = |_, _| {
        let mut view = restored();
        view.shards.truncate(3);
        Ok(view)
    };
    let before = restored();
    let said = asked_of_dead(dropped, SILENT, &Baseline::of(&before, &node(3))).await.expect_err("one is missing");
    assert_eq!(said.to_string(), "docs/1 has 1 of 2 active copies");

    // Short since the node died is no measure, whether its copy is still listed or not.
    const AS_IT_DIED: Views = |_, _| {
        let mut view = restored();
        view.shards[5].state = ReplicaState::Dead;
        view.shards.remove(3);
        Ok(view)
    };
    let dropped: Views = |read, via| {
        let mut view = AS_IT_DIED(read, via)?;
        view.shards.truncate(4);
        Ok(view)
    };
    let as_it_died = Baseline::of(&AS_IT_DIED(1, None).expect("a view"), &node(3));
    for (views, baseline) in
        [(AS_IT_DIED, &Baseline { held: BTreeSet::new(), ..as_it_died.clone() }), (dropped, &as_it_died)]
    {
        let said = asked_of_dead(views, SILENT, baseline).await.expect_err("one is missing");
        assert_eq!(said.to_string(), "docs/1 has 1 of 2 active copies");
    }

    // A shard that the dead node never had, short before and after, is no hindrance.
    let mut elsewhere = restored();
    elsewhere.shards.truncate(5);
    elsewhere.shards.remove(3);
    let short: Views = |_, _| {
        let mut view = restored();
        view.shards.truncate(5);
        view.shards.remove(3);
        Ok(view)
    };
    asked_of_dead(short, SILENT, &Baseline::of(&elsewhere, &node(3))).await.expect("as many as before");

    // What it had must be somewhere.
    let mut more = restored();
    more.shards.push(replica(2, 3));
    let said = asked_of_dead(|_, _| Ok(restored()), SILENT, &Baseline::of(&more, &node(3))).await.expect_err("gone");
    assert_eq!(said.to_string(), "docs/2, which was on n3, is nowhere");
}
