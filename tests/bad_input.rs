//! Bad input by the API, the configuration file and the command line: what is said names what is wrong and what to do,
//! and nothing changes.

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use common::before::{Place, says};
use common::{World, http};

// ---- by the API

/// Sends a request that must be refused with `code` and all these words, as problem details, and change nothing.
async fn refused(place: &Place, request: reqwest::RequestBuilder, code: u16, words: &[&str]) -> Value {
    let before = place.picture().await;
    let answer = request.send().await.unwrap_or_else(|e| panic!("no answer: {e}\n{}", place.world.logs()));
    let status = answer.status().as_u16();
    let content_type = answer.headers().get("content-type").map(|v| v.to_str().expect("ASCII").to_string());
    let text = answer.text().await.expect("a whole answer");
    assert_eq!(status, code, "{text}");
    assert_eq!(content_type.as_deref(), Some("application/problem+json"), "{text}");
    let problem: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(problem["status"], code, "{problem}");
    says(problem["detail"].as_str().expect("a detail"), words);
    place.is_as(&before).await;
    problem
}

fn post(place: &Place, path: &str) -> reqwest::RequestBuilder {
    http().request(Method::POST, format!("{}{path}", place.world.url))
}

/// Every body is refused, one after the other, on one controller.
async fn thresholds_refused(bodies: &[(&str, u16, &[&str])]) {
    let place = Place::calm(&[]).await;
    for (body, code, words) in bodies {
        let request = post(&place, "/autoscaling/thresholds").header("content-type", "application/json");
        refused(&place, request.body(body.to_string()), *code, words).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_low_at_or_above_high() {
    let hint = "leave a gap, or the cluster will grow and shrink in turns";
    thresholds_refused(&[
        (
            r#"{"cpu_threshold_low": 0.8}"#,
            422,
            &["cpu_threshold_low: 0.8 is not below cpu_threshold_high (0.75)", hint],
        ),
        (
            r#"{"cpu_threshold_low": 0.6, "cpu_threshold_high": 0.6}"#,
            422,
            &["0.6 is not below cpu_threshold_high (0.6)", hint],
        ),
        (r#"{"latency_threshold_high": 100}"#, 422, &["latency_threshold_low: 100 is not below", hint]),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_not_a_number() {
    thresholds_refused(&[
        (r#"{"cpu_threshold_high": NaN}"#, 400, &["not the JSON that is expected", "line 1 column"]),
        (r#"{"cpu_threshold_high": "NaN"}"#, 400, &["/cpu_threshold_high: a text where a number is needed"]),
        (r#"{"cpu_threshold_high": 1e999}"#, 400, &["number out of range"]),
        (r#"{"scale_up_cooldown": "NaN"}"#, 400, &["/scale_up_cooldown", "is not a duration, such as \"90s\""]),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_negative() {
    thresholds_refused(&[
        (r#"{"cpu_threshold_high": -0.1}"#, 422, &["cpu_threshold_high: -0.1 is not allowed", "between 0 and 1"]),
        (r#"{"scale_down_cooldown": -5}"#, 422, &["scale_down_cooldown: -5 is not allowed", "at least 0"]),
        (r#"{"min_nodes": -1}"#, 422, &["min_nodes: -1 is not allowed", "a whole number from 1 to 1000"]),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_min_above_max() {
    let hint = "raise max_nodes or lower min_nodes";
    thresholds_refused(&[
        (r#"{"min_nodes": 5}"#, 422, &["max_nodes: 4 is below min_nodes (5)", hint]),
        (r#"{"min_nodes": 9, "max_nodes": 8}"#, 422, &["max_nodes: 8 is below min_nodes (9)", hint]),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_unknown_field() {
    let place = Place::calm(&[]).await;
    let body = json!({"cpu_treshold_high": 0.8, "max_nodes": 15});
    let words = ["unknown field /cpu_treshold_high", "did you mean cpu_threshold_high?"];
    refused(&place, post(&place, "/autoscaling/thresholds").json(&body), 400, &words).await;
    let words = ["unknown field /halted", "did you mean halt?"];
    refused(&place, post(&place, "/autoscaling/stop").json(&json!({"halted": true})), 400, &words).await;
    let words = ["unknown field /resaon", "did you mean reason?"];
    for path in ["operations/0198/pause", "operations/0198/retry", "breaker/reset", "nodes/n1/adopt", "nodes/n1/reap"] {
        let request = post(&place, &format!("/autoscaling/{path}")).json(&json!({"resaon": "x"}));
        refused(&place, request, 400, &words).await;
    }
    let words = ["unknown field /force", "known: as, reason"];
    let force = json!({"as": "done", "reason": "x", "force": true});
    refused(&place, post(&place, "/autoscaling/operations/0198/resolve").json(&force), 400, &words).await;
    let words = ["unknown field /count", "known: nodes, node, reason"];
    refused(&place, post(&place, "/autoscaling/scale-up").json(&json!({"count": 1})), 400, &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_wrong_type() {
    let place = Place::calm(&[]).await;
    for (path, body, words) in [
        ("thresholds", json!({"max_nodes": "fifteen"}), "/max_nodes: a text where a number is needed"),
        ("thresholds", json!({"cpu_threshold_high": [0.8]}), "/cpu_threshold_high: a list where a number is needed"),
        ("thresholds", json!([{"max_nodes": 15}]), "an object such as {\"max_nodes\": 15}"),
        ("start", json!({"mode": true}), "/mode: true or false where a text is needed"),
        ("scale-up", json!({"nodes": "one"}), "/nodes: a text where a whole number is needed"),
    ] {
        refused(&place, post(&place, &format!("/autoscaling/{path}")).json(&body), 400, &[words]).await;
    }
    let form = post(&place, "/autoscaling/thresholds").header("content-type", "application/x-www-form-urlencoded");
    let words = ["application/x-www-form-urlencoded", "-H 'Content-Type: application/json'"];
    refused(&place, form.body("{\"max_nodes\": 15}"), 415, &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_orders_that_cannot_be_done() {
    let place = Place::calm(&[]).await;
    let resolve = "operations/0198/resolve";
    for (path, body, code, words) in [
        (resolve, json!({"as": "perhaps", "reason": "x"}), 422, "/as: \"perhaps\" is not done or absent"),
        (resolve, json!({"reason": "x"}), 422, "/as: did the step happen (done)"),
        (resolve, json!({"as": "done"}), 422, "/reason: how do you know?"),
        (resolve, json!({"as": ["done"], "reason": "x"}), 400, "/as: a list where a text is needed"),
        (resolve, json!({"as": "done", "reason": "I looked"}), 404, "no operation \"0198\" in this pool"),
        ("operations/0198/cancel", json!({}), 404, "GET /autoscaling/operations lists them"),
        ("operations/0198/pause", json!({"reason": 7}), 400, "/reason: a number where a text is needed"),
        ("operations/..%2F..%2Fx/resume", json!({}), 404, "no operation"),
        ("stop", json!({"halt": "yes"}), 400, "/halt: a text where true or false is needed"),
        ("nodes/n77/adopt", json!({}), 409, "nodes hold no data"),
        ("nodes/n1/reap", json!({}), 409, "n1 is part of the pool: take it away with a scale-down"),
        ("nodes/n77/reap", json!({"reason": "gone"}), 409, "neither a machine nor a member named n77"),
        ("nodes/..%2Fx/reap", json!({}), 404, "not a node id"),
    ] {
        refused(&place, post(&place, &format!("/autoscaling/{path}")).json(&body), code, &[words]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_empty_change() {
    let words: &[&str] = &["no threshold is given", "{\"max_nodes\": 15}"];
    thresholds_refused(&[
        ("{}", 422, words),
        ("", 422, words),
        (r#"{"reason": "to see what happens", "ttl": "1h"}"#, 422, words),
        (r#"{"max_nodes": null}"#, 422, words),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_body_of_two_mebibytes() {
    let place = Place::calm(&[]).await;
    let body = format!("{{\"max_nodes\": 15, \"reason\": \"{}\"}}", "x".repeat(2 << 20));
    let request = post(&place, "/autoscaling/thresholds").header("content-type", "application/json").body(body);
    refused(&place, request, 413, &["larger than 1048576 bytes"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_foreign_host_and_foreign_origin() {
    let place = Place::calm(&[]).await;
    let stop = |name: &'static str, value: &'static str| post(&place, "/autoscaling/stop").header(name, value);
    let words = ["\"rebound.example:8000\"", "localhost", "--web.external-url"];
    refused(&place, stop("host", "rebound.example:8000"), 421, &words).await;
    let read = http().get(format!("{}/autoscaling/status", place.world.url)).header("host", "rebound.example");
    refused(&place, read, 421, &["rebound.example"]).await;
    for (name, value) in [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        refused(&place, stop(name, value), 403, &[value, "may change nothing here", "use curl"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_file_blocks_even_a_person() {
    let place = Place::calm(&[]).await;
    std::fs::write(place.world.storage().join("STOP"), "").expect("the STOP file");
    let reason = json!({"reason": "all the same"});
    let words = ["stopped", "STOP", "until it is removed"];
    for path in ["/autoscaling/scale-up", "/autoscaling/scale-down"] {
        let problem = refused(&place, post(&place, path).json(&reason), 409, &words).await;
        let guards = problem["guards"].as_array().expect("the guards").clone();
        assert!(guards.iter().any(|g| g["name"] == "stopped"), "{problem}");
    }
    assert_eq!(place.world.status().await["stop_file"], true);
    std::fs::remove_file(place.world.storage().join("STOP")).expect("removing the STOP file");
    let (code, answer) = place.world.post("/autoscaling/scale-up", Some(reason)).await;
    assert_eq!(code, 202, "removing the file is the way out: {answer}");
}

// ---- by the configuration file

/// A configuration of one pool with these lines in it.
fn pool(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("pools:\n  - name: default\n{lines}")
}

/// What a process that must end by itself, and soon, said on stderr.
fn ended(mut command: std::process::Command, code: i32) -> String {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a start");
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = loop {
        match child.try_wait().expect("waiting") {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let _ = child.kill(); // when it did not end
    let Output { stderr, stdout, .. } = child.wait_with_output().expect("its output");
    let (stderr, stdout) =
        (String::from_utf8_lossy(&stderr).into_owned(), String::from_utf8_lossy(&stdout).into_owned());
    assert_eq!(status.and_then(|s| s.code()), Some(code), "exit code (none: it did not end)\n{stdout}\n{stderr}");
    assert_eq!(stdout, "", "what is wrong goes to stderr");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// A start with this file, and a check of it, end with code 2 and all these words, and nothing is created.
fn file_refused(config: &str, words: &[&str]) {
    let world = World::new(config);
    let at_start = ended(world.command(), 2);
    says(&at_start, words);
    assert!(!world.storage().exists(), "a refused configuration creates nothing");
    let mut check = std::process::Command::new(common::VECSCALE);
    check.arg("check-config").arg(world.path("config.yaml"));
    assert_eq!(ended(check, 2), at_start, "check-config says the same as a start");
}

#[test]
fn file_low_at_or_above_high() {
    file_refused(
        &pool("thresholds: {cpu_threshold_low: 0.80}"),
        &[
            "1 problem\n",
            "pools[0].thresholds.cpu_threshold_low: 0.8 is not below cpu_threshold_high (0.75)",
            "hint: leave a gap",
        ],
    );
}

#[test]
fn file_not_a_number() {
    for nan in [".nan", ".inf", "-.inf"] {
        file_refused(&pool(&format!("thresholds: {{cpu_threshold_high: {nan}}}")), &["config.yaml:3:", "not a finite"]);
    }
    file_refused(
        &pool("thresholds: {cpu_threshold_high: NaN}"),
        &["pools[0].thresholds.cpu_threshold_high", "\"NaN\" where a number is needed"],
    );
}

#[test]
fn file_negative() {
    file_refused(
        &pool("thresholds: {memory_threshold_high: -0.5, scale_up_cooldown: -1}"),
        &[
            "2 problems",
            "pools[0].thresholds.memory_threshold_high: -0.5 is not allowed",
            "hint: a share between 0 and 1",
            "pools[0].thresholds.scale_up_cooldown: ",
        ],
    );
}

#[test]
fn file_min_above_max() {
    file_refused(
        &pool("thresholds: {min_nodes: 5, max_nodes: 2}"),
        &["pools[0].thresholds.max_nodes: 2 is below min_nodes (5)", "hint: raise max_nodes or lower min_nodes"],
    );
}

#[test]
fn file_unknown_field() {
    file_refused(
        &pool("thresholds: {cpu_treshold_high: 0.8}"),
        &["pools[0].thresholds.cpu_treshold_high: is not known", "hint: did you mean cpu_threshold_high?"],
    );
}

#[test]
fn file_wrong_type() {
    file_refused(
        &pool("thresholds: {max_nodes: fifteen}\nchecks: 3"),
        &[
            "2 problems",
            "pools[0].thresholds.max_nodes: \"fifteen\" where a number is needed",
            "pools[0].checks: a number where a mapping of keys is needed",
        ],
    );
}

#[test]
fn file_of_broken_yaml() {
    for broken in ["pools: [{name: default", "pools:\n  - name: default\n   thresholds: {}\n", "pools: \"\u{1}\"\n"] {
        file_refused(broken, &["config.yaml:", "not readable as YAML", "hint: nothing else was checked"]);
    }
}

#[test]
fn file_with_ten_faults_lists_all_ten() {
    let config = r#"
autoscaling: {mode: aktive}
pools:
  - name: default
    profil: production
    thresholds: {cpu_threshold_low: 0.9, memory_threshold_high: 1.5, max_nodes: 2, min_nodes: 4, helthy_ratio_min: 0.8}
    checks: {cpu_high: 0}
    scrape: {timeout: soon, signals: {cpu_usage: {gauge: "my_cpu{"}}}
    provider: {type: kubernetes}
    datastore: {type: none}
"#;
    file_refused(
        config,
        &[
            "config.yaml: 10 problems\n",
            "autoscaling.mode: \"aktive\" is not known\n      hint: did you mean active?",
            "pools[0].profil: is not known\n      hint: did you mean profile?",
            "pools[0].thresholds.cpu_threshold_low: 0.9 is not below cpu_threshold_high (0.75)",
            "pools[0].thresholds.memory_threshold_high: 1.5 is not allowed",
            "pools[0].thresholds.max_nodes: 2 is below min_nodes (4)",
            "pools[0].thresholds.helthy_ratio_min: is not known\n      hint: did you mean healthy_ratio_min?",
            "pools[0].provider.type: kubernetes is not available in this version",
            "pools[0].checks.cpu_high: a number of checks in a row is needed",
            "pools[0].scrape.timeout: \"soon\" where a duration is needed",
            "pools[0].scrape.signals.cpu_usage.gauge: \"my_cpu{\" selects no series: the closing brace is missing",
        ],
    );
}

#[test]
fn file_that_is_missing() {
    let world = World::new("");
    std::fs::remove_file(world.path("config.yaml")).expect("removing it");
    let said = ended(world.command(), 2);
    says(&said, &["config.yaml: cannot be read", "No such file", "hint: `--config.file` names the file"]);
    assert!(!world.storage().exists());
}

/// A reload is refused whole, with the words of a start; what runs goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_of_a_bad_file_is_refused_whole() {
    let place = Place::calm(&["--web.enable-lifecycle"]).await;
    let good = std::fs::read_to_string(place.world.path("config.yaml")).expect("the configuration");
    for (from, to, words) in [
        ("min_nodes: 2", "cpu_threshold_low: 0.8, min_nodes: 2", "cpu_threshold_low: 0.8 is not below"),
        ("max_nodes: 4", "max_nodes: 9, cpu_threshold_hihg: 0.8", "did you mean cpu_threshold_high?"),
        ("pools:", "pools: [", "not readable as YAML"),
    ] {
        std::fs::write(place.world.path("config.yaml"), good.replace(from, to)).expect("the configuration");
        refused(&place, post(&place, "/-/reload"), 500, &[words, "hint"]).await;
        let page = place.world.try_get("/metrics").await.expect("the metrics");
        assert!(page.contains("\nvecscale_config_last_reload_successful 0\n"), "{page}");
    }
}

// ---- by the command line and the machine

/// A start with these flags ends with this code and all these words, and nothing is created.
fn start_refused(flags: &[&str], code: i32, words: &[&str]) {
    let world = World::new("pools: [{name: default}]");
    let mut command = world.command();
    command.args(flags);
    says(&ended(command, code), words);
    assert!(!world.storage().exists(), "a refused start creates nothing");
    assert!(world.node_pids().is_empty(), "a refused start starts no nodes");
}

#[test]
fn start_on_a_busy_port() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = holder.local_addr().expect("bound");
    let words = [&format!("--web.listen-address {address}: cannot listen there"), "hint: another program", "in use"];
    start_refused(&[&format!("--web.listen-address={address}")], 1, &words);
    let telemetry = format!("--web.telemetry-address={address}");
    let words = [&format!("--web.telemetry-address {address}: cannot listen there"), "choose another"];
    start_refused(&["--web.listen-address=127.0.0.1:0", &telemetry], 1, &words);
}

#[test]
fn start_on_an_address_that_others_reach() {
    for address in ["0.0.0.0:0", "[::]:0", ":0"] {
        let words =
            ["--web.listen-address", "not a loopback address", "hint: ", "127.0.0.1", "--web.telemetry-address"];
        start_refused(&[&format!("--web.listen-address={address}")], 2, &words);
    }
}

#[test]
fn start_with_a_web_config_file_that_is_not_there() {
    let words =
        ["web.yaml: cannot be read: No such file", "hint: `--web.config.file` names the file", "deploy/web.yml"];
    start_refused(&["--web.config.file=web.yaml"], 2, &words);
}

/// Tests may run as root, whom permissions do not stop: a path below a regular file, and one in /proc, stop everyone.
#[test]
fn start_on_a_storage_path_that_cannot_be_written() {
    for below_a_file in [true, false] {
        let world = World::new("pools: [{name: default}]");
        std::fs::write(world.path("file"), "precious").expect("a regular file");
        let storage = if below_a_file { world.path("file").join("data") } else { "/proc/vecscale-data".into() };
        let mut command = std::process::Command::new(common::VECSCALE);
        command.arg("--web.listen-address=127.0.0.1:0");
        command.arg(format!("--config.file={}", world.path("config.yaml").display()));
        command.arg(format!("--storage.path={}", storage.display())).current_dir(world.dir.path());
        let said = ended(command, 1);
        says(
            &said,
            &[&storage.display().to_string(), "cannot be written", "hint: look for a full disk", "permissions"],
        );
        let mut kept = String::new();
        let file = std::fs::File::open(world.path("file")).and_then(|mut f| f.read_to_string(&mut kept));
        assert_eq!((file.expect("it is still there"), kept.as_str()), (8, "precious"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_on_one_storage_path() {
    let place = Place::calm(&[]).await;
    let before = place.picture().await;
    let mut second = place.world.command();
    second.arg("--web.listen-address=127.0.0.1:0");
    let said = tokio::task::spawn_blocking(|| ended(second, 1)).await.expect("it ends");
    let pid = format!("(pid {})", place.world.pid());
    says(&said, &["belongs to another running vecscale", &pid, "hint: stop that one", "--storage.path"]);
    place.checks(2).await;
    place.is_as(&before).await;
}
