//! Nodes as scripts and APIs are told of them and write of them: JSON, taken whole or not at all. Pure.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Call, NewNode};
use crate::http::origin;
use crate::model::{Machine, NodeId};

/// How much of a text that cannot be read goes into an error.
const QUOTED_CHARS: usize = 200;

/// One node as written. Further keys are the writer's own affair.
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
        let Written { id, address, zone, instance, ready } = self;
        let id = NodeId::new(&id).map_err(|e| e.to_string())?;
        Ok(Machine { address: plain_address(&id, &address)?, id, zone, instance, ready })
    }
}

/// Where a node is, `http://host:port` and no more.
///
/// # Errors
/// When it is anything else.
pub fn plain_address(id: &NodeId, text: &str) -> Result<String, String> {
    origin(text).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        format!("{id}: {shown:?} is no address of the form http://host:port")
    })
}

/// What a creation is told.
pub fn creation(call: &Call, new: &NewNode) -> Value {
    let mut input = json!({"contract": 1, "pool": call.pool, "node": new.id, "operation": call.operation});
    if let Some(zone) = &new.zone {
        input["zone"] = zone.as_str().into();
    }
    if let Some(dead) = &new.replaces {
        input["replaces"] = dead.as_str().into();
    }
    input
}

/// The node that was made; `source` is what errors call the text.
///
/// # Errors
/// When it is not the JSON asked for, or tells of another node.
pub fn created(source: &str, text: &[u8], node: &NodeId) -> Result<Machine, String> {
    let machine = read::<Written>(source, text)?.machine()?;
    if machine.id == *node { Ok(machine) } else { Err(format!("asked for {node}, it answered {}", machine.id)) }
}

/// All nodes, ordered by id. All or nothing: a list with one entry that cannot be read would make that node look gone.
///
/// # Errors
/// When it is not the JSON asked for, or any entry of it cannot stand.
pub fn listed(source: &str, text: &[u8]) -> Result<Vec<Machine>, String> {
    #[derive(Deserialize)]
    struct List {
        nodes: Vec<Written>,
    }
    let list: List = read(source, text)?;
    let mut machines = list.nodes.into_iter().map(Written::machine).collect::<Result<Vec<_>, _>>()?;
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    let mut seen = BTreeSet::new();
    match machines.iter().find(|machine| !seen.insert(&machine.id)) {
        Some(twice) => Err(format!("{} is listed twice", twice.id)),
        None => Ok(machines),
    }
}

fn read<T: DeserializeOwned>(source: &str, text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| {
        let why: String = error.to_string().chars().take(QUOTED_CHARS).collect(); // it may quote the text
        format!("{source} is not the JSON asked for: {why}")
    })
}
