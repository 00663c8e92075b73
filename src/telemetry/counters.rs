//! The counters and histograms, one field each: what only events can tell. Pure registration; closed label sets are
//! touched at the start so that they begin at 0.

use prometheus::{Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::model::{Guard, Kind, Mode, OperationState, Rejection, Trigger};

/// The label value of a decision that nothing triggered.
pub const NO_TRIGGER: &str = "none";
/// The decisions as labels.
const DECISIONS: [&str; 6] = ["hold", "scale_up", "scale_down", "replace", "rebalance", "adopt"];
/// An alert's own status in a notification.
pub const ALERT_STATUSES: [&str; 2] = ["firing", "resolved"];
/// How a scrape came out, as labels.
pub const SCRAPE_OUTCOMES: [&str; 5] = ["ok", "unreadable", "ill", "no_answer", "unknown"];

pub struct Counters {
    pub decisions: IntCounterVec,
    pub decisions_blocked: IntCounterVec,
    pub operations: IntCounterVec,
    pub operation_duration: HistogramVec,
    pub trigger_to_completion: HistogramVec,
    pub last_operation: GaugeVec,
    pub reversals: IntCounterVec,
    pub shards_moved: IntCounterVec,
    pub bytes_moved: IntCounterVec,
    pub scrapes: IntCounterVec,
    pub evaluation_duration: HistogramVec,
    pub evaluations_missed: IntCounterVec,
    pub http_requests: IntCounterVec,
    pub http_duration: HistogramVec,
    pub journal_errors: IntCounter,
    pub config_successful: Gauge,
    pub web_config_successful: Gauge,
    pub config_success_at: Gauge,
    pub alerts_received: IntCounterVec,
    pub alerts_unmatched: IntCounter,
    pub alerts_truncated: IntCounter,
    pub alerts_dropped: IntCounterVec,
    pub alerts_rejected: IntCounterVec,
    pub alertmanager_heard_at: Gauge,
}

impl Counters {
    pub fn new(registry: &Registry) -> Counters {
        let operation_buckets = [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0];
        let request_buckets = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
        let counters = Counters {
            decisions: counter(
                "decisions_total",
                "Decisions made, hold included.",
                &["pool", "decision", "trigger", "mode"],
            ),
            decisions_blocked: counter(
                "decisions_blocked_total",
                "Changes that were wanted and held back by this guard.",
                &["pool", "guard"],
            ),
            operations: counter("operations_total", "Operations that ended, by outcome.", &["pool", "kind", "outcome"]),
            operation_duration: histogram(
                "operation_duration_seconds",
                "Start to end of operations.",
                &["pool", "kind"],
                &operation_buckets,
            ),
            trigger_to_completion: histogram(
                "trigger_to_completion_seconds",
                "First check over the line to the end of the operation it led to.",
                &["pool", "kind"],
                &operation_buckets,
            ),
            last_operation: gauge(
                "last_operation_timestamp_seconds",
                "When the last operation of this kind ended; 0 if there was none.",
                &["pool", "kind"],
            ),
            reversals: counter(
                "reversals_total",
                "Operations that soon took back the one before: up after down, or down after up.",
                &["pool"],
            ),
            shards_moved: counter("shards_moved_total", "Shards that were moved between nodes.", &["pool"]),
            bytes_moved: counter("bytes_moved_total", "Bytes of shards that were moved between nodes.", &["pool"]),
            scrapes: counter("scrapes_total", "Looks at one node, by outcome.", &["pool", "outcome"]),
            evaluation_duration: histogram(
                "evaluation_duration_seconds",
                "One whole check: collect, observe, decide, write down.",
                &["pool"],
                &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0],
            ),
            evaluations_missed: counter(
                "evaluations_missed_total",
                "Checks that did not run because the one before took too long.",
                &["pool"],
            ),
            http_requests: counter(
                "http_requests_total",
                "HTTP requests answered, by route and status code.",
                &["path", "code"],
            ),
            http_duration: histogram(
                "http_request_duration_seconds",
                "Time to answer an HTTP request.",
                &["path"],
                &request_buckets,
            ),
            journal_errors: lone_counter("journal_errors_total", "Reads and writes that the journal refused."),
            config_successful: lone_gauge(
                "config_last_reload_successful",
                "Whether the last load of the configuration was taken.",
            ),
            web_config_successful: lone_gauge(
                "web_config_last_reload_successful",
                "Whether the last change of the files of TLS and credentials was taken.",
            ),
            config_success_at: lone_gauge(
                "config_last_reload_success_timestamp_seconds",
                "When a configuration was last taken.",
            ),
            alerts_received: counter(
                "alerts_received_total",
                "Alerts in notifications that were taken, by their status.",
                &["status"],
            ),
            alerts_unmatched: lone_counter(
                "alerts_unmatched_total",
                "Alerts in notifications that belong to no entry of any pool.",
            ),
            alerts_truncated: lone_counter(
                "alerts_truncated_total",
                "Alerts that Alertmanager left out of its notifications (max_alerts).",
            ),
            alerts_dropped: counter(
                "alerts_dropped_total",
                "Alerts in notifications that were passed over, for their entry had as many as are kept of one.",
                &["pool"],
            ),
            alerts_rejected: counter(
                "alerts_rejected_total",
                "Notifications that were not taken, by reason.",
                &["reason"],
            ),
            alertmanager_heard_at: lone_gauge(
                "alertmanager_last_notification_timestamp_seconds",
                "When a notification was last taken; 0 if there was none since the start.",
            ),
        };
        counters.register(registry);
        for status in ALERT_STATUSES {
            counters.alerts_received.with_label_values(&[status]);
        }
        for reason in Rejection::ALL {
            counters.alerts_rejected.with_label_values(&[reason.as_str()]);
        }
        counters
    }

    fn register(&self, registry: &Registry) {
        let all: [Box<dyn prometheus::core::Collector>; 24] = [
            Box::new(self.decisions.clone()),
            Box::new(self.decisions_blocked.clone()),
            Box::new(self.operations.clone()),
            Box::new(self.operation_duration.clone()),
            Box::new(self.trigger_to_completion.clone()),
            Box::new(self.last_operation.clone()),
            Box::new(self.reversals.clone()),
            Box::new(self.shards_moved.clone()),
            Box::new(self.bytes_moved.clone()),
            Box::new(self.scrapes.clone()),
            Box::new(self.evaluation_duration.clone()),
            Box::new(self.evaluations_missed.clone()),
            Box::new(self.http_requests.clone()),
            Box::new(self.http_duration.clone()),
            Box::new(self.journal_errors.clone()),
            Box::new(self.config_successful.clone()),
            Box::new(self.web_config_successful.clone()),
            Box::new(self.config_success_at.clone()),
            Box::new(self.alerts_received.clone()),
            Box::new(self.alerts_unmatched.clone()),
            Box::new(self.alerts_truncated.clone()),
            Box::new(self.alerts_dropped.clone()),
            Box::new(self.alerts_rejected.clone()),
            Box::new(self.alertmanager_heard_at.clone()),
        ];
        for collector in all {
            registry.register(collector).expect("each name is registered once, in a registry of our own");
        }
    }

    /// Touches every label combination of a pool, so that its counters begin at 0.
    pub fn expect_pool(&self, pool: &str) {
        let triggers = Trigger::ALL.iter().map(|t| t.as_str()).chain([NO_TRIGGER]);
        for trigger in triggers {
            for (decision, mode) in DECISIONS.iter().flat_map(|d| Mode::ALL.map(|m| (d, m))) {
                self.decisions.with_label_values(&[pool, decision, trigger, mode.as_str()]);
            }
        }
        for guard in Guard::ALL {
            self.decisions_blocked.with_label_values(&[pool, guard.as_str()]);
        }
        for kind in Kind::ALL.map(Kind::as_str) {
            for outcome in OperationState::OUTCOMES {
                self.operations.with_label_values(&[pool, kind, outcome.as_str()]);
            }
            self.operation_duration.with_label_values(&[pool, kind]);
            self.trigger_to_completion.with_label_values(&[pool, kind]);
            self.last_operation.with_label_values(&[pool, kind]);
        }
        for outcome in SCRAPE_OUTCOMES {
            self.scrapes.with_label_values(&[pool, outcome]);
        }
        self.evaluation_duration.with_label_values(&[pool]);
        let (missed, dropped) = (&self.evaluations_missed, &self.alerts_dropped);
        for counter in [&self.reversals, &self.shards_moved, &self.bytes_moved, missed, dropped] {
            counter.with_label_values(&[pool]);
        }
    }

    /// Touches the series of one HTTP route.
    pub fn expect_path(&self, path: &str) {
        self.http_requests.with_label_values(&[path, "200"]);
        self.http_duration.with_label_values(&[path]);
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("vecscale")
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(opts(name, help), labels).expect("names and labels are valid")
}

fn lone_counter(name: &str, help: &str) -> IntCounter {
    IntCounter::with_opts(opts(name, help)).expect("the name is valid")
}

fn lone_gauge(name: &str, help: &str) -> Gauge {
    Gauge::with_opts(opts(name, help)).expect("the name is valid")
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    GaugeVec::new(opts(name, help), labels).expect("names and labels are valid")
}

fn histogram(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let opts = HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() };
    HistogramVec::new(opts, labels).expect("names and labels are valid")
}
