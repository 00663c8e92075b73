//! Requests that only look: pages, pictures, lists from the journal. IO (the journal).

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::analytics::{self, Rollup};
use super::input::{Query, cut, parse_duration, unknown};
use super::layers::Call;
use super::plan::{self, plan};
use super::problem::Problem;
use super::routes::Endpoint;
use super::{Server, shape};
use crate::handle::PoolHandle;
use crate::http::{Answer, host_port, json as json_answer, typed};
use crate::model::{
    Decision, HistoryKind, Kind, NodeState, Operation, OperationId, OperationState, PoolName, Timestamp, Verb,
};
use crate::record::{HistoryQuery, JournalError};
use crate::telemetry::CONTENT_TYPE;

const TEXT: &str = "text/plain; charset=utf-8";
/// The store's own step; every other is a multiple of it.
const STORE_STEP_SECS: u64 = 300;
/// How far analytics look back unless told otherwise, and how long the store keeps observations.
const KEPT: Duration = Duration::from_secs(28 * 86_400);
/// At most so many operations enter the analytics: a pool that has more in 28 days has other worries.
const MOST_OPERATIONS: usize = 2_000;

impl Server {
    pub(super) async fn answer(&self, call: Call) -> Result<Answer, Problem> {
        match call.endpoint {
            Endpoint::Index => Ok(typed(StatusCode::OK, "text/html; charset=utf-8", INDEX)),
            Endpoint::Metrics => Ok(typed(StatusCode::OK, CONTENT_TYPE, self.telemetry.render())),
            Endpoint::Healthy => Ok(typed(StatusCode::OK, TEXT, "vecscale is healthy.\n")),
            Endpoint::Ready => self.ready(),
            Endpoint::Reload => self.reload(&call).await,
            Endpoint::Status => self.status(&call),
            Endpoint::Start => self.start(&call).await,
            Endpoint::Stop => self.stop(&call).await,
            Endpoint::Thresholds => Ok(json_answer(StatusCode::OK, &self.pool(&call)?.view.load().thresholds)),
            Endpoint::SetThresholds => self.set_thresholds(&call).await,
            Endpoint::DropThresholds => self.drop_thresholds(&call).await,
            Endpoint::ScaleUp => self.operate(&call, Kind::ScaleUp).await,
            Endpoint::ScaleDown => self.operate(&call, Kind::ScaleDown).await,
            Endpoint::Rebalance => self.operate(&call, Kind::Rebalance).await,
            Endpoint::Maintain => self.maintain(&call).await,
            Endpoint::EndMaintenance => self.end_maintenance(&call).await,
            Endpoint::Drain => self.operate_on(&call, Kind::Drain).await,
            Endpoint::OpenAgain => self.open_again(&call).await,
            Endpoint::History => self.history(&call).await,
            Endpoint::Observations => self.observations(&call).await,
            Endpoint::Analytics => self.analytics(&call).await,
            Endpoint::Decisions => self.decisions(&call).await,
            Endpoint::Decision => self.decision(&call).await,
            Endpoint::Operations => self.operations(&call).await,
            Endpoint::Operation => self.operation(&call).await,
            Endpoint::Cancel => self.order(&call, Verb::Cancel).await,
            Endpoint::Pause => self.order(&call, Verb::Pause).await,
            Endpoint::Resume => self.order(&call, Verb::Resume).await,
            Endpoint::Retry => self.order(&call, Verb::Retry).await,
            Endpoint::Resolve => self.resolve(&call).await,
            Endpoint::Adopt => self.operate_on(&call, Kind::Adopt).await,
            Endpoint::Reap => self.operate_on(&call, Kind::Reap).await,
            Endpoint::ResetBreaker => self.reset_breaker(&call).await,
            Endpoint::Plan => self.plan(&call),
            Endpoint::Targets => self.targets(&call),
            Endpoint::Alertmanager => self.alertmanager(&call).await,
        }
    }

    /// The pool that a request means which takes no other query parameter.
    pub(super) fn pool(&self, call: &Call) -> Result<&PoolHandle, Problem> {
        self.pool_named(&Query::read(call.head.uri.query(), &["pool"])?)
    }

    /// The pool named by `?pool=`, or the only one.
    pub(super) fn pool_named(&self, query: &Query) -> Result<&PoolHandle, Problem> {
        let names = || self.pools.keys().map(|name| &**name).collect::<Vec<_>>();
        match query.get("pool") {
            Some(name) => self
                .pools
                .get(name)
                .ok_or_else(|| Problem::not_found(unknown("pool", &format!("?pool={}", cut(name)), name, &names()))),
            None if self.pools.len() == 1 => Ok(self.pools.values().next().expect("one")),
            None => Err(Problem::malformed(format!("?pool= is needed, one of: {}", names().join(", ")))
                .with("pools", json!(names()))),
        }
    }

    fn ready(&self) -> Result<Answer, Problem> {
        let waiting: Vec<&str> =
            self.pools.values().filter(|p| p.view.load().seen.is_none()).map(|p| &*p.pool).collect();
        if waiting.is_empty() {
            return Ok(typed(StatusCode::OK, TEXT, "vecscale is ready.\n"));
        }
        Err(Problem::unavailable(format!("not observed yet: pool {}", waiting.join(", "))))
    }

    fn status(&self, call: &Call) -> Result<Answer, Problem> {
        Ok(json_answer(StatusCode::OK, &shape::status(&self.pool(call)?.view.load(), self.clock.now())))
    }

    async fn history(&self, call: &Call) -> Result<Answer, Problem> {
        let query = Query::read(call.head.uri.query(), &["pool", "limit", "before", "kind", "since"])?;
        let kinds = HistoryKind::ALL.map(HistoryKind::as_str);
        let kind = query.get("kind").map(|text| {
            let found = HistoryKind::ALL.into_iter().find(|k| k.as_str() == text);
            found.ok_or_else(|| Problem::malformed(unknown("kind", &format!("?kind={}", cut(text)), text, &kinds)))
        });
        let asked = HistoryQuery {
            pool: Some(self.pool_named(&query)?.pool.clone()),
            kind: kind.transpose()?,
            before: query.whole("before")?,
            since: query.time("since")?,
            limit: query.limit()?,
        };
        let items = self.kept(self.journal.history(&asked).await)?;
        Ok(list(&items, asked.limit, |item| json!(item.id)))
    }

    async fn decisions(&self, call: &Call) -> Result<Answer, Problem> {
        let query = Query::read(call.head.uri.query(), &["pool", "limit", "before"])?;
        let (pool, limit) = (&self.pool_named(&query)?.pool, query.limit()?);
        let items = self.kept(self.journal.decisions(pool, limit, query.whole("before")?).await)?;
        Ok(list(&items, limit, |decision| json!(decision.id)))
    }

    async fn decision(&self, call: &Call) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let none =
            || Problem::not_found(format!("no decision {:?}: GET /autoscaling/decisions lists them", cut(&call.id)));
        let id = call.id.parse().map_err(|_| none())?;
        // The latest decision may be a repeated one, which the journal does not keep again.
        if let Some(last) = pool.view.load().decision.as_ref().filter(|d| d.id == id) {
            return Ok(json_answer(StatusCode::OK, last));
        }
        let found = self.kept(self.journal.decision(&pool.pool, id).await)?;
        Ok(json_answer(StatusCode::OK, &found.ok_or_else(none)?))
    }

    async fn operations(&self, call: &Call) -> Result<Answer, Problem> {
        let query = Query::read(call.head.uri.query(), &["pool", "limit", "before"])?;
        let (pool, limit) = (&self.pool_named(&query)?.pool, query.limit()?);
        let before = query.get("before").map(|id| OperationId(id.into()));
        let found = self.kept(self.journal.operations(pool, limit, before.as_ref()).await)?;
        let items: Vec<Value> = found.iter().map(shape::head).collect();
        Ok(list(&items, limit, |operation| operation["id"].clone()))
    }

    async fn operation(&self, call: &Call) -> Result<Answer, Problem> {
        Query::read(call.head.uri.query(), &["pool"])?;
        let found = self.kept(self.journal.operation(&OperationId(call.id.as_str().into())).await)?;
        let none =
            || Problem::not_found(format!("no operation {:?}: GET /autoscaling/operations lists them", cut(&call.id)));
        let mut found = found.ok_or_else(none)?;
        let view = self.pools.get(&found.pool).map(|pool| pool.view.load_full());
        if let Some(shown) = view.as_ref().and_then(|view| view.operation.as_ref()).filter(|o| o.id == found.id) {
            came_on(&mut found, shown);
        }
        let usual = view.and_then(|view| view.bytes_per_second);
        Ok(json_answer(StatusCode::OK, &shape::operation(&found, self.clock.now(), usual)))
    }

    /// The last 100 observations, oldest first; with `since`, 5-minute means and maxima from the store.
    async fn observations(&self, call: &Call) -> Result<Answer, Problem> {
        let query = Query::read(call.head.uri.query(), &["pool", "since", "step"])?;
        let pool = self.pool_named(&query)?;
        let Some(since) = query.time("since")? else {
            if query.get("step").is_some() {
                return Err(Problem::unacceptable(
                    "?step= goes with ?since=: without it the last 100 observations are given as they are",
                ));
            }
            let items: Vec<Value> = pool.recent.load().iter().map(|seen| shape::metrics(seen)).collect();
            return Ok(json_answer(StatusCode::OK, &json!({"items": items, "next": null})));
        };
        let items = self.kept(self.journal.observations(&pool.pool, since, step_secs(&query)?).await)?;
        Ok(json_answer(StatusCode::OK, &json!({"items": items, "next": null})))
    }

    async fn analytics(&self, call: &Call) -> Result<Answer, Problem> {
        let query = Query::read(call.head.uri.query(), &["pool", "since"])?;
        let pool = self.pool_named(&query)?;
        let now = self.clock.now();
        let since = query.time("since")?.unwrap_or_else(|| now.minus(KEPT));
        let operations = self.operations_since(&pool.pool, since).await?;
        // The hour before the first operation is needed to compare with.
        let rollups = self.journal.observations(&pool.pool, since.minus(analytics::COMPARED), STORE_STEP_SECS).await;
        let rollups: Vec<Rollup> = self.kept(rollups)?.iter().filter_map(Rollup::read).collect();
        let decisions = self.decisions_of(&pool.pool, &operations).await?;
        let view = pool.view.load();
        let facts = analytics::Facts {
            since,
            now,
            operations: &operations,
            decisions: &decisions,
            rollups: &rollups,
            thresholds: &view.usual_thresholds,
            conditions: &view.conditions,
        };
        Ok(json_answer(StatusCode::OK, &analytics::analytics(&facts)))
    }

    /// What the operations were begun for, by id, as far as it is still kept.
    async fn decisions_of(
        &self,
        pool: &PoolName,
        operations: &[Operation],
    ) -> Result<BTreeMap<u64, Decision>, Problem> {
        let mut found = BTreeMap::new();
        for id in operations.iter().filter_map(|o| o.decision) {
            let decision = self.kept(self.journal.decision(pool, id).await)?;
            found.extend(decision.map(|decision| (id, decision)));
        }
        Ok(found)
    }

    /// Operations that started since an instant, newest first.
    async fn operations_since(&self, pool: &PoolName, since: Timestamp) -> Result<Vec<Operation>, Problem> {
        let mut all: Vec<Operation> = Vec::new();
        while all.len() < MOST_OPERATIONS {
            let before = all.last().map(|o| o.id.clone());
            let page = self.kept(self.journal.operations(pool, 1000, before.as_ref()).await)?;
            let whole = page.len() == 1000;
            all.extend(page);
            if !whole || all.last().is_some_and(|o| o.started_at < since) {
                break;
            }
        }
        all.retain(|o| o.started_at >= since);
        Ok(all)
    }

    fn plan(&self, call: &Call) -> Result<Answer, Problem> {
        let query = Query::read(call.head.uri.query(), &["pool", "kind"])?;
        let view = self.pool_named(&query)?.view.load();
        let Some(text) = query.get("kind") else {
            let plans: Map<String, Value> =
                plan::KINDS.into_iter().map(|kind| (kind.as_str().to_string(), plan(&view, kind))).collect();
            return Ok(json_answer(StatusCode::OK, &plans));
        };
        let names = plan::KINDS.map(Kind::as_str);
        let kind = plan::KINDS.into_iter().find(|k| k.as_str() == text.replace('-', "_"));
        let kind =
            kind.ok_or_else(|| Problem::malformed(unknown("kind", &format!("?kind={}", cut(text)), text, &names)))?;
        Ok(json_answer(StatusCode::OK, &plan(&view, kind)))
    }

    /// Prometheus' http_sd: the nodes of all pools, or of one. A lost node is of none.
    fn targets(&self, call: &Call) -> Result<Answer, Problem> {
        let query = Query::read(call.head.uri.query(), &["pool"])?;
        let pools: Vec<&PoolHandle> = match query.get("pool") {
            Some(_) => vec![self.pool_named(&query)?],
            None => self.pools.values().collect(),
        };
        let mut groups = Vec::new();
        for pool in pools {
            let view = pool.view.load();
            let nodes = view.seen.iter().flat_map(|seen| &seen.nodes).filter(|node| node.state != NodeState::Lost);
            for node in nodes {
                let mut labels = json!({"pool": pool.pool, "node": node.id});
                if let Some(zone) = &node.zone {
                    labels["zone"] = json!(zone);
                }
                if node.address.starts_with("https://") {
                    labels["__scheme__"] = json!("https");
                }
                groups.push(json!({"targets": [host_port(&node.address)], "labels": labels}));
            }
        }
        Ok(json_answer(StatusCode::OK, &groups))
    }

    /// The journal's answer, or its error, told and turned into a 503.
    fn kept<T>(&self, answer: Result<T, JournalError>) -> Result<T, Problem> {
        answer.inspect_err(|error| self.telemetry.journal_error(error)).map_err(Problem::from)
    }
}

/// What comes on between two writes is told by the picture alone.
fn came_on(kept: &mut Operation, shown: &Operation) {
    if kept.state != OperationState::Running || shown.state != OperationState::Running {
        return;
    }
    (kept.shards_left, kept.bytes_left) = (shown.shards_left, shown.bytes_left);
    kept.last_progress_at = shown.last_progress_at;
}

/// A list with the id to go on from, which is `before` of the next request; `null` at the end.
fn list<T: serde::Serialize>(items: &[T], limit: usize, id: impl Fn(&T) -> Value) -> Answer {
    let next = if items.len() == limit { items.last().map(id) } else { None };
    json_answer(StatusCode::OK, &json!({"items": items, "next": next}))
}

fn step_secs(query: &Query) -> Result<u64, Problem> {
    let Some(text) = query.get("step") else { return Ok(STORE_STEP_SECS) };
    let step = parse_duration(text)
        .ok_or_else(|| Problem::malformed(format!("?step={}: not a duration, such as 5m or 1h", cut(text))))?;
    match step.as_secs() {
        secs if secs > 0 && secs.is_multiple_of(STORE_STEP_SECS) && step.subsec_nanos() == 0 => Ok(secs),
        _ => Err(Problem::unacceptable(format!("?step={}: a multiple of 5m", cut(text)))),
    }
}

const INDEX: &str = concat!(
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>vecscale</title></head><body>",
    "<h1>vecscale ",
    env!("CARGO_PKG_VERSION"),
    "</h1><ul>",
    "<li><a href=\"/autoscaling/status\">status</a></li>",
    "<li><a href=\"/autoscaling/history\">history</a></li>",
    "<li><a href=\"/autoscaling/thresholds\">thresholds</a></li>",
    "<li><a href=\"/autoscaling/metrics\">observations</a></li>",
    "<li><a href=\"/autoscaling/decisions\">decisions</a></li>",
    "<li><a href=\"/autoscaling/operations\">operations</a></li>",
    "<li><a href=\"/autoscaling/plan\">plan</a></li>",
    "<li><a href=\"/autoscaling/analytics\">analytics</a></li>",
    "<li><a href=\"/autoscaling/targets\">targets</a></li>",
    "<li><a href=\"/metrics\">metrics</a></li>",
    "</ul></body></html>\n"
);
