//! Request -> status and what the problem says, row by row.

use super::stage::Stage;

const JSON: &str = "Content-Type: application/json\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// Request line, header lines, body, status, and what the answer must say.
type Row = (&'static str, &'static str, &'static str, u16, &'static str);

const REFUSED: &[Row] = &[
    // Thresholds
    ("POST /autoscaling/thresholds", JSON, r#"{"cpu_threshold_low":0.9}"#, 422, "not below cpu_threshold_high"),
    ("POST /autoscaling/thresholds", JSON, r#"{"cpu_threshold_high":-0.1}"#, 422, "not allowed"),
    ("POST /autoscaling/thresholds", JSON, r#"{"min_nodes":9,"max_nodes":4}"#, 422, "below min_nodes"),
    ("POST /autoscaling/thresholds", JSON, r#"{"cpu_threshold_high":NaN}"#, 400, "line 1 column"),
    ("POST /autoscaling/thresholds", JSON, r#"{"cpu_threshold_high":1e999}"#, 400, "out of range"),
    ("POST /autoscaling/thresholds", JSON, r#"{"cpu_treshold_high":0.8}"#, 400, "did you mean cpu_threshold_high?"),
    (
        "POST /autoscaling/thresholds",
        JSON,
        r#"{"cpu_threshold_high":"0.8"}"#,
        400,
        "/cpu_threshold_high: a text where a number",
    ),
    ("POST /autoscaling/thresholds", JSON, r#"{"max_nodes":[15]}"#, 400, "/max_nodes: a list"),
    ("POST /autoscaling/thresholds", JSON, r#"{"scale_up_cooldown":"soon"}"#, 400, "not a duration"),
    ("POST /autoscaling/thresholds", JSON, r#"{"max_nodes":15,"max_nodes":16}"#, 400, "given twice"),
    ("POST /autoscaling/thresholds", JSON, r#"{"max_nodes":15,"ttl":"0s"}"#, 422, "/ttl"),
    ("POST /autoscaling/thresholds", JSON, r#"{"max_nodes":15,"reason":7}"#, 400, "/reason: a number where a text"),
    ("POST /autoscaling/thresholds", JSON, "{}", 422, "no threshold is given"),
    ("POST /autoscaling/thresholds", "", "", 422, "no threshold is given"),
    ("POST /autoscaling/thresholds", JSON, r#"{"ttl":"5m"}"#, 422, "no threshold is given"),
    ("POST /autoscaling/thresholds", JSON, r#"{"max_nodes":15"#, 400, "EOF"),
    ("POST /autoscaling/thresholds", JSON, r#"{"max_nodes":15} x"#, 400, "trailing"),
    ("POST /autoscaling/thresholds", JSON, "[]", 400, "an object such as"),
    ("POST /autoscaling/thresholds", FORM, r#"{"max_nodes":15}"#, 415, "Content-Type: application/json"),
    ("POST /autoscaling/thresholds", "", r#"{"max_nodes":15}"#, 415, "no Content-Type"),
    (
        "POST /autoscaling/thresholds",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
        "x",
        415,
        "compressed",
    ),
    ("DELETE /autoscaling/thresholds?name=cpu_high", "", "", 400, "unknown threshold ?name=cpu_high"),
    ("PUT /autoscaling/thresholds", JSON, r#"{"max_nodes":15}"#, 405, "takes GET, POST, DELETE, HEAD"),
    // Mode
    ("POST /autoscaling/start", JSON, r#"{"mode":"on"}"#, 422, "not active or observe"),
    ("POST /autoscaling/start", JSON, r#"{"mode":"stopped"}"#, 422, "POST /autoscaling/stop"),
    ("POST /autoscaling/start", JSON, r#"{"mood":"active"}"#, 400, "did you mean mode?"),
    ("POST /autoscaling/stop", JSON, r#"{"halt":"yes"}"#, 400, "true or false"),
    ("GET /autoscaling/start", "", "", 405, "takes POST"),
    // Operations
    ("POST /autoscaling/scale-up", JSON, r#"{"nodes":0}"#, 422, "from 1 to 1000"),
    ("POST /autoscaling/scale-up", JSON, r#"{"nodes":1.5}"#, 422, "from 1 to 1000"),
    ("POST /autoscaling/scale-up", JSON, r#"{"nodes":"1"}"#, 400, "/nodes: a text"),
    ("POST /autoscaling/scale-up", JSON, r#"{"node":"n1"}"#, 422, "in a scale-down"),
    ("POST /autoscaling/scale-up", JSON, r#"{"reason":"busy"}"#, 409, r#""name":"operation_running""#),
    ("POST /autoscaling/scale-up", "Idempotency-Key: a b\r\n", "", 400, "visible ASCII"),
    ("POST /autoscaling/scale-down", JSON, r#"{"nodes":2}"#, 422, "one node at a time"),
    ("POST /autoscaling/scale-down", JSON, r#"{"node":"../n1"}"#, 422, "not a node id"),
    ("POST /autoscaling/rebalance", JSON, r#"{"nodes":1}"#, 400, "unknown field /nodes"),
    ("POST /autoscaling/nodes/n1/maintenance", "", "", 422, "/for"),
    ("POST /autoscaling/nodes/n1/maintenance", JSON, r#"{"for":"2 hours"}"#, 400, "not a duration"),
    ("POST /autoscaling/nodes/n77/maintenance", JSON, r#"{"for":"2h"}"#, 404, "no such node"),
    ("POST /autoscaling/nodes/..%2Fx/maintenance", JSON, r#"{"for":"2h"}"#, 404, "not a node id"),
    ("POST /autoscaling/nodes/..%2Fx/drain", "", "", 404, "not a node id"),
    ("POST /autoscaling/nodes/n1/drain", JSON, r#"{"nodes":1}"#, 400, "unknown field /nodes"),
    ("POST /autoscaling/nodes/n1/drain", JSON, r#"{"reason":"busy"}"#, 409, r#""name":"operation_running""#),
    ("POST /autoscaling/nodes/n1/drain", "Idempotency-Key: a b\r\n", "", 400, "visible ASCII"),
    ("DELETE /autoscaling/nodes/..%2Fx/drain", "", "", 404, "not a node id"),
    ("DELETE /autoscaling/nodes/n1/drain", JSON, r#"{"reason":"why"}"#, 400, "unknown field /reason"),
    ("DELETE /autoscaling/nodes/n1/drain", "", "", 404, "it was not drained"),
    ("GET /autoscaling/nodes/n1/drain", "", "", 405, "takes POST, DELETE"),
    ("POST /autoscaling/nodes/..%2Fx/adopt", "", "", 404, "not a node id"),
    ("POST /autoscaling/nodes/n1/adopt", JSON, r#"{"node":"n2"}"#, 400, "unknown field /node"),
    ("POST /autoscaling/nodes/n1/reap", JSON, r#"{"force":true}"#, 400, "unknown field /force"),
    ("POST /autoscaling/nodes/n1/reap", JSON, r#"{"reason":"busy"}"#, 409, r#""operation":"019ab000"#),
    ("POST /autoscaling/nodes/n1/reap", "Idempotency-Key: a b\r\n", "", 400, "visible ASCII"),
    ("GET /autoscaling/nodes/n1/reap", "", "", 405, "takes POST"),
    // Orders
    ("POST /autoscaling/operations/x/cancel", "", "", 404, "no such operation"),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/cancel",
        JSON,
        r#"{"why":"x"}"#,
        400,
        "unknown field /why",
    ),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/pause",
        JSON,
        r#"{"reason":7}"#,
        400,
        "/reason: a number where a text",
    ),
    ("POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/resume", JSON, "[]", 400, "an object such as"),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/retry",
        FORM,
        "reason=x",
        415,
        "Content-Type: application/json",
    ),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/cancel",
        JSON,
        r#"{"reason":"late"}"#,
        409,
        "point of no return",
    ),
    ("POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/resolve", "", "", 422, "/as"),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/resolve",
        JSON,
        r#"{"as":"gone","reason":"x"}"#,
        422,
        "not done or absent",
    ),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/resolve",
        JSON,
        r#"{"as":"done"}"#,
        422,
        "/reason",
    ),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/resolve",
        JSON,
        r#"{"as":"done","reason":" "}"#,
        422,
        "/reason",
    ),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/resolve",
        JSON,
        r#"{"as":true,"reason":"x"}"#,
        400,
        "/as: true or false",
    ),
    ("GET /autoscaling/operations/019ab000-0000-7000-8000-000000000001/pause", "", "", 405, "takes POST"),
    ("POST /autoscaling/breaker/reset", JSON, r#"{"pool":"default"}"#, 400, "unknown field /pool"),
    // Lists
    ("GET /autoscaling/history?limit=0", "", "", 422, "1 to 1000"),
    ("GET /autoscaling/history?limit=ten", "", "", 400, "not a whole number"),
    ("GET /autoscaling/history?kind=decisions", "", "", 400, "did you mean decision?"),
    ("GET /autoscaling/history?since=yesterday", "", "", 400, "not an RFC 3339 time"),
    ("GET /autoscaling/history?sinse=x", "", "", 400, "did you mean since?"),
    ("GET /autoscaling/metrics?step=5m", "", "", 422, "goes with ?since="),
    ("GET /autoscaling/metrics?since=2025-11-24T00:00:00Z&step=7s", "", "", 422, "a multiple of 5m"),
    ("GET /autoscaling/decisions/99", "", "", 404, "no decision"),
    ("GET /autoscaling/decisions/x", "", "", 404, "no decision"),
    ("GET /autoscaling/operations/x", "", "", 404, "no operation"),
    ("GET /autoscaling/plan?kind=replace", "", "", 400, "unknown kind"),
    ("GET /autoscaling/status?pool=defalt", "", "", 404, "did you mean default?"),
    // Ways in
    ("GET /autoscaling", "", "", 404, "no such path"),
    ("POST /autoscaling/operations/x/force", "", "", 404, "no such path"),
    ("POST /metrics", "", "", 405, "takes GET, HEAD"),
    ("GET /metrics", "Host: evil.example.com\r\n", "", 421, "--web.external-url"),
    ("POST /autoscaling/start", "Host: 10.0.0.1:8000\r\n", "", 421, "is not this program's"),
    ("POST /autoscaling/start", "Origin: https://evil.example.com\r\n", "", 403, "another origin"),
    ("POST /autoscaling/start", "Origin: null\r\n", "", 403, "another origin"),
    ("POST /autoscaling/start", "Sec-Fetch-Site: cross-site\r\n", "", 403, "another origin"),
    ("DELETE /autoscaling/thresholds", "Origin: http://localhost:3000\r\n", "", 403, "another origin"),
    ("POST /-/reload", "", "", 403, "--web.enable-lifecycle"),
];

#[tokio::test]
async fn what_is_refused_says_why_and_changes_nothing() {
    let stage = Stage::one_pool().await;
    let before = format!("{:?}", stage.view("default"));
    for (line, headers, body, status, says) in REFUSED {
        let got = stage.ask_with(line, headers, body).await;
        assert_eq!(got.status, *status, "{line} {body}: {got:?}");
        assert!(got.body.contains(says), "{line} {body}: {says:?} is not in {}", got.body);
        assert_eq!(got.header("content-type"), Some("application/problem+json"), "{line} {body}");
        let problem = got.json();
        assert_eq!(problem["status"], *status, "{line} {body}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].is_string(), "{line} {body}: {member} is missing in {problem}");
        }
        assert_eq!(got.header("allow").is_some(), *status == 405, "{line}");
    }
    assert_eq!(format!("{:?}", stage.view("default")), before, "a refused request changed something");
}

const TAKEN: &[Row] = &[
    ("GET /", "", "", 200, "/autoscaling/status"),
    ("GET /metrics", "", "", 200, "vecscale_build_info"),
    ("GET /-/healthy", "", "", 200, "healthy"),
    ("GET /-/ready", "", "", 200, "ready"),
    ("GET /autoscaling/status", "", "", 200, r#""headline""#),
    ("GET /autoscaling/status?pool=default", "", "", 200, r#""pool":"default""#),
    ("GET /autoscaling/status", "Host: scale.example.com\r\nOrigin: https://evil.example.com\r\n", "", 200, "headline"),
    ("GET /autoscaling/status", "Host: [::1]:8000\r\n", "", 200, "headline"),
    ("GET /autoscaling/thresholds", "", "", 200, r#""cpu_threshold_high":0.75"#),
    ("GET /autoscaling/history?limit=2", "", "", 200, r#""next":3"#),
    ("GET /autoscaling/history?kind=setting&before=3", "", "", 200, r#""next":null"#),
    ("GET /autoscaling/metrics", "", "", 200, r#""node_count":2"#),
    ("GET /autoscaling/metrics?since=2025-11-24T00:00:00Z&step=1h", "", "", 200, r#""step":3600"#),
    ("GET /autoscaling/analytics", "", "", 200, r#""by_kind""#),
    ("GET /autoscaling/decisions?limit=5", "", "", 200, r#""next":1"#),
    ("GET /autoscaling/decisions/7", "", "", 200, r#""id":7"#),
    ("GET /autoscaling/decisions/2", "", "", 200, r#""id":2"#),
    ("GET /autoscaling/operations", "", "", 200, r#""steps_total":2"#),
    ("GET /autoscaling/operations/019ab000-0000-7000-8000-000000000001", "", "", 200, r#""step_number":2"#),
    ("GET /autoscaling/plan", "", "", 200, r#""scale_down""#),
    ("GET /autoscaling/plan?kind=scale-down", "", "", 200, r#""node":"n2""#),
    ("GET /autoscaling/targets", "", "", 200, r#""10.0.0.1:6333""#),
    (
        "POST /autoscaling/start",
        "Sec-Fetch-Site: same-origin\r\nOrigin: http://localhost:8000\r\n",
        "",
        200,
        r#""mode":"active""#,
    ),
    ("POST /autoscaling/start", JSON, r#"{"mode":"observe"}"#, 200, r#""mode":"observe""#),
    ("POST /autoscaling/stop", JSON, r#"{"halt":false}"#, 200, r#""mode":"stopped""#),
    (
        "POST /autoscaling/thresholds",
        JSON,
        r#"{"scale_up_cooldown":"5m","ttl":"1h","reason":"a fair"}"#,
        200,
        r#""scale_up_cooldown":300.0"#,
    ),
    (
        "POST /autoscaling/thresholds",
        "Content-Type: Application/JSON; charset=utf-8\r\n",
        r#"{"max_nodes":12}"#,
        200,
        r#""max_nodes":12"#,
    ),
    ("DELETE /autoscaling/thresholds?name=max_nodes", "", "", 200, r#""max_nodes":10"#),
    ("POST /autoscaling/scale-up", JSON, r#"{"nodes":2,"reason":"a fair"}"#, 202, r#""kind":"scale_up""#),
    ("POST /autoscaling/scale-down", JSON, r#"{"node":"n2"}"#, 202, r#""kind":"scale_down""#),
    ("POST /autoscaling/rebalance", "", "", 202, r#""who":"api 127.0.0.1""#),
    ("POST /autoscaling/nodes/n9/adopt", JSON, r#"{"reason":"ours"}"#, 202, r#""kind":"adopt""#),
    ("POST /autoscaling/nodes/n9/reap", "", "", 202, r#""kind":"reap""#),
    ("POST /autoscaling/nodes/n2/drain", JSON, r#"{"reason":"a new disk"}"#, 202, r#""kind":"drain""#),
    ("DELETE /autoscaling/nodes/n2/drain", "", "", 200, "n2 opened by api 127.0.0.1"),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/cancel",
        "",
        "",
        200,
        "Cancel by api 127.0.0.1",
    ),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/pause",
        JSON,
        r#"{"reason":"lunch"}"#,
        200,
        "Pause by api 127.0.0.1: lunch",
    ),
    ("POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/resume", JSON, "{}", 200, "Resume by"),
    ("POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/retry", "", "", 200, "Retry by"),
    (
        "POST /autoscaling/operations/019ab000-0000-7000-8000-000000000001/resolve",
        JSON,
        r#"{"as":"absent","reason":"I looked"}"#,
        200,
        "Resolve(Absent) by api 127.0.0.1: I looked",
    ),
    ("POST /autoscaling/breaker/reset", JSON, r#"{"reason":"mended"}"#, 200, "reset by api 127.0.0.1: mended"),
    ("POST /autoscaling/stop", JSON, r#"{"halt":true}"#, 200, "halted by"),
    ("POST /autoscaling/nodes/n1/maintenance", JSON, r#"{"for":"2h"}"#, 200, "2025-11-24T18:00:00"),
    ("DELETE /autoscaling/nodes/n1/maintenance", "", "", 200, "headline"),
];

#[tokio::test]
async fn what_is_taken_is_answered() {
    let stage = Stage::one_pool().await;
    for (line, headers, body, status, says) in TAKEN {
        let got = stage.ask_with(line, headers, body).await;
        assert_eq!(got.status, *status, "{line} {body}: {got:?}");
        assert!(got.body.contains(says), "{line} {body}: {says:?} is not in {}", got.body);
    }
}
