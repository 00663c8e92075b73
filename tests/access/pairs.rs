//! Ten thousand requests of people who may not: none changes anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{ADMIN, OPERATE, PASSWORD, READ, TRIGGER, common, users, world};

const REQUESTS: u64 = 10_000;

/// A notification that an entry of the configuration matches.
const NOTIFICATION: &str = include_str!("../fixtures/alertmanager/0.33.1-bearer.json");
/// Its alert.
const FINGERPRINT: &str = "a84ae9ffb359d790";

/// Who may, of those who ask here; an admin may everything and is not among them.
type Allowed = &'static [Is];
const SENDERS: Allowed = &[Is::Trigger, Is::Operate];
const OPERATORS: Allowed = &[Is::Operate];
const NOBODY: Allowed = &[];

/// What changes something, with a body that would do it.
const CHANGES: &[(&str, &str, &str, Allowed)] = &[
    ("POST", "/webhooks/alertmanager", NOTIFICATION, SENDERS),
    ("POST", "/autoscaling/start", r#"{"mode":"active"}"#, OPERATORS),
    ("POST", "/autoscaling/stop", "", OPERATORS),
    ("POST", "/autoscaling/scale-up", "", OPERATORS),
    ("POST", "/autoscaling/scale-down", "", OPERATORS),
    ("POST", "/autoscaling/rebalance", "", OPERATORS),
    ("POST", "/autoscaling/nodes/n1/maintenance", r#"{"for":"2h"}"#, OPERATORS),
    ("DELETE", "/autoscaling/nodes/n1/maintenance", "", OPERATORS),
    ("POST", "/autoscaling/operations/x/cancel", "", OPERATORS),
    ("POST", "/autoscaling/operations/x/pause", "", OPERATORS),
    ("POST", "/autoscaling/operations/x/resume", "", OPERATORS),
    ("POST", "/autoscaling/operations/x/retry", "", OPERATORS),
    ("POST", "/autoscaling/breaker/reset", "", OPERATORS),
    ("POST", "/autoscaling/thresholds", r#"{"max_nodes":17}"#, NOBODY),
    ("DELETE", "/autoscaling/thresholds", "", NOBODY),
    ("POST", "/autoscaling/operations/x/resolve", r#"{"as":"done","reason":"x"}"#, NOBODY),
    ("POST", "/autoscaling/nodes/n1/adopt", "", NOBODY),
    ("POST", "/autoscaling/nodes/n1/reap", "", NOBODY),
    ("POST", "/-/reload", "", NOBODY),
    ("PUT", "/-/reload", "", NOBODY),
];

const PROBES: [&str; 2] = ["/-/healthy", "/-/ready"];

const READS: &[&str] = &[
    "/",
    "/metrics",
    "/autoscaling/status",
    "/autoscaling/thresholds",
    "/autoscaling/history",
    "/autoscaling/metrics",
    "/autoscaling/analytics",
    "/autoscaling/decisions",
    "/autoscaling/operations",
    "/autoscaling/plan",
    "/autoscaling/targets",
];

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW"];

/// Who asks, with the lines that say so.
#[derive(Clone, Debug)]
struct Asker {
    headers: String,
    is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Unknown,
    WithoutRole,
    Read,
    Trigger,
    Operate,
}

fn askers() -> Vec<Asker> {
    let basic = |name: &str, password: &str| {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let asker = |headers: String, is| Asker { headers, is };
    vec![
        asker(String::new(), Is::Unknown),
        asker(bearer("admin-0000000000000000"), Is::Unknown),
        asker(bearer(&ADMIN[1..]), Is::Unknown),
        asker(bearer(""), Is::Unknown),
        asker(bearer(ADMIN).replace("Bearer", "Token"), Is::Unknown),
        asker(bearer(ADMIN).replace("Authorization", "X-Authorization"), Is::Unknown),
        asker(bearer(ADMIN) + &bearer(READ), Is::Unknown),
        asker(format!("Cookie: token={ADMIN}\r\n"), Is::Unknown),
        asker(basic("boss", "wrong"), Is::Unknown),
        asker(basic("boss", ""), Is::Unknown),
        asker(basic("nobody", PASSWORD), Is::Unknown),
        asker(basic("deploy", ADMIN), Is::Unknown),
        asker("Authorization: Basic !!!\r\n".into(), Is::Unknown),
        asker("Authorization: Basic\r\n".into(), Is::Unknown),
        asker(basic("stranger", PASSWORD), Is::WithoutRole),
        asker(bearer(READ), Is::Read),
        asker(basic("prometheus", PASSWORD), Is::Read),
        asker(bearer(TRIGGER), Is::Trigger),
        asker(basic("alerts", PASSWORD), Is::Trigger),
        asker(bearer(OPERATE), Is::Operate),
    ]
}

/// Other spellings of a path, as proxies and servers have been fooled with.
fn respelled(path: &str, random: &mut fastrand::Rng, address: SocketAddr) -> String {
    match random.u8(..26) {
        0 => format!("{path}/"),
        1 => format!("/{path}"),
        2 => format!("/metrics/..{path}"),
        3 => format!("/-/healthy/..{path}"),
        4 => format!("/%2e{path}"),
        5 => path.replacen('a', "%61", 1),
        6 => path.to_uppercase(),
        7 => format!("{path};x=1"),
        8 => format!("{path}?token={ADMIN}"),
        9 => format!("{path}%00"),
        10 => format!("http://{address}{path}"),
        11 => format!("http://localhost{path}?x=/-/healthy"),
        12 => path.replace('/', "%2F"),
        _ => path.to_string(),
    }
}

/// Method, target, body and asker; never one who may do it.
fn request(random: &mut fastrand::Rng, askers: &[Asker], address: SocketAddr) -> (String, String, &'static str, Asker) {
    loop {
        let asker = askers[random.usize(..askers.len())].clone();
        let (method, path, body, allowed) = CHANGES[random.usize(..CHANGES.len())];
        if random.u8(..3) > 0 {
            let target = respelled(path, random, address);
            if !allowed.contains(&asker.is) {
                return (method.into(), target, body, asker);
            }
            continue;
        }
        let path = match random.u8(..8) {
            0..3 => path,
            3 => PROBES[random.usize(..2)],
            _ => READS[random.usize(..READS.len())],
        };
        let method = METHODS[random.usize(..METHODS.len())];
        if asker.is != Is::Operate && !allowed.contains(&asker.is) {
            return (method.into(), respelled(path, random, address), body, asker);
        }
    }
}

/// The path that a request target means.
fn path_of(target: &str) -> &str {
    let path = target.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(target);
    path.split('?').next().unwrap_or(path)
}

/// Status 0: closed without an answer.
async fn ask(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> u16 {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\n{headers}{kind}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.expect("the listener is there");
    stream.write_all(request.as_bytes()).await.expect("the request is taken");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await; // torn down: status 0
    let head = String::from_utf8_lossy(&answer[..answer.len().min(40)]).into_owned();
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// All that a request could have changed.
async fn state(client: &reqwest::Client, url: &str) -> Value {
    let get = async |path: &str| -> Value {
        let answer = client.get(format!("{url}{path}")).bearer_auth(READ).send().await.expect("an answer");
        serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
    };
    let status = get("/autoscaling/status").await;
    let history = get("/autoscaling/history?limit=1000").await;
    let by_hand: Vec<&Value> =
        history["items"].as_array().expect("a list").iter().filter(|item| item["who"] != "vecscale").collect();
    json!({
        "mode": status["mode"],
        "thresholds": status["thresholds"],
        "sources": status["sources"],
        "operation": status["operation"],
        "alerts": status["alerts"],
        "nodes": status["nodes"].as_array().expect("nodes").iter().map(|n| (&n["id"], &n["state"], &n["maintenance_until"])).collect::<Vec<_>>(),
        "operations": get("/autoscaling/operations").await,
        "history": by_hand,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_requests_of_those_who_may_not_change_nothing() {
    let mut world = world();
    let users = users();
    std::fs::write(world.path("web.yml"), &users).expect("the web configuration");
    world.args.push(format!("--web.config.file={}", world.path("web.yml").display()));
    world.args.extend(["--web.enable-lifecycle".into(), "--log.level=debug".into()]);
    world.start().await;
    let client = common::http();
    let ready = async |w: &common::World| w.try_get("/-/ready").await;
    world.until("the first look", std::time::Duration::from_secs(30), ready).await;
    let address: SocketAddr = world.url.trim_start_matches("http://").parse().expect("an address");
    let before = state(&client, &world.url).await;
    assert_eq!(before["alerts"][0]["firing"], 0, "{before}");

    let askers = askers();
    let seed = 20_261_126;
    let tasks = (0..8).map(|task| {
        let askers = askers.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed + task);
            let mut tally: BTreeMap<(String, u16), u32> = BTreeMap::new();
            for _ in 0..REQUESTS / 8 {
                let (method, target, body, asker) = request(&mut random, &askers, address);
                let status = ask(address, &method, &target, &asker.headers, body).await;
                let (looks, path) = (matches!(method.as_str(), "GET" | "HEAD"), path_of(&target));
                let refused = if asker.is == Is::Unknown { 401 } else { 403 };
                let allowed = looks && (PROBES.contains(&path) || asker.is == Is::Read && READS.contains(&path));
                let as_it_should =
                    if allowed { !matches!(status, 0 | 401 | 403) } else { status == refused || status == 400 };
                assert!(as_it_should, "{method} {target} by {asker:?} was answered with {status}");
                *tally.entry((format!("{:?}", asker.is), status)).or_default() += 1;
            }
            tally
        })
    });
    let mut tally: BTreeMap<(String, u16), u32> = BTreeMap::new();
    for task in tasks {
        for (key, count) in task.await.expect("no request got through") {
            *tally.entry(key).or_default() += count;
        }
    }
    println!("{tally:?}");
    assert_eq!(tally.values().sum::<u32>(), REQUESTS as u32);
    for is in ["Unknown", "WithoutRole", "Read", "Trigger", "Operate"] {
        assert!(tally.keys().any(|(who, _)| who == is), "nobody was {is}: {tally:?}");
    }
    assert!(tally.get(&("Read".into(), 200)).is_some_and(|seen| *seen > 20), "a reader may read: {tally:?}");
    assert_eq!(state(&client, &world.url).await, before, "something was changed");

    // Whoever may, does; and it is known who it was.
    for (token, path, body) in
        [(OPERATE, "/autoscaling/start", json!({})), (ADMIN, "/autoscaling/thresholds", json!({"max_nodes": 17}))]
    {
        let answer = client.post(format!("{}{path}", world.url)).bearer_auth(token).json(&body).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{path}");
    }
    let by_password = client.post(format!("{}/-/reload", world.url)).basic_auth("boss", Some(PASSWORD)).send().await;
    assert_eq!(by_password.expect("an answer").status(), 200, "{}", world.logs());
    let notify = async |n: usize, asked: reqwest::RequestBuilder| {
        let body = NOTIFICATION.replace(FINGERPRINT, &format!("{n:016x}"));
        let answer = asked.header("content-type", "application/json").body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "sender {n}: {}", world.logs());
    };
    let webhook = || client.post(format!("{}/webhooks/alertmanager", world.url));
    for (n, token) in [TRIGGER, OPERATE, ADMIN].into_iter().enumerate() {
        notify(n, webhook().bearer_auth(token)).await;
    }
    notify(3, webhook().basic_auth("alerts", Some(PASSWORD))).await;
    let shown = async |w: &common::World| {
        let now = state(&client, &w.url).await;
        (now["alerts"][0]["firing"] == 4).then_some(now)
    };
    let after = world.until("four alerts are shown", std::time::Duration::from_secs(30), shown).await;
    assert_eq!((&after["mode"], &after["thresholds"]["max_nodes"]), (&json!("active"), &json!(17)), "{after}");
    let history = after["history"].to_string();
    for who in ["token:oncall", "token:deploy", "token:alertmanager", "user:boss", "user:alerts"] {
        assert!(history.contains(&format!("\"who\":\"{who}\"")), "{who} is not in {history}");
    }
    holds_no_secret(&world, &users, &[history, after.to_string()]);
}

/// The log at its most talkative and what the API told hold nothing that lets anyone in.
fn holds_no_secret(world: &common::World, users: &str, told: &[String]) {
    let log = std::fs::read_to_string(world.path("vecscale-1.log")).expect("the log");
    assert!(log.len() > 100_000, "requests are logged at debug");
    let hash = users.split('\'').nth(1).expect("a hash");
    let encoded = STANDARD.encode(format!("boss:{PASSWORD}"));
    for secret in [READ, TRIGGER, OPERATE, ADMIN, PASSWORD, hash, &encoded] {
        for text in std::iter::once(&log).chain(told) {
            if let Some(at) = text.find(secret) {
                panic!("{secret} is told: {}", &text[at.saturating_sub(200)..(at + 50).min(text.len())]);
            }
        }
    }
}
