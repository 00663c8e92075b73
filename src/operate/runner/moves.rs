//! Rebalance, drain and restore: a few shards at a time, planned anew from a fresh view whenever one has arrived, each a
//! step of its own. One loop: the view is read once, every copy on its way is held against it, and further ones are begun
//! while there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::sight::{Busy, Status, as_arrived, status};
use super::throttle::{self, Level, Slots};
use super::work::{Halt, Outcome, Run};
use crate::model::{Inventory, Move, NodeId, ShardId, Step, StepAction, StepEvent, Timestamp};
use crate::operate::drivers::{Call, Effect};
use crate::operate::placement::Placing;
use crate::operate::plan::{self, add_step};
use crate::operate::shards::{Infeasible, plan_drain, plan_fill, plan_restore};

/// Transfers in flight at most, however calm it is.
const MOST: u32 = 4;
/// Attempts at one relocation.
const ATTEMPTS: u32 = 3;
/// Before the second attempt, and before the third: a hiccup is over in seconds, a cluster that looks for a leader may need
/// some elections.
const PAUSES: [Duration; ATTEMPTS as usize - 1] = [Duration::from_secs(5), Duration::from_secs(60)];
/// Views in a row without a trace of a relocation, before it counts as not running.
const QUIET_LOOKS: u32 = 3;
/// Views in a row in which a node that was dead is healthy, before it counts as back.
const GOOD_LOOKS: u32 = 3;

/// The work of one rebalance, drain or restore, since this start.
struct Shift {
    /// Its place among the steps.
    step: usize,
    /// The copies on their way, by the number of their step.
    flights: BTreeMap<u32, Flight>,
    /// Moves of the last plan that are not begun yet.
    to_come: Vec<Move>,
    /// The copies that took a slot, and the room that there was, when that plan was made.
    planned_for: (Vec<u32>, usize),
    progress_at: Instant,
    trouble: String,
    /// Why no further copy is begun: one has come to nothing, or none is needed any more.
    failed: Option<String>,
    /// Views in a row in which the node whose copies are made anew was healthy.
    well: u32,
    slots: Slots,
    level: Level,
    /// The last check that the slots are after.
    heard_at: Option<Timestamp>,
    /// Why there are not more slots.
    slow: Option<String>,
    /// It has waited long enough: one shard at a time, however searching is.
    is_undeterred: bool,
}

impl Shift {
    /// Copies that are to be asked for again, and not just yet: they take no slot.
    fn resting(&self) -> Vec<u32> {
        self.flights.iter().filter(|(_, flight)| flight.rests()).map(|(seq, _)| *seq).collect()
    }

    /// Whether one more attempt may go on beside those that do.
    fn has_room(&self) -> bool {
        let busy = self.flights.values().filter(|flight| flight.is_watched).count();
        busy == 0 || busy < self.planned_for.1
    }
}

/// One copy on its way, since this start.
struct Flight {
    tries: u32,
    /// Asked for, or of before a crash, and so to be watched; else it is to be asked for.
    is_watched: bool,
    /// The next attempt comes no sooner.
    rests_until: Instant,
    why: String,
    progress_at: Instant,
    bytes: u64,
    quiet: u32,
    /// Views in which it was copied and not dropped at its source.
    copied: u32,
}

impl Flight {
    fn new(is_watched: bool) -> Flight {
        Flight {
            tries: 0,
            is_watched,
            rests_until: Instant::now(),
            why: "it never started".into(),
            progress_at: Instant::now(),
            bytes: 0,
            quiet: 0,
            copied: 0,
        }
    }

    fn asked(&mut self) {
        *self = Flight { tries: self.tries, ..Flight::new(true) };
    }

    /// The next attempt comes after a pause, but not after more than `stuck`.
    fn came_to_nothing(&mut self, stuck: Duration) {
        let pause = self.tries.checked_sub(1).and_then(|n| PAUSES.get(n as usize));
        self.rests_until = Instant::now() + pause.copied().unwrap_or_default().min(stuck);
        (self.is_watched, self.bytes) = (false, 0);
    }

    fn rests(&self) -> bool {
        !self.is_watched && Instant::now() < self.rests_until
    }

    /// What a view shows of it. Says whether the attempt has come to nothing.
    fn looked(&mut self, status: &Status, stuck: Duration) -> bool {
        self.quiet = if *status == Status::Quiet { self.quiet + 1 } else { 0 };
        match status {
            Status::Moving(bytes) => {
                self.progressed(*bytes);
                self.why = format!("no progress for {} s", stuck.as_secs());
            }
            Status::Doubtful(why) => self.why.clone_from(why),
            Status::Copied => self.why = "the source does not drop its copy".into(),
            _ => self.why = "the cluster does not carry it out".into(),
        }
        self.quiet >= QUIET_LOOKS || self.progress_at.elapsed() >= stuck
    }

    fn progressed(&mut self, bytes: u64) {
        if bytes > self.bytes {
            (self.bytes, self.progress_at) = (bytes, Instant::now());
        }
    }
}

impl Run {
    /// Spreads the shards, empties a node, or makes a dead one's copies anew.
    pub(super) async fn shift(&mut self, step: usize) -> Result<Outcome, Halt> {
        self.begin_step(step).await?;
        let mut shift = Shift {
            step,
            flights: BTreeMap::new(),
            to_come: Vec::new(),
            planned_for: (Vec::new(), 0),
            progress_at: Instant::now(),
            trouble: "the shards in transfer do not arrive".into(),
            failed: None,
            well: 0,
            slots: Slots::ONE,
            level: self.found().and_then(|found| found.level).unwrap_or_default(),
            heard_at: None,
            slow: None,
            is_undeterred: false,
        };
        loop {
            let seen = self.unless_stopped(self.hands.datastore.inventory(None)).await?;
            let seen = seen.map_err(|why| format!("the cluster does not answer: {why}"));
            // Copies that were under way when the controller ended are among them, and come first.
            for seq in self.open_copies() {
                self.follow(&mut shift, seq, &seen).await?;
            }
            if !self.open_copies().is_empty() {
                shift.progress_at = Instant::now(); // each has a deadline of its own
            } else if let Some(why) = shift.failed {
                return self.fail_step(step, why).await;
            } else if self.cancelled() {
                return Ok(Outcome::Cancelled);
            } else if self.is_held() {
                self.until_allowed().await?;
                shift.progress_at = Instant::now();
                continue;
            }
            match seen {
                Err(why) => shift.trouble = why,
                Ok(seen) => {
                    if self.further(&mut shift, &seen).await? {
                        self.operation.detail.clear();
                        return Ok(Outcome::Done(None));
                    }
                }
            }
            if shift.progress_at.elapsed() >= self.operation.steps[step].deadline {
                match self.patience(&mut shift) {
                    Ok(()) => shift.progress_at = Instant::now(),
                    Err(why) => return self.fail_step(step, why).await,
                }
            }
            self.rest(self.pace.probe).await?;
        }
    }

    /// Plans anew and begins what there is room for; says whether nothing is left to do.
    async fn further(&mut self, shift: &mut Shift, seen: &Inventory) -> Result<bool, Halt> {
        let room = self.room(shift).await?;
        let (open, resting) = (self.open_copies(), shift.resting());
        let slots = |open: Vec<u32>| open.into_iter().filter(|seq| !resting.contains(seq)).collect::<Vec<u32>>();
        let taken = slots(open.clone());
        let nothing_new = !open.is_empty() && shift.planned_for == (taken.clone(), room);
        let is_back = self.is_back(shift, seen);
        if nothing_new || is_back || shift.failed.is_some() || self.cancelled() || self.is_held() {
            return Ok(false);
        }
        let placing = self.unless_stopped(self.placing()).await?;
        let plan = match self.next_moves(shift.step, seen, &placing) {
            Ok(plan) => plan,
            // It was feasible at the start: a node that is ill just now may be well again before the deadline.
            Err(why) => {
                shift.trouble = why.to_string();
                return Ok(false);
            }
        };
        if plan.is_empty() && open.is_empty() && self.at_rest(shift.step, seen) {
            return Ok(true);
        }
        shift.to_come.clone_from(&plan);
        self.count(shift);
        let busy = Busy::of(seen, self.on_their_way().filter_map(StepAction::copy));
        let (begin, wait) = busy.admit(plan, room.saturating_sub(taken.len()));
        for copy in begin {
            self.begin_copy(shift, copy).await?;
        }
        shift.to_come = wait;
        shift.planned_for = (slots(self.open_copies()), room);
        Ok(false)
    }

    /// Whether the node whose copies are made anew is healthy in this view. Seen a few times in a row it is back, with its
    /// copies: more of them would be too many.
    fn is_back(&self, shift: &mut Shift, seen: &Inventory) -> bool {
        let StepAction::Restore { node } = &self.operation.steps[shift.step].action else { return false };
        let is_healthy = seen.member(node).is_some_and(|member| member.healthy);
        shift.well = if is_healthy { shift.well + 1 } else { 0 };
        if shift.well >= GOOD_LOOKS {
            shift.failed.get_or_insert_with(|| format!("{node} is healthy again"));
        }
        is_healthy
    }

    /// How many copies may be on their way just now, as those who search take it.
    async fn room(&mut self, shift: &mut Shift) -> Result<usize, Halt> {
        match self.standing.service() {
            None => shift.slots = Slots::ONE,
            Some(service) if shift.heard_at == Some(service.at) => {}
            Some(service) => {
                shift.heard_at = Some(service.at);
                (shift.slots, shift.slow) = throttle::next(shift.slots, &shift.level, &service, MOST);
                if shift.slots.paused && shift.is_undeterred {
                    shift.slots = Slots::ONE;
                }
                self.slows(shift.slots, shift.slow.as_deref()).await?;
            }
        }
        Ok(if shift.slots.paused { 0 } else { shift.slots.open as usize })
    }

    /// Says in the operation why it goes slowly, or that it no longer does.
    async fn slows(&mut self, slots: Slots, why: Option<&str>) -> Result<(), Halt> {
        let pace = match slots {
            Slots { paused: true, .. } => "no further shard is moved for now".to_string(),
            Slots { open: 1, .. } => "one shard at a time".to_string(),
            Slots { open, .. } => format!("{open} shards at a time"),
        };
        let detail = why.map(|why| format!("{pace}: {why}")).unwrap_or_default();
        if detail == self.operation.detail {
            return Ok(());
        }
        tracing::info!(operation = %self.operation.id, slots = slots.open, "{pace}: {}", why.unwrap_or("calm again"));
        self.operation.detail = detail;
        self.write(None, None).await
    }

    /// Nothing went on until the deadline. What searching is like while nothing moves is not the moves' doing: work that is
    /// to relieve or repair goes on, one shard at a time. A drain can wait for another day.
    fn patience(&self, shift: &mut Shift) -> Result<(), String> {
        let drains = matches!(self.operation.steps[shift.step].action, StepAction::Drain { .. });
        match shift.slow.clone().filter(|_| shift.slots.paused) {
            Some(_) if !drains => {
                (shift.is_undeterred, shift.slots) = (true, Slots::ONE);
                Ok(())
            }
            Some(why) => Err(why),
            None => Err(shift.trouble.clone()),
        }
    }

    /// Whether nothing is left to wait for.
    fn at_rest(&self, i: usize, seen: &Inventory) -> bool {
        let busy = seen.nodes_in_transfer();
        match &self.operation.steps[i].action {
            StepAction::Drain { node } => seen.on(node).next().is_none() && !busy.contains(node),
            _ => !self.operation.nodes.iter().any(|node| busy.contains(node)),
        }
    }

    /// What is to be moved besides the copies on their way, the most urgent first.
    fn next_moves(&self, i: usize, seen: &Inventory, placing: &Placing) -> Result<Vec<Move>, Infeasible> {
        let then = as_arrived(seen, self.on_their_way());
        match &self.operation.steps[i].action {
            StepAction::Drain { node } => plan_drain(&then, node, placing),
            StepAction::Restore { node } => plan_restore(&then, node, placing),
            _ => {
                let mut placing = placing.clone();
                placing.given_up.extend(self.moved(|m| &m.from));
                // A copy is moved once in an operation, so that a rebalance ends.
                Ok(plan_fill(&then, &self.operation.nodes, &self.moved(|m| &m.to), &placing))
            }
        }
    }

    /// The shards that this operation has moved or moves, each with one end of its move.
    fn moved(&self, end: fn(&Move) -> &NodeId) -> BTreeSet<(ShardId, NodeId)> {
        let on_their_way = self.on_their_way().filter_map(StepAction::copy);
        plan::moved(&self.operation).chain(on_their_way).map(|m| (m.shard.clone(), end(m).clone())).collect()
    }

    fn on_their_way(&self) -> impl Iterator<Item = &StepAction> {
        self.operation.steps.iter().filter(is_open_copy).map(|step| &step.action)
    }

    /// The numbers of their steps; a place among the steps changes with each that is added.
    fn open_copies(&self) -> Vec<u32> {
        self.operation.steps.iter().filter(is_open_copy).map(|step| step.seq).collect()
    }

    /// Brings the numbers of work done and left up to date; says whether they changed.
    fn count(&mut self, shift: &Shift) -> bool {
        let sum = |moves: &mut dyn Iterator<Item = u64>| moves.fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes));
        let done: (u32, u64) = sum(&mut plan::moved(&self.operation).map(|m| m.bytes));
        let open: (u32, u64) = sum(&mut self.on_their_way().filter_map(StepAction::copy).map(|m| m.bytes));
        let come: (u32, u64) = sum(&mut shift.to_come.iter().map(|m| m.bytes));
        let arrived: u64 = shift.flights.values().map(|flight| flight.bytes).sum();
        let operation = &mut self.operation;
        let before = (operation.shards_left, operation.bytes_left);
        let left = (open.0 + come.0, open.1 + come.1);
        (operation.shards_total, operation.bytes_total) = (done.0 + left.0, done.1 + left.1);
        (operation.shards_left, operation.bytes_left) = (left.0, left.1.saturating_sub(arrived));
        before != (operation.shards_left, operation.bytes_left)
    }

    // ---- one copy

    fn place(&self, seq: u32) -> Option<usize> {
        self.operation.steps.iter().position(|step| step.seq == seq)
    }

    /// A new copy, written down before it is asked for. One that may not begin any more is none.
    async fn begin_copy(&mut self, shift: &mut Shift, copy: Move) -> Result<(), Halt> {
        let place = self.operation.steps.iter().rposition(|step| step.action.copy().is_some()).unwrap_or(shift.step);
        let action = match self.operation.steps[shift.step].action {
            StepAction::Restore { .. } => StepAction::Replicate(copy),
            _ => StepAction::Move(copy),
        };
        let i = add_step(&mut self.operation, action, &self.pace.deadlines, Some(place));
        let seq = self.operation.steps[i].seq;
        if !self.ask_for(shift, i).await? {
            self.operation.steps.retain(|step| step.seq != seq);
        }
        Ok(())
    }

    /// One attempt. `false`, and nothing is written, when it was meanwhile forbidden, paused or cancelled.
    async fn ask_for(&mut self, shift: &mut Shift, i: usize) -> Result<bool, Halt> {
        if !self.begin_effect(i).await? {
            return Ok(false);
        }
        let Some(copy) = self.operation.steps[i].action.copy().cloned() else { return Ok(false) };
        let call = self.call(i);
        let asked = tokio::time::timeout(self.pace.deadlines.call, self.start(i, &call, &copy));
        let answer = self.unless_stopped(asked).await?;
        let flight = shift.flights.entry(self.operation.steps[i].seq).or_insert_with(|| Flight::new(false));
        flight.tries += 1;
        match answer {
            Ok(Effect::NoEffect(said)) => {
                flight.why = said;
                flight.came_to_nothing(self.operation.steps[i].deadline);
            }
            // Done, under way or unknown: the cluster itself will tell.
            _ => flight.asked(),
        }
        Ok(true)
    }

    async fn start(&self, i: usize, call: &Call, copy: &Move) -> Effect<()> {
        match self.operation.steps[i].action {
            StepAction::Replicate(_) => self.hands.datastore.replicate(call, copy).await,
            _ => self.hands.datastore.start_move(call, copy).await,
        }
    }

    /// Holds one copy against the view: it has arrived, goes on, or is to be tried again, up to three times.
    async fn follow(&mut self, shift: &mut Shift, seq: u32, seen: &Result<Inventory, String>) -> Result<(), Halt> {
        let Some(i) = self.place(seq) else { return Ok(()) };
        let step = &self.operation.steps[i];
        let (stuck, is_begun) = (step.deadline, step.state.is_in_doubt());
        let Some(copy) = step.action.copy().cloned() else { return Ok(()) };
        let flight = shift.flights.entry(seq).or_insert_with(|| Flight::new(is_begun));
        if self.is_held() {
            flight.progress_at = Instant::now(); // time in which nothing may be done counts against no deadline
        }
        let stands = seen.as_ref().map(|seen| status(seen, &step.action, &copy));
        let came_to_nothing = match &stands {
            Ok(Status::Arrived) if is_begun => return self.arrived(shift, i).await,
            _ if !flight.is_watched => return self.again(shift, i).await,
            Ok(Status::Gone) => {
                let note = "the shard was moved or dropped by other hands".to_string();
                shift.flights.remove(&seq);
                return self.end_step(i, StepEvent::Dropped, None, Some(note)).await;
            }
            Ok(status) => flight.looked(status, stuck),
            Err(why) => {
                flight.why.clone_from(why);
                flight.progress_at.elapsed() >= stuck
            }
        };
        let came_to_nothing = match stands {
            Ok(Status::Copied) => came_to_nothing || self.finish_copy(shift, i, &copy).await?,
            _ => came_to_nothing,
        };
        if self.count(shift) {
            self.progress().await;
        }
        if !came_to_nothing || self.is_held() || !self.begin_end(i).await? {
            return Ok(());
        }
        let Some(flight) = shift.flights.get_mut(&seq) else { return Ok(()) };
        flight.came_to_nothing(stuck);
        self.call_off(i, &copy).await
    }

    /// The next attempt at a copy that came to nothing, or its end.
    async fn again(&mut self, shift: &mut Shift, i: usize) -> Result<(), Halt> {
        let seq = self.operation.steps[i].seq;
        let Some(flight) = shift.flights.get(&seq) else { return Ok(()) };
        let (tries, rests, why) = (flight.tries, flight.rests(), flight.why.clone());
        if self.is_held() {
            return Ok(());
        }
        // This shard stays where it is.
        let stays = if self.cancelled() { Some("cancelled".to_string()) } else { shift.failed.clone() };
        if let Some(stays) = stays {
            shift.flights.remove(&seq);
            return self.end_step(i, StepEvent::Dropped, None, Some(stays)).await;
        }
        if tries >= ATTEMPTS {
            shift.flights.remove(&seq);
            shift.failed = Some(why.clone());
            return self.end_step(i, StepEvent::Failed, None, Some(why)).await;
        }
        if rests || !shift.has_room() {
            return Ok(());
        }
        self.ask_for(shift, i).await.map(|_| ())
    }

    async fn arrived(&mut self, shift: &mut Shift, i: usize) -> Result<(), Halt> {
        shift.flights.remove(&self.operation.steps[i].seq);
        self.end_step(i, StepEvent::Succeeded, None, None).await?;
        self.count(shift);
        self.progress().await;
        Ok(())
    }

    /// Lets the source drop its copy, in a store that does not do so by itself; also when cancelled, for the shard is there.
    /// Asked again at every third look. Says whether the attempt has come to nothing.
    async fn finish_copy(&mut self, shift: &mut Shift, i: usize, copy: &Move) -> Result<bool, Halt> {
        let Some(flight) = shift.flights.get_mut(&self.operation.steps[i].seq) else { return Ok(false) };
        flight.progressed(copy.bytes);
        if !flight.copied.is_multiple_of(QUIET_LOOKS) {
            flight.copied += 1;
            return Ok(false);
        }
        // Written down with the intent: whoever dies now will never hear an answer.
        let before = std::mem::replace(&mut self.operation.steps[i].late_drop, true);
        if self.is_held() || !self.begin_end(i).await? {
            self.operation.steps[i].late_drop = before;
            return Ok(false);
        }
        flight.copied += 1;
        let call = self.call(i);
        let asked = tokio::time::timeout(self.pace.deadlines.call, self.hands.datastore.finish_move(&call, copy));
        let answer = self.unless_stopped(asked).await?;
        if !matches!(answer, Err(_) | Ok(Effect::Unknown(_))) {
            self.operation.steps[i].late_drop = before;
        }
        match answer {
            Ok(Effect::NoEffect(why)) => {
                flight.why = format!("the source does not drop its copy: {why}");
                Ok(flight.copied > ATTEMPTS * QUIET_LOOKS)
            }
            // Done, under way or unknown: the cluster itself will tell.
            _ => Ok(false),
        }
    }

    /// Ends an attempt that came to nothing, one of before a crash too, so that the next one starts clean. What the store
    /// makes of it shows in the next view.
    async fn call_off(&mut self, i: usize, relocation: &Move) -> Result<(), Halt> {
        let call = self.call(i);
        let asked = tokio::time::timeout(self.pace.deadlines.call, self.hands.datastore.cancel_move(&call, relocation));
        if let Ok(Effect::NoEffect(why) | Effect::Unknown(why)) = self.unless_stopped(asked).await? {
            tracing::warn!(shard = %relocation.shard, why, "a relocation could not be called off");
        }
        Ok(())
    }
}

fn is_open_copy(step: &&Step) -> bool {
    step.action.copy().is_some() && step.state.is_open()
}
