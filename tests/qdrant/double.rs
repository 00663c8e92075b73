//! The double itself, asked over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::http;
use crate::qdrant::Qdrant;
use crate::qdrant::load::SIZE;

async fn get(url: String) -> Result<(u16, String), reqwest::Error> {
    let answer = http().get(url).timeout(Duration::from_secs(2)).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Polls until the node at the address answers so.
async fn becomes(url: &str, what: &str, is: impl Fn(&Result<(u16, String), reqwest::Error>) -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let answer = get(url.into()).await;
        if is(&answer) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{url} is not {what}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_refuses_and_a_hung_one_is_silent() {
    let qdrant = Qdrant::new(&["n1", "n2", "n3"]).await;
    let (second, third) = (format!("{}/cluster", qdrant.address("n2")), format!("{}/cluster", qdrant.address("n3")));
    let answers = |answer: &Result<(u16, String), reqwest::Error>| answer.as_ref().is_ok_and(|(code, _)| *code == 200);
    for url in [&second, &third] {
        becomes(url, "there", answers).await;
    }
    qdrant.kill("n2");
    qdrant.hang("n3");
    becomes(&second, "refused", |answer| answer.as_ref().is_err_and(reqwest::Error::is_connect)).await;
    becomes(&third, "silent", |answer| answer.as_ref().is_err_and(|e| e.is_timeout() && !e.is_connect())).await;
    qdrant.revive("n2");
    qdrant.revive("n3");
    for url in [&second, &third] {
        becomes(url, "back", answers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_when_a_node_is_killed_gets_no_answer() {
    let qdrant = Qdrant::new(&["n1", "n2", "n3"]).await;
    let url = format!("{}/cluster/telemetry?details_level=3", qdrant.address("n1"));
    becomes(&url, "there", |answer| answer.is_ok()).await;
    // The round to all peers takes nine seconds now.
    qdrant.hang("n3");
    let waiting = tokio::spawn(http().get(url).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    qdrant.kill("n1");
    let answer = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("at once").expect("no panic");
    assert!(answer.is_err_and(|error| !error.is_timeout()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_makes_nodes_that_join_and_takes_machines_away() {
    let qdrant = Qdrant::new(&["n1", "n2", "n3"]).await;
    let machine = format!("{}/nodes/n4", qdrant.base);
    let made: Value = http().put(&machine).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((&made["id"], &made["ready"]), (&json!("n4"), &json!(true)));
    let again = http().put(&machine).send().await.expect("an answer");
    assert_eq!(again.status(), 200);
    let address = made["address"].as_str().expect("an address");
    becomes(&format!("{address}/readyz"), "ready", |a| a.as_ref().is_ok_and(|(code, _)| *code == 200)).await;
    let (_, told) = get(format!("{}/cluster", qdrant.address("n1"))).await.expect("an answer");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["result"]["peers"].as_object().map(|peers| peers.len()), Some(4));
    let listed: Value =
        http().get(format!("{}/nodes", qdrant.base)).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(listed["nodes"].as_array().map(|nodes| nodes.len()), Some(4));
    for status in [204, 404] {
        assert_eq!(http().delete(&machine).send().await.expect("an answer").status(), status);
    }
    becomes(&format!("{address}/readyz"), "gone", |a| a.as_ref().is_err_and(reqwest::Error::is_connect)).await;
    assert_eq!((qdrant.ledger().made["n4"], qdrant.ledger().removed["n4"]), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_that_were_written_are_read_back_through_every_node() {
    let qdrant = Qdrant::new(&["n1", "n2", "n3"]).await;
    qdrant.fill("docs", 6, 2, 2500).await;
    let before = qdrant.scroll("n1", "docs").await;
    assert_eq!(before.len(), 2500);
    let load = qdrant.load("docs");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(load.failed_searches(), Vec::<String>::new());
    load.all_is_there(&qdrant, "n2", "docs", &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_point_that_is_lost_is_noticed() {
    let qdrant = Qdrant::new(&["n1", "n2", "n3"]).await;
    qdrant.fill("docs", 2, 1, 300).await;
    let before = qdrant.scroll("n1", "docs").await;
    let load = qdrant.load("docs");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let url = format!("{}/collections/docs/points/delete?wait=true", qdrant.address("n1"));
    let deleted = http().post(url).json(&json!({"points": [17]})).send().await.expect("an answer");
    assert_eq!(deleted.status(), 200);
    let books = load.all_is_there(&qdrant, "n1", "docs", &before);
    let noticed = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(books)).await;
    assert!(noticed.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_key_reads_and_no_key_gets_plain_text() {
    let qdrant = Qdrant::new(&["n1", "n2", "n3"]).await;
    qdrant.fill("docs", 2, 1, 10).await;
    qdrant.demand("full", "ro");
    let url = format!("{}/collections/docs", qdrant.address("n1"));
    let body = json!({"vectors": {"size": SIZE}});
    let (code, said) = get(url.clone()).await.expect("an answer");
    assert_eq!((code, said.as_str()), (401, "Must provide an API key or an Authorization bearer token"));
    for (name, value, read, change) in
        [("api-key", "ro", 200, 403), ("authorization", "Bearer ro", 200, 403), ("api-key", "full", 200, 409)]
    {
        let answer = http().get(&url).header(name, value).send().await.expect("an answer");
        assert_eq!(answer.status(), read, "{name}: {value}");
        let answer = http().put(&url).header(name, value).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), change, "{name}: {value}");
    }
}
