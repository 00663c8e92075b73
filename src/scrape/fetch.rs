//! Gets one page of one node over HTTP, within limits. IO.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Response, StatusCode, Url};

use crate::http::{bearer, root_cause};
use crate::model::{Answer, Gap};

use super::exposition::Dialect;
use super::settings::{Format, Page};

/// Bytes of a page, unpacked.
pub(super) const MAX_PAGE: usize = 32 << 20;

/// What Prometheus 3.5 asks with.
const ACCEPT_TEXT: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// A page as it came, not yet read.
pub(super) enum Body {
    Text(Dialect, Vec<u8>),
    Json(Vec<u8>),
}

/// How a node answered for one page, and the page or why there is none.
pub(super) struct Fetched {
    pub answer: Answer,
    pub body: Result<Body, Gap>,
}

impl Fetched {
    fn silent(why: String) -> Fetched {
        Fetched { answer: Answer::None, body: Err(Gap::NoAnswer(why)) }
    }

    fn unreadable(why: String) -> Fetched {
        Fetched { answer: Answer::Up, body: Err(Gap::Unreadable(why)) }
    }
}

/// Asks for one page until `deadline`. An answer counts as one once its status is there, whatever becomes of the body.
pub(super) async fn fetch(
    client: &Client,
    address: &str,
    page: &Page,
    timeout: Duration,
    deadline: tokio::time::Instant,
) -> Fetched {
    let url = match url(address, page) {
        Ok(url) => url,
        Err(why) => return Fetched::silent(why),
    };
    // Without the credentials the node is asked all the same: that they cannot be read here is no sign of its health.
    let credentials = match &page.authorization {
        Some(authorization) => bearer(&authorization.credentials_file).await.map(Some),
        None => Ok(None),
    };
    let mut request = client
        .get(url)
        .header(ACCEPT, if page.format == Format::Json { "application/json" } else { ACCEPT_TEXT })
        .header("X-Prometheus-Scrape-Timeout-Seconds", timeout.as_secs_f64().to_string());
    if let Ok(Some(bearer)) = &credentials {
        request = request.header(AUTHORIZATION, bearer.clone());
    }
    let response = match tokio::time::timeout_at(deadline, request.send()).await {
        Err(_) => return Fetched::silent(format!("nothing within {} s", timeout.as_secs_f64())),
        Ok(Err(error)) => return Fetched::silent(root_cause(&error)),
        Ok(Ok(response)) => response,
    };
    if let Err(why) = credentials {
        let answer = answer(response.status());
        return Fetched { answer, body: Err(Gap::Unreadable(why)) };
    }
    match tokio::time::timeout_at(deadline, read(response, page.format)).await {
        Err(_) => Fetched::unreadable(format!("half a page within {} s", timeout.as_secs_f64())),
        Ok(fetched) => fetched,
    }
}

fn answer(status: StatusCode) -> Answer {
    if status.is_server_error() || status.as_u16() >= 600 { Answer::Ill } else { Answer::Up }
}

async fn read(response: Response, format: Format) -> Fetched {
    let status = response.status();
    if status != StatusCode::OK {
        let hint = if status.is_redirection() { ", redirects are not followed" } else { "" };
        return Fetched { answer: answer(status), body: Err(Gap::Unreadable(format!("HTTP {status}{hint}"))) };
    }
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let dialect = Dialect::of_content_type(content_type);
    if format == Format::Text && dialect.is_none() {
        return Fetched::unreadable(format!("content type {content_type:?} is no Prometheus page"));
    }
    match capped(response, MAX_PAGE, "the page").await {
        Err(why) => Fetched::unreadable(why),
        Ok(bytes) => {
            let body = match dialect {
                Some(dialect) if format == Format::Text => Body::Text(dialect, bytes),
                _ => Body::Json(bytes),
            };
            Fetched { answer: Answer::Up, body: Ok(body) }
        }
    }
}

/// The whole body, if it has at most `limit` bytes; `what` is what errors call it.
pub(super) async fn capped(mut response: Response, limit: usize, what: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > limit => {
                return Err(format!("{what} is larger than {limit} bytes"));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => {
                return Err(format!("{what} broke off after {} bytes: {}", bytes.len(), root_cause(&error)));
            }
        }
    }
}

/// The page's address: of the node's, the scheme, host and port count.
fn url(address: &str, page: &Page) -> Result<Url, String> {
    let whole = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
    let unfit = |why: &dyn std::fmt::Display| format!("the address {address:?} is not http://host:port: {why}");
    let mut url = Url::parse(&whole).map_err(|error| unfit(&error))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(unfit(&"only http and https are spoken"));
    }
    if page.port.is_some() {
        url.set_port(page.port).map_err(|()| unfit(&"it takes no port"))?;
    }
    let (path, query) = page.path.split_once('?').map_or((page.path.as_str(), None), |(path, q)| (path, Some(q)));
    url.set_path(path);
    url.set_query(query);
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn where_a_page_is() {
        let page = |port, path: &str| Page {
            port,
            path: path.into(),
            format: Format::Text,
            signals: BTreeMap::new(),
            authorization: None,
        };
        let cases = [
            ("http://10.0.0.1:6333", page(None, "/metrics"), "http://10.0.0.1:6333/metrics"),
            ("10.0.0.1:6333", page(Some(9100), "/metrics"), "http://10.0.0.1:9100/metrics"),
            ("n1:6333", page(None, "/m?per_collection=true"), "http://n1:6333/m?per_collection=true"),
            ("[::1]:80", page(Some(81), "/m"), "http://[::1]:81/m"),
            ("https://n1:1", page(None, "/m"), "https://n1:1/m"),
            ("http://n1:1/x?y#z", page(None, "//evil/m"), "http://n1:1//evil/m"),
        ];
        for (address, page, expected) in cases {
            assert_eq!(url(address, &page).map(String::from), Ok(expected.to_string()));
        }
        for address in ["", "file:///etc/passwd", "http://", "http://a b"] {
            assert!(url(address, &page(None, "/m")).is_err(), "{address:?}");
        }
    }
}
