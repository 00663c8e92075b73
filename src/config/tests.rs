//! The whole way from text to configuration: the shipped file, defaults, every key, and what a reload takes.

mod alerts;
mod placement;
mod prometheus;
mod qdrant;
mod refusals;
mod schedules;
mod scripts;
mod unknown;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::decide::policy::{Budget, CustomLine, Rebalance, StepSize};
use crate::model::{ScalingThresholds, Signal, Stat};
use crate::operate::drivers::{HttpSettings, ProcessSettings, ScriptSettings, Victim};
use crate::scrape::settings::{Aggregate, Combine, Format, Source};

const SHIPPED: &str = include_str!("../../config.yaml");
const SMALLEST: &str = "pools: [{name: default}]";

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, "config.yaml", Path::new("."))
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("refused:\n{text}\n{error}"))
}

/// The first pool of a file with one pool that holds these keys besides its name.
fn pool(keys: &str) -> PoolConfig {
    good(&with(keys)).pools.remove(0)
}

fn with(keys: &str) -> String {
    let lines: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    format!("pools:\n  - name: default\n{lines}")
}

fn problems(text: &str) -> Vec<Problem> {
    match read(text) {
        Err(ConfigError::Problems { problems, .. }) => problems,
        other => panic!("problems were expected of\n{text}\n{other:?}"),
    }
}

/// `path: what` of the only problem, and its hint.
fn only_problem(keys: &str) -> (String, String) {
    let found = problems(&with(keys));
    assert_eq!(found.len(), 1, "{keys}: {found:#?}");
    (format!("{}: {}", found[0].path, found[0].what), found[0].hint.clone().unwrap_or_default())
}

fn executable(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, "#!/bin/sh\n").expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    path
}

/// Regular expressions have no equality; their printed form has.
fn same(a: &Config, b: &Config) {
    let named = |c: &Config| {
        let mut c = c.clone();
        c.pools.iter_mut().for_each(|p| p.threshold_names_from_file.clear());
        format!("{c:#?}")
    };
    assert_eq!(named(a), named(b));
}

#[test]
fn the_shipped_file_is_the_defaults() {
    let shipped = good(SHIPPED);
    same(&shipped, &good(SMALLEST));
    let pool = &shipped.pools[0];
    assert_eq!(shipped.mode, Mode::Observe);
    assert_eq!(pool.policy, Policy::of(Profile::Default));
    assert_eq!(pool.provider, ProviderSettings::Process(ProcessSettings::default()));
    assert_eq!(pool.datastore, DatastoreSettings::Vectornode);
    assert!(pool.nodes.is_none() && pool.threshold_names_from_file.is_empty());
}

#[test]
fn every_default_in_the_shipped_file_is_true_and_none_is_missing() {
    let uncommented: Vec<String> = SHIPPED
        .lines()
        .map(|line| match line.trim_start().strip_prefix('#') {
            Some(option) if option.starts_with(|c: char| c.is_ascii_lowercase()) => line.replacen('#', "", 1),
            _ => line.to_string(),
        })
        .collect();
    let text = uncommented.join("\n");
    let config = good(&text);
    same(&config, &good(SMALLEST));
    assert_eq!(config.pools[0].threshold_names_from_file, ScalingThresholds::names().collect::<Vec<_>>());
    for key in [
        "region",
        "profile",
        "low_required",
        "max_step",
        "when_idle",
        "at_least",
        "after_degraded",
        "hotspot",
        "uneven",
        "gain",
        "full",
        "manual_hold",
        "path",
        "format",
        "preset",
        "aggregate",
        "nodes",
        "cpu_cores",
        "memory_limit",
        "storage_limit",
        "type",
        "mode",
    ] {
        let shown = uncommented.iter().any(|l| l.trim_start().starts_with(&format!("{key}:")));
        assert!(shown, "{key} is not in the reference");
    }
}

#[test]
fn every_example_in_the_shipped_file_is_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let of_store = ["db-inventory", "db-move", "db-replicate", "db-cancel", "db-cordon", "db-uncordon", "db-forget"];
    let others =
        ["create-node", "destroy-node", "list-nodes", "lb-remove", "lb-add", "token", "qdrant-key", "ca.pem", "qdrant"];
    for script in others.into_iter().chain(of_store) {
        executable(dir.path(), script);
    }
    let here = dir.path().display().to_string();
    let mut examples: Vec<String> = vec![String::new()];
    for line in SHIPPED.lines() {
        match line.trim_start().strip_prefix("#     ") {
            Some(example) => examples.last_mut().expect("one").push_str(&format!("{example}\n")),
            None if examples.last().is_some_and(|e| !e.is_empty()) => examples.push(String::new()),
            None => {}
        }
    }
    examples.retain(|e| !e.is_empty());
    std::fs::write(dir.path().join("alertmanager-token"), "0123456789abcdef").expect("a token");
    assert_eq!(examples.len(), 16, "{examples:#?}");
    for example in examples {
        let example = example.replace("/etc/vecscale", &here).replace("/usr/bin", &here);
        match example.starts_with("web:") {
            true => drop(good(&format!("{SMALLEST}\n{example}"))),
            false => drop(pool(&example)),
        }
    }
}

#[test]
fn thresholds_of_the_file_stand_beside_those_of_the_profile() {
    let pool =
        pool("profile: production\nthresholds: {cpu_threshold_high: 0.9, scale_down_cooldown: 1h30m, max_nodes: 30}");
    let expected = ScalingThresholds {
        cpu_threshold_high: 0.9,
        scale_down_cooldown: 5400.0,
        max_nodes: 30,
        ..ScalingThresholds::of(Profile::Production)
    };
    assert_eq!(pool.policy.thresholds, expected);
    assert_eq!(pool.threshold_names_from_file, ["cpu_threshold_high", "max_nodes", "scale_down_cooldown"]);
    assert_eq!(pool.policy.scale_down.at_least, Duration::from_secs(1800));
}

#[test]
fn every_key_of_the_policy() {
    let policy = pool(
        "checks: {cpu_high: off, memory_high: false, storage_high: 7, latency_high: 1, error_rate_high: 4, hotspot: 9, low: off, low_required: 5}
scale_up: {enabled: false, step: proportional, max_step: 9}
scale_down: {enabled: false, payback: 2.5, at_least: 1h, when_idle: true}
replace: {enabled: false, after: 10m, after_degraded: 90}
rebalance: {enabled: false, uneven: 1.5, gain: 0.2, full: 0.9}
manual_hold: 2h
custom:
  queue_depth: {gauge: my_queue_depth, high: 100, low: 10, checks: 4}
  in_flight: {counter: my_calls_total, high: 5}
  shown_only: {gauge: x}",
    )
    .policy;
    let checks = policy.checks;
    assert_eq!((checks.cpu_high, checks.memory_high, checks.storage_high), (None, None, Some(7)));
    assert_eq!(
        (checks.latency_high, checks.error_rate_high, checks.hotspot, checks.low, checks.low_required),
        (Some(1), Some(4), Some(9), None, 5)
    );
    assert_eq!(
        (policy.scale_up.enabled, policy.scale_up.step, policy.scale_up.max_step),
        (false, StepSize::Proportional, 9)
    );
    let down = policy.scale_down;
    assert_eq!((down.enabled, down.payback, down.at_least.as_secs(), down.when_idle), (false, 2.5, 3600, true));
    let replace = policy.replace;
    assert_eq!((replace.enabled, replace.after.as_secs(), replace.after_degraded.as_secs()), (false, 600, 90));
    assert_eq!(policy.rebalance, Rebalance { enabled: false, uneven: 1.5, gain: 0.2, full: 0.9 });
    assert_eq!(policy.manual_hold.as_secs(), 7200);
    let custom: Vec<_> = policy.custom.iter().map(|(name, line)| (&**name, *line)).collect();
    let lines = [
        ("in_flight", CustomLine { high: 5.0, low: None, checks: 3 }),
        ("queue_depth", CustomLine { high: 100.0, low: Some(10.0), checks: 4 }),
    ];
    assert_eq!(custom, lines);
}

#[test]
fn signals_are_read_with_their_units() {
    let scrape = pool(
        "scrape:
  path: /stats?all=1
  timeout: 750ms
  preset: none
  aggregate: {memory_usage: max, storage_usage: p95}
  signals:
    cpu_usage: {gauge: my_cpu, unit: percent, combine: max}
    memory_usage: {part: free, whole: total, complement: true}
    query_throughput: {counter: 'searches_total{kind=\"x\"}'}
    error_rate: {failed: 'all_total{code=~\"5..\"}', total: all_total}
    search_latency: {histogram: took, stat: p95, unit: seconds}
custom: {queue: {gauge: q}}",
    );
    let policy_signals = scrape.policy.signals.clone();
    let scrape = scrape.scrape;
    assert_eq!(
        (scrape.pages.len(), scrape.pages[0].path.as_str(), scrape.timeout.as_millis()),
        (1, "/stats?all=1", 750)
    );
    assert_eq!(scrape.aggregate[&Signal::Cpu], Aggregate::Mean);
    assert_eq!(
        (scrape.aggregate[&Signal::Memory], scrape.aggregate[&Signal::Storage]),
        (Aggregate::Max, Aggregate::P95)
    );
    let source = |signal: Signal| &scrape.pages[0].signals[&signal];
    assert!(matches!(source(Signal::Cpu), Source::Gauge { combine: Some(Combine::Max), factor: 0.01, .. }));
    assert!(matches!(source(Signal::Memory), Source::Quotient { complement: true, .. }));
    assert!(
        matches!(source(Signal::Throughput), Source::Counter { series, factor: 1.0 } if series.matchers.len() == 1)
    );
    assert!(
        matches!(source(Signal::ErrorRate), Source::Ratio { failed, total } if total.name == "all_total" && failed.matchers.len() == 1)
    );
    assert!(matches!(source(Signal::Latency), Source::Histogram { stat: Stat::P95, factor: 1000.0, .. }));
    assert!(matches!(source(Signal::Custom("queue".into())), Source::Gauge { .. }));
    assert_eq!(
        policy_signals,
        [Signal::Cpu, Signal::Memory, Signal::Latency, Signal::ErrorRate, Signal::Throughput],
        "what is not configured is not missing"
    );
}

#[test]
fn pages_give_each_signal_once() {
    let pages = pool(
        "scrape:
  preset: qdrant
  also:
    - {port: 9100, preset: node_exporter}
    - {path: /stats.json, format: json, signals: {vectors: {gauge: /points, combine: sum}}}",
    )
    .scrape
    .pages;
    assert_eq!((pages[1].port, pages[1].path.as_str(), pages[1].format), (Some(9100), "/metrics", Format::Text));
    assert_eq!((pages[2].port, pages[2].format), (None, Format::Json));
    let holders = |signal: Signal| (0..3).filter(|i| pages[*i].signals.contains_key(&signal)).collect::<Vec<_>>();
    assert_eq!(holders(Signal::Vectors), [2], "an explicit entry wins over the preset");
    assert_eq!(holders(Signal::Cpu).len(), 1);
}

#[test]
fn the_preset_follows_the_datastore() {
    let none = "provider: {type: none}\ndatastore: {type: none}\nnodes: {static: [{id: a, address: 'http://h:1/'}]}";
    assert!(pool(none).policy.signals.is_empty());
    assert!(!pool("").policy.signals.is_empty());
    assert_eq!(pool("scrape: {preset: qdrant}").policy.thresholds.max_vectors_per_node, 0);
    let set = pool("scrape: {preset: qdrant}\nthresholds: {max_vectors_per_node: 5}");
    assert_eq!(set.policy.thresholds.max_vectors_per_node, 5);
}

#[test]
fn a_scrape_is_not_longer_than_a_check() {
    assert_eq!(pool("thresholds: {health_check_interval: 2}").scrape.timeout, Duration::from_secs(2));
    let (what, _) = only_problem("thresholds: {health_check_interval: 2}\nscrape: {timeout: 3s}");
    assert_eq!(what, "pools[0].scrape.timeout: 3 s is longer than health_check_interval (2 s)");
}

#[test]
fn static_nodes_are_ordered_and_plain() {
    let nodes = "provider: {type: none}\nnodes: {static: [{id: n2, address: 'http://h:2/'}, {id: n1, address: 'https://h:1', zone: a}]}";
    let nodes = pool(nodes).nodes.expect("a list");
    let plain: Vec<_> = nodes.iter().map(|m| (m.id.as_str(), m.address.as_str(), m.zone.as_deref())).collect();
    assert_eq!(plain, [("n1", "https://h:1", Some("a")), ("n2", "http://h:2", None)]);
}

#[test]
fn scripts_must_be_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = executable(dir.path(), "run").display().to_string();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "").expect("a file");
    let script = |create: &str| {
        format!(
            "datastore: {{type: none}}\nprovider: {{type: script, create: {create}, destroy: ['{program}'], list: ['{program}', '--all'], env: {{A: 1, B: two}}, victim: last}}"
        )
    };
    let ProviderSettings::Script(settings) = pool(&script(&format!("['{program}', x]"))).provider else {
        panic!("a script was expected")
    };
    let expected = ScriptSettings {
        create: vec![program.clone(), "x".into()],
        destroy: vec![program.clone()],
        list: vec![program.clone(), "--all".into()],
        timeout: Duration::from_secs(900),
        victim: Victim::Last,
        env: [("A".to_string(), "1".to_string()), ("B".into(), "two".into())].into(),
    };
    assert_eq!(settings, expected);
    let cases = [
        ("[run]".to_string(), "not an absolute path"),
        (format!("['{program}-gone']"), "No such file"),
        (format!("['{}']", dir.path().display()), "is not a file"),
        (format!("['{}']", plain.display()), "is not executable"),
        ("[]".into(), "a list of texts is needed"),
        (program.clone(), "a list of texts is needed"),
        ("[1]".into(), "a list of texts is needed"),
    ];
    for (create, says) in cases {
        let (what, _) = only_problem(&script(&create));
        assert!(what.starts_with("pools[0].provider.create: ") && what.contains(says), "{create}: {what}");
    }
}

#[test]
fn an_api_has_a_plain_address() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("token"), "t").expect("a file");
    let text = with(
        "datastore: {type: none}
provider: {type: http, base: 'https://machines.example:8443/v1/', timeout: 5m, victim: last, authorization: {credentials_file: token}}",
    );
    let ProviderSettings::Http(settings) = parse(&text, "c", dir.path()).expect("good").pools.remove(0).provider else {
        panic!("an API was expected")
    };
    let expected = HttpSettings {
        base: "https://machines.example:8443/v1/".parse().expect("an address"),
        timeout: Duration::from_secs(300),
        victim: Victim::Last,
        credentials_file: Some(dir.path().join("token")),
    };
    assert_eq!(settings, expected);
    let ProviderSettings::Http(plain) = pool("provider: {type: http, base: 'http://h:1'}").provider else {
        panic!("an API was expected")
    };
    assert_eq!((plain.timeout.as_secs(), plain.victim, plain.credentials_file), (900, Victim::Any, None));
    for base in
        ["h:1", "ftp://h", "http://", "http://u@h", "http://u:hunter2@h", "http://h?key=1", "http://h#x", "", "/v1"]
    {
        let (what, hint) = only_problem(&format!("provider: {{type: http, base: '{base}'}}"));
        assert_eq!(what, "pools[0].provider.base: is not the address of an API", "{base}");
        assert!(hint.starts_with("such as https://"), "{base}: {hint}");
    }
}

#[test]
fn a_budget_is_off_until_configured() {
    assert_eq!(pool("").policy.budget, Budget::default());
    assert_eq!(
        pool("budget: {}").policy.budget,
        Budget { nodes_per_hour: None, nodes_per_day: None, bytes_per_day: None }
    );
    let budget = pool("budget: {nodes_per_hour: 2, nodes_per_day: 6, bytes_per_day: 10GiB}").policy.budget;
    assert_eq!((budget.nodes_per_hour, budget.nodes_per_day, budget.bytes_per_day), (Some(2), Some(6), Some(10 << 30)));
    let changed = Config::differences(&good(SMALLEST), &good(&with("budget: {nodes_per_day: 6}")));
    assert!(changed[0].starts_with("pools[default].budget: "), "{changed:?}");
}

#[test]
fn credentials_lie_beside_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("token"), "t").expect("a file");
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, with("scrape: {authorization: {credentials_file: token}}")).expect("a file");
    let config = load(&file).unwrap_or_else(|e| panic!("{e}"));
    let authorization = config.pools[0].scrape.pages[0].authorization.clone().expect("one");
    assert_eq!(authorization.credentials_file, dir.path().join("token"));
}

#[test]
fn comments_may_be_long() {
    let comment = "      # one more line\n".repeat(2000);
    let provider = pool(&format!("provider:\n{comment}datastore:\n{comment}  type: vectornode\n{comment}")).provider;
    assert_eq!(provider, ProviderSettings::Process(ProcessSettings::default()));
}

#[test]
fn a_reload_tells_what_differs_and_what_it_cannot_take() {
    let old = good(SMALLEST);
    assert_eq!(Config::differences(&old, &old), Vec::<String>::new());
    let new = good(&with(
        "thresholds: {cpu_threshold_high: 0.8}\nscale_up: {max_step: 5}\nprovider: {nodes: 4}\nscrape: {path: /m}",
    ));
    insta::assert_snapshot!(Config::differences(&old, &new).join("\n"), @r"
    pools[default].thresholds.cpu_threshold_high: 0.75 -> 0.8
    pools[default].scale_up: ScaleUp { enabled: true, step: One, max_step: 3 } -> ScaleUp { enabled: true, step: One, max_step: 5 }
    pools[default].scrape: changed
    pools[default].provider: changed
    ");
    let told = |a, b| Config::refused_at_reload(a, b).iter().map(|p| p.path.clone()).collect::<Vec<_>>();
    assert_eq!(told(&old, &new), ["pools[default].provider"], "the provider was made at the start");
    let takes = good(&with("thresholds: {cpu_threshold_high: 0.8}\nscale_up: {max_step: 5}\nscrape: {path: /m}"));
    assert_eq!(told(&old, &takes), [] as [String; 0]);

    let other = good(
        "pools:\n  - {name: default, provider: {type: none}, datastore: {type: none}, nodes: {static: [{id: a, address: 'http://h:1'}]}}\n  - name: second",
    );
    let refused =
        |a, b| Config::refused_at_reload(a, b).iter().map(|p| format!("{}: {}", p.path, p.what)).collect::<Vec<_>>();
    assert_eq!(
        refused(&old, &other),
        [
            "pools: pool second is new",
            "pools[default].provider.type: cannot change from process to none while running",
            "pools[default].datastore.type: cannot change from vectornode to none while running",
            "pools[default].nodes: cannot change while running",
        ]
    );
    assert_eq!(refused(&other, &old)[0], "pools: pool second is gone");
}
