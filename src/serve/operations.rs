//! Requests that start an operation, and orders about one that is open. 202 with where to watch it, or 200 with the
//! operation as it stands after the order.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::input::{Fields, cut};
use super::layers::Call;
use super::problem::Problem;
use super::{Server, shape};
use crate::handle::{Command, PoolHandle, Reply};
use crate::http::{Answer, json as json_answer};
use crate::model::{Kind, NodeId, OperationId, Order, Request, Verb, Verdict};

impl Server {
    /// A manual scale-up, scale-down or rebalance.
    pub(super) async fn operate(&self, call: &Call, kind: Kind) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        let known: &[&str] = if kind == Kind::Rebalance { &["reason"] } else { &["nodes", "node", "reason"] };
        fields.only(known)?;
        let nodes = fields.take_count("nodes", 1000)?.unwrap_or(1);
        let node = fields.take_text("node")?.map(|id| NodeId::new(&id)).transpose();
        let node = node.map_err(|why| Problem::unacceptable(format!("/node: {why}")))?;
        if kind == Kind::ScaleDown && nodes != 1 {
            return Err(Problem::unacceptable(
                "/nodes: a scale-down takes one node at a time; ask again when it has ended",
            ));
        }
        if kind == Kind::ScaleUp && node.is_some() {
            return Err(Problem::unacceptable(
                "/node: names the node to remove, in a scale-down; a new node gets its name here",
            ));
        }
        let request = Request {
            kind,
            nodes,
            node,
            reason: fields.take_text("reason")?,
            who: call.who(),
            key: idempotency_key(&call.head.headers)?,
        };
        self.begin(pool, request).await
    }

    /// Adopts, drains or reaps the node of the path.
    pub(super) async fn operate_on(&self, call: &Call, kind: Kind) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        fields.only(&["reason"])?;
        let node = NodeId::new(&call.id).map_err(|why| Problem::not_found(why.to_string()))?;
        let request = Request {
            kind,
            nodes: 1,
            node: Some(node),
            reason: fields.take_text("reason")?,
            who: call.who(),
            key: idempotency_key(&call.head.headers)?,
        };
        self.begin(pool, request).await
    }

    async fn begin(&self, pool: &PoolHandle, request: Request) -> Result<Answer, Problem> {
        match pool.ask(Command::Operate(request)).await? {
            Reply::Operation(operation) => {
                let location = format!("/autoscaling/operations/{}", operation.id);
                let body = json!({"operation": shape::operation(&operation, self.clock.now(), pool.view.load().bytes_per_second)});
                let mut answer = json_answer(StatusCode::ACCEPTED, &body);
                let location = HeaderValue::from_str(&location).expect("an operation id is printable ASCII");
                answer.headers_mut().insert(header::LOCATION, location);
                Ok(answer)
            }
            // In a pool with nothing to move there is no operation to show.
            Reply::Done => Ok(json_answer(StatusCode::OK, &json!({"operation": null}))),
        }
    }

    /// Cancel, pause, resume, retry; with an optional `reason`.
    pub(super) async fn order(&self, call: &Call, what: Verb) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        fields.only(&["reason"])?;
        let reason = fields.take_text("reason")?;
        self.give(call, pool, what, reason).await
    }

    /// `{"as": "done" | "absent", "reason": "..."}`.
    pub(super) async fn resolve(&self, call: &Call) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        fields.only(&["as", "reason"])?;
        let verdict = match fields.take_text("as")?.as_deref() {
            Some("done") => Verdict::Done,
            Some("absent") => Verdict::Absent,
            Some(other) => return Err(Problem::unacceptable(format!("/as: {:?} is not done or absent", cut(other)))),
            None => {
                return Err(Problem::unacceptable(
                    "/as: did the step happen (done), or did it not (absent)? {\"as\": \"done\", \"reason\": \"...\"}",
                ));
            }
        };
        let reason = fields.take_text("reason")?.filter(|reason| !reason.trim().is_empty());
        let reason = reason.ok_or_else(|| {
            Problem::unacceptable("/reason: how do you know? It is kept in the audit trail beside your word")
        })?;
        self.give(call, pool, Verb::Resolve(verdict), Some(reason)).await
    }

    async fn give(
        &self,
        call: &Call,
        pool: &PoolHandle,
        what: Verb,
        reason: Option<String>,
    ) -> Result<Answer, Problem> {
        let order = Order { what, who: call.who(), reason };
        let operation = OperationId(call.id.as_str().into());
        match pool.ask(Command::Order { operation, order }).await? {
            Reply::Operation(operation) => {
                let body = json!({"operation": shape::operation(&operation, self.clock.now(), pool.view.load().bytes_per_second)});
                Ok(json_answer(StatusCode::OK, &body))
            }
            Reply::Done => Ok(self.status_of(pool)),
        }
    }

    /// Closes the breaker; with an optional `reason`.
    pub(super) async fn reset_breaker(&self, call: &Call) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        fields.only(&["reason"])?;
        let reason = fields.take_text("reason")?;
        pool.ask(Command::ResetBreaker { reason, who: call.who() }).await?;
        Ok(self.status_of(pool))
    }
}

/// A key that a client sends so that a repeated request starts nothing twice.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let visible = key.as_bytes().iter().all(|b| b.is_ascii_graphic());
    if keys.next().is_some() || key.is_empty() || key.len() > 255 || !visible {
        return Err(Problem::malformed("Idempotency-Key: one, of 1 to 255 visible ASCII characters"));
    }
    Ok(key.to_str().ok().map(str::to_string))
}
