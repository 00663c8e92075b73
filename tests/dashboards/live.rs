//! The real program grows and shrinks a cluster while a real Prometheus scrapes it; then every query of every dashboard is
//! sent as Grafana would send it, and must have data. What queries and rules name must be on the program's own page.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::board::{Query, boards, text};
use crate::common::searches::Searches;
use crate::common::servers::Server;
use crate::common::tools::has;
use crate::common::{Vectors, World, http};
use crate::promql;
use crate::server;

const WAIT: Duration = Duration::from_secs(60);

/// Nothing scales by load, which differs from machine to machine; a signal of one's own, an entry for alerts and windows are
/// there to be shown.
const CONFIG: &str = "
autoscaling: {mode: active}
pools:
  - name: default
    thresholds: {health_check_interval: 1, min_nodes: 3, max_nodes: 6, scale_up_cooldown: 5m, scale_down_cooldown: 0}
    checks: {cpu_high: off, latency_high: off, low: off}
    custom:
      points: {gauge: vectornode_vectors, high: 1000000, low: 10, checks: 3}
    provider: {type: process, nodes: 3, cpu_cores: 0.5, memory_limit: 64MiB, storage_limit: 256MiB, timeout: 60s}
    datastore: {type: vectornode}
    alerts: [{name: busy-node, matchers: [alertname=VectorNodeCpuHigh], action: none}]
    schedules:
      - {name: century, from: 2001-01-01T00:00, to: 2101-01-01T00:00, error_rate_threshold_high: 0.06}
      - {name: yearly, start: '0 0 1 1 *', duration: 1m, error_rate_threshold_high: 0.06}
";

/// What Alertmanager sent once, and how it is answered: of an entry's alert, of none's and a list cut short, of no version.
const NOTIFICATIONS: [(&str, u16); 3] = [
    (include_str!("../fixtures/alertmanager/0.33.1-firing-grouped.json"), 200),
    (include_str!("../fixtures/alertmanager/0.33.1-truncated.json"), 200),
    (include_str!("../fixtures/alertmanager/0.33.1-templated-payload.json"), 400),
];

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

async fn set_min_nodes(world: &World, nodes: u64) {
    let answer = world.post("/autoscaling/thresholds", Some(json!({"min_nodes": nodes, "reason": "a test"}))).await;
    assert_eq!(answer.0, 200, "{answer:?}");
}

async fn notify(world: &World) {
    for (body, status) in NOTIFICATIONS {
        let request =
            http().post(format!("{}/webhooks/alertmanager", world.url)).header("content-type", "application/json");
        let answer = request.body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{body}\n{}", world.logs());
    }
}

/// Up because a person raised the minimum, held back from going further up, and down again. Gives the page as it was while
/// an operation ran: some series are there only then.
async fn story(world: &World, prometheus: &Server) -> String {
    world.settled(3).await;
    Vectors::fill(world, 600).await;
    let searches = Searches::start(world, Duration::from_millis(80)).await; // enough to judge latency and errors by
    world
        .until("searches enough to judge by", WAIT, async |w: &World| {
            let metrics = w.status().await["metrics"].clone();
            (metrics["search_latency"].is_number() && metrics["error_rate"].is_number()).then_some(())
        })
        .await;

    notify(world).await;
    for series in ["received", "unmatched", "truncated", "rejected"] {
        prometheus.until("the notifications are scraped", &format!("vecscale_alerts_{series}_total > 0")).await;
    }
    set_min_nodes(world, 4).await;
    let busy = world
        .until("a step with a deadline", WAIT, async |w: &World| {
            let page = w.try_get("/metrics").await?;
            page.contains("vecscale_operation_deadline_timestamp_seconds{").then_some(page)
        })
        .await;
    world.settled(4).await;
    set_min_nodes(world, 5).await;
    world
        .until("a scale-up held by its cooldown", WAIT, async |w: &World| {
            let decision = w.status().await["decision"].clone();
            let held = decision["guards"].as_array()?.iter().any(|g| g["name"] == "cooldown");
            (decision["decision"] == "hold" && held).then_some(())
        })
        .await;
    prometheus.until("the override is scraped", r#"vecscale_override_active{name="min_nodes"} == 1"#).await;
    let answer = http().delete(format!("{}/autoscaling/thresholds?name=min_nodes", world.url)).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);

    let answer = world.post("/autoscaling/scale-down", Some(json!({"reason": "a test"}))).await;
    assert_eq!(answer.0, 202, "{answer:?}");
    world.settled(3).await;
    let over = r#"vecscale_operations_total{kind="scale_down", outcome="succeeded"} == 1"#;
    prometheus.until("the end of the scale-down is scraped", over).await;
    drop(searches);
    busy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_has_data_from_a_real_prometheus() {
    if !has("prometheus", "prometheus") {
        return;
    }
    let began = now();
    let mut world = World::new(CONFIG);
    world.start().await;
    let prometheus = server::prometheus(world.dir.path(), world.url.trim_start_matches("http://")).await;
    let busy = story(&world, &prometheus).await;
    let seen = (began.floor(), now().ceil());
    let calm = world.try_get("/metrics").await.expect("the page");

    let mut wrong = names_exist(&Page::read(&[busy, calm].concat()));
    wrong.extend(have_data(&prometheus, seen).await);
    wrong.extend(rules_are_well(&prometheus).await);
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), world.logs());

    let nodes = prometheus.instant(r#"up{job="vectordb", pool="default", node!=""}"#).await;
    assert!(nodes.len() >= 3, "the nodes over http_sd: {nodes:?}");
}

/// Sends every query as Grafana would: with what the variables offer, and windows of a second's scrapes.
async fn have_data(prometheus: &Server, seen: (f64, f64)) -> Vec<String> {
    let mut wrong = Vec::new();
    for board in boards() {
        let mut values: Vec<(String, String)> = Vec::new();
        for variable in &board.variables()[1..] {
            let name = text(variable, "/name");
            let asked = substituted(text(variable, "/query/query"), &values, seen);
            let offered = offered(prometheus, &asked).await;
            if offered.is_empty() {
                wrong.push(format!("{}: variable {name} offers nothing: {asked}", board.name));
            }
            values.push((name.into(), format!("({})", offered.join("|"))));
        }
        for Query { place, expr } in board.queries() {
            let sent = substituted(&expr, &values, seen);
            match server::range(prometheus, &sent, seen).await {
                Err(why) => wrong.push(format!("{place}: {why}\n    {sent}")),
                Ok(series) => {
                    let all: Vec<f64> = series.into_iter().flatten().collect();
                    if !all.iter().any(|v| v.is_finite()) {
                        wrong.push(format!("{place}: no data\n    {sent}"));
                    }
                    if all.iter().any(|v| !v.is_finite()) {
                        wrong.push(format!("{place}: divides by zero\n    {sent}"));
                    }
                }
            }
        }
    }
    wrong
}

/// The values of a query of the form `label_values(selector, label)`.
async fn offered(prometheus: &Server, query: &str) -> Vec<String> {
    let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let Some((selector, label)) = inside.and_then(|inside| inside.rsplit_once(", ")) else { return Vec::new() };
    server::label_values(prometheus, selector, label).await
}

/// Grafana's own variables as it sets them for a second's steps over a source that is scraped once a second.
fn substituted(expr: &str, values: &[(String, String)], (start, end): (f64, f64)) -> String {
    let range = (end - start) as u64;
    let own = [("__rate_interval", "4s".into()), ("__range_s", range.to_string()), ("__range", format!("{range}s"))];
    let own = own.into_iter().map(|(name, value)| (name.to_string(), value));
    own.chain(values.iter().cloned()).fold(expr.to_string(), |e, (name, value)| e.replace(&format!("${name}"), &value))
}

async fn rules_are_well(prometheus: &Server) -> Vec<String> {
    let rules = server::rules(prometheus).await;
    assert!(rules.len() > 20, "{} rules", rules.len());
    let ill = rules.iter().filter(|rule| rule["health"] != "ok");
    ill.map(|rule| format!("rule {}: {} {}", rule["name"], rule["health"], rule["lastError"])).collect()
}

/// The program's page: of each series whether it counts, and the values of its labels.
struct Page(BTreeMap<String, Family>);

#[derive(Default)]
struct Family {
    counts: bool,
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Page {
    fn read(page: &str) -> Page {
        let kinds: BTreeMap<&str, &str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let counts = kinds.get(name).is_none_or(|kind| *kind == "counter"); // a histogram's parts count too
            let family = families.entry(name.into()).or_default();
            family.counts = counts;
            for (label, value) in promql::selectors(line).into_iter().flat_map(|s| s.matchers) {
                family.labels.entry(label).or_default().insert(value);
            }
        }
        Page(families)
    }
}

/// Labels that Prometheus adds.
const TARGET: [&str; 2] = ["job", "instance"];

/// What queries and rules name must be on the page: series, labels and values; counters under a rate, gauges not.
fn names_exist(page: &Page) -> Vec<String> {
    let mut wrong = Vec::new();
    let of_boards = boards().iter().flat_map(|board| board.queries()).collect::<Vec<_>>();
    for query in &of_boards {
        let found = promql::selectors(&query.expr);
        wrong.extend(found.iter().flat_map(|s| known(page, s)).map(|what| format!("{}: {what}", query.place)));
        wrong.extend(found.iter().flat_map(|s| filtered(page, s)).map(|what| format!("{}: {what}", query.place)));
    }
    for query in of_boards.into_iter().chain(rules()) {
        let place = &query.place;
        let found = promql::selectors(&query.expr);
        let labels: BTreeSet<&str> = found
            .iter()
            .filter_map(|s| page.0.get(&s.name))
            .flat_map(|f| f.labels.keys().map(String::as_str))
            .collect();
        for label in promql::grouping(&query.expr) {
            if !labels.contains(label.as_str()) && !TARGET.contains(&label.as_str()) {
                wrong.push(format!("{place}: joins or groups by {label}, which nothing in it has"));
            }
        }
        let counted = promql::counted(&query.expr);
        for selector in &found {
            let Some(family) = page.0.get(&selector.name) else {
                wrong.push(format!("{place}: {} is not on the page", selector.name));
                continue;
            };
            let (times, under_rate) = (
                found.iter().filter(|s| s.name == selector.name).count(),
                counted.iter().filter(|name| **name == selector.name).count(),
            );
            if family.counts && under_rate < times {
                wrong.push(format!("{place}: the counter {} without rate or increase", selector.name));
            }
            if !family.counts && under_rate > 0 {
                wrong.push(format!("{place}: a rate of the gauge {}", selector.name));
            }
        }
    }
    wrong
}

/// Labels and plain values that a selector asks for and the series never has.
fn known(page: &Page, selector: &promql::Selector) -> Vec<String> {
    let Some(family) = page.0.get(&selector.name) else { return Vec::new() };
    let strange = |(label, value): &&(String, String)| {
        let plain = !value.contains(['$', '|', '.', '*']);
        match family.labels.get(label) {
            Some(values) => plain && !values.contains(value),
            None => !TARGET.contains(&label.as_str()),
        }
    };
    let asked = selector.matchers.iter().filter(strange);
    asked.map(|(label, value)| format!("{} has no {label}=\"{value}\"", selector.name)).collect()
}

/// Every selector follows the variables: job, instance, and the pool where there is one.
fn filtered(page: &Page, selector: &promql::Selector) -> Vec<String> {
    let pooled = page.0.get(&selector.name).is_some_and(|f| f.labels.contains_key("pool"));
    let needed = TARGET.into_iter().chain(pooled.then_some("pool"));
    let missing = needed
        .filter(|label| !selector.matchers.iter().any(|(name, value)| name == label && *value == format!("${label}")));
    missing.map(|label| format!("{} does not follow ${label}", selector.name)).collect()
}

/// The expressions of the shipped rules.
fn rules() -> Vec<Query> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
    let mut queries = Vec::new();
    for file in ["scaler", "database"] {
        let written = std::fs::read_to_string(folder.join(format!("{file}.yml"))).expect("a readable file");
        let groups: serde_json::Value = serde_yaml::from_str(&written).expect("YAML");
        for rule in groups["groups"].as_array().into_iter().flatten().flat_map(|g| g["rules"].as_array()).flatten() {
            let name = rule.get("alert").or(rule.get("record")).and_then(|n| n.as_str()).unwrap_or_default();
            queries.push(Query { place: format!("rule {name}"), expr: text(rule, "/expr").into() });
        }
    }
    queries
}
