//! What each node tells of itself: telemetry, metrics, quotas. The numbers that nobody in vecscale reads are the
//! recorded ones.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use super::cluster::Cluster;
use super::collection::{Collection, State};
use super::nodes::{BUCKETS, Node, Process, Served};
use super::reply::{Reply, millis, ok, text};

/// KiB of memory of each machine.
const RAM_KIB: u64 = 16 << 20;

impl Cluster {
    pub(super) fn telemetry(&self, name: &str, level: u32) -> Reply {
        let Some(node) = self.nodes.get(name) else { return Reply::Refused };
        let mut result = json!({
            "id": "1811d1e3-695a-485e-b31d-78734024ed96",
            "app": {
                "name": "qdrant", "version": node.version, "startup": self.at(node.started, SecondsFormat::Millis),
            },
            "collections": {"number_of_collections": self.collections_of(node).len()},
            "cluster": {"enabled": true, "resharding_enabled": false},
            "requests": {"rest": {"responses": self.responses(node)}},
            "quota": {"config": self.quota, "exceeded": {"resident_memory": null, "disk_usage": null}},
        });
        if level >= 1 {
            self.tell_more(node, level, &mut result);
        }
        ok(result, millis(3))
    }

    fn tell_more(&self, node: &Node, level: u32, result: &mut Value) {
        result["app"] = json!({
            "name": "qdrant",
            "version": node.version,
            "features": {
                "debug": false, "service_debug_feature": false, "recovery_mode": false, "gpu": false, "rocksdb": false,
                "staging": false,
            },
            "runtime_features": {
                "all": false, "incremental_hnsw_building": true, "appendable_quantization": true,
                "single_file_mmap_vector_storage": true, "async_payload_storage": true,
                "write_segment_manifest": false, "append_only_mutations": false, "compact_bitmask": false,
                "serverless_compatible": false,
            },
            "low_memory_mode": "disabled",
            "hnsw_global_config": {"healing_threshold": 0.3},
            "system": {
                "distribution": "debian", "distribution_version": "12", "is_docker": true,
                "cores": node.load.cores,
                "cpu_cores_used": node.load.cpu_cores_used,
                "ram_size": RAM_KIB,
                "disk_size": 264_212_084,
                "cpu_flags": "sse,sse2,avx,avx2,fma,f16c",
                "cpu_endian": "little",
            },
            "startup": self.at(node.started, SecondsFormat::Millis),
        });
        let known = self.collections_of(node);
        let collections: Vec<Value> = known.iter().map(|(name, c)| self.told(node, name, c, level)).collect();
        result["collections"]["collections"] = collections.into();
        let snapshots = known.keys().filter(|_| level >= 2).map(|name| {
            json!({
                "id": name, "running_snapshots": 0, "running_snapshot_recovery": 0, "total_snapshot_creations": 0,
            })
        });
        result["collections"]["snapshots"] = snapshots.collect();
        let view = self.raft_view(node);
        let works = if view.works {
            let at = self.at(self.now, SecondsFormat::Nanos);
            json!({"consensus_thread_status": "working", "last_update": at})
        } else {
            json!({"consensus_thread_status": "stopped"})
        };
        let peers = self.peer_uris(node);
        let mut cluster = json!({
            "enabled": true,
            "status": {
                "number_of_peers": peers.len(),
                "term": view.term,
                "commit": view.commit,
                "pending_operations": view.pending,
                "role": view.role,
                "is_voter": view.is_voter,
                "peer_id": node.peer,
                "consensus_thread_status": works,
            },
            "resharding_enabled": false,
        });
        if level >= 2 {
            cluster["config"] = json!({
                "grpc_timeout_ms": 60000,
                "p2p": {"connection_pool_size": 2},
                "consensus": {"max_message_queue_size": 100, "tick_period_ms": 100, "bootstrap_timeout_sec": 15},
            });
            cluster["peers"] = peers.into();
        }
        result["cluster"] = cluster;
        result["requests"]["grpc"] = json!({"responses": {}});
        let resident = RAM_KIB * 1024 / 100 * u64::from(node.load.memory_percent);
        result["memory"] = json!({
            "active_bytes": resident, "allocated_bytes": resident, "metadata_bytes": 5_946_848,
            "resident_bytes": resident, "retained_bytes": 23_261_184,
        });
        result["hardware"] = json!({"collection_data": {}});
        result["search_pool"] = json!({"mode": "high_io", "high_cpu_threads": 2, "high_io_threads": 8});
    }

    fn told(&self, node: &Node, name: &str, collection: &Collection, level: u32) -> Value {
        if level < 2 {
            let vectors = local_points(node, name);
            return json!({"vectors": vectors, "optimizers_status": "ok", "params": collection.params()});
        }
        let mut config = collection.config();
        config["uuid"] = "ba6b85d7-56c9-4ae7-bcfa-2d6b5bcbbc27".into();
        json!({"id": name, "init_time_ms": 187, "config": config})
    }

    fn responses(&self, node: &Node) -> Map<String, Value> {
        let mut responses: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for ((method, endpoint, status), served) in &node.served {
            let micros = served.took.as_micros() as f64;
            let told = json!({
                "count": served.count,
                "avg_duration_micros": micros / served.count.max(1) as f64,
                "min_duration_micros": micros / served.count.max(1) as f64,
                "max_duration_micros": served.longest.as_micros() as f64,
                "total_duration_micros": micros as u64,
                "last_responded": self.at(self.now, SecondsFormat::Millis),
            });
            responses.entry(format!("{method} {endpoint}")).or_default().insert(status.to_string(), told);
        }
        responses.into_iter().map(|(endpoint, by_status)| (endpoint, by_status.into())).collect()
    }

    pub(super) fn quotas(&self, name: &str) -> Reply {
        let Some(asked) = self.nodes.get(name) else { return Reply::Refused };
        let usage = |node: &Node| {
            json!({
                "resident_memory_percent": node.load.memory_percent,
                "disk_usage_percent": node.load.disk_percent,
            })
        };
        let enabled = self.quota["enabled"] == true;
        let limit = self.quota["max_disk_usage_percent"].as_u64().filter(|_| enabled);
        let answering = self.peers.keys().filter_map(|peer| self.node_of(*peer));
        let peers = answering.filter(|node| node.process == Process::Up).map(|node| {
            let mut told = usage(node);
            told["exceeded"] = limit.is_some_and(|limit| u64::from(node.load.disk_percent) > limit).into();
            (node.peer.to_string(), told)
        });
        let peers: Map<String, Value> = peers.collect();
        ok(json!({"config": self.quota, "usage": usage(asked), "peers": peers}), self.round(millis(2)))
    }

    pub(super) fn metrics(&self, name: &str) -> Reply {
        let Some(node) = self.nodes.get(name) else { return Reply::Refused };
        let view = self.raft_view(node);
        let known = self.collections_of(node);
        let mut page = Page::default();
        page.family("app_info", "gauge", [(format!("name=\"qdrant\",version=\"{}\"", node.version), 1)]);
        page.single("app_status_recovery_mode", "gauge", 0);
        page.single("collections_total", "gauge", known.len());
        let local: usize = known.keys().map(|name| local_points(node, name)).sum();
        page.single("collections_vector_total", "gauge", local);
        let vectors = |name: &String| (format!("collection=\"{name}\",vector=\"\""), local_points(node, name));
        page.family("collection_vectors", "gauge", known.keys().map(vectors));
        let active =
            |shard: &super::collection::Shard| shard.copies.values().filter(|copy| copy.state == State::Active).count();
        let counts: Vec<usize> = known.values().flat_map(|c| c.shards.values()).map(active).collect();
        page.single("collection_active_replicas_min", "gauge", counts.iter().min().copied().unwrap_or(0));
        page.single("collection_active_replicas_max", "gauge", counts.iter().max().copied().unwrap_or(0));
        let indexing = |name: &String| {
            let of = node.indexing.iter().filter(|((c, _), until)| c == name && self.now < **until).count();
            (format!("id=\"{name}\""), of)
        };
        page.family("collection_running_optimizations", "gauge", known.keys().map(indexing));
        let points = |name: &String| (format!("id=\"{name}\""), local_points(node, name));
        page.family("collection_points", "gauge", known.keys().map(points));
        let dead = known.values().flat_map(|c| c.shards.values());
        let dead = dead.filter(|shard| shard.copies.values().any(|copy| copy.state != State::Active)).count();
        page.single("collection_dead_replicas", "gauge", dead);
        for (family, incoming) in
            [("collection_shard_transfer_incoming", true), ("collection_shard_transfer_outgoing", false)]
        {
            let of = known.iter().map(|(name, collection)| {
                let running = collection.transfers.iter().filter(|t| t.over.is_none());
                let mine = running.filter(|t| node.peer == if incoming { t.to } else { t.from }).count();
                (format!("id=\"{name}\""), mine)
            });
            page.family(family, "gauge", of);
        }
        page.single("cluster_enabled", "gauge", 1);
        page.single("cluster_peers_total", "gauge", self.peer_uris(node).len());
        page.single("cluster_term", "counter", view.term);
        page.family("cluster_commit", "counter", [(format!("peer_id=\"{}\"", node.peer), view.commit)]);
        page.single("cluster_pending_operations_total", "gauge", view.pending);
        page.single("cluster_voter", "gauge", u8::from(view.is_voter));
        let states = [("working", view.works), ("stopped", !view.works)];
        let states = states.map(|(state, is)| (format!("state=\"{state}\""), u8::from(is)));
        page.family("cluster_working_state", "gauge", states);
        page.requests(&node.served);
        page.single("memory_resident_bytes", "gauge", RAM_KIB * 1024 / 100 * u64::from(node.load.memory_percent));
        text(200, page.text, millis(5))
    }
}

fn local_points(node: &Node, collection: &str) -> usize {
    node.store.iter().filter(|((name, _), _)| name == collection).map(|(_, points)| points.len()).sum()
}

/// A page of metrics as it grows.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            _ => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    fn head(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", name.replace('_', " "));
    }

    fn single(&mut self, name: &str, kind: &str, value: impl Display) {
        self.head(name, kind);
        self.line(name, "", value);
    }

    /// Without a sample it is left out, as Qdrant does.
    fn family<V: Display>(&mut self, name: &str, kind: &str, samples: impl IntoIterator<Item = (String, V)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.head(name, kind);
        }
        for (labels, value) in samples {
            self.line(name, &labels, value);
        }
    }

    fn requests(&mut self, served: &BTreeMap<(&str, &str, u16), Served>) {
        let labels = |(method, endpoint, status): &(&str, &str, u16)| {
            format!("method=\"{method}\",endpoint=\"{endpoint}\",status=\"{status}\"")
        };
        let counts = served.iter().map(|(key, served)| (labels(key), served.count));
        self.family("rest_responses_total", "counter", counts);
        let fine: Vec<_> = served.iter().filter(|((_, _, status), _)| *status == 200).collect();
        let mean = |served: &Served| served.took.as_secs_f64() / served.count.max(1) as f64;
        let means = fine.iter().map(|(key, served)| (labels(key), mean(served)));
        self.family("rest_responses_avg_duration_seconds", "gauge", means);
        let longest = fine.iter().map(|(key, served)| (labels(key), served.longest.as_secs_f64()));
        self.family("rest_responses_max_duration_seconds", "gauge", longest);
        let name = "rest_responses_duration_seconds";
        if !fine.is_empty() {
            self.head(name, "histogram");
        }
        for (key, served) in fine {
            let labels = labels(key);
            for (bound, count) in BUCKETS.iter().zip(served.buckets) {
                self.line(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), count);
            }
            self.line(&format!("{name}_sum"), &labels, served.took.as_secs_f64());
            self.line(&format!("{name}_count"), &labels, served.count);
        }
    }
}
