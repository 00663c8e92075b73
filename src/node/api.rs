//! The clients' API: collections and points, in the paths and bodies of Qdrant's REST.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::log::Change;
use super::map::{ClusterMap, Params};
use super::points::normalize;
use super::read::{With, check_vector};
use super::state::{Failure, Node};
use super::wishes::Wish;
use crate::model::is_name;

/// How long a change of collections may wait for the controller.
const WISH_LIMIT: Duration = Duration::from_secs(10);
/// Points answered at most by one search.
const MOST: usize = 10_000;
/// Of a collection whose maker does not say.
const SHARDS: u32 = 12;

#[derive(Deserialize)]
struct CreateCollection {
    vectors: VectorParams,
    #[serde(default)]
    shard_number: Option<u32>,
    #[serde(default)]
    replication_factor: Option<u32>,
}

#[derive(Deserialize)]
struct VectorParams {
    size: u32,
    distance: String,
}

#[derive(Deserialize)]
struct Upsert {
    points: Vec<NewPoint>,
}

#[derive(Deserialize)]
struct NewPoint {
    id: u64,
    vector: Vec<f32>,
    #[serde(default)]
    payload: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct Delete {
    points: Vec<u64>,
}

#[derive(Deserialize)]
struct Get {
    ids: Vec<u64>,
    #[serde(default = "yes")]
    with_payload: bool,
    #[serde(default)]
    with_vector: bool,
}

#[derive(Deserialize)]
struct Search {
    #[serde(alias = "query")]
    vector: Vec<f32>,
    limit: usize,
    #[serde(default)]
    with_payload: bool,
    #[serde(default)]
    with_vector: bool,
    /// Refused, not passed over: an answer without it would be wrong.
    #[serde(default)]
    filter: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Count {
    #[serde(default)]
    filter: Option<IgnoredAny>,
}

fn yes() -> bool {
    true
}

/// Answers `/collections/…` with the `result` of Qdrant's answer.
///
/// # Errors
/// As Qdrant's status codes; 503 when the cluster cannot do it now.
pub async fn answer(node: &Arc<Node>, method: &Method, path: &[&str], body: &[u8]) -> Result<Value, Failure> {
    match (method.as_str(), path) {
        ("GET", []) => {
            let map = node.known_map()?;
            let names: Vec<_> = map.collections.keys().map(|name| json!({"name": name})).collect();
            Ok(json!({"collections": names}))
        }
        ("GET", [name]) => describe(node, name).await,
        ("PUT", [name]) => create(node, name, parse(body)?).await,
        ("DELETE", [name]) => delete_collection(node, name).await,
        ("PUT", [name, "points"]) => upsert(node, name, parse(body)?).await,
        ("POST", [name, "points"]) => {
            let Get { ids, with_payload, with_vector } = parse(body)?;
            Ok(json!(node.points(name, ids, With { payload: with_payload, vector: with_vector }).await?))
        }
        ("POST", [name, "points", "delete"]) => {
            let Delete { points } = parse(body)?;
            node.write(name, points.into_iter().map(|id| (id, Change::Delete)).collect()).await?;
            Ok(json!({"status": "completed"}))
        }
        ("POST", [name, "points", "search"]) => Ok(json!(search(node, name, parse(body)?).await?)),
        ("POST", [name, "points", "query"]) => {
            let points = search(node, name, parse(body)?).await?;
            Ok(json!({ "points": points }))
        }
        ("POST", [name, "points", "count"]) => {
            // Every count is exact here.
            let Count { filter } = if body.is_empty() { Count { filter: None } } else { parse(body)? };
            no_filter(filter)?;
            Ok(json!({"count": node.count(name).await?}))
        }
        ("GET", [name, "points", id]) => point(node, name, id).await,
        (_, [] | [_] | [_, "points"] | [_, "points", _]) => {
            Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not answered here")))
        }
        _ => Err(Failure::new(StatusCode::NOT_FOUND, "no such path")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| {
        let hint = "ids are whole numbers from 0 on, vectors are lists of numbers";
        Failure::new(StatusCode::BAD_REQUEST, format!("Format error in JSON body: {e} ({hint})"))
    })
}

fn wrong(what: impl std::fmt::Display) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, format!("Wrong input: {what}"))
}

fn no_filter(filter: Option<IgnoredAny>) -> Result<(), Failure> {
    filter.map_or(Ok(()), |_| Err(wrong("filters are not available in the built-in node")))
}

async fn describe(node: &Arc<Node>, name: &str) -> Result<Value, Failure> {
    let (_, collection) = node.collection(name).await?;
    let Params { size, shard_number, replication_factor } = collection.params;
    let whole = collection.shards.iter().all(|a| a.active().count() == a.replicas.len());
    Ok(json!({
        "status": if whole { "green" } else { "yellow" },
        // Not known is not zero.
        "points_count": node.count(name).await.ok(),
        "config": {"params": {
            "vectors": {"size": size, "distance": "Cosine"},
            "shard_number": shard_number,
            "replication_factor": replication_factor,
        }},
    }))
}

async fn create(node: &Arc<Node>, name: &str, wanted: CreateCollection) -> Result<Value, Failure> {
    if !is_name(name) {
        return Err(wrong("a collection's name has letters, digits, '.', '_' and '-', at most 63"));
    }
    if !wanted.vectors.distance.eq_ignore_ascii_case("cosine") {
        return Err(wrong(format!("distance {:?} is not available, only Cosine", wanted.vectors.distance)));
    }
    let params = Params {
        size: wanted.vectors.size,
        shard_number: wanted.shard_number.unwrap_or(SHARDS),
        replication_factor: wanted.replication_factor.unwrap_or(1),
    };
    for (what, value, most) in [
        ("vectors.size", params.size, 65_536),
        ("shard_number", params.shard_number, 1024),
        ("replication_factor", params.replication_factor, 8),
    ] {
        if !(1..=most).contains(&value) {
            return Err(wrong(format!("{what} is {value}, allowed: 1..={most}")));
        }
    }
    if node.known_map()?.collections.contains_key(name) {
        let text = format!("Wrong input: Collection `{name}` already exists!");
        return Err(Failure::new(StatusCode::CONFLICT, text));
    }
    let made = |map: &ClusterMap| map.collections.get(name).is_some_and(|c| c.params == params);
    granted(node, Wish::Create { collection: name.into(), params }, made).await?;
    Ok(json!(true))
}

async fn delete_collection(node: &Arc<Node>, name: &str) -> Result<Value, Failure> {
    if !node.known_map()?.collections.contains_key(name) {
        return Ok(json!(false));
    }
    let gone = |map: &ClusterMap| !map.collections.contains_key(name);
    granted(node, Wish::Delete { collection: name.into() }, gone).await?;
    Ok(json!(true))
}

/// Waits until the map shows what was wished.
async fn granted(node: &Arc<Node>, wish: Wish, shown: impl Fn(&ClusterMap) -> bool) -> Result<(), Failure> {
    let mut maps = node.maps();
    let mut held = node.wishes.wish(wish);
    let deadline = Instant::now() + WISH_LIMIT;
    let in_force = maps.wait_for(|m| m.as_ref().is_some_and(|m| shown(m)));
    tokio::select! {
        refused = &mut held.refused => {
            let why = refused.unwrap_or_else(|_| "the node is stopping".into());
            return Err(Failure::new(StatusCode::CONFLICT, format!("Wrong input: {why}")));
        }
        seen = timeout_at(deadline, in_force) => drop(seen.map_err(|_| {
            Failure::unavailable(format!(
                "no controller has changed the cluster map within {} s; collections need vecscale running",
                WISH_LIMIT.as_secs()
            ))
        })?),
    }
    node.tell_others().await;
    Ok(())
}

async fn upsert(node: &Arc<Node>, name: &str, wanted: Upsert) -> Result<Value, Failure> {
    let (_, collection) = node.collection(name).await?;
    let mut changes = Vec::with_capacity(wanted.points.len());
    for NewPoint { id, mut vector, payload } in wanted.points {
        check_vector(&vector, collection.params.size)?;
        node.pace.work(|| normalize(&mut vector));
        let payload = payload.map(|p| serde_json::to_vec(&p).expect("JSON that was read can be written"));
        changes.push((id, Change::Upsert { vector, payload }));
    }
    node.write(name, changes).await?;
    Ok(json!({"status": "completed"}))
}

async fn search(node: &Arc<Node>, name: &str, wanted: Search) -> Result<Vec<super::read::Found>, Failure> {
    no_filter(wanted.filter)?;
    if !(1..=MOST).contains(&wanted.limit) {
        return Err(wrong(format!("limit is {}, allowed: 1..={MOST}", wanted.limit)));
    }
    let began = Instant::now();
    let with = With { payload: wanted.with_payload, vector: wanted.with_vector };
    let found = node.search(name, wanted.vector, wanted.limit, with).await;
    node.meters.search(began.elapsed());
    found
}

async fn point(node: &Arc<Node>, name: &str, id: &str) -> Result<Value, Failure> {
    let id: u64 = id.parse().map_err(|_| wrong("a point's id is a whole number from 0 on"))?;
    let found = node.points(name, vec![id], With { payload: true, vector: true }).await?;
    let missing = || Failure::new(StatusCode::NOT_FOUND, format!("Not found: Point with id {id} does not exists!"));
    Ok(json!(found.into_iter().next().ok_or_else(missing)?))
}
