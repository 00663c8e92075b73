//! A controller over a calm platform, and what bad input must leave as it was: taken before, compared after.
#![allow(dead_code, reason = "each test file uses a part")]

use std::time::Duration;

use serde_json::{Value, json};

use super::World;
use super::platform::{Load, Platform};

/// Longest wait for anything in these tests; they end as soon as it is there.
pub const WAIT: Duration = Duration::from_secs(60);
/// Asks for no change in either direction; of three nodes, a person may take one away.
pub const CALM: Load = Load { cpu: 0.4, memory: 0.45, searches_per_second: 50.0 };

/// A running controller in mode active over calm nodes, of which there may be two to four.
pub struct Place {
    pub world: World,
    pub platform: Platform,
}

impl Place {
    /// Starts it with these further flags.
    pub async fn calm(args: &[&str]) -> Place {
        let mut world = World::new("");
        world.args = args.iter().map(ToString::to_string).collect();
        Place::of(world, &["n1", "n2"], |config| config).await
    }

    /// Starts a prepared world over these nodes, with a configuration made from the platform's own.
    pub async fn of(mut world: World, nodes: &[&str], config: impl Fn(String) -> String) -> Place {
        let platform = Platform::new(world.dir.path(), nodes, CALM).await;
        let text = config(platform.config("min_nodes: 2, max_nodes: 4, scale_up_cooldown: 1, scale_down_cooldown: 1"));
        std::fs::write(world.path("config.yaml"), text).expect("the configuration");
        world.start().await;
        let place = Place { world, platform };
        place.until_calm().await;
        place
    }

    /// Waits until every node is healthy, no operation runs and the counter has become a rate.
    pub async fn until_calm(&self) {
        let calm = async |w: &World| {
            let status = w.status().await;
            let healthy = status["metrics"]["healthy_nodes"] == self.platform.nodes().len();
            let known = status["metrics"]["query_throughput"].is_number();
            (healthy && known && status["operation"].is_null() && status["needs_human"] == json!([])).then_some(())
        };
        self.world.until("healthy nodes in calm", WAIT, calm).await;
    }

    /// Waits until `checks` further observations are made.
    pub async fn checks(&self, checks: u64) {
        let seen = async |w: &World| {
            let page = w.try_get("/metrics").await?;
            let line = page.lines().find(|l| l.starts_with("vecscale_evaluation_duration_seconds_count"))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        let before = self.world.until("the number of checks", WAIT, seen).await;
        let enough = async |w: &World| (seen(w).await? >= before + checks as f64).then_some(());
        self.world.until("further checks", WAIT, enough).await;
    }

    /// What no refused request and no misbehaving node or script may change. Decisions to hold are not part of it: that
    /// they are recorded, with why, is what is wanted.
    pub async fn picture(&self) -> Value {
        let status = self.world.status().await;
        let ids = |list: &Value| -> Vec<Value> {
            list.as_array().into_iter().flatten().map(|item| item["id"].clone()).collect()
        };
        let history = self.world.get("/autoscaling/history?limit=1000").await;
        let mut history = history["items"].as_array().expect("a list").clone();
        history.retain(|item| item["kind"] != "decision" || item["detail"]["decision"] != "hold");
        json!({
            "mode": status["mode"],
            "thresholds": status["thresholds"],
            "sources": status["sources"],
            "nodes": ids(&status["nodes"]),
            "desired_nodes": status["desired_nodes"],
            "operation": status["operation"],
            "operations": ids(&self.world.get("/autoscaling/operations").await["items"]),
            "history": history,
            "machines": self.platform.nodes(),
            "ledger": self.platform.ledger(),
        })
    }

    /// Asserts that everything is as it was.
    pub async fn is_as(&self, before: &Value) {
        let after = self.picture().await;
        assert!(after == *before, "something changed\nbefore {before:#}\nafter {after:#}\n{}", self.world.logs());
    }
}

/// Asserts that `text` says all of these.
pub fn says(text: &str, all: &[&str]) {
    for part in all {
        assert!(text.contains(part), "it does not say {part:?}:\n{text}");
    }
}
