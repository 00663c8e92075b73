//! What a Prometheus server answered to an instant query -> numbers, or why there are none. Pure.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::Query;
use crate::http::host_port;
use crate::model::{Gap, NodeId, Signal};
use crate::scrape::Target;
use crate::scrape::extract::Freshness;

/// Characters of a foreign text that are passed on.
const SHOWN: usize = 300;

/// A whole answer, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    samples: Vec<Sample>,
    /// The server's remarks on the query, such as that a rate was taken of what is no counter.
    pub infos: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    /// Empty for a scalar.
    labels: BTreeMap<String, String>,
    at_millis: i64,
    value: f64,
}

/// The envelope that all answers of the API have; it may carry any further fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    status: String,
    data: Option<Data>,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
    /// How VictoriaMetrics says that a store did not answer.
    #[serde(default)]
    is_partial: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    /// Absent where the value is a native histogram.
    value: Option<Point>,
}

/// Seconds since 1970, and a number as text.
type Point = (f64, String);

/// Reads the JSON body of an answer.
///
/// A warning means that the result may be of a part of the data only (a remote store or a replica that did not answer):
/// nothing is proven by such a number, so it counts as none.
///
/// # Errors
/// [`Gap::Query`] when it is an error, no answer of the API, has warnings or is partial, or has another kind of result.
pub fn read(status: StatusCode, body: &[u8]) -> Result<Reply, Gap> {
    let envelope: Envelope = serde_json::from_slice(body)
        .map_err(|error| Gap::Query(format!("HTTP {status}, unreadable: {}", shown(&error.to_string()))))?;
    if envelope.status != "success" {
        return Err(Gap::Query(shown(&format!("{}: {}", envelope.error_type, envelope.error))));
    }
    let data = envelope.data.filter(|_| status.is_success()).ok_or_else(|| Gap::Query(format!("HTTP {status}")))?;
    if !envelope.warnings.is_empty() {
        return Err(Gap::Query(shown(&format!("warning: {}", envelope.warnings.join("; ")))));
    }
    if envelope.is_partial {
        return Err(Gap::Query("the answer is partial".into()));
    }
    let samples = samples(data)?;
    Ok(Reply { samples, infos: envelope.infos.iter().map(|info| shown(info)).collect() })
}

fn samples(data: Data) -> Result<Vec<Sample>, Gap> {
    let unreadable = |error: serde_json::Error| Gap::Query(format!("unreadable: {}", shown(&error.to_string())));
    match data.result_type.as_str() {
        "scalar" => {
            let point: Point = serde_json::from_value(data.result).map_err(unreadable)?;
            Ok(vec![sample(BTreeMap::new(), &point)?])
        }
        "vector" => {
            let all: Vec<Series> = serde_json::from_value(data.result).map_err(unreadable)?;
            let one = |series: Series| match series.value {
                Some(point) => sample(series.metric, &point),
                None => Err(Gap::Query("a histogram is no number: take histogram_quantile or histogram_avg".into())),
            };
            all.into_iter().map(one).collect()
        }
        other => {
            let kind = shown(other);
            Err(Gap::Query(format!("the result is a {kind}; a scalar or an instant vector is needed")))
        }
    }
}

fn sample(labels: BTreeMap<String, String>, (at, value): &Point) -> Result<Sample, Gap> {
    let value = value.parse().map_err(|_| Gap::Query(format!("{:?} is no number", shown(value))))?;
    Ok(Sample { labels, at_millis: (at * 1000.0) as i64, value })
}

/// The value of the only sample.
///
/// # Errors
/// When there is none, more than one, it is too old, or not possible for the signal.
pub fn one(reply: &Reply, query: &Query, signal: &Signal, fresh: Freshness) -> Result<f64, Gap> {
    match reply.samples.as_slice() {
        [] => Err(Gap::NoSeries(shown(&query.promql))),
        [sample] => value(sample, query, signal, fresh),
        several => Err(Gap::Query(format!(
            "{} series; a value of the whole pool is one: aggregate them, or say with node_label which label names the node",
            several.len()
        ))),
    }
}

/// The value of each target: of the sample whose label has its id, or the `host:port` of its address. Samples of others
/// are of no concern.
pub fn by_node(
    reply: &Reply,
    query: &Query,
    signal: &Signal,
    targets: &[Target],
    fresh: Freshness,
) -> BTreeMap<NodeId, Result<f64, Gap>> {
    let label = query.node_label.as_deref().unwrap_or_default();
    let mut named: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in &reply.samples {
        if let Some(name) = sample.labels.get(label) {
            named.entry(name).or_default().push(sample);
        }
    }
    let of = |target: &Target| {
        let (id, address) = (target.id.as_str(), host_port(&target.address));
        let names = if id == address { vec![id] } else { vec![id, address] };
        let found: Vec<&Sample> = names.iter().filter_map(|name| named.get(name)).flatten().copied().collect();
        match found.as_slice() {
            [] => Err(Gap::Query(format!(
                "none of {} series has {label}={id:?} or {label}={address:?}",
                reply.samples.len()
            ))),
            [sample] => value(sample, query, signal, fresh),
            several => Err(Gap::Query(format!("{} series for this node; one is needed", several.len()))),
        }
    };
    targets.iter().map(|target| (target.id.clone(), of(target))).collect()
}

fn value(sample: &Sample, query: &Query, signal: &Signal, fresh: Freshness) -> Result<f64, Gap> {
    match fresh.stale(Some(sample.at_millis)) {
        Some(age) => Err(Gap::Stale(age)),
        None => signal.checked(sample.value * query.factor),
    }
}

/// A foreign text, fit to be shown.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect()
}
