//! The command line as typed, and the commands against a small HTTP server with answers as the API gives them.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use clap::CommandFactory;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::{Answer, read_body, typed};
use crate::telemetry::{LogFormat, LogLevel};

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

fn parsed(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(Cli::into_command)
}

fn run_args(line: &str) -> RunArgs {
    match parsed(line) {
        Ok(Command::Run(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn run_has_its_defaults_with_and_without_the_word() {
    for line in ["vecscale", "vecscale run"] {
        let args = run_args(line);
        assert_eq!(args.config_file.to_str(), Some("config.yaml"), "{line}");
        assert_eq!(args.listen_address.to_string(), "127.0.0.1:8000");
        assert_eq!(args.storage_path.to_str(), Some("data"));
        assert_eq!((args.log_level, args.log_format), (LogLevel::Info, LogFormat::Logfmt));
        assert!(args.telemetry_address.is_none() && args.external_url.is_none() && !args.enable_lifecycle);
    }
    let flags = "--config.file c --web.listen-address [::1]:1 --web.telemetry-address :9 --web.external-url http://x.example \
                 --web.enable-lifecycle --storage.path d --log.level debug --log.format json";
    for line in [format!("vecscale {flags}"), format!("vecscale run {flags}")] {
        let args = run_args(&line);
        assert_eq!(args.config_file.to_str(), Some("c"), "{line}");
        assert_eq!(args.listen_address.to_string(), "[::1]:1");
        assert_eq!(args.telemetry_address.map(|a| a.to_string()).as_deref(), Some("0.0.0.0:9"));
        assert_eq!(args.external_url.as_ref().and_then(|u| u.host_str()), Some("x.example"));
        assert_eq!((args.log_level, args.log_format), (LogLevel::Debug, LogFormat::Json));
        assert!(args.enable_lifecycle && args.storage_path.to_str() == Some("d"));
    }
    assert_eq!(run_args("vecscale --web.listen-address localhost:0").listen_address.to_string(), "127.0.0.1:0");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let lines = [
        "vecscale status --url https://ops:secret@example.org",
        "vecscale --web.listen-address 8000",
        "vecscale --web.listen-address example.org:8000",
        "vecscale --web.listen-address :99999",
        "vecscale --web.external-url example.org",
        "vecscale --log.level loud",
        "vecscale --config.file c status",
        "vecscale frobnicate",
        "vecscale check-config",
        "vecscale status --url ftp://x",
        "vecscale status --output yaml",
        "vecscale scale-up --nodes 0",
        "vecscale scale-up --nodes many",
        "vecscale scale-up --node n1",
        "vecscale scale-down --nodes 1",
        "vecscale explain last",
        "vecscale operation 0198 stop",
        "vecscale operation 0198 resolve --as gone",
        "vecscale breaker",
        "vecscale breaker close",
        "vecscale stop --halt=now",
        "vecscale adopt",
        "vecscale drain",
        "vecscale drain ../n1",
        "vecscale drain n1 --force",
        "vecscale drain n1 --undo --detach",
        "vecscale drain n1 --undo --reason why",
        "vecscale reap ../n1",
        "vecscale reap n1 --force",
        "vecscale plan --kind replace",
        "vecscale start --mode stopped",
        "vecscale history --limit 0",
        "vecscale history --kind weather",
        "vecscale history --since yesterday",
        "vecscale history --storage.path d --url http://h:1",
        "vecscale drivers",
        "vecscale drivers test --output yaml",
    ];
    for line in lines {
        let error = parsed(line).map(|c| format!("{c:?}")).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
    }
    let refused = parsed("vecscale status --url https://ops:secret@example.org").expect_err("refused").to_string();
    assert!(refused.contains("--token-file"), "{refused}");
}

#[test]
fn every_command_is_understood() {
    let lines = [
        "vecscale demo",
        "vecscale node --id n1 --data d --cpu.cores 0.5 --memory.limit 64MiB",
        "vecscale check-config c.yaml",
        "vecscale status --url http://127.0.0.1:1 --pool p --output json",
        "vecscale history --limit 5 --kind step --before 7 --since 2026-01-31T03:12:00Z",
        "vecscale history --storage.path d",
        "vecscale explain",
        "vecscale explain 7",
        "vecscale plan --kind scale-up",
        "vecscale plan --kind scale_down",
        "vecscale start",
        "vecscale start --mode observe",
        "vecscale stop",
        "vecscale scale-up --nodes 2 --reason why --detach",
        "vecscale scale-down --node n3",
        "vecscale rebalance",
        "vecscale rebalance --apply --reason why --detach",
        "vecscale drain n3 --reason why --detach",
        "vecscale drain n3 --undo --output json",
        "vecscale stop --halt",
        "vecscale operation",
        "vecscale operation 0198 --output json",
        "vecscale operation pause",
        "vecscale operation 0198 cancel --reason why",
        "vecscale operation 0198 resolve --as done --reason why",
        "vecscale breaker reset --reason why",
        "vecscale adopt n9 --reason why --detach",
        "vecscale reap n9 --output json",
        "vecscale drivers test",
        "vecscale drivers test --config.file c --pool p --storage.path d --output json",
    ];
    for line in lines {
        if let Err(error) = parsed(line) {
            panic!("{line}: {error}");
        }
    }
}

#[tokio::test]
async fn check_config_says_ok_or_everything_that_is_wrong() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("c.yaml");
    let check = |text: &'static str| {
        std::fs::write(&file, text).expect("a file");
        parsed(&format!("vecscale check-config {}", file.display()))
    };
    let (said, result) = carry_out(check("pools: [{name: a}]")).await;
    result.expect("a good file");
    let said = said.replace(&file.display().to_string(), "FILE");
    insta::assert_snapshot!(said, @r"
    FILE: ok
      first start: observe
      pool a: profile default, 3 to 10 nodes, a check every 30 s, provider process (3 nodes at first), datastore vectornode
        signals: cpu_usage, memory_usage, storage_usage, search_latency, error_rate, query_throughput, vectors
    ");
    let (said, result) = carry_out(check("pools: [{name: a, nam: b, profile: c}]")).await;
    let failure = result.expect_err("two problems");
    assert_eq!((failure.code, said.as_str()), (2, ""));
    assert!(failure.text.contains("c.yaml: 2 problems\n  pools[0].profile"), "{}", failure.text);
}

/// What was asked: method and path with query, idempotency key, body.
type Heard = (String, Option<String>, Value);

/// Status and body of prepared answers, by method and path.
type Prepared = BTreeMap<String, VecDeque<(u16, Value)>>;

/// A server with prepared answers: by method and path, in order, the last one again and again.
struct Server {
    url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Server {
    async fn with(answers: impl IntoIterator<Item = (&'static str, u16, Value)>) -> Server {
        let mut queues = Prepared::new();
        for (request, status, body) in answers {
            queues.entry(request.into()).or_default().push_back((status, body));
        }
        let queues = Arc::new(Mutex::new(queues));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let service = {
            let heard = heard.clone();
            tower::service_fn(move |request: Request<Incoming>| answer(request, queues.clone(), heard.clone()))
        };
        tokio::spawn(crate::http::serve(listener, None, service, stop.clone()));
        Server { url, heard, _stop: stop.drop_guard() }
    }

    /// Types `vecscale LINE --url …`; gives what was printed and how it ended.
    async fn types(&self, line: &str) -> (String, Result<(), Failure>) {
        carry_out(parsed(&format!("vecscale {line} --url {}", self.url))).await
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("no panic").clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    queues: Arc<Mutex<Prepared>>,
    heard: Arc<Mutex<Vec<Heard>>>,
) -> Result<Answer, Infallible> {
    let key = request.headers().get("idempotency-key").and_then(|v| v.to_str().ok()).map(String::from);
    let name = format!("{} {}", request.method(), request.uri());
    let body = read_body(request.into_body(), 1 << 20).await.expect("a small body");
    heard.lock().expect("no panic").push((name.clone(), key, serde_json::from_slice(&body).unwrap_or(Value::Null)));
    let mut queues = queues.lock().expect("no panic");
    let queue = queues.get_mut(&name);
    let next = queue.and_then(|q| if q.len() > 1 { q.pop_front() } else { q.front().cloned() });
    let (status, body) = next.unwrap_or((404, json!({"detail": format!("{name} is not prepared")})));
    Ok(typed(StatusCode::from_u16(status).expect("a status"), "application/json", body.to_string()))
}

async fn carry_out(command: Result<Command, clap::Error>) -> (String, Result<(), Failure>) {
    let Command::Short(command) = command.unwrap_or_else(|error| panic!("{error}")) else {
        panic!("not a short command")
    };
    let mut out = Vec::new();
    let result = short(command, &mut out).await;
    (String::from_utf8(out).expect("text"), result)
}

fn decision() -> Value {
    json!({
        "id": 42, "at": "2026-01-31T03:12:00.123Z", "mode": "active", "decision": "hold", "trigger": "threshold",
        "wanted": "scale_up", "because": ["cpu_high 0.81 > 0.75, 2 of 2 checks"],
        "conditions": [
            {"name": "cpu_high", "value": 0.8123, "line": 0.75, "streak": 2, "needed": 2, "active": true},
            {"name": "latency_high", "value": null, "line": 500.0, "streak": 0, "needed": 3, "active": false},
            {"name": "memory_low", "value": 0.5, "line": 0.4, "streak": 0, "needed": 1, "active": false},
        ],
        "guards": [{"name": "cooldown", "detail": "212 s left", "until": "2026-01-31T03:15:32Z"}],
        "would_change": "the cooldown ends at 03:15:32",
    })
}

fn status() -> Value {
    json!({
        "headline": "wants to scale up, held back by cooldown",
        "needs_human": ["node n3 is unhealthy"], "pool": "default", "mode": "active",
        "metrics": {"timestamp": "2026-01-31T03:12:00Z", "cpu_usage": 0.8123, "memory_usage": 0.5, "storage_usage": null,
            "search_latency": null, "query_throughput": 120.5, "error_rate": 0.0, "node_count": 2, "healthy_nodes": 1,
            "total_vectors": 5000, "avg_vectors_per_node": 5000.0, "custom": {}},
        "thresholds": {"cpu_threshold_high": 0.75, "min_nodes": 2, "max_nodes": 10},
        "sources": {"cpu_threshold_high": {"source": "api", "by": "api 127.0.0.1", "until": "2026-01-31T04:00:00Z"},
            "min_nodes": {"source": "window", "by": "office", "until": "2026-01-31T17:00:00Z"}, "max_nodes": {"source": "profile"}},
        "nodes": [
            {"id": "n1", "state": "serving", "healthy": true, "cpu_usage": 0.9, "memory_usage": 0.5, "storage_usage": null,
                "search_latency": null, "query_throughput": 120.5, "vectors": 5000, "shards": 6, "bytes": 3145728},
            {"id": "n3", "state": "serving", "healthy": false, "cpu_usage": null, "shards": null, "bytes": null},
        ],
        "conditions": decision()["conditions"], "decision": decision(), "operation": null,
        "cooldowns": {"scale_up": 212.0, "scale_down": 0.0}, "guards": decision()["guards"],
        "windows": [
            {"name": "office", "open": true, "growing": false, "next": "2026-01-31T17:00:00Z",
                "sets": {"min_nodes": 2.0}, "desired_nodes": 3, "freeze": null},
            {"name": "night", "open": false, "growing": false, "next": "2026-01-31T21:00:00Z",
                "sets": {}, "desired_nodes": null, "freeze": "down"},
        ], "desired_nodes": 3,
        "alerts": [
            {"name": "slow-search", "action": "scale_up", "firing": 21, "episodes": [{"alertname": "VectorSearchSlow",
             "fingerprint": "ca2c83f1abddcc93", "starts_at": "2026-01-31T03:11:00.000Z", "standing": "asks for scale_up"}]},
            {"name": "upgrade", "action": "hold", "firing": 0, "episodes": []},
        ],
    })
}

#[tokio::test]
async fn status_tells_the_headline_first() {
    let server = Server::with([("GET /autoscaling/status", 200, status())]).await;
    let (said, result) = server.types("status").await;
    result.expect("an answer");
    insta::assert_snapshot!(said, @r"
    default: wants to scale up, held back by cooldown
      needs a person: node n3 is unhealthy
      mode active, 2 nodes (1 healthy), aims at 3 (min 2, max 10)
      CPU 81 %, memory 50 %, storage -, latency - ms, 120.5 searches/s, errors 0 %, 5000 vectors

    conditions
      *  cpu_high      0.812 > 0.75         2 of 2 checks
         latency_high  not known, line 500  0 of 3 checks
         memory_low    0.5 >= 0.4           0 of 1 check

    guards that hold
      cooldown: 212 s left (until 2026-01-31 03:15:32Z)

    alerts that fire
      slow-search  VectorSearchSlow  since 2026-01-31 03:11:00Z  asks for scale_up
      slow-search  and 20 more

    windows
      office  open until 2026-01-31 17:00:00Z  min_nodes 2, desired_nodes 3
      night   opens 2026-01-31 21:00:00Z       freeze down

    nodes
      node  state    health     CPU   memory  storage  latency ms  searches/s  vectors  shards  bytes
      n1    serving  healthy    90 %  50 %    -        -           120.5       5000     6       3.0 MiB
      n3    serving  UNHEALTHY  -     -       -        -           -           -        -       -

    thresholds not from the profile
      cpu_threshold_high  0.75  set by api 127.0.0.1 until 2026-01-31 04:00:00Z
      min_nodes           2     set by window office until 2026-01-31 17:00:00Z
    ");
    let (said, _) = server.types("status --output json").await;
    assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON"), status());
}

#[tokio::test]
async fn status_before_the_first_check_and_with_an_operation() {
    let mut early = status();
    early["metrics"] = Value::Null;
    early["decision"] = Value::Null;
    early["nodes"] = json!([]);
    early["conditions"] = json!([]);
    early["guards"] = json!([]);
    early["operation"] = running(3, 2);
    let server = Server::with([("GET /autoscaling/status?pool=p", 200, early)]).await;
    let (said, result) = server.types("status --pool p").await;
    result.expect("an answer");
    assert!(said.contains("not checked yet"), "{said}");
    assert!(
        said.contains(
            "operation scale_up 0198\n  running, step 3 of 6: rebalance, 2 of 8 shards left (1.0 MiB), about 20 s\n"
        ),
        "{said}"
    );
}

#[tokio::test]
async fn explain_says_why() {
    let server =
        Server::with([("GET /autoscaling/status", 200, status()), ("GET /autoscaling/decisions/42", 200, decision())])
            .await;
    let (last, result) = server.types("explain").await;
    result.expect("an answer");
    insta::assert_snapshot!(last, @r"
    decision 42 at 2026-01-31 03:12:00Z: hold (mode active)
      wanted scale_up, trigger threshold
      because cpu_high 0.81 > 0.75, 2 of 2 checks
      held back by cooldown: 212 s left (until 2026-01-31 03:15:32Z)

    conditions
      *  cpu_high      0.812 > 0.75         2 of 2 checks
         latency_high  not known, line 500  0 of 3 checks
         memory_low    0.5 >= 0.4           0 of 1 check

    what would change it: the cooldown ends at 03:15:32
    ");
    assert_eq!(server.types("explain 42").await.0, last);
    let failure = server.types("explain 43").await.1.expect_err("no such decision");
    assert_eq!(failure, Failure::failed("refused: GET /autoscaling/decisions/43 is not prepared"));
}

#[tokio::test]
async fn history_is_one_line_a_row() {
    let items = json!({"items": [
        {"id": 12, "at": "2026-01-31T03:12:00Z", "pool": "default", "kind": "decision", "who": "vecscale", "summary": "scale_up: cpu_high", "detail": {}},
        {"id": 9, "at": "2026-01-31T03:11:00Z", "pool": "default", "kind": "setting", "who": "api 127.0.0.1", "summary": "mode active\nx", "detail": {}},
    ], "next": 9});
    let request = "GET /autoscaling/history?limit=2&before=20&kind=step&since=2026-01-31T03%3A00%3A00.000Z";
    let server =
        Server::with([(request, 200, items), ("GET /autoscaling/history?limit=20", 200, json!({"items": []}))]).await;
    let (said, result) = server.types("history --limit 2 --before 20 --kind step --since 2026-01-31T03:00:00Z").await;
    result.expect("an answer");
    insta::assert_snapshot!(said, @r"
      12  2026-01-31 03:12:00Z  decision  vecscale       scale_up: cpu_high
      9   2026-01-31 03:11:00Z  setting   api 127.0.0.1  mode active x
    older: --before 9
    ");
    assert_eq!(server.types("history").await.0, "nothing happened yet\n");
}

#[tokio::test]
async fn plan_tells_what_would_move() {
    let moves: Vec<Value> = (0..12)
        .map(|n| json!({"collection": "docs", "shard": n, "from": "n1", "to": "n2", "bytes": 1024, "vectors": 1}))
        .collect();
    let up = json!({"kind": "scale_up", "shards": 6, "bytes": 3145728, "minutes": 1.5, "least_bytes": 2097152,
        "balance": {"busiest_before": 0.4, "busiest_after": 0.3, "ratio_before": 1.2, "ratio_after": 1.04, "ratio_reachable": 1.0},
        "nodes": [{"node": "n1", "shards_before": 4, "shards_after": 2, "bytes_before": 2048, "bytes_after": 1024}],
        "moves": moves, "stairs": {"useful": 6, "why": "12 shard copies on 6 nodes: with 7 the busiest node still holds 2"},
        "guards": [{"name": "cooldown", "detail": "212 s left", "until": null}]});
    let down = json!({"kind": "scale_down", "shards": 1, "bytes": 1024, "minutes": null, "node": "n2", "guards": [],
        "candidates": [{"node": "n2", "shards": 1, "bytes": 1024, "minutes": null, "impossible": null},
            {"node": "n1", "shards": 3, "bytes": 4096, "minutes": null, "impossible": "shard a/1 has no place"}]});
    let even = json!({"kind": "rebalance", "shards": null, "bytes": null, "minutes": null, "guards": []});
    let server = Server::with([
        ("GET /autoscaling/plan?kind=scale_up", 200, up.clone()),
        ("GET /autoscaling/plan", 200, json!({"scale_up": up, "scale_down": down, "rebalance": even})),
    ])
    .await;
    let (said, result) = server.types("plan").await;
    result.expect("an answer");
    insta::assert_snapshot!(said, @r"
    scale_up: moves 6 shards (3.0 MiB), about 90 s
      12 shard copies on 6 nodes: with 7 the busiest node still holds 2; 6 nodes more would help
      busiest node 1.20 -> 1.04 of the mean, 1.00 at best; at least 2.0 MiB have to move
      n1: 4 -> 2 shards, 2.0 KiB -> 1.0 KiB
      move docs/0 n1 -> n2 (1.0 KiB)
      move docs/1 n1 -> n2 (1.0 KiB)
      move docs/2 n1 -> n2 (1.0 KiB)
      move docs/3 n1 -> n2 (1.0 KiB)
      move docs/4 n1 -> n2 (1.0 KiB)
      move docs/5 n1 -> n2 (1.0 KiB)
      move docs/6 n1 -> n2 (1.0 KiB)
      move docs/7 n1 -> n2 (1.0 KiB)
      move docs/8 n1 -> n2 (1.0 KiB)
      move docs/9 n1 -> n2 (1.0 KiB)
      and 2 more; `--output json` has them all
      guard cooldown: 212 s left
    scale_down of n2: moves 1 shard (1.0 KiB), time not known yet
      instead n1: impossible: shard a/1 has no place
    rebalance: nothing can be moved now
    ");
    let one = server.types("plan --kind scale-up").await.0;
    assert!(said.starts_with(&one) && one.lines().count() == 16, "{one}");
}

#[tokio::test]
async fn start_and_stop_send_the_mode_and_show_the_status() {
    let server = Server::with([
        ("POST /autoscaling/start", 200, status()),
        ("POST /autoscaling/stop", 200, json!({"items": [status(), status()]})),
    ])
    .await;
    for line in ["start", "start --mode observe", "stop", "stop --halt"] {
        let (said, result) = server.types(line).await;
        result.expect(line);
        assert!(said.starts_with("default: wants to scale up"), "{line}: {said}");
    }
    let bodies: Vec<Value> = server.heard().into_iter().map(|(_, _, body)| body).collect();
    let expected = [json!({"mode": "active"}), json!({"mode": "observe"}), Value::Null, json!({"halt": true})];
    assert_eq!(bodies, expected);
}

fn running(step: u32, left: u32) -> Value {
    json!({"id": "0198", "kind": "scale_up", "state": "running", "nodes": ["n4"], "started_at": "2026-01-31T03:12:00Z",
        "ended_at": null, "paused": false, "detail": "", "shards_total": 8, "shards_left": left, "bytes_total": 4194304,
        "bytes_left": 1048576, "step": "rebalance", "step_number": step, "steps_total": 6, "eta_seconds": 20.0, "steps": []})
}

fn ended(state: &str, detail: &str) -> Value {
    let mut operation = running(6, 0);
    operation["state"] = json!(state);
    operation["detail"] = json!(detail);
    operation["ended_at"] = json!("2026-01-31T03:12:42Z");
    operation
}

#[tokio::test]
async fn scale_up_is_followed_to_its_end() {
    let mut moving = running(3, 2);
    moving["shards_moving"] = json!(2);
    moving["detail"] = json!("2 shards at a time: search latency is 180 ms, 50 ms before");
    let server = Server::with([
        ("POST /autoscaling/scale-up", 202, json!({"operation": running(1, 0)})),
        ("GET /autoscaling/operations/0198", 200, running(3, 2)),
        ("GET /autoscaling/operations/0198", 200, running(3, 2)),
        ("GET /autoscaling/operations/0198", 200, moving),
        ("GET /autoscaling/operations/0198", 200, ended("succeeded", "n4 serves")),
    ])
    .await;
    let (said, result) = server.types("scale-up --nodes 2 --reason busy").await;
    result.expect("it succeeds");
    insta::assert_snapshot!(said, @r"
    scale_up 0198: n4
      running, step 3 of 6: rebalance, 2 of 8 shards left (1.0 MiB), about 20 s
      running, step 3 of 6: rebalance, 2 of 8 shards left (1.0 MiB), 2 moving, about 20 s; 2 shards at a time: search latency is 180 ms, 50 ms before
      succeeded in 42 s: n4 serves
    ");
    let (name, key, body) = server.heard().remove(0);
    assert_eq!((name.as_str(), body), ("POST /autoscaling/scale-up", json!({"nodes": 2, "reason": "busy"})));
    assert_eq!(key.map(|k| k.len()), Some(36), "an idempotency key");
    let (said, _) = server.types("scale-up --output json").await;
    assert_eq!(serde_json::from_str::<Value>(&said).expect("one JSON document")["state"], "succeeded");
}

#[tokio::test]
async fn an_operation_that_does_not_succeed_is_exit_code_1() {
    for (state, says) in [
        ("failed", "vecscale history"),
        ("cancelled", "vecscale history"),
        ("partial", "vecscale history"),
        ("blocked", "a person must look"),
    ] {
        let server = Server::with([
            ("POST /autoscaling/scale-down", 202, json!({"operation": running(1, 0)})),
            ("GET /autoscaling/operations/0198", 200, ended(state, "the drain did not finish")),
        ])
        .await;
        let failure = server.types("scale-down --node n4").await.1.expect_err(state);
        assert_eq!(failure.code, 1);
        assert!(
            failure.text.contains(&format!("{state}: the drain did not finish")) && failure.text.contains(says),
            "{failure:?}"
        );
        assert_eq!(server.heard()[0].2, json!({"node": "n4"}));
    }
}

#[tokio::test]
async fn a_detached_operation_is_not_followed() {
    let server = Server::with([("POST /autoscaling/rebalance", 202, json!({"operation": running(1, 0)}))]).await;
    let (said, result) = server.types("rebalance --apply --detach").await;
    assert_eq!((said.as_str(), result), ("scale_up 0198: n4\n", Ok(())));
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_told_in_sentences_with_its_guards() {
    let problem = json!({"type": "about:blank", "title": "Conflict", "status": 409, "detail": "a scale-up is not possible now",
        "guards": [{"name": "operation_running", "detail": "scale_down 0197 runs", "until": null}], "operation": "0197"});
    let server = Server::with([("POST /autoscaling/scale-up", 409, problem)]).await;
    let (said, result) = server.types("scale-up").await;
    assert_eq!(said, "");
    insta::assert_snapshot!(result.expect_err("a refusal").text, @r"
    refused: a scale-up is not possible now
      operation_running: scale_down 0197 runs
      operation: 0197
    ");
}

#[tokio::test]
async fn who_is_not_there_or_not_vecscale_is_told_with_a_hint() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let nobody = carry_out(parsed(&format!("vecscale status --url http://{free}"))).await.1.expect_err("nobody");
    assert_eq!(nobody.code, 1);
    assert!(
        nobody.text.contains("no answer from vecscale at") && nobody.text.contains("Connection refused"),
        "{nobody:?}"
    );
    assert!(nobody.text.contains("vecscale run"), "{nobody:?}");

    let server = Server::with([("GET /autoscaling/status", 200, json!(["not", "a", "status"]))]).await;
    let other = server.types("status").await.1.expect_err("another shape");
    assert!(other.text.contains("unexpected shape"), "{other:?}");
    let elsewhere = server.types("plan").await.1.expect_err("404");
    assert_eq!(elsewhere.text, "refused: GET /autoscaling/plan is not prepared");
}

#[tokio::test]
async fn a_lost_request_is_repeated_with_the_same_key_and_a_lost_view_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    // Each connection: what to answer, or nothing at all.
    let ok = |status: &str, body: Value| {
        let body = body.to_string();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
        format!("{head}content-length: {}\r\n\r\n{body}", body.len())
    };
    let answers = [
        String::new(),
        ok("202 Accepted", json!({"operation": running(1, 0)})),
        String::new(),
        ok("503 Service Unavailable", json!({"detail": "starting"})),
        ok("200 OK", ended("succeeded", "")),
    ];
    let server = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.expect("a request");
            requests.push(String::from_utf8_lossy(&request[..read]).into_owned());
            stream.write_all(answer.as_bytes()).await.expect("the client listens");
        }
        requests
    });
    let (said, result) = carry_out(parsed(&format!("vecscale scale-up --url {url}"))).await;
    assert_eq!((said.as_str(), result), ("scale_up 0198: n4\n  succeeded in 42 s\n", Ok(())));
    let requests = server.await.expect("five requests");
    let key = |request: &str| request.lines().find(|l| l.starts_with("idempotency-key: ")).map(String::from);
    assert!(key(&requests[0]).is_some(), "{}", requests[0]);
    assert_eq!(key(&requests[0]), key(&requests[1]));
}

/// An operation that is blocked at its creation, and paused.
fn stuck() -> Value {
    let mut operation = running(2, 0);
    let more = json!({
        "state": "blocked", "paused": true, "step": "create", "who": "vecscale", "eta_seconds": null,
        "because": ["cpu_high 0.81 > 0.75, 2 of 2 checks"], "cancel": null,
        "paused_by": {"who": "api 127.0.0.1", "since": "2026-01-31T03:13:00.5Z", "reason": "lunch"},
        "detail": "create n4: nobody knows\n    hint: nothing more is done until a person has looked",
        "steps": [
            {"seq": 0, "step": "validate", "state": "done", "attempts": 1, "error": null},
            {"seq": 1, "step": "create", "node": "n4", "state": "unknown", "attempts": 3, "error": "garbage\n"},
            {"seq": 2, "step": "move", "collection": "docs", "shard": 5, "from": "n1", "to": "n4", "state": "waiting"},
        ],
    });
    operation.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    operation
}

#[tokio::test]
async fn an_operation_is_shown_step_by_step() {
    let mut open = status();
    open["operation"] = running(3, 2);
    let server =
        Server::with([("GET /autoscaling/status", 200, open), ("GET /autoscaling/operations/0198", 200, stuck())])
            .await;
    let (said, result) = server.types("operation 0198").await;
    result.expect("an answer");
    insta::assert_snapshot!(said, @r"
    scale_up 0198: n4
      blocked, paused, step 2 of 6: create
      began 2026-01-31 03:12:00Z by vecscale
      because cpu_high 0.81 > 0.75, 2 of 2 checks
      paused 2026-01-31 03:13:00Z by api 127.0.0.1: lunch
      create n4: nobody knows
      hint: nothing more is done until a person has looked

    steps
      1  validate              done
      2  create n4             unknown  3 attempts  garbage
      3  move docs/5 n1 -> n4  waiting
    ");
    assert_eq!(server.types("operation").await.0, said, "without an id it is the open one");
    let (said, _) = server.types("operation 0198 --output json").await;
    assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON"), stuck());

    let idle = Server::with([("GET /autoscaling/status", 200, status())]).await;
    let failure = idle.types("operation").await.1.expect_err("none is open");
    assert!(failure.code == 1 && failure.text.starts_with("no operation is open"), "{failure:?}");
}

#[tokio::test]
async fn an_order_names_its_operation_and_says_why() {
    let problem =
        json!({"detail": "operation 0198 is left as it is: it is not paused", "guards": [], "operation": "0198"});
    let mut open = status();
    open["operation"] = running(3, 2);
    let taken = json!({"operation": stuck()});
    let server = Server::with([
        ("GET /autoscaling/status", 200, open),
        ("POST /autoscaling/operations/0198/cancel", 200, taken.clone()),
        ("POST /autoscaling/operations/0198/pause", 200, taken.clone()),
        ("POST /autoscaling/operations/0198/resolve", 200, taken.clone()),
        ("POST /autoscaling/operations/0198/resume", 409, problem),
        ("POST /autoscaling/breaker/reset", 200, status()),
    ])
    .await;
    for (line, path, body) in [
        ("operation 0198 cancel", "operations/0198/cancel", json!({})),
        ("operation pause --reason lunch", "operations/0198/pause", json!({"reason": "lunch"})),
        (
            "operation 0198 resolve --as absent --reason looked",
            "operations/0198/resolve",
            json!({"as": "absent", "reason": "looked"}),
        ),
        ("breaker reset --reason mended", "breaker/reset", json!({"reason": "mended"})),
    ] {
        let (said, result) = server.types(line).await;
        result.unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
        assert!(said.starts_with("scale_up 0198: n4\n") || path == "breaker/reset", "{line}: {said}");
        let (heard, _, sent) = server.heard().pop().expect("a request");
        assert_eq!((heard, sent), (format!("POST /autoscaling/{path}"), body), "{line}");
    }
    let failure = server.types("operation 0198 resume").await.1.expect_err("refused");
    assert!(failure.code == 1 && failure.text.contains("operation: 0198"), "{failure:?}");
    let heard = server.heard().len();
    for line in [
        "operation 0198 resolve --reason looked",
        "operation 0198 resolve --as done",
        "operation 0198 cancel --as done",
        "operation 0198 --reason why",
        "operation 0198/cancel",
        "operation --as done",
    ] {
        assert_eq!(server.types(line).await.1.expect_err(line).code, 2, "{line}");
    }
    assert_eq!(server.heard().len(), heard, "nothing was asked");
}

#[tokio::test]
async fn adopt_and_reap_name_their_node_and_are_followed() {
    for (what, body) in [("adopt", json!({})), ("reap", json!({"reason": "broken"}))] {
        let path = if what == "adopt" { "POST /autoscaling/nodes/n9/adopt" } else { "POST /autoscaling/nodes/n9/reap" };
        let server = Server::with([
            (path, 202, json!({"operation": running(1, 0)})),
            ("GET /autoscaling/operations/0198", 200, ended("succeeded", "")),
        ])
        .await;
        let reason = if what == "reap" { " --reason broken" } else { "" };
        let (said, result) = server.types(&format!("{what} n9{reason}")).await;
        assert_eq!((said.as_str(), result), ("scale_up 0198: n4\n  succeeded in 42 s\n", Ok(())), "{what}");
        let (_, key, sent) = server.heard().remove(0);
        assert_eq!((sent, key.map(|k| k.len())), (body, Some(36)), "{what}");
    }
}

#[tokio::test]
async fn a_node_that_is_taken_as_it_is_begins_nothing() {
    let server = Server::with([("POST /autoscaling/nodes/n9/adopt", 200, json!({"operation": null}))]).await;
    let (said, result) = server.types("adopt n9").await;
    assert_eq!((said.as_str(), result), ("taken as it is: there was nothing to do\n", Ok(())));
    let (said, result) = server.types("adopt n9 --output json").await;
    assert_eq!((said.as_str(), result), ("{\n  \"operation\": null\n}\n", Ok(())));
}

#[tokio::test]
async fn a_rebalance_is_shown_before_it_is_done() {
    let plan = |shards| {
        let held = json!([{"name": "data_moving", "detail": "1 transfer running", "until": null}]);
        json!({"kind": "rebalance", "shards": shards, "bytes": 4194304, "minutes": null, "guards": held})
    };
    let asked = "GET /autoscaling/plan?kind=rebalance";
    let server = Server::with([(asked, 200, plan(2)), (asked, 200, plan(0))]).await;
    let (said, result) = server.types("rebalance").await;
    result.expect("it is shown");
    insta::assert_snapshot!(said, @r"
    rebalance: moves 2 shards (4.0 MiB), time not known yet
      guard data_moving: 1 transfer running
    nothing was moved: `vecscale rebalance --apply` does it
    ");
    let even = server.types("rebalance").await.0;
    assert!(!even.contains("--apply"), "{even}");
    for line in ["rebalance --reason why", "rebalance --detach"] {
        assert_eq!(server.types(line).await.1.expect_err(line).code, 2, "{line}");
    }
    assert!(server.heard().iter().all(|(name, ..)| name.starts_with("GET ")), "{:?}", server.heard());
}

#[tokio::test]
async fn a_drain_ends_with_the_proof_and_can_be_taken_back() {
    let mut done = ended("succeeded", "n3 is empty");
    done["steps"] = json!([{"step": "validate"}, {"step": "prove", "node": "n3", "output": {"node": "n3",
        "first_read_at": "2026-01-31T03:12:40.000Z", "second_read_at": "2026-01-31T03:12:42.000Z",
        "witnesses": ["n1", "n2", "n3"], "shards": 6, "deleted": ["old"]}}]);
    let server = Server::with([
        ("POST /autoscaling/nodes/n3/drain", 202, json!({"operation": running(1, 0)})),
        ("GET /autoscaling/operations/0198", 200, done),
        ("DELETE /autoscaling/nodes/n3/drain", 200, status()),
    ])
    .await;
    let (said, result) = server.types("drain n3 --reason old").await;
    result.expect("it succeeds");
    insta::assert_snapshot!(said, @r"
    scale_up 0198: n4
      succeeded in 42 s: n3 is empty
    n3 holds nothing:
      read at 2026-01-31 03:12:40Z and at 2026-01-31 03:12:42Z: it says so itself, and n1, n2 agreed
      6 shards complete on the other nodes, nothing in transfer; deleted meanwhile: old
    it stays a member, to which nothing is moved: `vecscale drain n3 --undo` takes that back
    ");
    let (said, result) = server.types("drain n3 --undo").await;
    assert_eq!((said.as_str(), result), ("n3 is open for shards again\n", Ok(())));
    let (name, key, body) = server.heard().remove(0);
    assert_eq!((name.as_str(), key.is_some()), ("POST /autoscaling/nodes/n3/drain", true));
    assert_eq!(body, json!({"reason": "old"}));
}

#[tokio::test]
async fn a_drain_that_did_not_come_about_shows_no_proof() {
    let server = Server::with([
        ("POST /autoscaling/nodes/n3/drain", 202, json!({"operation": running(1, 0)})),
        ("GET /autoscaling/operations/0198", 200, ended("failed", "n3 still holds docs/7")),
    ])
    .await;
    let (said, result) = server.types("drain n3").await;
    assert!(!said.contains("holds nothing"), "{said}");
    assert_eq!(result.expect_err("it failed").code, 1);
}

/// A reader that went away.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[tokio::test]
async fn a_closed_pipe_is_no_failure() {
    let server = Server::with([("GET /autoscaling/status", 200, status())]).await;
    let Ok(Command::Short(command)) = parsed(&format!("vecscale status --url {}", server.url)) else {
        panic!("a command")
    };
    let failure = short(command, &mut Closed).await.expect_err("nothing could be printed");
    assert_eq!(failure, Failure { code: 0, text: String::new() });
}
