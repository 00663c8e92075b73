//! nodes' pages, and a Prometheus server -> samples. IO: all are asked at once, each with its own deadline; who is silent
//! is a gap, not a failure. What a page says is read by plain functions (`exposition`, `extract`).

pub mod exposition;
pub mod extract;
mod fetch;
mod presets;
pub mod prometheus;
mod selector;
pub mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;

use crate::clock::Clock;
use crate::model::{Answer, NodeId, NodeSample, Samples, Signal};

use extract::{Extract, Freshness};
use fetch::{Body, Fetched};
use prometheus::{Prometheus, Told};
use settings::{Format, Page, ScrapeSettings, Selector, Source};

pub use presets::{Further, PRESETS, further, preset};
pub use selector::SelectorError;

/// Nodes asked at the same time; further ones wait for one of them to answer or to run out of time.
const AT_ONCE: usize = 256;

/// A node to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: NodeId,
    /// `http://host:port`, or `host:port`.
    pub address: String,
}

/// Where samples come from: the pages of real nodes, or an invented cluster.
#[async_trait]
pub trait Scrape: Send + Sync {
    /// The signals that the samples are to have, in order.
    fn signals(&self) -> Vec<Signal>;

    /// One sample per target, and what is told of the pool as a whole. `interval` is the time between checks: what carries a timestamp older
    /// than two of it is stale.
    async fn collect(&self, targets: &[Target], interval: Duration, clock: &dyn Clock) -> Samples;
}

/// The pages of the nodes of one pool, and the Prometheus server that tells of them.
#[derive(Debug)]
pub struct Sources {
    settings: ScrapeSettings,
    client: reqwest::Client,
    prometheus: Option<Prometheus>,
}

/// Why nodes cannot be scraped with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    #[error("page {path}: {what}")]
    Page { path: String, what: String },
    #[error("prometheus: {0}")]
    Prometheus(String),
    #[error("authorities: {0}")]
    Authorities(String),
    #[error("no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Sources {
    /// # Errors
    /// When a page asks for what its format cannot give, or no HTTP client can be made.
    pub fn new(settings: ScrapeSettings) -> Result<Sources, SourcesError> {
        if settings.pages.is_empty() {
            return Err(SourcesError::Page { path: "(none)".into(), what: "at least one page is needed".into() });
        }
        for page in &settings.pages {
            unfit(page).map_or(Ok(()), |what| Err(SourcesError::Page { path: page.path.clone(), what }))?;
        }
        let trusted = settings.ca_file.as_deref().map(crate::http::authorities).transpose();
        let trusted = trusted.map_err(SourcesError::Authorities)?;
        let client = crate::http::client(|builder| {
            let builder = builder.connect_timeout(settings.timeout);
            match trusted.clone() {
                Some(certificates) => builder.tls_certs_only(certificates),
                None => builder,
            }
        })?;
        let prometheus = settings.prometheus.clone().map(Prometheus::new).transpose();
        Ok(Sources { prometheus: prometheus.map_err(SourcesError::Prometheus)?, settings, client })
    }

    /// The pages that are read: where Prometheus tells of health, none just to see whether it answers.
    fn pages(&self) -> impl Iterator<Item = &Page> {
        let health_is_told = self.prometheus.as_ref().is_some_and(Prometheus::tells_health);
        self.settings.pages.iter().filter(move |page| !health_is_told || !page.signals.is_empty())
    }

    /// All pages of a node at once. Its health is told by the first alone.
    async fn node(&self, target: &Target, interval: Duration, clock: &dyn Clock) -> NodeSample {
        let (at, began) = (clock.now(), tokio::time::Instant::now());
        // The interval may have been set below the timeout while running: a look still ends before the next one.
        let timeout = self.settings.timeout.min(interval);
        let deadline = began + timeout;
        let pages = self.pages().map(|page| async move {
            let fetched = fetch::fetch(&self.client, &target.address, page, timeout, deadline).await;
            (fetched.answer, read(fetched, page, Freshness::two(interval, clock.now())))
        });
        let mut answer = None;
        let mut signals = Extract::new();
        for (answered, extract) in futures::future::join_all(pages).await {
            answer.get_or_insert(answered);
            for (signal, raw) in extract {
                signals.entry(signal).or_insert(raw); // the earlier page counts
            }
        }
        NodeSample {
            node: target.id.clone(),
            at,
            took: began.elapsed(),
            answer: answer.unwrap_or(Answer::None),
            signals,
        }
    }
}

#[async_trait]
impl Scrape for Sources {
    fn signals(&self) -> Vec<Signal> {
        self.settings.signals().into_iter().cloned().collect()
    }

    async fn collect(&self, targets: &[Target], interval: Duration, clock: &dyn Clock) -> Samples {
        let asked: Vec<_> = targets.iter().map(|target| self.node(target, interval, clock)).collect();
        let pages = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect::<Vec<NodeSample>>();
        let told = async {
            match &self.prometheus {
                Some(prometheus) => prometheus.ask(targets, interval, clock).await,
                None => Told::default(),
            }
        };
        let (mut nodes, told) = tokio::join!(pages, told);
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        for sample in &mut nodes {
            told.complete(sample);
        }
        Samples { nodes, pool: told.pool, notes: told.notes }
    }
}

fn read(fetched: Fetched, page: &Page, fresh: Freshness) -> Extract {
    match fetched.body {
        Ok(Body::Text(dialect, bytes)) => extract::from_text(&bytes, dialect, &page.signals, fresh),
        Ok(Body::Json(bytes)) => extract::from_json(&bytes, &page.signals),
        Err(gap) => extract::all(&page.signals, &gap),
    }
}

/// What a page's format cannot give, with what to do about it.
fn unfit(page: &Page) -> Option<String> {
    if !page.path.starts_with('/') {
        return Some("the path must begin with '/'".into());
    }
    page.signals.iter().find_map(|(signal, source)| {
        let selectors: Vec<&Selector> = match source {
            Source::Gauge { series, .. } | Source::Counter { series, .. } => vec![series],
            Source::Quotient { part, whole, .. } => vec![part, &whole.series],
            Source::Ratio { failed, total } => vec![failed, total],
            Source::Histogram { series, .. } if page.format == Format::Json => {
                return Some(format!("{signal}: {series}: a JSON page has no histograms; use a gauge"));
            }
            Source::Histogram { series, .. } => vec![series],
        };
        selectors.into_iter().find_map(|series| match (page.format, series.name.starts_with('/')) {
            (Format::Json, true) | (Format::Text, false) => None,
            (Format::Json, false) => Some(format!("{signal}: {series}: a JSON page takes pointers such as /cpu/usage")),
            (Format::Text, true) => Some(format!("{signal}: {series}: a JSON pointer needs `format: json`")),
        })
    })
}
