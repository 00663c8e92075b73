//! What the parts of the program share of HTTP. The HTTP/1.1 listener of the controller and the vector node: limits on
//! headers, bodies, time and connections, and an orderly end. Of clients: how they are made, addresses, credentials.

mod patient;

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use patient::Patient;

/// A whole answer, in memory.
pub type Answer = Response<Full<Bytes>>;

/// Header must arrive within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Body must arrive within this time.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long running requests may take to end once the listener stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// Where a request comes from; put among the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// How the handshake of a request's connection came out; among the extensions of a request over TLS.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// With what it was made: a long connection outlives what is in force.
    pub config: Arc<rustls::ServerConfig>,
    /// What the peer showed: its own certificate, then those between it and a CA. Empty: none.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// With what a connection's handshake is made; asked anew for each, so that a renewed certificate is used at once.
pub type Tls = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

/// Serves until `stop`, then lets running requests end. Without `tls` it is plain HTTP.
pub async fn serve<S>(listener: TcpListener, tls: Option<Tls>, service: S, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                (listener.accept().await, place)
            } => accepted,
        };
        let (Ok((stream, peer)), place) = accepted else {
            // Out of file descriptors, or a connection that died at once: give others time to close.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (service, watcher, tls) = (service.clone(), graceful.watcher(), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            let Some(tls) = tls else { return talk(stream, told(service, peer, None), watcher).await };
            let config = tls();
            // A peer that never ends its handshake is one that never sends its header.
            if let Ok(Some(stream)) = tokio::time::timeout(HEADER_TIMEOUT, secured(stream, config.clone())).await {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().into();
                talk(stream, told(service, peer, Some(Handshake { config, certificates })), watcher).await;
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

/// Puts what is known of the connection among the extensions of each request.
fn told<S>(
    service: S,
    peer: SocketAddr,
    handshake: Option<Handshake>,
) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send + 'static> + Clone + Send + 'static
where
    S: Service<Request<Incoming>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        if let Some(handshake) = &handshake {
            request.extensions_mut().insert(handshake.clone());
        }
        let mut service = service.clone();
        async move { service.call(request).await }
    })
}

/// The requests of one connection, one after the other.
async fn talk<S>(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, service: S, watcher: Watcher)
where
    S: Service<Request<Incoming>, Response = Answer, Error = Infallible> + Clone + 'static,
{
    let service = TowerToHyperService::new(service);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    let _ = watcher.watch(connection).await; // a peer that hangs up is no event of ours
}

/// The handshake. `None`: it came to nothing, or the peer speaks plain HTTP and was told so, in the words of Go's server.
async fn secured(mut stream: TcpStream, config: Arc<rustls::ServerConfig>) -> Option<TlsStream<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    if first[0].is_ascii_uppercase() {
        let mut asked = [0; 4096]; // what is left unread would tear the connection down before the answer arrives
        let _ = stream.read(&mut asked).await;
        let told = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        let _ = stream.write_all(told.as_bytes()).await; // a peer that hangs up is no event of ours
        return None;
    }
    TlsAcceptor::from(config).accept(stream).await.ok()
}

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive within {} s", BODY_TIMEOUT.as_secs())]
    TooSlow,
    #[error("the body broke off")]
    Broken,
}

impl BodyError {
    pub fn status(self) -> StatusCode {
        match self {
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Of a body that is too large, so much more is read and let go, so that the refusal reaches a client that is still writing.
const READ_OF_REFUSED: usize = 4 << 20;

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// When it is larger, slower than [`BODY_TIMEOUT`], or breaks off.
pub async fn read_body(body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    tokio::time::timeout(BODY_TIMEOUT, read_whole(body, limit)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn read_whole(mut body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        seen += data.len();
        if seen <= limit {
            whole.extend_from_slice(&data);
        } else if seen > limit + READ_OF_REFUSED {
            break;
        }
    }
    if seen > limit { Err(BodyError::TooLarge(limit)) } else { Ok(whole.freeze()) }
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    typed(status, "application/json", serde_json::to_vec(value).expect("our own values have string keys"))
}

/// An answer with a body of the given content type.
pub fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A client as all parts of the program make theirs: ring for TLS, no proxy, no redirects; `more` sets what differs.
/// A machine without root certificates gets one that can do plain HTTP only.
///
/// # Errors
/// When no client can be made.
pub fn client(more: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> reqwest::Result<reqwest::Client> {
    // Whoever comes first installs it; all parts of the program use the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let common = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("vecscale/", env!("CARGO_PKG_VERSION")));
        more(common)
    };
    builder().build().or_else(|_| builder().tls_certs_only([]).build())
}

/// The certificates of a file, as the only authorities that a client trusts.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn authorities(file: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
    let all =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| format!("{shown}: {}", root_cause(&error)))?;
    if all.is_empty() { Err(format!("{shown}: it holds no certificate")) } else { Ok(all) }
}

/// The value of `Authorization` for a bearer token from a file, which is read anew each time, so that a renewed secret
/// is used at once.
///
/// # Errors
/// When there is no token to be had from the file; what it holds is not shown.
pub async fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let shown = file.display();
    bearer_value(&secret(file).await?).map_err(|why| format!("credentials file {shown}: {why}"))
}

/// The value of `Authorization` for a bearer token; space around it does not count.
///
/// # Errors
/// When it is none; it is not shown.
pub fn bearer_value(secret: &str) -> Result<HeaderValue, &'static str> {
    if secret.trim().is_empty() {
        return Err("it holds nothing");
    }
    let value = HeaderValue::from_str(&format!("Bearer {}", secret.trim()));
    let value = value.ok().filter(|value| value.to_str().is_ok()); // a header would take more than ASCII
    let mut value = value.ok_or("what it holds cannot stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a file holds that is a secret, without the white space around it.
///
/// # Errors
/// When it cannot be read or holds nothing.
pub async fn secret(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let secret = tokio::fs::read_to_string(file).await.map_err(|error| format!("credentials file {shown}: {error}"))?;
    match secret.trim() {
        "" => Err(format!("credentials file {shown}: it holds nothing")),
        secret => Ok(secret.to_string()),
    }
}

/// `http://host:port` without path, query or user; a slash at the end is dropped. `None` for all else.
pub fn origin(text: &str) -> Option<String> {
    let uri: http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let named = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b));
    let plain = matches!(uri.scheme_str(), Some("http" | "https"))
        && text.len() <= LONGEST_ORIGIN
        && !authority.host().is_empty()
        && named(authority.host())
        && !authority.as_str().contains('@')
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !text.contains('#');
    plain.then(|| text.trim_end_matches('/').to_string())
}

/// `http://10.0.0.1:6333/` -> `10.0.0.1:6333`.
pub fn host_port(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// A host name has at most 253 characters.
const LONGEST_ORIGIN: usize = 300;

/// What is at the bottom of an error: "Connection refused", "operation timed out". Above it stands only our own URL.
pub fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let long = format!("http://{}:1", "a".repeat(10_000));
        for (text, plain) in [
            ("http://10.0.0.1:6333", Some("http://10.0.0.1:6333")),
            ("https://n-1.local/", Some("https://n-1.local")),
            ("http://[::1]:80", Some("http://[::1]:80")),
            ("http://h:1/path", None),
            ("http://h:1/../x", None),
            ("http://h:1?x=1", None),
            ("http://h:1#x", None),
            ("http://user:secret@h:1", None),
            ("http://$(id):1", None),
            ("http://h'1", None),
            ("http://a b", None),
            ("http://h\n:1", None),
            ("http://h\0:1", None),
            ("ftp://h:1", None),
            ("h:1", None),
            ("http://", None),
            ("", None),
            (long.as_str(), None),
        ] {
            assert_eq!(origin(text).as_deref(), plain, "{text:?}");
        }
    }
}
