//! The webhook over real TCP: what is taken, what is refused and how, and whom it reaches.

use serde_json::{Value, json};

use super::stage::Stage;
use crate::alerts::MOST_ALERTS;

const LINE: &str = "POST /webhooks/alertmanager";
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/alertmanager");

fn recorded(name: &str) -> String {
    std::fs::read_to_string(format!("{RECORDED}/{name}")).expect("a fixture")
}

fn body(labels: Value, more: usize) -> String {
    let alert = json!({"status": "firing", "labels": labels, "startsAt": "2025-11-24T15:59:00Z",
        "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "ca2c83f1abddcc93"});
    json!({"version": "4", "receiver": "scaler", "alerts": vec![alert; more]}).to_string()
}

async fn series(stage: &Stage, name: &str) -> f64 {
    let page = stage.ask("GET /metrics", "").await.body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

/// Entries and fingerprints that fire in a pool.
fn firing(stage: &Stage, pool: &str) -> Vec<String> {
    let shown = stage.server.pools[pool].alerts.shown();
    shown.iter().filter(|a| a.is_firing()).map(|a| format!("{} {}", a.entry, &a.fingerprint[..4])).collect()
}

#[tokio::test]
async fn what_alertmanager_sends_is_taken() {
    let stage = Stage::one_pool().await;
    let sent = [
        ("0.33.1-firing-grouped.json", json!({"received": 2, "unmatched": 0}), vec!["up 60a0", "up e196"]),
        ("0.33.1-repeat.json", json!({"received": 2, "unmatched": 0}), vec!["up 60a0", "up e196"]),
        ("0.28.1-repeat.json", json!({"received": 2, "unmatched": 0}), vec!["up 60a0", "up e196"]),
        ("0.33.1-partly-resolved.json", json!({"received": 2, "unmatched": 0}), vec!["up 60a0"]),
        ("0.33.1-mixed-group.json", json!({"received": 6, "unmatched": 3}), vec!["up 60a0", "up ca2c"]),
        ("0.33.1-truncated.json", json!({"received": 1, "unmatched": 0}), vec!["up 60a0", "up ca2c"]),
        ("0.33.1-resolved.json", json!({"received": 1, "unmatched": 0}), vec!["up ca2c"]),
    ];
    for (name, answer, fires) in sent {
        let got = stage.ask(LINE, &recorded(name)).await;
        assert_eq!((got.status, got.json()), (200, answer), "{name}");
        assert_eq!(firing(&stage, "default"), fires, "{name}");
    }
    for (name, value) in [
        (r#"vecscale_alerts_received_total{status="firing"}"#, 14.0),
        (r#"vecscale_alerts_received_total{status="resolved"}"#, 2.0),
        ("vecscale_alerts_unmatched_total", 3.0),
        ("vecscale_alerts_truncated_total", 2.0),
        (r#"vecscale_alerts_rejected_total{reason="version"}"#, 0.0),
    ] {
        assert_eq!(series(&stage, name).await, value, "{name}");
    }
    assert!(series(&stage, "vecscale_alertmanager_last_notification_timestamp_seconds").await >= 1_764_000_000.0);
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_for_good() {
    let json = "Content-Type: application/json\r\n";
    let (templated, many) = (recorded("0.33.1-templated-payload.json"), body(json!({}), MOST_ALERTS + 1));
    let large = body(json!({"alertname": "x".repeat(5 << 20)}), 1);
    let cases: [(&str, &str, &str, u16, &str, &str); 9] = [
        (LINE, json, &templated, 400, "leave `payload` out", "version"),
        (LINE, json, r#"{"version": "3"}"#, 400, r#"\"3\" where"#, "version"),
        (LINE, json, r#"{"version": "4"}"#, 400, "missing field `alerts`", "malformed"),
        (LINE, json, "{", 400, "no JSON object", "not_json"),
        (LINE, json, &many, 400, "at most 10000", "too_many_alerts"),
        (LINE, json, &large, 413, "4194304 bytes", "too_large"),
        (LINE, "", "{}", 415, "no Content-Type", "content_type"),
        (LINE, "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", "x", 415, "compressed", "content_type"),
        ("POST /webhooks/alertmanager?pool=default", json, "{}", 400, "unknown query parameter", "malformed"),
    ];
    let stage = Stage::one_pool().await;
    for (line, headers, body, status, says, reason) in cases {
        let name = format!("vecscale_alerts_rejected_total{{reason=\"{reason}\"}}");
        let before = series(&stage, &name).await;
        let got = stage.ask_with(line, headers, body).await;
        let kind = got.header("content-type");
        assert_eq!((got.status, kind), (status, Some("application/problem+json")), "{says}: {got:?}");
        assert!(got.body.contains(says), "{says}: {got:?}");
        assert_eq!(series(&stage, &name).await, before + 1.0, "{says}");
    }
    assert_eq!(stage.ask("GET /webhooks/alertmanager", "").await.status, 405);
    assert_eq!(firing(&stage, "default"), [""; 0]);
}

#[tokio::test]
async fn an_empty_body_is_refused() {
    let stage = Stage::one_pool().await;
    let got = stage.ask_with(LINE, "Content-Type: application/json\r\nContent-Length: 0\r\n", "").await;
    assert_eq!(got.status, 400, "{got:?}");
}

#[tokio::test]
async fn a_notification_of_four_mebibytes_is_taken() {
    let stage = Stage::one_pool().await;
    let large = body(json!({"scale": "up", "note": "x".repeat(4_000_000)}), 1);
    assert_eq!(stage.ask(LINE, &large).await.status, 200);
    let kept = serde_json::to_string(&*stage.server.pools["default"].alerts.shown()).expect("JSON");
    assert!(kept.len() < 1_000, "{} bytes are kept of one alert", kept.len());
}

#[tokio::test]
async fn each_pool_gets_the_alerts_that_it_matches() {
    let stage = Stage::of(&["a", "b"], false).await;
    for (labels, a, b) in [
        (json!({"scale": "up"}), vec!["up ca2c"], vec!["up ca2c"]),
        (json!({"scale": "up", "pool": "a"}), vec!["up ca2c"], vec![]),
        (json!({"for": "b"}), vec![], vec!["own ca2c"]),
    ] {
        let stage = Stage::of(&["a", "b"], false).await;
        assert_eq!(stage.ask(LINE, &body(labels.clone(), 1)).await.json()["unmatched"], 0, "{labels}");
        assert_eq!((firing(&stage, "a"), firing(&stage, "b")), (strings(a), strings(b)), "{labels}");
    }
    assert_eq!(stage.ask(LINE, &body(json!({"pool": "c", "scale": "up"}), 1)).await.json()["unmatched"], 1);
}

fn strings(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(String::from).collect()
}

#[tokio::test]
async fn what_a_retry_mends_is_answered_with_503() {
    let stage = Stage::one_pool().await;
    let _newer = stage.alerts.reopen();
    let got = stage.ask(LINE, &recorded("0.33.1-firing-grouped.json")).await;
    assert_eq!((got.status, got.header("retry-after")), (503, Some("5")), "{got:?}");
    assert_eq!(series(&stage, r#"vecscale_alerts_rejected_total{reason="unavailable"}"#).await, 1.0);
    assert_eq!(series(&stage, r#"vecscale_alerts_received_total{status="firing"}"#).await, 0.0);
    assert_eq!(firing(&stage, "default"), [""; 0]);
    assert_eq!(
        stage.ask(LINE, &recorded("0.33.1-utf8-labels.json")).await.status,
        200,
        "what is for no pool needs no disk"
    );
}
