//! The HTTP/1.1 listener that the controller and the vector node share: limits on headers, bodies, time and
//! connections, and an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

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

/// Serves until `stop`, then lets running requests end.
pub async fn serve<S>(listener: TcpListener, service: S, stop: CancellationToken)
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
        let service = service.clone();
        let with_peer = tower::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            let mut service = service.clone();
            async move { service.call(request).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(with_peer));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            let _ = watched.await; // a peer that hangs up is no event of ours
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
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

/// Of a body that is too large, so much is read, so that the refusal reaches a client that is still writing.
const READ_OF_REFUSED: usize = 4 << 20;

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// When it is larger, slower than [`BODY_TIMEOUT`], or breaks off.
pub async fn read_body(body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit.max(READ_OF_REFUSED)).collect()).await;
    match read {
        Err(_) => Err(BodyError::TooSlow),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(BodyError::TooLarge(limit)),
        Ok(Err(_)) => Err(BodyError::Broken),
        Ok(Ok(whole)) => {
            let whole = whole.to_bytes();
            if whole.len() > limit { Err(BodyError::TooLarge(limit)) } else { Ok(whole) }
        }
    }
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    typed(status, "application/json", serde_json::to_vec(value).expect("our own values have string keys"))
}

/// An answer with a body of the given content type.
pub fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
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
