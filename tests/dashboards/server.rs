//! A real Prometheus with the configuration and the rules that are shipped, and what it answers to dashboards.

use std::path::Path;

use serde_json::Value;

use crate::common::free_port;
use crate::common::servers::{Server, shipped_prometheus};

/// The answer to one query: what was wrong, or the values of each series.
pub type Answer = Result<Vec<Vec<f64>>, String>;

/// Scrapes the vecscale at `address` once a second.
pub async fn prometheus(dir: &Path, address: &str) -> Server {
    let nobody = format!("127.0.0.1:{}", free_port());
    let config = shipped_prometheus(address, Path::new(env!("CARGO_MANIFEST_DIR")), &[&nobody]);
    let prometheus = Server::prometheus(dir, &config).await;
    prometheus.until("it scrapes vecscale", r#"up{job="vecscale"} == 1"#).await;
    prometheus
}

/// What a query gives second by second over a time, in seconds since 1970.
pub async fn range(prometheus: &Server, expr: &str, (start, end): (f64, f64)) -> Answer {
    let form = [
        ("query", expr.to_string()),
        ("start", start.to_string()),
        ("end", end.to_string()),
        ("step", "1".to_string()),
    ];
    let data = prometheus.ask("/api/v1/query_range", &form).await?;
    let values = |series: &Value| {
        let points = series["values"].as_array().into_iter().flatten();
        points.filter_map(|point| point[1].as_str()?.parse().ok()).collect()
    };
    Ok(data["result"].as_array().into_iter().flatten().map(values).collect())
}

/// What a variable of a dashboard offers: the values of a label over the series that a selector matches.
pub async fn label_values(prometheus: &Server, selector: &str, label: &str) -> Vec<String> {
    let path = format!("/api/v1/label/{label}/values");
    let data = prometheus.ask(&path, &[("match[]", selector.into())]).await.unwrap_or_default();
    data.as_array().into_iter().flatten().filter_map(|v| Some(v.as_str()?.to_string())).collect()
}

/// Each rule, with how its last evaluation went.
pub async fn rules(prometheus: &Server) -> Vec<Value> {
    let data = prometheus.ask("/api/v1/rules", &[]).await.expect("the rules");
    let groups = data["groups"].as_array().cloned().unwrap_or_default();
    groups.iter().flat_map(|g| g["rules"].as_array().cloned().unwrap_or_default()).collect()
}
