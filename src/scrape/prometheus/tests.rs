//! Recorded answers as tables; then a server that misbehaves in every way.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::SystemClock;
use crate::model::Timestamp;

const INTERVAL: Duration = Duration::from_secs(30);

fn recorded(name: &str) -> String {
    let path = format!("{}/tests/fixtures/prometheus-api/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the fixture is part of the repository")
}

fn query(node_label: Option<&str>) -> Query {
    Query { promql: "my_query".into(), node_label: node_label.map(Into::into), factor: 1.0 }
}

fn target(id: &str, address: &str) -> Target {
    Target { id: NodeId::new(id).expect("an id"), address: address.into() }
}

/// What one query for the whole pool comes to, at a time that makes every recorded sample fresh.
fn one(status: StatusCode, body: &str, signal: &Signal) -> Result<f64, Gap> {
    let fresh = Freshness::any(Timestamp::from_millis(1_795_455_700_000));
    answer::read(status, body.as_bytes()).and_then(|reply| answer::one(&reply, &query(None), signal, fresh))
}

fn custom() -> Signal {
    Signal::Custom("queue".into())
}

#[test]
fn recorded_answers_for_the_whole_pool() {
    let ok = StatusCode::OK;
    let cases = [
        ("query-scalar", ok, Ok(0.35)),
        ("query-warning", ok, Ok(0.0)), // it has infos, no warnings
        ("query-empty", ok, Err("no series matches my_query")),
        ("query-nan", ok, Err("not a finite number in its range: NaN")),
        ("query-vector", ok, Err("Prometheus: 3 series; a value of the whole pool is one: aggregate them")),
        ("query-matrix", ok, Err("Prometheus: the result is a matrix; a scalar or an instant vector is needed")),
        ("query-range", ok, Err("Prometheus: the result is a matrix")),
        (
            "query-error-parse",
            StatusCode::BAD_REQUEST,
            Err("Prometheus: bad_data: invalid parameter \"query\": 1:10: parse error: unclosed left parenthesis"),
        ),
    ];
    for (name, status, expected) in cases {
        assert_told(name, one(status, &recorded(name), &Signal::Storage), expected);
    }
    let reply = answer::read(ok, recorded("query-warning").as_bytes()).expect("a reply");
    assert!(reply.infos[0].starts_with("PromQL info: metric might not be a counter"), "{:?}", reply.infos);
}

fn assert_told(what: &str, told: Result<f64, Gap>, expected: Result<f64, &str>) {
    match (told, expected) {
        (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{what}"),
        (Err(gap), Err(says)) => assert!(gap.to_string().starts_with(says), "{what}: {gap}"),
        (told, expected) => panic!("{what}: {told:?}, expected {expected:?}"),
    }
}

#[test]
fn invented_answers_for_the_whole_pool() {
    let vector = |value: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1795455690.5,{value}]}}]}}}}"#
        )
    };
    let with = |more: &str| vector("\"0.5\"").replacen('{', &format!("{{{more},"), 1);
    let histogram =
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}"#;
    let text = r#"{"status":"success","data":{"resultType":"string","result":[1,"0.5"]}}"#;
    let ok = StatusCode::OK;
    type Case = (&'static str, StatusCode, String, Signal, Result<f64, &'static str>);
    let cases: Vec<Case> = vec![
        ("a number", ok, vector("\"0.5\""), Signal::Cpu, Ok(0.5)),
        ("a large one", ok, vector("\"1e+09\""), Signal::Vectors, Ok(1e9)),
        ("an infinity", ok, vector("\"+Inf\""), custom(), Err("not a finite number in its range: inf")),
        ("a share above 1", ok, vector("\"75\""), Signal::Cpu, Err("not a finite number in its range: 75")),
        ("less than nothing", ok, vector("\"-1\""), Signal::Throughput, Err("not a finite number")),
        ("a custom one may be negative", ok, vector("\"-1\""), custom(), Ok(-1.0)),
        ("no text", ok, vector("0.5"), Signal::Cpu, Err("Prometheus: unreadable: ")),
        ("no number", ok, vector("\"high\""), Signal::Cpu, Err("Prometheus: \"high\" is no number")),
        ("any further field", ok, with(r#""trace": {"id": 1}"#), Signal::Cpu, Ok(0.5)),
        ("infos", ok, with(r#""infos": ["look out"]"#), Signal::Cpu, Ok(0.5)),
        (
            "a warning: a part of the data may be missing",
            ok,
            with(r#""warnings": ["remote read failed", "no \u0007 answer"]"#),
            Signal::Cpu,
            Err("Prometheus: warning: remote read failed; no   answer"),
        ),
        (
            "a part, said otherwise",
            ok,
            with(r#""isPartial": true"#),
            Signal::Cpu,
            Err("Prometheus: the answer is partial"),
        ),
        ("the whole, said so", ok, with(r#""isPartial": false"#), Signal::Cpu, Ok(0.5)),
        ("a histogram", ok, histogram.into(), Signal::Latency, Err("Prometheus: a histogram is no number")),
        ("a string", ok, text.into(), Signal::Cpu, Err("Prometheus: the result is a string")),
        (
            "success, but 500",
            StatusCode::INTERNAL_SERVER_ERROR,
            vector("\"0.5\""),
            Signal::Cpu,
            Err("Prometheus: HTTP 500"),
        ),
        ("no data", ok, r#"{"status":"success"}"#.into(), Signal::Cpu, Err("Prometheus: HTTP 200")),
        (
            "half of it",
            ok,
            vector("\"0.5\"")[..40].into(),
            Signal::Cpu,
            Err("Prometheus: HTTP 200 OK, unreadable: EOF"),
        ),
        ("nothing", ok, String::new(), Signal::Cpu, Err("Prometheus: HTTP 200 OK, unreadable: EOF")),
        ("a list", ok, "[]".into(), Signal::Cpu, Err("Prometheus: HTTP 200 OK, unreadable: ")),
        (
            "too late",
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}"#.into(),
            Signal::Cpu,
            Err("Prometheus: timeout: query timed out"),
        ),
    ];
    for (what, status, body, signal, expected) in cases {
        assert_told(what, one(status, &body, &signal), expected);
    }
}

#[test]
fn units_and_old_samples() {
    let reply = answer::read(StatusCode::OK, recorded("query-scalar").as_bytes()).expect("a reply");
    let in_seconds = Query { factor: 1000.0, ..query(None) };
    let at = |secs: i64| Freshness::two(INTERVAL, Timestamp::from_millis(1_795_455_693_681 + secs * 1000));
    assert_eq!(answer::one(&reply, &in_seconds, &Signal::Latency, at(0)), Ok(350.0));
    assert_eq!(answer::one(&reply, &in_seconds, &Signal::Latency, at(60)), Ok(350.0));
    assert_eq!(answer::one(&reply, &in_seconds, &Signal::Latency, at(61)), Err(Gap::Stale(61)));
    assert_eq!(answer::one(&reply, &in_seconds, &Signal::Latency, at(-5)), Ok(350.0), "its clock is ahead of ours");
}

#[test]
fn samples_by_node() {
    let reply = answer::read(StatusCode::OK, recorded("query-vector").as_bytes()).expect("a reply");
    let fresh = Freshness::any(Timestamp::from_millis(0));
    let targets = [
        target("vec-1", "http://10.0.0.1:1"),
        target("vec-3", "http://10.0.0.3:1"),
        target("other", "http://127.0.0.1:29100/"),
    ];
    let of = |label: &str| {
        let told = answer::by_node(&reply, &query(Some(label)), &Signal::Cpu, &targets, fresh);
        let shown = told.into_iter().map(|(id, told)| match told {
            Ok(value) => format!("{id}: {value}"),
            Err(gap) => format!("{id}: {gap}"),
        });
        shown.collect::<Vec<_>>()
    };
    let nobody = |id: &str, label: &str, address: &str| {
        format!("{id}: Prometheus: none of 3 series has {label}=\"{id}\" or {label}=\"{address}\"")
    };
    let of_node = of("node");
    assert_eq!(of_node, [nobody("other", "node", "127.0.0.1:29100"), "vec-1: 0.91".into(), "vec-3: 0.42".into()]);
    let of_instance = of("instance");
    assert_eq!(of_instance[0], "other: Prometheus: 3 series for this node; one is needed");
    assert_eq!(of_instance[1], nobody("vec-1", "instance", "10.0.0.1:1"));
    assert_eq!(of("nowhere")[1], nobody("vec-1", "nowhere", "10.0.0.1:1"));
}

/// What the server was asked: headers by name, path and body.
type Heard = Arc<Mutex<Vec<(http::HeaderMap, String, String)>>>;

/// A server that answers every query so; gives its URL and what it heard.
async fn serve(answer: impl Fn(&str) -> crate::http::Answer + Send + Sync + 'static) -> (Url, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = Url::parse(&format!("http://{}/prefix/", listener.local_addr().expect("an address"))).expect("a URL");
    let (heard, answer) = (Heard::default(), Arc::new(answer));
    let hears = heard.clone();
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let (hears, answer) = (hears.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = crate::http::read_body(body, 1 << 20).await.expect("a body");
            let body = String::from_utf8_lossy(&body).into_owned();
            let answer = answer(&body);
            hears.lock().expect("no one panics").push((head.headers, head.uri.path().to_string(), body));
            Ok::<_, Infallible>(answer)
        }
    });
    tokio::spawn(crate::http::serve(listener, None, service, CancellationToken::new()));
    (url, heard)
}

fn json(body: impl Into<Bytes>) -> crate::http::Answer {
    crate::http::typed(StatusCode::OK, "application/json", body)
}

/// A vector whose samples are of now: labels as JSON, and values.
fn vector(samples: &[(&str, &str)]) -> crate::http::Answer {
    let now = SystemClock.now().seconds();
    let series: Vec<String> =
        samples.iter().map(|(labels, value)| format!(r#"{{"metric":{labels},"value":[{now},"{value}"]}}"#)).collect();
    let series = series.join(",");
    json(format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#))
}

fn server(url: Url) -> ServerSettings {
    ServerSettings { url, timeout: Duration::from_secs(2), credentials: None, ca_file: None }
}

fn asking(server: ServerSettings, signals: &[(Signal, Query)], health: Option<Query>) -> Prometheus {
    Prometheus::new(Asking { server, signals: signals.iter().cloned().collect(), health }).expect("a client")
}

/// What a server at this URL is taken to say of the latency of the whole pool.
async fn said(url: Url) -> Result<f64, Gap> {
    let prometheus = asking(server(url), &[(Signal::Latency, query(None))], None);
    let told = prometheus.ask(&[], INTERVAL, &SystemClock).await;
    match &told.pool[&Signal::Latency] {
        Ok(_) => assert!(told.notes.is_empty(), "{:?}", told.notes),
        Err(gap @ Gap::Query(_)) => assert_eq!(told.notes, [format!("search_latency: {gap}")]),
        Err(_) => {}
    }
    told.pool[&Signal::Latency].clone()
}

/// Says these bytes to whoever connects; then hangs up, or never says anything more.
async fn raw(bytes: &'static [u8], hang: bool) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = Url::parse(&format!("http://{}", listener.local_addr().expect("an address"))).expect("a URL");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(bytes).await;
                if hang {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn each_way_to_misbehave_is_a_reason_and_delays_no_one_longer_than_the_timeout() {
    let typed = |status: StatusCode, content_type: &'static str, body: &'static str| {
        move |_: &str| crate::http::typed(status, content_type, body)
    };
    let (good, _) = serve(|_| vector(&[("{}", "0.5")])).await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Url::parse(&format!("http://{}", listener.local_addr().expect("an address"))).expect("a URL")
    };
    let html = typed(StatusCode::OK, "text/html", "<html>please log in</html>");
    let no_json = typed(StatusCode::OK, "application/json", "please log in");
    let huge = Bytes::from(vec![b' '; MAX_ANSWER + 1]);
    let redirect = {
        let good = good.clone();
        move |_: &str| {
            let mut answer = crate::http::typed(StatusCode::TEMPORARY_REDIRECT, "application/json", "");
            answer.headers_mut().insert("location", good.as_str().parse().expect("a header"));
            answer
        }
    };
    let half = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"status\"";
    let cases: Vec<(&str, Url, Result<f64, &str>)> = vec![
        ("good", good, Ok(0.5)),
        ("a page", serve(html).await.0, Err("Prometheus: content type \"text/html\" is no answer of its API")),
        ("no JSON", serve(no_json).await.0, Err("Prometheus: HTTP 200 OK, unreadable: expected value")),
        (
            "huge",
            serve(move |_| json(huge.clone())).await.0,
            Err("Prometheus: the answer is larger than 4194304 bytes"),
        ),
        (
            "redirect",
            serve(redirect).await.0,
            Err("Prometheus: HTTP 307 Temporary Redirect, redirects are not followed"),
        ),
        ("bad gateway", serve(typed(StatusCode::BAD_GATEWAY, "text/html", "x")).await.0, Err("Prometheus: HTTP 502")),
        ("no right", serve(typed(StatusCode::UNAUTHORIZED, "text/plain", "")).await.0, Err("Prometheus: HTTP 401")),
        ("another protocol", raw(b"what?\r\n\r\n", false).await, Err("Prometheus: no answer: ")),
        ("half", raw(half, false).await, Err("Prometheus: the answer broke off after 9 bytes")),
        ("half, then nothing", raw(half, true).await, Err("Prometheus: no answer within 2 s")),
        ("nothing", raw(b"", true).await, Err("Prometheus: no answer within 2 s")),
        ("hangs up", raw(b"", false).await, Err("Prometheus: no answer: ")),
        ("no one there", closed, Err("Prometheus: no answer: ")),
        (
            "old",
            serve(|_| json(recorded("query-scalar").replace("1795455693", "1700000000"))).await.0,
            Err("the sample is"),
        ),
    ];
    let began = Instant::now();
    let all = futures::future::join_all(cases.iter().map(|(_, url, _)| said(url.clone()))).await;
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    for ((what, _, expected), told) in cases.into_iter().zip(all) {
        assert_told(what, told, expected);
    }
}

#[tokio::test]
async fn a_query_is_posted_as_a_form_with_the_credentials_of_the_moment() {
    let (url, heard) = serve(|_| vector(&[("{}", "0.5")])).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    let promql = "sum(rate(x{a=~\"b|c\"}[2m])) + 1 > 50 % 2";
    let ask = async |credentials: Option<Credentials>| {
        let signals = [(Signal::Latency, Query { promql: promql.into(), ..query(None) })];
        let prometheus = asking(ServerSettings { credentials, ..server(url.clone()) }, &signals, None);
        prometheus.ask(&[], INTERVAL, &SystemClock).await.pool[&Signal::Latency].clone()
    };
    let bearer = || Some(Credentials::Bearer { credentials_file: file.clone() });
    let basic = || Some(Credentials::Basic { username: "me".into(), password_file: file.clone() });
    for credentials in [bearer(), basic()] {
        let gap = ask(credentials).await.expect_err("there is no file").to_string();
        assert!(gap.starts_with("Prometheus: credentials file /") && gap.contains("No such file"), "{gap}");
    }
    assert!(heard.lock().expect("no one panics").is_empty(), "asked without its credentials");
    for (secret, credentials, expected) in [
        ("", None, None),
        ("first\n", bearer(), Some("Bearer first")),
        ("second\n", bearer(), Some("Bearer second")),
        ("pass\n", basic(), Some("Basic bWU6cGFzcw==")),
    ] {
        std::fs::write(&file, secret).expect("a file");
        assert_eq!(ask(credentials).await, Ok(0.5));
        let (headers, path, body) = heard.lock().expect("no one panics").pop().expect("a request");
        assert_eq!(headers.get("authorization").map(|v| v.to_str().expect("text")), expected);
        assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
        assert_eq!(path, "/prefix/api/v1/query");
        let form = Url::parse(&format!("http://h/?{body}")).expect("a form");
        let pairs: Vec<(String, String)> = form.query_pairs().into_owned().collect();
        assert_eq!(pairs, [("query".into(), promql.to_string()), ("timeout".into(), "2000ms".into())]);
    }
}

#[tokio::test]
async fn health_is_known_of_whom_the_answer_names_and_of_no_one_else() {
    let (url, _) = serve(|body| match body.contains("query=up") {
        true => vector(&[
            (r#"{"instance":"10.0.0.1:80"}"#, "1"),
            (r#"{"instance":"n2"}"#, "0"),
            (r#"{"instance":"10.0.0.9:80"}"#, "0"),
            (r#"{"instance":"n4"}"#, "NaN"),
        ]),
        false => vector(&[(r#"{"node":"n1"}"#, "0.5")]),
    })
    .await;
    let up = Query { promql: "up".into(), ..query(Some("instance")) };
    let cpu = (Signal::Cpu, query(Some("node")));
    let targets: Vec<Target> = (1..5).map(|i| target(&format!("n{i}"), &format!("http://10.0.0.{i}:80"))).collect();
    let prometheus = asking(server(url), std::slice::from_ref(&cpu), Some(up.clone()));
    let told = prometheus.ask(&targets, INTERVAL, &SystemClock).await;
    let sample = |told: &Told, target: &Target| {
        let (node, at, took) = (target.id.clone(), SystemClock.now(), Duration::ZERO);
        let mut sample = NodeSample { node, at, took, answer: Answer::None, signals: BTreeMap::new() };
        told.complete(&mut sample);
        sample
    };
    let health: Vec<Answer> = targets.iter().map(|target| sample(&told, target).answer).collect();
    assert_eq!(health, [Answer::Up, Answer::Ill, Answer::Unknown, Answer::Unknown]);
    let third = &sample(&told, &targets[2]).signals[&Signal::Custom("health".into())];
    assert!(third.clone().expect_err("not named").to_string().contains("none of 4 series has instance=\"n3\""));
    assert_eq!(told.by_node[&Signal::Cpu][&targets[0].id], Ok(0.5));
    assert!(told.pool.is_empty() && told.notes.is_empty(), "{told:?}");
    let well = async |i: usize| prometheus.is_well(&targets[i], &SystemClock).await.map_err(|gap| gap.to_string());
    assert_eq!((well(0).await, well(1).await), (Ok(true), Ok(false)));
    assert!(well(2).await.expect_err("not named").contains("none of 4 series has instance=\"n3\""));

    // A server that is silent says nothing of the nodes.
    let silent = asking(server(raw(b"", false).await), &[cpu], Some(up));
    let told = silent.ask(&targets, INTERVAL, &SystemClock).await;
    assert!(targets.iter().all(|target| sample(&told, target).answer == Answer::Unknown));
    assert!(told.by_node[&Signal::Cpu].values().all(|told| matches!(told, Err(Gap::Query(_)))));
    assert_eq!(told.notes.len(), 2, "{:?}", told.notes);
}

#[test]
fn certificates_that_cannot_be_read_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    let refused = || {
        let url = Url::parse("https://localhost:1").expect("a URL");
        let server = ServerSettings { ca_file: Some(file.clone()), ..server(url) };
        Prometheus::new(Asking { server, signals: BTreeMap::new(), health: None }).expect_err("no certificates")
    };
    assert!(refused().contains("ca.pem: No such file"), "{}", refused());
    std::fs::write(&file, "nothing").expect("a file");
    assert!(refused().contains("ca.pem: it holds no certificate"), "{}", refused());
}

#[tokio::test]
async fn many_queries_take_no_longer_than_one() {
    let signals: Vec<_> = (0..30).map(|i| (Signal::Custom(format!("s{i}").into()), query(None))).collect();
    let prometheus = asking(server(raw(b"", true).await), &signals, None);
    let began = Instant::now();
    let told = prometheus.ask(&[], INTERVAL, &SystemClock).await;
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    let late = |told: &Result<f64, Gap>| *told == Err(Gap::Query("no answer within 2 s".into()));
    assert!(told.pool.len() == 30 && told.pool.values().all(late), "{:?}", told.pool);
}
