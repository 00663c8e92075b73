//! Any tree and any text: taken whole or refused whole, and what is taken holds what it promises.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Words that lead deep into the walk.
const WORDS: [&str; 92] = [
    "autoscaling",
    "mode",
    "pools",
    "name",
    "region",
    "profile",
    "thresholds",
    "checks",
    "scale_up",
    "scale_down",
    "replace",
    "custom",
    "nodes",
    "scrape",
    "provider",
    "datastore",
    "manual_hold",
    "cpu_threshold_high",
    "cpu_threshold_low",
    "min_nodes",
    "max_nodes",
    "scale_up_cooldown",
    "health_check_interval",
    "max_vectors_per_node",
    "cpu_high",
    "low",
    "low_required",
    "enabled",
    "step",
    "max_step",
    "payback",
    "at_least",
    "when_idle",
    "rebalance",
    "hotspot",
    "uneven",
    "gain",
    "full",
    "after",
    "static",
    "id",
    "address",
    "zone",
    "path",
    "timeout",
    "preset",
    "format",
    "aggregate",
    "signals",
    "also",
    "port",
    "authorization",
    "credentials_file",
    "cpu_usage",
    "search_latency",
    "gauge",
    "counter",
    "histogram",
    "failed",
    "total",
    "part",
    "whole",
    "stat",
    "unit",
    "combine",
    "high",
    "type",
    "create",
    "destroy",
    "list",
    "victim",
    "env",
    "cpu_cores",
    "memory_limit",
    "default",
    "none",
    "vectornode",
    "http://h:1",
    "5m",
    "budget",
    "nodes_per_hour",
    "nodes_per_day",
    "bytes_per_day",
    "base",
    "http",
    "web",
    "tokens",
    "roles",
    "role",
    "read",
    "token_file",
    "token_sha256",
];

fn any_tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-10i64..2000).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |f| f.is_finite()).prop_map(Value::from),
        (0.0..1.0f64).prop_map(Value::from),
        prop::sample::select(WORDS.as_slice()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(WORDS.as_slice()), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_string(), v)).collect())),
        ]
    })
}

/// What everything behind the configuration relies on.
fn holds_what_it_promises(config: &Config) {
    assert!(!config.pools.is_empty());
    for (i, pool) in config.pools.iter().enumerate() {
        assert!(crate::model::is_name(&pool.name));
        assert!(config.pools[..i].iter().all(|p| p.name != pool.name));
        let policy = &pool.policy;
        assert_eq!(policy.thresholds.problems(), []);
        assert!((1..=100).contains(&policy.scale_up.max_step) && (1..=5).contains(&policy.checks.low_required));
        assert!(policy.scale_down.payback >= 0.0);
        assert!(policy.rebalance.uneven > 1.0 && policy.rebalance.gain > 0.0 && policy.rebalance.full <= 1.0);
        assert!(!pool.scrape.pages.is_empty() && pool.scrape.pages.iter().all(|p| p.path.starts_with('/')));
        assert!(pool.scrape.timeout.as_secs_f64() <= policy.thresholds.health_check_interval);
        for signal in &policy.signals {
            assert_eq!(pool.scrape.pages.iter().filter(|p| p.signals.contains_key(signal)).count(), 1);
        }
        for name in policy.custom.keys() {
            assert!(pool.scrape.pages[0].signals.contains_key(&Signal::Custom(name.clone())));
        }
        if let Some(nodes) = &pool.nodes {
            assert!(!nodes.is_empty() && nodes.windows(2).all(|pair| pair[0].id < pair[1].id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_taken_whole_or_refused_whole(tree in any_tree()) {
        if let Ok(config) = read(&tree.to_string()) {
            holds_what_it_promises(&config);
        }
    }

    #[test]
    fn any_parts_of_a_pool_are_taken_whole_or_refused_whole(
        parts in prop::collection::btree_map(prop::sample::select(&WORDS[5..17]), any_tree(), 0..3),
        lows in 0.0..1.0f64, highs in 0.0..1.0f64, min in 0u32..12, max in 0u32..12, interval in 0.0..20.0f64,
    ) {
        let mut pool = json!({
            "name": "default",
            "thresholds": {"cpu_threshold_low": lows, "cpu_threshold_high": highs, "min_nodes": min, "max_nodes": max,
                "health_check_interval": interval},
        });
        for (key, value) in parts {
            pool[key] = value;
        }
        if let Ok(config) = read(&json!({"pools": [pool]}).to_string()) {
            holds_what_it_promises(&config);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:{}\\[\\]&*!|>'\"#%@\\- \n\t0-9.,?]{0,200}") {
        let _ = read(&text);
    }
}
