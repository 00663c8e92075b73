//! What takes more than one request, or time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::stage::{Mood, Stage, reach};
use crate::model::PoolView;

/// The two commands of the documentation, header for header as curl sends them.
#[tokio::test]
async fn the_documented_curl_commands_work_as_they_stand() {
    let stage = Stage::one_pool().await;
    let curl = "Host: localhost:8000\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n";
    let started = stage.ask_with("POST /autoscaling/start", curl, "").await;
    assert_eq!((started.status, &started.json()["mode"]), (200, &"active".into()), "{started:?}");
    let json = format!("{curl}Content-Type: application/json\r\n");
    let body = r#"{"cpu_threshold_high": 0.8, "max_nodes": 15}"#;
    let set = stage.ask_with("POST /autoscaling/thresholds", &json, body).await.json();
    assert_eq!((&set["cpu_threshold_high"], &set["max_nodes"]), (&0.8.into(), &15.into()), "{set}");
    assert_eq!(stage.view("default").thresholds.max_nodes, 15);
}

#[tokio::test]
async fn a_status_has_the_documented_shape() {
    let stage = Stage::one_pool().await;
    let status = stage.ask("GET /autoscaling/status", "").await.json();
    for member in [
        "headline",
        "needs_human",
        "pool",
        "mode",
        "metrics",
        "thresholds",
        "sources",
        "nodes",
        "conditions",
        "decision",
        "operation",
        "cooldowns",
        "guards",
        "windows",
        "alerts",
        "desired_nodes",
    ] {
        assert!(!status[member].is_null(), "{member} is missing in {status}");
    }
    let metrics = &status["metrics"];
    assert_eq!((&metrics["cpu_usage"], &metrics["search_latency"]), (&0.81.into(), &120.0.into()));
    for unknown in ["memory_usage", "storage_usage", "query_throughput", "error_rate", "avg_vectors_per_node"] {
        assert!(metrics.get(unknown).is_some_and(|v| v.is_null()), "{unknown} is not null in {metrics}");
    }
    assert_eq!(metrics["custom"]["queue_depth"], 4.0);
    assert_eq!(status["sources"]["max_nodes"]["source"], "api");
    assert_eq!(status["sources"]["min_nodes"]["source"], "profile");
    let operation = &status["operation"];
    let place = (&operation["step"], &operation["step_number"], &operation["steps_total"], &operation["bytes_left"]);
    assert_eq!(place, (&"move".into(), &2.into(), &2.into(), &500.into()));
    assert_eq!(operation["deadline"], "2025-11-24T16:10:00.000Z");

    let mut early = PoolView::clone(&stage.view("default"));
    (early.seen, early.decision, early.operation) = (None, None, None);
    stage.server.pools["default"].view.store(Arc::new(early));
    let status = stage.ask("GET /autoscaling/status", "").await.json();
    assert!(status["metrics"].is_null() && status["operation"].is_null(), "{status}");
    let ready = stage.ask("GET /-/ready", "").await;
    assert_eq!((ready.status, ready.header("retry-after")), (503, Some("5")), "{ready:?}");
    assert_eq!(stage.ask("GET /-/healthy", "").await.status, 200);
}

#[tokio::test]
async fn an_operation_says_where_to_watch_it_and_keeps_its_key() {
    let stage = Stage::one_pool().await;
    let started = stage.ask_with("POST /autoscaling/scale-up", "Idempotency-Key: k-1\r\n", "").await;
    let id = "019ab000-0000-7000-8000-000000000001";
    assert_eq!(started.header("location"), Some(format!("/autoscaling/operations/{id}").as_str()), "{started:?}");
    let operation = &started.json()["operation"];
    assert_eq!((&operation["id"], &operation["detail"]), (&id.into(), &"k-1".into()), "the key reached the controller");
    let busy = stage.ask("POST /autoscaling/scale-up", r#"{"reason":"busy"}"#).await.json();
    assert_eq!((&busy["operation"], &busy["guards"][0]["detail"]), (&id.into(), &"scale_up runs".into()), "{busy}");
}

#[tokio::test]
async fn with_several_pools_one_must_be_named_except_to_stop() {
    let stage = Stage::of(&["blue", "green"], false).await;
    let unnamed = stage.ask("GET /autoscaling/status", "").await;
    assert_eq!((unnamed.status, &unnamed.json()["pools"]), (400, &serde_json::json!(["blue", "green"])), "{unnamed:?}");
    assert_eq!(stage.ask("POST /autoscaling/start?pool=green", "").await.json()["pool"], "green");
    let stopped = stage.ask("POST /autoscaling/stop", "").await;
    assert_eq!(stopped.json()["items"].as_array().map(Vec::len), Some(2), "{stopped:?}");
    for pool in ["blue", "green"] {
        assert_eq!(stage.view(pool).mode, crate::model::Mode::Stopped, "{pool}");
    }
    let targets = stage.ask("GET /autoscaling/targets", "").await.json();
    assert_eq!(targets.as_array().map(Vec::len), Some(6), "{targets}");
    assert_eq!(
        targets[0],
        serde_json::json!({"targets": ["10.0.0.1:6333"], "labels": {"pool": "blue", "node": "n1", "zone": "a"}})
    );
}

#[tokio::test]
async fn targets_are_the_nodes_that_are_there_and_how_they_are_reached() {
    let stage = Stage::one_pool().await;
    stage.repaint("default", |view| {
        let nodes = &mut view.seen.as_mut().expect("an observation").nodes;
        nodes[1].address = "https://[fd00::2]:6333".into();
        nodes[1].zone = None;
        nodes[2].state = crate::model::NodeState::Lost;
    });
    let targets = stage.ask("GET /autoscaling/targets", "").await.json();
    let expected = serde_json::json!([
        {"targets": ["10.0.0.1:6333"], "labels": {"pool": "default", "node": "n1", "zone": "a"}},
        {"targets": ["[fd00::2]:6333"], "labels": {"pool": "default", "node": "n2", "__scheme__": "https"}},
    ]);
    assert_eq!(targets, expected);
}

#[tokio::test]
async fn a_reload_that_is_refused_gives_the_text() {
    let stage = Stage::of(&["default"], true).await;
    for method in ["POST", "PUT"] {
        let refused = stage.ask(&format!("{method} /-/reload"), "").await;
        assert_eq!((refused.status, &refused.json()["detail"]), (500, &"config.yaml: 2 problems".into()), "{method}");
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_a_503() {
    let stage = Stage::one_pool().await;
    stage.journal.mood.store(Arc::new(Mood::Fails));
    for path in ["history", "decisions", "operations", "operations/x", "decisions/1", "analytics"] {
        let got = stage.ask(&format!("GET /autoscaling/{path}"), "").await;
        assert_eq!((got.status, got.header("retry-after")), (503, Some("5")), "{path}: {got:?}");
        assert!(got.body.contains("disk I/O error"), "{path}: {got:?}");
    }
    assert!(stage.server.telemetry.render().contains("vecscale_journal_errors_total 6"));
}

#[tokio::test]
async fn a_handler_that_panics_is_a_500_and_stops_nothing() {
    let stage = Stage::one_pool().await;
    stage.journal.mood.store(Arc::new(Mood::Panics));
    let got = stage.ask("GET /autoscaling/history", "").await;
    assert_eq!((got.status, got.header("content-type")), (500, Some("application/problem+json")), "{got:?}");
    assert!(!got.body.contains("on fire"), "the inside of a fault is for the log: {got:?}");
    stage.journal.mood.store(Arc::new(Mood::Well));
    assert_eq!(stage.ask("GET /autoscaling/history", "").await.status, 200);
    let page = stage.server.telemetry.render();
    assert!(page.contains(r#"vecscale_http_requests_total{code="500",path="/autoscaling/history"} 1"#), "{page}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_a_503() {
    let stage = Stage::one_pool().await;
    stage.journal.mood.store(Arc::new(Mood::Hangs));
    let began = Instant::now();
    let got = stage.ask("GET /autoscaling/history", "").await;
    assert_eq!((got.status, got.header("retry-after")), (503, Some("5")), "{got:?}");
    assert!(got.body.contains("no answer within 30 s"), "{got:?}");
    assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_controller_that_is_gone_is_a_503() {
    let stage = Stage::one_pool().await;
    for _ in 0..2 {
        let got = stage.ask("POST /autoscaling/scale-up", r#"{"reason":"panic"}"#).await;
        assert_eq!(got.status, 503, "{got:?}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let stage = Stage::one_pool().await;
    let got = stage.ask("HEAD /autoscaling/status", "").await;
    assert_eq!((got.status, got.body.as_str()), (200, ""), "{got:?}");
    assert_eq!(got.header("content-type"), Some("application/json"));
}

/// The answer reaches a client that writes all of a body that is too large, on any path.
#[tokio::test]
async fn a_body_that_is_too_large_gets_its_answer() {
    let stage = Stage::one_pool().await;
    let body = format!(r#"{{"reason":"{}"}}"#, "x".repeat(2 << 20));
    let got = stage.ask("POST /autoscaling/scale-up", &body).await;
    assert_eq!((got.status, got.header("content-type")), (413, Some("application/problem+json")), "{got:?}");
    assert!(got.body.contains("1048576 bytes"), "{got:?}");
    assert_eq!(stage.ask("POST /autoscaling/nowhere", &body).await.status, 404);
    assert_eq!(stage.ask_with("POST /autoscaling/start", "Host: evil.example.com\r\n", &body).await.status, 421);
}

#[tokio::test(start_paused = true)]
async fn slow_headers_are_closed() {
    let stage = Stage::one_pool().await;
    let began = Instant::now();
    reach(stage.main, b"GET /metrics HTTP/1.1\r\nHost: loc").await;
    assert!(
        began.elapsed() >= Duration::from_secs(4) && began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn slow_bodies_are_answered_and_closed() {
    let stage = Stage::one_pool().await;
    let began = Instant::now();
    let request = b"POST /autoscaling/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{";
    let got = reach(stage.main, request).await;
    assert_eq!((got.status, got.header("connection")), (408, Some("close")), "{got:?}");
    assert!(
        began.elapsed() >= Duration::from_secs(9) && began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_telemetry_listener_only_shows() {
    let stage = Stage::one_pool().await;
    let ask = async |line: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: any.example.com\r\nConnection: close\r\n\r\n");
        reach(stage.telemetry_only, request.as_bytes()).await
    };
    for path in ["/metrics", "/-/healthy", "/-/ready", "/autoscaling/targets"] {
        assert_eq!(ask(&format!("GET {path}")).await.status, 200, "{path}");
        assert_eq!(ask(&format!("POST {path}")).await.status, 405, "{path}");
    }
    for line in ["GET /", "GET /autoscaling/status", "POST /autoscaling/start", "POST /-/reload"] {
        assert_eq!(ask(line).await.status, 404, "{line}");
    }
    let page = ask("GET /metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

/// Ten thousand odd paths make no series beyond those that one of them makes.
#[tokio::test]
async fn odd_paths_make_no_series() {
    let stage = Stage::one_pool().await;
    let series = || stage.server.telemetry.render().lines().filter(|l| !l.starts_with('#')).count();
    let pipelined = |range: std::ops::Range<u32>| {
        let each = |n: u32| {
            format!(
                "GET /odd/{n}?x={n} HTTP/1.1\r\nHost: localhost\r\n\r\nGET /autoscaling/decisions/x{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
        };
        let last = "GET /odd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        range.map(each).collect::<String>() + last
    };
    reach(stage.main, pipelined(0..1).as_bytes()).await;
    let before = series();
    // Small batches: a client that only writes would fill both buffers and wait for itself.
    for batch in 0..100 {
        reach(stage.main, pipelined(batch * 50..(batch + 1) * 50).as_bytes()).await;
    }
    assert_eq!(series(), before);
    let page = stage.server.telemetry.render();
    assert!(page.contains(r#"vecscale_http_requests_total{code="404",path="other"} 5102"#), "{page}");
}

#[tokio::test]
async fn a_plan_to_shrink_is_that_of_the_node_which_would_be_chosen() {
    let stage = Stage::one_pool().await;
    let asked = "GET /autoscaling/plan?kind=scale-down";
    for (n, node, shards) in [(2, "n2", 2), (1, "n1", 3)] {
        stage.repaint("default", |view| {
            let id = view.outlook.scale_down[n - 1].node.clone();
            view.outlook.scale_down[n - 1].forecast.shards = shards;
            view.victim = Some(id);
        });
        let plan = stage.ask(asked, "").await.json();
        assert_eq!((&plan["node"], &plan["shards"]), (&node.into(), &shards.into()), "{plan}");
        assert!(plan.get("moves").is_none(), "it was not planned in full: {plan}");
        assert_eq!(plan["candidates"].as_array().map(Vec::len), Some(2), "{plan}");
    }
    stage.repaint("default", |view| {
        view.outlook.scale_down[0].forecast.shards = 0;
    });
    let plan = stage.ask(asked, "").await.json();
    assert!(plan["moves"].as_array().is_some_and(Vec::is_empty), "planned, and nothing moves: {plan}");
    stage.repaint("default", |view| view.victim = None);
    let plan = stage.ask(asked, "").await.json();
    assert!(plan["node"].is_null() && plan["shards"].is_null(), "none can go: {plan}");
}
