//! The contract with an API, call by call: what each answer and each fault means, that nothing is asked twice, and that no
//! text goes where it could do harm.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vecscale::model::{Machine, NodeId, OperationId};
use vecscale::operate::drivers::http::HttpProvider;
use vecscale::operate::drivers::{Call, Effect, HttpSettings, NewNode, Provider, Victim};

use crate::common::machines::{Machines, Manner};

use super::CALM;

fn settings(base: &str, credentials_file: Option<PathBuf>) -> HttpSettings {
    HttpSettings {
        base: base.parse().expect("an address"),
        timeout: Duration::from_secs(60),
        victim: Victim::Any,
        credentials_file,
    }
}

fn provider(base: &str) -> HttpProvider {
    HttpProvider::new(settings(base, None)).expect("a client")
}

fn node() -> NodeId {
    NodeId::new("n7").expect("a name")
}

fn call(fence: u64) -> Call {
    Call {
        pool: "p".into(),
        operation: OperationId("op".into()),
        step: "create",
        key: "op/1".into(),
        fence,
        deadline: Duration::from_secs(2),
    }
}

async fn put(base: &str) -> Effect<Machine> {
    provider(base).create(&call(7), &NewNode::named(node())).await
}

async fn delete(base: &str) -> Effect<()> {
    let machine = Machine { id: node(), address: "http://a:1".into(), zone: None, instance: None, ready: None };
    provider(base).destroy(&call(7), &machine).await
}

fn raw(text: &str) -> Manner {
    Manner::ThenRaw(text.as_bytes().to_vec())
}

fn then(status: u16, body: &str) -> Manner {
    Manner::Then(status, body.into())
}

fn instead(status: u16) -> Manner {
    Manner::Instead(status, "sorry, no room\n\u{1b}[31m".into())
}

/// A port where nobody must ever knock.
fn trap() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a mode");
    let url = format!("http://{}/v1/nodes/n7", listener.local_addr().expect("bound"));
    (listener, url)
}

#[tokio::test]
async fn every_answer_to_a_creation_has_its_meaning() {
    let good = r#"{"id":"n7","address":"http://10.0.0.1:6333","zone":"a'\";$(x)","more":[]}"#;
    let (trap, elsewhere) = trap();
    let mut cases = vec![
        ("made", Manner::Well, "Done", 1),
        ("made, 200", then(200, good), "Done", 1),
        ("in progress", Manner::InProgress(9), "InProgress", 0),
        ("no content", then(204, ""), "Unknown", 1),
        ("another good status", then(206, good), "Unknown", 1),
        ("nothing", then(200, ""), "Unknown", 1),
        ("garbage", then(200, "created n7"), "Unknown", 1),
        ("half", raw("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"id\":\"n7\""), "Unknown", 1),
        ("another node", then(200, r#"{"id":"n8","address":"http://a:1"}"#), "Unknown", 1),
        ("no name", then(200, r#"{"id":"../n7","address":"http://a:1"}"#), "Unknown", 1),
        ("no address", then(200, r#"{"id":"n7"}"#), "Unknown", 1),
        ("a file", then(200, r#"{"id":"n7","address":"file:///etc/passwd"}"#), "Unknown", 1),
        ("an address with a path", then(200, r#"{"id":"n7","address":"http://a:1/../x?y"}"#), "Unknown", 1),
        ("an address with a user", then(200, r#"{"id":"n7","address":"http://u:p@a:1"}"#), "Unknown", 1),
        ("an answer without an end", Manner::ThenEndless, "Unknown", 1),
        ("no answer", Manner::ThenSilence, "Unknown", 1),
        ("closed after the effect", raw(""), "Unknown", 1),
        ("closed before the effect", Manner::Unheard, "Unknown", 0),
        ("no HTTP", raw("+OK\r\n"), "Unknown", 1),
        ("a status beyond", raw("HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n"), "Unknown", 1),
        ("a gateway's timeout", instead(408), "Unknown", 0),
    ];
    for status in [400, 401, 403, 404, 405, 409, 410, 412, 413, 422, 423, 429, 499] {
        cases.push(("refused", instead(status), "NoEffect", 0));
    }
    for status in [500, 501, 502, 503, 504, 599] {
        cases.push(("ill after the effect", Manner::Then(status, "boom".into()), "Unknown", 1));
    }
    for status in [301, 302, 303, 307, 308] {
        cases.push(("elsewhere", Manner::Instead(status, elsewhere.clone()), "Unknown", 0));
    }
    for (what, manner, expected, made) in cases {
        let machines = Machines::new(&["n1"], CALM).await;
        machines.order("PUT", manner.clone());
        let began = Instant::now();
        let found = format!("{:?}", put(&machines.base).await);
        assert!(found.starts_with(expected), "{what}, {manner:?}: {found}");
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
        assert!(found.len() < 600 && !found.chars().any(char::is_control), "{what}: not one short line: {found}");
        let ledger = machines.ledger();
        assert_eq!((ledger.asked.len(), ledger.made.len()), (1, made), "{what}: asked once: {ledger:#?}");
        assert!(ledger.sent < 64 << 20, "{what}: {} bytes were taken", ledger.sent);
        if let Manner::Instead(400..=499, _) = manner {
            assert!(found.contains("sorry, no room"), "{what}: the API's own words: {found}");
        }
    }
    let knocked = trap.accept().map(|_| ()).map_err(|e| e.kind());
    assert_eq!(knocked, Err(ErrorKind::WouldBlock), "a redirect was followed");
}

#[tokio::test]
async fn every_answer_to_a_destruction_has_its_meaning() {
    let cases = [
        ("gone", Manner::Well, "Done", 1),
        ("gone, with a word", then(200, "bye"), "Done", 1),
        ("gone, with its name", then(200, r#"{"id":"n7"}"#), "Done", 1),
        ("another is gone", then(200, r#"{"id":"n1"}"#), "Unknown", 1),
        ("in progress", Manner::InProgress(1), "InProgress", 0),
        ("gone before", then(404, ""), "Done", 1),
        ("gone for good", then(410, ""), "Done", 1),
        ("not found, yet listed", instead(404), "Unknown", 0),
        ("an old fence", instead(409), "NoEffect", 0),
        ("a precondition", instead(412), "NoEffect", 0),
        ("not allowed", instead(403), "NoEffect", 0),
        ("ill after the effect", then(500, "boom"), "Unknown", 1),
        ("elsewhere", Manner::Instead(307, "http://127.0.0.1:9/v1/nodes/n7".into()), "Unknown", 0),
        ("closed after the effect", raw(""), "Unknown", 1),
        ("closed before the effect", Manner::Unheard, "Unknown", 0),
        ("half", raw("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{"), "Unknown", 1),
        ("without an end", Manner::ThenEndless, "Unknown", 1),
        ("no answer", Manner::ThenSilence, "Unknown", 1),
    ];
    for (what, manner, expected, removed) in cases {
        let machines = Machines::new(&["n1", "n7", "n9"], CALM).await;
        machines.order("DELETE", manner);
        let found = format!("{:?}", delete(&machines.base).await);
        assert!(found.starts_with(expected), "{what}: {found}");
        let ledger = machines.ledger();
        assert_eq!((ledger.asked.len(), ledger.removed.len()), (1, removed), "{what}: {ledger:#?}");
        assert!(machines.nodes().contains("n1") && machines.nodes().contains("n9"), "{what}: exactly one node");
    }
    let absent = Machines::new(&["n1"], CALM).await;
    assert_eq!(delete(&absent.base).await, Effect::Done(()));
    // Not found, and nobody can say whether it is listed.
    absent.order("GET", Manner::Instead(500, String::new()));
    assert!(matches!(delete(&absent.base).await, Effect::Unknown(_)));
}

#[tokio::test]
async fn a_list_is_taken_whole_or_not_at_all() {
    let machines = Machines::new(&["n2", "n1"], CALM).await;
    let listed = provider(&machines.base).list().await.expect("a list");
    assert_eq!(listed.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!((listed[0].instance.as_deref(), listed[0].ready), (Some("i-n1"), Some(true)));
    machines.order("GET", then(200, r#"{"nodes":[]}"#));
    assert_eq!(provider(&machines.base).list().await, Ok(vec![]), "what an empty list means is for the caller");

    let long = "a".repeat(10_000);
    let entry = |id: &str, address: &str| {
        let good = json!({"id": "n1", "address": "http://a:1"});
        then(200, &json!({"nodes": [good, {"id": id, "address": address}]}).to_string())
    };
    let ids =
        ["n1", "", "../up", "a/b", "a b", "a\nb", "a\0b", "$(id)", "`id`", "n'1", "n\"1", "-rf", "ä", "?x", "#", &long];
    let long_host = format!("http://{long}");
    let addresses =
        ["", "n2:1", "http://", "http://a:1/x", "http://a:1?x", "http://$(id):1", "http://a\n:1", &long_host];
    let mut cases: Vec<Manner> = ids.iter().map(|id| entry(id, "http://b:1")).collect();
    cases.extend(addresses.iter().map(|address| entry("n2", address)));
    cases.extend([201, 202, 204, 301, 400, 401, 404, 500, 503].map(|status| then(status, r#"{"nodes":[]}"#)));
    cases.extend(["", "{}", "[]", "n1 n2", r#"{"nodes":{}}"#, r#"{"nodes":[1]}"#].map(|body| then(200, body)));
    cases.extend([raw(""), raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"nodes\":[]}"), Manner::ThenEndless]);
    for manner in cases {
        machines.order("GET", manner.clone());
        let answer = provider(&machines.base).list().await;
        let why = answer.expect_err(&format!("{manner:?}")).to_string();
        assert!(why.len() < 600 && !why.chars().any(char::is_control), "not one short line: {why:?}");
    }
    assert!(machines.ledger().sent < 64 << 20, "{} bytes were taken", machines.ledger().sent);
}

#[tokio::test]
async fn what_was_never_sent_had_no_effect() {
    let (closed, _) = trap();
    let base = format!("http://{}", closed.local_addr().expect("bound"));
    drop(closed);
    assert!(matches!(put(&base).await, Effect::NoEffect(why) if why.contains("nothing was sent")));
    assert!(matches!(delete(&base).await, Effect::NoEffect(_)));
    assert!(provider(&base).list().await.is_err());
    // No TLS there: the request does not leave before the handshake.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("https://{}", plain.local_addr().expect("bound"));
    let heard = tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.expect("a connection");
        let mut heard = vec![0; 16 << 10];
        let read = stream.read(&mut heard).await.expect("a greeting");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("an answer");
        String::from_utf8_lossy(&heard[..read]).into_owned()
    });
    let effect = put(&base).await;
    assert!(matches!(effect, Effect::NoEffect(_)), "{effect:?}");
    let heard = heard.await.expect("no panic");
    assert!(!heard.contains("op/1") && !heard.contains("PUT"), "{heard}");
}

#[tokio::test]
async fn a_call_carries_its_key_its_fence_and_nothing_of_a_text_outside_the_body() {
    let machines = Machines::new(&[], CALM).await;
    let zone = "$(touch pwned)\r\nX-Evil: 1\0\"'../../\u{1f600}".to_string() + &"z".repeat(10_000);
    let dead = NodeId::new("n3").expect("a name");
    let new = NewNode { id: node(), zone: Some(zone.clone()), replaces: Some(dead) };
    let made = provider(&format!("{}/", machines.base)).create(&call(7), &new).await;
    assert!(matches!(made, Effect::Done(_)), "{made:?}");
    let asked = machines.ledger().asked.remove(0);
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("PUT", "/v1/nodes/n7"));
    assert_eq!((asked.key.as_str(), asked.fence, asked.authorization.as_str()), ("op/1", Some(7), ""));
    let expected = json!({"contract": 1, "pool": "p", "node": "n7", "operation": "op", "zone": zone, "replaces": "n3"});
    assert_eq!(asked.body, expected);
    for part in ["pwned", "Evil", "zzz", "n3"] {
        assert!(!asked.head.contains(part), "{part}: {}", asked.head);
    }
    // A lower fence than one seen before is refused, and nothing is done.
    let old = provider(&machines.base).create(&call(6), &NewNode::named(NodeId::new("n8").expect("a name"))).await;
    assert!(matches!(old, Effect::NoEffect(why) if why.contains("an old fence")));
    assert_eq!(machines.nodes().len(), 1);
}

#[tokio::test]
async fn a_token_is_read_anew_each_time_and_never_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    let machines = Machines::new(&["n1"], CALM).await;
    let provider = HttpProvider::new(settings(&machines.base, Some(file.clone()))).expect("a client");
    let create = async || provider.create(&call(7), &NewNode::named(node())).await;

    let missing = create().await;
    assert!(matches!(&missing, Effect::NoEffect(why) if why.contains("credentials file")), "{missing:?}");
    for unfit in ["", " \n", "two\nlines", "n\u{e4}"] {
        std::fs::write(&file, unfit).expect("a file");
        assert!(matches!(create().await, Effect::NoEffect(_)), "{unfit:?}");
    }
    assert!(machines.ledger().asked.is_empty(), "without its token nothing is asked");

    machines.demand("second-secret");
    std::fs::write(&file, "first-secret\n").expect("a file");
    let refused = create().await;
    assert!(matches!(&refused, Effect::NoEffect(why) if why.contains("who are you? Bearer ***")), "{refused:?}");
    let list = provider.list().await.expect_err("not let in").to_string();
    assert!(list.contains("401") && !list.contains("first-secret"), "{list}");

    std::fs::write(&file, "second-secret").expect("a file");
    for body in [r#"{"nodes": "second-secret"}"#, r#"{"nodes": [{"id": "n1", "address": "second-secret"}]}"#] {
        machines.order("GET", then(200, body));
        let why = provider.list().await.expect_err("no list").to_string();
        assert!(why.contains("***") && !why.contains("second-secret"), "{why}");
    }
    assert!(matches!(create().await, Effect::Done(_)), "a renewed token is used at once");
    assert!(
        !format!("{provider_settings:?}", provider_settings = settings(&machines.base, Some(file))).contains("secret")
    );
}
