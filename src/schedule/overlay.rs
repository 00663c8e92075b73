//! Which windows are open at an instant, and what they lay over the thresholds below them. Pure.
//!
//! Of several open windows: the highest `min_nodes`, the lowest `max_nodes`, the highest `desired_nodes`, the stricter
//! freeze; of any other threshold the one that is listed last. Where a floor and a ceiling of different windows
//! contradict each other, `min_nodes` holds and `max_nodes` is raised to it: too many nodes cost money, too few an outage.
//! A floor that holds ahead of a start goes no higher than the open windows allow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Window;
use crate::model::{
    Floor, Frozen, ScalingThresholds, Source, ThresholdProblem, ThresholdSource, Timestamp, WindowView, WindowsNow,
};

/// How long before its start the floor of a window must hold for its nodes to be there in time.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// One scale-up takes this long.
    pub lead: Duration,
    /// Between two of them.
    pub cooldown: Duration,
    /// Nodes that one of them adds.
    pub step: u32,
    /// Nodes that are there in any case.
    pub least: u32,
}

impl Ahead {
    /// One lead time for each scale-up that the floor may need, with the cooldowns between them.
    fn of(&self, window: &Window) -> Duration {
        let missing = window.floor().filter(|_| window.ahead).unwrap_or(0).saturating_sub(self.least);
        let scale_ups = missing.div_ceil(self.step.max(1));
        self.lead.saturating_mul(scale_ups).saturating_add(self.cooldown.saturating_mul(scale_ups.saturating_sub(1)))
    }
}

/// All windows of a pool at one instant, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing(Vec<Stand>);

#[derive(Clone, Debug, PartialEq)]
struct Stand {
    window: Arc<Window>,
    /// The last start, while it is open.
    since: Option<Timestamp>,
    /// When it opens or closes.
    next: Option<Timestamp>,
    /// Closed, and its floor holds already.
    growing: bool,
}

/// Thresholds with the windows laid over them.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    pub thresholds: ScalingThresholds,
    /// Of each threshold that a window sets.
    pub sources: BTreeMap<&'static str, ThresholdSource>,
    pub now: WindowsNow,
}

impl Window {
    /// Everything that is wrong with these thresholds while this window alone lies over them.
    pub fn problems(&self, below: &ScalingThresholds) -> Vec<ThresholdProblem> {
        let mut whole = *below;
        self.lay(&mut whole, |_| true);
        let mut problems = whole.problems();
        if let Some(desired) = self.asks.desired_nodes
            && !(whole.min_nodes..=whole.max_nodes).contains(&desired)
        {
            let (min, max) = (whole.min_nodes, whole.max_nodes);
            problems.push(ThresholdProblem {
                name: "desired_nodes",
                what: format!("{desired} is not between min_nodes ({min}) and max_nodes ({max})"),
                hint: "a window may set min_nodes and max_nodes too".into(),
            });
        }
        problems
    }

    fn lay(&self, over: &mut ScalingThresholds, wanted: impl Fn(&str) -> bool) {
        for (name, value) in self.asks.sets.iter().filter(|(name, _)| wanted(name)) {
            // Each value was checked when it was configured; one that is refused leaves what is below.
            over.set(name, *value);
        }
    }

    fn count(&self, name: &str) -> Option<u32> {
        self.asks.sets.get(name).map(|nodes| *nodes as u32)
    }
}

impl Standing {
    /// `before`: as it stood the last time. A floor that holds ahead of a start is not let go again, though scale-ups may
    /// turn out to be quicker than was thought.
    pub fn at(windows: &[Arc<Window>], at: Timestamp, ahead: &Ahead, before: &Standing) -> Standing {
        let stand = |window: &Arc<Window>| {
            let (since, next) = (window.span.open_since(at), window.span.next_change(at));
            let in_time = |opens: Timestamp| opens.minus(ahead.of(window)) <= at || before.grows(window, opens);
            let growing = since.is_none() && window.ahead && next.is_some_and(in_time);
            Stand { window: window.clone(), since, next, growing }
        };
        Standing(windows.iter().map(stand).collect())
    }

    fn grows(&self, window: &Window, opens: Timestamp) -> bool {
        self.0.iter().any(|stand| stand.growing && stand.window.name == window.name && stand.next == Some(opens))
    }

    /// Names of the open windows, each with what is to be told of its opening.
    pub fn open(&self) -> BTreeMap<String, String> {
        let open = self.0.iter().filter(|stand| stand.since.is_some());
        open.map(|stand| (stand.window.name.to_string(), stand.told())).collect()
    }

    /// Whether another window than before is open or about to open.
    pub fn has_changed(&self, before: &Standing) -> bool {
        let phases = |standing: &Standing| -> Vec<(Arc<str>, bool, bool)> {
            standing.0.iter().map(|s| (s.window.name.clone(), s.since.is_some(), s.growing)).collect()
        };
        phases(self) != phases(before)
    }

    /// The thresholds below with the windows on top.
    pub fn over(&self, below: ScalingThresholds) -> Overlay {
        let mut overlay = Overlay { thresholds: below, sources: BTreeMap::new(), now: WindowsNow::default() };
        let open = || self.0.iter().filter(|stand| stand.since.is_some());
        for stand in open() {
            overlay.lay_lines(stand);
        }
        self.lay_bounds(&mut overlay);
        overlay.now.freeze = open().filter_map(Stand::frozen).max_by_key(|f| (f.freeze, f.until.is_none(), f.until));
        overlay
    }

    fn lay_bounds(&self, overlay: &mut Overlay) {
        let open = || self.0.iter().filter(|stand| stand.since.is_some());
        let growing = || self.0.iter().filter(|stand| stand.growing);
        let highest_min = open().filter_map(|s| Some((s.window.count("min_nodes")?, s))).max_by_key(|(n, _)| *n);
        if let Some((least, stand)) = highest_min {
            overlay.set("min_nodes", least, stand);
        }
        let lowest_max = open().filter_map(|s| Some((s.window.count("max_nodes")?, s))).min_by_key(|(n, _)| *n);
        let room = lowest_max.map_or(u32::MAX, |(most, _)| most);
        for stand in growing() {
            // One that is not open yet does not take from an open one what that allows.
            let least = stand.window.count("min_nodes").map(|n| n.min(room));
            if let Some(least) = least.filter(|n| *n > overlay.thresholds.min_nodes) {
                overlay.set("min_nodes", least, stand);
            }
        }
        let floors = open().chain(growing()).filter_map(|s| Some((s.window.floor()?, s)));
        let floor = floors.max_by_key(|(n, _)| *n);
        match (lowest_max, floor) {
            (Some((most, stand)), _) => overlay.set("max_nodes", most, stand),
            // A window that is about to open may want more than is allowed until then.
            (None, Some((nodes, stand))) if nodes > overlay.thresholds.max_nodes => {
                overlay.set("max_nodes", nodes, stand);
            }
            _ => {}
        }
        if overlay.thresholds.max_nodes < overlay.thresholds.min_nodes {
            overlay.thresholds.max_nodes = overlay.thresholds.min_nodes;
            if let Some(source) = overlay.sources.get("min_nodes").cloned() {
                overlay.sources.insert("max_nodes", source);
            }
        }
        let (min, max) = (overlay.thresholds.min_nodes, overlay.thresholds.max_nodes);
        overlay.now.floor = floor.map(|(nodes, stand)| stand.floor(nodes.clamp(min, max)));
        let desired = open().filter_map(|s| Some((s.window.asks.desired_nodes?, s))).max_by_key(|(n, _)| *n);
        overlay.now.desired = desired.map(|(nodes, stand)| {
            let nodes = nodes.clamp(min, max);
            stand.floor(overlay.now.floor.as_ref().map_or(nodes, |floor| floor.nodes.max(nodes)))
        });
    }

    pub fn views(&self) -> Vec<WindowView> {
        self.0.iter().map(Stand::view).collect()
    }
}

impl Overlay {
    /// Everything but the bounds, unless that contradicts a window listed before.
    fn lay_lines(&mut self, stand: &Stand) {
        let is_line = |name: &str| !matches!(name, "min_nodes" | "max_nodes");
        let mut trial = self.thresholds;
        stand.window.lay(&mut trial, is_line);
        if trial.problems().is_empty() {
            self.thresholds = trial;
            let lines = stand.window.asks.sets.keys().filter(|name| is_line(name));
            self.sources.extend(lines.map(|name| (*name, stand.source())));
        }
    }

    fn set(&mut self, name: &'static str, nodes: u32, stand: &Stand) {
        self.thresholds.set(name, f64::from(nodes));
        self.sources.insert(name, stand.source());
    }
}

impl Stand {
    fn source(&self) -> ThresholdSource {
        let opens = self.next.filter(|_| self.growing);
        ThresholdSource {
            source: Source::Window,
            by: Some(self.window.name.to_string()),
            since: self.since,
            until: self.next.filter(|_| !self.growing),
            reason: opens.map(|opens| format!("so that the nodes are there when it opens at {opens}")),
        }
    }

    fn floor(&self, nodes: u32) -> Floor {
        let opens = self.next.filter(|_| self.growing);
        Floor { nodes, window: self.window.name.clone(), opens, since: self.since }
    }

    fn frozen(&self) -> Option<Frozen> {
        Some(Frozen { freeze: self.window.asks.freeze?, window: self.window.name.clone(), until: self.next })
    }

    /// "min_nodes 5, freeze down; until 2026-03-29T16:00:00.000Z".
    fn told(&self) -> String {
        let until = self.next.map_or(String::new(), |until| format!("; until {until}"));
        format!("{}{until}", self.window.asks.in_words())
    }

    fn view(&self) -> WindowView {
        WindowView {
            name: self.window.name.clone(),
            open: self.since.is_some(),
            growing: self.growing,
            since: self.since,
            next: self.next,
            timezone: self.window.span.zone().name().into(),
            asks: self.window.asks.clone(),
        }
    }
}
