//! `vecscale node`: runs one built-in vector node until it is asked to end.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::model::NodeId;
use crate::node::pace::Meter;
use crate::node::server::{Settings, start};
use crate::node::state::Limits;
use crate::units;

/// Run one node of the built-in vector database.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeArgs {
    /// The node's name in the cluster
    #[arg(long, value_parser = |text: &str| NodeId::new(text))]
    pub id: NodeId,
    /// Where it listens; port 0 takes a free one. Nodes trust whoever reaches them: keep them on a private network
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Its directory; the address goes to the file `address` in it
    #[arg(long)]
    pub data: PathBuf,
    /// Share of CPU cores it may use
    #[arg(long = "cpu.cores", default_value_t = 1.0, value_parser = cores)]
    pub cpu_cores: f64,
    /// Memory that its points may take, in bytes or as 256MiB
    #[arg(long = "memory.limit", default_value = "256MiB", value_parser = bytes)]
    pub memory_limit: u64,
    /// Bytes that its files may take
    #[arg(long = "storage.limit", default_value = "1GiB", value_parser = bytes)]
    pub storage_limit: u64,
}

/// Runs the node until SIGTERM or SIGINT, then lets running requests end.
///
/// # Errors
/// When the directory or the address cannot be used.
pub async fn run(args: NodeArgs) -> anyhow::Result<()> {
    let NodeArgs { id, listen, data, cpu_cores, memory_limit, storage_limit } = args;
    let limits = Limits { cpu_cores, memory_bytes: memory_limit, storage_bytes: storage_limit };
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let (_, serving) = start(Settings { id, listen, data, limits }, Meter::Process, stop.clone()).await?;
    let asked = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = serving => Ok(()),
        () = asked => Ok(()),
    }
}

fn cores(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cores) if (0.01..=1024.0).contains(&cores) => Ok(cores),
        _ => Err("a number from 0.01 to 1024".into()),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().or_else(|| units::size(text)).filter(|n| *n > 0);
    number.ok_or_else(|| "bytes, as a number or like 256MiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_or_refused() {
        for (text, value) in [("1", 1), ("256MiB", 256 << 20), ("1GiB", 1 << 30), ("2 KiB", 2048)] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in ["", "0", "-1", "1.5MiB", "MiB", "99999999999TiB"] {
            assert!(bytes(text).is_err(), "{text:?} was taken");
        }
        for text in ["0", "nan", "inf", "-1", "x"] {
            assert!(cores(text).is_err(), "{text:?} was taken");
        }
    }
}
