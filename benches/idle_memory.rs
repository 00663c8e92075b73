//! The memory of an idle controller: the real program over its three embedded nodes, with the configuration as shipped,
//! in a temporary directory. Prints resident memory, of which the proportional share (PSS) counts pages that are
//! shared with the nodes, the same program, once. Takes a little over a minute: a check every 30 s, as shipped.

use std::path::Path;
use std::time::Duration;

#[path = "../tests/common/mod.rs"]
mod common;

use common::World;

const CONFIG: &str = include_str!("../config.yaml");
/// The aim for the controller's resident memory.
const AIM_MIB: f64 = 20.0;
/// Checks that must be over before memory is read.
const CHECKS: usize = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut world = World::new(CONFIG);
    world.start().await;
    let nodes = world.until("three nodes and three checks", Duration::from_secs(180), checked).await;

    println!("idle memory after {CHECKS} checks, MiB");
    println!("{:<12}{:>10}{:>10}{:>10}", "", "resident", "PSS", "peak");
    let resident = show("controller", world.pid());
    for (n, pid) in nodes.into_iter().enumerate() {
        show(&format!("node {}", n + 1), pid);
    }
    println!("aim: under {AIM_MIB} MiB resident; measured: {:.2} of it", resident / AIM_MIB);

    let ended = world.stop();
    assert_eq!(ended, Some(0), "the controller did not end well\n{}", world.logs());
    assert!(world.node_pids().is_empty(), "nodes outlived the controller");
}

/// The processes of the nodes, once there are three and enough checks are done.
async fn checked(world: &World) -> Option<Vec<u32>> {
    let metrics = world.try_get("/autoscaling/metrics").await?;
    let metrics: serde_json::Value = serde_json::from_str(&metrics).ok()?;
    let healthy = metrics["items"].as_array()?.iter().filter(|seen| seen["healthy_nodes"] == 3).count();
    let nodes = world.node_pids();
    (healthy >= CHECKS && nodes.len() == 3).then_some(nodes)
}

/// Prints one process; gives its resident memory in MiB.
fn show(name: &str, pid: u32) -> f64 {
    let of = |file: &str, key: &str| mib(&Path::new("/proc").join(pid.to_string()).join(file), key);
    let resident = of("status", "VmRSS:").expect("the process runs");
    let word = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    println!("{name:<12}{resident:>10.1}{:>10}{:>10}", word(of("smaps_rollup", "Pss:")), word(of("status", "VmHWM:")));
    resident
}

/// The number behind `key` in a file of /proc, which counts in KiB; `None` where the kernel does not tell.
fn mib(file: &Path, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
