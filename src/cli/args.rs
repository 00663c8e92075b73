//! Flags that several commands share, and how their values are read. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use reqwest::Url;

use crate::telemetry::{LogFormat, LogLevel};

/// The flags of `vecscale run`, named as Prometheus names its own.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The configuration
    #[arg(long = "config.file", value_name = "FILE", default_value = "config.yaml")]
    pub config_file: PathBuf,
    /// Where the API, the metrics and the probes are served; loopback only, unless callers are asked who they are
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:8000", value_parser = address)]
    pub listen_address: SocketAddr,
    /// A second listener on any address, for /metrics, /-/healthy, /-/ready and /autoscaling/targets only
    #[arg(long = "web.telemetry-address", value_name = "HOST:PORT", value_parser = address)]
    pub telemetry_address: Option<SocketAddr>,
    /// TLS, and users with passwords, in the format that Prometheus and its exporters share
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,
    /// The address under which others reach vecscale; its host is let in besides the local names
    #[arg(long = "web.external-url", value_name = "URL", value_parser = url)]
    pub external_url: Option<Url>,
    /// Allow POST /-/reload
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// Where the journal lies, and the data of local nodes
    #[arg(long = "storage.path", value_name = "DIR", default_value = "data")]
    pub storage_path: PathBuf,
    /// Messages of this level and above are logged
    #[arg(long = "log.level", value_enum, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// How log lines are written
    #[arg(long = "log.format", value_enum, value_name = "FORMAT", default_value = "logfmt")]
    pub log_format: LogFormat,
}

/// Which vecscale is asked, and how the answer is shown.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Where vecscale listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000", value_parser = url)]
    pub url: Url,
    /// A file with the bearer token that we are known by; or the environment has it as VECSCALE_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificates (PEM) that vouch for the server's, in place of the machine's own
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The pool, where there are several
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// For people, or the API's answer as it is
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// Reads `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`, and `:8000` for all addresses.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let host = match text.rsplit_once(':') {
        Some(("", _)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(("localhost", _)) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => return Err("an address and a port are needed, such as 127.0.0.1:8000".into()),
    };
    let port =
        text.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or("the port is a number up to 65535")?;
    Ok(SocketAddr::new(host, port))
}

fn url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|e| format!("{e}; such as http://127.0.0.1:8000"))?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none();
    if !url.username().is_empty() || url.password().is_some() {
        Err("no user and password here, where every process can read them: use --token-file, or VECSCALE_TOKEN".into())
    } else if usable {
        Ok(url)
    } else {
        Err("http:// or https:// and a host are needed, such as http://127.0.0.1:8000".into())
    }
}
