//! A pool of Qdrant nodes.

use super::*;
use crate::operate::drivers::QdrantSettings;
use crate::scrape::settings::Authorization;

const NODES: &str = "provider: {type: none}\nnodes: {static: [{id: a, address: 'http://h:6333'}]}";

/// Which page, by its place, gives each signal.
fn holders(pool: &PoolConfig) -> Vec<(&str, usize)> {
    let pages = pool.scrape.pages.iter().enumerate();
    let mut all: Vec<_> = pages.flat_map(|(i, page)| page.signals.keys().map(move |s| (s.name(), i))).collect();
    all.sort();
    all
}

#[test]
fn a_qdrant_pool_needs_nothing_but_its_nodes() {
    let pool = pool(&format!("{NODES}\ndatastore: {{type: qdrant}}"));
    assert_eq!(pool.datastore, DatastoreSettings::Qdrant(QdrantSettings::default()));
    let paths: Vec<(&str, Format)> = pool.scrape.pages.iter().map(|p| (p.path.as_str(), p.format)).collect();
    let expected =
        [("/metrics", Format::Text), ("/telemetry?details_level=1", Format::Json), ("/quotas", Format::Json)];
    assert_eq!(paths, expected);
    let own = ["error_rate", "query_throughput", "search_latency", "vectors"].map(|name| (name, 0));
    let mut all = [&own[..], &[("cpu_usage", 1), ("memory_usage", 1), ("storage_usage", 2)]].concat();
    all.sort();
    assert_eq!(holders(&pool), all);
    assert_eq!(pool.policy.thresholds.max_vectors_per_node, 0);
}

#[test]
fn the_key_and_the_authorities_serve_the_pages_too() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["key", "ca.pem", "scrape"] {
        std::fs::write(dir.path().join(name), "x").expect("a file");
    }
    let place = |name: &str| dir.path().join(name).display().to_string();
    let datastore = format!(
        "datastore: {{type: qdrant, api_key_file: {}, tls_config: {{ca_file: {}}}}}",
        place("key"),
        place("ca.pem")
    );
    let with_key = pool(&format!("{NODES}\n{datastore}"));
    let key = Some(Authorization { credentials_file: dir.path().join("key") });
    assert!(with_key.scrape.pages.iter().all(|page| page.authorization == key));
    assert_eq!(with_key.scrape.ca_file, Some(dir.path().join("ca.pem")));
    // Pages may have a key of their own; a page of another program never gets the database's.
    let scrape = format!(
        "scrape: {{authorization: {{credentials_file: {}}}, also: [{{port: 9100, preset: node_exporter}}]}}",
        place("scrape")
    );
    let own = pool(&format!("{NODES}\n{datastore}\n{scrape}"));
    let key = Some(Authorization { credentials_file: dir.path().join("scrape") });
    assert_eq!((own.scrape.pages.len(), &own.scrape.pages[0].authorization), (2, &key));
    assert_eq!(own.scrape.pages[1].authorization, None);
}

#[test]
fn what_else_is_configured_comes_before_the_further_pages() {
    let store = format!("{NODES}\ndatastore: {{type: qdrant}}\n");
    let paths = |scrape: &str| {
        let pool = pool(&format!("{store}{scrape}"));
        pool.scrape.pages.iter().map(|p| p.path.clone()).collect::<Vec<_>>()
    };
    let [metrics, telemetry, quotas] = ["/metrics", "/telemetry?details_level=1", "/quotas"];
    for (scrape, expected) in [
        ("scrape: {also: [{port: 9100, preset: node_exporter}]}", vec![metrics, metrics]),
        ("scrape: {signals: {storage_usage: none}}", vec![metrics, telemetry]),
        ("scrape: {signals: {cpu_usage: none, memory_usage: none}}", vec![metrics, quotas]),
        ("scrape: {signals: {storage_usage: {gauge: my_disk_ratio}}}", vec![metrics, telemetry]),
        ("scrape: {preset: none}", vec![metrics]),
    ] {
        assert_eq!(paths(scrape), expected, "{scrape}");
    }
    let without = pool(&format!("{store}scrape: {{signals: {{memory_usage: none}}}}"));
    assert!(!without.policy.signals.contains(&Signal::Memory), "what is not watched is not missing");
    let queried = "scrape: {prometheus: {url: 'http://p:9090'}, signals: {cpu_usage: {promql: up}}}";
    let queried = pool(&format!("{store}{queried}"));
    assert!(!holders(&queried).contains(&("cpu_usage", 1)), "a query comes before them too");
}

#[test]
fn mistakes_are_told() {
    for (datastore, problem, hint) in [
        ("{type: qdrant, api_key: hunter2}", "pools[0].datastore.api_key: has no meaning here", "api_key_file"),
        ("{type: qdrant, api_key_file: /absent}", "pools[0].datastore.api_key_file: /absent: No such file", "must be"),
        (
            "{type: qdrant, tls_config: {ca_file: /absent}}",
            "pools[0].datastore.tls_config.ca_file: /absent: No such file",
            "must be",
        ),
        ("{type: qdrant, ca_file: x}", "pools[0].datastore.ca_file: is not known", ""),
        ("{type: qdrant, inventory: [x]}", "pools[0].datastore.inventory: has no meaning here", "`type: script`"),
    ] {
        let (found, told) = only_problem(&format!("{NODES}\ndatastore: {datastore}"));
        assert!(found.starts_with(problem) && told.contains(hint), "{datastore}: {found} / {told}");
        assert!(!found.contains("hunter2") && !told.contains("hunter2"));
    }
}
