//! Each answer has the keys and the types, at every level, that Qdrant was recorded with in the same situation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Stage, millis, recorded};
use crate::replay::qdrant::Body;

/// Every path in a value with the type there. Keys that are data are one: peers, names, addresses.
fn shape(value: &Value) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    walk(value, "", &mut paths);
    paths
}

fn walk(value: &Value, at: &str, paths: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    paths.insert(format!("{at}: {kind}"));
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{at}[]"), paths)),
        Value::Object(fields) => {
            // Who asked for what, and how often, differs from one recording to the next.
            let is_data = ["message_send_failures", "responses", "collection_data"].iter().any(|end| at.ends_with(end));
            let is_data = is_data || (at.ends_with(".collections") && !fields.contains_key("number_of_collections"));
            for (key, field) in fields {
                let is_peer = key.parse::<u64>().is_ok();
                let key = if is_peer || is_data { "*" } else { key };
                walk(field, &format!("{at}.{key}"), paths);
            }
        }
        _ => {}
    }
}

pub(super) fn equal(case: &str, stage: &mut Stage, node: &str, path: &str) {
    let (status, body) = recorded(case);
    let answer = stage.ask(node, "GET", path, Value::Null);
    assert_eq!(Some(u64::from(answer.status)), status, "{case}");
    let Body::Json(ours) = answer.body else {
        assert_eq!(answer.body, Body::Text(body.as_str().expect("plain text").into()), "{case}");
        return;
    };
    let beyond = |path: &&String| {
        let counted = [".requests.grpc", ".requests.rest.responses.", ".hardware.collection_data."];
        !counted.iter().any(|part| path.contains(part))
    };
    let (ours, theirs) = (shape(&ours), shape(&body));
    let more: Vec<&String> = ours.difference(&theirs).filter(beyond).collect();
    let less: Vec<&String> = theirs.difference(&ours).filter(beyond).collect();
    assert!(more.is_empty() && less.is_empty(), "{case}: {path}\nonly here: {more:#?}\nonly recorded: {less:#?}");
}

#[test]
fn of_three_healthy_nodes() {
    let mut stage = Stage::three();
    stage.wait(millis(1_000));
    for (case, node, path) in [
        ("root", "n1", "/"),
        ("cluster_3nodes_from_leader", "n1", "/cluster"),
        ("cluster_3nodes_from_follower", "n3", "/cluster"),
        ("cluster_telemetry", "n1", "/cluster/telemetry"),
        ("cluster_telemetry_level_3", "n1", "/cluster/telemetry?details_level=3"),
        ("collections", "n2", "/collections"),
        ("collection_info_rf1", "n1", "/collections/alpha"),
        ("collection_info_rf2", "n1", "/collections/beta"),
        ("collection_cluster_rf1", "n1", "/collections/alpha/cluster"),
        ("collection_cluster_rf2", "n1", "/collections/beta/cluster"),
        ("telemetry_details_level_0", "n1", "/telemetry?details_level=0"),
        ("telemetry_details_level_1", "n1", "/telemetry?details_level=1"),
        ("telemetry_details_level_2", "n1", "/telemetry?details_level=2"),
        ("quotas", "n1", "/quotas"),
        ("healthz", "n1", "/healthz"),
        ("livez", "n1", "/livez"),
        ("readyz", "n1", "/readyz"),
        ("collection_not_found", "n1", "/collections/nope/cluster"),
    ] {
        equal(case, &mut stage, node, path);
    }
}

#[test]
fn with_a_dead_peer() {
    let mut stage = Stage::three();
    stage.kill("n3");
    stage.wait(millis(2_000));
    equal("cluster_peer_dead", &mut stage, "n1", "/cluster");
    equal("cluster_peer_dead_from_follower", &mut stage, "n2", "/cluster");
    equal("cluster_telemetry_peer_dead", &mut stage, "n1", "/cluster/telemetry?details_level=3");
    equal("quotas_peer_dead", &mut stage, "n1", "/quotas");
    equal("collection_cluster_peer_dead_no_writes_yet", &mut stage, "n1", "/collections/beta/cluster");
    equal("collection_info_peer_dead_rf1", &mut stage, "n1", "/collections/alpha");
    equal("telemetry_details_level_2_peer_dead", &mut stage, "n1", "/telemetry?details_level=2");
}

#[test]
fn with_a_hung_peer_a_round_to_all_takes_nine_seconds() {
    let mut stage = Stage::three();
    stage.hang("n3");
    stage.wait(millis(2_000));
    for (case, path) in [
        ("cluster_telemetry_peer_hung", "/cluster/telemetry"),
        ("cluster_telemetry_peer_hung_timeout2", "/cluster/telemetry?timeout=2"),
        ("quotas_peer_hung", "/quotas"),
    ] {
        let before = stage.now;
        equal(case, &mut stage, "n1", path);
        assert_eq!((stage.now - before).as_millis(), 9_400, "{case}");
    }
}

#[test]
fn without_a_majority() {
    let mut stage = Stage::three();
    stage.kill("n1");
    stage.kill("n3");
    stage.wait(millis(10_000));
    equal("cluster_no_quorum", &mut stage, "n2", "/cluster");
    equal("cluster_telemetry_no_quorum", &mut stage, "n2", "/cluster/telemetry?details_level=3");
    equal("quotas_no_quorum", &mut stage, "n2", "/quotas");
}

#[test]
fn of_a_shard_on_its_way() {
    let mut stage = Stage::three();
    stage.cluster.bytes_per_second = 10_000;
    let (from, to) = stage.ends("alpha", 0);
    stage.transfer("move_shard", "alpha", 0, &from, &to);
    stage.wait(millis(1_000));
    equal("cluster_telemetry_transfer", &mut stage, "n1", "/cluster/telemetry?details_level=3");
    equal("collection_cluster_move_stream_records_node1", &mut stage, &from, "/collections/alpha/cluster");
    equal("collection_cluster_move_stream_records_node4", &mut stage, &to, "/collections/alpha/cluster");
    stage.kill(&from);
    stage.wait(millis(10_000));
    let asked = if from == "n1" { "n2" } else { "n1" };
    equal("cluster_telemetry_source_killed", &mut stage, asked, "/cluster/telemetry?details_level=3");
    equal("collection_cluster_source_killed", &mut stage, asked, "/collections/alpha/cluster");
}

#[test]
fn of_a_removed_peer() {
    let mut stage = Stage::empty(&["n1", "n2", "n3", "n4"]);
    let three_on = |stage: &mut Stage, copies: u64| {
        let body = json!({"vectors": {"size": 32}, "shard_number": 4, "replication_factor": copies});
        stage.done("n1", "PUT", "/collections/alpha", body);
    };
    three_on(&mut stage, 4);
    let peer = stage.peer("n4");
    stage.done("n1", "DELETE", &format!("/cluster/peer/{peer}?force=true"), Value::Null);
    equal("removed_peer_cluster", &mut stage, "n4", "/cluster");
    equal("removed_peer_collections", &mut stage, "n4", "/collections");
    equal("removed_peer_collection_cluster", &mut stage, "n4", "/collections/alpha/cluster");
    equal("removed_peer_telemetry", &mut stage, "n4", "/cluster/telemetry");
    equal("removed_peer_readyz", &mut stage, "n4", "/readyz");
    stage.kill("n4");
    stage.revive("n4");
    stage.wait(millis(1_000));
    equal("removed_peer_restarted_cluster", &mut stage, "n4", "/cluster");
    equal("removed_peer_restarted_readyz", &mut stage, "n4", "/readyz");
    equal("cluster_after_remove", &mut stage, "n1", "/cluster");
}

#[test]
fn of_a_lost_shard_and_of_a_resharding() {
    let mut stage = Stage::three();
    let peer = stage.peer("n3");
    stage.done("n1", "DELETE", &format!("/cluster/peer/{peer}?force=true"), Value::Null);
    equal("collection_info_shard_lost", &mut stage, "n1", "/collections/alpha");
    equal("collection_cluster_shard_lost", &mut stage, "n1", "/collections/alpha/cluster");
    stage.cluster.reshard("beta");
    let asked = if stage.peer("n1") < stage.peer("n2") { "n2" } else { "n1" };
    equal("collection_cluster_resharding", &mut stage, asked, "/collections/beta/cluster");
}

#[test]
fn of_keys_that_are_kept() {
    let mut stage = Stage::three();
    let path = "/cluster/metadata/keys/autoscaler";
    equal("cluster_metadata_get_missing", &mut stage, "n2", path);
    let kept = json!({"owner": "a", "epoch": 1, "draining": [123]});
    stage.done("n1", "PUT", &format!("{path}?wait=true"), kept.clone());
    equal("cluster_metadata_list", &mut stage, "n2", "/cluster/metadata/keys");
    equal("cluster_metadata_get", &mut stage, "n2", path);
    assert_eq!(stage.get("n3", path), kept);
    stage.done("n1", "DELETE", &format!("{path}?wait=true"), Value::Null);
    assert_eq!(stage.get("n3", path), Value::Null);
}

/// Each family of the page is one that Qdrant writes, and has its type and its labels.
#[test]
fn of_the_page_of_metrics() {
    let mut stage = Stage::three();
    stage.upsert("n1", "beta", 0..10);
    stage.count("n1", "beta").expect("an answer").expect("a count");
    let Body::Text(page) = stage.ask("n1", "GET", "/metrics", Value::Null).body else { panic!("no text") };
    let path = format!("{}/tests/fixtures/qdrant/metrics_node1.txt", env!("CARGO_MANIFEST_DIR"));
    let theirs = std::fs::read_to_string(path).expect("the recorded page");
    let mut families = 0;
    for line in page.lines().filter(|line| !line.starts_with("# HELP")) {
        if line.starts_with("# TYPE") {
            families += 1;
            assert!(theirs.lines().any(|theirs| theirs == line), "{line}");
            continue;
        }
        let labels = |line: &str| {
            let name = line.split([' ', '{']).next().unwrap_or_default().to_string();
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').expect("a brace").0);
            let keys: Vec<&str> = labels.split("\",").filter_map(|pair| pair.split('=').next()).collect();
            (name, keys.join(","))
        };
        let theirs = theirs.lines().filter(|line| !line.starts_with('#')).map(labels).collect::<BTreeSet<_>>();
        assert!(theirs.contains(&labels(line)), "{line}");
    }
    assert!(families > 20, "{page}");
}
