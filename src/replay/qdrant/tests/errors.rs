//! Each refusal has the status and the very words that Qdrant was recorded with; only ids differ.

use serde_json::{Value, json};

use super::{Stage, error, millis, recorded};

/// Ids in a text, by order of appearance: `A`, `B` …
fn without_ids(text: &str) -> String {
    let mut ids: Vec<String> = Vec::new();
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if digits.len() >= 12 {
            let at = ids.iter().position(|id| *id == digits).unwrap_or_else(|| {
                ids.push(digits.clone());
                ids.len() - 1
            });
            out.push_str(&format!("peer{at}"));
        } else {
            out.push_str(&digits);
        }
        digits.clear();
        out.push(c);
    }
    out.trim_end().to_string()
}

fn same(case: &str, stage: &mut Stage, method: &str, path: &str, body: Value) {
    let (status, recorded) = recorded(case);
    let answer = stage.ask("n1", method, path, body);
    assert_eq!(Some(u64::from(answer.status)), status, "{case}: {answer:?}");
    let theirs = recorded["status"]["error"].as_str().or(recorded.as_str()).unwrap_or_default();
    assert_eq!(without_ids(&error(&answer)), without_ids(theirs), "{case}");
}

#[test]
fn of_requests_that_make_no_sense_or_ask_for_what_is_not_there() {
    let mut stage = Stage::three();
    let (with, without) = stage.ends("alpha", 0);
    let (a, b) = (stage.peer(&with), stage.peer(&without));
    let one = |what: &str, from: u64, to: u64| json!({what: {"shard_id": 0, "from_peer_id": from, "to_peer_id": to}});
    let with_method = |what: &str, method: &str| {
        let mut body = one(what, a, b);
        body[what]["method"] = method.into();
        body
    };
    let shard = |number: u64| json!({"move_shard": {"shard_id": number, "from_peer_id": a, "to_peer_id": b}});
    let cluster = "/collections/alpha/cluster";
    for (case, path, body) in [
        ("err_abort_no_transfer", cluster, one("abort_transfer", a, b)),
        ("err_abort_resharding_none", cluster, json!({"abort_resharding": {}})),
        ("err_collection_missing", "/collections/nope/cluster", one("move_shard", a, b)),
        ("err_create_sharding_key_auto", cluster, json!({"create_sharding_key": {"shard_key": "t1"}})),
        ("err_drop_last_replica", cluster, json!({"drop_replica": {"shard_id": 0, "peer_id": a}})),
        ("err_drop_replica_absent", cluster, json!({"drop_replica": {"shard_id": 0, "peer_id": b}})),
        ("err_move_bad_method", cluster, with_method("move_shard", "teleport")),
        ("err_move_same_peer", cluster, one("move_shard", a, a)),
        ("err_move_source_has_no_replica", cluster, one("move_shard", b, a)),
        ("err_move_timeout_zero", "/collections/alpha/cluster?timeout=0", one("move_shard", a, b)),
        ("err_move_unknown_peer", cluster, one("move_shard", a, 12345)),
        ("err_move_unknown_shard", cluster, shard(99)),
        ("err_restart_no_transfer", cluster, with_method("restart_transfer", "snapshot")),
        ("err_restart_without_method", cluster, one("restart_transfer", a, b)),
        ("err_start_resharding_oss", cluster, json!({"start_resharding": {"direction": "up"}})),
        ("err_unknown_operation", cluster, json!({"rebalance": {}})),
        ("error_bad_vector_dim", "/collections/alpha/points/query", json!({"query": [1, 2, 3], "limit": 1})),
    ] {
        same(case, &mut stage, "POST", path, body);
    }
    let again = json!({"vectors": {"size": 32, "distance": "Cosine"}, "shard_number": 6, "replication_factor": 2});
    same("create_collection_exists", &mut stage, "PUT", "/collections/beta", again);
    same("err_remove_peer_not_number", &mut stage, "DELETE", "/cluster/peer/abc", Value::Null);
    same("err_remove_peer_with_shards", &mut stage, "DELETE", &format!("/cluster/peer/{a}"), Value::Null);
    same("err_remove_unknown_peer", &mut stage, "DELETE", "/cluster/peer/12345", Value::Null);
}

#[test]
fn of_a_shard_that_is_on_its_way_already() {
    let mut stage = Stage::empty(&["n1", "n2", "n3"]);
    let body = json!({"vectors": {"size": 32}, "shard_number": 1, "replication_factor": 1});
    stage.done("n1", "PUT", "/collections/gamma", body);
    stage.cluster.fill("gamma", 0, 1000);
    stage.cluster.bytes_per_second = 1_000;
    let (from, to) = stage.ends("gamma", 0);
    let other = ["n1", "n2", "n3"].into_iter().find(|n| *n != from && *n != to).expect("a third");
    let (a, b, c) = (stage.peer(&from), stage.peer(&to), stage.peer(other));
    stage.transfer("move_shard", "gamma", 0, &from, &to);
    let one = |to: u64| json!({"move_shard": {"shard_id": 0, "from_peer_id": a, "to_peer_id": to}});
    let restart = json!({
        "restart_transfer": {"shard_id": 0, "from_peer_id": a, "to_peer_id": b, "method": "stream_records"},
    });
    for (case, body) in
        [("err_move_already_moving", one(b)), ("err_move_target_busy", one(c)), ("err_restart_same_method", restart)]
    {
        let (_, theirs) = recorded(case);
        let theirs = without_ids(theirs["status"]["error"].as_str().expect("an error")).replace("hard 1", "hard 0");
        let theirs = theirs.replace("shard 1", "shard 0");
        let answer = stage.ask("n1", "POST", "/collections/gamma/cluster", body);
        assert_eq!((answer.status, without_ids(&error(&answer))), (400, theirs), "{case}");
    }
}

#[test]
fn of_peers_that_cannot_agree() {
    let mut stage = Stage::three();
    let (peer, other) = (stage.peer("n2"), stage.peer("n3"));
    stage.kill("n2");
    stage.kill("n3");
    // The leader does not notice: it proposes, and waits.
    let body = json!({"vectors": {"size": 8, "distance": "Dot"}});
    same("create_collection_no_quorum_leader", &mut stage, "PUT", "/collections/ghost?timeout=3", body.clone());
    stage.cluster.kill(stage.now, "n1");
    stage.wait(millis(100));
    stage.revive("n1");
    stage.wait(millis(5_000));
    for (case, method, path, body) in [
        ("create_collection_no_quorum", "PUT", "/collections/tmp3".to_string(), body.clone()),
        ("create_collection_no_quorum_timeout2", "PUT", "/collections/tmp4?timeout=2".into(), body),
        ("remove_peer_no_quorum", "DELETE", format!("/cluster/peer/{peer}?force=true"), Value::Null),
        (
            "remove_peer_no_quorum_timeout2",
            "DELETE",
            format!("/cluster/peer/{other}?force=true&timeout=2"),
            Value::Null,
        ),
    ] {
        let before = stage.now;
        same(case, &mut stage, method, &path, body);
        let waited = if path.contains("timeout=2") { 2 } else { 10 };
        assert_eq!((stage.now - before).as_secs(), waited, "{case}");
    }
}

#[test]
fn of_a_quota_that_is_exceeded() {
    let mut stage = Stage::three();
    stage.done("n1", "PUT", "/quotas?wait=true", json!({"enabled": true, "max_disk_usage_percent": 50}));
    for node in ["n1", "n2", "n3"] {
        stage.cluster.load_mut(node).expect("a node").disk_percent = 77;
    }
    let points = json!({"points": [{"id": 1, "vector": vec![0.5; 32]}]});
    same("upsert_quota_exceeded", &mut stage, "PUT", "/collections/beta/points?wait=true", points);
    assert_eq!(stage.ask("n1", "GET", "/readyz", Value::Null).status, 200);
    let (from, to) = stage.ends("alpha", 0);
    assert_eq!(stage.transfer("move_shard", "alpha", 0, &from, &to).status, 200, "a move onto it is accepted");
}

#[test]
fn of_keys() {
    let mut stage = Stage::three();
    let keys = crate::replay::qdrant::Keys { full: "secret".into(), read_only: "ro".into() };
    stage.cluster.demand(keys);
    for (case, key, method, path) in [
        ("auth_bearer", Some("secret"), "GET", "/cluster"),
        ("auth_cluster_bad_key", Some("wrong"), "GET", "/cluster"),
        ("auth_cluster_no_key", None, "GET", "/cluster"),
        ("auth_cluster_read_only_key", Some("ro"), "GET", "/cluster"),
        ("auth_cluster_telemetry_read_only_key", Some("ro"), "GET", "/cluster/telemetry"),
        ("auth_healthz_no_key", None, "GET", "/healthz"),
        ("auth_metrics_no_key", None, "GET", "/metrics"),
        ("auth_readyz_no_key", None, "GET", "/readyz"),
        ("auth_move_read_only_key", Some("ro"), "POST", "/collections/t/cluster"),
        ("auth_remove_peer_read_only_key", Some("ro"), "DELETE", "/cluster/peer/2691727527237111"),
    ] {
        let (status, body) = recorded(case);
        match stage.cluster.refuses(key, method, path).and_then(crate::replay::qdrant::Reply::answer) {
            None => assert_eq!(status, Some(200), "{case}"),
            Some(answer) => {
                let theirs = body["status"]["error"].as_str().or(body.as_str()).unwrap_or_default();
                assert_eq!((Some(u64::from(answer.status)), error(&answer).as_str()), (status, theirs), "{case}");
            }
        }
    }
}
