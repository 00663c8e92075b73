//! A real Prometheus of Debian's package, with the configuration that is shipped, and what it answers.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{free_port, http};

/// A running Prometheus; gone when dropped.
pub struct Prometheus {
    dir: tempfile::TempDir,
    child: Child,
    url: String,
}

/// The answer to one query: what was wrong, or the values of each series.
pub type Answer = Result<Vec<Vec<f64>>, String>;

impl Prometheus {
    /// Scrapes the vecscale at `address` once a second, with the shipped scrape jobs and rules.
    pub async fn start(address: &str) -> Prometheus {
        let dir = tempfile::Builder::new().prefix("vecscale-test-").tempdir().expect("a temporary directory");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let shipped = fs::read_to_string(root.join("deploy/prometheus/prometheus.yml")).expect("the shipped example");
        let config = shipped
            .replace("127.0.0.1:8000", address)
            .replace("interval: 15s", "interval: 1s")
            .replace("interval: 30s", "interval: 5s")
            .replace("../..", &root.display().to_string())
            .replace("127.0.0.1:9093", &format!("127.0.0.1:{}", free_port()));
        fs::write(dir.path().join("prometheus.yml"), config).expect("writing the configuration");
        let port = free_port();
        let log = fs::File::create(dir.path().join("log")).expect("the log file");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.external-url=http://prometheus.example/")
            .arg("--web.route-prefix=/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("prometheus cannot be run ({e}): it comes with Debian's package prometheus"));
        let prometheus = Prometheus { dir, child, url: format!("http://127.0.0.1:{port}") };
        prometheus.until("it scrapes vecscale", r#"up{job="vecscale"} == 1"#).await;
        prometheus
    }

    /// Waits until a query has a result.
    pub async fn until(&self, what: &str, expr: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.instant(expr).await.is_empty() {
            assert!(Instant::now() < deadline, "not within 60 s: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn ask(&self, path: &str, form: &[(&str, String)]) -> Result<Value, String> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), form).expect("a URL");
        let answer = http().get(url).send().await.map_err(|e| e.to_string())?;
        let answer: Value = answer.json().await.map_err(|e| e.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer["error"].to_string()) }
    }

    /// The labels of each series that a query gives now; nothing when it fails.
    pub async fn instant(&self, expr: &str) -> Vec<Value> {
        let data = self.ask("/api/v1/query", &[("query", expr.into())]).await.unwrap_or_default();
        data["result"].as_array().into_iter().flatten().map(|series| series["metric"].clone()).collect()
    }

    /// What a query gives second by second over a time, in seconds since 1970.
    pub async fn range(&self, expr: &str, (start, end): (f64, f64)) -> Answer {
        let form = [
            ("query", expr.to_string()),
            ("start", start.to_string()),
            ("end", end.to_string()),
            ("step", "1".to_string()),
        ];
        let data = self.ask("/api/v1/query_range", &form).await?;
        let values = |series: &Value| {
            let points = series["values"].as_array().into_iter().flatten();
            points.filter_map(|point| point[1].as_str()?.parse().ok()).collect()
        };
        Ok(data["result"].as_array().into_iter().flatten().map(values).collect())
    }

    /// What a variable of a dashboard offers: the values of a label over the series that a selector matches.
    pub async fn label_values(&self, selector: &str, label: &str) -> Vec<String> {
        let path = format!("/api/v1/label/{label}/values");
        let data = self.ask(&path, &[("match[]", selector.into())]).await.unwrap_or_default();
        data.as_array().into_iter().flatten().filter_map(|v| Some(v.as_str()?.to_string())).collect()
    }

    /// Each rule, with how its last evaluation went.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.ask("/api/v1/rules", &[]).await.expect("the rules");
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|g| g["rules"].as_array().cloned().unwrap_or_default()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
