//! Reads for the whole cluster: each shard is asked at one of its active replicas, spread at random; a node that no
//! longer holds it says so, and the newer map decides where to ask next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::map::{ClusterMap, Collection, ShardKey};
use super::points::{Best, Point, normalize};
use super::shard::Shard;
use super::state::{Failure, Node};
use crate::model::{NodeId, ReplicaState};

/// A read of the whole cluster ends within this time.
const LIMIT: Duration = Duration::from_secs(10);
/// A replica may take so long where another could answer: one that hangs must not take the whole time with it.
const REPLICA_LIMIT: Duration = Duration::from_secs(3);
/// Vectors compared in one turn.
const PIECE: usize = 1024;

/// What is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Search { vector: Vec<f32>, limit: usize, with: With },
    Get { ids: Vec<u64>, with: With },
    Count,
}

/// What comes along with a point.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct With {
    pub payload: bool,
    pub vector: bool,
}

/// A read of some shards of one node, each with the epoch of its assignment as the asker knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadRequest {
    pub collection: u64,
    pub shards: Vec<(u32, u64)>,
    pub ask: Ask,
}

/// What some shards answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReadAnswer {
    pub points: Vec<Found>,
    pub count: u64,
}

/// A point as it is answered, in Qdrant's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<f32>>,
}

impl Node {
    /// The best `limit` points of a collection, by cosine.
    ///
    /// # Errors
    /// 404, 400 for a vector of the wrong size, 503 when a shard has no replica that answers.
    pub async fn search(
        self: &Arc<Self>,
        name: &str,
        mut vector: Vec<f32>,
        limit: usize,
        with: With,
    ) -> Result<Vec<Found>, Failure> {
        let (_, collection) = self.collection(name).await?;
        check_vector(&vector, collection.params.size)?;
        normalize(&mut vector);
        let all = (0..collection.params.shard_number).collect();
        let answers = self.gather(name, all, &Ask::Search { vector, limit, with }).await?;
        let mut points: Vec<Found> = answers.into_iter().flat_map(|a| a.points).collect();
        let score = |p: &Found| p.score.unwrap_or(f32::NEG_INFINITY);
        points.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.id.cmp(&b.id)));
        points.truncate(limit);
        Ok(points)
    }

    /// The points of these ids that exist, in order of id.
    ///
    /// # Errors
    /// 404 for the collection, 503 when a shard has no replica that answers.
    pub async fn points(self: &Arc<Self>, name: &str, ids: Vec<u64>, with: With) -> Result<Vec<Found>, Failure> {
        let (_, collection) = self.collection(name).await?;
        let shards = ids.iter().map(|id| collection.shard_of(*id).shard).collect();
        let answers = self.gather(name, shards, &Ask::Get { ids, with }).await?;
        let mut points: Vec<Found> = answers.into_iter().flat_map(|a| a.points).collect();
        points.sort_by_key(|p| p.id);
        Ok(points)
    }

    /// How many points a collection has.
    ///
    /// # Errors
    /// 404, 503 when a shard has no replica that answers.
    pub async fn count(self: &Arc<Self>, name: &str) -> Result<u64, Failure> {
        let (_, collection) = self.collection(name).await?;
        let all = (0..collection.params.shard_number).collect();
        Ok(self.gather(name, all, &Ask::Count).await?.iter().map(|a| a.count).sum())
    }

    /// A collection by name. One that is unknown here may be known elsewhere already.
    ///
    /// # Errors
    /// 404, 503 without a map.
    pub async fn collection(self: &Arc<Self>, name: &str) -> Result<(Arc<ClusterMap>, Collection), Failure> {
        let known = |map: Arc<ClusterMap>| map.collections.get(name).cloned().map(|c| (map, c));
        let map = self.known_map()?;
        if let Some(found) = known(map.clone()) {
            return Ok(found);
        }
        let others = map.members.iter().filter(|(id, _)| **id != self.id);
        let asked = others.map(|(_, m)| self.peers.get(&m.address, "/cluster/map", Duration::from_millis(500)));
        let votes: Vec<super::cell::Vote> = join_all(asked).await.into_iter().flatten().collect();
        if let Some(newest) = votes.into_iter().filter_map(|v| v.learned).max_by_key(|m| m.epoch) {
            let _ = self.learn(newest).await; // what cannot be learned is not known
        }
        known(self.known_map()?).ok_or_else(|| {
            Failure::new(StatusCode::NOT_FOUND, format!("Not found: Collection `{name}` doesn't exist!"))
        })
    }

    /// Asks one active replica of each of the shards, another one when it does not answer.
    async fn gather(
        self: &Arc<Self>,
        name: &str,
        shards: BTreeSet<u32>,
        ask: &Ask,
    ) -> Result<Vec<ReadAnswer>, Failure> {
        let deadline = Instant::now() + LIMIT;
        let mut left = shards;
        let mut silent: BTreeMap<NodeId, Failure> = BTreeMap::new();
        let mut answers = Vec::new();
        while !left.is_empty() {
            let (map, collection) = self.collection(name).await?;
            let mut asked: BTreeMap<&NodeId, Vec<(u32, u64)>> = BTreeMap::new();
            let mut without_other = BTreeSet::new();
            for &shard in &left {
                let Some(assignment) = collection.shards.get(shard as usize) else { continue };
                let choice: Vec<_> = assignment.active().filter(|node| !silent.contains_key(*node)).collect();
                let alone = choice.len() == 1;
                let Some(node) = fastrand::choice(choice) else {
                    return Err(nobody(name, shard, assignment.active().find_map(|n| silent.get(n))));
                };
                asked.entry(node).or_default().push((shard, assignment.epoch));
                without_other.extend(alone.then_some(node));
            }
            let patience = Instant::now() + REPLICA_LIMIT;
            let asked = asked.into_iter().map(|(node, shards)| {
                let request = ReadRequest { collection: collection.id, shards, ask: ask.clone() };
                let address = map.members.get(node).map_or("", |m| m.address.as_str());
                let until = if without_other.contains(node) { deadline } else { deadline.min(patience) };
                async move {
                    let answer = self.read_at(node, address, &request, until).await;
                    (node, address, request.shards, answer)
                }
            });
            for (node, address, shards, answer) in join_all(asked).await {
                match answer {
                    Ok(answer) => {
                        left.retain(|shard| shards.iter().all(|(s, _)| s != shard));
                        answers.push(answer);
                    }
                    Err(stale) if stale.status == StatusCode::CONFLICT => self.reconcile(address, stale.epoch).await,
                    Err(failure) => drop(silent.insert(node.clone(), failure)),
                }
            }
            if Instant::now() >= deadline {
                return Err(Failure::unavailable(format!("the read took longer than {} s", LIMIT.as_secs())));
            }
        }
        Ok(answers)
    }

    async fn read_at(
        self: &Arc<Self>,
        node: &NodeId,
        address: &str,
        request: &ReadRequest,
        deadline: Instant,
    ) -> Result<ReadAnswer, Failure> {
        let limit = deadline.saturating_duration_since(Instant::now());
        if *node != self.id {
            return Ok(self.peers.ask(Method::POST, address, "/internal/read", Some(request), limit).await?);
        }
        let slow = |_| Failure::unavailable("the node is overloaded: no share of CPU in time");
        tokio::time::timeout(limit, self.read_here(request)).await.map_err(slow)?
    }

    /// Reads shards of this node.
    ///
    /// # Errors
    /// 409 when one of them is not active here, or the asker knows a newer assignment.
    pub async fn read_here(&self, request: &ReadRequest) -> Result<ReadAnswer, Failure> {
        let map = self.known_map()?;
        let mut shards = Vec::new();
        for &(shard, epoch) in &request.shards {
            let key = ShardKey { collection: request.collection, shard };
            let assignment = map.assignment(key).ok_or_else(|| self.stale("no such shard"))?;
            if assignment.state_of(&self.id) != Some(ReplicaState::Active) || epoch > assignment.epoch {
                return Err(self.stale("the shard is not active here"));
            }
            shards.push(self.shard(key)?);
        }
        let mut answer = ReadAnswer::default();
        match &request.ask {
            Ask::Count => answer.count = shards.iter().map(|s| s.read().len() as u64).sum(),
            Ask::Get { ids, with } => {
                self.pace.turn().await?;
                for shard in &shards {
                    let points = shard.read();
                    answer.points.extend(ids.iter().filter_map(|id| points.get(*id)).map(|p| found(p, None, *with)));
                }
            }
            Ask::Search { vector, limit, with } => {
                for shard in &shards {
                    answer.points.extend(self.scan(shard, vector, *limit, *with).await?);
                }
            }
        }
        Ok(answer)
    }

    async fn scan(&self, shard: &Shard, query: &[f32], limit: usize, with: With) -> Result<Vec<Found>, Failure> {
        let mut best = Best::new(limit);
        let mut at = Some(0);
        while let Some(slot) = at {
            self.pace.turn().await?;
            at = self.pace.work(|| shard.read().scan(slot, PIECE, query, &mut best));
        }
        let points = shard.read();
        // One that was deleted since it was compared is left out.
        let read = |(score, id)| points.get(id).map(|p| found(p, Some(score), with));
        Ok(best.found().into_iter().filter_map(read).collect())
    }
}

fn found(point: Point<'_>, score: Option<f32>, with: With) -> Found {
    let payload = point.payload.filter(|_| with.payload);
    Found {
        id: point.id,
        version: score.map(|_| point.version.seq),
        score,
        payload: payload.and_then(|text| serde_json::from_slice(text).ok()),
        vector: with.vector.then(|| point.vector.to_vec()),
    }
}

fn nobody(name: &str, shard: u32, last: Option<&Failure>) -> Failure {
    let why = last.map_or("it has no active replica", |f| f.error.as_str());
    let status = last.map_or(StatusCode::SERVICE_UNAVAILABLE, |f| f.status);
    Failure::new(status, format!("shard {name}/{shard}: no replica answers: {why}"))
}

/// # Errors
/// 400 for a vector of another size, or with numbers that are not finite.
pub fn check_vector(vector: &[f32], size: u32) -> Result<(), Failure> {
    let wrong = |what: String| Err(Failure::new(StatusCode::BAD_REQUEST, format!("Wrong input: {what}")));
    match vector.len() {
        got if got != size as usize => wrong(format!("Vector dimension error: expected dim: {size}, got {got}")),
        _ if vector.iter().any(|x| !x.is_finite()) => wrong("a vector holds a number too large for 32 bits".into()),
        _ => Ok(()),
    }
}
