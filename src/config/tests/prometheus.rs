//! Signals from a Prometheus server, and lists of nodes in its format.

use super::*;
use crate::scrape::prometheus::{Credentials, Query, ServerSettings};

const SERVER: &str = "prometheus: {url: 'http://h:9090'}";

#[test]
fn a_query_takes_the_place_of_a_series() {
    let pool = pool(
        "scrape:
  preset: node_exporter
  prometheus: {url: 'https://h/prom', timeout: 3s}
  health: {promql: 'up{job=\"db\"}', node_label: instance}
  signals:
    cpu_usage: {promql: avg by (node) (cpu), node_label: node, unit: percent}
    search_latency: {promql: latency, unit: seconds}
custom:
  queue: {promql: sum(queue), high: 5, checks: 4}",
    );
    let asking = pool.scrape.prometheus.clone().expect("a server");
    let query = |promql: &str, node_label: Option<&str>, factor: f64| Query {
        promql: promql.into(),
        node_label: node_label.map(Into::into),
        factor,
    };
    let expected = [
        (Signal::Cpu, query("avg by (node) (cpu)", Some("node"), 0.01)),
        (Signal::Latency, query("latency", None, 1000.0)),
        (Signal::Custom("queue".into()), query("sum(queue)", None, 1.0)),
    ];
    assert_eq!(asking.signals, expected.into());
    assert_eq!(asking.health, Some(query("up{job=\"db\"}", Some("instance"), 1.0)));
    let server = ServerSettings {
        url: "https://h/prom".parse().expect("a URL"),
        timeout: Duration::from_secs(3),
        credentials: None,
        ca_file: None,
    };
    assert_eq!(asking.server, server);
    let on_page: Vec<&str> = pool.scrape.pages[0].signals.keys().map(Signal::name).collect();
    assert_eq!(on_page, ["memory_usage", "storage_usage"], "what is not asked of the server stays on the page");
    assert_eq!(pool.policy.signals, [Signal::Cpu, Signal::Memory, Signal::Storage, Signal::Latency]);
    assert_eq!(pool.policy.custom["queue"].checks, 4);
}

#[test]
fn a_server_is_asked_as_prometheus_asks() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, "x").expect("a file");
        path
    };
    let server = |keys: &str| {
        let text = with(&format!(
            "scrape: {{signals: {{vectors: {{promql: x}}}}, prometheus: {{url: 'http://h:9090', {keys}}}}}"
        ));
        let config = parse(&text, "c.yaml", dir.path()).unwrap_or_else(|error| panic!("{error}"));
        config.pools[0].scrape.prometheus.clone().expect("a server").server
    };
    let (token, ca) = (file("token"), file("ca.pem"));
    let with_token = server("authorization: {credentials_file: token}, tls_config: {ca_file: ca.pem}");
    assert_eq!(with_token.credentials, Some(Credentials::Bearer { credentials_file: token.clone() }));
    assert_eq!((with_token.ca_file, with_token.timeout), (Some(ca), Duration::from_secs(5)));
    let with_user = server("basic_auth: {username: me, password_file: token}");
    assert_eq!(with_user.credentials, Some(Credentials::Basic { username: "me".into(), password_file: token }));
}

#[test]
fn faults_of_queries_and_servers() {
    let at = "pools[0].scrape";
    let queried = |server: &str| format!("scrape: {{signals: {{vectors: {{promql: x}}}}, prometheus: {server}}}");
    let signal = |entry: &str| format!("scrape: {{{SERVER}, signals: {{cpu_usage: {entry}}}}}");
    let cases = [
        ("scrape: {signals: {vectors: {promql: x}}}".into(), format!("{at}.prometheus: is missing, and there"), "name"),
        ("custom: {q: {promql: x}}".into(), format!("{at}.prometheus: is missing, and there"), "name the server"),
        (format!("scrape: {{{SERVER}}}"), format!("{at}.prometheus: is asked for nothing"), "give a signal"),
        (queried("{}"), format!("{at}.prometheus.url: is missing"), "such as `url: http://prom"),
        (
            queried("{url: 'h:9090'}"),
            format!("{at}.prometheus.url: is not the address of an API"),
            "such as http://prom",
        ),
        (queried("{url: 'http://h', timeout: 31s}"), format!("{at}.prometheus.timeout: 31 s is longer"), "the answers"),
        (
            queried("{url: 'http://h', ca_file: x}"),
            format!("{at}.prometheus.ca_file: has no meaning here"),
            "it stands under `tls_config`",
        ),
        (
            queried("{url: 'http://h', tls_config: {ca_file: /nowhere}}"),
            format!("{at}.prometheus.tls_config.ca_file: /nowhere: No such file"),
            "the file must be there",
        ),
        (
            queried("{url: 'http://h', tls_config: {insecure_skip_verify: true}}"),
            format!("{at}.prometheus.tls_config.insecure_skip_verify: is not known"),
            "",
        ),
        (
            queried("{url: 'http://h', basic_auth: {username: me}}"),
            format!("{at}.prometheus.basic_auth.password_file: is missing"),
            "a file with",
        ),
        (
            queried(
                "{url: 'http://h', authorization: {credentials_file: /dev/null}, basic_auth: {username: me, password_file: /dev/null}}",
            ),
            format!("{at}.prometheus.basic_auth: stands beside authorization"),
            "a request",
        ),
        (signal("{promql: ' '}"), format!("{at}.signals.cpu_usage.promql: is empty"), "such as"),
        (signal("{promql: 5}"), format!("{at}.signals.cpu_usage.promql"), ""),
        (
            signal("{promql: x, node_label: 'a b'}"),
            format!("{at}.signals.cpu_usage.node_label: is not the name"),
            "such",
        ),
        (signal("{promql: x, stat: mean}"), format!("{at}.signals.cpu_usage.stat: is not known"), ""),
        (
            format!("scrape: {{{SERVER}, signals: {{search_latency: {{promql: x}}}}}}"),
            format!("{at}.signals.search_latency.unit: is missing"),
            "seconds",
        ),
        (
            format!("scrape: {{{SERVER}, health: {{promql: up}}}}"),
            format!("{at}.health.node_label: is missing"),
            "the label that names",
        ),
        (
            "scrape: {also: [{port: 1, signals: {vectors: {promql: x}}}]}".into(),
            format!("{at}.also[0].signals.vectors.promql: a query is of no page"),
            "put it under",
        ),
    ];
    for (keys, says, hints) in cases {
        let (what, hint) = only_problem(&keys);
        assert!(what.starts_with(&says), "{keys}\n     got: {what}\nexpected: {says}");
        assert!(hint.starts_with(hints), "{keys}\n     got: {hint}\nexpected: {hints}");
    }
}

#[test]
fn secrets_of_a_server_are_never_shown() {
    for server in [
        "{url: 'https://user:hunter2@h'}",
        "{url: 'https://h?token=hunter2'}",
        "{url: 'https://h', basic_auth: {username: me, password: hunter2}}",
        "{url: 'https://h', authorization: {credentials: hunter2}}",
    ] {
        let keys = format!("scrape: {{signals: {{vectors: {{promql: x}}}}, prometheus: {server}}}");
        let error = read(&with(&keys)).expect_err(server).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn files_with_nodes() {
    let none = "provider: {type: none}\ndatastore: {type: none}\n";
    let with_files = pool(&format!("{none}nodes: {{file_sd: [nodes/*.json, /etc/more.yml]}}"));
    let files: Vec<_> = with_files.node_files.iter().map(|file| file.display().to_string()).collect();
    assert_eq!(files, ["./nodes/*.json", "/etc/more.yml"]);
    assert!(with_files.nodes.is_none());
    let both = pool(&format!("{none}nodes: {{file_sd: [x.yaml], static: [{{id: a, address: 'http://h:1'}}]}}"));
    assert_eq!((both.node_files.len(), both.nodes.expect("a list").len()), (1, 1));
    for pattern in ["x", "x.txt", "*/x.json", "a*b*.json", "nodes/"] {
        let found = problems(&with(&format!("{none}nodes: {{file_sd: ['{pattern}', ok.json]}}")));
        assert_eq!(found.len(), 1, "{pattern}: {found:?}");
        let told = format!("{}: {}", found[0].path, found[0].what);
        assert_eq!(told, "pools[0].nodes.file_sd[0]: is not a pattern of file_sd", "{pattern}");
    }
    let (what, _) = only_problem("nodes: {file_sd: [x.json]}");
    assert_eq!(what, "pools[0].nodes.file_sd: the provider knows its own nodes");
}

#[test]
fn what_the_drivers_would_not_hear_of_is_not_reloaded() {
    let config = |nodes: &str, url: &str, datastore: &str| {
        let health = "health: {promql: up, node_label: instance}";
        good(&with(&format!(
            "provider: {{type: none}}\ndatastore: {{type: {datastore}}}\nnodes: {{file_sd: [{nodes}]}}\n\
             scrape: {{{health}, prometheus: {{url: '{url}'}}}}"
        )))
    };
    let refused = |old: &Config, new: &Config| -> Vec<String> {
        Config::refused_at_reload(old, new).into_iter().map(|problem| problem.path).collect()
    };
    let old = config("a.json", "http://h:1", "none");
    assert_eq!(refused(&old, &config("b.json", "http://h:1", "none")), ["pools[default].nodes"]);
    assert_eq!(refused(&old, &config("a.json", "http://h:2", "none")), ["pools[default].scrape.health"]);
    let (old, new) = (config("a.json", "http://h:1", "vectornode"), config("a.json", "http://h:2", "vectornode"));
    assert_eq!(refused(&old, &new), [""; 0], "the datastore asks its nodes itself");
}
