//! Debian's Prometheus, Alertmanager and node_exporter as processes of a test: free ports, own folders, gone when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{free_port, http};

pub struct Server {
    pub address: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program that takes `--web.listen-address` and waits until `ready` answers 200.
    async fn start(dir: &Path, name: &str, programs: [&str; 2], args: &[String], ready: &str) -> Server {
        let address = format!("127.0.0.1:{}", free_port());
        let log = dir.join(format!("{name}.log"));
        let file = fs::File::create(&log).expect("the log file");
        let spawn = |program: &&str| {
            Command::new(program)
                .arg(format!("--web.listen-address={address}"))
                .args(args)
                .current_dir(dir)
                .stdin(Stdio::null())
                .stdout(file.try_clone().expect("a second handle"))
                .stderr(file.try_clone().expect("a second handle"))
                .spawn()
                .ok()
        };
        let child = programs.iter().find_map(spawn);
        let child =
            child.unwrap_or_else(|| panic!("none of {programs:?} can be started: install Debian's {}", programs[0]));
        let mut server = Server { address, child, log };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !http().get(format!("http://{}{ready}", server.address)).send().await.is_ok_and(|a| a.status() == 200) {
            if server.child.try_wait().is_ok_and(|ended| ended.is_some()) || Instant::now() > deadline {
                panic!("{name} does not come up\n{}", server.said());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    pub async fn node_exporter(dir: &Path) -> Server {
        let args = ["--collector.disable-defaults", "--collector.loadavg"].map(String::from);
        Server::start(dir, "node_exporter", ["prometheus-node-exporter", "node_exporter"], &args, "/metrics").await
    }

    /// On its own, without peers: a second one knows nothing of the first and sends everything too.
    pub async fn alertmanager(dir: &Path, name: &str, config: &str) -> Server {
        let file = dir.join(format!("{name}.yml"));
        fs::write(&file, config).expect("writing the configuration");
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.path={}", dir.join(name).display()),
            "--cluster.listen-address=".into(),
        ];
        Server::start(dir, name, ["prometheus-alertmanager", "alertmanager"], &args, "/-/ready").await
    }

    pub async fn prometheus(dir: &Path, config: &str) -> Server {
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).expect("writing the configuration");
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
        ];
        Server::start(dir, "prometheus", ["prometheus", "prometheus"], &args, "/-/ready").await
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
