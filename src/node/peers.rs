//! Requests from one node to another, and from the driver to nodes. IO: HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How a request to a node failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PeerError {
    /// No connection: the request was certainly not carried out.
    #[error("{address} does not answer: {detail}")]
    Unreachable { address: String, detail: String },
    /// It broke off: the request may have been carried out.
    #[error("{address} broke off: {detail}")]
    Broken { address: String, detail: String },
    /// It was answered with an error.
    #[error("{address} answered {status}: {detail}")]
    Refused { address: String, status: StatusCode, detail: String, epoch: Option<u64> },
}

/// The error answer of a node: Qdrant's shape, and with a 409 between nodes the epoch of the map it acts on.
#[derive(Deserialize)]
struct ErrorBody {
    status: ErrorStatus,
    #[serde(default)]
    epoch: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorStatus {
    error: String,
}

/// An HTTP client for nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    http: reqwest::Client,
}

impl Default for Peers {
    fn default() -> Self {
        let http = crate::http::client(|builder| {
            builder
                .connect_timeout(Duration::from_secs(1))
                // Below the listener's limit for an idle connection, or a request could meet its closing.
                .pool_idle_timeout(Duration::from_secs(3))
        })
        .expect("no file is read to build a client");
        Peers { http }
    }
}

impl Peers {
    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When it fails, takes longer than `limit`, or is answered with anything but 2xx.
    pub async fn send(
        &self,
        method: Method,
        address: &str,
        path: &str,
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Bytes, PeerError> {
        let body = body.into();
        let mut request = self.http.request(method, format!("{address}{path}")).timeout(limit);
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body);
        }
        let broken = |e: reqwest::Error| {
            let (address, detail) = (address.to_owned(), chain(&e));
            if e.is_connect() || e.is_builder() {
                PeerError::Unreachable { address, detail }
            } else {
                PeerError::Broken { address, detail }
            }
        };
        let answer = request.send().await.map_err(broken)?;
        let status = answer.status();
        let whole = answer.bytes().await.map_err(broken)?;
        if status.is_success() {
            return Ok(whole);
        }
        let address = address.to_owned();
        Err(match serde_json::from_slice::<ErrorBody>(&whole) {
            Ok(body) => PeerError::Refused { address, status, detail: body.status.error, epoch: body.epoch },
            Err(_) => PeerError::Refused { address, status, detail: "no reason given".into(), epoch: None },
        })
    }

    /// As [`Peers::send`], with JSON both ways.
    ///
    /// # Errors
    /// As there, and when the answer is not what was expected.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        address: &str,
        path: &str,
        body: Option<&impl serde::Serialize>,
        limit: Duration,
    ) -> Result<T, PeerError> {
        let body = body.map(|b| serde_json::to_vec(b).expect("our own values have string keys")).unwrap_or_default();
        let whole = self.send(method, address, path, body, limit).await?;
        serde_json::from_slice(&whole).map_err(|e| PeerError::Broken {
            address: address.into(),
            detail: format!("the answer to {path} cannot be read: {e}"),
        })
    }

    /// A GET of JSON.
    ///
    /// # Errors
    /// As [`Peers::ask`].
    pub async fn get<T: DeserializeOwned>(&self, address: &str, path: &str, limit: Duration) -> Result<T, PeerError> {
        self.ask(Method::GET, address, path, None::<&()>, limit).await
    }
}

/// An error with its causes: reqwest's own words leave out why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
