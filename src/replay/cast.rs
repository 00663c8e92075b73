//! A seed drawn out: the cluster, its load, and what goes wrong when. Pure.

use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;
use serde::Serialize;

use super::curve::Curve;
use super::nature::{Blow, Listing};
use super::world::Scale;
use crate::model::{Kind, Mode, Verb};

/// What kind of trouble a story is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Load and people only
    Calm,
    /// The controller dies again and again, and calls fail
    Crashy,
    /// Nodes, provider or datastore are out of reach
    Partition,
    /// The journal takes no writes for a while
    DiskFull,
    /// Nodes lie, lag, or give no numbers
    Liar,
    /// Reads and transfers take long, or for ever
    SlowDb,
    /// The wall clock is set forwards and backwards
    ClockJumps,
    /// Nodes die, for a while or for good
    Deaths,
    /// All of it together
    Mixed,
}

impl Profile {
    pub const ALL: [Profile; 9] = [
        Profile::Calm,
        Profile::Crashy,
        Profile::Partition,
        Profile::DiskFull,
        Profile::Liar,
        Profile::SlowDb,
        Profile::ClockJumps,
        Profile::Deaths,
        Profile::Mixed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Calm => "calm",
            Profile::Crashy => "crashy",
            Profile::Partition => "partition",
            Profile::DiskFull => "disk-full",
            Profile::Liar => "liar",
            Profile::SlowDb => "slow-db",
            Profile::ClockJumps => "clock-jumps",
            Profile::Deaths => "deaths",
            Profile::Mixed => "mixed",
        }
    }
}

/// Something that happens at an instant of a story.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Turn {
    /// The controller dies at the n-th write or effect from here, and once more at the m-th after its return.
    Crash {
        after: u32,
        again: Option<u32>,
    },
    /// An orderly stop and start.
    Restart,
    /// Something befalls a node that is there by then; the slot remembers which.
    Strike {
        slot: u32,
        blow: Blow,
    },
    /// Something befalls the node of that slot once more.
    Then {
        slot: u32,
        blow: Blow,
    },
    /// Of a thousand calls and reads, so many fail.
    Weather {
        calls: u32,
        reads: u32,
        latest: Duration,
    },
    Listing(Listing),
    StoreSilent(bool),
    /// Reads take up to this long.
    Slow(Duration),
    /// A shard takes this long to move; `None`: it never arrives.
    Flight(Option<Duration>),
    /// So many writes of the journal fail.
    Fill(u32),
    /// The wall clock is set by so many milliseconds.
    Jump(i64),
    /// A person asks for an operation.
    Ask(Kind),
    /// A person sets the mode.
    Set(Mode),
    /// A person orders something about the operation that is open by then.
    Order(Verb),
    /// A person clears away, or lets in, what nothing explains by then.
    Tidy {
        adopt: bool,
    },
}

/// How the datastore moves shards, and what that costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Store {
    /// How long a shard takes to move.
    pub flight: Duration,
    pub copies_only: bool,
    /// Whether clients are sent to nodes, and away from them, by hooks.
    pub has_hooks: bool,
    /// Milliseconds that each transfer in flight adds to the search latency.
    pub burden: f64,
}

impl Store {
    fn draw(rng: &mut Rng) -> Store {
        Store {
            flight: Duration::from_secs([5, 5, 20, 60, 120][rng.usize(0..5)]),
            copies_only: rng.u32(0..3) == 0,
            has_hooks: rng.u32(0..3) == 0,
            burden: [0.0, 0.0, 5.0, 30.0, 300.0][rng.usize(0..5)],
        }
    }
}

/// A story before it is played.
#[derive(Clone, Debug)]
pub(super) struct Cast {
    pub scale: Scale,
    pub load: Curve,
    /// Seconds between checks.
    pub interval: u64,
    /// The faults last this long.
    pub span: Duration,
    /// Scheduled windows, as a configuration has them.
    pub windows: String,
    pub store: Store,
    /// In the order of time.
    pub turns: Vec<(Duration, Turn)>,
}

impl Cast {
    pub fn draw(rng: &mut Rng, profile: Profile) -> Cast {
        let nodes = rng.usize(2..=7);
        let most_copies = nodes.min(3) as u32;
        let least = rng.u32(1..=nodes as u32);
        let scale = Scale {
            nodes,
            shards: rng.u32(1..=8),
            replicas: rng.u32(1..=most_copies),
            zones: rng.usize(0..=3),
            data: rng.u32(0..8) > 0,
            min_nodes: least,
            max_nodes: (nodes as u32 + rng.u32(0..=3)).max(least),
        };
        let scale = if scale.data { scale } else { Scale { shards: 0, replicas: 1, ..scale } };
        let chance = rng.clone().u64(..);
        let span = secs(rng, 900, 2100);
        let mut plot = Plot { turns: Vec::new(), span, rng, slots: 0 };
        plot.people();
        plot.of(profile);
        let mut turns = plot.turns;
        turns.sort_by_key(|(at, _)| *at);
        // Of a chance of its own: stories are the same with and without.
        let windows = windows(&mut Rng::with_seed(chance), &scale);
        Cast {
            windows,
            store: Store::draw(&mut Rng::with_seed(chance.wrapping_add(1))),
            scale,
            load: curve(rng, nodes as f64, span),
            interval: if rng.u32(0..4) == 0 { 15 } else { 30 },
            span,
            turns,
        }
    }
}

/// In half of the stories none, else one or two that open several times.
fn windows(rng: &mut Rng, scale: &Scale) -> String {
    let count = [0, 0, 1, 2][rng.usize(0..4)];
    let window = |n: u32| {
        let period = [5, 10, 15, 30][rng.usize(0..4)];
        let lasts = rng.u32(1..period);
        let nodes = rng.u32(scale.min_nodes..=scale.max_nodes);
        let asks = match rng.u32(0..5) {
            0 => "freeze: down".into(),
            1 => "freeze: all".into(),
            2 => format!("min_nodes: {nodes}"),
            _ => format!("desired_nodes: {nodes}"),
        };
        let ahead = rng.bool();
        format!("{{name: w{n}, start: '*/{period} * * * *', duration: {lasts}m, ahead: {ahead}, {asks}}}")
    };
    (0..count).map(window).collect::<Vec<_>>().join(", ")
}

fn secs(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.u64(least * 1000..=most * 1000))
}

fn curve(rng: &mut Rng, nodes: f64, span: Duration) -> Curve {
    let mut level = || nodes * (0.1 + rng.f64());
    let (one, other) = (level(), level());
    match rng.u32(0..6) {
        0 => Curve::Constant(one),
        1 | 2 => Curve::Step { before: one, after: other, at: span.mul_f64(rng.f64()) },
        3 => Curve::Ramp { from: one, to: other, over: span },
        4 => Curve::Sine { mean: one, swing: other / 2.0, period: span.mul_f64(0.3 + rng.f64()) },
        _ => {
            let from = span.mul_f64(rng.f64());
            Curve::Outage { level: one, from, until: from + secs(rng, 60, 900) }
        }
    }
}

/// The turns as they are thought up.
struct Plot<'a> {
    turns: Vec<(Duration, Turn)>,
    span: Duration,
    rng: &'a mut Rng,
    slots: u32,
}

impl Plot<'_> {
    fn at_some_time(&mut self, turn: Turn) -> Duration {
        let at = self.span.mul_f64(self.rng.f64());
        self.turns.push((at, turn));
        at
    }

    /// One thing, and after a while another.
    fn for_a_while(&mut self, least: u64, most: u64, begins: Turn, ends: Turn) {
        let at = self.at_some_time(begins);
        let until = at + secs(self.rng, least, most);
        self.turns.push((until, ends));
    }

    fn times(&mut self, least: u32, most: u32, mut what: impl FnMut(&mut Self)) {
        for _ in 0..self.rng.u32(least..=most) {
            what(self);
        }
    }

    fn people(&mut self) {
        self.times(0, 4, |plot| {
            let kinds = [Kind::ScaleUp, Kind::ScaleUp, Kind::ScaleDown, Kind::ScaleDown, Kind::Rebalance];
            let kind = kinds[plot.rng.usize(0..kinds.len())];
            plot.at_some_time(Turn::Ask(kind));
        });
        if self.rng.u32(0..4) == 0 {
            let mode = if self.rng.bool() { Mode::Stopped } else { Mode::Observe };
            self.for_a_while(60, 900, Turn::Set(mode), Turn::Set(Mode::Active));
        }
        if self.rng.u32(0..3) == 0 {
            self.for_a_while(5, 300, Turn::Order(Verb::Pause), Turn::Order(Verb::Resume));
        }
        self.times(0, 2, |plot| {
            let orders = [Verb::Cancel, Verb::Retry, Verb::Resume];
            let verb = orders[plot.rng.usize(0..orders.len())];
            plot.at_some_time(Turn::Order(verb));
        });
        self.times(0, 1, |plot| {
            let adopt = plot.rng.bool();
            plot.at_some_time(Turn::Tidy { adopt });
        });
    }

    fn of(&mut self, profile: Profile) {
        match profile {
            Profile::Calm => {}
            Profile::Crashy => {
                self.weather();
                self.times(3, 8, Self::crash);
                self.times(0, 2, |plot| {
                    plot.at_some_time(Turn::Restart);
                });
            }
            Profile::Partition => {
                self.weather();
                self.times(1, 3, Self::partition);
                self.times(0, 1, Self::crash);
            }
            Profile::DiskFull => {
                self.weather();
                self.times(1, 4, Self::full_disk);
                self.times(0, 2, Self::crash);
            }
            Profile::Liar => {
                self.weather();
                self.times(1, 4, Self::liar);
                self.times(0, 1, Self::crash);
                self.times(0, 1, Self::death);
            }
            Profile::SlowDb => {
                self.weather();
                self.times(1, 3, Self::slow);
                self.times(0, 1, Self::crash);
            }
            Profile::ClockJumps => {
                self.times(1, 4, Self::jump);
                self.times(0, 2, Self::crash);
            }
            Profile::Deaths => {
                self.times(1, 3, Self::death);
                self.times(0, 2, Self::crash);
                if self.rng.bool() {
                    self.weather();
                }
            }
            Profile::Mixed => {
                self.weather();
                let all = [
                    Self::crash,
                    Self::crash,
                    Self::partition,
                    Self::full_disk,
                    Self::liar,
                    Self::slow,
                    Self::jump,
                    Self::death,
                ];
                self.times(3, 8, |plot| {
                    let pick = plot.rng.usize(0..all.len());
                    all[pick](plot);
                });
            }
        }
    }

    fn weather(&mut self) {
        let most = if self.rng.bool() { 150 } else { 500 };
        let (calls, reads) = (self.rng.u32(20..=most), self.rng.u32(0..=most / 3));
        let latest = if self.rng.u32(0..5) == 0 { 900 } else { 60 };
        let latest = secs(self.rng, 1, latest);
        self.turns.push((Duration::ZERO, Turn::Weather { calls, reads, latest }));
    }

    fn crash(&mut self) {
        let again = (self.rng.u32(0..3) == 0).then(|| self.rng.u32(1..=30));
        let after = self.rng.u32(1..=120);
        self.at_some_time(Turn::Crash { after, again });
    }

    fn slot(&mut self) -> u32 {
        self.slots += 1;
        self.slots
    }

    fn strike(&mut self, least: u64, most: u64, blow: Blow, then: Blow) {
        let slot = self.slot();
        self.for_a_while(least, most, Turn::Strike { slot, blow }, Turn::Then { slot, blow: then });
    }

    fn partition(&mut self) {
        match self.rng.u32(0..5) {
            0 => self.for_a_while(10, 600, Turn::Listing(Listing::Fails), Turn::Listing(Listing::Told)),
            1 => self.for_a_while(10, 600, Turn::Listing(Listing::Empty), Turn::Listing(Listing::Told)),
            2 => self.for_a_while(10, 600, Turn::StoreSilent(true), Turn::StoreSilent(false)),
            _ => self.times(1, 3, |plot| plot.strike(10, 1200, Blow::CutOff, Blow::Mends)),
        }
    }

    fn full_disk(&mut self) {
        let writes = self.rng.u32(1..=80);
        self.at_some_time(Turn::Fill(writes));
    }

    fn liar(&mut self) {
        let blows = [Blow::Lies, Blow::Denies, Blow::Lags, Blow::Lags, Blow::FallsMute];
        let blow = blows[self.rng.usize(0..blows.len())];
        self.strike(20, 900, blow, Blow::Mends);
    }

    fn slow(&mut self) {
        match self.rng.u32(0..4) {
            0 => {
                let longest = secs(self.rng, 1, 25);
                self.for_a_while(30, 900, Turn::Slow(longest), Turn::Slow(Duration::ZERO));
            }
            1 => {
                let usual = Turn::Flight(Some(Duration::from_secs(5)));
                self.for_a_while(60, 1800, Turn::Flight(None), usual);
            }
            2 => {
                let long = secs(self.rng, 20, 900);
                let usual = Turn::Flight(Some(Duration::from_secs(5)));
                self.for_a_while(60, 1200, Turn::Flight(Some(long)), usual);
            }
            _ => self.for_a_while(5, 120, Turn::StoreSilent(true), Turn::StoreSilent(false)),
        }
    }

    fn jump(&mut self) {
        let most = if self.rng.bool() { 60_000 } else { 3 * 3_600_000 };
        let by = self.rng.i64(-most..=most);
        self.at_some_time(Turn::Jump(by));
    }

    fn death(&mut self) {
        let slot = self.slot();
        match self.rng.u32(0..6) {
            0 => {
                self.at_some_time(Turn::Strike { slot, blow: Blow::DiesForGood });
            }
            1 => {
                self.at_some_time(Turn::Strike { slot, blow: Blow::Vanishes });
            }
            2 => self.strike(10, 1500, Blow::Dies, Blow::ComesBackEmpty),
            _ => self.strike(10, 1500, Blow::Dies, Blow::ComesBack),
        }
    }
}
