//! A thousand notifications from three senders at once: one operation, no error, and no memory that stays.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{World, http};
use crate::{TRIGGER, more_checks, operations, series, world};

const SENDERS: usize = 3;
const EACH: usize = 334;
/// Resident memory may grow by so much.
const GROWTH: u64 = 32 << 20;

/// Two alerts as always, and one of fifty nodes.
fn notification(n: usize) -> String {
    let alert = |node: String, fingerprint: String| {
        json!({"status": "firing", "startsAt": "2026-01-31T03:12:00Z", "endsAt": "0001-01-01T00:00:00Z",
            "labels": {"alertname": "VectorDBSignalOverLine", "signal": "cpu_usage", "pool": "default", "node": node},
            "annotations": {"summary": "x".repeat(200)}, "generatorURL": "http://prometheus.example:9090/graph",
            "fingerprint": fingerprint})
    };
    let nodes = [0, 1, 2 + n % 50];
    let alerts = nodes.map(|node| alert(format!("vec-{node}"), format!("{node:016x}")));
    json!({"version": "4", "groupKey": "{}:{}", "receiver": "vecscale", "status": "firing", "truncatedAlerts": 0,
        "alerts": alerts})
    .to_string()
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Sends its share; gives how long each answer took.
async fn send(url: String, sender: usize) -> Vec<Duration> {
    let client = http();
    let mut took = Vec::with_capacity(EACH);
    for n in 0..EACH {
        let body = notification(n * SENDERS + sender);
        let began = Instant::now();
        let request = client.post(&url).bearer_auth(TRIGGER).header("content-type", "application/json").body(body);
        let answer = request.send().await.unwrap_or_else(|why| panic!("sender {sender}, {n}: {why}"));
        took.push(began.elapsed());
        assert_eq!(answer.status(), 200, "sender {sender}, {n}: {:?}", answer.text().await);
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_notifications_are_one_operation() {
    let mut world = world("");
    world.start().await;
    world.settled(3).await;
    more_checks(&world, 6).await; // it settles after its start
    let before = resident_bytes(world.pid());

    let url = format!("{}/webhooks/alertmanager", world.url);
    let senders = (0..SENDERS).map(|sender| tokio::spawn(send(url.clone(), sender)));
    let mut took = Vec::new();
    for sender in futures::future::join_all(senders).await {
        took.extend(sender.unwrap_or_else(|why| panic!("{why}\n{}", world.logs())));
    }
    took.sort();
    let at = |share: f64| took[(took.len() as f64 * share) as usize];
    println!("{} answers: p50 {:?}, p99 {:?}, last {:?}", took.len(), at(0.5), at(0.99), took[took.len() - 1]);

    let began = async |w: &World| operations(w).await.into_iter().next();
    world.until("an operation for the alerts", Duration::from_secs(60), began).await;
    world.settled(4).await;
    more_checks(&world, 5).await;
    let all = operations(&world).await;
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(world.status().await["alerts"][0]["firing"], 52);
    assert_eq!(series(&world, "vecscale_alerts_received_total{status=\"firing\"}").await, (took.len() * 3) as f64);
    let grown = resident_bytes(world.pid()).saturating_sub(before);
    println!("resident memory: {} KiB before, {} KiB more after", before >> 10, grown >> 10);
    assert!(grown < GROWTH, "resident memory grew by {grown} bytes");
}
