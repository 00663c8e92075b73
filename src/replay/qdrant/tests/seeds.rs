//! Whatever is asked without force and whoever dies, nothing that was acknowledged is lost for good, and all that
//! Qdrant does by itself comes to an end.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::{Value, json};

use super::{Stage, millis};
use crate::replay::qdrant::Reply;

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

fn story(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut stage = Stage::empty(&NODES);
    let copies = rng.u64(1..=3);
    let body = json!({"vectors": {"size": 32}, "shard_number": 3, "replication_factor": copies});
    stage.done("n1", "PUT", "/collections/c", body);
    stage.cluster.fill("c", 0, 300);
    stage.cluster.bytes_per_second = 10_000;
    let mut acked: BTreeSet<u64> = (0..300).collect();
    for turn in 0..60_u64 {
        let node = NODES[rng.usize(0..4)];
        match rng.u8(0..10) {
            0 => stage.kill(node),
            1 => stage.hang(node),
            2..=4 => stage.revive(node),
            5 => stage.wait(millis(rng.u64(0..40_000))),
            6 | 7 => {
                let (from, to) = (stage.peer(NODES[rng.usize(0..4)]), stage.peer(NODES[rng.usize(0..4)]));
                let what = ["move_shard", "replicate_shard", "abort_transfer", "drop_replica"][rng.usize(0..4)];
                let shard = rng.u32(0..3);
                let asked = match what {
                    "drop_replica" => json!({"shard_id": shard, "peer_id": to}),
                    _ => json!({"shard_id": shard, "from_peer_id": from, "to_peer_id": to}),
                };
                ask(&mut stage, node, "POST", "/collections/c/cluster?timeout=2", json!({what: asked}));
            }
            8 => {
                let peer = stage.peer(NODES[rng.usize(0..4)]);
                // Without force, and not so many that no majority can be made up.
                if stage.cluster.registered().len() > 3 {
                    ask(&mut stage, node, "DELETE", &format!("/cluster/peer/{peer}?timeout=2"), Value::Null);
                }
            }
            _ => {
                let ids = 1000 + turn * 10..1010 + turn * 10;
                let points: Vec<Value> = ids.clone().map(|id| json!({"id": id, "vector": vec![1.0; 32]})).collect();
                let body = json!({"points": points});
                if ask(&mut stage, node, "PUT", "/collections/c/points?wait=true", body) == Some(200) {
                    acked.extend(ids);
                }
            }
        }
    }
    for node in NODES {
        stage.revive(node);
    }
    stage.wait(millis(300_000));
    assert!(stage.cluster.leader().is_some(), "seed {seed}");
    assert!(stage.cluster.transfers().is_empty(), "seed {seed}: {:?}", stage.cluster.transfers());
    let there: BTreeSet<u64> = stage.cluster.census("c").points.into_keys().collect();
    let lost: Vec<&u64> = acked.difference(&there).collect();
    assert!(lost.is_empty(), "seed {seed}: {lost:?} lost");
}

fn ask(stage: &mut Stage, node: &str, method: &str, path: &str, body: Value) -> Option<u16> {
    match stage.reply(node, method, path, body) {
        Reply::Answer(answer) => {
            stage.wait(answer.after);
            Some(answer.status)
        }
        Reply::Never | Reply::Closed | Reply::Refused => None,
    }
}

#[test]
fn nothing_is_lost_and_everything_ends() {
    (0..200).for_each(story);
}
