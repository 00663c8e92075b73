//! The API of the `http` provider, which starts nodes that join the cluster, and takes machines away with their disks.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Shared;

/// Answers on a free port; gives the base of its paths.
pub async fn listen(shared: Arc<Shared>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}/v1", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = shared.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let (status, body) = answer(&shared, request.method().as_str(), request.uri().path());
                let body = if body.is_null() { String::new() } else { body.to_string() };
                let response = Response::builder().status(status).body(Full::<Bytes>::from(body));
                async move { response }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(connection);
        }
    });
    base
}

fn answer(shared: &Arc<Shared>, method: &str, path: &str) -> (u16, Value) {
    let node = path.strip_prefix("/v1/nodes/").unwrap_or_default();
    match (method, path) {
        ("GET", "/v1/nodes") => {
            let names: Vec<String> = shared.state().machines.keys().cloned().collect();
            (200, json!({"nodes": names.iter().map(|name| machine(shared, name)).collect::<Vec<_>>()}))
        }
        ("PUT", _) if !node.is_empty() => {
            if shared.state().machines.contains_key(node) {
                return (200, machine(shared, node));
            }
            {
                let now = shared.began.elapsed();
                let mut state = shared.state();
                let version = state.version.clone();
                state.cluster.start(now, node, &version);
                *state.ledger.made.entry(node.into()).or_default() += 1;
            }
            shared.clone().machine(node);
            (201, machine(shared, node))
        }
        ("DELETE", _) if !node.is_empty() => {
            let now = shared.began.elapsed();
            let mut state = shared.state();
            if state.machines.remove(node).is_none() {
                return (404, json!({"error": "no such node"}));
            }
            state.cluster.destroy(now, node);
            *state.ledger.removed.entry(node.into()).or_default() += 1;
            (204, Value::Null)
        }
        _ => (404, json!({"error": "no such path"})),
    }
}

fn machine(shared: &Arc<Shared>, node: &str) -> Value {
    let at = shared.state().machines[node];
    json!({"id": node, "address": format!("http://{at}"), "instance": format!("i-{node}"), "ready": true})
}
