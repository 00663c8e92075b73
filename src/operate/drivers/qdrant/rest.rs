//! The way to real nodes: HTTP or HTTPS, with the API key of a file. IO.

use async_trait::async_trait;
use http::{HeaderValue, Method};
use reqwest::{Client, ClientBuilder, Response};

use super::api::{Answer, Api, ApiError, Request};
use crate::http::{authorities, client, root_cause, secret};
use crate::operate::drivers::QdrantSettings;

/// Bytes of an answer, unpacked; a cluster of 10,000 shards says about 5 MiB.
const MAX_ANSWER: usize = 64 << 20;
const API_KEY: &str = "api-key";

/// Asks over HTTP.
pub struct Rest {
    settings: QdrantSettings,
    reads: Client,
    /// A connection of its own for each change: one that cannot be opened proves that nothing was sent.
    changes: Client,
}

impl Rest {
    /// # Errors
    /// When the certificates cannot be read, or no HTTP client can be made.
    pub fn new(settings: QdrantSettings) -> Result<Rest, String> {
        let trusted = settings.ca_file.as_deref().map(authorities).transpose()?;
        let made = |more: fn(ClientBuilder) -> ClientBuilder| {
            let client = client(|builder| match trusted.clone() {
                Some(certificates) => more(builder).tls_certs_only(certificates),
                None => more(builder),
            });
            client.map_err(|error| format!("no HTTP client: {}", root_cause(&error)))
        };
        let reads = made(|builder| builder)?;
        let changes = made(|builder| builder.pool_max_idle_per_host(0).retry(reqwest::retry::never()))?;
        Ok(Rest { settings, reads, changes })
    }
}

#[async_trait]
impl Api for Rest {
    async fn ask(&self, address: &str, request: Request) -> Result<Answer, ApiError> {
        let Request { method, path, body, timeout } = request;
        let client = if method == Method::GET { &self.reads } else { &self.changes };
        let mut asked = client.request(method, format!("{address}{path}")).timeout(timeout);
        if let Some(file) = &self.settings.api_key_file {
            let key = secret(file).await.map_err(ApiError::NotSent)?;
            let key = HeaderValue::from_str(&key).map(|mut value| {
                value.set_sensitive(true);
                value
            });
            let unfit = |_| ApiError::NotSent(format!("{}: what it holds cannot stand in a header", file.display()));
            asked = asked.header(API_KEY, key.map_err(unfit)?);
        }
        if let Some(body) = body {
            asked = asked.json(&body);
        }
        let response = asked.send().await.map_err(|error| {
            let why = root_cause(&error);
            match (error.is_connect() && !error.is_timeout()) || error.is_builder() {
                true => ApiError::NotSent(why),
                false if error.is_timeout() => ApiError::Lost(format!("nothing within {} s", timeout.as_secs_f64())),
                false => ApiError::Lost(why),
            }
        })?;
        read(response).await
    }
}

async fn read(mut response: Response) -> Result<Answer, ApiError> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER => {
                return Err(ApiError::Lost(format!("its answer is larger than {MAX_ANSWER} bytes")));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() }),
            Err(error) => return Err(ApiError::Lost(format!("its answer broke off: {}", root_cause(&error)))),
        }
    }
}
