//! The demo's terminal: plain lines of what happens, or on a terminal a live picture above them.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::model::{Action, Decision, NodeSeen, Operation, OperationState, PoolView, Signal, StepAction, StepState};
use crate::operate::plan;
use crate::units;

/// Lines of the past that stay on a live terminal.
const KEPT: usize = 14;

/// Where the demo shows itself.
pub struct Screen {
    live: bool,
    began: Instant,
    past: VecDeque<String>,
    told: Told,
}

/// What was said already, so that nothing is said twice.
#[derive(Default)]
struct Told {
    decision: Option<(u64, String, Vec<String>)>,
    steps_done: (String, usize),
    ended: Option<String>,
}

impl Screen {
    pub fn new() -> Screen {
        let live = std::io::stdout().is_terminal();
        Screen { live, began: Instant::now(), past: VecDeque::new(), told: Told::default() }
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// One line of the story.
    pub fn say(&mut self, line: impl Into<String>) {
        let line = format!("{:>6.1} s  {}", self.began.elapsed().as_secs_f64(), line.into());
        if !self.live {
            put(&format!("{line}\n"));
        }
        self.past.push_back(line);
        if self.past.len() > KEPT {
            self.past.pop_front();
        }
    }

    /// Says what is new in the pool, and redraws the picture.
    pub fn show(&mut self, view: &PoolView, load: &str) {
        if let Some(decision) = &view.decision
            && (view.operation.is_none() || decision.action != Action::Hold)
        {
            self.tell_decision(decision);
        }
        if let Some(operation) = view.operation.as_ref().or(view.last_operation.as_ref()) {
            self.tell_operation(operation);
        }
        if self.live {
            let width = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(80, |size| size.ws_col.max(40));
            let lines = picture(view, load, &self.past);
            let fits: Vec<String> = lines.iter().map(|line| line.chars().take(width.into()).collect()).collect();
            put(&format!("\x1b[H\x1b[2J{}\r\n", fits.join("\r\n")));
        }
    }

    fn tell_decision(&mut self, decision: &Decision) {
        let guards: Vec<String> = decision.guards.iter().map(|g| g.name.as_str().to_string()).collect();
        let what = match (&decision.action, decision.wanted) {
            (Action::Hold, None) => return,
            (Action::Hold, Some(kind)) => format!("hold, though {} is wanted", kind.as_str()),
            (action, _) => action.name().to_string(),
        };
        // A hold that goes on is told once; each change is told.
        let id = if decision.action == Action::Hold { 0 } else { decision.id };
        let now = (id, what.clone(), guards);
        if self.told.decision.as_ref() == Some(&now) {
            return;
        }
        self.told.decision = Some(now);
        let first = decision.because.first().and_then(|words| words.split("; ").next()).unwrap_or_default();
        self.say(format!("decision  {what}: {first}"));
        for guard in &decision.guards {
            self.say(format!("          held by {}: {}", guard.name.as_str(), guard.detail));
        }
    }

    fn tell_operation(&mut self, operation: &Operation) {
        let id = operation.id.to_string();
        if self.told.steps_done.0 != id {
            self.told.steps_done = (id.clone(), 0);
        }
        let done: Vec<String> = operation
            .steps
            .iter()
            .filter(|s| s.state == StepState::Done)
            .filter_map(|s| step_line(&s.action))
            .collect();
        for line in done.iter().skip(self.told.steps_done.1) {
            self.say(format!("step      {line}"));
        }
        self.told.steps_done.1 = done.len();
        if operation.state.is_final() && self.told.ended.as_ref() != Some(&id) {
            self.told.ended = Some(id);
            self.say(ended_line(operation));
        }
    }
}

fn step_line(action: &StepAction) -> Option<String> {
    Some(match action {
        StepAction::Create { node } => format!("{node} created"),
        StepAction::Join { node } => format!("{node} is a healthy member"),
        StepAction::Cordon { node } => format!("{node} cordoned: nothing new is placed on it"),
        StepAction::Move(m) => {
            format!("shard {} moved {} -> {} ({} vectors, {})", m.shard, m.from, m.to, m.vectors, units::bytes(m.bytes))
        }
        StepAction::Prove { node } => format!("{node} proven empty, twice"),
        StepAction::Leave { node } => format!("{node} left the cluster"),
        StepAction::Destroy { node } => format!("{node} destroyed"),
        _ => return None,
    })
}

/// What an operation did, in one line.
pub fn ended_line(operation: &Operation) -> String {
    let (shards, moved) = moved(operation);
    let took = operation.ended_at.unwrap_or(operation.updated_at).since(operation.started_at).as_secs_f64();
    let outcome = match operation.state {
        OperationState::Succeeded => "done".into(),
        other => format!("{}: {}", other.as_str(), operation.detail),
    };
    format!("{:<9} {outcome} in {took:.1} s: {shards} shards, {} moved", operation.kind.as_str(), units::bytes(moved))
}

/// Shards and bytes that an operation moved.
pub fn moved(operation: &Operation) -> (u64, u64) {
    plan::moved(operation).fold((0, 0), |(n, sum), copy| (n + 1, sum + copy.bytes))
}

fn picture(view: &PoolView, load: &str, past: &VecDeque<String>) -> Vec<String> {
    let mut lines =
        vec![format!("vecscale demo   {}", view.headline), format!("load            {load}"), String::new()];
    lines.push("node             cpu                          load    shards      bytes  state".into());
    for node in view.seen.iter().flat_map(|s| &s.nodes) {
        lines.push(node_line(node));
    }
    lines.push(String::new());
    lines.extend(past.iter().cloned());
    lines.push(String::new());
    lines.push("Ctrl-C ends it and leaves nothing behind".into());
    lines
}

fn node_line(node: &NodeSeen) -> String {
    let cpu = node.values.get(&Signal::Cpu).copied();
    let filled = (cpu.unwrap_or(0.0).clamp(0.0, 1.0) * 20.0).round() as usize;
    let bar: String = (0..20).map(|i| if i < filled { '#' } else { '.' }).collect();
    let percent = cpu.map_or("   ?".into(), |c| format!("{:>3.0}%", c * 100.0));
    let load = node.load.map_or("?".into(), |l| format!("{l:.2}"));
    let shards = node.shards.map_or("?".into(), |n| n.to_string());
    let held = node.bytes.map_or("?".into(), units::bytes);
    let health = if node.healthy { "" } else { ", not healthy" };
    format!(
        "{:<15} {percent} {bar}  {load:>5}  {shards:>7} {held:>11}  {}{health}",
        node.id.as_str(),
        node.state.as_str()
    )
}

/// Writes to the terminal; a closed pipe is no reason to fail.
pub fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
