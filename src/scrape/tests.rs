//! `collect` against a real listener that misbehaves in every way.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::settings::Authorization;
use super::*;
use crate::clock::SystemClock;
use crate::model::{Gap, Raw};

const INTERVAL: Duration = Duration::from_secs(30);

/// Serves `answer` until the token is dropped; gives the address.
async fn serve(answer: impl Fn(&Request<Incoming>) -> crate::http::Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    tokio::spawn(crate::http::serve(listener, None, service, CancellationToken::new()));
    address
}

/// Writes `bytes` to whoever connects; then hangs up, or never says anything more.
async fn raw(bytes: &'static [u8], hang: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(bytes).await;
                if hang {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> crate::http::Answer {
    crate::http::typed(status, content_type, body)
}

fn page(path: &str, signals: &[(Signal, &str)]) -> Page {
    let gauge = |series: &str| Source::Gauge { series: Selector::parse(series).unwrap(), combine: None, factor: 1.0 };
    Page {
        port: None,
        path: path.into(),
        format: Format::Text,
        signals: signals.iter().map(|(signal, series)| (signal.clone(), gauge(series))).collect(),
        authorization: None,
    }
}

fn sources(pages: Vec<Page>, timeout: Duration) -> Sources {
    Sources::new(ScrapeSettings { pages, timeout, aggregate: BTreeMap::new(), prometheus: None, ca_file: None })
        .unwrap()
}

async fn one(sources: &Sources, address: String) -> NodeSample {
    let targets = [Target { id: NodeId::new("n1").unwrap(), address }];
    // Boxed as the controller's task needs it: `Send`.
    let collected: futures::future::BoxFuture<'_, _> = Box::pin(sources.collect(&targets, INTERVAL, &SystemClock));
    collected.await.nodes.remove(0)
}

#[tokio::test]
async fn each_way_to_misbehave_is_told_apart_and_delays_no_one() {
    let text = "text/plain; version=0.0.4";
    let good = serve(move |_| typed(StatusCode::OK, text, "cpu 0.5\n")).await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let redirect = serve({
        let good = good.clone();
        move |_| {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::FOUND;
            answer.headers_mut().insert("location", format!("http://{good}/metrics").parse().unwrap());
            answer
        }
    });
    let huge = Bytes::from(vec![b'#'; fetch::MAX_PAGE + 1]);
    let half = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\ncpu 0.5\n";
    // (what it does, its address, how it answers, what the gap says)
    let cases: Vec<(&str, String, Answer, &str)> = vec![
        ("good", good.clone(), Answer::Up, ""),
        (
            "garbage page",
            serve(move |_| typed(StatusCode::OK, text, "<html>")).await,
            Answer::Up,
            "unreadable page: line 1",
        ),
        (
            "html",
            serve(|_| typed(StatusCode::OK, "text/html", "cpu 1\n")).await,
            Answer::Up,
            "content type \"text/html\"",
        ),
        ("garbage protocol", raw(b"what?\r\n\r\n", false).await, Answer::None, "no answer"),
        ("half an answer", raw(half, false).await, Answer::Up, "unreadable page: the page broke off after 8 bytes"),
        ("half, then nothing", raw(half, true).await, Answer::Up, "unreadable page: half a page within 2 s"),
        ("nothing", raw(b"", true).await, Answer::None, "no answer: nothing within 2 s"),
        ("hangs up", raw(b"", false).await, Answer::None, "no answer"),
        ("no one there", closed, Answer::None, "no answer"),
        (
            "500",
            serve(move |_| typed(StatusCode::INTERNAL_SERVER_ERROR, text, "cpu 0.5\n")).await,
            Answer::Ill,
            "HTTP 500",
        ),
        ("404", serve(move |_| typed(StatusCode::NOT_FOUND, text, "cpu 0.5\n")).await, Answer::Up, "HTTP 404"),
        ("redirect", redirect.await, Answer::Up, "redirects are not followed"),
        ("no address", "file:///etc/passwd".into(), Answer::None, "is not http://host:port"),
    ];
    let targets: Vec<Target> = cases
        .iter()
        .enumerate()
        .map(|(i, (_, address, _, _))| Target {
            id: NodeId::new(&format!("n{i:02}")).unwrap(),
            address: address.clone(),
        })
        .collect();
    let quick = sources(vec![page("/metrics", &[(Signal::Cpu, "cpu")])], Duration::from_secs(2));
    let began = Instant::now();
    let samples = quick.collect(&targets, INTERVAL, &SystemClock).await.nodes;
    let took = began.elapsed();
    assert!(took < Duration::from_millis(3500), "the hanging ones were waited for one after the other: {took:?}");
    assert_eq!(samples.len(), cases.len());
    for ((what, _, answer, says), sample) in cases.iter().zip(&samples) {
        assert_eq!(sample.answer, *answer, "{what}: {sample:?}");
        match &sample.signals[&Signal::Cpu] {
            Ok(raw) => assert!(says.is_empty() && *raw == Raw::Gauge(0.5), "{what}: {raw:?}"),
            Err(gap) => assert!(!says.is_empty() && gap.to_string().contains(says), "{what}: {gap}"),
        }
    }
    assert!(samples[0].took < Duration::from_millis(1500), "the good one was delayed: {:?}", samples[0].took);

    // By itself and with time enough: 32 MiB take a while in a debug build.
    let huge = serve(move |_| typed(StatusCode::OK, text, huge.clone())).await;
    let patient = sources(vec![page("/metrics", &[(Signal::Cpu, "cpu")])], Duration::from_secs(30));
    let sample = one(&patient, huge).await;
    assert_eq!(sample.answer, Answer::Up);
    assert_eq!(sample.signals[&Signal::Cpu], Err(Gap::Unreadable("the page is larger than 33554432 bytes".into())));
}

#[tokio::test]
async fn a_second_page_adds_signals_and_does_not_tell_of_health() {
    let second = serve(|_| typed(StatusCode::OK, "text/plain", "mem 0.25\n")).await;
    let port = second.rsplit(':').next().unwrap().parse().unwrap();
    let first = serve(|_| typed(StatusCode::OK, "text/plain", "cpu 0.5\nmem 0.9\n")).await;
    let also = Page { port: Some(port), ..page("/metrics", &[(Signal::Memory, "mem")]) };
    let both = sources(vec![page("/metrics", &[(Signal::Cpu, "cpu")]), also], Duration::from_secs(5));
    assert_eq!(both.signals(), [Signal::Cpu, Signal::Memory]);
    let sample = one(&both, first.clone()).await;
    assert_eq!(sample.signals[&Signal::Cpu], Ok(Raw::Gauge(0.5)));
    assert_eq!(sample.signals[&Signal::Memory], Ok(Raw::Gauge(0.25)));

    let dead = serve(|_| typed(StatusCode::BAD_GATEWAY, "text/plain", "")).await;
    let port = dead.rsplit(':').next().unwrap().parse().unwrap();
    let also = Page { port: Some(port), ..page("/metrics", &[(Signal::Memory, "mem")]) };
    let half = sources(vec![page("/metrics", &[(Signal::Cpu, "cpu")]), also], Duration::from_secs(5));
    let sample = one(&half, first).await;
    assert_eq!(sample.answer, Answer::Up);
    assert_eq!(sample.signals[&Signal::Cpu], Ok(Raw::Gauge(0.5)));
    assert!(sample.signals[&Signal::Memory].is_err());
}

#[tokio::test]
async fn asks_as_prometheus_does_and_with_the_credentials_of_the_moment() {
    let address = serve(|request| {
        let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap_or("?").to_string());
        let fits = header("accept").is_some_and(|a| a.contains("text/plain;version=0.0.4;q=0.3"))
            && header("accept-encoding").is_some_and(|a| a.contains("gzip"))
            && header("x-prometheus-scrape-timeout-seconds").as_deref() == Some("5");
        let value = if header("authorization").as_deref() == Some("Bearer second") { 1 } else { 0 };
        let status = if fits { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        typed(status, "text/plain", format!("cpu {value}\n"))
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let authorization = Some(Authorization { credentials_file: file.clone() });
    let sources =
        sources(vec![Page { authorization, ..page("/metrics", &[(Signal::Cpu, "cpu")]) }], Duration::from_secs(5));

    let sample = one(&sources, address.clone()).await;
    assert_eq!(sample.answer, Answer::Up, "a file of ours that is missing is no sign of the node's health");
    let gap = sample.signals[&Signal::Cpu].clone().unwrap_err().to_string();
    assert!(gap.contains("credentials file"), "{gap}");

    std::fs::write(&file, "first\n").unwrap();
    assert_eq!(one(&sources, address.clone()).await.signals[&Signal::Cpu], Ok(Raw::Gauge(0.0)));
    std::fs::write(&file, "second\n").unwrap();
    assert_eq!(one(&sources, address).await.signals[&Signal::Cpu], Ok(Raw::Gauge(1.0)));
}

#[tokio::test]
async fn json_and_openmetrics_and_old_samples() {
    let now = SystemClock.now().millis();
    let address = serve(move |request| match request.uri().path() {
        "/stats" => typed(StatusCode::OK, "application/json", "{\"cpu\": {\"usage\": 0.5}}"),
        "/open" => typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0", "cpu 0.5\n# EOF\n"),
        "/cut" => typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0", "cpu 0.5\n"),
        "/old" => typed(StatusCode::OK, "text/plain", format!("cpu 0.5 {}\n", now - 61_000)),
        _ => typed(StatusCode::OK, "text/plain", format!("cpu 0.5 {}\n", now - 31_000)),
    })
    .await;
    let read = async |path: &str, format: Format| {
        let pointer = if format == Format::Json { "/cpu/usage" } else { "cpu" };
        let page = Page { format, ..page(path, &[(Signal::Cpu, pointer)]) };
        one(&sources(vec![page], Duration::from_secs(5)), address.clone()).await.signals.remove(&Signal::Cpu).unwrap()
    };
    assert_eq!(read("/stats", Format::Json).await, Ok(Raw::Gauge(0.5)));
    assert_eq!(read("/open", Format::Text).await, Ok(Raw::Gauge(0.5)));
    assert!(matches!(read("/cut", Format::Text).await, Err(Gap::Unreadable(_))));
    assert!(matches!(read("/old", Format::Text).await, Err(Gap::Stale(61..70))));
    assert_eq!(read("/younger", Format::Text).await, Ok(Raw::Gauge(0.5)));
}

#[test]
fn what_a_format_cannot_give_is_refused() {
    let histogram = |series: &str| Source::Histogram {
        series: Selector::parse(series).unwrap(),
        stat: crate::model::Stat::Mean,
        factor: 1.0,
    };
    let json = |page: Page| Page { format: Format::Json, ..page };
    let with = |source| Page { signals: BTreeMap::from([(Signal::Latency, source)]), ..page("/m", &[]) };
    let cases = [
        (page("metrics", &[]), "must begin with '/'"),
        (page("/m", &[(Signal::Cpu, "/cpu")]), "needs `format: json`"),
        (json(page("/m", &[(Signal::Cpu, "cpu")])), "takes pointers such as /cpu/usage"),
        (json(with(histogram("/h"))), "has no histograms"),
    ];
    for (page, says) in cases {
        let settings = ScrapeSettings {
            pages: vec![page],
            timeout: INTERVAL,
            aggregate: BTreeMap::new(),
            prometheus: None,
            ca_file: None,
        };
        let error = Sources::new(settings).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_look_ends_before_the_next_one_also_when_the_interval_was_shortened_while_running() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap(); // takes connections and says nothing
    let targets = [Target { id: NodeId::new("n1").unwrap(), address: silent.local_addr().unwrap().to_string() }];
    let sources = sources(vec![page("/metrics", &[(Signal::Cpu, "cpu")])], Duration::from_secs(60));
    let look = sources.collect(&targets, Duration::from_millis(50), &SystemClock);
    let samples = tokio::time::timeout(Duration::from_secs(20), look).await.expect("it waits for the timeout");
    assert_eq!(samples.nodes[0].answer, Answer::None);
}

#[tokio::test]
async fn where_prometheus_tells_of_all_no_page_is_asked_for() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = asked.clone();
    let node = serve(move |_| {
        counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        typed(StatusCode::OK, "text/plain", "cpu 0.25\n")
    })
    .await;
    let prometheus = serve(|_| {
        let now = SystemClock.now().seconds();
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"node":"n1"}},"value":[{now},"0.5"]}}]}}}}"#
        );
        typed(StatusCode::OK, "application/json", body)
    })
    .await;
    let query = |node_label: Option<&str>| prometheus::Query {
        promql: "x".into(),
        node_label: node_label.map(Into::into),
        factor: 1.0,
    };
    let asking = |health: bool| prometheus::Asking {
        server: prometheus::ServerSettings {
            url: reqwest::Url::parse(&format!("http://{prometheus}")).unwrap(),
            timeout: Duration::from_secs(5),
            credentials: None,
            ca_file: None,
        },
        signals: BTreeMap::from([(Signal::Memory, query(Some("node"))), (Signal::Latency, query(None))]),
        health: health.then(|| query(Some("node"))),
    };
    let collect = async |page: Page, health: bool| {
        let settings = ScrapeSettings {
            pages: vec![page],
            timeout: Duration::from_secs(5),
            aggregate: BTreeMap::new(),
            prometheus: Some(asking(health)),
            ca_file: None,
        };
        let sources = Sources::new(settings).unwrap();
        let targets = [Target { id: NodeId::new("n1").unwrap(), address: node.clone() }];
        let samples = sources.collect(&targets, INTERVAL, &SystemClock).await;
        assert_eq!(samples.pool, BTreeMap::from([(Signal::Latency, Ok(0.5))]));
        assert_eq!(samples.nodes[0].answer, Answer::Up);
        assert_eq!(samples.nodes[0].signals[&Signal::Memory], Ok(Raw::Gauge(0.5)));
        (sources.signals(), asked.swap(0, std::sync::atomic::Ordering::Relaxed))
    };
    let (both, all) = (vec![Signal::Memory, Signal::Latency], vec![Signal::Cpu, Signal::Memory, Signal::Latency]);
    assert_eq!(collect(page("/metrics", &[]), true).await, (both.clone(), 0), "health is told");
    assert_eq!(collect(page("/metrics", &[]), false).await, (both, 1), "the page tells of health");
    assert_eq!(collect(page("/metrics", &[(Signal::Cpu, "cpu")]), true).await, (all, 1), "the page has a signal");
}
