//! Requests that change something: read strictly, sent to the controller as a command, answered with what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::input::{Fields, Query, cut, number, seconds, unknown};
use super::layers::Call;
use super::problem::Problem;
use super::{Server, shape};
use crate::handle::{Command, PoolHandle};
use crate::http::{Answer, json as json_answer, typed};
use crate::model::{Mode, NodeId, ScalingThresholds};

/// Thresholds that may be written as a duration, too.
const SECONDS: [&str; 3] = ["scale_up_cooldown", "scale_down_cooldown", "health_check_interval"];

impl Server {
    /// `{"mode": "active" | "observe"}`.
    pub(super) async fn start(&self, call: &Call) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        fields.only(&["mode"])?;
        let mode = match fields.take_text("mode")?.as_deref() {
            None | Some("active") => Mode::Active,
            Some("observe") => Mode::Observe,
            Some("stopped") => {
                return Err(Problem::unacceptable("/mode: to stop, POST /autoscaling/stop"));
            }
            Some(other) => {
                return Err(Problem::unacceptable(format!("/mode: {:?} is not active or observe", cut(other))));
            }
        };
        pool.ask(Command::SetMode { mode, who: call.who() }).await?;
        Ok(self.status_of(pool))
    }

    /// Without `?pool=` every pool is stopped; `{"halt": true}` pauses their open operations too.
    pub(super) async fn stop(&self, call: &Call) -> Result<Answer, Problem> {
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        fields.only(&["halt"])?;
        let query = Query::read(call.head.uri.query(), &["pool"])?;
        let halt = fields.take_flag("halt")? == Some(true);
        let stopped: Vec<&PoolHandle> = match query.get("pool") {
            Some(_) => vec![self.pool_named(&query)?],
            None => self.pools.values().collect(),
        };
        let mut refused = Vec::new();
        for pool in &stopped {
            let who = call.who();
            let command = if halt { Command::Halt { who } } else { Command::SetMode { mode: Mode::Stopped, who } };
            if let Err(refusal) = pool.ask(command).await {
                refused.push(format!("pool {} was not stopped: {refusal}", pool.pool));
            }
        }
        match (refused.is_empty(), stopped.as_slice()) {
            (false, _) => Err(Problem::unavailable(refused.join("; "))),
            (true, [one]) => Ok(self.status_of(one)),
            (true, all) => {
                let items: Vec<Value> =
                    all.iter().map(|pool| shape::status(&pool.view.load(), self.clock.now())).collect();
                Ok(json_answer(StatusCode::OK, &json!({"items": items, "next": null})))
            }
        }
    }

    pub(super) fn status_of(&self, pool: &PoolHandle) -> Answer {
        json_answer(StatusCode::OK, &shape::status(&pool.view.load(), self.clock.now()))
    }

    /// Threshold names with numbers; `ttl` and `reason` beside them.
    pub(super) async fn set_thresholds(&self, call: &Call) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        let known: Vec<&str> = ScalingThresholds::names().chain(["ttl", "reason"]).collect();
        fields.only(&known)?;
        let (ttl, reason) = (fields.take_duration("ttl")?, fields.take_text("reason")?);
        let mut changes = BTreeMap::new();
        for name in ScalingThresholds::names() {
            if let Some(value) = fields.take(name) {
                let value = if SECONDS.contains(&name) { seconds(name, &value)? } else { number(name, &value)? };
                changes.insert(name.to_string(), value);
            }
        }
        if changes.is_empty() {
            return Err(Problem::unacceptable("no threshold is given: at least one, such as {\"max_nodes\": 15}"));
        }
        pool.ask(Command::SetThresholds { changes, ttl, reason, who: call.who() }).await?;
        Ok(json_answer(StatusCode::OK, &pool.view.load().thresholds))
    }

    /// Drops one override, or all.
    pub(super) async fn drop_thresholds(&self, call: &Call) -> Result<Answer, Problem> {
        let query = Query::read(call.head.uri.query(), &["pool", "name"])?;
        let pool = self.pool_named(&query)?;
        self.no_body(call)?;
        let name = query.get("name").map(str::to_string);
        let names: Vec<&str> = ScalingThresholds::names().collect();
        if let Some(name) = name.as_deref().filter(|n| !names.contains(n)) {
            return Err(Problem::malformed(unknown("threshold", &format!("?name={}", cut(name)), name, &names)));
        }
        pool.ask(Command::DropThresholds { name, who: call.who() }).await?;
        Ok(json_answer(StatusCode::OK, &pool.view.load().thresholds))
    }

    /// `{"for": "2h"}`.
    pub(super) async fn maintain(&self, call: &Call) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        let mut fields = Fields::read(&call.head.headers, &call.body)?;
        fields.only(&["for"])?;
        let lasting = fields.take_duration("for")?.ok_or_else(|| {
            Problem::unacceptable("/for: how long is the node expected to be silent? {\"for\": \"2h\"}")
        })?;
        self.set_maintenance(call, pool, Some(lasting)).await
    }

    pub(super) async fn end_maintenance(&self, call: &Call) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        self.no_body(call)?;
        self.set_maintenance(call, pool, None).await
    }

    async fn set_maintenance(
        &self,
        call: &Call,
        pool: &PoolHandle,
        lasting: Option<Duration>,
    ) -> Result<Answer, Problem> {
        let node = NodeId::new(&call.id).map_err(|why| Problem::not_found(why.to_string()))?;
        pool.ask(Command::Maintain { node, lasting, who: call.who() }).await?;
        Ok(self.status_of(pool))
    }

    /// Takes the drain of the node back.
    pub(super) async fn open_again(&self, call: &Call) -> Result<Answer, Problem> {
        let pool = self.pool(call)?;
        self.no_body(call)?;
        let node = NodeId::new(&call.id).map_err(|why| Problem::not_found(why.to_string()))?;
        pool.ask(Command::OpenAgain { node, who: call.who() }).await?;
        Ok(self.status_of(pool))
    }

    /// As Prometheus has it: 403 unless switched on, 500 with the text when the new configuration is refused.
    pub(super) async fn reload(&self, call: &Call) -> Result<Answer, Problem> {
        Query::read(call.head.uri.query(), &[])?;
        let Some(reload) = &self.options.reload else {
            let detail = "reloading over HTTP is not switched on: start with --web.enable-lifecycle, or send SIGHUP";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        };
        match reload(call.who()).await {
            Ok(text) => Ok(typed(StatusCode::OK, "text/plain; charset=utf-8", text)),
            Err(text) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, text)),
        }
    }

    fn no_body(&self, call: &Call) -> Result<(), Problem> {
        Fields::read(&call.head.headers, &call.body)?.only(&[])
    }
}
