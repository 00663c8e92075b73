//! Tests of deciding as a whole: a small world of which each test changes what it is about.

mod alerts;
mod down;
mod guards;
mod hands;
mod memory;
mod observing;
mod people;
mod plans;
mod properties;
mod reaping;
mod replacing;
mod up;
mod windows;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::model::*;

pub const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);
pub const CHECK: Duration = Duration::from_secs(30);

pub fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("tests name nodes well")
}

/// Everything a decision looks at, owned. A fresh world is calm, between all lines, long past its start, and active.
#[derive(Clone)]
pub struct World {
    pub policy: Policy,
    pub memory: Memory,
    pub seen: Observation,
    pub mode: Mode,
    pub stop_file: bool,
    pub operation: Option<Operation>,
    /// `None`: no datastore; `Some(Err)`: it did not answer.
    pub store: Option<Result<Inventory, String>>,
    pub can_change: bool,
    pub only_victim: Option<NodeId>,
    pub machines: Option<Vec<Machine>>,
    pub outlook: Outlook,
    pub lead_times: Vec<Duration>,
    pub alerts: Vec<Alert>,
    pub arrivals: Vec<NodeId>,
}

impl World {
    pub fn nodes(n: u32) -> World {
        let names: Vec<NodeId> = (1..=n).map(|i| id(&format!("n{i}"))).collect();
        let readings = [
            (Signal::Cpu, 0.5),
            (Signal::Memory, 0.5),
            (Signal::Storage, 0.55),
            (Signal::Latency, 200.0),
            (Signal::ErrorRate, 0.02),
            (Signal::Throughput, 100.0),
            (Signal::Vectors, 10_000.0),
        ];
        let mut world = World {
            policy: Policy::of(Profile::Default),
            memory: Memory::default(),
            seen: Observation {
                pool: "default".into(),
                at: START,
                readings: readings.into_iter().map(|(s, value)| (s, Reading::Fresh { value })).collect(),
                nodes: names.iter().map(node).collect(),
                total_vectors: Some(10_000),
                avg_vectors_per_node: Some(5_000.0),
            },
            mode: Mode::Active,
            stop_file: false,
            operation: None,
            store: Some(Ok(Inventory { members: names.iter().map(member).collect(), ..Inventory::default() })),
            can_change: true,
            only_victim: None,
            machines: Some(names.iter().map(machine).collect()),
            outlook: Outlook {
                scale_down: names.iter().map(drain).collect(),
                rebalance: Forecast { shards: 1, bytes: 10, ..Forecast::default() },
                ..Outlook::default()
            },
            lead_times: Vec::new(),
            alerts: Vec::new(),
            arrivals: Vec::new(),
        };
        world.policy.thresholds.min_nodes = n.min(3);
        for _ in 0..6 {
            assert_eq!(world.check().action, Action::Hold);
        }
        world
    }

    /// As many nodes, with all five lows held long enough for a scale-down.
    pub fn shrinking(n: u32) -> World {
        let mut world = World::nodes(n);
        world.low();
        for _ in 0..4 {
            assert_eq!(world.check().wanted, None);
        }
        world
    }

    /// One reading above its line for all but the last check of a scale-up.
    pub fn growing(n: u32) -> World {
        let mut world = World::nodes(n);
        world.fresh(Signal::Cpu, 0.81);
        assert_eq!(world.check().wanted, None);
        world
    }

    /// `n1` unhealthy for one check less than the grace.
    pub fn with_dead_node(n: u32) -> World {
        let mut world = World::nodes(n);
        world.kill("n1");
        world.wait(world.policy.replace.after - CHECK);
        world
    }

    pub fn low(&mut self) {
        for (signal, value) in [
            (Signal::Cpu, 0.1),
            (Signal::Memory, 0.1),
            (Signal::Storage, 0.1),
            (Signal::Latency, 20.0),
            (Signal::ErrorRate, 0.0),
        ] {
            self.fresh(signal, value);
        }
    }

    pub fn fresh(&mut self, signal: Signal, value: f64) {
        self.read(signal, Reading::Fresh { value });
    }

    pub fn read(&mut self, signal: Signal, reading: Reading) {
        self.seen.readings.insert(signal, reading);
    }

    pub fn missing(&mut self, signal: Signal) {
        self.read(signal, Reading::Missing { why: "no answer".into() });
    }

    pub fn node(&mut self, name: &str) -> &mut NodeSeen {
        self.seen.nodes.iter_mut().find(|n| n.id.as_str() == name).expect("a node of the world")
    }

    /// Unreachable and unhealthy from now on; the readings are left as they are.
    pub fn kill(&mut self, name: &str) {
        let at = self.seen.at;
        let node = self.node(name);
        (node.up, node.healthy, node.unhealthy_since) = (false, false, Some(at));
    }

    pub fn inventory(&mut self) -> &mut Inventory {
        self.store.as_mut().expect("a datastore").as_mut().expect("that answers")
    }

    /// Nothing may happen to this node without losing a shard.
    pub fn only_copy_on(&mut self, node: &str) {
        let shard = ShardId { collection: "docs".into(), shard: 99 };
        let only = Replica { shard, node: id(node), bytes: 1, vectors: 1, state: ReplicaState::Active };
        self.inventory().shards.push(only);
    }

    pub fn wait(&mut self, time: Duration) {
        self.seen.at = self.seen.at.plus(time);
    }

    pub fn situation<'a>(&'a self, request: Option<&'a Request>) -> Situation<'a> {
        Situation {
            seen: &self.seen,
            mode: self.mode,
            stop_file: self.stop_file,
            operation: self.operation.as_ref(),
            request,
            store: match &self.store {
                None => Store::None,
                Some(Err(why)) => Store::Silent(why),
                Some(Ok(inventory)) => Store::Seen(inventory),
            },
            provider: ProviderFacts {
                can_change: self.can_change,
                only_victim: self.only_victim.as_ref(),
                machines: self.machines.as_deref(),
                timeout: Duration::from_secs(900),
            },
            outlook: &self.outlook,
            lead_times: &self.lead_times,
            alerts: &self.alerts,
            arrivals: &self.arrivals,
        }
    }

    /// The next check, half a minute on.
    pub fn check(&mut self) -> Decision {
        self.wait(CHECK);
        let Outcome { decision, memory } = decide(&self.policy, &self.memory, &self.situation(None));
        assert_sound(&decision);
        self.memory = memory;
        decision
    }

    /// That many checks; the last decision.
    pub fn checks(&mut self, n: u32) -> Decision {
        (0..n).map(|_| self.check()).last().expect("at least one check")
    }

    /// What a person asks for, between two checks.
    pub fn ask(&mut self, request: &Request) -> Decision {
        let Outcome { decision, memory } = decide(&self.policy, &self.memory, &self.situation(Some(request)));
        assert_sound(&decision);
        self.memory = memory;
        decision
    }

    /// Shards of which the given nodes hold an active copy each.
    pub fn shard(&mut self, number: u32, nodes: &[&str]) {
        for name in nodes {
            let shard = ShardId { collection: "docs".into(), shard: number };
            let replica = Replica { shard, node: id(name), bytes: 1, vectors: 1, state: ReplicaState::Active };
            self.inventory().shards.push(replica);
        }
    }

    pub fn transfer(&mut self, from: &str, to: &str) {
        let shard = ShardId { collection: "docs".into(), shard: 0 };
        self.inventory().transfers.push(Transfer {
            shard,
            from: id(from),
            to: id(to),
            done_bytes: None,
            is_move: true,
        });
    }
}

/// What every decision must be, whatever the test is about.
fn assert_sound(decision: &Decision) {
    assert!(!decision.would_change.is_empty(), "nothing is said of what would change: {decision:?}");
    assert!(!decision.because.is_empty(), "no reason: {decision:?}");
    assert_eq!(decision.action == Action::Hold, decision.guards.len() + usize::from(decision.wanted.is_none()) > 0);
    let json = serde_json::to_value(decision).expect("a decision is written as JSON");
    assert_eq!(&serde_json::from_value::<Decision>(json).expect("and read back"), decision);
}

pub fn names(guards: &[GuardHit]) -> Vec<&'static str> {
    guards.iter().map(|g| g.name.as_str()).collect()
}

pub fn request(kind: Kind) -> Request {
    Request { kind, nodes: 1, node: None, reason: None, who: "api 127.0.0.1".into(), key: None }
}

pub fn up(nodes: u32, target: u32) -> Action {
    Action::ScaleUp { nodes, target }
}

pub fn down(name: &str, target: u32) -> Action {
    Action::ScaleDown { node: id(name), target }
}

fn node(name: &NodeId) -> NodeSeen {
    NodeSeen {
        id: name.clone(),
        address: "http://127.0.0.1:1".into(),
        zone: None,
        state: NodeState::Serving,
        up: true,
        healthy: true,
        unhealthy_since: None,
        health_unknown: false,
        values: BTreeMap::new(),
        shards: None,
        bytes: None,
        load: None,
        busy_with_data: false,
        scrape_seconds: 0.0,
        gaps: BTreeMap::new(),
    }
}

fn member(name: &NodeId) -> Member {
    let address = "http://127.0.0.1:1".into();
    Member { version: Some("1.0".into()), ..Member::new(name.clone(), address) }
}

fn machine(name: &NodeId) -> Machine {
    Machine { id: name.clone(), address: "http://127.0.0.1:1".into(), zone: None, instance: None, ready: None }
}

fn drain(name: &NodeId) -> Drain {
    Drain { node: name.clone(), forecast: Forecast::default(), impossible: None }
}

pub fn operation(kind: Kind, state: OperationState, trigger: Trigger) -> Operation {
    let id = OperationId("0190-test".into());
    let replaces = (kind == Kind::Replace).then(|| self::id("n1"));
    Operation { state, replaces, ..Operation::new(id, "default".into(), kind, trigger, "vecscale", START) }
}

pub fn step(action: StepAction, state: StepState) -> Step {
    Step {
        seq: 0,
        action,
        key: "0190-test/0".into(),
        state,
        attempts: 1,
        started_at: None,
        ended_at: None,
        deadline: Duration::ZERO,
        output: None,
        error: None,
        late_drop: false,
    }
}
