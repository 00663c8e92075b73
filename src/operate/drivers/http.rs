//! Provider over an HTTP API of the user's. What the API says beyond the contract is "unknown", and no request is ever
//! sent a second time by itself.
//!
//! | answer | to `PUT nodes/{id}` | to `DELETE nodes/{id}` |
//! |---|---|---|
//! | 200, 201 | done, with the node as JSON | done |
//! | 202 | in progress: asked again with the same key | in progress |
//! | 204 | unknown: it names no node | done |
//! | 404, 410 | refused, no effect | already done, if the list does not show the node either |
//! | 409, 412 | refused, no effect (an old fence, say) | refused, no effect |
//! | 408 | unknown: a gateway may have given up on an API that goes on | unknown |
//! | other 4xx | refused, no effect | refused, no effect |
//! | 3xx, 5xx, anything else | unknown; redirects are not followed | unknown |
//! | no connection | no effect: nothing was sent | no effect |
//! | no answer, half of one, one over 1 MiB, unreadable, for another node | unknown | unknown |

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::Value;

use super::written::{created, creation, listed};
use super::{Call, Effect, HttpSettings, NewNode, Provider, Unanswered, Victim};
use crate::http::{bearer, client, root_cause};
use crate::model::{Machine, NodeId};

/// A list is asked for at every check: it has to be quick.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer, unpacked.
const MAX_ANSWER: usize = 1 << 20;
/// How much of what the API said goes into an error.
const QUOTED_CHARS: usize = 300;

/// Makes, destroys and lists nodes by asking an API.
pub struct HttpProvider {
    client: Client,
    settings: HttpSettings,
}

/// Why there is no answer.
enum Failed {
    /// Not a byte of the request has left.
    NotSent(String),
    /// It may have been heard.
    Lost(String),
}

impl From<Failed> for Effect<Answer> {
    fn from(failed: Failed) -> Effect<Answer> {
        match failed {
            Failed::NotSent(why) => Effect::NoEffect(why),
            Failed::Lost(why) => Effect::Unknown(why),
        }
    }
}

/// What the API answered.
struct Answer {
    status: StatusCode,
    /// As much of it as came, and as may be kept.
    body: Vec<u8>,
    /// Why that is not all.
    broken: Option<String>,
    /// The token that was sent, which an API may repeat in its answer.
    secret: Option<String>,
}

impl HttpProvider {
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(settings: HttpSettings) -> reqwest::Result<HttpProvider> {
        // A connection of its own for each call: one that cannot be opened proves that nothing was sent, and one that was
        // closed while it lay idle is never mistaken for a lost answer.
        let client = client(|builder| {
            let builder = builder.connect_timeout(CONNECT_DEADLINE).pool_max_idle_per_host(0);
            builder.retry(reqwest::retry::never())
        })?;
        Ok(HttpProvider { client, settings })
    }

    fn url(&self, node: Option<&NodeId>) -> Url {
        let mut url = self.settings.base.clone();
        let mut path = url.path_segments_mut().expect("http and https have paths");
        path.pop_if_empty().push("nodes").extend(node.map(NodeId::as_str));
        drop(path);
        url
    }

    async fn ask(
        &self,
        method: Method,
        node: Option<(&NodeId, &Call)>,
        body: Option<&Value>,
        deadline: Duration,
    ) -> Result<Answer, Failed> {
        let url = self.url(node.map(|(id, _)| id));
        let mut request = self.client.request(method, url).timeout(deadline).header(ACCEPT, "application/json");
        let mut secret = None;
        if let Some(file) = &self.settings.credentials_file {
            let bearer = bearer(file).await.map_err(Failed::NotSent)?;
            secret = bearer.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(String::from);
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some((_, call)) = node {
            request = request.header("Idempotency-Key", &call.key).header("Vecscale-Fence", call.fence);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| {
            let why = root_cause(&error);
            if error.is_connect() || error.is_builder() {
                Failed::NotSent(format!("nothing was sent: {why}"))
            } else if error.is_timeout() {
                Failed::Lost(format!("no answer within {} s", deadline.as_secs_f64()))
            } else {
                Failed::Lost(format!("no answer: {why}"))
            }
        })?;
        Ok(Answer::read(response, secret).await)
    }
}

impl Answer {
    async fn read(mut response: Response, secret: Option<String>) -> Answer {
        let status = response.status();
        let mut body = Vec::new();
        let broken = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = MAX_ANSWER - body.len();
                    body.extend_from_slice(&chunk[..room.min(chunk.len())]);
                    if chunk.len() > room {
                        break Some(format!("its answer is larger than {MAX_ANSWER} bytes"));
                    }
                }
                Ok(None) => break None,
                Err(error) => {
                    break Some(format!("its answer broke off after {} bytes: {}", body.len(), root_cause(&error)));
                }
            }
        };
        Answer { status, body, broken, secret }
    }

    /// The body, if all of it came.
    fn whole(&self) -> Result<&[u8], String> {
        self.broken.clone().map_or(Ok(&self.body), Err)
    }

    /// Without the token, which is cut out before anything is cut short.
    fn hidden(&self, text: String) -> String {
        self.secret.as_ref().map_or(text.clone(), |secret| text.replace(secret, "***"))
    }

    /// The status, with the beginning of what the API said, fit for one line.
    fn said(&self) -> String {
        let text = self.hidden(String::from_utf8_lossy(&self.body).into_owned());
        let printable = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
        let words: String = printable.take(QUOTED_CHARS).collect();
        let hint = if self.status.is_redirection() { ", redirects are not followed" } else { "" };
        let status = format!("HTTP {}{hint}", self.status);
        if words.is_empty() { status } else { format!("{status}: {words}") }
    }

    /// What the status means, whatever was asked for.
    fn effect(self) -> Effect<Answer> {
        match self.status.as_u16() {
            200 | 201 | 204 => Effect::Done(self),
            202 => Effect::InProgress,
            408 => Effect::Unknown(self.said()),
            400..=499 => Effect::NoEffect(format!("refused: {}", self.said())),
            _ => Effect::Unknown(self.said()),
        }
    }
}

/// An answer to `DELETE` need say nothing; if it names a node, then the right one.
fn names_another(body: &[u8], node: &NodeId) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let id = answer.get("id")?;
    let shown: String = id.to_string().chars().take(80).collect();
    (id != node.as_str()).then(|| format!("asked for {node}, it answered {shown}"))
}

#[async_trait]
impl Provider for HttpProvider {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        let failed = |why: String| Unanswered(format!("GET {}: {why}", self.url(None)));
        let answer = match self.ask(Method::GET, None, None, LIST_DEADLINE).await {
            Ok(answer) => answer,
            Err(Failed::NotSent(why) | Failed::Lost(why)) => return Err(failed(why)),
        };
        if answer.status != StatusCode::OK {
            return Err(failed(answer.said()));
        }
        let machines = answer.whole().and_then(|body| listed("its answer", body));
        machines.map_err(|why| failed(answer.hidden(why)))
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        let body = creation(call, new);
        let asked = self.ask(Method::PUT, Some((&new.id, call)), Some(&body), call.deadline).await;
        match asked.map_or_else(Effect::from, Answer::effect) {
            Effect::Done(answer) => {
                let machine = answer.whole().and_then(|body| created("its answer", body, &new.id));
                machine.map_or_else(|why| Effect::Unknown(answer.hidden(why)), Effect::Done)
            }
            Effect::InProgress => Effect::InProgress,
            Effect::NoEffect(why) => Effect::NoEffect(why),
            Effect::Unknown(why) => Effect::Unknown(why),
        }
    }

    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()> {
        let node = &machine.id;
        let asked = self.ask(Method::DELETE, Some((node, call)), None, call.deadline).await;
        if let Ok(answer) = &asked
            && matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE)
        {
            // A wrong path answers so too: the node is gone only if the list agrees.
            return match self.list().await {
                Ok(machines) if machines.iter().all(|machine| machine.id != *node) => Effect::Done(()),
                Ok(_) => Effect::Unknown(format!("{}; but it is listed", answer.said())),
                Err(why) => Effect::Unknown(format!("{}; and {why}", answer.said())),
            };
        }
        match asked.map_or_else(Effect::from, Answer::effect) {
            Effect::Done(answer) => match answer.whole().map(|body| names_another(body, node)) {
                Ok(None) => Effect::Done(()),
                Ok(Some(why)) | Err(why) => Effect::Unknown(answer.hidden(why)),
            },
            other => other.map(drop),
        }
    }

    fn victim(&self) -> Victim {
        self.settings.victim
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout
    }
}
