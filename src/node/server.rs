//! The node's HTTP: which path goes where. Clients, the driver and other nodes come in by the same listener.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::cell::Refused;
use super::map::{ClusterMap, ShardKey};
use super::pace::{Meter, Pace};
use super::read::ReadRequest;
use super::state::{Failure, Limits, Node};
use super::wishes::Fetched;
use super::write::batch;
use super::{api, page};
use crate::http::{Answer, json as json_answer, read_body, serve};
use crate::model::NodeId;

/// The largest body: a batch of vectors.
const BODY_LIMIT: usize = 32 << 20;
/// The longest a fetch of wishes may wait.
const LONGEST_WAIT: f64 = 10.0;

/// How to run a node.
pub struct Settings {
    pub id: NodeId,
    pub listen: SocketAddr,
    pub data: PathBuf,
    pub limits: Limits,
}

/// Starts a node: takes its directory, binds, writes `{data}/address`. The future ends after `stop`, when running
/// requests have ended.
///
/// # Errors
/// When the directory or the address is taken or cannot be used.
pub async fn start(
    settings: Settings,
    meter: Meter,
    stop: CancellationToken,
) -> anyhow::Result<(String, impl Future<Output = ()>)> {
    let Settings { id, listen, data, limits } = settings;
    std::fs::create_dir_all(&data).with_context(|| format!("the data directory {} cannot be made", data.display()))?;
    let pace = Pace::new(limits.cpu_cores, meter);
    let node = Node::open(&data, id, limits, pace).with_context(|| format!("data directory {}", data.display()))?;
    let node = Arc::new(node);
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}\n    hint: is another program using the port? port 0 takes a free one")
    })?;
    let address = format!("http://{}", listener.local_addr()?);
    super::cell::write_durably(&data.join("address"), address.as_bytes())
        .with_context(|| format!("{} cannot be written", data.join("address").display()))?;
    tracing::info!(node = %node.id, %address, "the node listens");
    let run = async move {
        let service = {
            let node = node.clone();
            tower::service_fn(move |request| handle(node.clone(), request))
        };
        let background = async {
            node.load().await;
            tokio::join!(node.clone().keep(), node.pace.watch());
        };
        tokio::select! {
            () = serve(listener, None, service, stop) => {}
            () = background => {}
        }
    };
    Ok((address, run))
}

async fn handle(node: Arc<Node>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let is_data = matches!(parts.as_slice(), ["collections", _, "points", ..]);
    let outcome = match read_body(body, BODY_LIMIT).await {
        Ok(body) => route(&node, &head.method, &parts, head.uri.query().unwrap_or(""), &body).await,
        Err(error) => Err(Failure::new(error.status(), error.to_string())),
    };
    let answer = match outcome {
        Ok(Reply::Page(answer)) => answer,
        Ok(Reply::Plain(value)) => json_answer(StatusCode::OK, &value),
        Ok(Reply::Result(result)) => {
            let time = began.elapsed().as_secs_f64();
            json_answer(StatusCode::OK, &json!({"result": result, "status": "ok", "time": time}))
        }
        Err(Failure { status, error, epoch }) => {
            let time = began.elapsed().as_secs_f64();
            let mut body = json!({"status": {"error": error}, "time": time});
            if let Some(epoch) = epoch {
                body["epoch"] = json!(epoch);
            }
            json_answer(status, &body)
        }
    };
    if is_data {
        node.meters.request(answer.status());
    }
    Ok(answer)
}

enum Reply {
    Page(Answer),
    /// Between nodes and driver.
    Plain(Value),
    /// To clients, wrapped as Qdrant does.
    Result(Value),
}

async fn route(node: &Arc<Node>, method: &Method, path: &[&str], query: &str, body: &[u8]) -> Result<Reply, Failure> {
    match (method.as_str(), path) {
        (_, ["collections", rest @ ..]) => Ok(Reply::Result(api::answer(node, method, rest, body).await?)),
        ("GET", ["health"]) => Ok(Reply::Page(page::health(node))),
        ("GET", ["stats"]) => Ok(Reply::Page(page::stats(node))),
        ("GET", ["metrics"]) => Ok(Reply::Page(page::metrics(node))),
        ("GET", ["cluster", "map"]) => plain(&node.vote()),
        ("GET", ["cluster", "shards"]) => plain(&node.holdings()),
        ("GET", ["cluster", "wishes"]) => {
            let wait = number::<f64>(query, "wait").unwrap_or(0.0).clamp(0.0, LONGEST_WAIT);
            let wishes = node.wishes.fetch(Duration::from_secs_f64(wait)).await;
            plain(&Fetched { epoch: node.epoch(), ready: node.health().is_ok(), wishes })
        }
        ("POST", ["cluster", "wishes", "refuse"]) => {
            let Refusal { id, error } = parse(body)?;
            node.wishes.refuse(id, error);
            plain(&())
        }
        ("POST", ["cluster", "claim"]) => plain(&node.claim(parse::<Claim>(body)?.fence).await?),
        ("PUT", ["cluster", "map"]) => plain(&node.accept(parse(body)?).await?),
        ("PUT", ["cluster", "map", "learned"]) => plain(&node.learn(parse::<Arc<ClusterMap>>(body)?).await?),
        ("POST", ["internal", "read"]) => {
            let request: ReadRequest = parse(body)?;
            plain(&node.read_here(&request).await?)
        }
        (_, ["internal", collection, shard, verb]) => {
            let bad = || Failure::new(StatusCode::BAD_REQUEST, "no such shard or epoch");
            let (Ok(collection), Ok(shard)) = (collection.parse(), shard.parse()) else { return Err(bad()) };
            let epoch = number(query, "epoch").ok_or_else(bad)?;
            internal(node, ShardKey { collection, shard }, method, verb, epoch, query, body).await
        }
        _ => Err(Failure::new(StatusCode::NOT_FOUND, "no such path")),
    }
}

async fn internal(
    node: &Arc<Node>,
    key: ShardKey,
    method: &Method,
    verb: &str,
    epoch: u64,
    query: &str,
    body: &[u8],
) -> Result<Reply, Failure> {
    match (method.as_str(), verb) {
        ("GET", "sum") => return plain(&node.sum(key, epoch)?),
        ("POST", "write") => {
            let changes = batch(body)?.into_iter().map(|op| (op.id, op.change)).collect();
            node.write_here(key, epoch, changes).await?;
        }
        ("POST", "forward") => node.receive(key, epoch, body).await?,
        ("POST", "copy") => {
            let bad = || Failure::new(StatusCode::BAD_REQUEST, "a copy names the ids it speaks for");
            let (from, to) = (number(query, "from").ok_or_else(bad)?, number(query, "to").ok_or_else(bad)?);
            node.receive_copy(key, epoch, (from, to), body).await?;
        }
        _ => return Err(Failure::new(StatusCode::NOT_FOUND, "no such path")),
    }
    plain(&())
}

fn plain(value: &impl serde::Serialize) -> Result<Reply, Failure> {
    Ok(Reply::Plain(json!(value)))
}

#[derive(Deserialize)]
struct Claim {
    fence: u64,
}

#[derive(Deserialize)]
struct Refusal {
    id: u64,
    error: String,
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|e| Failure::new(StatusCode::BAD_REQUEST, format!("Format error in JSON body: {e}")))
}

fn number<T: std::str::FromStr>(query: &str, name: &str) -> Option<T> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    value.parse().ok()
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Io(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refused::Fenced { .. } => StatusCode::PRECONDITION_FAILED,
            Refused::Older { .. } | Refused::Foreign { .. } => StatusCode::CONFLICT,
        };
        Failure::new(status, refused.to_string())
    }
}
