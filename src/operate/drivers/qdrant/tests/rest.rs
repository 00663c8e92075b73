//! The way to a node, over real sockets.

use std::convert::Infallible;

use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use super::super::rest::Rest;
use super::*;
use crate::http::{Tls, json, serve, typed};
use crate::operate::drivers::QdrantSettings;

const LIMIT: Duration = Duration::from_secs(5);

/// A node that says what it heard, and its port. It stops with the guard.
async fn echo(tls: Option<Tls>) -> (u16, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let service = tower::service_fn(|request: http::Request<Incoming>| async move {
        let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(String::from);
        let (key, kind) = (header("api-key"), header("content-type"));
        let (method, path) = (request.method().to_string(), request.uri().to_string());
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok::<_, Infallible>(match path.as_str() {
            "/moved" => typed(StatusCode::FOUND, "text/plain", "elsewhere"),
            "/401" => typed(StatusCode::UNAUTHORIZED, "text/plain", "Must provide an API key"),
            _ => json(StatusCode::OK, &json!({"heard": [method, path, key, kind, body]})),
        })
    });
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, tls, service, stop.clone()));
    (port, stop.drop_guard())
}

fn heard(answer: Result<Answer, ApiError>) -> Value {
    serde_json::from_str::<Value>(&answer.expect("an answer").body).expect("JSON")["heard"].clone()
}

#[tokio::test]
async fn key_method_path_and_body_arrive() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("key");
    std::fs::write(&file, "first\n").expect("a file");
    let (port, _stop) = echo(None).await;
    let address = format!("http://127.0.0.1:{port}");
    let rest = Rest::new(QdrantSettings { api_key_file: Some(file.clone()), ca_file: None }).expect("a client");
    let seen = heard(rest.ask(&address, Request::get("/cluster?x=1", LIMIT)).await);
    assert_eq!(seen, json!(["GET", "/cluster?x=1", "first", null, ""]));
    std::fs::write(&file, "second").expect("a file");
    let change = Request {
        method: http::Method::POST,
        path: "/collections/a%20b/cluster?timeout=10".into(),
        body: Some(json!({"drop_replica": 1})),
        timeout: LIMIT,
    };
    let seen = heard(rest.ask(&address, change.clone()).await);
    let path = "/collections/a%20b/cluster?timeout=10";
    assert_eq!(seen, json!(["POST", path, "second", "application/json", "{\"drop_replica\":1}"]), "read anew");
    // What is not 200 is an answer too, and a redirect is not followed.
    for (path, status, body) in [("/401", 401, "Must provide an API key"), ("/moved", 302, "elsewhere")] {
        let answer = rest.ask(&address, Request::get(path, LIMIT)).await;
        assert_eq!(answer, Ok(Answer { status, body: body.into() }));
    }
    std::fs::remove_file(&file).expect("it was there");
    let without = rest.ask(&address, change).await;
    assert!(matches!(&without, Err(ApiError::NotSent(why)) if why.contains("key: No such file")), "{without:?}");
    let open = Rest::new(QdrantSettings::default()).expect("a client");
    assert_eq!(heard(open.ask(&address, Request::get("/", LIMIT)).await)[2], Value::Null);
}

#[tokio::test]
async fn what_was_not_sent_is_told_from_what_was_lost() {
    let rest = Rest::new(QdrantSettings::default()).expect("a client");
    let change =
        |timeout| Request { method: http::Method::DELETE, path: "/cluster/peer/1".into(), body: None, timeout };
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", free.local_addr().expect("an address"));
    // It hears and says nothing; then it hears and goes away.
    let silent = rest.ask(&address, change(Duration::from_millis(200))).await;
    assert!(matches!(&silent, Err(ApiError::Lost(why)) if why.contains("nothing within 0.2 s")), "{silent:?}");
    let closing = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = free.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let closed = rest.ask(&address, change(LIMIT)).await;
    assert!(matches!(closed, Err(ApiError::Lost(_))), "{closed:?}");
    closing.abort();
    // A port that is taken and does not listen, so that nobody else can be there.
    let deaf = TcpSocket::new_v4().expect("a socket");
    deaf.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = format!("http://{}", deaf.local_addr().expect("an address"));
    let gone = rest.ask(&address, change(LIMIT)).await;
    assert!(matches!(&gone, Err(ApiError::NotSent(why)) if why.contains("refused")), "{gone:?}");
}

#[tokio::test]
async fn only_the_named_authority_is_trusted() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let place =
        |name: &str| std::path::PathBuf::from(format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR")));
    let chain = CertificateDer::pem_file_iter(place("localhost.pem")).expect("a file");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(place("localhost.key")).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let config = Arc::new(config);
    let (port, _stop) = echo(Some(Arc::new(move || config.clone()))).await;
    let address = format!("https://localhost:{port}");
    let trusting = Rest::new(QdrantSettings { api_key_file: None, ca_file: Some(place("ca.pem")) }).expect("a client");
    assert_eq!(heard(trusting.ask(&address, Request::get("/cluster", LIMIT)).await)[1], "/cluster");
    let wary = Rest::new(QdrantSettings::default()).expect("a client");
    let refused = wary.ask(&address, Request::get("/cluster", LIMIT)).await;
    assert!(matches!(refused, Err(ApiError::NotSent(_))), "the handshake comes before the request: {refused:?}");
    let absent = Rest::new(QdrantSettings { api_key_file: None, ca_file: Some("/absent".into()) });
    assert!(absent.err().expect("no file").contains("/absent: No such file"));
}
