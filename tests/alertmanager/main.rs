//! Alertmanager's webhook over real servers, with the shipped rules and configurations: Prometheus scrapes vecscale, a rule
//! fires on real load, the notification arrives with its token, a node is added, the alert is resolved, and that is all;
//! also with two Alertmanagers that both send everything. And a burst.

mod burst;
#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::time::Duration;

use common::searches::Searches;
use common::servers::{Server, replaced, shipped, shipped_alertmanager, shipped_prometheus};
use common::tools::has;
use common::{Vectors, World, free_port, promtool_has_nothing_to_say};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(120);

/// Tokens by the role that they have.
const READ: &str = "read-9d1f64c27b05e83a";
pub const TRIGGER: &str = "trigger-4be2a7f1306c95d8";
const ADMIN: &str = "admin-c83e50b6f9172ad4";

/// Nothing but alerts changes this pool; no cooldown stands between one operation and the next. Any search is above the line
/// of the latency, and nothing else is above one: the alert is about searches, however fast the machine is.
const CONFIG: &str = "
autoscaling: {mode: active}
web:
  tokens:
    - {name: prometheus, role: read, token_file: tokens/read}
    - {name: alertmanager, role: trigger, token_file: tokens/trigger}
    - {name: test, role: admin, token_file: tokens/admin}
pools:
  - name: default
    thresholds:
      health_check_interval: 2
      scale_up_cooldown: 0
      scale_down_cooldown: 0
      min_nodes: 3
      max_nodes: 8
      latency_threshold_high: 0.002
      latency_threshold_low: 0.001
      cpu_threshold_high: 1
    checks: {cpu_high: off, memory_high: off, storage_high: off, latency_high: off, error_rate_high: off, low: off}
    replace: {enabled: false}
    provider: {type: process, nodes: 3, cpu_cores: 0.25, memory_limit: 64MiB, storage_limit: 256MiB, timeout: 60s}
    datastore: {type: vectornode}
";

/// Under the pool: what node_exporter says of this machine, by way of Prometheus. For show.
const HOST_LOAD: &str = "    scrape: {prometheus: {url: 'http://127.0.0.1:PORT', timeout: 1500ms}}
    custom: {host_load: {promql: 'max(node_load1)'}}
";

/// Below the shipped scrape jobs.
const NODE_EXPORTER: &str = "  - job_name: node
    static_configs: [{targets: [\"ADDRESS\"]}]

alerting:";

/// A controller that asks who calls, with the `alerts:` section that is recommended; this test itself is an admin.
pub fn world(further: &str) -> World {
    let readme = shipped("deploy/alertmanager/README.md");
    let section = readme.split("    alerts:\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the section");
    let mut world = World::new(&format!("{CONFIG}{further}    alerts:\n{section}"));
    std::fs::create_dir(world.path("tokens")).expect("a folder for the tokens");
    for (name, token) in [("read", READ), ("trigger", TRIGGER), ("admin", ADMIN)] {
        std::fs::write(world.path(&format!("tokens/{name}")), format!("{token}\n")).expect("a token");
    }
    world.token = Some(ADMIN.into());
    world
}

/// The shipped rules, of which one does not wait for ten minutes before it fires, nor for five before it is over.
fn write_rules(world: &World) {
    let folder = world.path("alerts");
    std::fs::create_dir(&folder).expect("a folder for the rules");
    let waits = "      - alert: VectorDBSignalOverLine
        expr: pool_signal:vecscale_signal_value:high_line_ratio > 1
        for: ";
    let (long, short) = (format!("{waits}10m\n"), format!("{waits}2s\n"));
    let shorter = [(long.as_str(), short.as_str()), ("keep_firing_for: 5m", "keep_firing_for: 15s")];
    let database = replaced(&shipped("alerts/database.yml"), &shorter);
    for (name, rules) in [("scaler", shipped("alerts/scaler.yml")), ("database", database)] {
        std::fs::write(folder.join(format!("{name}.yml")), rules).expect("writing the rules");
    }
}

/// As it is shipped with authentication, and with node_exporter besides.
fn prometheus_config(world: &World, node_exporter: &Server, alertmanagers: &[Server]) -> String {
    let targets: Vec<&str> = alertmanagers.iter().map(|server| server.address.as_str()).collect();
    replaced(
        &shipped_prometheus(world.url.trim_start_matches("http://"), world.dir.path(), &targets),
        &[
            ("#authorization:", "authorization:"),
            ("/etc/prometheus/vecscale.token", &world.path("tokens/read").display().to_string()),
            ("alerting:", &NODE_EXPORTER.replace("ADDRESS", &node_exporter.address)),
        ],
    )
}

/// As it is shipped, but that it repeats itself within seconds, where database alerts are concerned.
fn alertmanager_config(world: &World) -> String {
    replaced(
        &shipped_alertmanager(world.url.trim_start_matches("http://"), &world.path("tokens/trigger")),
        &[("group_interval: 1m\n      repeat_interval: 1h", "group_interval: 2s\n      repeat_interval: 4s")],
    )
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

/// Real load, a shipped rule, the real webhook, from as many Alertmanagers.
async fn one_node_for_one_alert(alertmanagers: u32) {
    if !has("prometheus", "prometheus")
        || !has("prometheus-alertmanager", "prometheus-alertmanager")
        || !has("prometheus-node-exporter", "prometheus-node-exporter")
    {
        return;
    }
    let port = free_port();
    let mut world = world(&HOST_LOAD.replace("PORT", &port.to_string()));
    world.start().await;
    world.settled(3).await;
    Vectors::fill(&world, 400).await;
    let dir = world.dir.path().to_path_buf();
    let dir: &Path = &dir;
    write_rules(&world);
    let node_exporter = Server::node_exporter(dir).await;
    let mut senders = Vec::new();
    for number in 1..=alertmanagers {
        senders.push(Server::alertmanager(dir, &format!("alertmanager-{number}"), &alertmanager_config(&world)).await);
    }
    let config = prometheus_config(&world, &node_exporter, &senders);
    // What it finds firing before it knows where the Alertmanagers are is told a minute later otherwise.
    let resend = ["--rules.alert.resend-delay=5s".to_string()];
    let prometheus = Server::prometheus_at(port, dir, &config, &resend).await;

    let load = Searches::start(&world, Duration::from_millis(100)).await;
    let began = async |w: &World| operations(w).await.into_iter().next();
    let operation = world.until("an operation for the alert", WAIT, began).await;
    assert_eq!((&operation["kind"], &operation["trigger"]), (&"scale_up".into(), &"alert".into()), "{operation}");
    let because = operation["because"][0].as_str().unwrap_or_default();
    let expected = because.starts_with("alert over-line fires since 20") && because.contains("VectorDBSignalOverLine");
    assert!(expected, "{operation}");
    world.settled(4).await;

    // It goes on firing, and is repeated by everyone; besides it, each sends the watchdog, once in five minutes.
    let heard = f64::from(alertmanagers) * 5.0;
    let repeated =
        async |w: &World| (series(w, "vecscale_alerts_received_total{status=\"firing\"}").await >= heard).then_some(());
    world.until("repeated notifications", WAIT, repeated).await;
    more_checks(&world, 3).await;
    let status = world.status().await;
    let [over_line, .., watchdog] = status["alerts"].as_array().expect("a list").as_slice() else {
        panic!("{status}");
    };
    assert_eq!((&over_line["firing"], &watchdog["firing"]), (&1.into(), &1.into()), "{status}");
    let standing = over_line["episodes"][0]["standing"].as_str().unwrap_or_default();
    assert!(standing.starts_with("answered by decision"), "{status}");
    assert_eq!(status["metrics"]["readings"]["host_load"]["state"], "fresh", "{status}");
    assert_eq!(series(&world, "vecscale_alert_firing{alert=\"over-line\",pool=\"default\"}").await, 1.0);
    assert_eq!(series(&world, "vecscale_alerts_unmatched_total").await, 0.0, "every alert that comes has a meaning");
    promtool_has_nothing_to_say(&world.try_get("/metrics").await.expect("a page"));
    prometheus.until("the nodes are found with the token", r#"count(up{job="vectordb"} == 1) == 4"#).await;

    drop(load);
    let resolved = async |w: &World| (w.status().await["alerts"][0]["firing"] == 0).then_some(());
    world.until("the alert is resolved", WAIT, resolved).await;
    let all_said = async |w: &World| {
        (series(w, "vecscale_alerts_received_total{status=\"resolved\"}").await >= f64::from(alertmanagers))
            .then_some(())
    };
    world.until("everyone says so", WAIT, all_said).await;
    more_checks(&world, 3).await;

    assert_eq!(operations(&world).await.len(), 1, "no second operation\n{}", world.logs());
    world.settled(4).await;
    let rows = world.get("/autoscaling/history?kind=alert").await;
    let rows = rows["items"].as_array().expect("rows").iter();
    let told: Vec<(&Value, &str)> = rows.filter_map(|r| Some((&r["who"], r["summary"].as_str()?))).collect();
    let of_the_rule = told.iter().filter(|(_, what)| what.starts_with("over-line"));
    let of_the_rule: Vec<&str> = of_the_rule.map(|(_, what)| what.split(" (").next().unwrap_or_default()).collect();
    assert_eq!(of_the_rule, ["over-line resolved", "over-line firing"], "copies leave no row: {told:?}");
    assert!(told.iter().all(|(who, _)| **who == "token:alertmanager"), "{told:?}");
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
