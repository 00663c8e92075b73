//! The twelve facts about Qdrant that shape a driver, each held against the model.

use serde_json::{Value, json};

use super::{Stage, error, millis};
use crate::replay::qdrant::Reply;

/// One shard, so many copies, 500 points; a copy takes two seconds.
fn one_shard(nodes: &[&str], copies: u64) -> Stage {
    let mut stage = Stage::empty(nodes);
    let body = json!({"vectors": {"size": 32}, "shard_number": 1, "replication_factor": copies});
    stage.done("n1", "PUT", "/collections/gamma", body);
    stage.cluster.fill("gamma", 0, 500);
    stage.cluster.bytes_per_second = 500 * 256 / 2;
    stage
}

#[test]
fn fact_1_an_operation_is_accepted_not_done() {
    let mut stage = one_shard(&["n1", "n2", "n3"], 1);
    let (from, to) = stage.ends("gamma", 0);
    let before = stage.now;
    assert_eq!(stage.transfer("move_shard", "gamma", 0, &from, &to).status, 200);
    assert!((stage.now - before).as_millis() < 150, "the answer comes at once");
    stage.wait(millis(100));
    assert_eq!(stage.states("gamma", 0)[&to], "Partial");
    assert_eq!(stage.states("gamma", 0)[&from], "Active");
    let took = stage.settle(10.0);
    assert!((1.5..3.0).contains(&took), "{took} s");
    assert_eq!(stage.states("gamma", 0), [(to, "Active".to_string())].into());
    assert_eq!(stage.cluster.census("gamma").points.len(), 500);
}

#[test]
fn fact_1_a_move_to_a_dead_node_is_accepted_too() {
    let mut stage = one_shard(&["n1", "n2", "n3"], 1);
    let (from, to) = stage.ends("gamma", 0);
    stage.kill(&to);
    stage.wait(millis(4_000));
    assert_eq!(stage.transfer("move_shard", "gamma", 0, &from, &to).status, 200);
    let took = stage.settle(10.0);
    assert!((4.0..6.0).contains(&took), "aborted after {took} s");
    assert_eq!(stage.states("gamma", 0), [(from, "Active".to_string())].into());
}

#[test]
fn fact_2_a_move_onto_an_existing_copy_wipes_it_and_two_copies_become_one() {
    let mut stage = one_shard(&["n1", "n2", "n3"], 2);
    let holders: Vec<String> = stage.states("gamma", 0).into_keys().collect();
    let answer = stage.transfer("move_shard", "gamma", 0, &holders[0], &holders[1]);
    assert_eq!(answer.status, 200, "nobody objects");
    stage.wait(millis(200));
    assert_eq!(stage.cluster.census("gamma").copies[&0], 1, "one good copy is left meanwhile");
    stage.settle(10.0);
    assert_eq!(stage.states("gamma", 0), [(holders[1].clone(), "Active".to_string())].into());
    assert_eq!(stage.cluster.census("gamma").points.len(), 500);
}

#[test]
fn fact_3_searches_fail_when_the_only_copy_moves_and_not_when_it_is_copied_and_dropped() {
    let failures = |what: &str, copies: u64| {
        let mut stage = one_shard(&["n1", "n2", "n3"], copies);
        let (from, to) = stage.ends("gamma", 0);
        stage.transfer(what, "gamma", 0, &from, &to);
        let mut failed = 0;
        for _ in 0..600 {
            failed += u32::from(!matches!(stage.count("n1", "gamma"), Some(Ok(500))));
        }
        if what == "replicate_shard" {
            stage.settle(10.0);
            let peer = stage.peer(&from);
            stage.done(
                "n1",
                "POST",
                "/collections/gamma/cluster",
                json!({"drop_replica": {"shard_id": 0, "peer_id": peer}}),
            );
            for _ in 0..50 {
                failed += u32::from(!matches!(stage.count("n1", "gamma"), Some(Ok(500))));
            }
        }
        assert_eq!(stage.cluster.census("gamma").points.len(), 500, "no count is ever wrong");
        failed
    };
    assert!(failures("move_shard", 1) > 0);
    assert_eq!(failures("replicate_shard", 1), 0);
    assert_eq!(failures("move_shard", 2), 0);
}

#[test]
fn fact_4_readiness_latches_and_health_is_no_word_about_anything() {
    let mut stage = Stage::three();
    let said = |stage: &mut Stage, node: &str, path: &str| stage.ask(node, "GET", path, Value::Null).status;
    stage.kill("n2");
    stage.kill("n3");
    stage.wait(millis(20_000));
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(said(&mut stage, "n1", path), 200, "{path} without a majority");
    }
    // Not latched: it was restarted, and polled only afterwards.
    stage.kill("n1");
    stage.revive("n1");
    stage.wait(millis(20_000));
    assert_eq!(said(&mut stage, "n1", "/readyz"), 503);
    assert_eq!(said(&mut stage, "n1", "/healthz"), 200);
}

#[test]
fn fact_4_the_first_poll_may_say_no_and_readiness_advances_only_when_polled() {
    let mut stage = Stage::three();
    stage.cluster.start(stage.now, "n4", "1.19.0");
    stage.wait(millis(10_000));
    let (first, second) =
        (stage.ask("n4", "GET", "/readyz", Value::Null), stage.ask("n4", "GET", "/readyz", Value::Null));
    assert_eq!((first.status, first.after, second.status), (503, millis(500), 200));
}

#[test]
fn fact_5_a_500_does_not_mean_not_done() {
    let mut stage = Stage::three();
    stage.kill("n2");
    stage.kill("n3");
    let body = json!({"vectors": {"size": 8}});
    let answer = stage.ask("n1", "PUT", "/collections/ghost?timeout=3", body.clone());
    assert_eq!(answer.status, 500);
    assert!(error(&answer).contains("Waiting for consensus operation commit failed"), "{}", error(&answer));
    assert!(!stage.get("n1", "/collections").to_string().contains("ghost"));
    stage.wait(millis(20_000));
    stage.revive("n2");
    stage.wait(millis(5_000));
    assert!(stage.get("n1", "/collections").to_string().contains("ghost"), "it appears when the majority is back");

    // Without a leader nothing is proposed, and nothing comes of it.
    stage.kill("n1");
    stage.wait(millis(5_000));
    let answer = stage.ask("n2", "PUT", "/collections/never?timeout=3", body);
    assert!(error(&answer).contains("leader is not established within 3s"), "{}", error(&answer));
    stage.revive("n1");
    stage.revive("n3");
    stage.wait(millis(20_000));
    assert!(!stage.get("n1", "/collections").to_string().contains("never"));
}

#[test]
fn fact_6_a_copy_on_a_dead_node_is_active_until_a_write_fails() {
    let mut stage = Stage::three();
    stage.kill("n3");
    stage.wait(millis(60_000));
    let on_n3 = |stage: &mut Stage| -> Vec<String> {
        (0..6).filter_map(|shard| stage.states("beta", shard).get("n3").cloned()).collect()
    };
    assert!(on_n3(&mut stage).iter().all(|state| state == "Active"));
    let before = stage.now;
    assert_eq!(stage.upsert("n1", "beta", 5000..5060).status, 200);
    assert!((400..600).contains(&(stage.now - before).as_millis()), "the first write waits");
    let states = on_n3(&mut stage);
    assert!(!states.is_empty() && states.iter().all(|state| state == "Dead"), "{states:?}");
    let before = stage.now;
    assert_eq!(stage.upsert("n1", "beta", 5060..5120).status, 200);
    assert!((stage.now - before).as_millis() < 100, "the next does not");
    assert_eq!(stage.count("n1", "beta"), Some(Ok(1320)));
}

#[test]
fn fact_7_a_dead_or_hung_registered_peer_makes_each_transfer_ten_seconds_longer() {
    for harm in [Stage::kill, Stage::hang] {
        let mut stage = one_shard(&["n1", "n2", "n3", "n4"], 1);
        let (from, to) = stage.ends("gamma", 0);
        let other = ["n1", "n2", "n3", "n4"].into_iter().find(|n| *n != from && *n != to).expect("another");
        harm(&mut stage, other);
        stage.wait(millis(5_000));
        stage.transfer("move_shard", "gamma", 0, &from, &to);
        let took = stage.settle(60.0);
        assert!((11.5..13.5).contains(&took), "{took} s");
        // Removed, it holds up nobody.
        let peer = stage.peer(other);
        let asked = stage.cluster.leader().expect("a leader");
        stage.done(&asked, "DELETE", &format!("/cluster/peer/{peer}?force=true"), Value::Null);
        stage.transfer("move_shard", "gamma", 0, &to, &from);
        let took = stage.settle(60.0);
        assert!((1.5..3.5).contains(&took), "{took} s");
    }
}

#[test]
fn fact_7_so_does_a_dead_peer_the_making_of_a_collection() {
    let mut stage = Stage::three();
    stage.kill("n3");
    stage.wait(millis(3_000));
    let before = stage.now;
    let body = json!({"vectors": {"size": 8}, "shard_number": 3, "replication_factor": 1});
    stage.done("n1", "PUT", "/collections/tmp2", body);
    assert!((stage.now - before).as_millis() > 10_000);
    let states: Vec<_> = (0..3).filter_map(|shard| stage.states("tmp2", shard).remove("n3")).collect();
    assert_eq!(states, ["Initializing"], "what is placed on the dead node waits for it");
}

#[test]
fn fact_8_a_transfer_whose_source_died_never_ends_by_itself() {
    let mut stage = one_shard(&["n1", "n2", "n3"], 1);
    let (from, to) = stage.ends("gamma", 0);
    stage.transfer("move_shard", "gamma", 0, &from, &to);
    stage.wait(millis(500));
    stage.kill(&from);
    stage.wait(millis(3_600_000));
    assert_eq!(stage.cluster.transfers().len(), 1);
    assert_eq!(stage.states("gamma", 0)[&to], "Partial");
    let asked = ["n1", "n2", "n3"].into_iter().find(|n| *n != from).expect("another");
    assert!(matches!(stage.count(asked, "gamma"), Some(Err(_))), "reads of the whole collection fail");
    stage.revive(&from);
    stage.wait(millis(5_000));
    assert_eq!(stage.states("gamma", 0), [(from, "Active".to_string())].into());
    assert_eq!(stage.cluster.census("gamma").points.len(), 500);
}

#[test]
fn fact_8_it_can_be_aborted_and_a_dead_or_hung_target_aborts_by_itself() {
    let mut stage = one_shard(&["n1", "n2", "n3"], 1);
    let (from, to) = stage.ends("gamma", 0);
    stage.transfer("move_shard", "gamma", 0, &from, &to);
    stage.kill(&from);
    stage.wait(millis(10_000));
    assert_eq!(stage.transfer("abort_transfer", "gamma", 0, &from, &to).status, 200);
    assert!(stage.cluster.transfers().is_empty());
    for (harm, least, most) in [(Stage::kill as fn(&mut Stage, &str), 4.5, 5.5), (Stage::hang, 31.5, 32.5)] {
        let mut stage = one_shard(&["n1", "n2", "n3"], 1);
        let (from, to) = stage.ends("gamma", 0);
        stage.transfer("move_shard", "gamma", 0, &from, &to);
        stage.wait(millis(500));
        harm(&mut stage, &to);
        let took = stage.settle(60.0);
        assert!((least..most).contains(&took), "{took} s");
        let asked = stage.cluster.leader();
        stage.revive(&to);
        stage.wait(millis(5_000));
        assert_eq!(stage.states("gamma", 0), [(from, "Active".to_string())].into(), "{asked:?}");
    }
}

#[test]
fn fact_9_aborting_a_move_cleans_up_and_aborting_a_replication_starts_it_anew() {
    let mut stage = one_shard(&["n1", "n2", "n3"], 1);
    let (from, to) = stage.ends("gamma", 0);
    stage.transfer("move_shard", "gamma", 0, &from, &to);
    stage.wait(millis(500));
    stage.transfer("abort_transfer", "gamma", 0, &from, &to);
    stage.wait(millis(5_000));
    assert_eq!(stage.states("gamma", 0), [(from.clone(), "Active".to_string())].into());

    stage.transfer("replicate_shard", "gamma", 0, &from, &to);
    stage.wait(millis(500));
    stage.transfer("abort_transfer", "gamma", 0, &from, &to);
    assert!(stage.cluster.transfers().is_empty());
    assert_eq!(stage.states("gamma", 0)[&to], "Dead");
    stage.wait(millis(700));
    assert_eq!(stage.cluster.transfers().len(), 1, "Qdrant starts it again by itself");
    stage.settle(20.0);
    assert_eq!(stage.states("gamma", 0)[&to], "Active");

    // The way to cancel a replication is to drop its target.
    let peer = stage.peer(&to);
    stage.done("n1", "POST", "/collections/gamma/cluster", json!({"drop_replica": {"shard_id": 0, "peer_id": peer}}));
    stage.transfer("replicate_shard", "gamma", 0, &from, &to);
    stage.wait(millis(500));
    stage.done("n1", "POST", "/collections/gamma/cluster", json!({"drop_replica": {"shard_id": 0, "peer_id": peer}}));
    stage.wait(millis(5_000));
    assert!(stage.cluster.transfers().is_empty());
    assert_eq!(stage.states("gamma", 0), [(from, "Active".to_string())].into());
}

#[test]
fn fact_10_force_destroys_the_only_copy_and_bricks_reads() {
    let mut stage = Stage::three();
    let peer = stage.peer("n3");
    stage.done("n1", "DELETE", &format!("/cluster/peer/{peer}?force=true"), Value::Null);
    let census = stage.cluster.census("alpha");
    assert!(!census.lost.is_empty() && census.points.len() < 1200, "{census:?}");
    assert_eq!(stage.count("n1", "alpha"), None, "the connection is closed without an answer");
    assert_eq!(stage.count("n1", "beta"), Some(Ok(1200)), "a second copy saves the other collection");
    stage.kill("n3");
    stage.revive("n3");
    assert_eq!(stage.cluster.census("alpha").lost, census.lost, "the data on the removed node are gone too");
}

#[test]
fn fact_10_so_it_does_with_the_source_of_a_move() {
    let mut stage = one_shard(&["n1", "n2", "n3"], 1);
    let (from, to) = stage.ends("gamma", 0);
    stage.transfer("move_shard", "gamma", 0, &from, &to);
    stage.wait(millis(1_000));
    stage.kill(&from);
    stage.wait(millis(5_000));
    let (peer, asked) = (stage.peer(&from), stage.cluster.leader().expect("two of three"));
    stage.done(&asked, "DELETE", &format!("/cluster/peer/{peer}?force=true"), Value::Null);
    assert_eq!(stage.states("gamma", 0), [].into(), "the target is dropped too");
    assert_eq!(stage.count(&asked, "gamma"), None);
}

#[test]
fn fact_11_a_removed_peer_goes_on_and_fails_every_request() {
    let mut stage = Stage::empty(&["n1", "n2", "n3", "n4"]);
    let body = json!({"vectors": {"size": 32}, "shard_number": 3, "replication_factor": 1});
    stage.done("n1", "PUT", "/collections/gamma", body);
    stage.cluster.fill("gamma", 0, 90);
    let empty = ["n1", "n2", "n3", "n4"].into_iter().find(|n| stage.cluster.copies_on(n) == 0).expect("one is empty");
    let (peer, asked) = (stage.peer(empty), if empty == "n1" { "n2" } else { "n1" });
    stage.done(asked, "DELETE", &format!("/cluster/peer/{peer}"), Value::Null);
    stage.wait(millis(60_000));
    assert_eq!(stage.ask(empty, "GET", "/readyz", Value::Null).status, 200);
    let told = stage.get(empty, "/cluster");
    assert_eq!(told["consensus_thread_status"]["consensus_thread_status"], "stopped");
    let said = stage.count(empty, "gamma").expect("an answer").expect_err("no count");
    assert!(said.contains("no address found for peer"), "{said}");
    assert_eq!(stage.count(asked, "gamma"), Some(Ok(90)));
}

#[test]
fn fact_12_a_leader_without_its_majority_goes_on_as_if_nothing_were() {
    let mut stage = Stage::three();
    let leader = stage.cluster.leader().expect("a leader");
    for node in ["n1", "n2", "n3"].into_iter().filter(|n| *n != leader) {
        stage.kill(node);
    }
    stage.wait(millis(600_000));
    let told = stage.get(&leader, "/cluster");
    assert_eq!(told["raft_info"]["role"], "Leader");
    assert_eq!(told["consensus_thread_status"]["consensus_thread_status"], "working");
    assert_eq!(stage.ask(&leader, "GET", "/readyz", Value::Null).status, 200);
    assert_eq!(told["message_send_failures"].as_object().map(|failures| failures.len()), Some(2));
    assert!(matches!(stage.reply(&leader, "GET", "/cluster", Value::Null), Reply::Answer(_)));
}
