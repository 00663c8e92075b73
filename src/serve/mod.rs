//! The REST API, `/metrics` and the read-only listener: requests -> the pools' pictures, the journal, and commands to
//! the controllers. IO.

mod access;
mod analytics;
pub(crate) mod auth;
mod changes;
mod input;
mod layers;
mod listen;
mod operations;
pub(crate) mod plan;
mod problem;
mod reads;
mod routes;
mod shape;
mod webhook;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::Request;
use hyper::body::Incoming;
use tower::Service;

pub use access::ExternalUrl;
pub use auth::{AccessSettings, Keeper, Role};

use crate::clock::Clock;
use crate::handle::PoolHandle;
use crate::http::Answer;
use crate::model::PoolName;
use crate::record::Journal;
use crate::telemetry::Telemetry;
use routes::Routes;

/// Reloads the configuration for whoever asks; the text says what was taken, or why nothing was.
pub type Reload = Arc<dyn Fn(String) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// How the API behaves.
#[derive(Clone, Default)]
pub struct ServeOptions {
    /// `--web.external-url`: a further name under which we are reached.
    pub external_url: Option<ExternalUrl>,
    /// `None` unless `--web.enable-lifecycle`.
    pub reload: Option<Reload>,
}

/// Everything that requests are answered from.
pub struct Server {
    pub pools: BTreeMap<PoolName, PoolHandle>,
    pub journal: Arc<dyn Journal>,
    pub telemetry: Telemetry,
    pub clock: Arc<dyn Clock>,
    pub access: Arc<Keeper>,
    pub options: ServeOptions,
}

impl Server {
    /// The main listener's service, for [`crate::http::serve`].
    pub fn service(
        self: &Arc<Self>,
    ) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send + 'static> + Clone + Send + use<>
    {
        layers::stack(self.clone(), Routes::main(), layers::Names::Checked)
    }

    /// The service of `--web.telemetry-address`: read-only, under any name.
    pub fn telemetry_service(
        self: &Arc<Self>,
    ) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send + 'static> + Clone + Send + use<>
    {
        layers::stack(self.clone(), Routes::telemetry(), layers::Names::Any)
    }
}

#[cfg(test)]
mod tests;
