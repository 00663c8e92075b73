//! Asks a Prometheus server, or one that speaks its API, for signals and for the health of nodes. IO. What an answer
//! means is read by plain functions (`answer`).

mod answer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, Url};
use tokio::time::Instant;

use super::Target;
use super::extract::Freshness;
use super::fetch::capped;
use crate::clock::Clock;
use crate::http::{bearer, root_cause, secret};
use crate::model::{Answer, Gap, NodeId, NodeSample, Raw, Signal};
use answer::Reply;

/// Bytes of an answer, unpacked: a thousand nodes need a tenth of it.
const MAX_ANSWER: usize = 4 << 20;
/// Queries at the same time; a server runs 20 of all its clients at once unless told otherwise.
const AT_ONCE: usize = 8;

/// What is asked of which server.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    pub server: ServerSettings,
    pub signals: BTreeMap<Signal, Query>,
    /// Which nodes are well: it stands in for the answers of their pages. Always by node.
    pub health: Option<Query>,
}

/// A server with Prometheus' HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// `http(s)://host[:port][/path]`, without user, query and fragment.
    pub url: Url,
    /// Of all queries of one look together.
    pub timeout: Duration,
    pub credentials: Option<Credentials>,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl ServerSettings {
    /// The longest that the queries may take, unless configured.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
}

/// Read anew from their files for each query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Bearer { credentials_file: PathBuf },
    Basic { username: String, password_file: PathBuf },
}

/// An instant query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub promql: String,
    /// The label that names the node of each sample, by its id or by the `host:port` of its address; `None`: the answer
    /// is one sample, for the whole pool.
    pub node_label: Option<String>,
    /// From the query's unit to the signal's.
    pub factor: f64,
}

/// What one look at the server brought.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub pool: BTreeMap<Signal, Result<f64, Gap>>,
    /// An entry for every target.
    pub by_node: BTreeMap<Signal, BTreeMap<NodeId, Result<f64, Gap>>>,
    /// The number of every target, 0 for ill; `None` where the pages tell.
    pub health: Option<BTreeMap<NodeId, Result<f64, Gap>>>,
    /// What is to be known of the queries: failures, and remarks of the server.
    pub notes: Vec<String>,
}

/// A server that can be asked.
#[derive(Debug)]
pub struct Prometheus {
    asking: Asking,
    client: Client,
    endpoint: Url,
}

impl Prometheus {
    /// # Errors
    /// When the certificates cannot be read, or no HTTP client can be made.
    pub fn new(asking: Asking) -> Result<Prometheus, String> {
        let trusted = asking.server.ca_file.as_deref().map(crate::http::authorities).transpose()?;
        let client = crate::http::client(|builder| match trusted.clone() {
            Some(certificates) => builder.tls_certs_only(certificates),
            None => builder,
        });
        let client = client.map_err(|error| format!("no HTTP client: {}", root_cause(&error)))?;
        let mut endpoint = asking.server.url.clone();
        endpoint.set_path(&format!("{}/api/v1/query", endpoint.path().trim_end_matches('/')));
        Ok(Prometheus { asking, client, endpoint })
    }

    /// Whether it is asked which nodes are well.
    pub(super) fn tells_health(&self) -> bool {
        self.asking.health.is_some()
    }

    /// All queries once. `interval` is the time between checks: a look ends before the next, and what is older than two
    /// of it is stale.
    pub(super) async fn ask(&self, targets: &[Target], interval: Duration, clock: &dyn Clock) -> Told {
        let signals = self.asking.signals.iter().map(|(signal, query)| (Some(signal), query));
        let all = signals.chain(self.asking.health.iter().map(|query| (None, query)));
        // The interval may have been set below the timeout while running.
        let timeout = self.asking.server.timeout.min(interval);
        let deadline = Instant::now() + timeout;
        let replies = all.map(async |(signal, query)| (signal, query, self.reply(query, timeout, deadline).await));
        let replies: Vec<_> = futures::stream::iter(replies.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
        let fresh = Freshness::two(interval, clock.now());
        let mut told = Told::default();
        for (signal, query, reply) in replies {
            told.take(signal, query, reply, targets, fresh);
        }
        told
    }

    /// Whether the node is well now.
    ///
    /// # Errors
    /// When that is not known.
    pub async fn is_well(&self, target: &Target, clock: &dyn Clock) -> Result<bool, Gap> {
        let query = self.asking.health.as_ref().ok_or_else(|| Gap::Query("no query tells of health".into()))?;
        let timeout = self.asking.server.timeout;
        let reply = self.reply(query, timeout, Instant::now() + timeout).await?;
        let fresh = Freshness::two(timeout, clock.now());
        let told = answer::by_node(&reply, query, &health_as_signal(), std::slice::from_ref(target), fresh);
        told.into_values().next().unwrap_or_else(|| Err(Gap::NoSeries(query.promql.clone()))).map(|well| well != 0.0)
    }

    async fn reply(&self, query: &Query, timeout: Duration, deadline: Instant) -> Result<Reply, Gap> {
        let asked = tokio::time::timeout_at(deadline, self.request(query, timeout)).await;
        asked.unwrap_or_else(|_| Err(Gap::Query(format!("no answer within {} s", timeout.as_secs_f64()))))
    }

    async fn request(&self, query: &Query, timeout: Duration) -> Result<Reply, Gap> {
        // A form, since a query may be longer than a URL. No `time`: the server's own now is the one its data has.
        let mut form = self.endpoint.clone();
        form.query_pairs_mut()
            .append_pair("query", &query.promql)
            .append_pair("timeout", &format!("{}ms", timeout.as_millis()));
        let body = form.query().unwrap_or_default().to_string();
        let request = self.client.post(self.endpoint.clone());
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        let request = self.authorized(request).await.map_err(Gap::Query)?;
        let response =
            request.send().await.map_err(|error| Gap::Query(format!("no answer: {}", root_cause(&error))))?;
        read(response).await
    }

    async fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder, String> {
        match &self.asking.server.credentials {
            None => Ok(request),
            Some(Credentials::Bearer { credentials_file }) => {
                Ok(request.header(AUTHORIZATION, bearer(credentials_file).await?))
            }
            Some(Credentials::Basic { username, password_file }) => {
                Ok(request.basic_auth(username, Some(secret(password_file).await?)))
            }
        }
    }
}

async fn read(response: Response) -> Result<Reply, Gap> {
    let status = response.status();
    if status.is_redirection() {
        return Err(Gap::Query(format!("HTTP {status}, redirects are not followed")));
    }
    let content_type = response.headers().get(CONTENT_TYPE).cloned().unwrap_or(HeaderValue::from_static(""));
    let is_json = content_type.as_bytes().starts_with(b"application/json");
    if !is_json && !status.is_success() {
        return Err(Gap::Query(format!("HTTP {status}")));
    }
    if !is_json {
        return Err(Gap::Query(format!("content type {content_type:?} is no answer of its API")));
    }
    let body = capped(response, MAX_ANSWER, "the answer").await.map_err(Gap::Query)?;
    answer::read(status, &body)
}

impl Told {
    /// Sorts one reply in; `signal: None` is the health.
    fn take(
        &mut self,
        signal: Option<&Signal>,
        query: &Query,
        reply: Result<Reply, Gap>,
        targets: &[Target],
        fresh: Freshness,
    ) {
        let name = signal.map_or("health", Signal::name);
        match &reply {
            Ok(reply) => self.notes.extend(reply.infos.iter().map(|info| format!("{name}: {info}"))),
            Err(gap) => self.notes.push(format!("{name}: {gap}")),
        }
        let number = signal.cloned().unwrap_or_else(health_as_signal);
        if query.node_label.is_none() {
            let value = reply.and_then(|reply| answer::one(&reply, query, &number, fresh));
            self.pool.insert(number, value);
            return;
        }
        let by_node = match reply {
            Ok(reply) => answer::by_node(&reply, query, &number, targets, fresh),
            Err(gap) => targets.iter().map(|target| (target.id.clone(), Err(gap.clone()))).collect(),
        };
        if signal.is_some() {
            self.by_node.insert(number, by_node);
        } else {
            self.health = Some(by_node);
        }
    }

    /// Adds to a sample what the server told of the node.
    pub(super) fn complete(&self, sample: &mut NodeSample) {
        if let Some(told) = self.health.as_ref().and_then(|health| health.get(&sample.node)) {
            sample.answer = health(told);
            if let Err(gap) = told {
                sample.signals.insert(health_as_signal(), Err(gap.clone())); // why it is not known
            }
        }
        for (signal, by_node) in &self.by_node {
            let told = by_node.get(&sample.node).map(|told| told.clone().map(Raw::Gauge));
            sample.signals.extend(told.map(|told| (signal.clone(), told)));
        }
    }
}

/// Health is a number as any other, and has no range of its own. No custom signal has this name.
fn health_as_signal() -> Signal {
    Signal::Custom("health".into())
}

/// 0 is ill, any other number well. A node that the answer does not name, or no answer at all, says nothing of health.
fn health(told: &Result<f64, Gap>) -> Answer {
    match told {
        Ok(0.0) => Answer::Ill,
        Ok(_) => Answer::Up,
        Err(_) => Answer::Unknown,
    }
}
