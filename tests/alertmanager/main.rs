//! Alertmanager's webhook over real servers: Prometheus scrapes vecscale, a rule fires on real load, the notification
//! arrives, a node is added, the alert is resolved, and that is all; also with two that both send everything. And a burst.

mod burst;
#[path = "../common/mod.rs"]
mod common;
mod servers;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use common::{COLLECTION, Vectors, World, addresses, promtool_has_nothing_to_say, vector_of};
use servers::Server;
use vecscale::node::client::Client;

const WAIT: Duration = Duration::from_secs(180);

/// Nothing but alerts changes this pool; no cooldown stands between one operation and the next.
pub const CONFIG: &str = "
autoscaling: {mode: active}
pools:
  - name: default
    thresholds: {health_check_interval: 1, scale_up_cooldown: 0, scale_down_cooldown: 0, min_nodes: 3, max_nodes: 8}
    checks: {cpu_high: off, memory_high: off, storage_high: off, latency_high: off, error_rate_high: off, low: off}
    replace: {enabled: false}
    provider: {type: process, nodes: 3, cpu_cores: 0.25, memory_limit: 64MiB, storage_limit: 256MiB, timeout: 60s}
    datastore: {type: vectornode}
    alerts:
      - {name: busy, matchers: ['alertname=\"VectorSearchBusy\"', 'severity=~\"page|critical\"'], action: scale_up}
";

const RULES: &str = "
groups:
  - name: search
    rules:
      - alert: VectorSearchBusy
        expr: max_over_time(vecscale_queries_per_second[10s]) > 5 and on() up{job=\"node\"} == 1
        for: 2s
        labels: {severity: page}
        annotations: {summary: 'Pool {{ $labels.pool }} answers {{ $value }} searches a second'}
";

fn prometheus_config(vecscale: &str, node_exporter: &Server, alertmanagers: &[Server]) -> String {
    let targets: Vec<&str> = alertmanagers.iter().map(|server| server.address.as_str()).collect();
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: {targets:?}}}]}}]}}
scrape_configs:
  - {{job_name: vecscale, static_configs: [{{targets: [{vecscale:?}]}}]}}
  - {{job_name: node, static_configs: [{{targets: [{:?}]}}]}}
",
        node_exporter.address
    )
}

/// `http_config` of the webhook: the place for what the receiver asks of who calls it.
fn alertmanager_config(vecscale: &str, http_config: &str) -> String {
    format!(
        "route: {{receiver: vecscale, group_by: [alertname, pool], group_wait: 1s, group_interval: 2s, repeat_interval: 4s}}
receivers:
  - name: vecscale
    webhook_configs:
      - url: http://{vecscale}/webhooks/alertmanager
        http_config: {http_config}
"
    )
}

/// Searches until it is dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    async fn start(world: &World) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = Arc::new(Client::new(addresses(world).await));
        for _ in 0..4 {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let _ = client.search(COLLECTION, &vector_of(fastrand::u64(..)), 5).await; // load, not proof
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
            });
        }
        Load(stop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub async fn settled(world: &World, nodes: usize) {
    let settled = async |w: &World| {
        let status: Value = serde_json::from_str(&w.try_get("/autoscaling/status").await?).ok()?;
        let all = status["metrics"]["healthy_nodes"] == nodes && status["metrics"]["node_count"] == nodes;
        (all && status["operation"].is_null()).then_some(())
    };
    world.until(&format!("{nodes} healthy nodes and no operation"), WAIT, settled).await;
}

pub async fn operations(world: &World) -> Vec<Value> {
    world.get("/autoscaling/operations").await["items"].as_array().expect("a list").clone()
}

/// The value of a series of vecscale's own page.
pub async fn series(world: &World, name: &str) -> f64 {
    let page = world.try_get("/metrics").await.unwrap_or_else(|| panic!("no page\n{}", world.logs()));
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} on the page\n{page}")).parse().expect("a number")
}

pub async fn more_checks(world: &World, checks: u64) {
    let seen = world.status().await["decision"]["id"].as_u64().expect("a decision");
    let later = async |w: &World| (w.status().await["decision"]["id"].as_u64()? >= seen + checks).then_some(());
    world.until(&format!("{checks} more checks"), WAIT, later).await;
}

/// Real load, real rule, real webhook, from as many Alertmanagers.
async fn one_node_for_one_alert(alertmanagers: u32) {
    let mut world = World::new(CONFIG);
    world.start().await;
    settled(&world, 3).await;
    Vectors::fill(&world, 400).await;
    let vecscale = world.url.trim_start_matches("http://").to_string();
    let dir = world.dir.path().to_path_buf();
    let dir: &Path = &dir;
    std::fs::write(dir.join("rules.yml"), RULES).expect("writing the rules");
    let node_exporter = Server::node_exporter(dir).await;
    let mut senders = Vec::new();
    for number in 1..=alertmanagers {
        let config = alertmanager_config(&vecscale, "{follow_redirects: false}");
        senders.push(Server::alertmanager(dir, &format!("alertmanager-{number}"), &config).await);
    }
    let _prometheus = Server::prometheus(dir, &prometheus_config(&vecscale, &node_exporter, &senders)).await;

    let load = Load::start(&world).await;
    let began = async |w: &World| operations(w).await.into_iter().next();
    let operation = world.until("an operation for the alert", WAIT, began).await;
    assert_eq!((&operation["kind"], &operation["trigger"]), (&"scale_up".into(), &"alert".into()), "{operation}");
    let because = operation["because"][0].as_str().unwrap_or_default();
    assert!(because.starts_with("alert busy fires since 20") && because.contains("VectorSearchBusy"), "{operation}");
    settled(&world, 4).await;

    // It goes on firing, and is repeated by everyone.
    let heard = f64::from(alertmanagers) * 4.0;
    let repeated =
        async |w: &World| (series(w, "vecscale_alerts_received_total{status=\"firing\"}").await >= heard).then_some(());
    world.until("repeated notifications", WAIT, repeated).await;
    more_checks(&world, 5).await;
    let status = world.status().await;
    assert_eq!(status["alerts"][0]["firing"], 1, "{status}");
    let standing = status["alerts"][0]["episodes"][0]["standing"].as_str().unwrap_or_default();
    assert!(standing.starts_with("answered by decision"), "{status}");
    assert_eq!(series(&world, "vecscale_alert_firing{alert=\"busy\",pool=\"default\"}").await, 1.0);
    promtool_has_nothing_to_say(&world.try_get("/metrics").await.expect("a page"));

    drop(load);
    let resolved = async |w: &World| (w.status().await["alerts"][0]["firing"] == 0).then_some(());
    world.until("the alert is resolved", WAIT, resolved).await;
    let all_said = async |w: &World| {
        (series(w, "vecscale_alerts_received_total{status=\"resolved\"}").await >= f64::from(alertmanagers))
            .then_some(())
    };
    world.until("everyone says so", WAIT, all_said).await;
    more_checks(&world, 5).await;

    assert_eq!(operations(&world).await.len(), 1, "no second operation\n{}", world.logs());
    settled(&world, 4).await;
    let rows = world.get("/autoscaling/history?kind=alert").await;
    let told: Vec<&str> =
        rows["items"].as_array().expect("rows").iter().filter_map(|r| r["summary"].as_str()).collect();
    assert_eq!(told.len(), 2, "copies leave no row: {told:?}");
    assert!(told[0].starts_with("busy resolved") && told[1].starts_with("busy firing"), "{told:?}");
    let page = world.try_get("/metrics").await.expect("a page");
    let rejected: Vec<&str> =
        page.lines().filter(|l| l.starts_with("vecscale_alerts_rejected_total") && !l.ends_with(" 0")).collect();
    assert_eq!(rejected, [""; 0]);
    assert_eq!(world.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alertmanager() {
    one_node_for_one_alert(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_send_everything_twice() {
    one_node_for_one_alert(2).await;
}
