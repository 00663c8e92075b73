//! What is wrong with a file: each problem with its place and a hint, all at once, no secret among them; and hostile input.

use super::*;

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
            "pools[0].nodes.static: the provider knows its own nodes",
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
