//! The page as a scraper sees it, and one log line per event.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::Level;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::Telemetry;
use crate::model::{
    self, Action, Answer, Gap, NodeSample, OperationState, PoolName, PoolView, Reading, Rejection, Signal,
};
use crate::record::JournalError;

#[path = "../../tests/fixtures/pool_view.rs"]
pub(crate) mod pool_view;
use pool_view::{AT, decision, operation, rich_view};

fn pool() -> PoolName {
    "default".into()
}

/// A telemetry that shows one pool, and the picture it draws from.
fn showing(view: PoolView) -> (Telemetry, Arc<ArcSwap<PoolView>>) {
    let telemetry = Telemetry::new(AT);
    let picture = Arc::new(ArcSwap::from_pointee(view));
    telemetry.register_pool(&pool(), picture.clone());
    telemetry.register_path("/metrics");
    (telemetry, picture)
}

fn before_the_first_check() -> PoolView {
    let mut view = rich_view("default", 0);
    (view.seen, view.decision, view.operation) = (None, None, None);
    (view.conditions, view.guards, view.unexplained) = (vec![], vec![], vec![]);
    view
}

/// The sample line of a series, without the value.
fn value<'a>(page: &'a str, series: &str) -> Option<&'a str> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

fn assert_series(page: &str, expected: &[(&str, Option<&str>)]) {
    for (series, expected) in expected {
        let name = series.split('{').next().unwrap_or(series);
        let near: Vec<&str> = page.lines().filter(|l| l.starts_with(name)).take(20).collect();
        assert_eq!(value(page, series), *expected, "{series}\n{}", near.join("\n"));
    }
}

#[test]
fn closed_label_sets_begin_at_zero() {
    let (telemetry, _) = showing(before_the_first_check());
    assert_series(
        &telemetry.render(),
        &[
            (
                r#"vecscale_decisions_total{decision="rebalance",mode="observe",pool="default",trigger="none"}"#,
                Some("0"),
            ),
            (r#"vecscale_decisions_blocked_total{guard="no_provider",pool="default"}"#, Some("0")),
            (r#"vecscale_operations_total{kind="replace",outcome="partial",pool="default"}"#, Some("0")),
            (r#"vecscale_operation_duration_seconds_count{kind="scale_up",pool="default"}"#, Some("0")),
            (r#"vecscale_trigger_to_completion_seconds_count{kind="scale_up",pool="default"}"#, Some("0")),
            (r#"vecscale_last_operation_timestamp_seconds{kind="rebalance",pool="default"}"#, Some("0")),
            (r#"vecscale_operation_running{kind="scale_down",pool="default",step="drain"}"#, Some("0")),
            (r#"vecscale_guard_active{guard="cooldown",pool="default"}"#, Some("0")),
            (r#"vecscale_operation_blocked{pool="default"}"#, Some("0")),
            (r#"vecscale_mode{mode="active",pool="default"}"#, Some("1")),
            (r#"vecscale_mode{mode="stopped",pool="default"}"#, Some("0")),
            (r#"vecscale_nodes{pool="default",state="draining"}"#, Some("0")),
            (r#"vecscale_unexplained{kind="ghost_member",pool="default"}"#, Some("0")),
            (r#"vecscale_override_active{name="cpu_threshold_high",pool="default"}"#, Some("0")),
            (r#"vecscale_scrapes_total{outcome="no_answer",pool="default"}"#, Some("0")),
            (r#"vecscale_evaluations_missed_total{pool="default"}"#, Some("0")),
            (r#"vecscale_reversals_total{pool="default"}"#, Some("0")),
            (r#"vecscale_shards_moved_total{pool="default"}"#, Some("0")),
            (r#"vecscale_http_requests_total{code="200",path="/metrics"}"#, Some("0")),
            ("vecscale_journal_errors_total", Some("0")),
            (
                r#"vecscale_decisions_total{decision="scale_up",mode="active",pool="default",trigger="alert"}"#,
                Some("0"),
            ),
            (r#"vecscale_guard_active{guard="alert_hold",pool="default"}"#, Some("0")),
            (r#"vecscale_alerts_received_total{status="firing"}"#, Some("0")),
            (r#"vecscale_alerts_received_total{status="resolved"}"#, Some("0")),
            ("vecscale_alerts_unmatched_total", Some("0")),
            ("vecscale_alerts_truncated_total", Some("0")),
            (r#"vecscale_alerts_dropped_total{pool="default"}"#, Some("0")),
            (r#"vecscale_alerts_rejected_total{reason="too_large"}"#, Some("0")),
            (r#"vecscale_alerts_rejected_total{reason="unavailable"}"#, Some("0")),
            ("vecscale_alertmanager_last_notification_timestamp_seconds", Some("0")),
            (r#"vecscale_alert_firing{alert="upgrade",pool="default"}"#, Some("0")),
            (r#"vecscale_last_observation_timestamp_seconds{pool="default"}"#, None),
            (r#"vecscale_cpu_usage_ratio{pool="default"}"#, None),
        ],
    );
}

#[test]
fn gauges_show_the_picture_in_base_units_and_nothing_for_what_is_missing() {
    let (telemetry, _) = showing(rich_view("default", 3));
    assert_series(
        &telemetry.render(),
        &[
            (r#"vecscale_cpu_usage_ratio{pool="default"}"#, Some("0.81")),
            (r#"vecscale_search_latency_seconds{pool="default"}"#, Some("0.12")),
            (r#"vecscale_memory_usage_ratio{pool="default"}"#, None),
            (r#"vecscale_error_ratio{pool="default"}"#, None),
            (r#"vecscale_queries_per_second{pool="default"}"#, None),
            (r#"vecscale_signal_fresh{pool="default",signal="memory_usage"}"#, Some("0")),
            (r#"vecscale_signal_fresh{pool="default",signal="error_rate"}"#, Some("1")),
            (r#"vecscale_signal_fresh{pool="default",signal="storage_usage"}"#, None),
            (r#"vecscale_signal_value{pool="default",signal="queue_depth"}"#, Some("4")),
            (r#"vecscale_signal_value{pool="default",signal="search_latency"}"#, Some("0.12")),
            (r#"vecscale_threshold{bound="high",pool="default",signal="search_latency"}"#, Some("0.5")),
            (r#"vecscale_threshold{bound="low",pool="default",signal="cpu_usage"}"#, Some("0.3")),
            (r#"vecscale_threshold{bound="high",pool="default",signal="queue_depth"}"#, Some("100")),
            (r#"vecscale_node_search_latency_seconds{node="n2",pool="default"}"#, Some("0.12")),
            (r#"vecscale_node_memory_usage_ratio{node="n2",pool="default"}"#, None),
            (r#"vecscale_condition_streak{condition="cpu_high",pool="default"}"#, Some("2")),
            (r#"vecscale_condition_active{condition="cpu_high",pool="default"}"#, Some("1")),
            (r#"vecscale_guard_active{guard="cooldown",pool="default"}"#, Some("1")),
            (r#"vecscale_cooldown_remaining_seconds{direction="scale_up",pool="default"}"#, Some("212")),
            (r#"vecscale_override_active{name="max_nodes",pool="default"}"#, Some("1")),
            (r#"vecscale_window_active{pool="default",window="office"}"#, Some("1")),
            (r#"vecscale_window_active{pool="default",window="launch"}"#, Some("0")),
            (
                r#"vecscale_window_next_transition_timestamp_seconds{pool="default",window="office"}"#,
                Some("1764003600"),
            ),
            (r#"vecscale_window_next_transition_timestamp_seconds{pool="default",window="launch"}"#, None),
            (r#"vecscale_nodes{pool="default",state="serving"}"#, Some("3")),
            (r#"vecscale_operation_running{kind="scale_up",pool="default",step="move"}"#, Some("1")),
            (r#"vecscale_operation_running{kind="scale_up",pool="default",step="create"}"#, Some("0")),
            (r#"vecscale_operation_bytes_remaining{pool="default"}"#, Some("500")),
            (r#"vecscale_operation_deadline_timestamp_seconds{pool="default"}"#, Some("1764000600")),
            (r#"vecscale_shard_replicas_missing{pool="default"}"#, Some("0")),
            (r#"vecscale_shards_sole_copy{pool="default"}"#, None),
            (r#"vecscale_needs_human{pool="default"}"#, Some("1")),
            (r#"vecscale_unexplained{kind="orphan_instance",pool="default"}"#, Some("1")),
            (r#"vecscale_alert_firing{alert="slow-search",pool="default"}"#, Some("1")),
            (r#"vecscale_alert_firing{alert="upgrade",pool="default"}"#, Some("0")),
            ("process_start_time_seconds", Some("1764000000")),
        ],
    );
}

#[test]
fn the_series_of_a_node_vanish_with_it() {
    let (telemetry, picture) = showing(rich_view("default", 3));
    assert!(telemetry.render().contains(r#"node="n3""#));
    picture.store(Arc::new(rich_view("default", 2)));
    let page = telemetry.render();
    assert!(!page.contains(r#"node="n3""#), "{page}");
    assert!(page.contains(r#"node="n2""#), "{page}");
}

#[test]
fn a_number_that_is_none_is_no_sample() {
    let mut view = rich_view("default", 1);
    let seen = view.seen.as_mut().expect("an observation");
    seen.readings.insert(Signal::Cpu, Reading::Fresh { value: f64::NAN });
    seen.nodes[0].load = Some(f64::INFINITY);
    view.operation.as_mut().expect("a running operation").state = OperationState::Blocked;
    let page = showing(view).0.render();
    assert_series(&page, &[(r#"vecscale_operation_blocked{pool="default"}"#, Some("1"))]);
    assert_series(&page, &[(r#"vecscale_cpu_usage_ratio{pool="default"}"#, None)]);
    assert_series(&page, &[(r#"vecscale_node_load_ratio{node="n1",pool="default"}"#, None)]);
}

#[test]
fn events_are_counted() {
    let (telemetry, _) = showing(rich_view("default", 3));
    telemetry.decided(&pool(), &decision(1));
    telemetry.moved(&pool(), 2, 1000);
    telemetry.reversal(&pool());
    let mut garbled = sample(Answer::Up);
    garbled.signals.insert(Signal::Cpu, Err(Gap::Unreadable("line 3".into())));
    telemetry.scraped(&pool(), &[sample(Answer::Up), sample(Answer::Ill), garbled]);
    telemetry.http_served("/metrics", 200, Duration::from_millis(2));
    let mut ended = operation("default");
    (ended.state, ended.ended_at) = (OperationState::Succeeded, Some(AT.plus(Duration::from_secs(50))));
    telemetry.operation_ended(&ended, AT.minus(Duration::from_secs(30)));
    let mut failed = ended.clone();
    failed.state = OperationState::Failed;
    telemetry.operation_ended(&failed, AT);
    assert_series(
        &telemetry.render(),
        &[
            (
                r#"vecscale_decisions_total{decision="hold",mode="active",pool="default",trigger="threshold"}"#,
                Some("1"),
            ),
            (r#"vecscale_decisions_blocked_total{guard="cooldown",pool="default"}"#, Some("1")),
            (r#"vecscale_shards_moved_total{pool="default"}"#, Some("2")),
            (r#"vecscale_bytes_moved_total{pool="default"}"#, Some("1000")),
            (r#"vecscale_reversals_total{pool="default"}"#, Some("1")),
            (r#"vecscale_scrapes_total{outcome="ok",pool="default"}"#, Some("1")),
            (r#"vecscale_scrapes_total{outcome="ill",pool="default"}"#, Some("1")),
            (r#"vecscale_scrapes_total{outcome="unreadable",pool="default"}"#, Some("1")),
            (r#"vecscale_scrapes_total{outcome="no_answer",pool="default"}"#, Some("0")),
            (r#"vecscale_http_requests_total{code="200",path="/metrics"}"#, Some("1")),
            (r#"vecscale_operations_total{kind="scale_up",outcome="succeeded",pool="default"}"#, Some("1")),
            (r#"vecscale_operations_total{kind="scale_up",outcome="failed",pool="default"}"#, Some("1")),
            (r#"vecscale_operation_duration_seconds_sum{kind="scale_up",pool="default"}"#, Some("100")),
            (r#"vecscale_trigger_to_completion_seconds_sum{kind="scale_up",pool="default"}"#, Some("80")),
            (r#"vecscale_last_operation_timestamp_seconds{kind="scale_up",pool="default"}"#, Some("1764000050")),
        ],
    );
}

/// Counts log lines by level.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Level>>>);

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.0.lock().expect("no test panics while logging").push(*event.metadata().level());
    }
}

fn sample(answer: Answer) -> NodeSample {
    let node = pool_view::node_id(1);
    NodeSample { node, at: AT, took: Duration::from_millis(3), answer, signals: Default::default() }
}

#[test]
fn each_event_is_one_line() {
    let lines = Lines::default();
    // With a single subscriber, tracing lets a test on another thread, which has none, switch a line off for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let telemetry = Telemetry::new(AT);
    let expect = |what: &str, level: Level| {
        let written = std::mem::take(&mut *lines.0.lock().expect("no test panics while logging"));
        assert_eq!(written, [level], "{what}");
    };
    telemetry.decided(&pool(), &decision(1));
    expect("a first decision", Level::INFO);
    telemetry.decided(&pool(), &decision(2));
    expect("the same again", Level::DEBUG);
    let mut freed = decision(3);
    freed.guards.clear();
    telemetry.decided(&pool(), &freed);
    expect("other guards", Level::INFO);
    freed.action = Action::Rebalance {};
    telemetry.decided(&pool(), &freed);
    expect("it acts", Level::INFO);
    telemetry.decided(&pool(), &freed);
    expect("it acts again", Level::INFO);
    let operation = operation("default");
    telemetry.operation_began(&operation);
    expect("began", Level::INFO);
    telemetry.step_changed(&operation, &operation.steps[0]);
    expect("step", Level::INFO);
    telemetry.operation_ended(&operation, AT);
    expect("ended otherwise than well", Level::WARN);
    telemetry.scraped(&pool(), &[sample(Answer::Up)]);
    expect("scraped", Level::DEBUG);
    telemetry.scraped(&pool(), &[sample(Answer::None)]);
    expect("a node fell silent", Level::WARN);
    telemetry.scraped(&pool(), &[sample(Answer::None)]);
    expect("still silent", Level::DEBUG);
    telemetry.scraped(&pool(), &[sample(Answer::Up)]);
    expect("back again", Level::INFO);
    telemetry.evaluated(&pool(), Duration::from_millis(3));
    expect("evaluated", Level::DEBUG);
    telemetry.evaluation_missed(&pool());
    expect("missed", Level::WARN);
    telemetry.reversal(&pool());
    expect("reversal", Level::WARN);
    telemetry.moved(&pool(), 1, 1);
    expect("moved", Level::INFO);
    telemetry.http_served("/metrics", 200, Duration::ZERO);
    expect("served", Level::DEBUG);
    telemetry.journal_error(&JournalError::Unreadable("x".into()));
    expect("journal", Level::ERROR);
    telemetry.alerts_received("scaler", [2, 1, 0, 0], AT);
    expect("a notification", Level::DEBUG);
    telemetry.alerts_received("scaler", [1, 0, 0, 2], AT);
    expect("a list that is not whole", Level::WARN);
    telemetry.alerts_rejected(Rejection::Version, "another version");
    expect("a notification not taken", Level::WARN);
    telemetry.alerts_changed(&pool(), "slow-search firing");
    expect("other alerts fire", Level::INFO);
    telemetry.alerts_dropped(&pool(), 7);
    expect("too many", Level::WARN);
    telemetry.config_reloaded(Ok(()), AT);
    expect("reloaded", Level::INFO);
    telemetry.config_reloaded(Err("two problems"), AT);
    expect("refused", Level::ERROR);
    telemetry.web_config_reloaded(Ok(()));
    expect("certificates renewed", Level::INFO);
    telemetry.web_config_reloaded(Err("no pair"));
    expect("certificates refused", Level::ERROR);
    telemetry.token_exposed(Path::new("token"));
    expect("a token for all", Level::WARN);
}

#[test]
fn a_refused_web_configuration_shows_until_one_is_taken() {
    let telemetry = Telemetry::new(AT);
    let shown = || telemetry.render().contains("vecscale_web_config_last_reload_successful 1\n");
    for (outcome, fine) in [(Ok(()), true), (Err("no pair"), false), (Err("none yet"), false), (Ok(()), true)] {
        telemetry.web_config_reloaded(outcome);
        assert_eq!(shown(), fine, "{outcome:?}");
    }
    telemetry.web_config_reloaded(Err("no pair"));
    telemetry.config_reloaded(Err("two problems"), AT);
    assert!(!shown(), "a refused configuration brings nothing");
    telemetry.config_reloaded(Ok(()), AT);
    assert!(shown(), "the files were read with the configuration");
}

/// `promtool check metrics` on the page of two pools, one of them not yet observed.
#[test]
fn promtool_finds_nothing_to_say() {
    let (telemetry, _) = showing(rich_view("default", 3));
    telemetry.register_pool(
        &"other".into(),
        Arc::new(ArcSwap::from_pointee(PoolView { pool: "other".into(), ..before_the_first_check() })),
    );
    telemetry.config_reloaded(Ok(()), AT);
    let page = telemetry.render();
    let mut promtool = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(running) => running,
        Err(why) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: promtool cannot be run here ({why})");
            return;
        }
        Err(why) => panic!("promtool is needed in CI: {why}"),
    };
    promtool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("promtool reads the page");
    let said = promtool.wait_with_output().expect("promtool ends");
    let text = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && text.is_empty(), "{}\n{page}", String::from_utf8_lossy(&text));
}
