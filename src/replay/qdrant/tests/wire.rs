//! The way that a driver asks.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::Stage;
use crate::operate::drivers::qdrant::api::{Api, ApiError, Request};
use crate::replay::qdrant::{Cluster, Wire};

const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test(start_paused = true)]
async fn an_answer_takes_its_time() {
    let wire = Wire::new(Cluster::new(&["n1", "n2", "n3"]));
    let began = Instant::now();
    let answer = wire.ask("http://n1:6333", Request::get("/cluster", PATIENCE)).await.expect("an answer");
    assert_eq!((answer.status, began.elapsed()), (200, Duration::from_millis(2)));
    assert!(answer.body.contains("\"role\":\"Leader\""), "{}", answer.body);
    wire.name("http://10.0.0.1:6333", "n2");
    let answer = wire.ask("http://10.0.0.1:6333", Request::get("/cluster", PATIENCE)).await.expect("an answer");
    assert!(answer.body.contains("\"role\":\"Follower\""), "{}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_was_sent_nothing_and_a_hung_one_may_have_heard() {
    let wire = Wire::new(Cluster::new(&["n1", "n2", "n3"]));
    let now = wire.now();
    wire.cluster().kill(now, "n2");
    wire.cluster().hang(now, "n3");
    let began = Instant::now();
    let dead = wire.ask("http://n2:6333", Request::get("/cluster", PATIENCE)).await;
    assert!(matches!(dead, Err(ApiError::NotSent(_))), "{dead:?}");
    let hung = wire.ask("http://n3:6333", Request::get("/cluster", PATIENCE)).await;
    assert!(matches!(hung, Err(ApiError::Lost(_))) && began.elapsed() == PATIENCE, "{hung:?}");
    // A round to all peers takes longer than one may be willing to wait.
    let short = Request::get("/cluster/telemetry?details_level=3", Duration::from_secs(5));
    let late = wire.ask("http://n1:6333", short).await;
    assert!(matches!(late, Err(ApiError::Lost(_))), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_shard_closes_the_connection() {
    let stage = Stage::three();
    let wire = Wire::new(stage.cluster);
    let peer = wire.cluster().peer("n3").expect("a node");
    let path = format!("/cluster/peer/{peer}?force=true");
    let asked = Request { method: Method::DELETE, path, body: None, timeout: PATIENCE };
    assert_eq!(wire.ask("http://n1:6333", asked).await.expect("an answer").status, 200);
    let (method, path) = (Method::POST, "/collections/alpha/points/count".to_string());
    let count = Request { method, path, body: Some(serde_json::json!({"exact": true})), timeout: PATIENCE };
    let closed = wire.ask("http://n1:6333", count).await;
    assert!(matches!(closed, Err(ApiError::Lost(_))), "{closed:?}");
}
