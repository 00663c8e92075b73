//! The shipped configuration in a real Alertmanager: what reaches vecscale's webhook, with which token, and what does not.

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{free_port, http};
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

/// A running Alertmanager; gone when dropped.
struct Alertmanager {
    dir: tempfile::TempDir,
    child: Child,
    url: String,
}

impl Alertmanager {
    /// With the shipped configuration, but for the webhook's port, the token's file and how long groups wait.
    async fn start(webhook: u16) -> Alertmanager {
        let dir = tempfile::Builder::new().prefix("vecscale-test-").tempdir().expect("a temporary directory");
        let token = dir.path().join("vecscale.token");
        std::fs::write(&token, format!("{TOKEN}\n")).expect("writing the token");
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alertmanager/alertmanager.yml");
        let config = std::fs::read_to_string(shipped)
            .expect("the shipped example")
            .replace("127.0.0.1:8000", &format!("127.0.0.1:{webhook}"))
            .replace("/etc/alertmanager/vecscale.token", &token.display().to_string())
            .replace("group_wait: 5s", "group_wait: 1s");
        std::fs::write(dir.path().join("alertmanager.yml"), config).expect("writing the configuration");
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).expect("the log file");
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", dir.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.external-url=http://alertmanager.example/")
            .arg("--web.route-prefix=/")
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("alertmanager cannot be run ({e}): Debian's package prometheus-alertmanager"));
        let alertmanager = Alertmanager { dir, child, url: format!("http://127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(30);
        while http().get(format!("{}/-/ready", alertmanager.url)).send().await.is_err() {
            assert!(Instant::now() < deadline, "alertmanager does not answer\n{}", alertmanager.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        alertmanager
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// As Prometheus tells of an alert that fires.
    async fn fires(&self, name: &str, component: &str, pool: &str) {
        let mut labels = json!({"alertname": name, "component": component, "severity": "warning", "job": "vecscale",
            "instance": "v:8000"});
        if !pool.is_empty() {
            labels["pool"] = json!(pool);
        }
        let answer = http().post(format!("{}/api/v2/alerts", self.url)).json(&json!([{"labels": labels}])).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{}", self.log());
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn arrives(webhook: &Webhook, alertmanager: &Alertmanager, name: &str, pool: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !webhook.fired().contains(&(name.into(), pool.into())) {
        let fired = webhook.fired();
        assert!(Instant::now() < deadline, "no {name} of pool {pool:?}, only {fired:?}\n{}", alertmanager.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_scaler_never_reaches_its_webhook() {
    let webhook = Webhook::start();
    let alertmanager = Alertmanager::start(webhook.port).await;
    // In pool a vecscale makes no checks: what its old gauges say there must not drive anything.
    alertmanager.fires("VecscaleNotEvaluating", "scaler", "a").await;
    alertmanager.fires("VecscaleBlind", "scaler", "b").await;
    alertmanager.fires("VectorDBSignalOverLine", "database", "a").await;
    alertmanager.fires("VectorDBSignalOverLine", "database", "b").await;
    alertmanager.fires("VecscaleWatchdog", "watchdog", "").await;

    arrives(&webhook, &alertmanager, "VecscaleWatchdog", "").await;
    arrives(&webhook, &alertmanager, "VectorDBSignalOverLine", "b").await;
    // What begins to fire only now is sent after all that was to be sent of before.
    alertmanager.fires("VectorDBSignalOverLine", "database", "c").await;
    arrives(&webhook, &alertmanager, "VectorDBSignalOverLine", "c").await;

    let expected = [("VecscaleWatchdog", ""), ("VectorDBSignalOverLine", "b"), ("VectorDBSignalOverLine", "c")];
    let expected = expected.map(|(name, pool)| (name.to_string(), pool.to_string()));
    assert_eq!(webhook.fired(), BTreeSet::from(expected), "{}", alertmanager.log());
    for (path, authorization, body) in webhook.taken() {
        assert_eq!((path.as_str(), authorization.as_str()), ("/webhooks/alertmanager", &*format!("Bearer {TOKEN}")));
        assert_eq!((&body["version"], &body["receiver"]), (&json!("4"), &json!("vecscale")), "{body}");
    }
}
