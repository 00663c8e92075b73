//! The listener of one node: there while its process listens, gone with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use vecscale::replay::qdrant::{Body, Reply};

use super::{Asked, Shared, bound};

/// How soon a process that ends or starts is noticed.
const LOOK: Duration = Duration::from_millis(10);

/// Serves until the machine is gone.
pub async fn node(shared: Arc<Shared>, node: String, at: SocketAddr, socket: TcpSocket) {
    let mut socket = Some(socket);
    while shared.state().machines.get(&node) == Some(&at) {
        tokio::time::sleep(LOOK).await;
        if !shared.state().cluster.listens(&node) {
            continue;
        }
        let Some(listener) = socket.take().or_else(|| bound(at).ok()).and_then(|socket| socket.listen(1024).ok())
        else {
            continue; // the port is still being given back
        };
        let mut connections = JoinSet::new();
        while shared.state().cluster.listens(&node) {
            if let Ok(Ok((stream, _))) = tokio::time::timeout(LOOK, listener.accept()).await {
                connections.spawn(connection(shared.clone(), node.clone(), stream));
            }
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        connections.shutdown().await;
        socket = bound(at).ok();
    }
}

async fn connection(shared: Arc<Shared>, node: String, stream: TcpStream) {
    // Whoever still waits when the process is killed gets a reset.
    #[allow(deprecated, reason = "zero seconds block nobody")]
    let _ = stream.set_linger(Some(Duration::ZERO));
    let answer = service_fn(move |request| {
        let (shared, node) = (shared.clone(), node.clone());
        async move { answer(&shared, &node, request).await }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

fn key(headers: &HeaderMap) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    header("api-key").or(bearer).map(Into::into)
}

/// An error closes the connection without an answer.
async fn answer(shared: &Shared, node: &str, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let (method, path) = (head.method.as_str(), head.uri.path_and_query().map_or("/", |p| p.as_str()));
    let reply = {
        let now = shared.began.elapsed();
        let mut state = shared.state();
        let refused = state.cluster.refuses(key(&head.headers).as_deref(), method, path);
        let reply = match refused {
            Some(refused) => refused,
            None => state.cluster.request(now, node, method, path, Some(&body).filter(|body| !body.is_null())),
        };
        let status = reply.clone().answer().map(|answer| answer.status);
        let (node, method, path) = (node.to_string(), method.to_string(), path.to_string());
        state.asked.push(Asked { node, method, path, body, status });
        reply
    };
    let answer = match reply {
        Reply::Answer(answer) => answer,
        Reply::Never => std::future::pending().await,
        Reply::Closed | Reply::Refused => return Err(Closed),
    };
    tokio::time::sleep(answer.after).await;
    while shared.state().cluster.is_hung(node) {
        tokio::time::sleep(LOOK).await;
    }
    let kind = match &answer.body {
        Body::Json(_) => "application/json",
        Body::Text(_) => "text/plain; charset=utf-8",
    };
    let response = Response::builder().status(answer.status).header(CONTENT_TYPE, kind);
    response.body(Full::from(answer.body.text())).map_err(|_| Closed)
}

#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
struct Closed;
