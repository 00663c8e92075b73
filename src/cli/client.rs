//! Asks a running vecscale over HTTP: an answer, or a failure in whole sentences. IO.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;
use super::args::{Connection, Output};
use super::shapes::Refused;
use super::text;
use crate::http::{bearer_value, root_cause};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A command waits for the journal and for the end of a turn.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The environment variable that may hold a bearer token.
const TOKEN: &str = "VECSCALE_TOKEN";

/// One vecscale, one pool, one way to show answers.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    pool: Option<String>,
    pub output: Output,
}

/// Why there is no answer to use.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing arrived, or something that is not vecscale's: whether it was heard is unknown.
    Lost(String),
    /// An answer that says no.
    Refused(StatusCode, String),
}

impl Unanswered {
    /// Whether asking again in a moment makes sense.
    pub fn is_passing(&self) -> bool {
        matches!(self, Unanswered::Lost(_) | Unanswered::Refused(StatusCode::SERVICE_UNAVAILABLE, _))
    }
}

impl From<Unanswered> for Failure {
    fn from(why: Unanswered) -> Failure {
        match why {
            Unanswered::Lost(text) | Unanswered::Refused(_, text) => Failure::failed(text),
        }
    }
}

impl Client {
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(connection: &Connection) -> Result<Client, Failure> {
        let headers: HeaderMap = token(connection)?.map(|token| (AUTHORIZATION, token)).into_iter().collect();
        let trusted = connection.ca_file.as_deref().map(certificates).transpose()?;
        let http = crate::http::client(|builder| {
            let builder = builder.connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT).default_headers(headers.clone());
            match &trusted {
                Some(trusted) => builder.tls_certs_only(trusted.iter().cloned()),
                None => builder,
            }
        });
        let http = http.map_err(|e| Failure::failed(format!("cannot set up HTTP: {}", root_cause(&e))))?;
        Ok(Client { http, base: connection.url.clone(), pool: connection.pool.clone(), output: connection.output })
    }

    /// # Errors
    /// See [`Unanswered`].
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Unanswered> {
        self.send(Method::GET, path, query, None, None).await
    }

    /// `key` makes a repeat harmless, so a request whose answer was lost is sent once more.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn post(&self, path: &str, body: Option<&Value>, key: Option<&str>) -> Result<Value, Unanswered> {
        match self.send(Method::POST, path, &[], body, key).await {
            Err(Unanswered::Lost(_)) if key.is_some() => self.send(Method::POST, path, &[], body, key).await,
            answered => answered,
        }
    }

    /// # Errors
    /// See [`Unanswered`].
    pub async fn delete(&self, path: &str) -> Result<Value, Unanswered> {
        self.send(Method::DELETE, path, &[], None, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Value, Unanswered> {
        let mut request = self.http.request(method, self.address(path, query));
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let lost = |error: reqwest::Error| {
            let cause = root_cause(&error);
            let hint = if cause.starts_with("invalid peer certificate") {
                "`--ca-file` names the certificates that vouch for the server's"
            } else {
                "is it running? `vecscale run` starts it, `--url` names another one"
            };
            Unanswered::Lost(format!("no answer from vecscale at {}: {cause}\n    hint: {hint}", self.base))
        };
        let answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(lost)?;
        if !status.is_success() {
            return Err(Unanswered::Refused(status, refusal(status, &body)));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Unanswered::Lost(format!(
                "{} answered something that is not vecscale's: {error}\n    hint: check `--url`",
                self.base
            ))
        })
    }

    fn address(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        let pool = self.pool.iter().map(|pool| ("pool", pool.as_str()));
        let all: Vec<(&str, &str)> = query.iter().map(|(k, v)| (*k, v.as_str())).chain(pool).collect();
        if !all.is_empty() {
            url.query_pairs_mut().extend_pairs(all);
        }
        url
    }
}

/// What we are known by; the flag counts before the environment.
fn token(connection: &Connection) -> Result<Option<HeaderValue>, Failure> {
    let read = match &connection.token_file {
        Some(file) => Some((format!("--token-file {}", file.display()), std::fs::read_to_string(file))),
        None => std::env::var(TOKEN).ok().map(|token| (TOKEN.to_string(), Ok(token))),
    };
    let Some((place, token)) = read else { return Ok(None) };
    let token = token.map_err(|error| error.to_string()).and_then(|token| bearer_value(&token).map_err(str::to_string));
    token.map(Some).map_err(|why| Failure::usage(format!("{place}: {why}")))
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, Failure> {
    let unusable = |why: &dyn fmt::Display| Failure::usage(format!("--ca-file {}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(unusable(&"no certificate in it\n    hint: PEM, -----BEGIN CERTIFICATE-----")),
    }
}

/// Reads an answer into the shape that is expected of it.
///
/// # Errors
/// When vecscale answered in another shape: it is of another version.
pub fn shaped<T: DeserializeOwned>(answer: &Value) -> Result<T, Failure> {
    T::deserialize(answer).map_err(|error| {
        Failure::failed(format!("the answer has an unexpected shape: {error}\n    hint: vecscale there is of another version than this command; `--output json` shows the answer"))
    })
}

/// problem+json as sentences, guards below it; any other body is shown in part.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let Ok(refused) = serde_json::from_slice::<Refused>(body) else {
        let body: String = String::from_utf8_lossy(body).chars().take(200).collect();
        let body = text::one_line(body.trim());
        let body = if body.is_empty() { "no explanation" } else { &body };
        return format!("refused with {status}: {body}\n    hint: check `--url`");
    };
    let mut said = if refused.detail.is_empty() {
        format!("refused with {status}")
    } else {
        format!("refused: {}", refused.detail)
    };
    if status == StatusCode::UNAUTHORIZED {
        said.push_str("\n    hint: `--token-file FILE`, or the token in the environment as VECSCALE_TOKEN");
    }
    for guard in &refused.guards {
        said.push_str(&format!("\n  {guard}"));
    }
    if let Some(operation) = &refused.operation {
        said.push_str(&format!("\n  operation: {operation}"));
    }
    said
}
