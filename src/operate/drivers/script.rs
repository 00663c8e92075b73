//! Provider by scripts of the user's: JSON in, JSON and an exit code out. What a script says beyond the contract is
//! "unknown", and no two scripts ever work on one node at a time, not even over a crash of the controller.

pub(super) mod calls;
mod end;
mod lock;
mod run;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use self::calls::{Order, Scripts, Subject};
use super::written::{created, creation, listed};
use super::{Call, Effect, NewNode, Places, Provider, ScriptSettings, Unanswered, Victim};
use crate::model::{Machine, PoolName};

pub use calls::prepare;

/// Makes, destroys and lists nodes by running scripts.
pub struct ScriptProvider {
    scripts: Scripts,
    settings: ScriptSettings,
}

impl ScriptProvider {
    pub fn new(pool: PoolName, settings: ScriptSettings, places: &Places) -> ScriptProvider {
        ScriptProvider { scripts: Scripts::new(pool, settings.env.clone(), places), settings }
    }
}

#[async_trait]
impl Provider for ScriptProvider {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        let input = json!({"contract": 1, "pool": self.scripts.pool()});
        let stdout = self.scripts.read(&self.settings.list, &input).await.map_err(Unanswered)?;
        listed("its stdout", &stdout)
            .map_err(|why| Unanswered(format!("script {:?}: {why}", self.settings.list.first())))
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        let node = &new.id;
        let input = creation(call, new);
        let argv = &self.settings.create;
        let order = Order { argv, call, subject: Subject::Node(node), input: &input, limit: self.settings.timeout };
        let already = async { Ok(self.list().await?.into_iter().find(|machine| machine.id == *node)) };
        self.scripts.change(order, already, |stdout| created("its stdout", stdout, node)).await
    }

    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()> {
        let mut input = json!({
            "contract": 1, "pool": call.pool, "node": machine.id, "address": machine.address,
            "operation": call.operation,
        });
        if let Some(instance) = &machine.instance {
            input["instance"] = instance.as_str().into();
        }
        let (argv, subject, limit) = (&self.settings.destroy, Subject::Node(&machine.id), call.deadline);
        let order = Order { argv, call, subject, input: &input, limit };
        // A list that has become empty shows nothing of one node: the script is asked again, which looks for itself.
        let gone = |listed: Vec<Machine>| !listed.is_empty() && listed.iter().all(|other| other.id != machine.id);
        let already = async { Ok(gone(self.list().await?).then_some(())) };
        self.scripts.change(order, already, |_| Ok(())).await
    }

    fn victim(&self) -> Victim {
        self.settings.victim
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout
    }
}

#[cfg(test)]
mod tests;
