//! Debian's Prometheus, Alertmanager and node_exporter as processes of a test: own ports and folders, gone when dropped. And
//! the configurations that are shipped for them, put to work here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;

use super::{free_port, http};

pub struct Server {
    /// Host and port.
    pub address: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts the program of a Debian package and waits until it says that it is ready.
    async fn start(dir: &Path, name: &str, package: &str, port: u16, args: &[String]) -> Server {
        let address = format!("127.0.0.1:{port}");
        let log = dir.join(format!("{name}.log"));
        let file = fs::File::create(&log).expect("the log file");
        let child = Command::new(package)
            .arg(format!("--web.listen-address={address}"))
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{package}: {error}; Debian's package of that name brings it"));
        let mut server = Server { address, child, log };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.is_ready().await {
            if server.child.try_wait().is_ok_and(|ended| ended.is_some()) || Instant::now() > deadline {
                panic!("{name} does not come up");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    /// Whether it answers with anything but "not yet": one that speaks TLS refuses this question, and node_exporter knows
    /// no such page.
    async fn is_ready(&self) -> bool {
        let answer = http().get(format!("http://{}/-/ready", self.address)).send().await;
        answer.is_ok_and(|answer| answer.status() != StatusCode::SERVICE_UNAVAILABLE)
    }

    pub async fn node_exporter(dir: &Path) -> Server {
        let args = ["--collector.disable-defaults", "--collector.loadavg"].map(String::from);
        Server::start(dir, "node_exporter", "prometheus-node-exporter", free_port(), &args).await
    }

    /// On its own, without peers: a second one knows nothing of the first and sends everything too.
    pub async fn alertmanager(dir: &Path, name: &str, config: &str) -> Server {
        let args = [
            format!("--config.file={}", write(dir, name, config).display()),
            format!("--storage.path={}", dir.join(name).display()),
            "--cluster.listen-address=".into(),
        ];
        Server::start(dir, name, "prometheus-alertmanager", free_port(), &args).await
    }

    pub async fn prometheus(dir: &Path, config: &str) -> Server {
        Server::prometheus_at(free_port(), dir, config, &[]).await
    }

    /// On a port that others were told of before, and with further arguments.
    pub async fn prometheus_at(port: u16, dir: &Path, config: &str, further: &[String]) -> Server {
        let args = [
            format!("--config.file={}", write(dir, "prometheus", config).display()),
            format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
        ];
        Server::start(dir, "prometheus", "prometheus", port, &[&args, further].concat()).await
    }

    /// The data of an answer of Prometheus' API.
    ///
    /// # Errors
    /// What it says is wrong with the question, or why there is no answer.
    pub async fn ask(&self, path: &str, form: &[(&str, String)]) -> Result<Value, String> {
        let url = format!("http://{}{path}", self.address);
        let url = reqwest::Url::parse_with_params(&url, form).expect("a URL");
        let answer = http().get(url).send().await.map_err(|e| e.to_string())?;
        let answer: Value = answer.json().await.map_err(|e| e.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer["error"].to_string()) }
    }

    /// The labels of each series that a query gives Prometheus now; nothing when it fails.
    pub async fn instant(&self, expr: &str) -> Vec<Value> {
        let data = self.ask("/api/v1/query", &[("query", expr.into())]).await.unwrap_or_default();
        data["result"].as_array().into_iter().flatten().map(|series| series["metric"].clone()).collect()
    }

    /// Waits until a query has a result.
    pub async fn until(&self, what: &str, expr: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.instant(expr).await.is_empty() {
            assert!(Instant::now() < deadline, "not within 60 s: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Tells Alertmanager of an alert that fires, as Prometheus does.
    pub async fn fires(&self, labels: Value) {
        let url = format!("http://{}/api/v2/alerts", self.address);
        let answer = http().post(url).json(&serde_json::json!([{"labels": labels}])).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{}", self.said());
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.said());
        }
    }
}

fn write(dir: &Path, name: &str, config: &str) -> PathBuf {
    let file = dir.join(format!("{name}.yml"));
    fs::write(&file, config).expect("writing the configuration");
    file
}

/// A file of the sources.
pub fn shipped(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Puts something else in a text, where that stands.
pub fn replaced(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "no {from:?} in\n{text}");
        text.replace(from, to)
    })
}

/// The shipped configuration of Prometheus, scraping each second the vecscale at `vecscale`, with the rules below `root`.
pub fn shipped_prometheus(vecscale: &str, root: &Path, alertmanagers: &[&str]) -> String {
    replaced(
        &shipped("deploy/prometheus/prometheus.yml"),
        &[
            ("127.0.0.1:8000", vecscale),
            ("interval: 15s", "interval: 1s"),
            ("refresh_interval: 30s", "refresh_interval: 5s"),
            ("../..", &root.display().to_string()),
            (r#"["127.0.0.1:9093"]"#, &format!("{alertmanagers:?}")),
        ],
    )
}

/// The shipped configuration of Alertmanager, for a vecscale at `vecscale` and with its token in this file; what a group
/// waits for is short.
pub fn shipped_alertmanager(vecscale: &str, token: &Path) -> String {
    replaced(
        &shipped("deploy/alertmanager/alertmanager.yml"),
        &[
            ("127.0.0.1:8000", vecscale),
            ("/etc/alertmanager/vecscale.token", &token.display().to_string()),
            ("group_wait: 5s", "group_wait: 1s"),
        ],
    )
}
