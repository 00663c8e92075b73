//! The shipped configuration in a real Alertmanager: what reaches vecscale's webhook, with which token, and what does not.

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::servers::{Server, shipped_alertmanager};
use common::tools::has;
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-role-trigger";

/// Stands where vecscale would, takes every notification and keeps it.
struct Webhook {
    port: u16,
    /// Path, `Authorization` and body of each.
    taken: Arc<Mutex<Vec<(String, String, Value)>>>,
}

impl Webhook {
    fn start() -> Webhook {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let taken: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = taken.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if let Some(request) = answered(connection) {
                    kept.lock().expect("no panic while holding it").push(request);
                }
            }
        });
        Webhook { port, taken }
    }

    fn taken(&self) -> Vec<(String, String, Value)> {
        self.taken.lock().expect("no panic while holding it").clone()
    }

    /// Name and pool of each alert that fired.
    fn fired(&self) -> BTreeSet<(String, String)> {
        let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap_or_default().to_string();
        let of = |body: Value| body["alerts"].as_array().cloned().unwrap_or_default();
        let alerts = self.taken().into_iter().flat_map(|(_, _, body)| of(body));
        alerts.map(|alert| (label(&alert, "alertname"), label(&alert, "pool"))).collect()
    }
}

/// Reads one request and answers 200.
fn answered(connection: TcpStream) -> Option<(String, String, Value)> {
    let mut reader = BufReader::new(&connection);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_string());
    }
    let header = |name: &str| {
        let found = lines.iter().filter_map(|l| l.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_string())
    };
    let mut body = vec![0; header("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    (&connection).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    let path = lines.first()?.split(' ').nth(1)?.to_string();
    Some((path, header("authorization").unwrap_or_default(), serde_json::from_slice(&body).ok()?))
}

/// With the shipped configuration, but for the webhook's port, the token's file and how long groups wait.
async fn alertmanager(dir: &Path, webhook: u16) -> Server {
    let token = dir.join("vecscale.token");
    std::fs::write(&token, format!("{TOKEN}\n")).expect("writing the token");
    let config = shipped_alertmanager(&format!("127.0.0.1:{webhook}"), &token);
    Server::alertmanager(dir, "alertmanager", &config).await
}

/// Tells it of an alert that fires.
async fn fires(alertmanager: &Server, name: &str, component: &str, pool: &str) {
    let mut labels = json!({"alertname": name, "component": component, "severity": "warning", "job": "vecscale",
        "instance": "v:8000"});
    if !pool.is_empty() {
        labels["pool"] = json!(pool);
    }
    alertmanager.fires(labels).await;
}

async fn arrives(webhook: &Webhook, name: &str, pool: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !webhook.fired().contains(&(name.into(), pool.into())) {
        let fired = webhook.fired();
        assert!(Instant::now() < deadline, "no {name} of pool {pool:?}, only {fired:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_scaler_never_reaches_its_webhook() {
    if !has("prometheus-alertmanager", "prometheus-alertmanager") {
        return;
    }
    let webhook = Webhook::start();
    let dir = tempfile::Builder::new().prefix("vecscale-test-").tempdir().expect("a temporary directory");
    let alertmanager = alertmanager(dir.path(), webhook.port).await;
    // In pool a vecscale makes no checks: what its old gauges say there must not drive anything.
    fires(&alertmanager, "VecscaleNotEvaluating", "scaler", "a").await;
    fires(&alertmanager, "VecscaleBlind", "scaler", "b").await;
    fires(&alertmanager, "VectorDBSignalOverLine", "database", "a").await;
    fires(&alertmanager, "VectorDBSignalOverLine", "database", "b").await;
    fires(&alertmanager, "VecscaleWatchdog", "watchdog", "").await;

    arrives(&webhook, "VecscaleWatchdog", "").await;
    arrives(&webhook, "VectorDBSignalOverLine", "b").await;
    // What begins to fire only now is sent after all that was to be sent of before.
    fires(&alertmanager, "VectorDBSignalOverLine", "database", "c").await;
    arrives(&webhook, "VectorDBSignalOverLine", "c").await;

    let expected = [("VecscaleWatchdog", ""), ("VectorDBSignalOverLine", "b"), ("VectorDBSignalOverLine", "c")];
    let expected = expected.map(|(name, pool)| (name.to_string(), pool.to_string()));
    assert_eq!(webhook.fired(), BTreeSet::from(expected), "{:?}", webhook.taken());
    for (path, authorization, body) in webhook.taken() {
        assert_eq!((path.as_str(), authorization.as_str()), ("/webhooks/alertmanager", &*format!("Bearer {TOKEN}")));
        assert_eq!((&body["version"], &body["receiver"]), (&json!("4"), &json!("vecscale")), "{body}");
    }
}
