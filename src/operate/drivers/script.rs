//! Provider by scripts of the user's: JSON in, JSON and an exit code out. What a script says beyond the contract is
//! "unknown", and no two scripts ever work on one node at a time, not even over a crash of the controller.

pub(super) mod calls;
mod end;
mod lock;
mod run;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use self::calls::{Order, Scripts, Subject};
use super::{Call, Effect, NewNode, Places, Provider, ScriptSettings, Unanswered, Victim};
use crate::model::{Machine, NodeId, PoolName};

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

/// One node as a script writes it. Further keys are the script's own affair.
#[derive(Deserialize)]
struct Written {
    id: String,
    address: String,
    zone: Option<String>,
    instance: Option<String>,
    ready: Option<bool>,
}

impl Written {
    fn machine(self) -> Result<Machine, String> {
        let id = NodeId::new(&self.id).map_err(|e| e.to_string())?;
        let Written { address, zone, instance, ready, .. } = self;
        Ok(Machine { address: plain_address(&id, &address)?, id, zone, instance, ready })
    }
}

/// Without the slash at its end.
pub(super) fn plain_address(id: &NodeId, text: &str) -> Result<String, String> {
    let address: http::Uri = text.parse().map_err(|_| format!("{id}: {text:?} is no address"))?;
    if !matches!(address.scheme_str(), Some("http" | "https")) || address.host().is_none_or(str::is_empty) {
        return Err(format!("{id}: {text:?} is no address of the form http://host:port"));
    }
    Ok(text.trim_end_matches('/').into())
}

fn created(stdout: &[u8], node: &NodeId) -> Result<Machine, String> {
    let written: Written =
        serde_json::from_slice(stdout).map_err(|e| format!("its stdout is not the JSON asked for: {e}"))?;
    let machine = written.machine()?;
    if machine.id == *node { Ok(machine) } else { Err(format!("asked for {node}, it answered {}", machine.id)) }
}

/// All or nothing: a list with one entry that cannot be read would make that node look gone.
fn listed(stdout: &[u8]) -> Result<Vec<Machine>, String> {
    #[derive(Deserialize)]
    struct List {
        nodes: Vec<Written>,
    }
    let list: List =
        serde_json::from_slice(stdout).map_err(|e| format!("its stdout is not the JSON asked for: {e}"))?;
    let mut machines = list.nodes.into_iter().map(Written::machine).collect::<Result<Vec<_>, _>>()?;
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    let mut seen = BTreeSet::new();
    match machines.iter().find(|machine| !seen.insert(&machine.id)) {
        Some(twice) => Err(format!("{} is listed twice", twice.id)),
        None => Ok(machines),
    }
}

#[async_trait]
impl Provider for ScriptProvider {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        let input = json!({"contract": 1, "pool": self.scripts.pool()});
        let stdout = self.scripts.read(&self.settings.list, &input).await.map_err(Unanswered)?;
        listed(&stdout).map_err(|why| Unanswered(format!("script {:?}: {why}", self.settings.list.first())))
    }

    async fn create(&self, call: &Call, new: &NewNode) -> Effect<Machine> {
        let node = &new.id;
        let mut input = json!({"contract": 1, "pool": call.pool, "node": node, "operation": call.operation});
        if let Some(zone) = &new.zone {
            input["zone"] = zone.as_str().into();
        }
        if let Some(dead) = &new.replaces {
            input["replaces"] = dead.as_str().into();
        }
        let argv = &self.settings.create;
        let order = Order { argv, call, subject: Subject::Node(node), input: &input, limit: self.settings.timeout };
        let already = async { Ok(self.list().await?.into_iter().find(|machine| machine.id == *node)) };
        self.scripts.change(order, already, |stdout| created(stdout, node)).await
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
