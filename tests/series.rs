//! The page of a real vecscale holds every series that is promised: from the first answer on, once the pool was
//! observed, or while an operation runs.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{COLLECTION, EMBEDDED, Vectors, World, free_port, promtool_has_nothing_to_say, vector_of};
use serde_json::json;

/// Name without prefix, and the labels besides `pool`, with how many values each has at least where its set is closed.
type Series = (&'static str, &'static [(&'static str, usize)]);

/// There as soon as anything is answered; closed label sets are whole. (Paths: but for those with an `{id}`, whose lines the
/// reader does not understand.)
const FROM_THE_START: &[Series] = &[
    ("build_info", &[("version", 1), ("revision", 1)]),
    ("config_last_reload_successful", &[]),
    ("web_config_last_reload_successful", &[]),
    ("config_last_reload_success_timestamp_seconds", &[]),
    ("http_requests_total", &[("path", 22), ("code", 1)]),
    ("http_request_duration_seconds_bucket", &[("path", 22)]),
    ("journal_errors_total", &[]),
    ("nodes", &[("state", 5)]),
    ("desired_nodes", &[]),
    ("nodes_wanted", &[]),
    ("min_nodes", &[]),
    ("max_nodes", &[]),
    ("unexplained", &[("kind", 4)]),
    ("threshold", &[("signal", 6), ("bound", 2)]),
    ("guard_active", &[("guard", 26)]),
    ("cooldown_remaining_seconds", &[("direction", 2)]),
    ("mode", &[("mode", 3)]),
    ("needs_human", &[]),
    ("override_active", &[("name", 17)]),
    ("decisions_total", &[("decision", 5), ("trigger", 9), ("mode", 3)]),
    ("decisions_blocked_total", &[("guard", 26)]),
    ("operations_total", &[("kind", 7), ("outcome", 4)]),
    ("operation_running", &[("kind", 7), ("step", 16)]),
    ("operation_duration_seconds_bucket", &[("kind", 7)]),
    ("trigger_to_completion_seconds_bucket", &[("kind", 7)]),
    ("last_operation_timestamp_seconds", &[("kind", 7)]),
    ("reversals_total", &[]),
    ("shards_moved_total", &[]),
    ("bytes_moved_total", &[]),
    ("shard_moves_running", &[]),
    ("scrapes_total", &[("outcome", 5)]),
    ("evaluation_duration_seconds_bucket", &[]),
    ("evaluations_missed_total", &[]),
    ("alerts_received_total", &[("status", 2)]),
    ("alerts_unmatched_total", &[]),
    ("alerts_truncated_total", &[]),
    ("alerts_dropped_total", &[]),
    ("alerts_rejected_total", &[("reason", 8)]),
    ("alert_firing", &[("alert", 2)]),
    ("alertmanager_last_notification_timestamp_seconds", &[]),
    ("window_active", &[("window", 2)]),
    ("window_next_transition_timestamp_seconds", &[("window", 2)]),
    ("operation_blocked", &[]),
    ("stop_file", &[]),
];

/// There once the pool was observed under some load.
const ONCE_OBSERVED: &[Series] = &[
    ("node_up", &[("node", 3)]),
    ("node_healthy", &[("node", 3)]),
    ("node_cpu_usage_ratio", &[("node", 3)]),
    ("node_memory_usage_ratio", &[("node", 3)]),
    ("node_storage_usage_ratio", &[("node", 3)]),
    ("node_search_latency_seconds", &[("node", 3)]),
    ("node_queries_per_second", &[("node", 3)]),
    ("node_error_ratio", &[("node", 3)]),
    ("node_vectors", &[("node", 3)]),
    ("node_shards", &[("node", 3)]),
    ("node_bytes", &[("node", 3)]),
    ("node_load_ratio", &[("node", 3)]),
    ("node_scrape_duration_seconds", &[("node", 3)]),
    ("cpu_usage_ratio", &[]),
    ("memory_usage_ratio", &[]),
    ("storage_usage_ratio", &[]),
    ("search_latency_seconds", &[]),
    ("queries_per_second", &[]),
    ("error_ratio", &[]),
    ("vectors", &[]),
    ("avg_vectors_per_node", &[]),
    ("signal_fresh", &[("signal", 7)]),
    ("signal_value", &[("signal", 7)]),
    ("last_observation_timestamp_seconds", &[]),
    ("shard_replicas_missing", &[]),
    ("shards_sole_copy", &[]),
    ("condition_streak", &[("condition", 20)]),
    ("condition_streak_required", &[("condition", 20)]),
    ("condition_active", &[("condition", 20)]),
    ("last_decision_timestamp_seconds", &[]),
];

/// There while an operation runs: without one there is no such time.
const OPERATING: &[Series] = &[
    ("operation_started_timestamp_seconds", &[]),
    ("operation_last_progress_timestamp_seconds", &[]),
    ("operation_deadline_timestamp_seconds", &[]),
    ("operation_bytes", &[]),
    ("operation_bytes_remaining", &[]),
];

/// Series that belong to no pool.
const OF_THE_PROGRAM: [&str; 12] = [
    "build_info",
    "config_last_reload_successful",
    "web_config_last_reload_successful",
    "config_last_reload_success_timestamp_seconds",
    "http_requests_total",
    "http_request_duration_seconds_bucket",
    "journal_errors_total",
    "alerts_received_total",
    "alerts_unmatched_total",
    "alerts_truncated_total",
    "alerts_rejected_total",
    "alertmanager_last_notification_timestamp_seconds",
];

/// Under the pool: two entries for alerts and two windows, so that there are series of them. None of them changes anything.
const ALERTS_AND_WINDOWS: &str = "    alerts:
      - {name: watchdog, matchers: ['alertname=VecscaleWatchdog'], action: none}
      - {name: over-line, matchers: ['alertname=VectorDBSignalOverLine'], action: none}
    schedules:
      - {name: century, from: 2001-01-01T00:00, to: 2101-01-01T00:00, error_rate_threshold_high: 0.04}
      - {name: yearly, start: '0 0 1 1 *', duration: 1m, error_rate_threshold_high: 0.04}
";

/// What of the wanted series is not on the page as it should be.
fn lacking(page: &str, wanted: &[Series]) -> Vec<String> {
    let parsed = prometheus_parse::Scrape::parse(page.lines().map(|line| Ok(line.to_string()))).expect("a page");
    let mut values: BTreeMap<(String, String), std::collections::BTreeSet<String>> = BTreeMap::new();
    for sample in &parsed.samples {
        // The reader takes buckets together under the name of their histogram.
        let name = match sample.value {
            prometheus_parse::Value::Histogram(_) => format!("{}_bucket", sample.metric),
            _ => sample.metric.clone(),
        };
        let labels = sample.labels.iter().map(|(label, value)| (label.clone(), value.clone()));
        for (label, value) in labels.chain([(String::new(), String::new())]) {
            values.entry((name.clone(), label)).or_default().insert(value);
        }
    }
    let count = |name: &str, label: &str| {
        values.get(&(format!("vecscale_{name}"), label.to_string())).map_or(0, std::collections::BTreeSet::len)
    };
    let mut lacking = Vec::new();
    for (name, labels) in wanted {
        if count(name, "") == 0 {
            lacking.push(format!("{name}: not there"));
            continue;
        }
        if count(name, "pool") != usize::from(!OF_THE_PROGRAM.contains(name)) {
            lacking.push(format!("{name}: its pools are {}", count(name, "pool")));
        }
        for (label, least) in *labels {
            if count(name, label) < *least {
                lacking.push(format!("{name}: {} values of {label}, not {least}", count(name, label)));
            }
        }
    }
    lacking
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_series_of_the_documentation_is_on_the_page() {
    let lines = "cpu_threshold_high: 0.99, latency_threshold_high: 60000, max_nodes: 4";
    let mut world = World::new(&(EMBEDDED.replace("THRESHOLDS", lines) + ALERTS_AND_WINDOWS));
    let telemetry = format!("http://127.0.0.1:{}", free_port());
    world.args.push(format!("--web.telemetry-address={}", telemetry.trim_start_matches("http://")));
    world.start().await;
    let page = world.try_get("/metrics").await.expect("a page");
    assert_eq!(lacking(&page, FROM_THE_START), [""; 0], "{page}");
    let of_alerts = page.lines().filter(|line| line.starts_with("vecscale_alert"));
    assert_eq!(of_alerts.filter(|line| !line.ends_with(" 0")).collect::<Vec<_>>(), [""; 0], "no alert came yet");
    promtool_has_nothing_to_say(&page);

    let shown = async |wanted: &'static [Series], what: &str| {
        let whole = async |w: &World| {
            let page = w.try_get("/metrics").await?;
            lacking(&page, wanted).is_empty().then_some(page)
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(page) = whole(&world).await {
                return page;
            }
            if std::time::Instant::now() > deadline {
                let page = world.try_get("/metrics").await.unwrap_or_default();
                panic!("{what}: {:?}\n{page}\n{}", lacking(&page, wanted), world.logs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ready = async |w: &World| w.try_get("/-/ready").await;
    world.until("the first observation", Duration::from_secs(60), ready).await;
    let vectors = Vectors::fill(&world, 1000).await;
    let client = std::sync::Arc::new(vectors.client);
    let searching = tokio::spawn(async move {
        loop {
            // 20 requests a check make latency and errors known; a node that joins may refuse one.
            let vectors: Vec<_> = (0..10).map(|_| vector_of(fastrand::u64(..))).collect();
            let searches = vectors.iter().map(|vector| client.search(COLLECTION, vector, 5));
            let _ = futures::future::join_all(searches).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let page = shown(ONCE_OBSERVED, "once observed").await;
    promtool_has_nothing_to_say(&page);
    let settled = async |w: &World| {
        let (status, _) = w.post("/autoscaling/scale-up", Some(json!({"reason": "to see it"}))).await;
        (status == 202).then_some(())
    };
    world.until("a scale-up begins", Duration::from_secs(60), settled).await;
    let page = shown(OPERATING, "while an operation runs").await;
    promtool_has_nothing_to_say(&page);
    let ended = async |w: &World| {
        let page = w.try_get("/metrics").await?;
        let done = "vecscale_operations_total{kind=\"scale_up\",outcome=\"succeeded\",pool=\"default\"} 1";
        page.contains(done).then_some(page)
    };
    let page = world.until("it ends", Duration::from_secs(120), ended).await;
    assert_eq!(lacking(&page, FROM_THE_START), [""; 0], "{page}");
    assert!(!lacking(&page, OPERATING).is_empty(), "no operation runs any more\n{page}");
    searching.abort();

    // The read-only listener serves the same page, and the targets.
    let get = async |path: &str| common::http().get(format!("{telemetry}{path}")).send().await.expect("an answer");
    assert_eq!(lacking(&get("/metrics").await.text().await.expect("a page"), FROM_THE_START), [""; 0]);
    let targets = get("/autoscaling/targets").await;
    assert_eq!(targets.headers()["content-type"], "application/json");
    let targets: serde_json::Value = targets.json().await.expect("a list");
    let nodes = targets.as_array().expect("a list").iter().map(|g| &g["labels"]["node"]).collect::<Vec<_>>();
    assert_eq!(nodes, ["default-1", "default-2", "default-3", "default-4"], "{targets:#}");
    assert_eq!(targets[0]["labels"]["pool"], "default");
    assert_eq!(get("/autoscaling/status").await.status(), 404);
    assert_eq!(world.stop(), Some(0), "{}", world.logs());
}
