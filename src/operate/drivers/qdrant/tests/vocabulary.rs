//! What each recorded answer to a change means.

use super::super::words::{Changed, NotTold, changed, plain, result};
use super::*;

#[test]
fn every_recorded_answer_to_a_change_is_understood() {
    let cases = [
        // Taken up.
        ("drop_replica", "accepted"),
        ("drop_replica_during_transfer", "accepted"),
        ("drop_replica_of_dead_peer", "accepted"),
        ("replicate_shard", "accepted"),
        ("replicate_shard_third_copy", "accepted"),
        ("abort_transfer", "accepted"),
        ("abort_transfer_source_dead", "accepted"),
        ("move_to_dead_peer", "accepted"),
        ("move_quota_exceeded", "accepted"),
        ("remove_peer_drained", "accepted"),
        ("remove_peer_leader_self", "accepted"),
        ("remove_dead_peer_force", "accepted"),
        ("err_remove_unknown_peer", "accepted"),
        ("cluster_metadata_put", "accepted"),
        // Refused, with Qdrant's own words.
        ("err_drop_last_replica", "refused: Bad request: Shard 0 must have at least one active replica"),
        ("err_drop_replica_absent", "refused: Bad request: Peer 8567508380768009 has no replica of shard 0"),
        ("err_drop_replica_target_in_transfer", "refused: Bad request: Shard 1 must have at least one active"),
        ("err_move_already_moving", "refused: Bad request: Shard 1 is already involved in transfer"),
        ("err_move_target_busy", "refused: Bad request: Shard 1 is already involved in transfer"),
        ("err_move_bad_method", "refused: Format error in JSON body"),
        ("err_move_same_peer", "refused: Validation error in JSON body"),
        ("err_move_source_has_no_replica", "refused: Bad request: Shard 0 is not active on peer"),
        ("err_move_timeout_zero", "refused: Validation error in query parameters"),
        ("err_move_unknown_peer", "refused: Bad request: Peer 12345 does not exist"),
        ("err_move_unknown_shard", "refused: Bad request: Shard 99 of alpha does not exist"),
        ("err_remove_dead_peer_no_force", "refused: Bad request: Cannot remove peer 3048181806355747 as there are"),
        ("err_remove_peer_with_shards", "refused: Bad request: Cannot remove peer"),
        ("err_restart_same_method", "refused: Bad request: Cannot restart transfer"),
        ("err_restart_without_method", "refused: Format error"),
        ("err_start_resharding_oss", "refused: Bad request: resharding is only supported in Qdrant Cloud"),
        ("err_unknown_operation", "refused: Format error"),
        ("err_abort_resharding_none", "refused: Bad request: resharding is not in progress"),
        ("replicate_lost_shard_from_removed", "refused: Bad request: Peer 2082878336530890 does not exist"),
        ("auth_move_read_only_key", "refused: Forbidden: Global manage access is required (a read-only key"),
        ("auth_remove_peer_read_only_key", "refused: Forbidden"),
        (
            "auth_cluster_no_key",
            "refused: Must provide an API key or an Authorization bearer token (`datastore.api_key",
        ),
        ("auth_cluster_bad_key", "refused: Invalid API key or JWT"),
        ("standalone_move", "refused: Qdrant is running in standalone mode: start every node with"),
        ("standalone_remove_peer", "refused: Qdrant is running in standalone mode"),
        // No leader: nothing was proposed.
        ("move_shard_no_quorum", "refused: Service internal error: Failed to propose operation: leader is not"),
        ("move_shard_no_quorum_2_of_4", "refused: Service internal error: Failed to propose"),
        ("remove_peer_no_quorum", "refused: Service internal error: Failed to propose"),
        ("create_collection_no_quorum_timeout2", "refused: Service internal error: Failed to propose"),
        // Proposed, and perhaps applied later.
        ("create_collection_no_quorum_leader", "unknown: HTTP 500: Service internal error: Waiting for consensus"),
        ("count_shard_lost", "unknown: no answer: the connection was closed"),
        // What was named is not there.
        ("err_abort_no_transfer", "missing: Not found: Shard transfer"),
        ("err_restart_no_transfer", "missing: Not found: Shard transfer"),
        ("err_collection_missing", "missing: Not found: Collection `nope` doesn't exist!"),
        ("err_remove_peer_not_number", "missing: can not parse"),
    ];
    for (case, expected) in cases {
        let told = match changed(recorded(case)) {
            Changed::Accepted => "accepted".to_string(),
            Changed::Refused(why) => format!("refused: {why}"),
            Changed::Missing(why) => format!("missing: {why}"),
            Changed::Unknown(why) => format!("unknown: {why}"),
        };
        assert!(told.starts_with(expected), "{case}: {told}");
    }
    let all = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/qdrant")).expect("recordings");
    let names = all.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    for error in names.filter_map(|name| Some(name.strip_suffix(".json")?.to_string())) {
        let is_change = error.starts_with("err_") && !error.contains("sharding_key");
        assert!(!is_change || cases.iter().any(|(case, _)| *case == error), "{error} is not in the table");
    }
}

#[test]
fn only_a_connection_that_cannot_be_opened_proves_that_nothing_was_sent() {
    let of = |error| changed(Err(error));
    assert!(matches!(of(ApiError::NotSent("refused".into())), Changed::Refused(_)));
    assert!(matches!(of(ApiError::Lost("timeout".into())), Changed::Unknown(_)));
    for status in [302, 408, 500, 502, 503, 504, 507] {
        let answer = Ok(Answer { status, body: "<html>gateway</html>".into() });
        assert!(matches!(changed(answer), Changed::Unknown(_)), "{status}");
    }
}

#[test]
fn a_read_without_a_value_is_never_an_empty_one() {
    for (answer, expected) in [
        (recorded("auth_cluster_no_key"), "HTTP 401: Must provide an API key"),
        (recorded("err_collection_missing"), "HTTP 404: Not found"),
        (answer(json!({"status": "ok"})), "cannot be read: missing field `result`"),
        (answer(json!({"result": 5})), "cannot be read"),
        (Ok(Answer { status: 200, body: "<html>".into() }), "cannot be read"),
        (Ok(Answer { status: 200, body: String::new() }), "cannot be read"),
    ] {
        let told: Result<Vec<String>, NotTold> = result(answer);
        let why = told.expect_err(expected).to_string();
        assert!(why.contains(expected), "{why}");
    }
    assert_eq!(plain::<super::super::told::Root>(recorded("root")).unwrap().version, "1.19.0");
}
