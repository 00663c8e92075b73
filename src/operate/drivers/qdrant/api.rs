//! How Qdrant is asked: one request to one node, one answer of it. The driver knows no more of the way there than this,
//! so that an invented cluster can answer in its place.

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use serde_json::Value;

/// One request. The node that is asked stands beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: Method,
    /// With its query, if it has one: `/collections/docs/cluster?timeout=5`.
    pub path: String,
    /// JSON to be sent along.
    pub body: Option<Value>,
    /// How long the whole of it may take.
    pub timeout: Duration,
}

impl Request {
    pub fn get(path: impl Into<String>, timeout: Duration) -> Request {
        Request { method: Method::GET, path: path.into(), body: None, timeout }
    }
}

/// What a node answered, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// JSON mostly; plain text where Qdrant writes no JSON, as with a missing key.
    pub body: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Not a byte of the request has left: nothing can have come of it.
    #[error("nothing was sent: {0}")]
    NotSent(String),
    /// It may have been heard: a timeout, a closed connection, half an answer.
    #[error("no answer: {0}")]
    Lost(String),
}

/// Asks nodes of a Qdrant cluster.
#[async_trait]
pub trait Api: Send + Sync {
    /// One request to the node at `address` (`http://host:port`), never sent a second time by itself.
    async fn ask(&self, address: &str, request: Request) -> Result<Answer, ApiError>;
}
