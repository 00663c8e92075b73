//! What a change would do now, from the planner's outlook and the guards that hold. Pure.

use serde_json::{Value, json};

use crate::model::{Forecast, Kind, PoolView};

/// The kinds that `plan` answers for.
pub const KINDS: [Kind; 3] = [Kind::ScaleUp, Kind::ScaleDown, Kind::Rebalance];

/// What one kind of change would move, and what forbids it.
pub fn plan(view: &PoolView, kind: Kind) -> Value {
    let mut plan = match kind {
        Kind::ScaleDown => scale_down(view),
        Kind::ScaleUp => {
            let mut plan = told(&view.outlook.scale_up);
            plan["stairs"] = json!(view.outlook.stairs);
            plan
        }
        _ => told(&view.outlook.rebalance),
    };
    plan["kind"] = json!(kind);
    plan["guards"] = json!(view.guards_against.get(&kind).map_or(&[][..], Vec::as_slice));
    plan
}

fn moved(forecast: &Forecast) -> Value {
    json!({
        "shards": forecast.shards,
        "bytes": forecast.bytes,
        "minutes": forecast.seconds.map(|s| s / 60.0),
    })
}

/// A plan in full: with its moves, what they make of the nodes, and the best that could be had.
fn told(forecast: &Forecast) -> Value {
    let mut plan = moved(forecast);
    plan["least_bytes"] = json!(forecast.least_bytes);
    plan["balance"] = json!(forecast.balance);
    plan["nodes"] = json!(forecast.nodes);
    plan["moves"] = json!(forecast.moves);
    plan
}

/// Of the node that would be chosen, in full where that was planned; of the others only what would move is told.
fn scale_down(view: &PoolView) -> Value {
    let victims = &view.outlook.scale_down;
    let chosen = victims.iter().find(|v| Some(&v.node) == view.victim.as_ref());
    let mut plan = match chosen.map(|v| &v.forecast) {
        Some(forecast) if forecast.moves.len() == forecast.shards as usize => told(forecast),
        Some(forecast) => moved(forecast),
        None => json!({"shards": null, "bytes": null, "minutes": null}),
    };
    plan["node"] = json!(chosen.map(|v| &v.node));
    let candidates = victims.iter().map(|v| {
        let mut one = moved(&v.forecast);
        one["node"] = json!(v.node);
        one["impossible"] = json!(v.impossible);
        one
    });
    plan["candidates"] = candidates.collect();
    plan
}
