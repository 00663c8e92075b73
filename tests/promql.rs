//! Debian's Prometheus finds the nodes through vecscale and scrapes them; vecscale gets all its signals, and the nodes'
//! health, from it. Then the list of nodes in files.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::searches::Searches;
use common::servers::Server;
use common::tools::has;
use common::{Vectors, World, free_port};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(120);

/// The targets that Prometheus scrapes with success: node, pool and address, ordered.
async fn up(prometheus: &Server) -> Vec<String> {
    let told = prometheus.ask("/api/v1/targets", &[("state", "active".into())]).await.unwrap_or_default();
    let targets = told["activeTargets"].as_array().cloned().unwrap_or_default();
    let up = targets.iter().filter(|target| target["health"] == "up");
    let shown = up.map(|target| {
        let label = |name: &str| target["labels"][name].as_str().unwrap_or("?").to_string();
        format!("{} {} {}", label("node"), label("pool"), label("instance"))
    });
    let mut shown: Vec<String> = shown.collect();
    shown.sort();
    shown
}

/// Every signal is a query; lines are low, so that any machine crosses them. One query is wrong on purpose.
fn config(prometheus: u16) -> String {
    format!(
        r#"
autoscaling: {{mode: active}}
pools:
  - name: default
    thresholds:
      health_check_interval: 1
      min_nodes: 3
      max_nodes: 4
      cpu_threshold_high: 0.3
      cpu_threshold_low: 0.05
      latency_threshold_high: 60000
    scrape:
      preset: none
      prometheus: {{url: "http://127.0.0.1:{prometheus}", timeout: 900ms}}
      health: {{promql: 'up{{job="nodes"}}', node_label: node}}
      signals:
        cpu_usage: {{promql: 'vectornode_cpu_usage_ratio', node_label: instance}}
        memory_usage: {{promql: 'vectornode_memory_usage_ratio', node_label: node}}
        storage_usage: {{promql: 'vectornode_storage_usage_ratio', node_label: node}}
        query_throughput: {{promql: 'sum(rate(vectornode_searches_total[5s]))'}}
        search_latency: {{promql: 'sum(rate(vectornode_search_duration_seconds_sum[5s])) / sum(rate(vectornode_search_duration_seconds_count[5s]))', unit: seconds}}
        error_rate: {{promql: 'sum(rate(vectornode_requests_total{{code=~"5.."}}[5s])) / sum(rate(vectornode_requests_total[5s])) or vector(0)'}}
        vectors: {{promql: 'vectornode_vectors', node_label: node}}
    custom:
      wrong: {{promql: 'rate(vectornode_searches_total[5s'}}
      busiest: {{promql: 'max(vectornode_cpu_usage_ratio)'}}
    provider: {{type: process, nodes: 3, cpu_cores: 0.25, memory_limit: 64MiB, storage_limit: 256MiB, timeout: 60s}}
    datastore: {{type: vectornode}}
"#
    )
}

/// The targets come from vecscale itself.
fn scrape_config(url: &str) -> String {
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 900ms}}\nscrape_configs:\n  - job_name: nodes\n    http_sd_configs: \
         [{{url: '{url}/autoscaling/targets', refresh_interval: 1s}}]\n"
    )
}

fn reading<'a>(status: &'a Value, signal: &str) -> &'a Value {
    &status["metrics"]["readings"][signal]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_scaled_by_what_a_prometheus_server_says() {
    if !has("prometheus", "prometheus") {
        return;
    }
    let port = free_port();
    let mut world = World::new(&config(port));
    world.start().await;

    // No Prometheus yet: nothing is known, nothing is done, and the status says why.
    let blind = async |w: &World| {
        let status = w.status().await;
        let why = reading(&status, "cpu_usage")["why"].as_str()?.to_string();
        (status["nodes"].as_array()?.len() == 3).then_some((status, why))
    };
    let (status, why) = world.until("three nodes and no word of them", WAIT, blind).await;
    assert!(why.contains("Prometheus: no answer: "), "{why}");
    assert_eq!(reading(&status, "search_latency")["state"], "missing", "{status:#}");
    assert_eq!(status["metrics"]["healthy_nodes"], 0, "nobody said that they are well");
    let unknown = status["nodes"][0]["gaps"]["health"].as_str().expect("a reason");
    assert!(unknown.starts_with("Prometheus: no answer: "), "{unknown}");
    assert!(
        status["guards"].as_array().expect("a list").iter().any(|g| g["name"] == "partition_suspected"),
        "{status:#}"
    );

    let prometheus = Server::prometheus_at(port, world.dir.path(), &scrape_config(&world.url), &[]).await;
    Vectors::fill(&world, 2000).await;
    let known = async |w: &World| {
        let status = w.status().await;
        let fresh = ["cpu_usage", "memory_usage", "storage_usage", "query_throughput", "vectors", "busiest"];
        let fresh = fresh.iter().all(|signal| reading(&status, signal)["state"] == "fresh");
        (fresh && status["metrics"]["healthy_nodes"] == 3).then_some(status)
    };
    let status = world.until("every signal is told by Prometheus", WAIT, known).await;
    // No search yet: the mean over none is NaN, and the throughput says why.
    for of_requests in ["search_latency", "error_rate"] {
        assert_eq!(reading(&status, of_requests)["state"], "idle", "{status:#}");
    }
    let wrong = reading(&status, "wrong")["why"].as_str().expect("a reason");
    assert!(wrong.contains("Prometheus: bad_data: ") && wrong.contains("parse error"), "{wrong}");
    let nodes = status["nodes"].as_array().expect("a list").iter();
    let expected: Vec<String> = nodes
        .map(|n| {
            let address = n["address"].as_str().expect("an address").trim_start_matches("http://");
            format!("{} default {address}", n["id"].as_str().expect("an id"))
        })
        .collect();
    assert_eq!(up(&prometheus).await, expected, "what http_sd gave");

    let searches = Searches::start(&world, Duration::ZERO).await;
    let grown = async |w: &World| {
        let status = w.status().await;
        let all = status["metrics"]["healthy_nodes"] == 4 && status["operation"].is_null();
        all.then_some(status)
    };
    let status = world.until("a fourth node, healthy by the word of Prometheus", WAIT, grown).await;
    let last = &status["last_operation"];
    assert_eq!(
        (&last["kind"], &last["state"], &last["trigger"]),
        (&json!("scale_up"), &json!("succeeded"), &json!("threshold"))
    );
    let because = last["because"].to_string();
    assert!(because.contains("cpu_high"), "{because}");
    assert_eq!(up(&prometheus).await.len(), 4);
    world
        .until("latency in milliseconds", WAIT, async |w: &World| {
            let latency = reading(&w.status().await, "search_latency")["value"].as_f64()?;
            (0.01..60_000.0).contains(&latency).then_some(())
        })
        .await;

    // The server is gone: nothing is known any more, and the nodes are as well as they were.
    drop(prometheus);
    let gone = async |w: &World| {
        let status = w.status().await;
        (reading(&status, "cpu_usage")["state"] == "missing").then_some(status)
    };
    world.until("the signals are missing", WAIT, gone).await;
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let status = world.status().await;
        assert_eq!(status["metrics"]["healthy_nodes"], 4, "silence is no sign of ill health\n{status:#}");
        assert!(status["operation"].is_null(), "{status:#}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    drop(searches);
    let page = world.try_get("/metrics").await.expect("a page");
    assert!(page.contains("vecscale_signal_fresh{pool=\"default\",signal=\"cpu_usage\"} 0"), "{page}");
    assert!(!page.contains("\nvecscale_cpu_usage_ratio{"), "a signal that is missing has no sample");
    assert_eq!(world.stop(), Some(0), "{}", world.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_a_password_over_tls_gets_it() {
    if !has("prometheus", "prometheus") {
        return;
    }
    let port = free_port();
    let certificates = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let mut world = World::new(&format!(
        "pools:\n  - {{name: default, thresholds: {{health_check_interval: 1, min_nodes: 1}}, scrape: {{preset: none, prometheus: \
         {{url: 'https://localhost:{port}', basic_auth: {{username: me, password_file: password}}, \
         tls_config: {{ca_file: '{certificates}/ca.pem'}}}}, signals: {{query_throughput: {{promql: '1 + vector(41)'}}}}}}, \
         provider: {{type: none}}, datastore: {{type: none}}, nodes: {{static: [{{id: n, address: 'http://127.0.0.1:1'}}]}}}}"
    ));
    // The hash is that of "pass".
    let web = format!(
        "tls_server_config: {{cert_file: {certificates}/localhost.pem, key_file: {certificates}/localhost.key}}\n\
         basic_auth_users: {{me: $2b$05$abcdefghijklmnopqrstuuZFBUbfXoM8LFiPx8LYlO/sXZB/Cwk3K}}\n"
    );
    for (name, text) in [("web.yml", web.as_str()), ("password", "wrong\n")] {
        fs::write(world.path(name), text).expect("a file");
    }
    let arguments = [format!("--web.config.file={}", world.path("web.yml").display())];
    let _prometheus = Server::prometheus_at(port, world.dir.path(), "", &arguments).await;
    world.start().await;
    let reads = async |world: &World, key: &str, expected: Value| {
        let so = async |w: &World| (reading(&w.status().await, "query_throughput")[key] == expected).then_some(());
        world.until(&format!("{key} {expected}"), Duration::from_secs(60), so).await;
    };
    reads(&world, "why", json!("Prometheus: HTTP 401 Unauthorized")).await;
    fs::write(world.path("password"), "pass\n").expect("a file");
    reads(&world, "value", json!(42.0)).await;
    assert_eq!(world.stop(), Some(0), "{}", world.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_those_of_the_files() {
    let config = "pools:\n  - {name: default, thresholds: {health_check_interval: 1, min_nodes: 1}, provider: {type: none}, \
                  datastore: {type: none}, nodes: {file_sd: ['nodes/*.json', 'nodes/*.yml'], static: \
                  [{id: fixed, address: 'http://127.0.0.1:1'}]}}";
    let mut world = World::new(config);
    let folder = world.path("nodes");
    fs::create_dir(&folder).expect("a folder");
    let write = |name: &str, text: &str| {
        let beside = folder.join("new");
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, folder.join(name))).expect("a file");
    };
    write("a.json", r#"[{"targets": ["127.0.0.1:2"], "labels": {"node": "a", "zone": "z1"}}]"#);
    world.start().await;
    let are = async |world: &World, ids: &[&str], trouble: &str| {
        let what = format!("nodes {ids:?}, trouble {trouble:?}");
        let so = async |w: &World| {
            let status = w.status().await;
            let nodes: Vec<&str> = status["nodes"].as_array()?.iter().filter_map(|n| n["id"].as_str()).collect();
            let told =
                status["needs_human"].as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ");
            let told = if trouble.is_empty() { !told.contains("file_sd") } else { told.contains(trouble) };
            (nodes == ids && told).then_some(status)
        };
        world.until(&what, Duration::from_secs(30), so).await
    };
    let status = are(&world, &["a", "fixed"], "").await;
    assert_eq!(
        (&status["nodes"][0]["zone"], &status["nodes"][0]["address"]),
        (&json!("z1"), &json!("http://127.0.0.1:2"))
    );
    write("b.yml", "- targets: ['127.0.0.1:3', '127.0.0.1:4']\n  labels: {zone: z2}\n");
    are(&world, &["127.0.0.1-3", "127.0.0.1-4", "a", "fixed"], "").await;
    write("a.json", r#"[{"targets": ["127.0.0.1:2"], "la"#);
    are(&world, &["127.0.0.1-3", "127.0.0.1-4", "a", "fixed"], "a.json: EOF while parsing").await;
    write("a.json", r#"[{"targets": ["127.0.0.1:3"], "labels": {"node": "other"}}]"#);
    are(&world, &["127.0.0.1-3", "127.0.0.1-4", "a", "fixed"], "are both at http://127.0.0.1:3").await;
    write("a.json", "[]");
    are(&world, &["127.0.0.1-3", "127.0.0.1-4", "fixed"], "").await;

    // What is served for http_sd is a list in the same format.
    let served = world.try_get("/autoscaling/targets").await.expect("the targets");
    for name in ["b.yml", "a.json"] {
        fs::remove_file(folder.join(name)).expect("it was there");
    }
    are(&world, &["127.0.0.1-3", "127.0.0.1-4", "fixed"], "no file matches").await;
    let others: Vec<Value> = serde_json::from_str(&served).expect("a list");
    let others = others.into_iter().filter(|group| group["labels"]["node"] != "fixed").collect::<Vec<_>>();
    write("all.json", &json!(others).to_string());
    are(&world, &["127.0.0.1-3", "127.0.0.1-4", "fixed"], "").await;
    assert_eq!(world.stop(), Some(0), "{}", world.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_list_after_a_full_one_is_an_error_over_restarts_too() {
    let config = "pools:\n  - {name: default, thresholds: {health_check_interval: 1, min_nodes: 1}, provider: {type: none}, \
                  datastore: {type: none}, nodes: {file_sd: [nodes.json]}}";
    let mut world = World::new(config);
    fs::write(world.path("nodes.json"), r#"[{"targets": ["127.0.0.1:1"]}]"#).expect("a file");
    world.start().await;
    let nodes = async |world: &World, count: usize, told: bool| {
        let so = async |w: &World| {
            let status = w.status().await;
            let says = status["needs_human"].to_string().contains("it lists no node at all, though it did before");
            (status["nodes"].as_array()?.len() == count && says == told).then_some(())
        };
        world.until(&format!("{count} nodes"), Duration::from_secs(30), so).await;
    };
    nodes(&world, 1, false).await;
    fs::write(world.path("nodes.json"), "[]").expect("a file");
    nodes(&world, 1, true).await;
    world.kill();
    world.start().await;
    nodes(&world, 0, true).await;
    fs::write(world.path("nodes.json"), r#"[{"targets": ["127.0.0.1:1"]}]"#).expect("a file");
    nodes(&world, 1, false).await;
    assert_eq!(world.stop(), Some(0), "{}", world.logs());
}
