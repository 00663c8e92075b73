//! The whole way from text to configuration: defaults, every key, every refusal, and hostile input.

mod alerts;
mod placement;
mod prometheus;
mod qdrant;
mod schedules;
mod scripts;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

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
fn ten_faults_are_all_listed() {
    let text = "
autoscaling: {mode: stopped}
pools:
  - name: default
    profil: production
    thresholds: {cpu_threshold_low: 0.8, max_nodes: 2, memory_threshold_high: 1.5, scale_up_cooldown: 5 minutes}
    checks: {cpu_high: 0}
    scale_down: {when_idle: maybe}
    forecast: {}
    provider: {type: process, nodes: 0}
";
    let error = read(text).expect_err("ten faults");
    insta::assert_snapshot!(error.to_string(), @r#"
    config.yaml: 10 problems
      autoscaling.mode: "stopped" is not known
          hint: one of: observe, active
      pools[0].provider.nodes: 0 is not allowed
          hint: allowed: 1 to 100
      pools[0].thresholds.memory_threshold_high: 1.5 is not allowed
          hint: a share between 0 and 1, such as 0.75
      pools[0].thresholds.scale_up_cooldown: "5 minutes" where a duration is needed
          hint: seconds, or such as 5m, 1h30m, 500ms; allowed: 0 s to 31536000 s
      pools[0].thresholds.cpu_threshold_low: 0.8 is not below cpu_threshold_high (0.75)
          hint: leave a gap, or the cluster will grow and shrink in turns
      pools[0].thresholds.max_nodes: 2 is below min_nodes (3)
          hint: raise max_nodes or lower min_nodes
      pools[0].checks.cpu_high: a number of checks in a row is needed
          hint: a whole number from 1 to 1000, or off
      pools[0].scale_down.when_idle: "maybe" where true or false is needed
      pools[0].forecast: is not available in this version
          hint: leave it out
      pools[0].profil: is not known
          hint: did you mean profile?
    "#);
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

/// Keys of one pool, the problem, and the hint (or its beginning).
#[test]
fn what_is_wrong_is_said_with_its_place() {
    let cases = [
        ("treshold: {}", "pools[0].treshold: is not known", "did you mean thresholds?"),
        ("thresholds: {cpu_high: 0.5}", "pools[0].thresholds.cpu_high: is not known", "known: "),
        ("thresholds: {min_node: 5}", "pools[0].thresholds.min_node: is not known", "did you mean min_nodes?"),
        ("thresholds: 5", "pools[0].thresholds: a number where a mapping of keys is needed", ""),
        ("thresholds: {min_nodes: }", "pools[0].thresholds.min_nodes: has no value", "leave the key out"),
        (
            "thresholds: {min_nodes: three}",
            "pools[0].thresholds.min_nodes: \"three\" where a number is needed",
            "allowed",
        ),
        ("thresholds: {min_nodes: 2.5}", "pools[0].thresholds.min_nodes: 2.5 is not allowed", "a whole number from 1"),
        ("thresholds: {min_nodes: -1}", "pools[0].thresholds.min_nodes: -1 is not allowed", "a whole number from 1"),
        ("thresholds: {max_nodes: 2}", "pools[0].thresholds.max_nodes: 2 is below min_nodes (3)", "raise"),
        (
            "thresholds: {cpu_threshold_low: 0.8}",
            "pools[0].thresholds.cpu_threshold_low: 0.8 is not below cpu_threshold_high (0.75)",
            "leave a gap",
        ),
        (
            "thresholds: {health_check_interval: 10ms}",
            "pools[0].thresholds.health_check_interval: 0.01 is not allowed",
            "seconds, at least 1",
        ),
        (
            "thresholds: {scale_up_cooldown: soon}",
            "pools[0].thresholds.scale_up_cooldown: \"soon\" where a duration is needed",
            "seconds, or such as 5m",
        ),
        (
            "thresholds: {scale_up_cooldown: -5}",
            "pools[0].thresholds.scale_up_cooldown: -5 where a duration is needed",
            "seconds, or",
        ),
        ("checks: {low: 1001}", "pools[0].checks.low: a number of checks in a row is needed", "a whole number"),
        ("checks: {low_required: 6}", "pools[0].checks.low_required: 6 is not allowed", "allowed: 1 to 5"),
        ("scale_up: {target: 0.5}", "pools[0].scale_up.target: is not available in this version", "leave it out"),
        ("scale_up: {enabled: yes}", "pools[0].scale_up.enabled: \"yes\" where true or false is needed", ""),
        ("budget: {nodes_per_hour: 0}", "pools[0].budget.nodes_per_hour: 0 is not allowed", "allowed: 1 to 1000"),
        ("budget: {nodes_per_week: 9}", "pools[0].budget.nodes_per_week: is not known", "did you mean nodes_per_"),
        (
            "budget: {nodes_per_hour: 4, nodes_per_day: 3}",
            "pools[0].budget.nodes_per_day: 3 is below nodes_per_hour (4)",
            "leave one of them out",
        ),
        (
            "budget: {bytes_per_day: many}",
            "pools[0].budget.bytes_per_day: \"many\" where a size is needed",
            "bytes, or such as 256MiB",
        ),
        ("mode: active", "pools[0].mode: has no meaning here", "it stands under `autoscaling`"),
        ("min_nodes: 5", "pools[0].min_nodes: has no meaning here", "bounds stand under `thresholds`"),
        ("region: ''", "pools[0].region: is not a name", "letters"),
        ("profile: huge", "pools[0].profile: \"huge\" is not known", "one of: default, development, production"),
        (
            "provider: {type: kubernetes}",
            "pools[0].provider.type: kubernetes is not available in this version",
            "one of: process",
        ),
        ("provider: {type: proces}", "pools[0].provider.type: \"proces\" is not known", "did you mean process?"),
        ("provider: {create: [x]}", "pools[0].provider.create: has no meaning here", "it belongs to `type: script`"),
        ("provider: {base: x}", "pools[0].provider.base: has no meaning here", "it belongs to `type: http`"),
        (
            "provider: {victim: last}",
            "pools[0].provider.victim: has no meaning here",
            "it belongs to `type: script` and `type: http`",
        ),
        ("provider: {type: http}", "pools[0].provider.base: is missing", "such as `base: https://"),
        (
            "provider: {type: http, base: 'http://h:1', create: [x]}",
            "pools[0].provider.create: has no meaning here",
            "it belongs to `type: script`",
        ),
        (
            "provider: {type: http, base: 'http://h:1', nodes: 3}",
            "pools[0].provider.nodes: has no meaning here",
            "it belongs to `type: process`",
        ),
        (
            "provider: {type: http, base: 'http://h:1', bse: 3}",
            "pools[0].provider.bse: is not known",
            "did you mean base?",
        ),
        (
            "provider: {type: http, base: 'http://h:1', authorization: {}}",
            "pools[0].provider.authorization.credentials_file: is missing",
            "a file whose",
        ),
        (
            "provider: {type: http, base: 'http://h:1', victim: first}",
            "pools[0].provider.victim: \"first\" is not known",
            "one of: any, last",
        ),
        (
            "provider: {memory_limit: 1KiB}",
            "pools[0].provider.memory_limit: \"1KiB\" where a size is needed",
            "bytes, or",
        ),
        (
            "datastore: {api_key_file: x}",
            "pools[0].datastore.api_key_file: has no meaning here",
            "it belongs to `type: qdrant`",
        ),
        ("datastore: {type: none}", "pools[0].datastore.type: provider process runs vector nodes", "set `datastore"),
        ("provider: {type: none}", "pools[0].nodes: is missing", "with provider none, list the nodes"),
        (
            "nodes: {static: [{id: a, address: 'http://h:1'}]}",
            "pools[0].nodes.static: provider process knows its own nodes",
            "leave",
        ),
        ("nodes: {http_sd: [x]}", "pools[0].nodes.http_sd: is not available in this version", "leave it out"),
        ("scrape: {path: metrics}", "pools[0].scrape.path: is not the path of a page", "such as /metrics"),
        ("scrape: {preset: milvus}", "pools[0].scrape.preset: \"milvus\" is not known", "one of: vectornode"),
        ("scrape: {format: json, preset: qdrant}", "pools[0].scrape.preset: qdrant is for text pages", "leave"),
        ("scrape: {port: 5}", "pools[0].scrape.port: has no meaning here", "it belongs to `also`"),
        ("scrape: {also: [{}]}", "pools[0].scrape.also[0]: names neither port nor path", "give"),
        (
            "scrape: {also: [{port: 70000}]}",
            "pools[0].scrape.also[0].port: 70000 is not allowed",
            "allowed: 1 to 65535",
        ),
        ("scrape: {authorization: {}}", "pools[0].scrape.authorization.credentials_file: is missing", "a file whose"),
        (
            "scrape: {authorization: {credentials_file: /nowhere}}",
            "pools[0].scrape.authorization.credentials_file: /nowhere: No such file",
            "a file",
        ),
        ("scrape: {signals: {cpu: {gauge: x}}}", "pools[0].scrape.signals.cpu: is not known", ""),
        (
            "scrape: {signals: {total_vectors: {gauge: x}}}",
            "pools[0].scrape.signals.total_vectors: has no meaning here",
            "the signal is called vectors",
        ),
        (
            "scrape: {signals: {cpu_usage: {}}}",
            "pools[0].scrape.signals.cpu_usage: says not where it comes from",
            "exactly one of",
        ),
        (
            "scrape: {signals: {cpu_usage: {gauge: a, counter: b}}}",
            "pools[0].scrape.signals.cpu_usage: has gauge and counter",
            "exactly one of",
        ),
        ("scrape: {signals: {cpu_usage: {gauge: 'a b'}}}", "pools[0].scrape.signals.cpu_usage.gauge: ", ""),
        (
            "scrape: {signals: {cpu_usage: {gauge: a, stat: mean}}}",
            "pools[0].scrape.signals.cpu_usage.stat: is not known",
            "",
        ),
        (
            "scrape: {signals: {error_rate: {failed: a}}}",
            "pools[0].scrape.signals.error_rate.total: is missing",
            "the counter of all",
        ),
        (
            "scrape: {signals: {search_latency: {gauge: a}}}",
            "pools[0].scrape.signals.search_latency.unit: is missing",
            "seconds, milliseconds",
        ),
        (
            "scrape: {signals: {search_latency: {histogram: a, unit: s}}}",
            "pools[0].scrape.signals.search_latency.unit: \"s\" is not known",
            "",
        ),
        (
            "scrape: {format: json, signals: {vectors: {gauge: points}}}",
            "pools[0].scrape.signals.vectors.gauge: a JSON pointer starts with '/'",
            "",
        ),
        (
            "scrape: {format: json, signals: {vectors: {histogram: /p}}}",
            "pools[0].scrape.signals.vectors.histogram: a JSON page has no histograms",
            "",
        ),
        (
            "scrape: {signals: {vectors: {promql: x, gauge: y}}}",
            "pools[0].scrape.signals.vectors: has gauge and promql",
            "exactly one of",
        ),
        (
            "scrape: {signals: {vectors: {gauge: y}}, also: [{port: 1, signals: {vectors: {gauge: y}}}]}",
            "pools[0].scrape.also[0].signals.vectors: is given at pools[0].scrape.signals too",
            "",
        ),
        ("custom: {cpu: {gauge: x}}", "pools[0].custom.cpu: is the name of a built-in signal", "choose another name"),
        ("custom: {'a b': {gauge: x}}", "pools[0].custom.a b: is not a name", "letters"),
        ("custom: {q: {gauge: x, low: 1}}", "pools[0].custom.q.low: has no meaning without high", "give `high`"),
        ("custom: {q: {gauge: x, low: 2, high: 1}}", "pools[0].custom.q.low: 2 is not below high (1)", "leave a gap"),
    ];
    for (keys, says, hints) in cases {
        let (what, hint) = only_problem(keys);
        assert!(what.starts_with(says), "{keys}\n     got: {what}\nexpected: {says}");
        assert!(hint.starts_with(hints), "{keys}\n     got: {hint}\nexpected: {hints}");
    }
}

#[test]
fn faults_of_lists() {
    let two = problems("pools: [{name: a}, {name: a}]");
    assert_eq!((two[0].path.as_str(), two[0].what.as_str()), ("pools[1].name", "is the name of pools[0] too"));
    let nodes = |list: &str| problems(&with(&format!("provider: {{type: none}}\nnodes: {{static: {list}}}")));
    let what = |list: &str| nodes(list).into_iter().map(|p| format!("{}: {}", p.path, p.what)).collect::<Vec<_>>();
    let at = "pools[0].nodes.static";
    assert_eq!(what("[]"), [format!("{at}: is empty")]);
    assert_eq!(what("[{id: a, address: 'http://h:1'}, {id: a, address: 'http://h:1/'}]").len(), 2);
    for address in ["h:1", "ftp://h:1", "http://user:secret@h:1", "http://h:1/path", "http://h:1?x=1", "http://", ""] {
        let found = what(&format!("[{{id: a, address: '{address}'}}]"));
        assert_eq!(found, [format!("{at}[0].address: is not the address of a node")], "{address}");
    }
    for text in ["", "pools: []", "pools: {}", "pools:", "pools: [5]", "[]", "5", "pools: [{}]", "poools: [{name: a}]"]
    {
        assert!(!problems(text).is_empty(), "{text} was taken");
    }
}

#[test]
fn secrets_are_never_shown() {
    let secret = "hunter2hunter2";
    for keys in [
        format!("datastore: {{api_key: {secret}}}"),
        format!("scrape: {{authorization: {{credentials: {secret}}}}}"),
        format!("nodes: {{static: [{{id: a, address: 'http://user:{secret}@h:1'}}]}}"),
        format!("provider: {{type: script, env: {{VECSCALE_X: {secret}, OK: [{secret}]}}}}"),
        format!("scrape: {{authorization: {secret}}}"),
        format!("provider: {{type: process, password: {secret}"),
        format!("provider: {{type: http, base: 'https://user:{secret}@h'}}"),
        format!("provider: {{type: http, base: 'https://h', authorization: {{credentials: {secret}}}}}"),
    ] {
        let error = read(&with(&keys)).expect_err(&keys).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
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
fn what_is_no_yaml_is_told_with_its_line() {
    let broken = [
        ("pools:\n  - name: a\n   region: b\n", (3, 4), "did not find expected '-'"),
        ("pools: [{name: a}\n", (1, 8), "unclosed bracket"),
        ("pools: [{name: a}]\npools: [{name: b}]\n", (2, 1), "the key pools stands there twice"),
        ("pools:\n\t- name: a\n", (2, 2), "tabs"),
        ("a: .nan", (1, 4), ".nan is not a finite number"),
        ("a: 1e999", (1, 4), "1e999 is not a finite number"),
        ("a: 1\n---\nb: 2\n", (2, 1), "more than one document"),
        ("a: *x", (1, 4), "unknown anchor"),
    ];
    for (text, place, says) in broken {
        match read(text) {
            Err(ConfigError::Broken { at, what, .. }) => {
                assert_eq!(at, Some(place), "{text:?}: {what}");
                assert!(what.contains(says), "{text:?}: {what}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
    let message = read("pools:\n  - name: a\n   region: b\n").expect_err("broken").to_string();
    assert!(message.starts_with("config.yaml:3:"), "{message}");
}

#[test]
fn comments_may_be_long() {
    let comment = "      # one more line\n".repeat(2000);
    let provider = pool(&format!("provider:\n{comment}datastore:\n{comment}  type: vectornode\n{comment}")).provider;
    assert_eq!(provider, ProviderSettings::Process(ProcessSettings::default()));
}

#[test]
fn bombs_are_refused_at_once() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_json = "{\"a\":".repeat(5_000);
    let wide = format!("a: [{}]", "1, ".repeat(300_000));
    for text in [laughs, deep, deep_json, wide] {
        let began = std::time::Instant::now();
        assert!(matches!(read(&text), Err(ConfigError::Broken { .. })), "{}", &text[..40]);
        assert!(began.elapsed() < Duration::from_secs(10), "took {:?}: {}", began.elapsed(), &text[..40]);
    }
    let large = format!("# {}\n{SMALLEST}", "x".repeat(1 << 20));
    assert!(matches!(read(&large), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = load(&dir.path().join("none.yaml")).expect_err("missing").to_string();
    assert!(missing.contains("none.yaml: cannot be read: No such file") && missing.contains("hint: "), "{missing}");
    let folder = load(dir.path()).expect_err("a folder").to_string();
    assert!(folder.contains("cannot be read"), "{folder}");
    let binary = dir.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).expect("a file");
    assert!(load(&binary).expect_err("binary").to_string().contains("not UTF-8"));
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
