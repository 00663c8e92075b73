//! `process_*` series of the program itself, from Linux' /proc. IO. The collector of the `prometheus` crate counts CPU
//! in whole seconds only.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::families::Family;
use crate::model::Timestamp;

/// Draws the process' own series at each scrape; what /proc does not tell has no sample.
pub struct ProcessCollector {
    desc: Desc,
    started: Timestamp,
}

impl ProcessCollector {
    pub fn new(started: Timestamp) -> ProcessCollector {
        let desc = Desc::new("process_start_time_seconds".into(), "The process".into(), vec![], Default::default());
        ProcessCollector { desc: desc.expect("the name is valid"), started }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let one = |mut family: Family, value: Option<f64>| {
            family.sample([], value);
            family.done()
        };
        vec![
            one(
                Family::counter("process_cpu_seconds_total", &[], "CPU time used by this process, in seconds."),
                Some(cpu_seconds()),
            ),
            one(
                Family::gauge("process_resident_memory_bytes", &[], "Resident memory of this process, in bytes."),
                bytes_of(&status, "VmRSS:"),
            ),
            one(
                Family::gauge("process_virtual_memory_bytes", &[], "Virtual memory of this process, in bytes."),
                bytes_of(&status, "VmSize:"),
            ),
            one(
                Family::gauge("process_threads", &[], "Threads of this process."),
                field(&status, "Threads:").map(|n| n as f64),
            ),
            one(Family::gauge("process_open_fds", &[], "Open file descriptors of this process."), open_fds()),
            one(
                Family::gauge("process_max_fds", &[], "File descriptors that this process may open."),
                rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(|n| n as f64),
            ),
            one(
                Family::gauge("process_start_time_seconds", &[], "When this process started, seconds since 1970."),
                Some(self.started.seconds()),
            ),
        ]
    }
}

fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn open_fds() -> Option<f64> {
    // The directory being read is one of them.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

/// The number after `key` in the text of /proc/self/status.
fn field(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// /proc writes "kB" and means 1024 bytes.
fn bytes_of(status: &str, key: &str) -> Option<f64> {
    field(status, key).map(|kib| (kib * 1024) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_and_what_it_lacks_is_absent() {
        let status = "Name:\tvecscale\nVmSize:\t  2048 kB\nVmRSS:\t   10 kB\nThreads:\t7\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(10_240.0));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(bytes_of(status, "VmSwap:"), None);
    }
}
